//! Whether the refusal of an address as unknown, by a next hop or by our own decision, is final or temporary (DESIGN
//! section 5, "doubt is temporary"). Pure.
//!
//! Directories lag behind an administrator's changes, and next hops behind their directory. So an address for whose
//! existence there is evidence is refused temporarily for an hour before the refusal is final. [`doubt`] is the rule,
//! the same at RCPT, at the end of data and in the queue; [`RecentlyGood`](super::recently_good::RecentlyGood)
//! remembers the evidence ([`Known`]) and records the result.

use std::time::Duration;

use super::verdict::{Decision, Reason, Route, RouteKind, Verdict};
use crate::lookup::{Fresh, Kind, Lookup};
use crate::smtp::reply::{ROUTING_LOOP, Reply, USER_UNKNOWN};
use crate::time::QueueTime;

/// How long after its first refusal an address is refused temporarily only.
pub(super) const DOUBTED: Duration = Duration::from_hours(1);
/// A system that sends accepted mail back does so within this time.
const SETTLED: Duration = Duration::from_mins(5);

/// Who refuses an address, and why.
#[derive(Debug, Clone, Copy)]
pub enum Refused<'a> {
    /// A next hop says that it is unknown: at RCPT, at the end of data or to the queue.
    ByHop {
        /// The route by which it was asked.
        route: &'a Route,
        /// Whether this route comes from a changed answer that was followed.
        followed: Followed,
        /// The decision now, made with live answers of the directories.
        live: &'a Verdict,
    },
    /// Our own decision, made with live answers.
    ByUs {
        /// Its row ([`Decision::row`]).
        row: Option<u8>,
        reply: &'a Reply,
    },
}

/// Whether a changed answer has been followed already; that is done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    NotYet,
    /// It has, and led to this refusal.
    Already,
}

/// Which source says that an address exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// A live answer of the directory: a mailbox, group, public folder, mail user or contact has the address; or it is
    /// postmaster.
    Directory,
    /// The same for the address without its tag (`plus_addressing`).
    DirectoryWithoutTag,
    /// A live answer of the directory in `verify_with`.
    VerifyWith,
    /// None.
    Nobody,
}

/// The evidence for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub by: KnownBy,
    /// Since when the address is recently good, without a gap of 7 days between two successes; `None`: it is not.
    pub good_since: Option<QueueTime>,
    /// The first refusal, if one is remembered.
    pub first_refused: Option<QueueTime>,
}

/// What is done about the refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The directory names another route now: use it, once.
    Follow(Route),
    /// Answer `451 4.3.0` ([`UNKNOWN_JUST_NOW`](crate::smtp::reply::UNKNOWN_JUST_NOW)); the queue retries.
    Temporary,
    /// Refuse for good: there is no such recipient.
    Believe(Believed),
    /// The decision itself is temporary: defer with this reply of ours.
    Defer(Reply),
    /// Our refusal has another reason than an unknown recipient: it is given unchanged.
    Stands,
}

impl Doubt {
    /// Whether it may be another one where more is remembered.
    #[must_use]
    pub fn rests_on_memory(&self) -> bool {
        match self {
            Self::Temporary | Self::Believe(_) => true,
            Self::Follow(_) | Self::Defer(_) | Self::Stands => false,
        }
    }
}

/// Whose refusal is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Believed {
    /// The next hop's: its reply is passed on or reported.
    NextHop,
    /// Ours: the decision with live answers refuses it too. The queue reports the next hop's reply all the same: a new
    /// decision never refuses mail that was accepted (DESIGN section 7, "Queue").
    Ourselves(Reply),
}

/// Applies the rule.
#[must_use]
pub fn doubt(refused: &Refused<'_>, known: &Known, now: QueueTime) -> Doubt {
    let believed = match *refused {
        Refused::ByHop { route, followed: Followed::NotYet, live: Verdict::Accept(other) }
            if !other.is_same_way(route) =>
        {
            return Doubt::Follow(other.clone());
        }
        Refused::ByHop { live: Verdict::Accept(_), .. } => Believed::NextHop,
        // A refusal that is not proven permanent is temporary.
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

/// Whether a refusal of ours says that there is no such recipient, or that the mail came back because the responsible
/// system has none. Row 1 (relaying denied), row 2 (no route) and addresses in domains that we do not interpret do not.
fn is_about_who_exists(row: Option<u8>, reply: &Reply) -> bool {
    match row {
        Some(3 | 8) => *reply == ROUTING_LOOP,
        Some(9..=11) => *reply == USER_UNKNOWN,
        Some(_) | None => false,
    }
}

impl Refused<'_> {
    /// Whether there is evidence against the refusal.
    fn may_be_wrong(&self, known: &Known, now: QueueTime) -> bool {
        match (self, known.good_since) {
            // The mail was sent straight back. A system that accepted it a moment ago accepts everything, so that was
            // no success: this is a mistyped address, not a user who was moved.
            (Self::ByUs { row: Some(3 | 8 | 10), .. }, Some(since)) if now.since(since) < SETTLED => false,
            // Rows 3 and 10: no directory has it, and the responsible organisation sends it back.
            (Self::ByUs { row: Some(3 | 10), .. }, good_since) => good_since.is_some(),
            (Self::ByHop { .. } | Self::ByUs { .. }, _) => known.is_vouched_for(),
        }
    }
}

impl Known {
    /// Whether a directory says that the address exists, or mail for it was accepted.
    #[must_use]
    pub fn is_vouched_for(&self) -> bool {
        self.by != KnownBy::Nobody || self.good_since.is_some()
    }

    fn is_within_its_hour(&self, now: QueueTime) -> bool {
        self.first_refused.is_none_or(|first| now.since(first) < DOUBTED)
    }
}

impl KnownBy {
    /// The source in a decision with live answers.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        let found = found_as_it_came(decision);
        match &decision.verdict {
            Verdict::Accept(route) if Self::by_way(route.way) != Self::Directory => Self::by_way(route.way),
            // A target address may lead to a refusal; the entry with the address exists all the same.
            Verdict::Accept(_) => found.unwrap_or(Self::Directory),
            Verdict::Refuse(_) => found.unwrap_or(Self::Nobody),
        }
    }

    /// The source where only the kind of route is known.
    #[must_use]
    pub fn by_way(way: RouteKind) -> Self {
        match way {
            RouteKind::Resolved | RouteKind::Redirected => Self::Directory,
            RouteKind::RelayedVerified => Self::VerifyWith,
            RouteKind::Relayed | RouteKind::External => Self::Nobody,
        }
    }
}

/// Whether a directory has the address that the decision is about, by its first answer; further answers are about
/// target addresses.
fn found_as_it_came(decision: &Decision) -> Option<KnownBy> {
    decision.reasons.iter().find_map(|reason| match reason {
        Reason::Directory { address, lookup: Lookup::Found(recipient), fresh: Fresh::Live, .. }
            if recipient.kind != Kind::NoMailbox =>
        {
            let as_it_came = *address == decision.address;
            Some(if as_it_came { KnownBy::Directory } else { KnownBy::DirectoryWithoutTag })
        }
        Reason::Directory { .. } | Reason::Row { .. } | Reason::Note(_) => None,
    })
}

#[cfg(test)]
mod tests;
