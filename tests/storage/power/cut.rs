//! The power is cut: at any instant, with anything unsynced lost, whatever got its 250 arrives. And that this test can
//! fail: where syncs do nothing it finds messages lost.
//!
//! The node runs under the shim. Clients and next hops append to the shim's log what they were told and what they
//! took, so that each stands at its instant among the node's writes and syncs. For an instant the disk is worked out
//! that a cut may leave, and a fresh node is started on it.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fingerpost::spool::entry::{Change, Outcome, RecipientState};
use fingerpost::spool::header::FORMAT;
use fingerpost::spool::record::Frames;

use crate::power::fixture::{Settings, StorageSetup, arrived, quiet, recipient, send, token, token_of};
use support::power_loss::{
    Numbers, Op, Survives, Tree, after_power_cut, inodes, note, notes, operations, some_of, synced_writes, tree,
    write_tree,
};
use support::senders::Raw;
use support::sink::{OnMessage, Sink};
use support::wait_until;

const SENDERS: usize = 6;

/// A node's life under load, up to its end.
struct Life {
    root: PathBuf,
    initial: Tree,
    inodes: HashMap<PathBuf, u64>,
    ops: Vec<Op>,
    _setup: StorageSetup,
}

/// What the next hops are during a life.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Hops {
    Down,
    Up,
}

/// How a life ends, for the processes that look on.
#[derive(Clone, Copy)]
enum ProcessEnd {
    Killed,
    Stopped,
}

/// Writes notes into the shim's log.
#[derive(Clone)]
struct Notes(Arc<Mutex<File>>);

impl Notes {
    fn add(&self, text: &str) {
        self.0.lock().unwrap().write_all(&note(text)).unwrap();
    }
}

impl Life {
    /// Loads a node by several sessions until so many messages are acknowledged; the power goes in the midst of it.
    fn live((hops, end): (Hops, ProcessEnd), messages: usize, no_sync: Option<&str>) -> Self {
        let mut setup = StorageSetup::prepare(&Settings::default());
        setup.shim();
        if let Some(what) = no_sync {
            setup.node.set_environment("SHIM_NO_SYNC", what);
        }
        let root = setup.node.path("state");
        let initial = tree(&root);
        let inodes = inodes(&initial);
        let log = setup.node.path("operations");
        let notes = Notes(Arc::new(Mutex::new(OpenOptions::new().append(true).create(true).open(&log).unwrap())));
        let taken = notes.clone();
        let on_message: OnMessage = Arc::new(move |sunk| taken.add(&format!("taken {}", token_of(sunk))));
        let _hops = (hops == Hops::Up).then(|| setup.hops(&on_message));
        setup.node.start();
        let acknowledged = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                let (server, notes, acknowledged) = (setup.node.smtp, &notes, &acknowledged);
                scope.spawn(move || load(server, sender, notes, acknowledged));
            }
            wait_until("load", Duration::from_secs(180), || acknowledged.load(Ordering::SeqCst) >= messages);
            match end {
                ProcessEnd::Killed => setup.node.kill(),
                ProcessEnd::Stopped => setup.node.stop(),
            }
        });
        Self { root, initial, inodes, ops: operations(&log), _setup: setup }
    }
}

/// Sends one message after the other until the connection breaks: small ones, and some that are written in pieces.
fn load(server: std::net::SocketAddr, sender: usize, notes: &Notes, acknowledged: &AtomicUsize) {
    // The end may be there before the greeting.
    let Some(mut raw) = Raw::try_hello(server) else { return };
    for n in 0.. {
        let size = if n % 4 == 3 { 300_000 - n % 8 / 4 * 150_000 } else { 800 + n * 37 % 6000 };
        let token = token(&format!("cut{sender}"), n, size);
        match send(&mut raw, &recipient(sender + n), &token) {
            Ok(id) => notes.add(&format!("acknowledged {token} {id}")),
            Err((0 | 421, _)) => return,
            Err(refused) => panic!("refused: {refused:?}"),
        }
        acknowledged.fetch_add(1, Ordering::SeqCst);
    }
}

/// What came out after one cut.
#[derive(Default, Debug)]
struct After {
    acknowledged: usize,
    /// Acknowledged, and neither taken by a next hop before the cut nor delivered afterwards.
    lost: Vec<String>,
    /// Delivered again, the outcome not being durable at the cut.
    twice: usize,
    /// Delivered again though the outcome was durable, or three times.
    wrong: Vec<String>,
    /// Delivered, though the client had not seen its 250.
    unacknowledged: usize,
}

impl Life {
    /// Starts a node on what a cut behind the first `at` operations leaves, next hops up.
    fn after(&self, at: usize, survives: Survives) -> After {
        let ops = &self.ops[..at];
        let disk = after_power_cut(&self.initial, &self.inodes, ops, survives);
        let mut setup = StorageSetup::prepare(&Settings::default());
        write_tree(&disk, &self.root, &setup.node.path("state"));
        let hops = setup.hops(&quiet());
        setup.node.start();
        // Nothing waits but what has no content any more; none should, unless the disk does not sync.
        wait_until("the rest is delivered", Duration::from_secs(240), || setup.queued() == Some(kept_aside(&setup)));
        judge(ops, &hops)
    }
}

/// How many envelopes are kept aside.
fn kept_aside(setup: &StorageSetup) -> f64 {
    let files = std::fs::read_dir(setup.node.path("state/spool/aside")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "json")).count() as f64
}

fn judge(ops: &[Op], hops: &[Sink]) -> After {
    let told: Vec<Vec<&str>> = notes(ops).map(|line| line.split(' ').collect()).collect();
    let acknowledged: HashMap<&str, &str> =
        told.iter().filter(|words| words[0] == "acknowledged").map(|words| (words[1], words[2])).collect();
    let mut taken: HashMap<&str, usize> = HashMap::new();
    told.iter().filter(|words| words[0] == "taken").for_each(|words| *taken.entry(words[1]).or_default() += 1);
    let durable = delivered(ops);
    let later = arrived(hops);
    let mut after = After { acknowledged: acknowledged.len(), ..After::default() };
    for (token, id) in &acknowledged {
        let (before, later) =
            (taken.get(token).copied().unwrap_or_default(), later.get(*token).copied().unwrap_or_default());
        match (before, later) {
            (0, 0) => after.lost.push((*token).to_owned()),
            (1, 0) | (0, 1) => {}
            (1, 1) if !durable.contains(*id) => after.twice += 1,
            (before, later) => after.wrong.push(format!("{token} {id}: {before} before the cut, {later} after it")),
        }
    }
    after.unacknowledged = later.keys().filter(|token| !acknowledged.contains_key(token.as_str())).count();
    after
}

/// The ids of messages whose delivery is durable.
fn delivered(ops: &[Op]) -> HashSet<String> {
    let mut ids = HashSet::new();
    for write in synced_writes(ops) {
        let Some(mark) = write.first_chunk() else { continue }; // what is written to a segment begins with its mark
        for record in Frames::new(*mark, FORMAT, write, 0).flatten() {
            let is_delivered =
                |change: &&Change| matches!(change.state, RecipientState::Done(Outcome::Delivered { .. }));
            ids.extend(record.logged.changes.iter().filter(is_delivered).map(|change| change.id.to_string()));
        }
    }
    ids
}

/// Judges many cuts, two at a time.
fn judge_all(life: &Life, cuts: Vec<(usize, Survives)>) -> Vec<(usize, After)> {
    let cuts = Mutex::new(cuts);
    let judged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let next = cuts.lock().unwrap().pop();
                    let Some((at, survives)) = next else { return };
                    let after = life.after(at, survives);
                    judged.lock().unwrap().push((at, after));
                }
            });
        }
    });
    let mut judged = judged.into_inner().unwrap();
    judged.sort_by_key(|(at, _)| *at);
    judged
}

fn cut_at_random_instants(hops: Hops, messages: usize, count: usize) {
    let life = Life::live((hops, ProcessEnd::Killed), messages, None);
    assert_eq!(hops == Hops::Up, !delivered(&life.ops).is_empty(), "outcomes are found in what was written");
    let mut numbers = Numbers(0x5eed ^ messages as u64);
    let survives =
        |n: usize| if n.is_multiple_of(3) { Survives::Nothing } else { Survives::Some(Numbers(1000 + n as u64)) };
    let mut cuts: Vec<_> = (0..count).map(|n| (numbers.below(life.ops.len()), survives(n))).collect();
    cuts.push((life.ops.len(), Survives::Nothing));
    let cuts = judge_all(&life, cuts);
    println!("next hops {hops:?}: {} operations of the node", life.ops.len());
    for (at, after) in &cuts {
        println!(
            "cut at {at}: {} acknowledged, {} lost, {} arrived twice, {} arrived that were not acknowledged",
            after.acknowledged,
            after.lost.len(),
            after.twice,
            after.unacknowledged
        );
    }
    for (at, after) in &cuts {
        assert!(after.lost.is_empty() && after.wrong.is_empty(), "cut at {at}: {after:?}");
    }
    let most = cuts.iter().map(|(_, after)| after.acknowledged).max();
    assert!(most >= Some(messages), "the load was too small to prove anything");
}

#[test]
fn the_shim_sees_everything() {
    let life = Life::live((Hops::Up, ProcessEnd::Stopped), 50, None);
    let replayed = after_power_cut(&life.initial, &life.inodes, &life.ops, Survives::Everything);
    assert!(replayed == tree(&life.root), "the replay of all operations is what is on the disk");
}

#[test]
fn a_power_cut_loses_nothing_that_waits() {
    cut_at_random_instants(Hops::Down, 500, some_of(50));
}

#[test]
fn a_power_cut_loses_nothing_that_is_being_delivered() {
    cut_at_random_instants(Hops::Up, 500, some_of(50));
}

#[test]
fn a_power_cut_during_the_first_start_harms_no_later_one() {
    let life = Life::live((Hops::Down, ProcessEnd::Killed), 1, None);
    let first = (0..=life.ops.len()).find(|at| notes(&life.ops[..*at]).next().is_some()).unwrap();
    let cuts = (0..first).flat_map(|at| [(at, Survives::Nothing), (at, Survives::Some(Numbers(at as u64 + 1)))]);
    for (at, after) in judge_all(&life, cuts.collect()) {
        assert!(after.lost.is_empty() && after.wrong.is_empty(), "cut at {at}: {after:?}");
    }
}

#[test]
fn a_disk_that_does_not_sync_is_found_out() {
    // everything; large contents; their names; the log
    for what in ["", "/incoming/", "/large/0", ".seg"] {
        let life = Life::live((Hops::Down, ProcessEnd::Killed), 30, Some(what));
        let after = life.after(life.ops.len(), Survives::Nothing);
        println!("syncs of `{what}` do nothing: {} of {} lost", after.lost.len(), after.acknowledged);
        assert!(!after.lost.is_empty(), "syncs of `{what}` that do nothing go unnoticed");
    }
}
