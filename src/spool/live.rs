//! The messages that are not finished, as the log's records make them. Pure; `committer` and `recover` keep one.

use crate::message::queue_id::QueueId;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::entry::{Change, Entry};
use super::line::{self, Header, Line, Logged};

/// All live messages, oldest first.
#[derive(Debug, Default)]
pub(super) struct Live {
    messages: BTreeMap<QueueId, Message>,
    bytes: u64,
}

#[derive(Debug)]
struct Message {
    entry: Entry,
    /// What it takes in the log, about.
    bytes: u64,
}

impl Live {
    /// Adds a message that takes `bytes` in the log. Returns its id if it is finished from the start.
    pub(super) fn accept(&mut self, entry: Entry, bytes: u64) -> Option<QueueId> {
        let id = entry.id;
        if entry.is_finished() {
            return Some(id);
        }
        self.bytes += bytes;
        self.messages.insert(id, Message { entry, bytes });
        None
    }

    /// Applies a change. Returns the message's id if that finished it. A change to a message that is not live
    /// (an operator dropped it meanwhile), or to a recipient that it has not, changes nothing.
    pub(super) fn change(&mut self, change: &Change) -> Option<QueueId> {
        let message = self.messages.get_mut(&change.id)?;
        message.entry.apply(change);
        if !message.entry.is_finished() {
            return None;
        }
        self.remove(change.id).map(|entry| entry.id)
    }

    /// Takes a message out.
    pub(super) fn remove(&mut self, id: QueueId) -> Option<Entry> {
        let message = self.messages.remove(&id)?;
        self.bytes -= message.bytes;
        Some(message.entry)
    }

    /// The messages, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.messages.values().map(|message| &message.entry)
    }

    /// About how many bytes of the log are needed: the rest is what became of finished messages.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A whole segment that says the same in as few bytes as can be. `bytes` is counted anew.
    ///
    /// # Errors
    /// As [`line::write`].
    pub(super) fn write_segment(&mut self, last_id: QueueId) -> Result<Vec<u8>, serde_json::Error> {
        let mut segment = Vec::new();
        line::write(&Line::Segment(Header { format: line::FORMAT, last_id }), &mut segment)?;
        self.bytes = 0;
        for message in self.messages.values_mut() {
            let from = segment.len();
            let logged = Logged { accepted: vec![Cow::Borrowed(&message.entry)], ..Logged::default() };
            line::write(&Line::Record(logged), &mut segment)?;
            message.bytes = (segment.len() - from) as u64;
            self.bytes += message.bytes;
        }
        Ok(segment)
    }
}
