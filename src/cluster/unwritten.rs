//! Recipients who have a message whose delivery is not durable yet: if the node died they would get it again. Pure.

use std::collections::HashSet;

use parking_lot::Mutex;

use crate::message::queue_id::QueueId;
use crate::spool::entry::{Change, Outcome, RecipientState};

/// While there are so many nothing from the queue is sent to its end.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Unwritten(Mutex<HashSet<(QueueId, usize)>>);

impl Unwritten {
    /// Adds the deliveries among these changes; returns them. They stay until they are written, however often that fails.
    pub(super) fn add(&self, changes: &[Change]) -> Vec<(QueueId, usize)> {
        let is_delivered = |change: &&Change| matches!(change.state, RecipientState::Done(Outcome::Delivered { .. }));
        let delivered: Vec<_> =
            changes.iter().filter(is_delivered).map(|change| (change.id, change.recipient)).collect();
        self.0.lock().extend(&delivered);
        delivered
    }

    pub(super) fn are_written(&self, delivered: &[(QueueId, usize)]) {
        let mut all = self.0.lock();
        for written in delivered {
            all.remove(written);
        }
    }

    pub(super) fn are_few(&self) -> bool {
        self.0.lock().len() < MOST
    }
}
