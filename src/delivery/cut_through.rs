//! The branches of one client's transaction whose next hops take part in it (DESIGN section 7, "Cut-through").
//!
//! `session` asks for each recipient as its RCPT comes ([`Branches::ask`]), gives the connections back while the client
//! does not move ([`Branches::release`]), and sends the message when it is there ([`Branches::send`]). What the sender is
//! told is `combine`'s business, what becomes of mail that no next hop can take now the session's.

use std::sync::Arc;

mod branch;
mod lag;
mod message;
mod pace;

use super::attempt::answer::Answer;
use super::attempt::lend::Out;
use super::attempt::{HandedResult, Outbound};
use super::concurrently::concurrently;
use crate::config::{CutThrough, SendConnector, SmtpOut};
use crate::message::envelope::{Origin, RcptTo, Sender};
use crate::routing::verdict::Route;
use crate::smtp::domain::Domain;
use crate::smtp::reply::{Reply, TOO_MANY_RECIPIENTS};

use branch::{Branch, Line, Member, Stream};
use lag::Lag;
pub(crate) use message::{Body, Message};

/// Recipients of one transaction; every server takes as many (RFC 5321 4.5.3.1.8).
const MAX_RECIPIENTS: usize = 100;

/// One client's transaction, as far as next hops have a part in it.
pub(crate) struct Branches {
    outbound: Outbound,
    ehlo: Domain,
    all: Vec<Branch>,
}

/// A send connector that takes part, and how.
#[derive(Clone, Copy)]
pub(crate) struct TakesPart<'a> {
    /// The connector.
    pub connector: &'a Arc<SendConnector>,
    /// Its settings.
    pub smtp: &'a Arc<SmtpOut>,
    /// How long it is waited for.
    pub cut_through: &'a CutThrough,
}

/// One recipient, as it is asked about.
pub(crate) struct Asked<'a> {
    /// Its number: the position that it will have among the transaction's recipients.
    pub at: usize,
    /// What RCPT said to us.
    pub rcpt: &'a RcptTo,
    /// Where it goes.
    pub route: &'a Route,
    /// Where it came from.
    pub origin: &'a Origin,
    /// What MAIL said to us.
    pub sender: &'a Sender,
    /// Who says that it exists.
    pub vouched: Vouched<'a>,
}

/// Whether somebody vouches for a recipient: the directory, the other side's, or earlier mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vouched<'a> {
    /// Nobody does.
    No,
    /// Somebody does; this session asks. A next hop that refuses many such recipients is sick.
    ForBy(&'a str),
}

/// What the next hop says to a recipient.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Yes.
    Accepted,
    /// No more of them in this transaction.
    TooMany,
    /// 4xx or 5xx: the recipient's own answer, or the sender's.
    PassedOn(Reply),
    /// It does not know the recipient.
    Unknown(Reply),
    /// No next hop can be used now, and this is why.
    Unreachable(Reply),
}

/// How it ended for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Its number.
    pub at: usize,
    /// Which next hop answered; empty: none, or ourselves.
    pub next_hop: Arc<str>,
    /// How.
    pub end: End,
}

/// How a recipient's branch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The next hop has it.
    Accepted {
        /// What it said.
        reply: Reply,
        /// Whether it offers DSN, so that NOTIFY=SUCCESS is its business now.
        dsn: bool,
    },
    /// 4xx, or nobody knows.
    Deferred(Reply),
    /// 5xx.
    Refused(Reply),
    /// No next hop could be used, and this is why: nothing has arrived anywhere.
    Unreachable(Reply),
    /// It fell behind the others and was closed before its end: nothing has arrived.
    CutLoose(Reply),
}

impl Ending {
    /// The same, where the next hop broke off in the middle of the content: that is its answer.
    fn broken_off(self) -> Self {
        let end = match self.end {
            End::Unreachable(reply) => End::Deferred(reply),
            end => end,
        };
        Self { end, ..self }
    }
}

impl End {
    /// What was said.
    pub(crate) fn reply(&self) -> &Reply {
        match self {
            Self::Accepted { reply, .. }
            | Self::Deferred(reply)
            | Self::Refused(reply)
            | Self::Unreachable(reply)
            | Self::CutLoose(reply) => reply,
        }
    }
}

impl Branches {
    /// Of a transaction in which no recipient has come yet.
    pub(crate) fn new(outbound: Outbound, ehlo: Domain) -> Self {
        Self { outbound, ehlo, all: Vec::new() }
    }

    /// Whether no next hop takes part.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether connections are on loan.
    pub(crate) fn has_loans(&self) -> bool {
        self.all.iter().any(|branch| matches!(branch.line, Line::Open(_)))
    }

    /// Asks the next hop about a recipient.
    pub(crate) async fn ask(&mut self, part: TakesPart<'_>, asked: &Asked<'_>) -> Said {
        let (outbound, branch) = self.branch(part, asked.route);
        if branch.members.len() >= MAX_RECIPIENTS {
            return Said::TooMany;
        }
        branch.ask(outbound, asked).await
    }

    /// Takes a recipient into its branch though no next hop has accepted it: it will be queued.
    pub(crate) fn join(&mut self, part: TakesPart<'_>, asked: &Asked<'_>) {
        self.branch(part, asked.route).1.members.push(Member::of(asked));
    }

    /// The branch of a route; a new one where there is none yet.
    fn branch(&mut self, part: TakesPart<'_>, route: &Route) -> (&Outbound, &mut Branch) {
        let known = self.all.iter().position(|branch| branch.is_for(part, route));
        let at = known.unwrap_or_else(|| {
            let out = Out {
                connector: part.connector.clone(),
                smtp: part.smtp.clone(),
                domain: route.next_hop_domain.clone(),
                ehlo: self.ehlo.clone(),
            };
            self.all.push(Branch::new(out, part.cut_through.patience));
            self.all.len() - 1
        });
        (&self.outbound, &mut self.all[at])
    }

    /// The client does not move: every connection goes back, and the envelopes are said again later.
    pub(crate) fn release(&mut self) {
        for branch in &mut self.all {
            branch.release();
        }
    }

    /// After the loop rules: these recipients are sent to, each by this route; the others are taken out. Branches whose
    /// recipients have changed say their envelope again.
    pub(crate) fn regroup(&mut self, recipients: &[(TakesPart<'_>, Asked<'_>)]) {
        let before: Vec<Vec<Member>> = self.all.iter_mut().map(|branch| std::mem::take(&mut branch.members)).collect();
        for (part, asked) in recipients {
            let branch = self.branch(*part, asked.route).1;
            if !branch.is_lost(asked.at) {
                branch.members.push(Member::of(asked));
            }
        }
        for (branch, before) in self.all.iter_mut().zip(before) {
            if branch.members != before {
                branch.release();
            }
        }
    }

    /// Sends the message, and says how it ended for every recipient.
    pub(crate) async fn send(&mut self, message: &Message<'_>) -> Vec<Ending> {
        let (outbound, lag) = (&self.outbound, Lag::of(self.all.len()));
        if let [branch] = &mut self.all[..] {
            return branch.send(outbound, message, &lag).await;
        }
        let sending = self.all.iter_mut().map(|branch| branch.send(outbound, message, &lag)).collect();
        concurrently(sending).await.into_iter().flatten().collect()
    }

    /// Begins to send a message that is not all there yet; the rest is [fed](Self::feed).
    pub(crate) async fn begin_stream(&mut self, message: &Message<'_>) {
        let (outbound, lag) = (&self.outbound, Lag::of(self.all.len()));
        concurrently(self.all.iter_mut().map(|branch| branch.begin_stream(outbound, message, &lag)).collect()).await;
    }

    /// Sends the next piece of a message that is being streamed.
    pub(crate) async fn feed(&mut self, piece: &[u8]) {
        let streams = self.all.iter().filter(|branch| matches!(branch.stream, Stream::On)).count();
        let lag = Lag::of(streams);
        if let [branch] = &mut self.all[..] {
            return branch.feed(piece, &lag).await;
        }
        concurrently(self.all.iter_mut().map(|branch| branch.feed(piece, &lag)).collect()).await;
    }
}

/// A transaction that ends without a message takes its envelopes back.
impl Drop for Branches {
    fn drop(&mut self) {
        self.release();
    }
}

/// What one answer means for the client.
fn said(told: Vec<(usize, Answer)>) -> Said {
    match told.into_iter().next() {
        None => Said::Accepted,
        Some((_, Answer::Again(_))) => Said::TooMany,
        Some((_, Answer::Trouble(trouble))) => Said::Unreachable(trouble.reply),
        Some((_, Answer::Final(HandedResult::UnknownRecipient(reply)))) => Said::Unknown(reply),
        Some((_, Answer::Final(HandedResult::Refused(reply)))) => Said::PassedOn(reply),
        Some((_, Answer::Final(HandedResult::Deferred(reply)))) if is_too_many(&reply) => Said::TooMany,
        Some((_, Answer::Final(HandedResult::Deferred(reply) | HandedResult::Accepted { reply, .. }))) => {
            Said::PassedOn(reply)
        }
    }
}

fn is_too_many(reply: &Reply) -> bool {
    (reply.code, reply.enhanced) == (TOO_MANY_RECIPIENTS.code, TOO_MANY_RECIPIENTS.enhanced)
}
