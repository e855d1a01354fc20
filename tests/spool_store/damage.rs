//! Damage to the files of the store "file": what stands before and behind it is found, and nothing is deleted that
//! might be mail.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use fingerpost::spool::Spool;
use fingerpost::spool::entry::{Entry, State};

use crate::fixture::{Open, STORES, accept, change, changed, commit, delivered, is_whole};
use crate::power_loss::{Tree, tree, write_tree};

fn open() -> Open {
    STORES.iter().find(|(name, _)| *name == "file").unwrap().1
}

/// Three messages; the second has been put on hold; another one is finished. As files and as entries.
fn sample() -> (tempfile::TempDir, Tree, Vec<Entry>) {
    let folder = tempfile::tempdir().unwrap();
    let spool = open()(folder.path()).unwrap();
    let over = accept(&*spool, 100, 1);
    commit(&*spool, changed(vec![delivered(over.id, 0)])).unwrap();
    let mut entries: Vec<_> = (0..2).map(|n| accept(&*spool, 100 * n, 1)).collect();
    let held = change(entries[1].id, 0, State::Held("an operator".into()));
    commit(&*spool, changed(vec![held.clone()])).unwrap();
    entries[1].apply(&held);
    entries.push(accept(&*spool, 300, 1));
    let tree = tree(folder.path());
    (folder, tree, entries)
}

fn find(tree: &Tree, end: &str) -> PathBuf {
    tree.keys().find(|path| path.to_str().unwrap().ends_with(end)).unwrap().clone()
}

/// Writes a damaged copy and recovers from it.
fn recover(damaged: &Tree, root: &Path) -> (tempfile::TempDir, Arc<dyn Spool>, Vec<Entry>) {
    let disk = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    write_tree(damaged, root, disk.path());
    let spool = open()(disk.path()).unwrap();
    let recovered = spool.recovered();
    (disk, spool, recovered)
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
fn log_of<T>(work: impl FnOnce() -> T) -> (String, T) {
    static GLOBAL: Once = Once::new();
    GLOBAL.call_once(|| tracing_subscriber::fmt().with_writer(|| Sink).init());
    LOGGED.take();
    let done = work();
    (String::from_utf8(LOGGED.take()).unwrap(), done)
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_record_before_the_cut() {
    let (folder, whole, entries) = sample();
    let log = find(&whole, ".log");
    let bytes = whole[&log].clone().unwrap();
    let text = String::from_utf8(bytes.clone()).unwrap();
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    for length in 0..=bytes.len() {
        let mut damaged = whole.clone();
        damaged.insert(log.clone(), Some(bytes[..length].to_vec()));
        let (_disk, spool, recovered) = recover(&damaged, folder.path());
        // lines: the segment's, a message and its end, two messages, the hold of the second, the third
        let lines = ends.iter().filter(|end| **end <= length).count();
        let expected = [0, 0, 0, 0, 1, 2, 2, 3][lines];
        assert_eq!(recovered.len(), expected, "cut at {length}");
        for (n, (found, entry)) in recovered.iter().zip(&entries).enumerate() {
            assert!(is_whole(&*spool, found), "cut at {length}: message {n}");
            assert!(found == entry || (n == 1 && found.id == entry.id && lines < 6), "cut at {length}: message {n}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_the_log_costs_at_most_its_record_and_no_content() {
    let (folder, whole, entries) = sample();
    let log = find(&whole, ".log");
    let bytes = whole[&log].clone().unwrap();
    for at in (0..bytes.len()).step_by(3) {
        let mut damaged = whole.clone();
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        damaged.insert(log.clone(), Some(flipped));
        let (disk, spool, recovered) = recover(&damaged, folder.path());
        let found = |entry: &Entry| recovered.iter().any(|found| found.id == entry.id && is_whole(&*spool, found));
        let missing: Vec<_> = entries.iter().filter(|entry| !found(entry)).collect();
        assert!(missing.len() <= 1, "byte {at}: one record at most");
        for entry in missing {
            let aside = disk.path().join(format!("aside/{}.eml", entry.id));
            assert_eq!(fs::metadata(aside).unwrap().len(), entry.content.size, "byte {at}: its content is kept");
        }
    }
}

#[test]
fn damage_in_the_middle_is_laid_aside_and_reported() {
    let (folder, whole, entries) = sample();
    let log = find(&whole, ".log");
    let mut bytes = whole[&log].clone().unwrap();
    let second = String::from_utf8(bytes.clone()).unwrap().match_indices('\n').nth(3).unwrap().0;
    bytes[second + 40] ^= 1;
    let mut damaged = whole.clone();
    damaged.insert(log.clone(), Some(bytes.clone()));
    let (told, (disk, _spool, recovered)) = log_of(|| recover(&damaged, folder.path()));
    assert!(told.contains("ERROR") && told.contains("cannot be read; it is kept as"), "{told}");
    let kept = disk.path().join("aside").join(log.file_name().unwrap());
    assert_eq!(fs::read(kept).unwrap(), bytes);
    assert!(disk.path().join(format!("aside/{}.eml", entries[1].id)).exists());
    assert_eq!(recovered, [entries[0].clone(), entries[2].clone()]);
}

#[test]
fn a_torn_tail_is_cut_without_alarm() {
    let (folder, whole, entries) = sample();
    let log = find(&whole, ".log");
    for tail in [&b"1234abcd 500 {\"rec"[..], &[0; 5000], b"12\0\0\n\0"] {
        let mut damaged = whole.clone();
        damaged.get_mut(&log).unwrap().as_mut().unwrap().extend_from_slice(tail);
        let (told, (disk, _spool, recovered)) = log_of(|| recover(&damaged, folder.path()));
        assert!(told.contains("WARN") && !told.contains("ERROR"), "{told}");
        assert_eq!(recovered, entries);
        assert_eq!(fs::read_dir(disk.path().join("aside")).unwrap().count(), 0);
    }
}

#[test]
fn a_damaged_record_before_a_torn_tail_is_no_torn_tail() {
    let (folder, mut damaged, entries) = sample();
    let log = find(&damaged, ".log");
    let bytes = damaged.get_mut(&log).unwrap().as_mut().unwrap();
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    bytes.extend_from_slice(b"1234abcd 500 {\"rec");
    let (told, (disk, _spool, recovered)) = log_of(|| recover(&damaged, folder.path()));
    assert!(told.contains("ERROR"), "{told}");
    assert_eq!(recovered, entries[..2]);
    assert!(disk.path().join(format!("aside/{}.eml", entries[2].id)).exists());
}

#[test]
fn a_message_without_its_content_is_laid_aside_and_reported() {
    let (folder, whole, entries) = sample();
    let content = find(&whole, &entries[2].id.to_string());
    for left in [None, Some(vec![7; 3])] {
        let mut damaged = whole.clone();
        damaged.remove(&content);
        if let Some(bytes) = &left {
            damaged.insert(content.clone(), Some(bytes.clone()));
        }
        let (told, (disk, _spool, recovered)) = log_of(|| recover(&damaged, folder.path()));
        assert!(told.contains("ERROR") && told.contains("missing or not whole"), "{told}");
        let kept = fs::read(disk.path().join(format!("aside/{}.json", entries[2].id))).unwrap();
        assert_eq!(serde_json::from_slice::<Entry>(&kept).unwrap(), entries[2]);
        assert_eq!(fs::read(disk.path().join(format!("aside/{}.eml", entries[2].id))).ok(), left);
        assert_eq!(recovered, entries[..2]);
    }
}

#[test]
fn content_without_any_log_is_laid_aside_and_not_deleted() {
    let (folder, whole, entries) = sample();
    let mut damaged = whole.clone();
    damaged.remove(&find(&whole, ".log"));
    let (told, (disk, _spool, recovered)) = log_of(|| recover(&damaged, folder.path()));
    assert!(told.contains("ERROR"), "{told}");
    assert!(recovered.is_empty());
    for entry in entries {
        assert!(disk.path().join(format!("aside/{}.eml", entry.id)).exists());
    }
}

#[test]
fn a_log_of_a_later_version_is_refused_and_left_alone() {
    let (folder, whole, _) = sample();
    let log = find(&whole, ".log");
    let json = br#"{"segment":{"format":2,"last_id":"0000000000000"}}"#;
    let mut bytes = format!("{:08x} {} ", crc32c::crc32c(json), json.len()).into_bytes();
    bytes.extend_from_slice(json);
    bytes.push(b'\n');
    let mut later = whole.clone();
    later.insert(log, Some(bytes));
    let disk = tempfile::tempdir().unwrap();
    write_tree(&later, folder.path(), disk.path());
    let Err(error) = open()(disk.path()) else { panic!("a later format was read") };
    assert!(error.to_string().contains("in format 2"), "{error}");
    later.remove(&find(&later, "/lock"));
    let left = tree(disk.path());
    assert_eq!(left.len(), later.len() + 1);
}
