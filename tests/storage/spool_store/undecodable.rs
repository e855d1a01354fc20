//! Records that are as they were written and that this version cannot read: an upgrade or a downgrade whose format has no
//! number of its own (case Q3). The start is refused, nothing is touched, and what can be read can be exported.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fingerpost::spool::entry::{Entry, HeldFor, RecipientState};
use fingerpost::spool::header::{FORMAT, Header, LENGTH};
use fingerpost::spool::offline::{Look, Offline, Problem};
use fingerpost::spool::record::{BEFORE, Frames};
use fingerpost::spool::{Sizes, checkpoint};

use crate::spool_store::fixture::{accept, change, changed, commit, is_whole, open};
use support::power_loss::{Tree, tree, write_tree};

/// How another version's record differs: takes the head that this one wrote.
type Edit = fn(&Entry, Vec<u8>) -> Vec<u8>;

/// Heads of records with one new message, a report.
const OF_MESSAGES: [(&str, Edit); 6] = [
    ("two fields of the envelope less", |entry, mut head| {
        let origin = end_of_origin(entry);
        head.drain(origin - 2..origin);
        head
    }),
    ("one field of the envelope less", |entry, mut head| {
        head.remove(end_of_origin(entry) - 1);
        head
    }),
    ("a field of the envelope more", |entry, mut head| {
        head.insert(end_of_origin(entry), 1);
        head
    }),
    ("the last field less", |_, mut head| {
        head.pop();
        head
    }),
    ("an octet left over", |_, mut head| {
        head.push(0);
        head
    }),
    ("an unknown variant", |entry, mut head| {
        head[end_of_origin(entry) - 7] = 3; // Relay
        head
    }),
];

/// The same of records with one change.
const OF_CHANGES: [(&str, Edit); 2] = [
    ("an unknown variant", |entry, mut head| {
        let id = postcard::to_allocvec(&entry.id).unwrap().len();
        head[2 + id + 1] = 3; // State
        head
    }),
    ("an octet left over", |_, mut head| {
        head.push(0);
        head
    }),
];

/// Where a report's origin ends in its record's head: ten fields of an octet each, behind the id and two times.
fn end_of_origin(entry: &Entry) -> usize {
    postcard::to_allocvec(&(1_u8, entry.id, entry.received_at, entry.queued_at)).unwrap().len() + 10
}

/// A spool of three segments, as it lies after a kill. Each has a message, what became of the one before, and a message.
struct Sample {
    folder: tempfile::TempDir,
    files: Tree,
    entries: Vec<Entry>,
}

impl Sample {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut entries = Vec::new();
        for _ in 0..3 {
            let spool = open(folder.path(), Sizes::default()).unwrap();
            let mut first = accept(&*spool, 100, 1);
            let held = change(first.id, 0, RecipientState::Held(HeldFor::NoConnector));
            commit(&*spool, changed(vec![held.clone()])).unwrap();
            first.apply(&held);
            let second = accept(&*spool, 150, 1);
            entries.extend([first, second]);
        }
        let mut files = tree(folder.path());
        let last = segment(&files, 3);
        let mut zeros = files[&last].clone().unwrap();
        zeros.resize(zeros.len() + 4096, 0); // as they are while it grows
        files.insert(last, Some(zeros));
        Self { folder, files, entries }
    }

    /// The files with another record in the place of this one.
    fn with(&self, number: u32, nth: usize, edit: impl Fn(Vec<u8>) -> Vec<u8>) -> Tree {
        let mut files = self.files.clone();
        let path = segment(&files, number);
        let bytes = files[&path].clone().unwrap();
        let (bytes, by) = rewritten(&bytes, nth, edit);
        files.insert(path, Some(bytes));
        if number < 3 {
            let next = segment(&files, number + 1);
            let mut bytes = files[&next].clone().unwrap();
            let mut header = Header::read(&bytes).unwrap();
            header.previous_end = header.previous_end.checked_add_signed(by).unwrap();
            bytes.splice(..LENGTH, header.write());
            files.insert(next, Some(bytes));
        }
        files
    }

    fn write(&self, files: &Tree) -> tempfile::TempDir {
        let disk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        write_tree(files, self.folder.path(), disk.path());
        disk
    }
}

fn segment(files: &Tree, number: u32) -> PathBuf {
    let name = format!("{number:08}.seg");
    files.keys().find(|path| path.ends_with(&name)).unwrap().clone()
}

/// The segment with another head in this record, whose sum is right, and by how much it is longer.
fn rewritten(segment: &[u8], nth: usize, edit: impl Fn(Vec<u8>) -> Vec<u8>) -> (Vec<u8>, i64) {
    let mark = Header::read(segment).unwrap().mark;
    let frame = Frames::new(mark, FORMAT, segment, LENGTH).nth(nth).unwrap().unwrap();
    let head = edit(segment[frame.range.start + BEFORE..frame.contents].to_vec());
    let (contents, end) = (&segment[frame.contents..frame.range.end - 8], &segment[frame.range.end - 8..]);
    let lengths = [head.len(), contents.len()].map(|length| u32::try_from(length).unwrap().to_le_bytes());
    let lengths = lengths.as_flattened();
    let sum = crc32c::crc32c_append(crc32c::crc32c(lengths), &head).to_le_bytes();
    let whole = [&segment[..frame.range.start], &mark, lengths, &sum, &head, contents, end].concat();
    let by = i64::try_from(whole.len()).unwrap() - i64::try_from(segment.len()).unwrap();
    (whole, by)
}

/// All files with what they hold, by their path below the folder, but for the lock.
fn all(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let below = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_owned();
    let files = tree(folder).into_iter().map(|(path, content)| (below(&path), content));
    files.filter(|(path, _)| *path != Path::new("lock")).collect()
}

/// Refused by name and byte, with what to do, and nothing touched, however often it is tried.
fn is_refused(disk: &Path, number: u32, what: &str) {
    let before = all(disk);
    for _ in 0..2 {
        let Err(error) = open(disk, Sizes::default()) else { panic!("{what}: it was opened") };
        let error = error.to_string();
        assert!(
            error.contains(&format!("{number:08}.seg")) && error.contains("the record at byte "),
            "{what}: {error}"
        );
        assert!(error.contains("Nothing was changed. Start the version that wrote it"), "{what}: {error}");
        assert!(error.contains("queue export --offline DIR"), "{what}: {error}");
        assert_eq!(all(disk), before, "{what}");
    }
}

/// What can be exported, and what is told of the rest.
fn exported(disk: &Path) -> (Vec<Entry>, Vec<Problem>) {
    let before = tree(disk);
    let offline = Offline::read(disk, Look::Whole).unwrap();
    let mut entries = Vec::new();
    let read = offline.each::<std::convert::Infallible>(|waiting| {
        entries.push(waiting.entry);
        Ok(())
    });
    read.unwrap();
    assert_eq!(offline.count(), entries.len());
    assert_eq!(tree(disk), before, "it is only read");
    (entries, offline.problems().to_vec())
}

#[test]
fn a_whole_record_that_cannot_be_read_refuses_the_start_wherever_it_stands() {
    let sample = Sample::new();
    for number in 1..=3 {
        let at = (number as usize - 1) * 2;
        // a message, what became of it, another message: the last record of the segment
        for (nth, of, edits) in [(0, at, &OF_MESSAGES[..]), (1, at, &OF_CHANGES[..]), (2, at + 1, &OF_MESSAGES[..])] {
            for (what, edit) in edits {
                let what = format!("segment {number}, record {nth}: {what}");
                let entry = &sample.entries[of];
                let disk = sample.write(&sample.with(number, nth, |head| edit(entry, head)));
                is_refused(disk.path(), number, &what);

                let (entries, problems) = exported(disk.path());
                assert!(matches!(&problems[..], [Problem::OtherFormat(_)]), "{what}: {problems:?}");
                let mut expected = sample.entries.clone();
                match nth {
                    1 => expected[of].recipients[0].state = RecipientState::due(expected[of].received_at),
                    _ => drop(expected.remove(of)),
                }
                assert_eq!(entries, expected, "{what}");
            }
        }
    }
}

#[test]
fn damage_elsewhere_does_not_lay_anything_aside_before_the_start_is_refused() {
    let sample = Sample::new();
    let edit = OF_MESSAGES[0].1;
    for (damaged, undecodable) in [(1, 3), (2, 3), (3, 1), (1, 2)] {
        let of = (undecodable as usize - 1) * 2;
        let mut files = sample.with(undecodable, 0, |head| edit(&sample.entries[of], head));
        let path = segment(&files, damaged);
        let mut bytes = files[&path].clone().unwrap();
        bytes[LENGTH + 40] ^= 1;
        files.insert(path, Some(bytes));
        let disk = sample.write(&files);
        is_refused(disk.path(), undecodable, &format!("{damaged} damaged, {undecodable} undecodable"));
        let (entries, problems) = exported(disk.path());
        assert_eq!(entries.len(), 4, "{problems:?}");
        assert!(problems.iter().any(|problem| matches!(problem, Problem::Damage(_))), "{problems:?}");
        assert!(problems.iter().any(|problem| matches!(problem, Problem::OtherFormat(_))), "{problems:?}");
    }
}

#[test]
fn a_segment_of_a_later_format_is_refused_before_anything_is_touched_wherever_it_stands() {
    let sample = Sample::new();
    for number in 1..=3 {
        let mut files = sample.files.clone();
        let path = segment(&files, number);
        let mut bytes = files[&path].clone().unwrap();
        let later = Header { format: FORMAT + 1, ..Header::read(&bytes).unwrap() };
        bytes.splice(..LENGTH, later.write());
        files.insert(path, Some(bytes));
        let disk = sample.write(&files);
        let before = all(disk.path());
        let Err(error) = open(disk.path(), Sizes::default()) else { panic!("{number}: it was opened") };
        let said = format!("{number:08}.seg is in format {}, this version reads 2 to {FORMAT}", FORMAT + 1);
        assert!(error.to_string().contains(&said), "{error}");
        assert_eq!(all(disk.path()), before);
        let (entries, problems) = exported(disk.path());
        assert_eq!(entries.len(), 4);
        assert!(problems.iter().any(|problem| problem.text().contains(&said)), "{problems:?}");
    }
}

/// A checkpoint is a cache: the segment itself is read, and only if that cannot be read the start is refused.
#[test]
fn a_checkpoint_of_another_version_is_done_without() {
    let sample = Sample::new();
    let edit = OF_MESSAGES[0].1;
    let foreign = |files: &Tree| {
        let bytes = files[&segment(files, 1)].clone().unwrap();
        let header = Header::read(&bytes).unwrap();
        // What can be read of it is put in twice then.
        let frames = Frames::new(header.mark, header.format, &bytes, LENGTH).filter_map(Result::ok);
        let mut checkpoint = checkpoint::write(&header, bytes.len() as u64, frames).unwrap();
        checkpoint.push(0);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&checkpoint[8..28]), &checkpoint[32..]);
        checkpoint[28..32].copy_from_slice(&sum.to_le_bytes());
        assert!(checkpoint::is_foreign(&header, bytes.len() as u64, &checkpoint));
        let mut files = files.clone();
        files.insert(segment(&files, 1).with_extension("sum"), Some(checkpoint));
        files
    };
    let disk = sample.write(&foreign(&sample.files));
    let (told, spool) = crate::spool_store::damage::log_of(|| open(disk.path(), Sizes::default()).unwrap());
    let lines: Vec<_> = told.lines().filter(|line| line.contains("from another version")).collect();
    assert_eq!(lines.len(), 1, "{told}");
    assert!(lines[0].contains("1 checkpoints"), "{told}");
    assert_eq!(crate::spool_store::fixture::found(&*spool), sample.entries);
    assert!(sample.entries.iter().all(|entry| is_whole(&*spool, entry)));
    drop(spool);

    let disk = sample.write(&foreign(&sample.with(1, 0, |head| edit(&sample.entries[0], head))));
    is_refused(disk.path(), 1, "segment and checkpoint");
}
