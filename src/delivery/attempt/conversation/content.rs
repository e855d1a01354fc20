//! The message: DATA or BDAT, the content as it comes, its end, and the reply to it.

use std::time::Duration;

use super::{Conversation, Patience, Reuse};
use crate::config::Speaks;
use crate::delivery::attempt::connection::Broken;
use crate::delivery::attempt::negotiate::BodyTransfer;
use crate::delivery::attempt::next_hop_error::NextHopError;
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refusal::Step;
use crate::delivery::refusal::read::{Meaning, Reading};
use crate::smtp::client::encode::Encoder;
use crate::smtp::reply::Reply;

/// How long to read from a next hop that breaks off during the content: it may have sent a reply.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Conversation {
    /// Sends DATA and waits for the reply; with BDAT does nothing. The content can be written afterwards.
    ///
    /// # Errors
    /// The transaction is over, and all recipients have an outcome.
    pub(crate) async fn data(&mut self, way: BodyTransfer) -> Result<(), Reuse> {
        let lines = match way {
            BodyTransfer::Bdat => return Ok(()),
            BodyTransfer::Data(lines) => lines,
        };
        if !self.data_said {
            self.say_data();
        }
        let reply = match self.reply().await {
            Ok(reply) => reply,
            Err(broken) => return Err(self.broke(&broken, Step::Data)),
        };
        self.data_said = false;
        let reading = self.read(Step::Data, &reply);
        if reading.meaning == Meaning::Positive {
            self.encoder = Some(Encoder::new(lines));
            return Ok(());
        }
        let all = std::mem::take(&mut self.accepted);
        self.finish(Step::Data, all, &reply, reading);
        let usable = reply.code != 421 && reading.meaning != Meaning::OutOfStep;
        Err(if usable { self.reset().await } else { Reuse::Closed })
    }

    /// With BDAT: begins the only chunk, of this many octets (RFC 3030 2).
    pub(crate) fn chunk(&mut self, octets: u64) {
        self.connection.queue(format!("BDAT {octets} LAST\r\n").as_bytes());
    }

    /// Adds a piece of the content, which is written by [`Conversation::flush`] or with the end.
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        match &mut self.encoder {
            Some(encoder) => encoder.push(bytes, self.connection.buffer()),
            None => self.connection.queue(bytes),
        }
    }

    /// Writes the content so far.
    ///
    /// # Errors
    /// [`Broken`]: [`Conversation::interrupted`] handles it.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        self.connection.flush().await
    }

    /// Adds the end of the content, which the next flush writes.
    pub(crate) fn end(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish(self.connection.buffer());
        }
    }

    /// Waits for the reply to the whole message, or with LMTP one for each accepted recipient (RFC 2033 4.2). All
    /// recipients have an outcome then. If the future is dropped, it can be called again.
    pub(crate) async fn verdict(&mut self, patience: Patience) -> Reuse {
        while !self.accepted.is_empty() {
            let said = self.reply_within(patience.left()).await;
            let its = match self.connection.terms.smtp.speaks {
                Speaks::Smtp => std::mem::take(&mut self.accepted),
                Speaks::Lmtp => vec![self.accepted.remove(0)],
            };
            match said {
                Ok(reply) => {
                    let reading = self.read(Step::Dot, &reply);
                    self.finish(Step::Dot, its, &reply, reading);
                    if reply.code != 421 && reading.meaning != Meaning::OutOfStep {
                        self.refused |= reading.meaning != Meaning::Positive;
                        continue;
                    }
                    self.in_doubt(&format!("it said: {reply}"));
                }
                Err(broken) => {
                    self.accepted.splice(..0, its);
                    self.in_doubt(&broken.to_string());
                }
            }
            return Reuse::Closed;
        }
        // By RFC 5321 4.1.1.4 the server clears its buffers; Postfix keeps the transaction if it refuses at the end of
        // data.
        if self.refused { self.reset().await } else { self.in_step() }
    }

    /// The next hop stopped taking the content. It may have sent a reply; without one nothing was accepted, since the
    /// end of data was not sent.
    pub(crate) async fn interrupted(&mut self, broken: &Broken) -> Reuse {
        match self.reply_within(LAST_WORDS).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                let reading = self.read(Step::Dot, &reply);
                let all = std::mem::take(&mut self.accepted);
                self.finish(Step::Data, all, &reply, reading);
            }
            _ => self.end_by(NextHopError::broken(&self.connection, broken, Step::Data)),
        }
        Reuse::Closed
    }

    /// Applies the reply to DATA or to the end of data to these recipients.
    fn finish(&mut self, step: Step, all: Vec<usize>, reply: &Reply, reading: Reading) {
        if let Some(silence) = &self.connection.silence {
            silence.ends_one();
        }
        let next_hop = &self.connection.next_hop;
        let outcome = match reading.meaning {
            Meaning::Positive => Outcome::relayed(reply.clone(), next_hop, &self.connection.offers),
            Meaning::OutOfStep if step == Step::Dot => Outcome::in_doubt(next_hop, &format!("it said: {reply}")),
            Meaning::UnknownRecipient => {
                Outcome::said(Class::UnknownRecipient, reply.clone(), next_hop).by(reading.row.name)
            }
            Meaning::Unreachable(_)
            | Meaning::AboutUs
            | Meaning::Throttled
            | Meaning::OurMistake
            | Meaning::OutOfStep => {
                let error = NextHopError::said(&self.connection, step, reply, reading);
                let outcome = error.outcome();
                self.error = Some(error);
                outcome
            }
            Meaning::ContentRefused
            | Meaning::RecipientRefused
            | Meaning::SenderRefused
            | Meaning::ClientRefused
            | Meaning::RelayedMailFails
            | Meaning::TooManyRecipients => Outcome::answered(reply.clone(), next_hop).by(reading.row.name),
        };
        self.record(&all, &outcome);
    }

    /// The end of data was sent, and there will be no reply: the outcome of the remaining recipients is unknown.
    fn in_doubt(&mut self, why: &str) {
        let outcome = Outcome::in_doubt(&self.connection.next_hop, why);
        let all = self.unanswered();
        self.record(&all, &outcome);
    }
}
