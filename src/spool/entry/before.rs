//! Reads what was written in each format, as the current types. Pure; [`record`](super::super::record) calls it for the
//! spool's log, [`Entry::read`] for rows of a shared queue.
//!
//! Formats 2 and 3 have types of their own here.
//! They differ by a state that 2 never wrote. Neither has the queue's time: that started from the wall clock, so the
//! wall-clock time of reception is used.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Change, Content, Entry, HeldFor, Outcome, Queued, RecipientState, Waiting, Why};
use crate::message::queue_id::QueueId;
use crate::message::stamp::Stamp;
use crate::routing::verdict::Route;
use crate::smtp::envelope::{Origin, RcptTo, Sender};
use crate::smtp::reply::Reply;
use crate::spool::header::{FORMAT, OLDEST};
use crate::spool::record::Held as ContentPlace;
use crate::time::{QueueTime, UnixTime};

/// The text that marks in these formats a recipient that an operator dropped, among those held for a missing connector.
const DROPPED_UNDER_WAY: &str = "dropped by an operator while it was being tried";

/// Something that older versions wrote in other formats.
pub(in crate::spool) trait Versioned: DeserializeOwned {
    /// As formats 2 and 3 have it.
    type Before: DeserializeOwned;

    /// Converts it to the current types.
    fn now(before: Self::Before) -> Self;
}

/// Reads all of `bytes`, in this format; `None`: they are not that, or this version does not read the format.
pub(in crate::spool) fn read<T: Versioned>(format: u16, bytes: &[u8]) -> Option<T> {
    match format {
        FORMAT => whole(bytes),
        OLDEST..FORMAT => whole(bytes).map(T::now),
        _ => None,
    }
}

fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(read, _)| read)
}

impl Versioned for Entry {
    type Before = EntryBefore;

    fn now(before: EntryBefore) -> Self {
        before.now()
    }
}

#[derive(Deserialize)]
pub(in crate::spool) struct LoggedBefore {
    accepted: Vec<(EntryBefore, PlaceBefore)>,
    changes: Vec<ChangeBefore>,
}

#[derive(Deserialize)]
pub(in crate::spool) struct EntryBefore {
    id: QueueId,
    received_at: UnixTime,
    origin: Origin,
    sender: Sender,
    content: Content,
    stamps: Vec<Stamp>,
    recipients: Vec<QueuedBefore>,
}

#[derive(Deserialize)]
struct QueuedBefore {
    rcpt: RcptTo,
    route: Route,
    state: StateBefore,
}

#[derive(Deserialize)]
enum StateBefore {
    Waiting { attempts: u32, next_attempt: UnixTime, last_error: String, warned: bool },
    Held(String),
    Done(OutcomeBefore),
    WaitingSince { ages_from: UnixTime, attempts: u32, next_attempt: UnixTime, last_error: String, warned: bool },
}

#[derive(Deserialize)]
enum OutcomeBefore {
    Delivered { next_hop: Arc<str>, reply: Reply },
    Failed { next_hop: Arc<str>, reply: Reply },
    Dropped,
}

#[derive(Deserialize)]
enum PlaceBefore {
    Here { length: u32, sum: u32 },
    File { folder: u32 },
}

#[derive(Deserialize)]
struct ChangeBefore {
    id: QueueId,
    recipient: usize,
    state: StateBefore,
    route: Option<Route>,
}

impl LoggedBefore {
    /// Converts to the current types.
    pub(in crate::spool) fn now(self) -> (Vec<(Entry, ContentPlace)>, Vec<Change>) {
        let accepted = self.accepted.into_iter().map(|(entry, place)| (entry.now(), place.now()));
        (accepted.collect(), self.changes.into_iter().map(ChangeBefore::now).collect())
    }
}

impl EntryBefore {
    fn now(self) -> Entry {
        let Self { id, received_at, origin, sender, content, stamps, recipients } = self;
        let recipients = recipients.into_iter().map(QueuedBefore::now).collect();
        let queued_at = QueueTime(received_at.0);
        Entry { id, received_at, queued_at, origin, sender, content, stamps, recipients }
    }
}

impl QueuedBefore {
    fn now(self) -> Queued {
        let Self { rcpt, route, state } = self;
        Queued { rcpt, route, state: state.now() }
    }
}

impl StateBefore {
    fn now(self) -> RecipientState {
        let waiting = |(attempts, next_attempt, last_error, warned), ages_from: Option<UnixTime>| {
            let why = if attempts == 0 { Why::New } else { Why::Deferred };
            let ages_from = ages_from.map(|at| QueueTime(at.0));
            // The number of attempts with a real connection is unknown; it was not counted separately then.
            RecipientState::Waiting(Waiting {
                attempts,
                tried: attempts,
                tries: 0,
                next_attempt,
                why,
                last_error,
                warned,
                in_doubt: 0,
                followed: false,
                ages_from,
            })
        };
        match self {
            Self::Waiting { attempts, next_attempt, last_error, warned } => {
                waiting((attempts, next_attempt, last_error, warned), None)
            }
            Self::WaitingSince { ages_from, attempts, next_attempt, last_error, warned } => {
                waiting((attempts, next_attempt, last_error, warned), Some(ages_from))
            }
            Self::Held(why) if why == DROPPED_UNDER_WAY => RecipientState::Held(HeldFor::Drop),
            Self::Held(_) => RecipientState::Held(HeldFor::NoConnector),
            Self::Done(outcome) => RecipientState::Done(outcome.now()),
        }
    }
}

impl OutcomeBefore {
    fn now(self) -> Outcome {
        match self {
            Self::Delivered { next_hop, reply } => Outcome::Delivered { next_hop, reply },
            Self::Failed { next_hop, reply } => Outcome::Failed { next_hop, reply },
            Self::Dropped => Outcome::Dropped,
        }
    }
}

impl PlaceBefore {
    fn now(self) -> ContentPlace {
        match self {
            Self::Here { length, sum } => ContentPlace::Here { length, sum },
            Self::File { folder } => ContentPlace::File { folder, sum: None },
        }
    }
}

impl ChangeBefore {
    fn now(self) -> Change {
        let Self { id, recipient, state, route } = self;
        Change { id, recipient, state: state.now(), route }
    }
}
