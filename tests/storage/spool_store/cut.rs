//! Power cuts: at any instant, with anything unsynced lost, everything acknowledged is there. And that these tests can
//! fail: with syncs that do nothing they do.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::spool_store::fixture::{Open, STORES, again, found, given};
use crate::spool_store::journal::Journal;
use crate::spool_store::workload::{Kind, Work, work};
use support::power_loss::{
    Numbers, Op, Survives, Tree, after_power_cut, inodes, note, notes, operations, preload, some_of, tree, write_tree,
};

#[test]
#[ignore = "the process whose power is cut"]
fn process() {
    let Some((open, folder)) = given() else { return };
    let mut log = std::fs::OpenOptions::new().append(true).open(std::env::var("SHIM_LOG").unwrap()).unwrap();
    let log = std::sync::Mutex::new(&mut log);
    let note_down = |line: &str| log.lock().unwrap().write_all(&note(line)).unwrap();
    let rounds = std::env::var("SPOOL_ROUNDS").unwrap().parse().unwrap();
    for seed in 1..=2 {
        let spool = open(&folder).unwrap();
        work(&*spool, &Work { threads: 4, rounds, seed, kind: Kind::given() }, &note_down);
    }
}

/// A run of the process and all that it did.
struct Run {
    root: PathBuf,
    initial: Tree,
    inodes: HashMap<PathBuf, u64>,
    ops: Vec<Op>,
    _scratch: tempfile::TempDir,
}

/// In memory where there is memory for it: nothing here needs a disk, the loss is worked out.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn run(store: &str, initial: Option<(&Tree, &Path)>, rounds: usize, no_sync: Option<&str>) -> Run {
    run_with(store, initial, rounds, |command| {
        if let Some(path) = no_sync {
            command.env("SHIM_NO_SYNC", path);
        }
    })
}

fn run_with(
    store: &str,
    initial: Option<(&Tree, &Path)>,
    rounds: usize,
    prepare: impl FnOnce(&mut std::process::Command),
) -> Run {
    let scratch = scratch();
    let root = scratch.path().canonicalize().unwrap().join("spool");
    let log = scratch.path().join("operations");
    std::fs::create_dir(&root).unwrap();
    if let Some((tree, from)) = initial {
        write_tree(tree, from, &root);
    }
    let initial = tree(&root);
    let inodes = inodes(&initial);
    let mut command = again("cut::process", store, &root);
    preload(&mut command, &root, &log);
    command.env("SPOOL_ROUNDS", rounds.to_string()).stdout(Stdio::null());
    prepare(&mut command);
    assert!(command.status().unwrap().success());
    let ops = operations(&log);
    Run { root, initial, inodes, ops, _scratch: scratch }
}

impl Run {
    /// What the disk holds after a cut behind the first `at` operations.
    fn cut(&self, at: usize, survives: Survives) -> Tree {
        after_power_cut(&self.initial, &self.inodes, &self.ops[..at], survives)
    }

    /// Recovers from such a disk. `told` is what was said before this run.
    fn recover(&self, open: Open, at: usize, survives: Survives, told: &[&str]) -> Result<(), String> {
        let disk = scratch();
        write_tree(&self.cut(at, survives), &self.root, disk.path());
        let mut journal = Journal::default();
        told.iter().copied().chain(notes(&self.ops[..at])).for_each(|line| journal.read(line));
        let spool = open(disk.path()).map_err(|e| e.to_string())?;
        journal.check(&*spool, &found(&*spool))
    }
}

#[test]
fn the_shim_sees_everything() {
    for (name, _) in STORES {
        let run = run(name, None, 10, None);
        let replayed = run.cut(run.ops.len(), Survives::Everything);
        assert!(replayed == tree(&run.root), "{name}: the replay of all operations is what is on the disk");
    }
}

#[test]
fn a_power_cut_at_any_instant_loses_nothing() {
    for (name, open) in STORES {
        let run = run(name, None, 30, None);
        let mut numbers = Numbers(2024);
        let mut cuts: Vec<usize> = (0..some_of(120)).map(|_| numbers.below(run.ops.len() + 1)).collect();
        cuts.extend(0..40); // making the folders
        cuts.push(run.ops.len());
        for at in cuts {
            let some = |n: u64| Survives::Some(Numbers(at as u64 * 10 + n));
            for (how, survives) in [Survives::Nothing, Survives::Everything, some(1), some(2)].into_iter().enumerate() {
                run.recover(*open, at, survives, &[])
                    .unwrap_or_else(|e| panic!("{name}: cut at {at} of {}, kind {how}: {e}", run.ops.len()));
            }
        }
    }
}

#[test]
fn a_power_cut_while_the_log_is_made_shorter_loses_nothing() {
    let (name, _) = STORES[1];
    let run = run_with(name, None, 60, |command| Kind::Passing.give(command));
    let gone = !run.root.join("segments/00000001.seg").exists();
    assert!(gone, "segments were given up, with messages in them that stay");
    cut_often(&run, 77);
}

#[test]
fn a_power_cut_while_space_is_given_back_behind_what_waits_loses_nothing() {
    let (name, _) = STORES[1];
    let run = run_with(name, None, 150, |command| Kind::Behind.give(command));
    let drafts = run.ops.iter().filter(|op| op.is_about(".seg.new")).count();
    assert!(drafts > 20, "segments were rewritten: {drafts}");
    assert!(run.root.join("segments/00000001.seg").exists(), "and what waits was not moved for it");
    cut_often(&run, 78);
}

fn cut_often(run: &Run, seed: u64) {
    let (_, open) = STORES[1];
    let mut numbers = Numbers(seed);
    for _ in 0..some_of(200) {
        let at = numbers.below(run.ops.len() + 1);
        let some = |n: u64| Survives::Some(Numbers(at as u64 * 10 + n));
        for (how, survives) in [Survives::Nothing, Survives::Everything, some(1), some(2)].into_iter().enumerate() {
            run.recover(open, at, survives, &[])
                .unwrap_or_else(|e| panic!("cut at {at} of {}, kind {how}: {e}", run.ops.len()));
        }
    }
}

#[test]
fn a_power_cut_during_recovery_loses_nothing() {
    for (name, open) in STORES {
        let first = run(name, None, 15, None);
        let mut numbers = Numbers(99);
        for _ in 0..some_of(4) {
            let at = numbers.below(first.ops.len() + 1);
            let disk = first.cut(at, Survives::Some(Numbers(at as u64 + 1)));
            let told: Vec<_> = notes(&first.ops[..at]).collect();
            // opens twice, works on nothing
            let second = run(name, Some((&disk, &first.root)), 0, None);
            for again in 0..=second.ops.len() {
                let some = |n: u64| Survives::Some(Numbers(again as u64 * 10 + n));
                for survives in [Survives::Nothing, some(1)] {
                    second
                        .recover(*open, again, survives, &told)
                        .unwrap_or_else(|e| panic!("{name}: cut at {at}, in recovery again at {again}: {e}"));
                }
            }
        }
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    for (name, open) in STORES {
        // everything; large contents; their names; the log; the log's name
        for what in ["", "/incoming/", "/large/0", ".seg", "/segments"] {
            let run = run(name, None, 10, Some(what));
            let lost =
                (0..=run.ops.len()).rev().step_by(7).any(|at| run.recover(*open, at, Survives::Nothing, &[]).is_err());
            assert!(lost, "{name}: syncs of `{what}` that do nothing go unnoticed");
        }
    }
}
