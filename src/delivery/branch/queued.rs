//! The queue's branch: its content is on disk, and nobody waits.

use std::sync::Arc;

use super::content::Waits;
use super::{Body, Branch, Fields, Lag, Member, Message};
use crate::config::{SendConnector, SmtpOut};
use crate::delivery::attempt::{GivesPlace, Outbound, Reach, Waits as Patience};
use crate::delivery::outcome::Outcome;
use crate::delivery::slots::Applicant;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;
use crate::smtp::envelope::{Origin, RcptTo, Sender};
use crate::spool::Stored;
use crate::spool::entry::Content;

/// One branch of a queued message.
pub struct QueuedBranch<'a> {
    /// The way out.
    pub connector: &'a Arc<SendConnector>,
    /// Its protocol's settings.
    pub smtp: &'a Arc<SmtpOut>,
    /// The domain whose MX is asked where there are no smart hosts.
    pub next_hop_domain: &'a Domain,
    /// Which hosts it may go to.
    pub reach: Reach,
    /// Where it came from.
    pub origin: &'a Origin,
    /// What MAIL said to us.
    pub sender: &'a Sender,
    /// What is known of the content.
    pub content: &'a Content,
    /// What goes before the content.
    pub fields: &'a Fields<'a>,
    /// The content.
    pub body: Stored,
    /// Gives back its place in the queue.
    pub place: Option<Arc<GivesPlace>>,
    /// The recipients: what RCPT said to us, and what RCPT TO carries.
    pub recipients: Vec<(RcptTo, Address)>,
}

impl Outbound {
    /// Sends one branch, over as many transactions and next hops as it takes, and returns what became of each
    /// recipient, in their order. `ehlo` is our host name.
    pub async fn send(&self, ehlo: &Domain, queued: QueuedBranch<'_>) -> Vec<Outcome> {
        let QueuedBranch { connector, smtp, origin, sender, content, fields, .. } = queued;
        let mut outcomes = vec![Outcome::undone(); queued.recipients.len()];
        let member = |(at, (rcpt, rcpt_to))| Member { at, rcpt, rcpt_to };
        let members = queued.recipients.into_iter().enumerate().map(member).collect();
        let out =
            self.way_out(ehlo, (connector, smtp), queued.next_hop_domain, (Patience::of_queue(smtp), Applicant::QUEUE));
        let out = out.within(queued.reach).in_place(queued.place);
        let message = Message { origin, sender, content, body: Body::File(queued.body), fields, waits: Waits::Nobody };
        for (at, outcome) in Branch::new(out).with(members).send(&message, &Lag::of(1)).await {
            outcomes[at] = outcome;
        }
        outcomes
    }
}
