//! A connection on loan to a client's transaction: found, greeted, with MAIL and the first RCPTs said (cut-through).
//!
//! `delivery::cut_through` asks for one at a branch's first recipient, goes on over it while the client moves, and gives
//! it back. A client that breaks something never counts against the next hop: a loan that is dropped closes its
//! connection and says nothing of the next hop's health.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, Ended};
use super::connection::Terms;
use super::conversation::{Conversation, Early};
use super::fit;
use super::hops::{self, NextHop, NoHop};
use super::introduce::introduce;
use super::loan::Loan;
use super::places::Place;
use super::transaction::rcpt_line;
use super::trouble::{NO_ANSWER, Scope, Trouble};
use super::{Attempt, HandedResult, Outbound, Target, open};
use crate::config::{SendConnector, SmtpOut};
use crate::delivery::health::{Key, Pass};
use crate::message::envelope::{Origin, Sender};
use crate::smtp::client::commands;
use crate::smtp::client::offers::Offers;
use crate::smtp::domain::Domain;
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::Content;

/// A message that MAIL says is too large for the next hop.
const TOO_LARGE: Reply = Reply::fixed(550, Enhanced(5, 3, 4), "message too large for the next hop");
/// What our own header fields add at most to a message with few recipients: what MAIL says before the message is known.
const OUR_FIELDS: u64 = 1024;

/// A branch's way out.
#[derive(Debug, Clone)]
pub(crate) struct Out {
    /// The send connector.
    pub connector: Arc<SendConnector>,
    /// Its settings.
    pub smtp: Arc<SmtpOut>,
    /// The domain whose MX is asked where there are no smart hosts.
    pub domain: Domain,
    /// Our host name.
    pub ehlo: Domain,
}

/// What is said first.
pub(crate) struct Opening<'a> {
    /// Where it came from.
    pub origin: &'a Origin,
    /// What MAIL said to us.
    pub sender: &'a Sender,
    /// What is known of the content; `None`: it has not come yet.
    pub content: Option<&'a Content>,
    /// The recipients, by numbers of the caller's.
    pub recipients: &'a [(usize, Target<'a>)],
}

/// A transaction that has begun.
pub(crate) struct Begun {
    /// What recipients were told; who is not here was accepted.
    pub told: Vec<(usize, Answer)>,
    /// The connection, unless the next hop ended the transaction.
    pub loan: Option<Loan>,
}

impl Outbound {
    /// Finds a next hop that takes MAIL and says who it is for.
    ///
    /// # Errors
    /// No next hop could be used within `patience`.
    pub(crate) async fn begin(&self, out: &Out, opening: &Opening<'_>, patience: Duration) -> Result<Begun, Trouble> {
        let deadline = Instant::now() + patience;
        let too_slow = || Trouble::unreached(NO_ANSWER, format!("no next hop was ready within {patience:?}"));
        let attempt = Attempt {
            shared: self.shared.clone(),
            terms: Arc::new(Terms { ehlo: out.ehlo.clone(), smtp: out.smtp.clone() }),
            connector: &out.connector,
            next_hop_domain: &out.domain,
        };
        let limit = out.connector.max_connections;
        let place = timeout(patience, self.shared.places.take(&out.connector.name, limit));
        let place = place.await.map_err(|_| {
            Trouble::unreached(NO_ANSWER, format!("all {limit} connections were busy for {patience:?}"))
        })?;
        let remaining = deadline.saturating_duration_since(Instant::now());
        let hops = match timeout(remaining, hops::hops(&attempt)).await.map_err(|_| too_slow())? {
            Ok(hops) => hops,
            Err(NoHop::Trouble(trouble)) => return Err(trouble),
            Err(NoHop::Refused(reply)) => return Ok(refused(opening, &reply)),
        };
        let mut trying = Trying { attempt: &attempt, opening, deadline, last: None };
        let mut barred = Vec::new();
        for (at, hop) in hops.iter().enumerate() {
            // One that hangs leaves time for the next ones.
            let left = u32::try_from(hops.len() - at).unwrap_or(u32::MAX);
            match self.shared.health.enter(hop.key(&out.connector.name)) {
                Ok(pass) => {
                    if let Some(begun) = trying.hop(hop, pass, left).await {
                        return Ok(self.lend(begun, limit, place));
                    }
                }
                Err(_) => barred.push(hop),
            }
        }
        for hop in barred {
            let probed = self.shared.health.enter_after_probe(hop.key(&out.connector.name));
            match timeout(deadline.saturating_duration_since(Instant::now()), probed).await {
                Ok(Ok(pass)) => {
                    if let Some(begun) = trying.hop(hop, pass, 1).await {
                        return Ok(self.lend(begun, limit, place));
                    }
                }
                Ok(Err(barred)) => {
                    let text = format!("{} is down; last: {}", hop.name(), barred.reason);
                    trying.last.get_or_insert(Trouble::unreached(NO_ANSWER, text));
                }
                Err(_) => {}
            }
        }
        Err(trying.last.unwrap_or_else(too_slow))
    }

    fn lend(&self, (told, open, key, label): Opened, limit: usize, place: Place) -> Begun {
        let shared = self.shared.clone();
        Begun { told, loan: open.map(|talk| Loan { talk, key, label, shared, limit, _place: place }) }
    }
}

/// What recipients were told, and the transaction unless the next hop ended it.
type Opened = (Vec<(usize, Answer)>, Option<Conversation>, Key, Option<Arc<str>>);

/// One next hop after another.
struct Trying<'a> {
    attempt: &'a Attempt<'a>,
    opening: &'a Opening<'a>,
    deadline: Instant,
    last: Option<Trouble>,
}

impl Trying<'_> {
    /// Tries one; `left` next hops share the time that is left.
    async fn hop(&mut self, hop: &NextHop, pass: Pass<'_>, left: u32) -> Option<Opened> {
        let until = Instant::now() + self.deadline.saturating_duration_since(Instant::now()) / left.max(1);
        let key = pass.key().clone();
        let result = match timeout_at(until, begin_with(self.attempt, hop, (&key, until), self.opening)).await {
            Ok(result) => result,
            Err(_) => Err(impatient(hop)),
        };
        let whole = result.as_ref().err().filter(|trouble| trouble.scope == Scope::NextHop);
        if let Err(trouble) = &result
            && whole.is_none()
        {
            trouble.log(&self.attempt.connector.name);
        }
        self.attempt.note_health(hop, pass, whole);
        match result {
            Ok((told, talk)) => Some((told, talk, key, hop.label.clone())),
            Err(trouble) => {
                self.last = Some(trouble);
                None
            }
        }
    }
}

fn impatient(hop: &NextHop) -> Trouble {
    Trouble::unreached(NO_ANSWER, format!("{}: no answer within cut_through_patience", hop.name()))
}

fn refused(opening: &Opening<'_>, reply: &Reply) -> Begun {
    let answer = |(at, _): &(usize, Target<'_>)| (*at, Answer::Final(HandedResult::Refused(reply.clone())));
    Begun { told: opening.recipients.iter().map(answer).collect(), loan: None }
}

/// The same with one next hop, over a connection from the pool if one is alive.
async fn begin_with(
    attempt: &Attempt<'_>,
    hop: &NextHop,
    (key, until): (&Key, Instant),
    opening: &Opening<'_>,
) -> Result<(Vec<(usize, Answer)>, Option<Conversation>), Trouble> {
    loop {
        let mut connection = match attempt.shared.pool.take(key, &attempt.terms) {
            Some(connection) => connection,
            // Boxed: a message that finds a connection does not carry the room for making one.
            None => Box::pin(open::open(attempt, hop)).await?,
        };
        introduce(&mut connection, opening.origin).await;
        let mut talk = Conversation::new(connection);
        let Ok(ended) = timeout_at(until, open_with(&mut talk, opening)).await else {
            // Many recipients fill a segment.
            talk.look();
            return Err(impatient(hop));
        };
        if ended == Err(Ended::Unused) {
            continue;
        }
        let told = talk.told();
        let trouble = told.iter().find_map(|(_, answer)| match answer {
            Answer::Trouble(trouble) => Some(trouble.clone()),
            Answer::Final(_) | Answer::Again(_) => None,
        });
        if let Some(trouble) = trouble.filter(|_| talk.accepted().is_empty()) {
            return Err(trouble);
        }
        return match ended {
            Ok(()) => Ok((told, Some(talk))),
            Err(Ended::Ready) => {
                attempt.shared.pool.put(key.clone(), talk.into_connection(), attempt.connector.max_connections);
                Ok((told, None))
            }
            Err(Ended::Closed | Ended::Unused) => Ok((told, None)),
        };
    }
}

async fn open_with(talk: &mut Conversation, opening: &Opening<'_>) -> Result<(), Ended> {
    let offers = talk.connection().offers.clone();
    let (bytes, body) = match opening.content {
        Some(content) => (Some(content.size + OUR_FIELDS), fit::body(opening.sender, content)),
        None => (opening.sender.size.map(|size| size + OUR_FIELDS), opening.sender.body),
    };
    let fitting = match opening.sender.size {
        Some(size) if opening.content.is_none() && fit::too_large(size, &offers) => Err(TOO_LARGE),
        _ => fit::envelope(opening.sender, bytes, body, &offers),
    };
    let (path, mut mail) = match fitting {
        Ok(fitting) => fitting,
        Err(reply) => {
            talk.refuse(opening.recipients.iter().map(|(at, _)| *at), &reply);
            return Err(Ended::Ready);
        }
    };
    let rcpts = lines(talk, opening.recipients, &offers);
    if rcpts.is_empty() {
        return Err(Ended::Ready);
    }
    mail.smtputf8 |= offers.smtputf8 && opening.recipients.iter().any(|(_, target)| !target.rcpt_to.is_ascii());
    let mut line = String::with_capacity(128);
    commands::mail(&path, opening.sender, &mail, &mut line);
    talk.envelope(&line, &rcpts, Early::Envelope).await
}

/// The RCPTs as they go on the wire; who cannot be written there is refused.
pub(super) fn lines(
    talk: &mut Conversation,
    recipients: &[(usize, Target<'_>)],
    offers: &Offers,
) -> Vec<(usize, String)> {
    let mut rcpts = Vec::with_capacity(recipients.len());
    for (at, target) in recipients {
        match fit::recipient(target.rcpt_to, offers) {
            Ok(path) => rcpts.push((*at, rcpt_line(&path, target, offers))),
            Err(reply) => talk.refuse(std::iter::once(*at), &reply),
        }
    }
    rcpts
}
