//! Checks whether this version can read the spool. Only done while no server uses it.
//!
//! Without `--connect` only headers of segments are read, because the check runs before every start; with it
//! everything.

use super::Finding;
use crate::config::Config;
use crate::run;
use crate::spool::moved::Moved;
use crate::spool::offline::{Look, NotRead, Offline, Problem};

/// The remedy if another version wrote it, in addition to the error's own text.
const OTHER: &str = "nothing was changed, and nothing will be; docs/spool.md has all ways on";
/// A start may be refused, depending on what is in the unreadable part and whether the disk can read it by then.
const WITHHELD: &str =
    "look at the disk: a start is refused while that may say what became of mail; docs/spool.md has all ways on";
const DAMAGE: &str = "a start lays aside what is left of it; docs/spool.md says what to do then";

/// Checks it. `None`: there is nothing to report, or a server uses it, or we may not read it.
pub(super) fn look(config: &Config, look: Look) -> Option<Finding> {
    let folder = config.server.state_dir.join("spool");
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
        (None, Look::Whole) => Some(match (offline.count(), &config.cluster) {
            (count, None) => Finding::well(what, format!("is read; {count} messages wait")),
            (_, Some(_)) if Moved::read(&folder).is_ok_and(|moved| moved.is_some()) => {
                Finding::well(what, "was moved to the database of [cluster], and is not used")
            }
            (0, Some(_)) => Finding::well(what, "is empty, and not used with [cluster]"),
            (count, Some(_)) => {
                let found = format!("{count} messages wait in it, and [cluster] does not look after them");
                Finding::bad(what, refused(&found), "run `fingerpost cluster import`, which moves them")
            }
        }),
        (None, Look::Headers) => None,
    }
}

/// Checks whether its mail was moved to a cluster. `None`: it was not, or we may not read it.
pub(super) fn mark(config: &Config) -> Option<Finding> {
    let folder = config.server.state_dir.join("spool");
    if std::fs::read_dir(&folder).is_err() {
        return None;
    }
    let what = format!("spool {}", folder.display());
    let why = run::spool::look_at_mark(config).err()?;
    Some(Finding::bad(what, refused(&why), "docs/cluster.md says how mail is moved"))
}

fn refused(why: &str) -> String {
    format!("a start is refused: {why}")
}
