//! The spool as the next start will find it: whether this version reads it. It is only looked at while no server has it.
//!
//! Without `--connect` a few octets of each segment are read, for the check stands before every start; with it all.

use std::path::Path;

use super::Finding;
use crate::spool::offline::{Look, NotRead, Offline, Problem};

/// What to do where another version wrote it, besides what the spool says itself.
const OTHER: &str = "nothing was changed, and nothing will be; docs/spool.md has all ways on";
/// Whether a start is refused depends on what stands there, and on whether the disk gives it by then.
const WITHHELD: &str =
    "look at the disk: a start is refused while that may say what became of mail; docs/spool.md has all ways on";
const DAMAGE: &str = "a start lays aside what is left of it; docs/spool.md says what to do then";

/// Looks at it. `None`: there is nothing to say, or a server has it, or it is not ours to read.
pub(super) fn look(state_dir: &Path, look: Look) -> Option<Finding> {
    let folder = state_dir.join("spool");
    let what = format!("spool {}", folder.display());
    let offline = match (Offline::read(&folder, look), look) {
        (Ok(offline), _) => offline,
        (Err(NotRead::OtherFormat(error)), _) => return Some(Finding::bad(what, refused(&error.to_string()), OTHER)),
        (Err(NotRead::Missing(_) | NotRead::InUse(_)), _) | (Err(NotRead::Io(_)), Look::Headers) => return None,
        (Err(NotRead::Io(error)), Look::Whole) => {
            return Some(Finding::doubtful(what, error.to_string(), "check as the user that the server runs as"));
        }
    };
    let problems = offline.problems();
    let is_other = |problem: &&Problem| matches!(problem, Problem::OtherFormat(_));
    let is_withheld = |problem: &&Problem| matches!(problem, Problem::Withheld(_));
    let worst = problems.iter().find(is_other).or_else(|| problems.iter().find(is_withheld));
    let more = match problems.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let text = |problem: &Problem| format!("{}{more}", problem.text());
    match (worst.or_else(|| problems.first()), look) {
        (Some(other @ Problem::OtherFormat(_)), _) => Some(Finding::bad(what, refused(&text(other)), OTHER)),
        (Some(withheld @ Problem::Withheld(_)), _) => Some(Finding::doubtful(what, text(withheld), WITHHELD)),
        (Some(damage @ Problem::Damage(_)), _) => Some(Finding::doubtful(what, text(damage), DAMAGE)),
        (None, Look::Whole) => Some(Finding::well(what, format!("is read; {} messages wait", offline.count()))),
        (None, Look::Headers) => None,
    }
}

fn refused(why: &str) -> String {
    format!("a start is refused: {why}")
}
