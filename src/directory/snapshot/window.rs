//! Recent changes in force, with the previous state of each entry, so that all can be taken back once more has changed
//! than `hold_changes` allows. Its size is bounded by that limit. Pure; time is an argument.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::view::{Change, View};
use crate::directory::known::{Id, Known};
use crate::fast_map::{FastMap, FastSet};
use crate::time::{QueueTime, UnixTime};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    pub id: Id,
    /// Its previous state; `None`: it did not exist.
    pub before: Option<Known>,
    /// The addresses whose destination changed by that.
    pub keys: Vec<String>,
    /// By the queue's time.
    pub at: QueueTime,
    /// By the wall clock, for display.
    pub since: UnixTime,
}

/// Recent changes, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Window {
    undos: Vec<Arc<Undo>>,
}

impl Window {
    /// As it was stored.
    #[must_use]
    pub fn new(undos: Vec<Arc<Undo>>) -> Self {
        Self { undos }
    }

    /// The changes to store.
    #[must_use]
    pub fn undos(&self) -> &[Arc<Undo>] {
        &self.undos
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.undos.is_empty()
    }

    /// Drops changes older than `within`.
    pub fn forget(&mut self, within: Duration, now: QueueTime) {
        let young = |undo: &Arc<Undo>| now.since(undo.at) < within;
        self.undos.retain(young);
    }

    /// Records the state of these entries in a view, from which they change.
    pub fn note(&mut self, from: &View, ids: Vec<(Id, Vec<String>, (QueueTime, UnixTime))>) {
        let mut before = from.by_id(&ids.iter().map(|(id, ..)| *id).collect());
        for (id, keys, (at, since)) in ids {
            self.undos.push(Arc::new(Undo { id, before: before.remove(&id), keys, at, since }));
        }
        self.bound();
    }

    /// Keeps at most two records for each entry, however often it changes: its first state, and the state after that,
    /// which is dropped with the latest of its changes.
    fn bound(&mut self) {
        let mut counts: FastMap<Id, usize> = FastMap::default();
        self.undos.iter().for_each(|undo| *counts.entry(undo.id).or_default() += 1);
        if counts.values().all(|count| *count <= 2) {
            return;
        }
        let mut seen: FastMap<Id, usize> = FastMap::default();
        let mut joined: FastMap<Id, Undo> = FastMap::default();
        let undos = std::mem::take(&mut self.undos);
        for undo in undos {
            let (count, seen) = (counts[&undo.id], seen.entry(undo.id).or_default());
            *seen += 1;
            if count <= 2 || *seen == 1 {
                self.undos.push(undo);
                continue;
            }
            let of_it = joined.entry(undo.id).or_insert_with(|| Undo::clone(&undo));
            of_it.at = of_it.at.max(undo.at);
            let new: Vec<String> = undo.keys.iter().filter(|key| !of_it.keys.contains(key)).cloned().collect();
            of_it.keys.extend(new);
            if *seen == count {
                self.undos.extend(joined.remove(&undo.id).map(Arc::new));
            }
        }
    }

    /// The view with all recent changes taken back.
    #[must_use]
    pub fn before(&self, current: &View) -> View {
        let mut view = current.clone();
        // The oldest state of an entry counts, so it is applied last.
        for undo in self.undos.iter().rev() {
            view.apply(undo.before.clone().map_or(Change::Gone(undo.id), Change::Put));
        }
        view
    }

    /// The addresses whose destination changed, some of them twice.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.undos.iter().flat_map(|undo| &undo.keys).map(String::as_str)
    }

    /// Keeps only the changes for which `is_kept` returns true.
    pub fn retain(&mut self, is_kept: impl Fn(&Undo) -> bool) {
        self.undos.retain(|undo| is_kept(undo));
    }

    #[must_use]
    pub fn ids(&self) -> FastSet<Id> {
        self.undos.iter().map(|undo| undo.id).collect()
    }

    pub fn clear(&mut self) {
        self.undos.clear();
    }
}
