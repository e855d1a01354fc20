//! Random commits, changes and restarts come to what a plain map says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fingerpost::message::queue_id::QueueId;
use fingerpost::spool::Spool;
use fingerpost::spool::entry::{Entry, HeldFor, Outcome, RecipientState, Record, Waiting};
use fingerpost::time::UnixTime;
use proptest::prelude::*;

use crate::spool_store::fixture::{STORES, accept, change, changed, commit, delivered, found, is_whole, message};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Accepts messages of these sizes and recipients and changes recipients of others, in one record.
    Commit { accepted: Vec<(u64, usize)>, changed: Vec<(prop::sample::Index, usize, Kind)> },
    /// Writes a draft and lets it go.
    Abandon,
    /// Closes and opens.
    Restart,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Deferred,
    Held,
    Dropped,
    Delivered,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop::sample::select(vec![Kind::Deferred, Kind::Held, Kind::Dropped, Kind::Delivered, Kind::Delivered]);
    let message = (0..5_000_u64, 1..4_usize);
    let commit = (
        prop::collection::vec(message, 0..4),
        prop::collection::vec((any::<prop::sample::Index>(), 0..4_usize, kind), 0..4),
    )
        .prop_map(|(accepted, changed)| Step::Commit { accepted, changed });
    prop::collection::vec(prop_oneof![8 => commit, 1 => Just(Step::Abandon), 1 => Just(Step::Restart)], 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_spool_is_a_map_that_outlives_its_process(steps in steps()) {
        for (_, open) in STORES {
            let folder = tempfile::tempdir().unwrap();
            go_through(&steps, &|| open(folder.path()).unwrap());
        }
    }
}

/// Takes these steps with a spool that `open` opens, and compares it with a map.
pub(crate) fn go_through(steps: &[Step], open: &dyn Fn() -> Arc<dyn Spool>) {
    let mut model = Model::new(open);
    steps.iter().for_each(|step| model.step(step));
    model.restart();
}

struct Model<'a> {
    open: &'a dyn Fn() -> Arc<dyn Spool>,
    spool: Option<Arc<dyn Spool>>,
    expected: BTreeMap<QueueId, Entry>,
    last_id: QueueId,
}

impl<'a> Model<'a> {
    fn new(open: &'a dyn Fn() -> Arc<dyn Spool>) -> Self {
        Self { open, spool: Some(open()), expected: BTreeMap::new(), last_id: QueueId(0) }
    }

    fn step(&mut self, step: &Step) {
        if matches!(step, Step::Restart) {
            return self.restart();
        }
        let spool = self.spool.clone().unwrap();
        match step {
            Step::Commit { accepted, changed } => {
                let messages: Vec<_> = accepted.iter().map(|(size, n)| message(&*spool, *size, *n)).collect();
                let ids: Vec<_> = self.expected.keys().copied().collect();
                let changes = changed.iter().filter(|_| !ids.is_empty()).map(|(which, recipient, kind)| {
                    let id = *which.get(&ids);
                    match kind {
                        Kind::Held => change(id, *recipient, RecipientState::Held(HeldFor::Drop)),
                        Kind::Deferred => change(id, *recipient, RecipientState::due(UnixTime(5))),
                        Kind::Dropped => change(id, *recipient, RecipientState::Done(Outcome::Dropped)),
                        Kind::Delivered => delivered(id, *recipient),
                    }
                });
                let changes: Vec<_> = changes.collect();
                for (_, entry) in &messages {
                    assert!(entry.id > self.last_id, "ids only grow");
                    self.last_id = entry.id;
                    self.expected.insert(entry.id, entry.clone());
                }
                commit(&*spool, Record { accepted: messages, changes: changes.clone() }).unwrap();
                for change in &changes {
                    let Some(entry) = self.expected.get_mut(&change.id) else { continue };
                    entry.apply(change);
                    if entry.is_finished() {
                        self.expected.remove(&change.id);
                        assert!(spool.open(change.id).is_err(), "a finished message is gone");
                    }
                }
            }
            Step::Abandon => drop(message(&*spool, 100, 1)),
            Step::Restart => {}
        }
    }

    fn restart(&mut self) {
        self.spool = None;
        let spool = (self.open)();
        // A node has its mail of before at once, or takes it over.
        support::wait_until("what was there", PATIENCE, || spool.live_messages() == self.expected.len());
        let recovered: BTreeMap<_, _> = found(&*spool).into_iter().map(|entry| (entry.id, entry)).collect();
        assert_eq!(recovered, self.expected);
        assert!(recovered.values().all(|entry| is_whole(&*spool, entry)));
        assert!(spool.recovered().next().is_none(), "handed over once");
        self.spool = Some(spool);
    }
}

/// Bytes below a folder, but for the reserve.
pub(crate) fn size(folder: &Path) -> u64 {
    let files = support::power_loss::tree(folder).into_iter().filter(|(path, _)| !path.ends_with("reserve"));
    files.filter_map(|(_, content)| content).map(|content| content.len() as u64).sum()
}

#[test]
fn what_is_over_gives_its_space_back_while_the_spool_runs() {
    for (name, open) in STORES {
        let folder = tempfile::tempdir().unwrap();
        let spool = open(folder.path()).unwrap();
        let kept = accept(&*spool, 5_000, 2);
        let long = Waiting { last_error: "x".repeat(1 << 20), ..Waiting::default() };
        for _ in 0..100 {
            commit(&*spool, changed(vec![change(kept.id, 0, RecipientState::Waiting(long.clone()))])).unwrap();
            let other = accept(&*spool, 100_000, 1);
            commit(&*spool, changed(vec![delivered(other.id, 0)])).unwrap();
        }
        drop(spool);
        assert!(size(folder.path()) < 48 << 20, "{name}: 110 MB were written, {} are there", size(folder.path()));
        let spool = open(folder.path()).unwrap();
        let recovered = found(&*spool);
        assert_eq!(recovered.len(), 1);
        assert_eq!(recovered[0].recipients[0].state, RecipientState::Waiting(long));
        assert!(is_whole(&*spool, &recovered[0]));
        let begun = Instant::now();
        // Twice what is live, a statement of 1 MiB at most, and a bit.
        while size(folder.path()) >= 5 << 19 {
            let left = size(folder.path());
            assert!(begun.elapsed() < Duration::from_secs(20), "{name}: a restart leaves what is needed: {left}");
        }
    }
}
