//! A branch of the queue: its content is on disk, and no client waits.

use std::sync::Arc;

use super::content::Waits;
use super::{Body, Branch, Fields, Lag, Member, Message};
use crate::config::{SendConnector, SmtpOut};
use crate::delivery::attempt::connection::Terms;
use crate::delivery::attempt::{GivesPlace, Outbound, Reach, Waits as Patience};
use crate::delivery::outcome::Outcome;
use crate::delivery::slots::Applicant;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;
use crate::smtp::envelope::{Origin, RcptTo, Sender};
use crate::spool::Stored;
use crate::spool::entry::Content;

pub struct QueuedBranch<'a> {
    pub connector: &'a Arc<SendConnector>,
    pub smtp: &'a Arc<SmtpOut>,
    /// The domain whose MX is looked up if there are no smart hosts.
    pub next_hop_domain: &'a Domain,
    /// Which hosts it may connect to.
    pub reach: Reach,
    pub origin: &'a Origin,
    /// The client's MAIL arguments.
    pub sender: &'a Sender,
    pub content: &'a Content,
    /// Our fields before the content.
    pub fields: &'a Fields<'a>,
    pub body: Stored,
    /// Whether its end may be sent.
    pub is_ours: &'a (dyn Fn() -> bool + Sync),
    /// Frees its slot in the queue.
    pub place: Option<Arc<GivesPlace>>,
    /// The recipients: the client's RCPT arguments, and the address in RCPT TO.
    pub recipients: Vec<(RcptTo, Address)>,
}

impl Outbound {
    /// Sends one branch, in as many transactions and to as many next hops as necessary, and returns the recipients'
    /// outcomes in order. `ehlo` is our host name.
    pub async fn send(&self, ehlo: &Domain, queued: QueuedBranch<'_>) -> Vec<Outcome> {
        let QueuedBranch { connector, smtp, origin, sender, content, fields, .. } = queued;
        let mut outcomes = vec![Outcome::undone(); queued.recipients.len()];
        let member = |(at, (rcpt, rcpt_to))| Member { at, rcpt, rcpt_to };
        let members = queued.recipients.into_iter().enumerate().map(member).collect();
        let terms = Terms { ehlo: ehlo.clone(), smtp: smtp.clone() };
        let out = self.way_out(terms, connector, queued.next_hop_domain, Patience::of_queue(smtp), Applicant::QUEUE);
        let out = out.within(queued.reach).in_place(queued.place);
        let message = Message {
            origin,
            sender,
            content,
            body: Body::File(queued.body),
            fields,
            waits: Waits::Nobody,
            is_ours: queued.is_ours,
        };
        for (at, outcome) in Branch::new(out).with(members).send(&message, &Lag::of(1)).await {
            outcomes[at] = outcome;
        }
        outcomes
    }
}
