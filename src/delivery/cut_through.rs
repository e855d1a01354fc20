//! The branches of one client's transaction whose next hops are part of the conversation (DESIGN section 7,
//! "Cut-through").
//!
//! `session` asks for each recipient as its RCPT comes ([`Branches::ask`]), gives connections back while the client is
//! idle and others wait for them ([`Branches::release`]), and sends the message when it is complete
//! ([`Branches::send`]). `final_reply` chooses the client's reply; the session decides about mail that no next hop can
//! accept now.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use super::attempt::connection::Terms;
use super::attempt::{Outbound, Waits};
use super::branch::{Branch, InFlight, Lag, Member, Message};
use super::outcome::{Class, Outcome};
use super::slots::{Applicant, Class as ClientClass, Client, Vouched};
use super::unreachable::Unreachable;
use crate::config::{CutThrough, SendConnector, SmtpOut, WhenUnreachable};
use crate::routing::verdict::Route;
use crate::smtp::domain::Domain;
use crate::smtp::envelope::{Origin, RcptTo, Sender};

pub(crate) struct Branches {
    outbound: Outbound,
    ehlo: Domain,
    all: Vec<Branch>,
}

/// When the client has waited long enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Haste {
    /// From then on the rest need not be waited for ...
    pub after: Instant,
    /// ... if a next hop has the message, or in any case.
    pub without_acceptance: WithoutAcceptance,
    /// Until when the rest is waited for.
    pub until: Instant,
}

/// Whether a client's message is accepted although no next hop has it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WithoutAcceptance {
    /// Yes: the client is one of ours.
    Yes,
    /// No: the client is a stranger.
    No,
}

impl Haste {
    fn is_enough(self, ended: &[Option<Vec<(usize, Outcome)>>]) -> bool {
        let accepted = |(_, outcome): &(usize, Outcome)| outcome.class == Class::Accepted;
        self.without_acceptance == WithoutAcceptance::Yes || ended.iter().flatten().flatten().any(accepted)
    }
}

/// The result for a message.
pub(crate) struct Sent {
    /// Of every recipient that is not in flight, by number.
    pub outcomes: Vec<(usize, Outcome)>,
    /// Branches whose end of data has been sent and not answered.
    pub in_flight: Vec<InFlight>,
}

/// A send connector whose next hops are part of the conversation.
#[derive(Clone, Copy)]
pub(crate) struct TakesPart<'a> {
    pub connector: &'a Arc<SendConnector>,
    pub smtp: &'a Arc<SmtpOut>,
    pub cut_through: &'a CutThrough,
}

/// One recipient to ask about.
pub(crate) struct CutThroughRecipient<'a> {
    /// Its position among the transaction's recipients.
    pub at: usize,
    /// The client's RCPT arguments.
    pub rcpt: &'a RcptTo,
    pub route: &'a Route,
    pub origin: &'a Origin,
    /// The client's MAIL arguments.
    pub sender: &'a Sender,
    /// What to do if no next hop can be used.
    pub otherwise: Unreachable,
    /// Whether there is evidence that it exists: it was resolved, verified or is recently good.
    pub vouched: Vouched,
}

impl CutThroughRecipient<'_> {
    fn member(&self) -> Member {
        Member { at: self.at, rcpt: self.rcpt.clone(), rcpt_to: self.route.rcpt_to.clone() }
    }
}

impl Branches {
    /// For a transaction without recipients.
    pub(crate) fn new(outbound: Outbound, ehlo: Domain) -> Self {
        Self { outbound, ehlo, all: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether connections are checked out.
    pub(crate) fn has_checkouts(&self) -> bool {
        self.all.iter().any(Branch::has_checkout)
    }

    /// Whether a recipient has this route already.
    pub(crate) fn has(&self, route: &Route) -> bool {
        self.all.iter().any(|branch| branch.is_for(route))
    }

    /// Asks next hops about recipients, those of each branch together; returns the outcomes in order.
    pub(crate) async fn ask(&mut self, asked: &[(TakesPart<'_>, CutThroughRecipient<'_>)]) -> Vec<Outcome> {
        if let [(part, one)] = asked {
            let at = self.branch(*part, one);
            return self.all[at].ask(one.origin, one.sender, vec![one.member()], one.vouched).await;
        }
        let places: Vec<usize> = asked.iter().map(|(part, one)| self.branch(*part, one)).collect();
        let mut asking = Vec::new();
        for (place, branch) in self.all.iter_mut().enumerate() {
            let its = || asked.iter().zip(&places).filter(|(_, at)| **at == place).map(|((_, one), _)| one);
            let Some(first) = its().next() else { continue };
            let vouched = if its().any(|one| one.vouched == Vouched::Yes) { Vouched::Yes } else { Vouched::No };
            let (origin, sender, members) =
                (first.origin, first.sender, its().map(CutThroughRecipient::member).collect());
            asking.push(async move { (place, branch.ask(origin, sender, members, vouched).await.into_iter()) });
        }
        let mut answers = join_all(asking).await;
        let answer = |place: &usize| {
            let its = answers.iter_mut().find(|(at, _)| at == place);
            its.and_then(|(_, answers)| answers.next()).unwrap_or_else(Outcome::undone)
        };
        places.iter().map(answer).collect()
    }

    /// Adds a recipient to its branch although no next hop has accepted it: it will be queued.
    pub(crate) fn join(&mut self, part: TakesPart<'_>, asked: &CutThroughRecipient<'_>) {
        let at = self.branch(part, asked);
        self.all[at].join(asked.member());
    }

    /// The index of a recipient's branch, which is created if necessary.
    fn branch(&mut self, part: TakesPart<'_>, asked: &CutThroughRecipient<'_>) -> usize {
        let known = self.all.iter().position(|branch| branch.is_for(asked.route));
        known.unwrap_or_else(|| {
            let otherwise = match asked.otherwise {
                Unreachable::Defer => WhenUnreachable::Defer,
                Unreachable::Queue => WhenUnreachable::Queue,
            };
            let waits = Waits::of_client(part.smtp, part.cut_through, otherwise);
            let terms = Terms { ehlo: self.ehlo.clone(), smtp: part.smtp.clone() };
            let domain = &asked.route.next_hop_domain;
            let out = self.outbound.way_out(terms, part.connector, domain, waits, applicant(asked));
            self.all.push(Branch::new(out));
            self.all.len() - 1
        })
    }

    /// Completes when another transaction wants a connection; returns its branch, for [`Branches::give_back`].
    pub(crate) async fn wanted(&self) -> usize {
        let mut waiting: Vec<_> = self.all.iter().map(|branch| Box::pin(branch.wanted())).collect();
        poll_fn(|context| {
            let ready = waiting.iter_mut().position(|wanted| wanted.as_mut().poll(context).is_ready());
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// How long a connection has been held for which more transactions wait than there are connections.
    pub(crate) fn crowded(&self) -> Option<Duration> {
        self.all.iter().find_map(Branch::crowded)
    }

    /// Gives back a connection that another transaction wants.
    pub(crate) fn give_back(&mut self, at: usize) {
        if let Some(branch) = self.all.get_mut(at) {
            branch.release();
        }
    }

    /// Whether any branch's content is sent as it comes.
    pub(crate) fn stream(&self) -> bool {
        self.all.iter().any(Branch::streams)
    }

    /// Others wait for the connections of an idle client: all go back, and the envelopes are sent again later.
    pub(crate) fn release(&mut self) {
        self.all.iter_mut().for_each(Branch::release);
    }

    /// After the loop rules: sets the recipients and their routes. Branches whose recipients change send their envelope
    /// again.
    pub(crate) fn regroup(&mut self, recipients: &[(TakesPart<'_>, CutThroughRecipient<'_>)]) {
        let mut its: Vec<Vec<Member>> = self.all.iter().map(|_| Vec::new()).collect();
        for (part, asked) in recipients {
            let at = self.branch(*part, asked);
            its.resize_with(self.all.len(), Vec::new);
            its[at].push(asked.member());
        }
        for (branch, its) in self.all.iter_mut().zip(its) {
            branch.has_only(its);
        }
    }

    /// Sends the message and returns the recipients' outcomes. Branches that have not finished by `haste` are in
    /// [`Sent::in_flight`], or left to the queue.
    pub(crate) async fn send(&mut self, message: &Message<'_>, haste: Haste) -> Sent {
        let lag = Lag::of(self.all.iter().filter(|branch| branch.sends()).count());
        if let ([branch], WithoutAcceptance::No) = (&mut self.all[..], haste.without_acceptance) {
            return Sent { outcomes: branch.send(message, &lag).await, in_flight: Vec::new() };
        }
        let mut ended: Vec<Option<Vec<(usize, Outcome)>>> = vec![None; self.all.len()];
        {
            let send = |branch| Some(Box::pin(Branch::send(branch, message, &lag)));
            let mut sending: Vec<_> = self.all.iter_mut().map(send).collect();
            let mut late = std::pin::pin!(sleep_until(haste.after));
            poll_fn(|context| {
                for (sending, ended) in sending.iter_mut().zip(&mut ended) {
                    if let Some(future) = sending
                        && let Poll::Ready(outcomes) = future.as_mut().poll(context)
                    {
                        (*sending, *ended) = (None, Some(outcomes));
                    }
                }
                let all = ended.iter().all(Option::is_some);
                let enough = all || late.as_mut().poll(context).is_ready() && haste.is_enough(&ended);
                if enough { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        let mut sent = Sent { outcomes: Vec::new(), in_flight: Vec::new() };
        for (branch, ended) in self.all.iter_mut().zip(ended) {
            let (outcomes, in_flight) = match ended {
                Some(outcomes) => (outcomes, None),
                None => branch.part(haste.until),
            };
            sent.outcomes.extend(outcomes);
            sent.in_flight.extend(in_flight);
        }
        sent
    }

    /// Begins to send a message that is incomplete; [`feed`](Self::feed) sends the rest.
    pub(crate) async fn begin_stream(&mut self, message: &Message<'_>) {
        let lag = Lag::of(self.all.iter().filter(|branch| branch.sends()).count());
        join_all(self.all.iter_mut().map(|branch| branch.begin_stream(message, &lag))).await;
    }

    /// Sends the next piece of a message that is streamed.
    pub(crate) async fn feed(&mut self, piece: &[u8]) {
        let lag = Lag::of(self.all.iter().filter(|branch| branch.streams()).count());
        if let [branch] = &mut self.all[..] {
            return branch.feed(piece, &lag).await;
        }
        join_all(self.all.iter_mut().map(|branch| branch.feed(piece, &lag))).await;
    }
}

/// A transaction that ends without a message aborts its envelopes.
impl Drop for Branches {
    fn drop(&mut self) {
        self.release();
    }
}

/// Who wants a connection for this recipient.
fn applicant(asked: &CutThroughRecipient<'_>) -> Applicant {
    let class = if asked.origin.is_stranger() { ClientClass::Stranger } else { ClientClass::Ours };
    let client = asked.origin.client.map_or(Client::QUEUE, Client::at);
    Applicant { client, class, vouched: asked.vouched }
}
