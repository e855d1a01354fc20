//! How many dead letters there may be, and how old: nobody reads some folders, and a storm of forged mail must not fill the
//! disk with them.
//!
//! `delivery` asks for a [`Sweep::run`] now and then. It says what goes soon, and removes what is too old or too many, the
//! oldest first. What was there at a start stays for an hour, so that an upgrade removes nothing unseen.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use super::folder;
use crate::config::Reports;
use crate::message::queue_id::QueueId;
use crate::time::UnixTime;

/// How long before it goes for its age a letter is told of.
const SOON: Duration = Duration::from_hours(3 * 24);
/// How often.
const TOLD_EVERY: Duration = Duration::from_hours(24);
/// After a start so long nothing goes that was there.
const SEEN: Duration = Duration::from_hours(1);

/// What one sweep did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Letters that are left.
    pub left: usize,
    /// Of these, those that go soon.
    pub leaving: usize,
    /// Removed for their age.
    pub aged: usize,
    /// Removed because there were too many.
    pub beyond: usize,
}

/// What has to be remembered from one sweep to the next.
#[derive(Debug, Default)]
pub struct Sweep {
    /// When the first was, and how many letters there were.
    started: Option<(UnixTime, usize)>,
    /// When it was last told that some go soon.
    told: Option<UnixTime>,
}

/// One letter: when it was kept, and its files.
type Letter = (UnixTime, Vec<PathBuf>);

impl Sweep {
    /// Looks through the folder below `state_dir`.
    pub fn run(&mut self, state_dir: &Path, rules: &Reports, now: UnixTime) -> Swept {
        let letters = letters(&folder(state_dir));
        let (started, there) = *self.started.get_or_insert((now, letters.len()));
        let is_seen = now.since(started) >= SEEN;
        let (keep, max) = (rules.keep_dead_letters, rules.max_dead_letters);
        let most = if is_seen { max } else { max.max(there) };
        let is_old = |letter: &Letter, ahead| now.plus(ahead).since(letter.0) >= keep;
        let aged = letters.iter().take_while(|letter| is_seen && is_old(letter, Duration::ZERO)).count();
        let beyond = (letters.len() - aged).saturating_sub(most);
        // Until then those that came since make room.
        let from = if is_seen { 0 } else { letters.partition_point(|letter| letter.0 < started) };
        let mut staying = letters;
        let to = (from + aged + beyond).min(staying.len());
        let going: Vec<Letter> = staying.drain(from..to).collect();
        let beyond = going.len() - aged;
        let soon = staying.iter().take_while(|letter| is_old(letter, SOON.min(keep / 10))).count();
        let leaving = soon.max(staying.len().saturating_sub(max - max.div_ceil(10)));
        self.tell(state_dir, rules, (leaving, staying.len()), now);
        if !going.is_empty() {
            tracing::warn!(
                aged, beyond, folder = %folder(state_dir).display(),
                "the oldest dead letters are removed: see `[reports] keep_dead_letters`, `max_dead_letters`"
            );
        }
        going.iter().flat_map(|(_, files)| files).for_each(|file| remove(file));
        Swept { left: staying.len(), leaving, aged, beyond }
    }

    /// Says before it happens that some go, once a day as long as that is so.
    fn tell(&mut self, state_dir: &Path, rules: &Reports, (leaving, left): (usize, usize), now: UnixTime) {
        if leaving == 0 || self.told.is_some_and(|told| told <= now && now.since(told) < TOLD_EVERY) {
            return;
        }
        self.told = Some(now);
        tracing::warn!(
            leaving, left, max_dead_letters = rules.max_dead_letters, folder = %folder(state_dir).display(),
            "dead letters will be removed, the oldest first: read them, or move away what is needed"
        );
    }
}

/// The letters of a folder, the oldest first. An envelope whose letter is gone, and what a crash left unfinished, is one
/// as well; files that are not ours are none.
fn letters(folder: &Path) -> Vec<Letter> {
    let Ok(files) = fs::read_dir(folder) else { return Vec::new() };
    let mut by_id: BTreeMap<QueueId, Letter> = BTreeMap::new();
    for file in files.flatten() {
        let name = file.file_name();
        let Some(id) = name.to_str().and_then(letter_of) else { continue };
        // Of a link this is the link's own.
        let Ok(data) = file.metadata() else { continue };
        let Some(at) = kept_at(&data).filter(|_| !data.is_dir()) else { continue };
        let letter = by_id.entry(id).or_insert((at, Vec::new()));
        letter.0 = letter.0.max(at);
        letter.1.push(file.path());
    }
    let mut letters: Vec<Letter> = by_id.into_values().collect();
    letters.sort();
    letters
}

/// Whose file it is: `ID.eml`, `ID.json`, and what they are called until they are whole.
fn letter_of(name: &str) -> Option<QueueId> {
    let whole = name.strip_prefix('.').map_or(Some(name), |name| name.strip_suffix(".new"))?;
    whole.strip_suffix(".eml").or_else(|| whole.strip_suffix(".json"))?.parse().ok()
}

fn kept_at(data: &Metadata) -> Option<UnixTime> {
    let since = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixTime(since.as_secs()))
}

fn remove(file: &Path) {
    if let Err(error) = fs::remove_file(file) {
        tracing::warn!(file = %file.display(), %error, "a dead letter cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;
    use crate::config::AllowPrivate;
    use crate::smtp::address::Address;

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const DAY: i64 = 24 * 3600;

    fn rules(max_dead_letters: usize, days: u32) -> Reports {
        Reports {
            from: Address::parse("postmaster@contoso.com").unwrap(),
            deliver_to: None,
            per_minute: 60,
            allow_private: AllowPrivate::No,
            max_dead_letters,
            keep_dead_letters: Duration::from_hours(u64::from(days) * 24),
        }
    }

    /// A file that is so many seconds old at `NOW`.
    fn file(state_dir: &Path, name: &str, age: i64) {
        let file = File::create(folder(state_dir).join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.0.saturating_add_signed(-age))).unwrap();
    }

    fn letter(state_dir: &Path, id: u64, age: i64) {
        fs::create_dir_all(folder(state_dir)).unwrap();
        [".eml", ".json"].iter().for_each(|end| file(state_dir, &format!("{}{end}", QueueId(id)), age));
    }

    fn names(state_dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder(state_dir)).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn later(seconds: i64) -> UnixTime {
        UnixTime(NOW.0.saturating_add_signed(seconds))
    }

    #[test]
    fn the_folder_is_bounded_in_number_and_the_oldest_go() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, mut sweep) = (state_dir.path(), Sweep::default());
        assert_eq!(sweep.run(path, &rules(1000, 30), NOW), Swept::default(), "there is no folder yet");
        (0..1005).for_each(|id| letter(path, id, -10 - id.cast_signed()));
        let swept = sweep.run(path, &rules(1000, 30), later(2000));
        assert_eq!(swept, Swept { left: 1000, leaving: 100, aged: 0, beyond: 5 });
        let left = names(path);
        assert_eq!((left.len(), left.contains(&format!("{}.eml", QueueId(4)))), (2000, false));
        assert!(left.contains(&format!("{}.eml", QueueId(5))) && left.contains(&format!("{}.json", QueueId(1004))));
        assert_eq!(sweep.run(path, &rules(1000, 30), later(2005)).beyond, 0);
    }

    #[test]
    fn it_is_bounded_in_age_and_told_three_days_before() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, mut sweep) = (state_dir.path(), Sweep::default());
        sweep.run(path, &rules(1000, 30), later(-DAY));
        [31, 30, 28, 26, 1].iter().zip(1..).for_each(|(days, id)| letter(path, id, days * DAY));
        file(path, &format!(".{}.eml.new", QueueId(9)), 40 * DAY); // a crash left it
        file(path, "notes.txt", 400 * DAY);
        file(path, "README.eml", 400 * DAY);
        assert_eq!(sweep.run(path, &rules(1000, 30), NOW), Swept { left: 3, leaving: 1, aged: 3, beyond: 0 });
        assert_eq!(names(path).len(), 2 + 6, "what is not ours is left alone");
        assert_eq!(sweep.told, Some(NOW));
        sweep.run(path, &rules(1000, 30), later(DAY - 1));
        assert_eq!(sweep.told, Some(NOW), "once a day");
        let swept = sweep.run(path, &rules(1000, 30), later(2 * DAY));
        assert_eq!((swept.aged, swept.leaving, sweep.told), (1, 1, Some(later(2 * DAY))));
    }

    #[test]
    fn what_is_there_at_a_start_stays_for_an_hour() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, mut sweep) = (state_dir.path(), Sweep::default());
        (0..20).for_each(|id| letter(path, id, 90 * DAY - id.cast_signed()));
        assert_eq!(sweep.run(path, &rules(10, 30), NOW), Swept { left: 20, leaving: 20, aged: 0, beyond: 0 });
        assert_eq!(sweep.told, Some(NOW), "told before they go");
        (20..25).for_each(|id| letter(path, id, -30));
        let swept = sweep.run(path, &rules(10, 30), later(60));
        assert_eq!((swept.left, swept.beyond), (20, 5), "in the meantime it grows no further");
        assert!(names(path).contains(&format!("{}.eml", QueueId(0))), "nothing goes unseen");
        let swept = sweep.run(path, &rules(10, 30), later(3600));
        assert_eq!((swept.left, swept.aged, swept.beyond), (0, 20, 0));
    }
}
