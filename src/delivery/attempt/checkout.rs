//! A connection to a next hop, checked out for one transaction: runs the conversation, and records the host's health.
//!
//! `walk` makes it, ready for MAIL; `delivery::branch` uses it and gives it back. Dropping a checkout closes its
//! connection without an effect on the host's health: what a client breaks off does not count against the host.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::WayOut;
use super::black_hole::BlackHole;
use super::connection::{Broken, Connection};
use super::conversation::{Conversation, Early, Patience, Reuse};
use super::negotiate::{self, BodyTransfer};
use super::next_hop_error::{NextHopError, Scope};
use super::next_hops::NextHop;
use super::xforward::xforward;
use crate::config::EightBit;
use crate::delivery::health::Key;
use crate::delivery::outcome::Outcome;
use crate::delivery::refusal::read::relayed_mail;
use crate::delivery::slots::{HostSlot, Slot};
use crate::smtp::address::Address;
use crate::smtp::client::commands;
use crate::smtp::client::offers::Offers;
use crate::smtp::envelope::{Origin, RcptTo, Sender};
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::Content;

/// The refusal if the SIZE in MAIL is too large for the next hop.
const TOO_LARGE: Reply = Reply::fixed(550, Enhanced(5, 3, 4), "message too large for the next hop");
/// The most octets that our own header fields add to a message with few recipients, for SIZE in MAIL before the message
/// is known.
const OUR_FIELDS: u64 = 1024;

/// How long to wait for the reply to RSET when a connection is taken back.
const RESET: Duration = Duration::from_secs(5);

/// The slots of one connection: its connector's and its host's.
pub(super) struct HeldSlots {
    pub connector: Slot,
    pub host: HostSlot,
}

/// A recipient and its parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The address in RCPT TO.
    pub rcpt_to: &'a Address,
    /// The client's RCPT arguments.
    pub rcpt: &'a RcptTo,
}

/// What MAIL and the first RCPTs are made from.
pub(crate) struct Opening<'a> {
    pub origin: &'a Origin,
    /// The client's MAIL arguments.
    pub sender: &'a Sender,
    /// The content's properties, and its octets including our fields; `None`: it has not been received yet.
    pub content: Option<(&'a Content, u64)>,
    /// The recipients, with the caller's numbers.
    pub recipients: &'a [(usize, Target<'a>)],
}

pub(crate) struct Checkout {
    talk: Conversation,
    hop: NextHop,
    out: WayOut,
    slots: HeldSlots,
    others: Others,
}

/// Whether another host may get the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// There is one: this host is left if it does not answer.
    Left,
    None,
}

impl Checkout {
    pub(super) fn new(out: WayOut, hop: NextHop, connection: Connection, slots: HeldSlots) -> Self {
        Self { talk: Conversation::new(connection), hop, out, slots, others: Others::None }
    }

    /// Sets whether another host may get the message.
    pub(super) fn beside(self, others: Others) -> Self {
        Self { others, ..self }
    }

    pub(super) fn into_hop(self) -> (NextHop, Slot) {
        (self.hop, self.slots.connector)
    }

    /// A recipient with evidence that it exists is in the transaction from now on.
    pub(crate) fn vouch(&mut self) {
        self.slots.connector.vouch();
        self.slots.host.vouch();
    }

    /// Completes when another transaction wants one of its slots; the caller gives the connection back then.
    pub(crate) async fn wanted(&self) {
        tokio::select! {
            () = self.slots.connector.wanted() => {}
            () = self.slots.host.slot().wanted() => {}
        }
    }

    /// How long its slots have been held, if more transactions wait than there are slots.
    pub(crate) fn crowded(&self) -> Option<Duration> {
        self.slots.connector.crowded().or_else(|| self.slots.host.slot().crowded())
    }

    /// Identifies its host in health and pool.
    pub(crate) fn key(&self) -> Key {
        self.hop.key(&self.out.connector.name)
    }

    /// `name[address]:port`.
    pub(crate) fn next_hop(&self) -> Arc<str> {
        self.talk.connection().next_hop.clone()
    }

    /// Sends MAIL and the first RCPTs, with DATA if the whole content is there.
    ///
    /// # Errors
    /// The transaction is over. [`Checkout::take_outcomes`] has all recipients' outcomes, except after
    /// [`Reuse::Unused`] and [`Reuse::Worn`], where some have none.
    pub(crate) async fn envelope(&mut self, opening: &Opening<'_>) -> Result<(), Reuse> {
        xforward(self.talk.connection_mut(), opening.origin, &self.out.shared.alerts).await;
        let offers = self.talk.connection().offers.clone();
        let fitting = self.fitting(opening, &offers);
        let fits = |target: &Target<'_>| negotiate::recipient(target.rcpt_to, &offers).is_ok();
        let refuses = fitting.is_err() || !opening.recipients.iter().all(|(_, target)| fits(target));
        if refuses && !self.talk.stands().await {
            return Err(Reuse::Unused);
        }
        let (path, mut mail, early) = match fitting {
            Ok(fitting) => fitting,
            Err(reply) => {
                self.talk.refuse(opening.recipients.iter().map(|(at, _)| *at), &reply);
                return Err(Reuse::Ready);
            }
        };
        let rcpts = self.lines(opening.recipients, &offers);
        if rcpts.is_empty() {
            return Err(Reuse::Ready);
        }
        let recipients = opening.recipients.iter().map(|(_, target)| target.rcpt_to);
        self.talk.says(opening.origin, opening.sender, recipients);
        mail.smtputf8 |= offers.smtputf8 && opening.recipients.iter().any(|(_, target)| !target.rcpt_to.is_ascii());
        let mut line = String::with_capacity(128);
        commands::mail(&path, opening.sender, &mail, &mut line);
        self.talk.connection_mut().leaves = self.others == Others::Left;
        let ended = self.talk.envelope(&line, &rcpts, early).await;
        self.talk.connection_mut().leaves = false;
        ended
    }

    /// MAIL, and whether DATA is sent with it.
    ///
    /// # Errors
    /// Our refusal of the whole branch.
    fn fitting(
        &self,
        opening: &Opening<'_>,
        offers: &Offers,
    ) -> Result<(String, commands::MailParameters, Early), Reply> {
        let Opening { sender, content, .. } = opening;
        let Some((content, octets)) = *content else {
            if sender.size.is_some_and(|size| negotiate::too_large(size, offers)) {
                return Err(TOO_LARGE);
            }
            let (path, mail) =
                negotiate::envelope(sender, sender.size.map(|size| size + OUR_FIELDS), sender.body, offers)?;
            return Ok((path, mail, Early::Envelope));
        };
        let way = negotiate::content_way(sender, content, octets, &self.out.terms.smtp, offers)?;
        let (path, mail) = negotiate::envelope(sender, Some(octets), negotiate::body(sender, content), offers)?;
        Ok((path, mail, if way == BodyTransfer::Bdat { Early::Envelope } else { Early::Data }))
    }

    /// Sends further RCPTs.
    pub(crate) async fn more(
        &mut self,
        origin: &Origin,
        sender: &Sender,
        recipients: &[(usize, Target<'_>)],
    ) -> Result<(), Reuse> {
        self.talk.says(origin, sender, recipients.iter().map(|(_, target)| target.rcpt_to));
        let offers = self.talk.connection().offers.clone();
        let rcpts = self.lines(recipients, &offers);
        if rcpts.is_empty() { Ok(()) } else { self.talk.more(&rcpts).await }
    }

    /// The RCPT lines; recipients whose address the next hop cannot take are refused.
    fn lines(&mut self, recipients: &[(usize, Target<'_>)], offers: &Offers) -> Vec<(usize, String)> {
        let mut rcpts = Vec::with_capacity(recipients.len());
        for (at, target) in recipients {
            match negotiate::recipient(target.rcpt_to, offers) {
                Ok(path) => rcpts.push((*at, rcpt_line(&path, target, offers))),
                Err(reply) => self.talk.refuse(std::iter::once(*at), &reply),
            }
        }
        rcpts
    }

    /// Whether this recipient was accepted.
    pub(crate) fn has(&self, at: usize) -> bool {
        self.talk.accepted().contains(&at)
    }

    /// Whether no recipient has been accepted.
    pub(crate) fn has_nobody(&self) -> bool {
        self.talk.accepted().is_empty()
    }

    /// How the content is transferred, now that it is known.
    ///
    /// # Errors
    /// Our refusal of the whole branch: the next hop cannot take it.
    pub(crate) fn way(&self, sender: &Sender, content: &Content, bytes: u64) -> Result<BodyTransfer, Reply> {
        let connection = self.talk.connection();
        negotiate::content_way(sender, content, bytes, &connection.terms.smtp, &connection.offers)
    }

    /// Whether content may be sent before it has been received completely: no property that only its end shows matters.
    pub(crate) fn takes_unseen(&self) -> bool {
        let connection = self.talk.connection();
        connection.offers.eight_bit_mime || connection.terms.smtp.eight_bit == EightBit::Send
    }

    /// Sends DATA and waits for the reply.
    ///
    /// # Errors
    /// The transaction is over; [`Checkout::take_outcomes`] has the outcomes.
    pub(crate) async fn data(&mut self, way: BodyTransfer, octets: u64) -> Result<(), Reuse> {
        self.talk.connection_mut().leaves = self.others == Others::Left;
        let ready = self.talk.data(way).await;
        self.talk.connection_mut().leaves = false;
        ready?;
        if way == BodyTransfer::Bdat {
            self.talk.chunk(octets);
        }
        Ok(())
    }

    /// Adds a piece of the content, which the next [`Checkout::flush`] writes.
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        self.talk.piece(bytes);
    }

    /// Octets that the next [`Checkout::flush`] will write.
    pub(crate) fn queued(&self) -> usize {
        self.talk.connection().queued()
    }

    /// Writes the buffer.
    ///
    /// # Errors
    /// [`Broken`]; [`Checkout::interrupted`] handles it.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        self.talk.flush().await
    }

    /// Handles a next hop that stopped taking the content.
    pub(crate) async fn interrupted(&mut self, broken: &Broken) -> Reuse {
        self.talk.interrupted(broken).await
    }

    /// Adds the end of the content, which the next [`Checkout::flush`] writes.
    pub(crate) fn end(&mut self) {
        self.talk.end();
    }

    /// Waits for the reply to the whole message. It may have been accepted, so the wait goes on even if the host is
    /// silent, but not in a slot that others need.
    pub(crate) async fn verdict(&mut self, patience: Patience) -> Reuse {
        if self.others == Others::None {
            return self.talk.verdict(patience).await;
        }
        let enough = Arc::new(Notify::new());
        self.talk.connection_mut().enough = Some(enough.clone());
        let ended = {
            let mut verdict = pin!(self.talk.verdict(patience));
            tokio::select! {
                biased;
                ended = &mut verdict => ended,
                () = enough.notified() => {
                    self.slots.connector.give_up();
                    if let Some(place) = &self.out.place {
                        place();
                    }
                    verdict.await
                }
            }
        };
        self.talk.connection_mut().enough = None;
        ended
    }

    /// Outcomes of recipients since the last call.
    pub(crate) fn take_outcomes(&mut self) -> Vec<(usize, Outcome)> {
        let told = self.talk.take_outcomes();
        for (_, outcome) in &told {
            if let Some(row) = relayed_mail(outcome.row) {
                self.out.relaying_fails(row, outcome);
            }
        }
        told
    }

    /// Why the transaction cannot go on here, if it cannot. This is logged, and the host is tested if it may be the
    /// cause.
    pub(crate) fn error(&mut self) -> Option<NextHopError> {
        let error = self.talk.error()?;
        self.out.log(&error);
        match error.scope {
            Scope::Suspect => self.out.begin_test(&self.hop),
            Scope::Crowded => self.out.tell_fewer(&self.hop, self.slots.host.throttled(), &error.reply),
            Scope::Host | Scope::Message | Scope::Ours => {}
        }
        Some(error)
    }

    /// Called when the caller stops waiting: a path MTU black hole, if there seems to be one; logs it.
    pub(crate) fn look(&mut self) -> Option<BlackHole> {
        self.talk.look()
    }

    /// The transaction is over: the connection can be used by another.
    pub(crate) fn give_back(self, ended: Reuse) {
        if ended == Reuse::Ready {
            self.out.keep(&self.hop, self.talk.into_connection());
        }
    }

    /// Aborts the envelope (RSET) and returns the connection, in the background.
    pub(crate) fn take_back(mut self) {
        tokio::spawn(async move {
            // Others wait for its slots.
            if let Ok(ended) = timeout(RESET, self.talk.give_up()).await {
                self.give_back(ended);
            } else {
                self.out.begin_test(&self.hop);
            }
        });
    }

    /// Aborts the envelope (RSET) and returns the connection.
    pub(crate) async fn give_up(mut self) {
        let ended = self.talk.give_up().await;
        self.give_back(ended);
    }

    /// Leaves the next hop for another one; returns the connector's slot.
    pub(super) async fn leave(mut self, ended: Result<(), Reuse>) -> Slot {
        let ended = match ended {
            Ok(()) => self.talk.give_up().await,
            Err(ended) => ended,
        };
        let Self { talk, hop, out, slots, .. } = self;
        if ended == Reuse::Ready {
            out.keep(&hop, talk.into_connection());
        }
        slots.connector
    }
}

/// RCPT with parameters that the next hop offers.
fn rcpt_line(path: &str, target: &Target<'_>, offers: &Offers) -> String {
    let mut line = String::new();
    if offers.dsn {
        commands::rcpt_with_dsn(path, target.rcpt_to, target.rcpt, &mut line);
    } else {
        commands::rcpt(path, &mut line);
    }
    line
}
