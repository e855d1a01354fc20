//! What the tasks of a node share: its epoch, its mail, and whether anything can be accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::database::DatabaseError;
use super::epoch::Epoch;
use super::state::OwnMail;
use crate::config::Standby;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;
use crate::spool::condition::{Condition, Takes};
use crate::spool::content_cache::ContentCache;

/// What the tasks share.
pub(super) struct Shared {
    pub(super) epoch: Epoch,
    pub(super) standby: Standby,
    pub(super) metrics: Metrics,
    pub(super) mail: Mutex<Mail>,
    /// Large contents in the database whose messages were not accepted: the next transaction removes them.
    pub(super) abandoned: Mutex<Vec<QueueId>>,
    /// The digest of the configuration in force.
    pub(super) configuration: Mutex<String>,
    pub(super) condition: Condition,
    /// The node stops.
    takes_over_no_more: AtomicBool,
    ended: AtomicBool,
}

/// This node's mail.
#[derive(Default)]
pub(super) struct Mail {
    pub(super) own: OwnMail,
    pub(super) fresh: ContentCache,
}

impl Shared {
    /// `configuration`: its digest.
    pub(super) fn new(epoch: Epoch, standby: Standby, configuration: &str, metrics: Metrics) -> Self {
        Self {
            epoch,
            standby,
            metrics,
            mail: Mutex::default(),
            abandoned: Mutex::default(),
            configuration: Mutex::new(configuration.to_owned()),
            condition: Condition::default(),
            takes_over_no_more: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    pub(super) fn takes(&self, takes: Takes) {
        self.condition.set_takes(takes, &self.metrics);
    }

    pub(super) fn configuration(&self) -> String {
        self.configuration.lock().clone()
    }

    pub(super) fn takes_records(&self) -> bool {
        self.condition.takes_records()
    }

    pub(super) fn take_over_no_more(&self) {
        self.takes_over_no_more.store(true, Ordering::Relaxed);
    }

    pub(super) fn takes_over(&self) -> bool {
        !self.takes_over_no_more.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The epoch has ended: the program has to start again, with a new one.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.takes(Takes::NothingMore(DatabaseError::Ended.to_string()));
    }
}

/// Ends the node with the task that holds it, also when that panics.
pub(super) struct EndsWith(pub(super) Arc<Shared>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.end();
    }
}
