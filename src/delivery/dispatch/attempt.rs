//! One turn of a message on a connector: from taking a slot to the end of the attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::queue::{Ticket, Turn};
use super::{AFTER_BREAKDOWN, QueueShared, commit, drops, retry, rules, run, settle};
use crate::delivery::attempt::GivesPlace;
use crate::message::queue_id::QueueId;
use crate::spool::SpoolError;
use crate::time::UnixTime;

/// One turn: an attempt, if something is due. Whatever happens, its slot and its recipients are free afterwards.
pub(super) async fn attempt(shared: Arc<QueueShared>, turn: Turn) {
    let place = Arc::new(OccupiedSlot { shared: shared.clone(), turn, kept: AtomicBool::new(true) });
    let turn = &place.turn;
    let in_force = shared.parts.current.load_full();
    match shared.load(turn.id).await {
        Ok(true) => {}
        Ok(false) => return shared.queue.lock().led_nowhere(turn),
        Err(error) => {
            tracing::error!(queue_id = %turn.id, %error, "a queued message cannot be read; it is tried again in {AFTER_BREAKDOWN:?}");
            return shared.queue.lock().again(turn, UnixTime::steady().plus(AFTER_BREAKDOWN));
        }
    }
    let rules = rules(&in_force.config, &turn.connector, shared.parts.outbound.share());
    let taken = shared.queue.lock().take(turn, rules, UnixTime::steady());
    let Some(picked) = taken else { return shared.queue.lock().led_nowhere(turn) };
    let hold = Hold { shared: &shared, id: turn.id, ticket: turn.ticket };
    // Weak, because what an attempt began may outlive it.
    let gives = Arc::downgrade(&place);
    let gives: Arc<GivesPlace> = Arc::new(move || gives.upgrade().iter().for_each(|place| place.give_up()));
    let ended = run::run(&shared, &in_force, &picked, &gives).await;
    let _durable = commit::commit(&shared, &in_force, &picked.entry, ended).await;
    drop(hold);
    let id = turn.id;
    drop(place);
    drops::go_on(shared, id).await;
}

/// A turn with its slot on its connector.
struct OccupiedSlot {
    shared: Arc<QueueShared>,
    turn: Turn,
    /// Whether it still has the slot.
    kept: AtomicBool,
}

impl OccupiedSlot {
    /// Frees the slot early: only waiting is left.
    fn give_up(&self) {
        if self.kept.swap(false, Ordering::Relaxed) {
            self.shared.queue.lock().gives_place(&self.turn);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for OccupiedSlot {
    fn drop(&mut self) {
        self.give_up();
        self.shared.queue.lock().ends(self.turn.id);
    }
}

/// Keeps a message in memory until it is dropped.
pub(super) struct Loaded {
    shared: Arc<QueueShared>,
    id: QueueId,
}

impl Loaded {
    /// Reads the message if it is not in memory. `None`: there is none with this id.
    pub(super) async fn begin(shared: &Arc<QueueShared>, id: QueueId) -> Result<Option<Self>, SpoolError> {
        shared.queue.lock().begins(id);
        let loaded = Self { shared: shared.clone(), id };
        Ok(shared.load(id).await?.then_some(loaded))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.shared.queue.lock().ends(self.id);
    }
}

/// Keeps recipients busy until it is dropped.
pub(super) struct Hold<'a> {
    pub(super) shared: &'a QueueShared,
    pub(super) id: QueueId,
    pub(super) ticket: Ticket,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.shared.queue.lock().release(self.id, self.ticket, UnixTime::steady().plus(AFTER_BREAKDOWN));
        self.shared.wake.notify_one();
    }
}

impl QueueShared {
    /// Makes sure that a message with a turn is in memory; returns whether it exists.
    async fn load(&self, id: QueueId) -> Result<bool, SpoolError> {
        if self.queue.lock().is_loaded(id) {
            return Ok(true);
        }
        let spool = self.parts.spool.clone();
        let read = tokio::task::spawn_blocking(move || spool.entry(id)).await;
        let read = read.map_err(|panicked| SpoolError::Io(panicked.to_string()))??;
        let mut queue = self.queue.lock();
        if let Some(mut entry) = read {
            let config = self.parts.current.load().config.clone();
            settle::after_reading(&mut entry, |connector| retry(&config, connector), UnixTime::steady());
            queue.load(entry);
        }
        Ok(queue.is_loaded(id))
    }
}
