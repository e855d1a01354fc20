//! What becomes of an address that is refused as unknown, by a next hop or by our own decision (DESIGN section 5, "doubt
//! is temporary"). Pure.
//!
//! A directory lags behind what an administrator did, a next hop behind its directory: whoever exists as far as anybody
//! can say is doubted for an hour before the sender is told for good. [`doubt`] is the rule, the same at RCPT, at the
//! dot and in the queue; [`RecentlyGood`](super::recently_good::RecentlyGood) remembers what it needs to know
//! ([`Known`]) and is told what it came to.

use std::time::Duration;

use super::verdict::{Decision, Reason, Route, RouteKind, Verdict};
use crate::lookup::{Fresh, Kind, Lookup, Recipient};
use crate::smtp::reply::{ROUTING_LOOP, Reply, USER_UNKNOWN};
use crate::time::QueueTime;

/// For how long after its first refusal an address is doubted.
pub(super) const DOUBTED: Duration = Duration::from_hours(1);
/// Who sends back what it took does so within this time.
const SETTLED: Duration = Duration::from_mins(5);

/// Who refuses an address, and on what ground.
#[derive(Debug, Clone, Copy)]
pub enum Refused<'a> {
    /// A next hop calls it unknown: at RCPT, at the dot or to the queue.
    ByHop {
        /// The way that led there.
        route: &'a Route,
        /// Whether this way is a change that was followed.
        followed: Followed,
        /// What is decided now that the directory was asked live.
        live: &'a Verdict,
    },
    /// Our own decision, which asked the directory live before it refused for good.
    ByUs {
        /// The row that decided ([`Decision::row`]).
        row: Option<u8>,
        /// The refusal.
        reply: &'a Reply,
    },
}

/// Whether a changed answer was followed already: it is once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// Not yet.
    NotYet,
    /// It was, and led here.
    Already,
}

/// Who says that an address exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// The directory, asked live: a mailbox, group, public folder, mail user or contact has it; and postmaster.
    Directory,
    /// The same, for the address without its tag (`plus_addressing`).
    DirectoryWithoutTag,
    /// The directory of `verify_with`, asked live.
    VerifyWith,
    /// No directory.
    Nobody,
}

/// What is known of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Who says that it exists.
    pub by: KnownBy,
    /// Where it is recently good: since when, without 7 days between two successes.
    pub good_since: Option<QueueTime>,
    /// When it was refused first, where that is remembered.
    pub first_refused: Option<QueueTime>,
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The directory names another way now: it goes there, once.
    Follow(Route),
    /// `451 4.3.0` ([`UNKNOWN_JUST_NOW`](crate::smtp::reply::UNKNOWN_JUST_NOW)); the queue tries again.
    Temporary,
    /// It is told for good that there is no such recipient.
    Believe(Believed),
    /// Nobody can say now: deferred with this reply of ours.
    Defer(Reply),
    /// Our refusal is about something else than who exists: it is told as it is.
    Stands,
}

/// Whose word is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Believed {
    /// The next hop's: its words are passed on or reported.
    NextHop,
    /// Ours: our decision, made live, refuses it too. The queue reports the next hop's words all the same: a decision
    /// made anew refuses nobody whose mail was accepted (DESIGN section 7, "Queue").
    Ourselves(Reply),
}

/// The rule.
#[must_use]
pub fn doubt(refused: &Refused<'_>, known: &Known, now: QueueTime) -> Doubt {
    let believed = match *refused {
        Refused::ByHop { route, followed: Followed::NotYet, live: Verdict::Accept(other) }
            if !other.is_same_way(route) =>
        {
            return Doubt::Follow(other.clone());
        }
        Refused::ByHop { live: Verdict::Accept(_), .. } => Believed::NextHop,
        // Anything not proven permanent is temporary.
        Refused::ByHop { live: Verdict::Refuse(reply), .. } | Refused::ByUs { reply, .. } if !reply.is_permanent() => {
            return Doubt::Defer(reply.clone());
        }
        Refused::ByHop { live: Verdict::Refuse(reply), .. } => Believed::Ourselves(reply.clone()),
        Refused::ByUs { row, reply } => {
            if !is_about_who_exists(row, reply) {
                return Doubt::Stands;
            }
            Believed::Ourselves(reply.clone())
        }
    };
    if refused.may_be_wrong(known, now) && known.is_within_its_hour(now) {
        Doubt::Temporary
    } else {
        Doubt::Believe(believed)
    }
}

/// Which refusals of ours say that there is no such recipient, or that the mail came back because there is none where
/// it belongs. Row 1 (relaying denied), row 2 (no route) and an address that is none of ours to interpret do not.
fn is_about_who_exists(row: Option<u8>, reply: &Reply) -> bool {
    match row {
        Some(3 | 8) => *reply == ROUTING_LOOP,
        Some(9..=11) => *reply == USER_UNKNOWN,
        Some(_) | None => false,
    }
}

impl Refused<'_> {
    /// Whether there is anybody whose word stands against it.
    fn may_be_wrong(&self, known: &Known, now: QueueTime) -> bool {
        match (self, known.good_since) {
            // Sent straight back. Who took it a moment ago takes everything: that was no success, and a typing error is
            // no user who was moved.
            (Self::ByUs { row: Some(3 | 8 | 10), .. }, Some(since)) if now.since(since) < SETTLED => false,
            // Rows 3 and 10: no directory has it, and the organisation that should sends it back.
            (Self::ByUs { row: Some(3 | 10), .. }, good_since) => good_since.is_some(),
            (Self::ByHop { .. } | Self::ByUs { .. }, _) => known.is_vouched_for(),
        }
    }
}

impl Known {
    /// Whether anybody says that it exists: a directory, or mail that was accepted.
    #[must_use]
    pub fn is_vouched_for(&self) -> bool {
        self.by != KnownBy::Nobody || self.good_since.is_some()
    }

    fn is_within_its_hour(&self, now: QueueTime) -> bool {
        self.first_refused.is_none_or(|first| now.since(first) < DOUBTED)
    }
}

impl KnownBy {
    /// Who says so in a decision that rests on live answers.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let found = found_as_it_came(decision);
        match &decision.verdict {
            Verdict::Accept(route) if Self::by_way(route.way) != Self::Directory => Self::by_way(route.way),
            // A target address may lead to a refusal; the entry that has it is there all the same.
            Verdict::Accept(_) => found.unwrap_or(Self::Directory),
            Verdict::Refuse(_) => found.unwrap_or(Self::Nobody),
        }
    }

    /// The same where only the way is known that was decided.
    #[must_use]
    pub fn by_way(way: RouteKind) -> Self {
        match way {
            RouteKind::Resolved | RouteKind::Redirected => Self::Directory,
            RouteKind::RelayedVerified => Self::VerifyWith,
            RouteKind::Relayed | RouteKind::External => Self::Nobody,
        }
    }
}

/// Whether a directory has the address that the decision is about: the first entry that it rests on. Further ones are
/// those of target addresses.
fn found_as_it_came(decision: &Decision) -> Option<KnownBy> {
    decision.reasons.iter().find_map(|reason| match reason {
        Reason::Directory { address, lookup: Lookup::Found(recipient), fresh: Fresh::Live, .. }
            if is_somebody(recipient) =>
        {
            let as_it_came = *address == decision.address;
            Some(if as_it_came { KnownBy::Directory } else { KnownBy::DirectoryWithoutTag })
        }
        Reason::Directory { .. } | Reason::Row { .. } | Reason::Note(_) => None,
    })
}

/// Whether an entry is more than `no-mailbox`, which is as good as not found.
fn is_somebody(recipient: &Recipient) -> bool {
    recipient.kind != Kind::NoMailbox
}

#[cfg(test)]
mod tests;
