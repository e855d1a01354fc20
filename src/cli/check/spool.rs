//! The spool as the next start will find it: whether this version reads it. It is only looked at while no server has it.
//!
//! Without `--connect` a few octets of each segment are read, for the check stands before every start; with it all.

use std::path::Path;

use super::Finding;
use crate::spool::offline::{Look, NotRead, Offline, Problem};

/// What to do where another version wrote it, besides what the spool says itself.
const OTHER: &str = "nothing was changed, and nothing will be; docs/spool.md has all ways on";
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
    let more = match problems.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    match (problems.iter().find(is_other), problems.first(), look) {
        (Some(other), _, _) => Some(Finding::bad(what, refused(&format!("{}{more}", other.text())), OTHER)),
        (None, Some(damage), _) => Some(Finding::doubtful(what, format!("{}{more}", damage.text()), DAMAGE)),
        (None, None, Look::Whole) => Some(Finding::well(what, format!("is read; {} messages wait", offline.count()))),
        (None, None, Look::Headers) => None,
    }
}

fn refused(why: &str) -> String {
    format!("a start is refused: {why}")
}
