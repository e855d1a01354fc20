//! The state of `hold_changes` in `state_dir`, which survives a restart: recent changes, whether changes are held, and
//! announcements.
//!
//! After the magic come records, framed as in a snapshot's file. Changes are appended; anything else that is new, and a
//! file of which most is obsolete, leads to a new file that replaces the old one. Both are synced before anything else
//! is done: a change that a power cut removes from the file could not be taken back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::kept::{Holding, SnapshotState};
use super::saved::{Beside, LONGEST, Unreadable, framed, next};
use super::window::Undo;
use crate::directory::expected::Expected;

/// Changes whenever [`Record`] does, or any type in it.
const MAGIC: &[u8; 8] = b"FPCHNG1\n";
/// A file with at most this many obsolete records is not rewritten.
const SPARE: usize = 64;
/// Addresses in one record, whose size is limited.
const ADDRESSES: usize = 1_000;

#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// An entry's change.
    Undo(Arc<Undo>),
    /// The last one is valid.
    State { holding: Option<Holding>, expected: Expected },
    /// More addresses that are withheld while changes are held.
    Withheld(Vec<(String, Arc<str>)>),
}

#[derive(Debug)]
pub struct ChangesFile {
    path: PathBuf,
    /// Open for appending; `None`: nothing has been written yet.
    file: Option<File>,
    written: SnapshotState,
    /// Whether there is a file, perhaps of another version.
    is_there: bool,
    /// Whether a successor writes the file now.
    has_given_way: bool,
}

impl ChangesFile {
    /// Reads the file. If it is damaged, the part before the damage is used; a file of another version is not used.
    #[must_use]
    pub fn open(path: PathBuf) -> (Self, SnapshotState) {
        let kept = read(&path).unwrap_or_else(|error| {
            tracing::warn!(
                file = %path.display(),
                "what changed lately cannot be read: {error}; it cannot be taken back any more, and what was held is \
                 counted anew"
            );
            SnapshotState::default()
        });
        Beside::clear(&path);
        // A file that cannot be used is replaced at the next write.
        let is_there = path.exists();
        (Self { path, file: None, written: SnapshotState::default(), is_there, has_given_way: false }, kept)
    }

    /// Writes the new state.
    ///
    /// # Errors
    /// The system's.
    pub fn keep(&mut self, kept: SnapshotState) -> io::Result<()> {
        if self.has_given_way || (!self.is_there && kept == SnapshotState::default()) {
            return Ok(());
        }
        let known = &self.written;
        let is_same_state = kept.holding == known.holding && kept.expected == known.expected;
        // Obsolete records are at the beginning; while changes are held no record is obsolete.
        let first = kept.undos.first();
        let over = first.and_then(|first| known.undos.iter().position(|undo| Arc::ptr_eq(undo, first)));
        let over = over.unwrap_or(known.undos.len());
        let still = &known.undos[over..];
        let continues = still.len() <= kept.undos.len()
            && still.iter().zip(&kept.undos).all(|(one, other)| Arc::ptr_eq(one, other));
        let is_spare = over == 0 || (kept.holding.is_none() && over <= kept.undos.len() + SPARE);
        let Some(file) = self.file.as_mut().filter(|_| is_same_state && continues && is_spare) else {
            return self.rewrite(kept);
        };
        let added = &kept.undos[still.len()..];
        if added.is_empty() {
            return Ok(());
        }
        let records =
            added.iter().map(|undo| framed(&Record::Undo(Arc::clone(undo)))).collect::<io::Result<Vec<_>>>()?;
        let appended = file.write_all(&records.concat()).and_then(|()| file.sync_data());
        match appended {
            Ok(()) => self.written.undos.extend_from_slice(added),
            // The next write makes a new file.
            Err(_) => self.file = None,
        }
        appended
    }

    /// A successor writes the file from now on.
    pub fn give_way(&mut self) {
        (self.has_given_way, self.file) = (true, None);
    }

    fn rewrite(&mut self, kept: SnapshotState) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            crate::private::folder(folder)?;
        }
        self.file = None;
        let beside = Beside::of(&self.path);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside.new)?;
        file.write_all(&to_bytes(&kept)?)?;
        file.sync_all()?;
        fs::rename(&beside.new, &self.path)?;
        self.is_there = true;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        (self.file, self.written) = (Some(file), kept);
        Ok(())
    }
}

/// Checks that the announcements fit into one record.
///
/// # Errors
/// How much fits, as text.
pub fn has_room(expected: &Expected) -> Result<(), String> {
    // The rest is for the other content of the record.
    let most = LONGEST / 8 * 7;
    let octets = postcard::to_allocvec(expected).map_or(usize::MAX, |bytes| bytes.len());
    if octets <= most {
        return Ok(());
    }
    let announced = expected.keys().count();
    let each = (octets / announced.max(1)).max(1);
    Err(format!(
        "{announced} addresses would be announced, with those that are already; about {} of them can be kept: announce \
         fewer at a time, or how many",
        most / each
    ))
}

fn to_bytes(kept: &SnapshotState) -> io::Result<Vec<u8>> {
    let state = Record::State { holding: kept.holding.clone(), expected: kept.expected.clone() };
    let mut bytes = MAGIC.to_vec();
    bytes.extend(framed(&state)?);
    for withheld in kept.holding.iter().flat_map(|holding| holding.withheld.chunks(ADDRESSES)) {
        bytes.extend(framed(&Record::Withheld(withheld.to_vec()))?);
    }
    for undo in &kept.undos {
        bytes.extend(framed(&Record::Undo(Arc::clone(undo)))?);
    }
    Ok(bytes)
}

fn read(path: &Path) -> Result<SnapshotState, Unreadable> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(SnapshotState::default()),
        Err(error) => return Err(error.into()),
    };
    let mut file = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(Unreadable::Foreign);
    }
    let mut kept = SnapshotState::default();
    loop {
        match next(&mut file) {
            Ok(Some((Record::Undo(undo), _))) => kept.undos.push(undo),
            Ok(Some((Record::State { holding, expected }, _))) => (kept.holding, kept.expected) = (holding, expected),
            Ok(Some((Record::Withheld(more), _))) => {
                kept.holding.iter_mut().for_each(|holding| holding.withheld.extend_from_slice(&more));
            }
            Ok(None) => return Ok(kept),
            Err(Unreadable::Foreign) => return Err(Unreadable::Foreign),
            Err(error) => {
                tracing::warn!(file = %path.display(), "its end is of no use, what stands before it counts: {error}");
                return Ok(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::known::{Claim, Id, Known, Meaning, Strength};
    use crate::formats::Format;
    use crate::lookup::Kind;
    use crate::time::{QueueTime, UnixTime};

    fn undo(number: u64) -> Arc<Undo> {
        let rule = "test".to_owned();
        let meaning = Meaning { kind: Kind::Mailbox, target: None, mail_server: None, rule, at_odds: None };
        let keys = vec![format!("u{number}@contoso.com")];
        let claims = vec![Claim { key: keys[0].clone(), strength: Strength::Certain }];
        let known = Known { id: Id(number), dn: format!("CN=u{number}"), claims, meaning: Ok(meaning) };
        let before = number.is_multiple_of(2).then_some(known);
        Arc::new(Undo { id: Id(number), before, keys, at: QueueTime(number), since: UnixTime(1_800_000_000 + number) })
    }

    fn example() -> SnapshotState {
        let holding = Holding {
            began: UnixTime(1_800_000_005),
            stayed: vec![Id(2)],
            withheld: vec![("new@contoso.com".into(), "notes".into())],
        };
        SnapshotState { undos: vec![undo(1), undo(2)], holding: Some(holding), expected: Expected::example() }
    }

    #[test]
    fn its_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ad.changes");
        let format = Format { name: "directory-changes", extension: "changes", oldest: 1, current: 1 };
        format.check(&to_bytes(&example()).unwrap(), |_, bytes| {
            fs::write(&path, bytes).unwrap();
            assert_eq!(ChangesFile::open(path.clone()).1, example());
        });
        fs::write(&path, b"FPCHNG2\n").unwrap();
        assert!(matches!(read(&path), Err(Unreadable::Foreign)));
    }

    #[test]
    fn it_comes_back_as_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directories/ad.changes");
        let (mut file, kept) = ChangesFile::open(path.clone());
        assert_eq!(kept, SnapshotState::default());
        file.keep(SnapshotState::default()).unwrap();
        assert!(!path.exists(), "nothing is to be kept");
        let undos: Vec<_> = (0..200).map(undo).collect();
        let of =
            |range: std::ops::Range<usize>| SnapshotState { undos: undos[range].to_vec(), ..SnapshotState::default() };
        let held = SnapshotState { undos: undos[10..12].to_vec(), ..example() };
        // The state to write, and the number of change records in the file afterwards, which may include obsolete ones.
        for (kept, records) in [
            (of(0..1), 1),
            (of(0..3), 3),
            (of(2..5), 5),
            (of(2..5), 5),
            (of(5..8), 8),
            (of(100..101), 9),
            (of(101..200), 108),
            (of(199..200), 1),
            (held, 2),
            (SnapshotState { undos: undos[11..12].to_vec(), ..example() }, 1),
            (SnapshotState { undos: vec![undos[20].clone(), undos[22].clone()], ..SnapshotState::default() }, 2),
            (SnapshotState { undos: vec![undos[20].clone()], ..SnapshotState::default() }, 1),
            (SnapshotState::default(), 1),
        ] {
            file.keep(kept.clone()).unwrap();
            let read = ChangesFile::open(path.clone()).1;
            assert_eq!((&read.holding, &read.expected), (&kept.holding, &kept.expected));
            assert_eq!(read.undos.len(), records);
            assert!(read.undos.ends_with(&kept.undos) || kept.undos.is_empty());
        }
    }

    #[test]
    fn what_is_over_at_the_first_word_after_a_start_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ad.changes");
        ChangesFile::open(path.clone()).0.keep(example()).unwrap();
        ChangesFile::open(path.clone()).0.keep(SnapshotState::default()).unwrap();
        assert_eq!(ChangesFile::open(path).1, SnapshotState::default());
    }

    #[test]
    fn who_has_given_way_writes_nothing_and_nobody_writes_the_file_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ad.changes");
        // As if another process were writing it.
        fs::create_dir(path.with_extension("changes.new")).unwrap();
        let (mut old, _) = ChangesFile::open(path.clone());
        old.keep(example()).unwrap();
        let mut new = ChangesFile::open(path.clone()).0;
        old.give_way();
        let later = SnapshotState { undos: vec![undo(7)], ..SnapshotState::default() };
        new.keep(later.clone()).unwrap();
        old.keep(SnapshotState::default()).unwrap();
        old.keep(example()).unwrap();
        assert_eq!(ChangesFile::open(path).1, later);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn a_torn_end_costs_what_stands_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ad.changes");
        let whole = to_bytes(&example()).unwrap();
        fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut file, kept) = ChangesFile::open(path.clone());
        assert_eq!(kept, SnapshotState { undos: vec![undo(1)], ..example() });
        file.keep(kept.clone()).unwrap();
        assert_eq!(ChangesFile::open(path).1, kept);
    }
}
