//! The branches of one client's transaction whose next hops take part in it (DESIGN section 7, "Cut-through").
//!
//! `session` asks for each recipient as its RCPT comes ([`Branches::ask`]), gives the connections back while the client
//! does not move ([`Branches::release`]), and sends the message when it is there ([`Branches::send`]). What the sender is
//! told is `combine`'s business, what becomes of mail that no next hop can take now the session's.

use std::sync::Arc;

use super::attempt::{Outbound, Waits};
use super::branch::{Branch, Lag, Member, Message};
use super::concurrently::concurrently;
use super::outcome::{Class, Outcome};
use super::unreachable::Unreachable;
use crate::config::{CutThrough, SendConnector, SmtpOut, WhenUnreachable};
use crate::message::envelope::{Origin, RcptTo, Sender};
use crate::routing::verdict::Route;
use crate::smtp::domain::Domain;
use crate::smtp::reply::TOO_MANY_RECIPIENTS;

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
    /// What becomes of it where no next hop can be used.
    pub otherwise: Unreachable,
}

impl Asked<'_> {
    fn member(&self) -> Member {
        Member { at: self.at, rcpt: self.rcpt.clone(), rcpt_to: self.route.rcpt_to.clone() }
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

    /// Whether connections are checked out.
    pub(crate) fn has_checkouts(&self) -> bool {
        self.all.iter().any(Branch::has_checkout)
    }

    /// Whether somebody takes this way already.
    pub(crate) fn has(&self, route: &Route) -> bool {
        self.all.iter().any(|branch| branch.is_for(route))
    }

    /// Asks the next hop about a recipient.
    pub(crate) async fn ask(&mut self, part: TakesPart<'_>, asked: &Asked<'_>) -> Outcome {
        let branch = self.branch(part, asked);
        if branch.is_full() {
            return Outcome::ours(Class::TooManyRecipients, TOO_MANY_RECIPIENTS);
        }
        branch.ask((asked.origin, asked.sender), asked.member()).await
    }

    /// Takes a recipient into its branch though no next hop has accepted it: it will be queued.
    pub(crate) fn join(&mut self, part: TakesPart<'_>, asked: &Asked<'_>) {
        self.branch(part, asked).members().push(asked.member());
    }

    /// The branch of a recipient; a new one where there is none yet.
    fn branch(&mut self, part: TakesPart<'_>, asked: &Asked<'_>) -> &mut Branch {
        let known = self.all.iter().position(|branch| branch.is_for(asked.route));
        let at = known.unwrap_or_else(|| {
            let otherwise = match asked.otherwise {
                Unreachable::Defer => WhenUnreachable::Defer,
                Unreachable::Queue => WhenUnreachable::Queue,
            };
            let waits = Waits::of_client(part.smtp, part.cut_through, otherwise);
            let domain = &asked.route.next_hop_domain;
            let out = self.outbound.way_out(&self.ehlo, (part.connector, part.smtp), domain, waits);
            self.all.push(Branch::new(out));
            self.all.len() - 1
        });
        &mut self.all[at]
    }

    /// The client does not move: every connection goes back, and the envelopes are said again later.
    pub(crate) fn release(&mut self) {
        self.all.iter_mut().for_each(Branch::release);
    }

    /// After the loop rules: these recipients are sent to, each by this route; the others are taken out. Branches whose
    /// recipients have changed say their envelope again.
    pub(crate) fn regroup(&mut self, recipients: &[(TakesPart<'_>, Asked<'_>)]) {
        let before: Vec<Vec<Member>> = self.all.iter_mut().map(|branch| std::mem::take(branch.members())).collect();
        for (part, asked) in recipients {
            let branch = self.branch(*part, asked);
            if !branch.has_ended(asked.at) {
                branch.members().push(asked.member());
            }
        }
        for (branch, before) in self.all.iter_mut().zip(before) {
            if *branch.members() != before {
                branch.release();
            }
        }
    }

    /// Sends the message, and says what became of every recipient.
    pub(crate) async fn send(&mut self, message: &Message<'_>) -> Vec<(usize, Outcome)> {
        let lag = Lag::of(self.all.len());
        if let [branch] = &mut self.all[..] {
            return branch.send(message, &lag).await;
        }
        let sending = self.all.iter_mut().map(|branch| branch.send(message, &lag)).collect();
        concurrently(sending).await.into_iter().flatten().collect()
    }

    /// Begins to send a message that is not all there yet; the rest is [fed](Self::feed).
    pub(crate) async fn begin_stream(&mut self, message: &Message<'_>) {
        let lag = Lag::of(self.all.len());
        concurrently(self.all.iter_mut().map(|branch| branch.begin_stream(message, &lag)).collect()).await;
    }

    /// Sends the next piece of a message that is being streamed.
    pub(crate) async fn feed(&mut self, piece: &[u8]) {
        let lag = Lag::of(self.all.iter().filter(|branch| branch.streams()).count());
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
