//! Limits the number and age of dead letters, so that forged mail cannot fill the disk with them where no administrator
//! looks.
//!
//! `delivery` calls [`Sweep::run`] now and then on a blocking thread. It logs what will be removed soon, and removes
//! letters that are too old or too many, the oldest first and a few at a time. Letters that exist at a start stay for
//! an hour, so that an upgrade removes nothing unseen. The folder is listed at start, when another program has changed
//! it, and each hour; a large one less often.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, Metadata};
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::known::Letter;
use super::{DeadLetters, folder, letter_of, names};
use crate::config::Reports;
use crate::message::queue_id::QueueId;
use crate::time::UnixTime;

/// How long before its removal by age a letter is announced.
const SOON: Duration = Duration::from_hours(3 * 24);
/// How often letters are announced.
const TOLD_EVERY: Duration = Duration::from_hours(24);
/// How long after a start no letter that existed then is removed.
const SEEN: Duration = Duration::from_hours(1);
/// The most letters that are removed in one sweep, so that other users of the disk are not held up.
pub const AT_ONCE: usize = 200;
/// A folder that was changed is listed again after this time for each 1,000 letters ...
const LISTED_AGAIN: Duration = Duration::from_mins(1);
/// ... and any folder after this time.
const LISTED_EVERY: Duration = Duration::from_hours(1);

/// The result of one sweep.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub left: usize,
    /// Of these, those that will be removed soon.
    pub leaving: usize,
    /// Removed by age.
    pub aged: usize,
    /// Removed because there were too many.
    pub beyond: usize,
    /// Whether another sweep should follow soon.
    pub more: bool,
}

/// The state between sweeps.
#[derive(Debug)]
pub struct Sweep {
    letters: DeadLetters,
    /// When the first sweep was, and how many letters there were.
    started: Option<(UnixTime, usize)>,
    /// When letters were last announced.
    told: Option<UnixTime>,
    /// When removals were last logged: one line a minute is enough.
    told_going: Option<UnixTime>,
    /// When the folder was last listed, and its modification time then.
    listed: Option<(UnixTime, Option<SystemTime>)>,
}

struct Plan {
    /// The oldest first: those that are too old, then those that are too many.
    going: Vec<QueueId>,
    /// How many of these are too old.
    aged: usize,
    /// How many letters stay, and how many of these will be removed soon.
    left: usize,
    leaving: usize,
}

impl Sweep {
    #[must_use]
    pub fn new(letters: DeadLetters) -> Self {
        Self { letters, started: None, told: None, told_going: None, listed: None }
    }

    /// Looks at the known letters, and lists the folder below `state_dir` if that is due. `ends`: whether to stop early
    /// because the program ends.
    pub fn run(&mut self, state_dir: &Path, rules: &Reports, now: UnixTime, ends: &dyn Fn() -> bool) -> Swept {
        let folder = folder(state_dir);
        if let Some(changed) = self.is_listing_due(&folder, now) {
            let known = self.letters.0.lock().listing_begins();
            let found = list(&folder, &known, ends);
            if let Err(error) = &found {
                tracing::warn!(folder = %folder.display(), %error, "the dead letters cannot be listed");
            }
            self.listed = Some((now, changed));
            self.letters.0.lock().listed(found.ok());
        }
        if ends() {
            return Swept { left: self.letters.0.lock().by_age().len(), ..Swept::default() };
        }
        let Plan { mut going, aged, left, leaving } = self.plan(rules, now);
        self.warn_of_removal(&folder, rules, leaving, left, now);
        self.tell_going(&folder, aged, going.len() - aged, now);
        let more = going.len().saturating_sub(AT_ONCE);
        going.truncate(AT_ONCE);
        let aged = aged.min(going.len());
        self.remove(&folder, &going);
        Swept { left: left + more, leaving, aged, beyond: going.len() - aged, more: more > 0 }
    }

    /// Whether the folder is to be listed; the inner value is its modification time.
    #[allow(clippy::option_option, reason = "there may be no folder to have been changed")]
    fn is_listing_due(&self, folder: &Path, now: UnixTime) -> Option<Option<SystemTime>> {
        let changed = fs::metadata(folder).and_then(|data| data.modified()).ok();
        let Some((last, before)) = self.listed else { return Some(changed) };
        let letters = u32::try_from(self.letters.count()).unwrap_or(u32::MAX);
        let pause = LISTED_AGAIN.saturating_mul((letters / 1000).max(1));
        let pause = if changed == before { LISTED_EVERY } else { pause.min(LISTED_EVERY) };
        // The clock may go back.
        (now < last || now.since(last) >= pause).then_some(changed)
    }

    fn plan(&mut self, rules: &Reports, now: UnixTime) -> Plan {
        let mut letters = self.letters.0.lock().by_age();
        let (started, there) = *self.started.get_or_insert((now, letters.len()));
        let is_seen = now.since(started) >= SEEN;
        let (keep, max) = (rules.keep_dead_letters, rules.max_dead_letters);
        let most = if is_seen { max } else { max.max(there) };
        let is_old = |at: UnixTime, ahead| now.plus(ahead).since(at) >= keep;
        let aged = letters.iter().take_while(|letter| is_seen && is_old(letter.0, Duration::ZERO)).count();
        let beyond = (letters.len() - aged).saturating_sub(most);
        // Within that hour only letters that came since the start are removed.
        let from = if is_seen { 0 } else { letters.partition_point(|letter| letter.0 < started) };
        let to = (from + aged + beyond).min(letters.len());
        let going = letters.drain(from..to).map(|(_, id)| id).collect();
        let soon = letters.iter().take_while(|letter| is_old(letter.0, SOON.min(keep / 10))).count();
        let leaving = soon.max(letters.len().saturating_sub(max - max.div_ceil(10)));
        Plan { going, aged, left: letters.len(), leaving }
    }

    /// Logs once a day that some letters will be removed soon.
    fn warn_of_removal(&mut self, folder: &Path, rules: &Reports, leaving: usize, left: usize, now: UnixTime) {
        if leaving == 0 || self.told.is_some_and(|told| told <= now && now.since(told) < TOLD_EVERY) {
            return;
        }
        self.told = Some(now);
        tracing::warn!(
            leaving, left, max_dead_letters = rules.max_dead_letters, folder = %folder.display(),
            "dead letters will be removed, the oldest first: read them, or move away what is needed"
        );
    }

    fn tell_going(&mut self, folder: &Path, aged: usize, beyond: usize, now: UnixTime) {
        let is_told = self.told_going.is_some_and(|told| told <= now && now.since(told) < LISTED_AGAIN);
        if aged + beyond == 0 || is_told {
            return;
        }
        self.told_going = Some(now);
        tracing::warn!(
            aged, beyond, folder = %folder.display(),
            "the oldest dead letters are removed: see `[reports] keep_dead_letters`, `max_dead_letters`"
        );
    }

    /// Removes letters. One that cannot be removed is forgotten until the folder is listed again, so that it does not
    /// block the others.
    fn remove(&self, folder: &Path, going: &[QueueId]) {
        let mut failed = None;
        for id in going {
            for name in names(*id) {
                match fs::remove_file(folder.join(&name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => failed = Some((name, error)),
                    Ok(()) | Err(_) => {}
                }
            }
            self.letters.0.lock().remove(*id);
        }
        if let Some((file, error)) = failed {
            tracing::warn!(folder = %folder.display(), file, %error, "dead letters cannot be removed");
        }
    }
}

/// The letters in a folder; other files are ignored. Only unknown letters are examined.
fn list(
    folder: &Path,
    known: &BTreeMap<QueueId, Letter>,
    ends: &dyn Fn() -> bool,
) -> io::Result<BTreeMap<QueueId, Letter>> {
    let mut letters: BTreeMap<QueueId, Letter> = BTreeMap::new();
    let files = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(letters),
        files => files?,
    };
    for file in files {
        let file = file?;
        if ends() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let name = file.file_name();
        let Some((id, is_whole)) = name.to_str().and_then(letter_of) else { continue };
        let at = known.get(&id).map(|letter| letter.at).or_else(|| kept_at(&file));
        let Some(at) = at else { continue };
        let letter = letters.entry(id).or_insert(Letter { at, is_whole });
        letter.at = letter.at.max(at);
        letter.is_whole |= is_whole;
    }
    Ok(letters)
}

/// When it was stored; `None` for a folder. For a symbolic link its own time is used.
fn kept_at(file: &DirEntry) -> Option<UnixTime> {
    let data = file.metadata().ok().filter(|data: &Metadata| !data.is_dir())?;
    let since = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(UnixTime(since.as_secs()))
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

    /// Makes a file that is this many seconds old at `NOW`.
    fn file(state_dir: &Path, name: &str, age: i64) {
        let file = File::create(folder(state_dir).join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.0.saturating_add_signed(-age))).unwrap();
    }

    fn letter(state_dir: &Path, id: u64, age: i64) {
        fs::create_dir_all(folder(state_dir)).unwrap();
        [".eml", ".json"].iter().for_each(|end| file(state_dir, &format!("{}{end}", QueueId(id)), age));
    }

    fn listed(state_dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder(state_dir)).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn run(sweep: &mut Sweep, state_dir: &Path, rules: &Reports, now: UnixTime) -> Swept {
        sweep.run(state_dir, rules, now, &|| false)
    }

    fn sweep() -> Sweep {
        Sweep::new(DeadLetters::default())
    }

    fn later(seconds: i64) -> UnixTime {
        UnixTime(NOW.0.saturating_add_signed(seconds))
    }

    #[test]
    fn the_folder_is_bounded_in_number_and_the_oldest_go() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, mut sweep) = (state_dir.path(), sweep());
        assert_eq!(run(&mut sweep, path, &rules(1000, 30), NOW), Swept::default(), "there is no folder yet");
        (0..1005).for_each(|id| letter(path, id, -10 - id.cast_signed()));
        let swept = run(&mut sweep, path, &rules(1000, 30), later(2000));
        assert_eq!(swept, Swept { left: 1000, leaving: 100, aged: 0, beyond: 5, more: false });
        let left = listed(path);
        assert_eq!((left.len(), left.contains(&format!("{}.eml", QueueId(4)))), (2000, false));
        assert!(left.contains(&format!("{}.eml", QueueId(5))) && left.contains(&format!("{}.json", QueueId(1004))));
        assert_eq!(run(&mut sweep, path, &rules(1000, 30), later(2005)).beyond, 0);
    }

    #[test]
    fn it_is_bounded_in_age_and_told_three_days_before() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, mut sweep) = (state_dir.path(), sweep());
        run(&mut sweep, path, &rules(1000, 30), later(-DAY));
        [31, 30, 28, 26, 1].iter().zip(1..).for_each(|(days, id)| letter(path, id, days * DAY));
        file(path, &format!(".{}.eml.new", QueueId(9)), 40 * DAY); // a crash left it
        file(path, "notes.txt", 400 * DAY);
        file(path, "README.eml", 400 * DAY);
        assert_eq!(
            run(&mut sweep, path, &rules(1000, 30), NOW),
            Swept { left: 3, leaving: 1, aged: 3, beyond: 0, more: false }
        );
        assert_eq!(listed(path).len(), 2 + 6, "what is not ours is left alone");
        assert_eq!(sweep.told, Some(NOW));
        run(&mut sweep, path, &rules(1000, 30), later(DAY - 1));
        assert_eq!(sweep.told, Some(NOW), "once a day");
        let swept = run(&mut sweep, path, &rules(1000, 30), later(2 * DAY));
        assert_eq!((swept.aged, swept.leaving, sweep.told), (1, 1, Some(later(2 * DAY))));
    }

    #[test]
    fn what_is_there_at_a_start_stays_for_an_hour() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, mut sweep) = (state_dir.path(), sweep());
        (0..20).for_each(|id| letter(path, id, 90 * DAY - id.cast_signed()));
        assert_eq!(
            run(&mut sweep, path, &rules(10, 30), NOW),
            Swept { left: 20, leaving: 20, aged: 0, beyond: 0, more: false }
        );
        assert_eq!(sweep.told, Some(NOW), "told before they go");
        (20..25).for_each(|id| letter(path, id, -30));
        let swept = run(&mut sweep, path, &rules(10, 30), later(60));
        assert_eq!((swept.left, swept.beyond), (20, 5), "in the meantime it grows no further");
        assert!(listed(path).contains(&format!("{}.eml", QueueId(0))), "nothing goes unseen");
        let swept = run(&mut sweep, path, &rules(10, 30), later(3600));
        assert_eq!((swept.left, swept.aged, swept.beyond), (0, 20, 0));
    }

    #[test]
    fn the_folder_is_listed_now_and_then_and_the_count_is_kept() {
        let state_dir = tempfile::tempdir().unwrap();
        let (path, letters) = (state_dir.path(), DeadLetters::default());
        let mut sweep = Sweep::new(letters.clone());
        (0..20).for_each(|id| letter(path, id, 10));
        run(&mut sweep, path, &rules(1000, 30), NOW);
        assert_eq!(letters.count(), 20);
        let [entry, _] = crate::spool::formats::entries(crate::spool::header::FORMAT);
        for times in 0..2 {
            letters.keep(path, &entry, &mut &b"a report"[..]).unwrap();
            assert_eq!(letters.count(), 21, "{times}");
        }
        (20..30).for_each(|id| letter(path, id, 10)); // by somebody else
        letters.keep(path, &entry, &mut &b"a report"[..]).unwrap();
        run(&mut sweep, path, &rules(1000, 30), later(59));
        assert_eq!(letters.count(), 21, "nobody has listed it");
        run(&mut sweep, path, &rules(1000, 30), later(60));
        assert_eq!(letters.count(), 31);
        fs::remove_dir_all(folder(path)).unwrap();
        run(&mut sweep, path, &rules(1000, 30), later(119));
        assert_eq!(letters.count(), 31);
        let swept = run(&mut sweep, path, &rules(1000, 30), later(120));
        assert_eq!((letters.count(), swept.left), (0, 0), "a count is not wrong for ever");
    }

    #[test]
    fn a_large_folder_is_listed_more_seldom_and_emptied_a_few_at_a_time() {
        const ALL: usize = 20_000;
        let state_dir = tempfile::tempdir().unwrap();
        let (path, letters) = (state_dir.path(), DeadLetters::default());
        let mut sweep = Sweep::new(letters.clone());
        fs::create_dir_all(folder(path)).unwrap();
        for id in 0..ALL as u64 {
            File::create(folder(path).join(format!("{}.eml", QueueId(id)))).unwrap();
        }
        let broken_off = sweep.run(path, &rules(1000, 30), NOW, &|| true);
        assert_eq!((broken_off, letters.count()), (Swept::default(), 0), "a stop does not wait for it");
        let files = UnixTime::now().since(NOW).as_secs().cast_signed();
        let mut sweep = Sweep::new(letters.clone());
        run(&mut sweep, path, &rules(1000, 3000), later(files));
        assert_eq!(letters.count(), ALL);
        fs::remove_file(folder(path).join(format!("{}.eml", QueueId(9)))).unwrap();
        run(&mut sweep, path, &rules(1000, 3000), later(files + 19 * 60));
        assert_eq!(letters.count(), ALL, "a minute for each thousand");
        run(&mut sweep, path, &rules(1000, 3000), later(files + 20 * 60));
        assert_eq!(letters.count(), ALL - 1);
        let mut sweeps = 0;
        loop {
            let before = letters.count();
            let swept = run(&mut sweep, path, &rules(1000, 3000), later(files + 3600));
            sweeps += 1;
            assert!(swept.beyond <= AT_ONCE && letters.count() == before - swept.beyond);
            assert_eq!((swept.left, letters.count() == 1000), (letters.count(), !swept.more));
            if !swept.more {
                break;
            }
        }
        assert_eq!((sweeps, listed(path).len()), (95, 1000));
    }
}
