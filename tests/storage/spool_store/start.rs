//! A start with many messages reads their envelopes from checkpoints, and no contents.

use std::path::Path;
use std::time::{Duration, Instant};

use fingerpost::spool::Sizes;

use crate::spool_store::fixture::{accept, accepted, commit, found, is_whole, message, open};

const SIZES: Sizes = Sizes { segment: 1 << 20, slack: 64 << 20, reserve: 16 << 10 };

/// Bytes that this thread has read from files.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn checkpoints(folder: &Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(folder.join("segments")).unwrap().map(|file| file.unwrap().path());
    let mut checkpoints: Vec<_> = all.filter(|path| path.extension().is_some_and(|end| end == "sum")).collect();
    checkpoints.sort();
    checkpoints
}

#[test]
fn complete_segments_are_not_read_where_there_are_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), SIZES).unwrap();
    let entries: Vec<_> = (0..500).map(|_| accept(&*spool, 20_000, 1)).collect();
    let begun = Instant::now();
    while checkpoints(folder.path()).len() < 7 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", checkpoints(folder.path()));
    }
    drop(spool);
    let before = bytes_read();
    let spool = open(folder.path(), SIZES).unwrap();
    let read = bytes_read() - before;
    println!("of 10 MB of mail in 10 segments a start reads {} KiB", read / 1024);
    assert!(read < 3 << 20, "{read} bytes: the last two segments and envelopes");
    assert_eq!(found(&*spool), entries);
    assert!(entries.iter().all(|entry| is_whole(&*spool, entry)));
}

#[test]
fn checkpoints_that_are_damaged_or_gone_cost_time_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), SIZES).unwrap();
    let entries: Vec<_> = (0..300).map(|_| accept(&*spool, 20_000, 1)).collect();
    let begun = Instant::now();
    while checkpoints(folder.path()).len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", checkpoints(folder.path()));
    }
    drop(spool);
    let all = checkpoints(folder.path());
    let mut bytes = std::fs::read(&all[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&all[0], bytes).unwrap();
    std::fs::File::options().write(true).open(&all[1]).unwrap().set_len(1000).unwrap();
    std::fs::remove_file(&all[2]).unwrap();
    let spool = open(folder.path(), SIZES).unwrap();
    assert_eq!(found(&*spool), entries);
    assert_eq!(std::fs::read_dir(folder.path().join("aside")).unwrap().count(), 0);
}

#[test]
#[ignore = "a measurement, some minutes: cargo test --release --test storage spool_store:: -- --ignored --nocapture a_million"]
fn a_million_messages_start_in_seconds() {
    let folder = std::env::var_os("SPOOL_SPEED_FOLDER").unwrap_or_else(|| std::env::temp_dir().into());
    let folder = tempfile::tempdir_in(folder).unwrap();
    let spool = open(folder.path(), Sizes::default()).unwrap();
    for _ in 0..10_000 {
        commit(&*spool, accepted((0..100).map(|_| message(&*spool, 4096, 1)).collect())).unwrap();
    }
    drop(spool);
    let (before, begun) = (bytes_read(), Instant::now());
    let spool = open(folder.path(), Sizes::default()).unwrap();
    let opened = begun.elapsed();
    let entries = found(&*spool);
    println!(
        "{} messages of 4 KiB: open after {opened:.2?}, {} MiB read, {} checkpoints",
        entries.len(),
        (bytes_read() - before) >> 20,
        checkpoints(folder.path()).len()
    );
    assert_eq!(entries.len(), 1_000_000);
    assert!(is_whole(&*spool, &entries[500_000]));
}
