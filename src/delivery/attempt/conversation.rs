//! One transaction with one next hop, step by step: MAIL and RCPT here, DATA, the content and its end in `content`.
//!
//! A branch drives it: at once if it has the message, else as its client proceeds. Replies are interpreted by the table
//! in `refusal`. RFC 5321 3.3, 4.1.1; RFC 2920 (pipelining); RFC 3030 (BDAT); RFC 2033 (LMTP).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::black_hole::BlackHole;
use super::connection::{Broken, Connection, History};
use super::next_hop_error::NextHopError;
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refusal::Step;
use crate::delivery::refusal::read::{Meaning, Reading, Transaction, read};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::client::encode::Encoder;
use crate::smtp::envelope::{Origin, Sender};
use crate::smtp::reply::Reply;

mod content;

/// A 421 after this many refused recipients is the next hop's limit of errors (Postfix: smtpd_hard_error_limit).
const ERROR_LIMIT: u32 = 2;
/// The most bytes of a reply's text that are stored with each recipient.
const MAX_WORDS: usize = 2000;

/// Whether a connection can be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    Ready,
    /// It cannot.
    Closed,
    /// It came from the pool and was closed already: nothing was sent, and no recipient has an outcome.
    Unused,
    /// It cannot, and recipients without an outcome need a new connection: it has reached the next hop's limit of
    /// errors, or a reply is pending that is not waited for.
    Worn,
}

/// How long a next hop may take for its replies to the whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// This long for each reply: an LMTP server delivers to one recipient after another (RFC 2033).
    ForEach(Duration),
    /// Until this time for all of them: a client waits.
    Until(Instant),
}

impl Patience {
    /// The time for the next reply.
    fn left(self) -> Duration {
        match self {
            Self::ForEach(limit) => limit,
            Self::Until(deadline) => deadline.saturating_duration_since(Instant::now()),
        }
    }
}

/// Whether DATA is sent together with the envelope (RFC 2920 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Early {
    /// MAIL, RCPT and DATA together, if the next hop offers PIPELINING.
    Data,
    Envelope,
}

/// A transaction in progress. Recipients have the caller's numbers.
pub(crate) struct Conversation {
    connection: Connection,
    /// Recipients whose RCPT has been sent and not answered.
    asked: VecDeque<usize>,
    /// Recipients that were accepted and wait for the reply to the message, in the order of their RCPT.
    accepted: Vec<usize>,
    /// Recipients with an outcome.
    outcomes: Vec<(usize, Outcome)>,
    /// Why the transaction as a whole cannot go on here.
    error: Option<NextHopError>,
    /// Whether DATA has been sent and not answered.
    data_said: bool,
    encoder: Option<Encoder>,
    said: SentEnvelope,
    /// Whether the message was refused for a recipient after its end.
    refused: bool,
}

/// Texts that were sent in this transaction: a refusal may repeat any of them, and they are not the server's own
/// wording.
#[derive(Default)]
struct SentEnvelope {
    reverse_path: Option<ReversePath>,
    helo: String,
    client: Option<IpAddr>,
    recipients: Vec<Address>,
}

impl Conversation {
    /// On a connection that is ready for MAIL.
    pub(crate) fn new(connection: Connection) -> Self {
        let (asked, accepted, outcomes) = (VecDeque::new(), Vec::new(), Vec::new());
        Self {
            connection,
            asked,
            accepted,
            outcomes,
            error: None,
            data_said: false,
            encoder: None,
            said: SentEnvelope::default(),
            refused: false,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// For commands before MAIL.
    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Records the texts that will be sent: sender, recipients and origin.
    pub(crate) fn says<'a>(&mut self, origin: &Origin, sender: &Sender, recipients: impl Iterator<Item = &'a Address>) {
        self.said.reverse_path = Some(sender.reverse_path.clone());
        (self.said.client, self.said.helo) = (origin.client, origin.helo.clone());
        self.said.recipients.extend(recipients.cloned());
    }

    /// Interprets a reply at this step.
    fn read(&self, step: Step, reply: &Reply) -> Reading {
        if !reply.is_transient() && !reply.is_permanent() {
            return read(step, reply, &Transaction::default());
        }
        let mut said: Vec<&str> = self.said.recipients.iter().map(Address::as_str).collect();
        said.extend(self.said.reverse_path.as_ref().map(ReversePath::as_str));
        said.push(&self.said.helo);
        let (name, ours) = (self.connection.terms.ehlo.as_str(), self.connection.local.as_slice());
        read(step, reply, &Transaction { said: &said, name, client: self.said.client, ours })
    }

    /// The caller stops waiting: whether output seems to be lost on the path.
    pub(crate) fn look(&mut self) -> Option<BlackHole> {
        self.connection.look().map(|(hole, _)| hole)
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }

    /// Recipients that were accepted.
    pub(crate) fn accepted(&self) -> &[usize] {
        &self.accepted
    }

    /// Refuses recipients with a reply of ours.
    pub(crate) fn refuse(&mut self, recipients: impl Iterator<Item = usize>, reply: &Reply) {
        self.outcomes.extend(recipients.map(|at| (at, Outcome::ours(Class::Refused, reply.clone()))));
    }

    /// Outcomes since the last call.
    pub(crate) fn take_outcomes(&mut self) -> Vec<(usize, Outcome)> {
        std::mem::take(&mut self.outcomes)
    }

    /// Why the transaction cannot go on here, if it cannot; returned once.
    pub(crate) fn error(&mut self) -> Option<NextHopError> {
        self.error.take()
    }

    /// Whether the extensions it offers are still valid; asks on a connection that was idle. A next hop that was
    /// restarted may offer more, and a refusal of ours would be wrong.
    pub(crate) async fn stands(&mut self) -> bool {
        self.connection.history != History::Reused || self.reset().await == Reuse::Ready
    }

    /// Sends MAIL and the first RCPTs, which are lines with CRLF.
    ///
    /// # Errors
    /// The transaction is over. All recipients have an outcome, except after [`Reuse::Unused`] and [`Reuse::Worn`].
    pub(crate) async fn envelope(&mut self, mail: &str, rcpts: &[(usize, String)], early: Early) -> Result<(), Reuse> {
        self.connection.queue(mail.as_bytes());
        self.asked.extend(rcpts.iter().map(|(at, _)| *at));
        let pipelining = self.connection.offers.pipelining;
        if pipelining {
            rcpts.iter().for_each(|(_, line)| self.connection.queue(line.as_bytes()));
            if early == Early::Data {
                self.say_data();
            }
        }
        self.mail().await?;
        self.rcpts(rcpts, if pipelining { Buffered::Already } else { Buffered::NotYet }).await
    }

    /// Sends further RCPTs.
    ///
    /// # Errors
    /// The transaction is over, and all recipients have an outcome.
    pub(crate) async fn more(&mut self, rcpts: &[(usize, String)]) -> Result<(), Reuse> {
        self.asked.extend(rcpts.iter().map(|(at, _)| *at));
        self.rcpts(rcpts, Buffered::NotYet).await
    }

    fn say_data(&mut self) {
        self.connection.queue(b"DATA\r\n");
        self.data_said = true;
    }

    async fn reply(&mut self) -> Result<Reply, Broken> {
        self.reply_within(self.connection.patience).await
    }

    async fn reply_within(&mut self, limit: Duration) -> Result<Reply, Broken> {
        let reply = self.connection.reply_within(limit).await?;
        if reply.text.len() <= MAX_WORDS {
            return Ok(reply);
        }
        Ok(reply.saying(reply.text[..reply.text.floor_char_boundary(MAX_WORDS)].to_owned()))
    }

    async fn mail(&mut self) -> Result<(), Reuse> {
        let reply = match self.reply().await {
            Ok(reply) => reply,
            Err(_) if self.connection.history == History::Reused => return Err(Reuse::Unused),
            Err(broken) => return Err(self.broke(&broken, Step::Mail)),
        };
        let reading = self.read(Step::Mail, &reply);
        match reading.meaning {
            Meaning::Positive => return Ok(()),
            _ if reply.code == 421 && self.connection.history == History::Reused => return Err(Reuse::Unused),
            Meaning::SenderRefused
            | Meaning::ClientRefused
            | Meaning::RelayedMailFails
            | Meaning::ContentRefused
            | Meaning::RecipientRefused
            | Meaning::UnknownRecipient
            | Meaning::TooManyRecipients => {
                let all = self.unanswered();
                let refused = Outcome::answered(reply, &self.connection.next_hop).by(reading.row.name);
                self.record(&all, &refused);
            }
            Meaning::Unreachable(_)
            | Meaning::AboutUs
            | Meaning::Throttled
            | Meaning::OurMistake
            | Meaning::OutOfStep => {
                self.end_by(NextHopError::said(&self.connection, Step::Mail, &reply, reading));
                if reply.code == 421 || reading.meaning == Meaning::OutOfStep {
                    return Err(Reuse::Closed);
                }
            }
        }
        // The replies to pipelined commands after it have no further information, but have to be read.
        let behind = std::mem::take(&mut self.asked).len();
        if !self.connection.offers.pipelining {
            return Err(Reuse::Ready);
        }
        for _ in 0..behind {
            if self.reply().await.is_err() {
                return Err(Reuse::Closed);
            }
        }
        Err(self.give_up().await)
    }

    async fn rcpts(&mut self, rcpts: &[(usize, String)], written: Buffered) -> Result<(), Reuse> {
        let pipelining = self.connection.offers.pipelining;
        if written == Buffered::NotYet && pipelining {
            rcpts.iter().for_each(|(_, line)| self.connection.queue(line.as_bytes()));
        }
        for (at, line) in rcpts {
            if written == Buffered::NotYet && !pipelining {
                self.connection.queue(line.as_bytes());
            }
            let reply = match self.reply().await {
                Ok(reply) => reply,
                Err(broken @ Broken::TimedOut(_)) => return Err(self.late(&broken)),
                Err(broken) => return Err(self.broke(&broken, Step::Rcpt)),
            };
            let reading = self.read(Step::Rcpt, &reply);
            if reply.code == 421 && self.connection.refusals >= ERROR_LIMIT {
                return Err(Reuse::Worn);
            }
            if reply.code == 421 || reading.meaning == Meaning::OutOfStep {
                // The recipients before it have no message yet, those after it no reply.
                self.end_by(NextHopError::said(&self.connection, Step::Rcpt, &reply, reading));
                return Err(Reuse::Closed);
            }
            self.asked.pop_front();
            if reading.meaning == Meaning::Positive {
                self.accepted.push(*at);
            } else {
                self.connection.refusals += 1;
                let outcome = self.rcpt_refused(reply, reading);
                self.outcomes.push((*at, outcome));
            }
        }
        Ok(())
    }

    /// The next hop has not answered one recipient's RCPT in time: only that recipient fails. The others continue on a
    /// new connection, since the reply may still come on this one.
    fn late(&mut self, broken: &Broken) -> Reuse {
        let error = NextHopError::broken(&self.connection, broken, Step::Rcpt);
        let his = self.asked.pop_front();
        self.outcomes.extend(his.map(|at| (at, error.outcome())));
        self.asked.clear();
        self.accepted.clear();
        Reuse::Worn
    }

    /// The outcome of a RCPT that was not accepted.
    fn rcpt_refused(&mut self, reply: Reply, reading: Reading) -> Outcome {
        let (next_hop, row) = (&self.connection.next_hop, reading.row.name);
        match reading.meaning {
            Meaning::TooManyRecipients => Outcome::said(Class::TooManyRecipients, reply, next_hop).by(row),
            Meaning::UnknownRecipient => Outcome::said(Class::UnknownRecipient, reply, next_hop).by(row),
            Meaning::RecipientRefused
            | Meaning::SenderRefused
            | Meaning::ClientRefused
            | Meaning::ContentRefused
            | Meaning::RelayedMailFails => Outcome::answered(reply, next_hop).by(row),
            Meaning::Positive
            | Meaning::Unreachable(_)
            | Meaning::AboutUs
            | Meaning::Throttled
            | Meaning::OurMistake
            | Meaning::OutOfStep => {
                let error = NextHopError::said(&self.connection, Step::Rcpt, &reply, reading);
                let outcome = error.outcome();
                self.error = Some(error);
                outcome
            }
        }
    }

    /// Ends the transaction without a message: no recipient is left, or the client has gone.
    pub(crate) async fn give_up(&mut self) -> Reuse {
        if std::mem::take(&mut self.data_said) {
            match self.reply().await {
                // RFC 2920 3.1: after a pipelined DATA it waits for a message, and gets an empty one; the connection
                // cannot be used after that.
                Ok(reply) if reply.code == 354 => {
                    self.connection.queue(b".\r\n");
                    let _ = self.reply().await;
                    return Reuse::Closed;
                }
                Ok(reply) if reply.code != 421 => {}
                _ => return Reuse::Closed,
            }
        }
        self.accepted.clear();
        self.reset().await
    }

    async fn reset(&mut self) -> Reuse {
        match self.connection.command("RSET").await {
            Ok(reply) if reply.is_positive() => self.in_step(),
            _ => Reuse::Closed,
        }
    }

    /// An unread reply would be taken for that to the next message's commands.
    fn in_step(&self) -> Reuse {
        if self.connection.is_in_step() { Reuse::Ready } else { Reuse::Closed }
    }

    /// The recipients without an outcome, which is given to them now.
    fn unanswered(&mut self) -> Vec<usize> {
        self.asked.iter().copied().chain(std::mem::take(&mut self.accepted)).collect()
    }

    fn record(&mut self, recipients: &[usize], outcome: &Outcome) {
        self.outcomes.extend(recipients.iter().map(|at| (*at, outcome.clone())));
    }

    /// Gives recipients without an outcome this error.
    fn end_by(&mut self, error: NextHopError) {
        let all = self.unanswered();
        self.record(&all, &error.outcome());
        self.error = Some(error);
    }

    fn broke(&mut self, broken: &Broken, step: Step) -> Reuse {
        self.end_by(NextHopError::broken(&self.connection, broken, step));
        Reuse::Closed
    }
}

/// Whether the lines are in the connection's buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Buffered {
    Already,
    NotYet,
}
