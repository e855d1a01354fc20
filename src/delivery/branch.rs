//! One branch: the part of a message for one send connector and next-hop domain, from its envelope to each recipient's
//! outcome.
//!
//! Cut-through asks about each recipient as its RCPT comes (`Branch::ask`) and sends the message when it is complete
//! (`Branch::send`); the queue begins with the message. Both use the same walk over next hops, the same conversation
//! and the same outcomes.

use std::time::Duration;

mod content;
mod envelope;
mod lag;
mod one_by_one;
mod pace;
mod parting;
mod queued;

pub use content::Fields;
pub(crate) use content::{Body, Message, NOT_OURS, Waits};
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

/// The most recipients of one transaction: what every server accepts (RFC 5321 4.5.3.1.8), and what one stamp names.
pub(crate) const MAX_RECIPIENTS: usize = 100;
/// How long a client's transaction waits for next hops in total, up to their 354.
const BEFORE_DATA: Duration = Duration::from_secs(180);
/// After the content has been sent in part, this many other hosts are tried while a client waits.
const OTHER_HOSTS: usize = 1;

/// The outcome if the client's transaction has waited long enough.
const IMPATIENT: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop takes too long to answer");

pub(crate) struct Branch {
    pub(super) out: WayOut,
    /// Recipients that the next hop accepted, or that will be queued.
    members: Vec<Member>,
    line: Line,
    /// Outcomes of recipients that are no longer members.
    ended: Vec<(usize, Outcome)>,
    /// Members that have to go in another transaction.
    later: Vec<Member>,
    /// Hosts that accepted the envelope and then failed, and the last one's error.
    tried: Vec<Key>,
    last: Option<Outcome>,
    /// Whether content is streamed.
    stream: Stream,
    /// How fast the next hop takes the content.
    pace: Pace,
    /// The time that is left for next hops, up to their 354.
    left: Duration,
    dot: Dot,
}

/// Whether the end of data has been sent and not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dot {
    NotSent,
    Out,
}

/// Whether a branch's content is sent as it comes.
#[derive(Default)]
enum Stream {
    /// No: it is received completely first.
    #[default]
    No,
    On,
    /// It was, and has ended with these outcomes at this host.
    Over(Vec<(usize, Outcome)>, Option<Key>),
}

/// The state of the branch's connection.
enum Line {
    /// The envelope has not been sent, or was aborted.
    Away,
    /// The next hop has the envelope.
    Open(Box<Checkout>),
    /// No next hop can be used in this transaction.
    Unreachable(Outcome),
}

/// Whether the transaction accepted other recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Accepted,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its position among the transaction's or the message's recipients.
    pub(crate) at: usize,
    /// The client's RCPT arguments.
    pub(crate) rcpt: RcptTo,
    /// The address in RCPT TO.
    pub(crate) rcpt_to: Address,
}

impl Member {
    fn target(&self) -> (usize, Target<'_>) {
        (self.at, Target { rcpt_to: &self.rcpt_to, rcpt: &self.rcpt })
    }
}

impl Branch {
    /// Without recipients.
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

    /// The same with recipients that no next hop has been asked about.
    pub(crate) fn with(self, members: Vec<Member>) -> Self {
        Self { members, ..self }
    }

    /// Whether this route belongs to the branch. With smart hosts all recipients go together, by MX those of one
    /// domain.
    pub(crate) fn is_for(&self, route: &Route) -> bool {
        let same_hops = self.out.has_smart_hosts() || self.out.next_hop_domain == route.next_hop_domain;
        self.out.connector.name == route.connector && same_hops
    }

    /// Sets its recipients, except those with an outcome. If they change, the envelope is sent again.
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

    pub(crate) fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    /// Whether a next hop has the envelope.
    pub(crate) fn has_checkout(&self) -> bool {
        matches!(self.line, Line::Open(_))
    }

    /// Whether it has any recipients.
    pub(crate) fn sends(&self) -> bool {
        !self.members.is_empty() && !matches!(self.line, Line::Unreachable(_))
    }

    /// Whether its content is sent as it comes.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.stream, Stream::On)
    }

    /// Records a member's outcome, unless it goes in another transaction: if the next hop accepted others, its limit
    /// does not concern this recipient alone.
    fn end(&mut self, at: usize, outcome: Outcome, others: Others) {
        let Some(place) = self.members.iter().position(|member| member.at == at) else { return };
        let member = self.members.remove(place);
        match outcome.class {
            Class::TooManyRecipients if others == Others::Accepted => self.later.push(member),
            Class::TooManyRecipients => {
                // None was accepted: another transaction would end in the same way.
                let reply = Reply { code: 452, enhanced: Some(Enhanced(4, 5, 3)), ..outcome.reply };
                self.ended.push((at, Outcome { class: Class::Deferred, reply, ..outcome }));
            }
            _ => self.ended.push((at, outcome)),
        }
    }

    /// Completes when another transaction wants its connection; never if it has none.
    pub(crate) async fn wanted(&self) {
        match &self.line {
            Line::Open(checkout) => checkout.wanted().await,
            Line::Away | Line::Unreachable(_) => std::future::pending().await,
        }
    }

    /// How long its connection has been held, if more transactions wait than there are connections.
    pub(crate) fn crowded(&self) -> Option<Duration> {
        match &self.line {
            Line::Open(checkout) => checkout.crowded(),
            Line::Away | Line::Unreachable(_) => None,
        }
    }

    /// Gives the connection back, if there is one. During the content it can only be closed; the message is sent again
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

    /// The same outcome for all members.
    fn all(&self, outcome: &Outcome) -> Vec<(usize, Outcome)> {
        self.members.iter().map(|member| (member.at, outcome.clone())).collect()
    }

    /// The transaction is over: returns the connection if it can be used.
    fn close(&mut self, ended: Reuse) {
        if let Line::Open(checkout) = std::mem::replace(&mut self.line, Line::Away) {
            checkout.give_back(ended);
        }
    }
}
