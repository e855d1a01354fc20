//! One branch: the part of a message that goes to one send connector and next-hop domain, from its envelope to what
//! became of each recipient.
//!
//! Cut-through asks for each recipient as its RCPT comes ([`Branch::ask`]) and sends the message when it is there
//! ([`Branch::send`]); the queue begins with the message, for nobody waits. The way is the same: one walk over next hops,
//! one conversation, one set of outcomes.

use std::time::Duration;

mod content;
mod envelope;
mod lag;
mod one_by_one;
mod pace;
mod parting;
mod queued;

pub use content::Fields;
pub(crate) use content::{Body, Message, Waits};
pub(crate) use lag::Lag;
pub(crate) use parting::InFlight;
pub use queued::QueuedBranch;

use super::attempt::WayOut;
use super::attempt::checkout::{Checkout, Target};
use super::attempt::conversation::Reuse;
use super::health::Key;
use super::outcome::{Class, Outcome};
use crate::routing::verdict::Route;
use crate::smtp::address::Address;
use crate::smtp::envelope::RcptTo;
use crate::smtp::reply::{Enhanced, Reply};
use pace::Pace;

/// Recipients of one transaction: what every server takes (RFC 5321 4.5.3.1.8), and what one stamp names.
pub(crate) const MAX_RECIPIENTS: usize = 100;
/// How long a client's transaction waits for next hops in all, up to their 354.
const BEFORE_DATA: Duration = Duration::from_secs(180);
/// After the content has begun to go, so many other hosts are tried while a client waits.
const OTHER_HOSTS: usize = 1;

/// The client's transaction has waited long enough.
const IMPATIENT: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop takes too long to answer");

/// One send connector and next-hop domain.
pub(crate) struct Branch {
    pub(super) out: WayOut,
    /// Recipients that the next hop accepted, or that will be queued.
    members: Vec<Member>,
    line: Line,
    /// What became of recipients that are not members any more.
    ended: Vec<(usize, Outcome)>,
    /// Members that go in another transaction.
    later: Vec<Member>,
    /// Hosts that took the envelope and then not the message, and what the last of them failed with.
    tried: Vec<Key>,
    last: Option<Outcome>,
    /// How its content goes.
    stream: Stream,
    /// How fast its next hop takes the content.
    pace: Pace,
    /// How much longer next hops are waited for, up to their 354.
    left: Duration,
    dot: Dot,
}

/// Whether the end of data is with the next hop, and not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dot {
    NotSent,
    Out,
}

/// How a branch's content goes.
#[derive(Default)]
enum Stream {
    /// It is read first.
    #[default]
    No,
    /// As it comes.
    On,
    /// It began as it came, and this is how it ended, with which host.
    Over(Vec<(usize, Outcome)>, Option<Key>),
}

/// How the branch stands with its next hop.
enum Line {
    /// The envelope has not been said, or was taken back.
    Away,
    /// The envelope is with the next hop.
    Open(Box<Checkout>),
    /// No next hop can be used in this transaction.
    Unreachable(Outcome),
}

/// Whether a transaction has room for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Accepted,
    None,
}

/// A recipient of a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its number: the position among the transaction's or the message's recipients.
    pub(crate) at: usize,
    /// What RCPT said to us.
    pub(crate) rcpt: RcptTo,
    /// What RCPT TO will carry.
    pub(crate) rcpt_to: Address,
}

impl Member {
    fn target(&self) -> (usize, Target<'_>) {
        (self.at, Target { rcpt_to: &self.rcpt_to, rcpt: &self.rcpt })
    }
}

impl Branch {
    /// Without recipients yet.
    pub(crate) fn new(out: WayOut) -> Self {
        Self {
            out,
            members: Vec::new(),
            line: Line::Away,
            ended: Vec::new(),
            later: Vec::new(),
            tried: Vec::new(),
            last: None,
            stream: Stream::No,
            pace: Pace::default(),
            left: BEFORE_DATA,
            dot: Dot::NotSent,
        }
    }

    /// The same, with recipients that nobody has been asked about.
    pub(crate) fn with(self, members: Vec<Member>) -> Self {
        Self { members, ..self }
    }

    /// Whether this route is its own. By smart hosts all recipients go together, by MX those of one domain.
    pub(crate) fn is_for(&self, route: &Route) -> bool {
        let same_hops = self.out.has_smart_hosts() || self.out.next_hop_domain == route.next_hop_domain;
        self.out.connector.name == route.connector && same_hops
    }

    /// These are its recipients, but for those that have their answer. If they were others before, the envelope is said
    /// again.
    pub(crate) fn has_only(&mut self, its: Vec<Member>) {
        self.later.retain(|member| its.contains(member));
        let ended = |at| self.ended.iter().any(|(ended, _)| *ended == at);
        let is_now = |member: &Member| !ended(member.at) && !self.later.contains(member);
        let members: Vec<Member> = its.into_iter().filter(is_now).collect();
        let same = members.len() == self.members.len() && members.iter().all(|member| self.members.contains(member));
        if !same {
            self.members = members;
            self.release();
        }
    }

    /// One more recipient.
    pub(crate) fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    /// Whether the envelope is with a next hop.
    pub(crate) fn has_checkout(&self) -> bool {
        matches!(self.line, Line::Open(_))
    }

    /// Whether there is anybody to send to, as far as is known.
    pub(crate) fn sends(&self) -> bool {
        !self.members.is_empty() && !matches!(self.line, Line::Unreachable(_))
    }

    /// Whether its content goes as it comes.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.stream, Stream::On)
    }

    /// A member has its answer, unless it goes in another transaction: where there was room for others there will be room
    /// for it.
    fn end(&mut self, at: usize, outcome: Outcome, others: Others) {
        let Some(place) = self.members.iter().position(|member| member.at == at) else { return };
        let member = self.members.remove(place);
        match outcome.class {
            Class::TooManyRecipients if others == Others::Accepted => self.later.push(member),
            Class::TooManyRecipients => {
                // Not even one: another transaction would end the same way.
                let reply = Reply { code: 452, enhanced: Some(Enhanced(4, 5, 3)), ..outcome.reply };
                self.ended.push((at, Outcome { class: Class::Deferred, reply, ..outcome }));
            }
            _ => self.ended.push((at, outcome)),
        }
    }

    /// Waits until somebody wants the connection that it has; without one for ever.
    pub(crate) async fn wanted(&self) {
        match &self.line {
            Line::Open(checkout) => checkout.wanted().await,
            Line::Away | Line::Unreachable(_) => std::future::pending().await,
        }
    }

    /// For how long its connection is held already, if more wait for one than there are.
    pub(crate) fn crowded(&self) -> Option<Duration> {
        match &self.line {
            Line::Open(checkout) => checkout.crowded(),
            Line::Away | Line::Unreachable(_) => None,
        }
    }

    /// The connection goes back, if there is one. In the middle of the content it can only be closed; all of it is sent
    /// later.
    pub(crate) fn release(&mut self) {
        if let Stream::On = self.stream {
            self.stream = Stream::No;
            self.line = Line::Away;
        }
        match std::mem::replace(&mut self.line, Line::Away) {
            Line::Open(checkout) => checkout.take_back(),
            line => self.line = line,
        }
    }

    /// The same for all members.
    fn all(&self, outcome: &Outcome) -> Vec<(usize, Outcome)> {
        self.members.iter().map(|member| (member.at, outcome.clone())).collect()
    }

    /// The transaction is over: the connection goes back if it can be used.
    fn close(&mut self, ended: Reuse) {
        if let Line::Open(checkout) = std::mem::replace(&mut self.line, Line::Away) {
            checkout.give_back(ended);
        }
    }
}
