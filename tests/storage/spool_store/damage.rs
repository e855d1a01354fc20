//! Damage to the files: what stands before and behind it is found, and nothing is deleted that might be mail.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use fingerpost::spool::Spool;
use fingerpost::spool::entry::{Entry, HeldFor, RecipientState};
use fingerpost::spool::header::{FORMAT, Header, LENGTH};
use fingerpost::spool::record::Frames;

use crate::spool_store::fixture::{
    LARGE, STORES, accept, change, changed, commit, content, delivered, found, is_whole,
};
use support::power_loss::{Tree, tree, write_tree};

/// A spool's files, as they lie after a kill.
struct Sample {
    folder: tempfile::TempDir,
    files: Tree,
    /// A message that is finished.
    over: Entry,
    /// Three that are not; the second has been put on hold.
    entries: Vec<Entry>,
    segment: PathBuf,
    bytes: Vec<u8>,
    /// Where records end; the first: where they begin.
    ends: Vec<usize>,
}

impl Sample {
    fn new(last: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let spool = STORES[0].1(folder.path()).unwrap();
        let over = accept(&*spool, 100, 1);
        commit(&*spool, changed(vec![delivered(over.id, 0)])).unwrap();
        let mut entries: Vec<_> = (1..3).map(|n| accept(&*spool, 100 * n, 1)).collect();
        let held = change(entries[1].id, 0, RecipientState::Held(HeldFor::Drop));
        commit(&*spool, changed(vec![held.clone()])).unwrap();
        entries[1].apply(&held);
        entries.push(accept(&*spool, last, 1));
        let mut files = tree(folder.path());
        let segment = find(&files, ".seg");
        let mut bytes = files[&segment].clone().unwrap();
        let mark = Header::read(&bytes).unwrap().mark;
        let ends = Frames::new(mark, FORMAT, &bytes, LENGTH).map_while(|frame| Some(frame.ok()?.range.end));
        let ends: Vec<usize> = [LENGTH].into_iter().chain(ends).collect();
        bytes.truncate(ends[ends.len() - 1]); // behind it are zeros
        files.insert(segment.clone(), Some(bytes.clone()));
        Self { folder, files, over, entries, segment, bytes, ends }
    }

    /// The files with another segment.
    fn with(&self, segment: Vec<u8>) -> Tree {
        let mut damaged = self.files.clone();
        damaged.insert(self.segment.clone(), Some(segment));
        damaged
    }

    /// Writes a damaged copy and recovers from it.
    fn recover(&self, damaged: &Tree) -> (tempfile::TempDir, Arc<dyn Spool>, Vec<Entry>) {
        let disk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        write_tree(damaged, self.folder.path(), disk.path());
        let spool = STORES[0].1(disk.path()).unwrap();
        let recovered = found(&*spool);
        (disk, spool, recovered)
    }
}

fn find(tree: &Tree, end: &str) -> PathBuf {
    tree.keys().find(|path| path.to_str().unwrap().ends_with(end)).unwrap().clone()
}

/// Whether a message's content can be found in `aside/`: by itself, or in a copy of its segment.
fn is_aside(disk: &Path, entry: &Entry) -> bool {
    let content = content(entry.id, entry.content.size);
    let kept = |path: PathBuf| {
        let bytes = fs::read(path).unwrap();
        memchr::memmem::find(&bytes, &content).is_some()
    };
    fs::read_dir(disk.join("aside")).unwrap().any(|file| kept(file.unwrap().path()))
}

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Keeps each thread's log apart.
struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What this thread logged while `work` ran.
pub(crate) fn log_of<T>(work: impl FnOnce() -> T) -> (String, T) {
    static GLOBAL: Once = Once::new();
    GLOBAL.call_once(|| tracing_subscriber::fmt().with_writer(|| Sink).init());
    LOGGED.take();
    let done = work();
    (String::from_utf8(LOGGED.take()).unwrap(), done)
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_record_before_the_cut() {
    let sample = Sample::new(300);
    for length in 0..=sample.bytes.len() {
        let (_disk, spool, recovered) = sample.recover(&sample.with(sample.bytes[..length].to_vec()));
        // records: a message and its end, two messages, the hold of the second, the third
        let records = sample.ends.iter().filter(|end| **end <= length).count();
        let expected = [0, 0, 1, 0, 1, 2, 2, 3][records];
        assert_eq!(recovered.len(), expected, "cut at {length}");
        let entries = if records == 2 { std::slice::from_ref(&sample.over) } else { &sample.entries };
        for (n, (found, entry)) in recovered.iter().zip(entries).enumerate() {
            assert!(is_whole(&*spool, found), "cut at {length}: message {n}");
            assert!(found == entry || (n == 1 && found.id == entry.id && records < 6), "cut at {length}: message {n}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_costs_at_most_its_record_and_no_content() {
    let sample = Sample::new(300);
    for at in (0..sample.bytes.len()).step_by(3) {
        let mut flipped = sample.bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let (disk, spool, recovered) = sample.recover(&sample.with(flipped.clone()));
        let found = |entry: &Entry| recovered.iter().any(|found| found.id == entry.id && is_whole(&*spool, found));
        let missing: Vec<_> = sample.entries.iter().filter(|entry| !found(entry)).collect();
        assert!(missing.len() <= 1, "byte {at}: one record at most");
        for entry in missing {
            let aside = fs::read(disk.path().join("aside/00000001.seg"));
            assert_eq!(aside.unwrap(), flipped, "byte {at}: all that there was is kept");
            let record = sample.ends.iter().filter(|end| **end <= at).count() - 1;
            let contents = sample.ends[record + 1] - 8 - usize::try_from(entry.content.size).unwrap();
            if at < contents {
                assert!(is_aside(disk.path(), entry), "byte {at}: its content is kept");
            } else {
                let name = |end: &str| disk.path().join(format!("aside/{}.{end}", entry.id));
                assert_eq!(fs::read(name("eml")).unwrap().len() as u64, entry.content.size, "byte {at}");
                assert_eq!(serde_json::from_slice::<Entry>(&fs::read(name("json")).unwrap()).unwrap().id, entry.id);
            }
        }
    }
}

#[test]
fn damage_in_the_middle_is_laid_aside_and_reported() {
    let sample = Sample::new(300);
    let mut bytes = sample.bytes.clone();
    bytes[sample.ends[3] + 40] ^= 1;
    let (told, (disk, _spool, recovered)) = log_of(|| sample.recover(&sample.with(bytes.clone())));
    assert!(told.contains("ERROR") && told.contains("cannot be read; it is kept as"), "{told}");
    let kept = disk.path().join("aside").join(sample.segment.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), bytes);
    assert!(is_aside(disk.path(), &sample.entries[1]));
    assert_eq!(recovered, [sample.entries[0].clone(), sample.entries[2].clone()]);
}

#[test]
fn a_torn_tail_is_cut_without_alarm() {
    let sample = Sample::new(300);
    let half = sample.bytes[sample.ends[0]..sample.ends[0] + 200].to_vec();
    let before_unused = [half.clone(), vec![0; 5000]].concat();
    for tail in [half, before_unused, b"12\0\0\n\0".to_vec()] {
        let (told, (disk, _spool, recovered)) =
            log_of(|| sample.recover(&sample.with([&sample.bytes[..], &tail].concat())));
        assert!(told.contains("WARN") && !told.contains("ERROR"), "{told}");
        assert_eq!(recovered, sample.entries);
        assert_eq!(fs::read_dir(disk.path().join("aside")).unwrap().count(), 0);
    }
}

#[test]
fn what_is_not_written_yet_is_nothing_to_tell_of() {
    let sample = Sample::new(300);
    let unused = [&sample.bytes[..], &[0; 5000]].concat();
    let (told, (disk, _spool, recovered)) = log_of(|| sample.recover(&sample.with(unused)));
    assert!(!told.contains("WARN") && !told.contains("ERROR"), "{told}");
    assert_eq!(recovered, sample.entries);
    assert_eq!(fs::read_dir(disk.path().join("aside")).unwrap().count(), 0);
}

#[test]
fn a_damaged_record_before_a_torn_tail_is_no_torn_tail() {
    let sample = Sample::new(300);
    let half = &sample.bytes[sample.ends[0]..sample.ends[0] + 200];
    let mut bytes = [&sample.bytes[..], half].concat();
    bytes[sample.bytes.len() - 40] ^= 1;
    let (told, (disk, spool, recovered)) = log_of(|| sample.recover(&sample.with(bytes)));
    assert!(told.contains("ERROR"), "{told}");
    assert_eq!(recovered, sample.entries);
    assert!(spool.open(recovered[2].id).unwrap().whole().is_err(), "it waits, and is never sent");
    assert!(disk.path().join(format!("aside/{}.eml", sample.entries[2].id)).exists());
}

#[test]
fn a_segment_that_is_gone_is_reported() {
    let sample = Sample::new(300);
    let disk = tempfile::tempdir().unwrap();
    write_tree(&sample.files, sample.folder.path(), disk.path());
    drop(STORES[0].1(disk.path()).unwrap()); // a second segment
    fs::remove_file(disk.path().join("segments/00000001.seg")).unwrap();
    let (told, recovered) = log_of(|| found(&*STORES[0].1(disk.path()).unwrap()));
    assert!(told.contains("ERROR") && told.contains("00000001.seg is missing"), "{told}");
    assert!(recovered.is_empty());
}

#[test]
fn a_large_message_without_its_content_is_laid_aside_and_reported() {
    let sample = Sample::new(LARGE);
    let last = &sample.entries[2];
    let content = find(&sample.files, &last.id.to_string());
    for left in [None, Some(vec![7; 3])] {
        let mut damaged = sample.files.clone();
        damaged.remove(&content);
        if let Some(bytes) = &left {
            damaged.insert(content.clone(), Some(bytes.clone()));
        }
        let (told, (disk, spool, recovered)) = log_of(|| sample.recover(&damaged));
        assert!(told.contains("ERROR") && told.contains("missing or not whole"), "{told}");
        let kept = fs::read(disk.path().join(format!("aside/{}.json", last.id))).unwrap();
        assert_eq!(serde_json::from_slice::<Entry>(&kept).unwrap(), *last);
        assert_eq!(fs::read(disk.path().join(format!("aside/{}.eml", last.id))).ok(), left);
        assert_eq!(recovered, sample.entries, "it waits until its sender hears of it");
        assert!(spool.open(last.id).is_err());
    }
}

#[test]
fn large_content_without_any_log_is_laid_aside_and_not_deleted() {
    let sample = Sample::new(LARGE);
    let mut damaged = sample.files.clone();
    damaged.remove(&sample.segment);
    let (told, (disk, _spool, recovered)) = log_of(|| sample.recover(&damaged));
    assert!(told.contains("ERROR"), "{told}");
    assert!(recovered.is_empty());
    assert!(disk.path().join(format!("aside/{}.eml", sample.entries[2].id)).exists());
}

#[test]
fn content_that_rots_while_the_spool_runs_is_not_given_out() {
    let sample = Sample::new(300);
    let (disk, spool, _) = sample.recover(&sample.files);
    let path = disk.path().join("segments/00000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(is_whole(&*spool, &sample.entries[1]));
    assert!(spool.open(sample.entries[2].id).unwrap().whole().is_err());
}

#[test]
fn a_log_of_a_later_version_is_refused_and_left_alone() {
    let sample = Sample::new(300);
    let mut bytes = sample.bytes.clone();
    for copy in [0, LENGTH / 2] {
        bytes[copy + 8..copy + 12].copy_from_slice(&[5, 0, !5, !0]);
    }
    let mut later = sample.with(bytes);
    let disk = tempfile::tempdir().unwrap();
    write_tree(&later, sample.folder.path(), disk.path());
    let Err(error) = STORES[0].1(disk.path()) else { panic!("a later format was read") };
    assert!(error.to_string().contains("in format 5, this version reads 2 to 4:"), "{error}");
    later.remove(&find(&later, "/lock"));
    let left = tree(disk.path());
    assert_eq!(left.len(), later.len() + 1);
}

/// What version 1 left: a file a message and lines of JSON, here written by hand from its code (aeca68b).
#[test]
fn a_spool_of_the_first_version_is_refused_while_it_holds_mail() {
    let disk = tempfile::tempdir().unwrap();
    let message = disk.path().join("messages/00000003/06AZ4F0000000");
    fs::create_dir_all(message.parent().unwrap()).unwrap();
    fs::create_dir(disk.path().join("log")).unwrap();
    fs::write(disk.path().join("log/00000007.log"), include_bytes!("../../formats/spool-log-1.log")).unwrap();
    fs::write(&message, "mail").unwrap();
    let before = tree(disk.path());
    let Err(error) = STORES[0].1(disk.path()) else { panic!("it was opened") };
    assert!(
        error.to_string().ends_with(
            "in format 1, this version reads 2 to 4: start the version that wrote it and let the queue run empty"
        ),
        "{error}"
    );
    assert_eq!(tree(disk.path()), before);
    fs::remove_file(&message).unwrap();
    let spool = STORES[0].1(disk.path()).unwrap();
    assert!(found(&*spool).is_empty());
    assert!(disk.path().join("log/00000007.log").exists());
}
