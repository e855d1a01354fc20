//! Syncs that are slow or fail, and a full disk: run in processes under the shim.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fingerpost::message::queue_id::QueueId;
use fingerpost::spool::Spool;
use fingerpost::spool::entry::Entry;

use crate::spool_store::fixture::{
    LARGE, Open, STORES, accept, accepted, again, changed, commit, delivered, found, given, is_whole, message,
};
use support::power_loss::{
    Survives, Tree, after_power_cut, operations, preload, synced_after_a_failure, tree, write_tree,
};

const SLOW: Duration = Duration::from_millis(50);

/// Runs an ignored test, `module::name`, under the shim; it must pass. Returns what is left after a power cut at its end.
pub(crate) fn under_shim(test: &str, store: &str, delay: Duration) -> (tempfile::TempDir, Tree) {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().canonicalize().unwrap().join("spool");
    std::fs::create_dir(&root).unwrap();
    let log = scratch.path().join("operations");
    let initial = tree(&root);
    let mut command = again(test, store, &root);
    preload(&mut command, &root, &log);
    command.env("SHIM_DELAY_MS", delay.as_millis().to_string());
    command.env("SHIM_FAULTS", scratch.path().join("faults"));
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{store}: {test} fails: {}", String::from_utf8_lossy(&ran.stderr));
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(text.contains("running 1 test"), "{store}: there is no {test}");
    let inodes = [(root.clone(), 0)].into();
    let ops = operations(&log);
    let again = synced_after_a_failure(&ops);
    assert!(again.is_empty(), "{store}: a failed sync is never retried on the same file: {again:?}");
    let left = after_power_cut(&initial, &inodes, &ops, Survives::Nothing);
    let disk = scratch.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    write_tree(&left, &root, &disk);
    (scratch, left)
}

pub(crate) fn with_fault(fault: &str, then: impl FnOnce()) {
    let path = std::env::var("SHIM_FAULTS").unwrap();
    std::fs::write(&path, fault).unwrap();
    then();
    std::fs::remove_file(&path).unwrap();
}

/// What a second process would recover, without closing the first: a copy, as after kill -9.
fn recovered_from_a_copy(open: Open, folder: &Path) -> (tempfile::TempDir, Arc<dyn Spool>, Vec<Entry>) {
    let copy = tempfile::tempdir().unwrap();
    let mut before = tree(folder);
    loop {
        let now = tree(folder); // the log may be made shorter just now
        if now == before {
            break;
        }
        before = now;
    }
    write_tree(&before, folder, copy.path());
    let spool = open(copy.path()).unwrap();
    let recovered = found(&*spool);
    (copy, spool, recovered)
}

fn ids(entries: &[Entry]) -> Vec<QueueId> {
    entries.iter().map(|entry| entry.id).collect()
}

#[test]
#[ignore = "a process of no_commit_returns_before_its_sync"]
fn slow_process() {
    let Some((open, folder)) = given() else { return };
    let spool = open(&folder).unwrap();
    for _ in 0..5 {
        let begun = Instant::now();
        let entry = accept(&*spool, 1000, 1);
        assert!(begun.elapsed() >= SLOW, "a message after {:?}", begun.elapsed());
        let begun = Instant::now();
        commit(&*spool, changed(vec![delivered(entry.id, 0)])).unwrap();
        assert!(begun.elapsed() >= SLOW, "an outcome after {:?}", begun.elapsed());
    }
    let shortest = std::sync::Mutex::new(Duration::MAX);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let begun = Instant::now();
                accept(&*spool, 1000, 1);
                let mut shortest = shortest.lock().unwrap();
                *shortest = shortest.min(begun.elapsed());
            });
        }
    });
    assert!(*shortest.lock().unwrap() >= SLOW);
    assert!(begun.elapsed() < SLOW * 200 / 4, "200 commits share syncs, and took {:?}", begun.elapsed());
}

#[test]
fn no_commit_returns_before_its_sync_and_many_share_one() {
    for (name, _) in STORES {
        under_shim("faults::slow_process", name, SLOW);
    }
}

#[test]
#[ignore = "a process of a_failed_sync_takes_nothing_and_loses_nothing"]
fn failing_process() {
    let Some((open, folder)) = given() else { return };
    let spool = open(&folder).unwrap();
    let mut kept = vec![accept(&*spool, 1000, 1)];
    for (part, size) in [("/incoming/", LARGE), ("/large/", LARGE), ("/segments/", 1000), ("/segments/", LARGE)] {
        let mut refused = None;
        with_fault(&format!("sync {part}"), || {
            let (draft, entry) = message(&*spool, size, 1);
            refused = Some(entry.id);
            assert!(commit(&*spool, accepted(vec![(draft, entry)])).is_err(), "the sync of {part} failed");
        });
        let (copy, copied, recovered) = recovered_from_a_copy(open, &folder);
        // while no new segment can be begun, what was refused may come back, whole: at least once
        for entry in recovered.iter().filter(|entry| Some(entry.id) == refused) {
            assert!(is_whole(&*copied, entry));
        }
        assert!(kept.iter().all(|kept| recovered.contains(kept)), "{part}: what was accepted is there");
        let aside = std::fs::read_dir(copy.path().join("aside")).map_or(0, Iterator::count);
        assert_eq!(aside, 0, "{part}: nothing that was refused looks like damage");
        // the disk is well again: so is the spool, on other files than those whose sync failed
        kept.push(accept(&*spool, size, 1));
        let (_copy, _, recovered) = recovered_from_a_copy(open, &folder);
        assert_eq!(ids(&recovered), ids(&kept), "{part}: exactly what was accepted");
    }
    println!("{}", kept.len());
}

#[test]
fn a_failed_sync_takes_nothing_and_loses_nothing() {
    for (name, open) in STORES {
        let (scratch, _) = under_shim("faults::failing_process", name, Duration::ZERO);
        let spool = open(&scratch.path().join("disk")).unwrap();
        let recovered = found(&*spool);
        assert_eq!(recovered.len(), 5, "{name}: all that was accepted survives a power cut too");
        assert!(recovered.iter().all(|entry| is_whole(&*spool, entry)));
    }
}

#[test]
#[ignore = "a process of a_full_disk_takes_nothing_and_loses_nothing"]
fn full_process() {
    let Some((open, folder)) = given() else { return };
    let spool = open(&folder).unwrap();
    let mut kept = vec![accept(&*spool, 1000, 1)];
    with_fault("write /segments/", || {
        let (draft, entry) = message(&*spool, 1000, 1);
        assert!(commit(&*spool, accepted(vec![(draft, entry)])).is_err());
        assert!(commit(&*spool, changed(vec![delivered(kept[0].id, 0)])).is_err());
        let (_copy, copied, recovered) = recovered_from_a_copy(open, &folder);
        assert_eq!(recovered, kept);
        assert!(is_whole(&*copied, &recovered[0]));
    });
    kept.push(accept(&*spool, 2000, 1));
    commit(&*spool, changed(vec![delivered(kept[0].id, 0)])).unwrap();
    let (_copy, _, recovered) = recovered_from_a_copy(open, &folder);
    assert_eq!(recovered, kept[1..]);
}

#[test]
fn a_full_disk_takes_nothing_and_loses_nothing() {
    for (name, _) in STORES {
        under_shim("faults::full_process", name, Duration::ZERO);
    }
}

/// A file system of its own, 4 MiB large. `None` where we may not mount one.
pub(crate) struct SmallFileSystem(pub(crate) tempfile::TempDir);

impl SmallFileSystem {
    pub(crate) fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(folder.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then_some(Self(folder))
    }
}

impl Drop for SmallFileSystem {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_file_system_that_is_really_full_loses_nothing() {
    for (name, open) in STORES {
        let Some(disk) = SmallFileSystem::mount() else {
            return eprintln!("skipped: only root can mount a small file system");
        };
        let spool = open(disk.0.path()).unwrap();
        let mut kept: Vec<_> = (0..10).map(|_| accept(&*spool, 5_000, 1)).collect();
        let mut filler = spool.create_as(spool.new_id()).unwrap();
        while filler.append(&[1; 512]).is_ok() {}
        let mut refused = 0;
        for _ in 0..100 {
            let (draft, entry) = message(&*spool, 10_000, 1);
            match commit(&*spool, accepted(vec![(draft, entry.clone())])) {
                Ok(()) => kept.push(entry),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 50, "{name}: the disk is full");
        drop(filler);
        // A process that is just being forked off may still hold the file.
        kept.push(loop {
            let (draft, entry) = message(&*spool, 5_000, 1);
            if commit(&*spool, accepted(vec![(draft, entry.clone())])).is_ok() {
                break entry;
            }
        });
        drop(spool);
        let spool = open(disk.0.path()).unwrap();
        assert_eq!(found(&*spool), kept, "{name}: exactly what was accepted");
        assert!(kept.iter().all(|entry| is_whole(&*spool, entry)));
    }
}
