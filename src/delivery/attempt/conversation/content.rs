//! The message itself: DATA or BDAT, the content as it comes, the dot and what is said to it.

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

/// How long a next hop that breaks off in the middle of the content is listened to: it may have said why.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Conversation {
    /// DATA and the reply to it; with BDAT nothing. The content may be written then.
    ///
    /// # Errors
    /// The transaction is over, and everybody has been told.
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
        self.finish(Step::Data, all, (&reply, reading));
        let usable = reply.code != 421 && reading.meaning != Meaning::OutOfStep;
        Err(if usable { self.reset().await } else { Reuse::Closed })
    }

    /// With BDAT: the one chunk that is the message, octets of it (RFC 3030 2).
    pub(crate) fn chunk(&mut self, octets: u64) {
        self.connection.queue(format!("BDAT {octets} LAST\r\n").as_bytes());
    }

    /// A piece of the content: it goes out with [`Conversation::flush`], or with the dot.
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        match &mut self.encoder {
            Some(encoder) => encoder.push(bytes, self.connection.buffer()),
            None => self.connection.queue(bytes),
        }
    }

    /// Writes out what is there of the content.
    ///
    /// # Errors
    /// [`Broken`]: [`Conversation::interrupted`] says what becomes of it.
    pub(crate) async fn flush(&mut self) -> Result<(), Broken> {
        self.connection.flush().await
    }

    /// The end of the content; it goes out with the next flush.
    pub(crate) fn end(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            encoder.finish(self.connection.buffer());
        }
    }

    /// The reply to the whole message, or with LMTP one for each accepted recipient (RFC 2033 4.2). Everybody has been
    /// told then. Dropped before, it can be asked again.
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
                    self.finish(Step::Dot, its, (&reply, reading));
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
        // RFC 5321 4.1.1.4 has it clear its buffers; Postfix, refusing at the end of data, keeps the transaction.
        if self.refused { self.reset().await } else { self.in_step() }
    }

    /// The next hop stopped taking the content. It may have said why; else nothing has arrived, for the end of data was
    /// never sent.
    pub(crate) async fn interrupted(&mut self, broken: &Broken) -> Reuse {
        match self.reply_within(LAST_WORDS).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                let reading = self.read(Step::Dot, &reply);
                let all = std::mem::take(&mut self.accepted);
                self.finish(Step::Data, all, (&reply, reading));
            }
            _ => self.end_by(NextHopError::broken(&self.connection, broken, Step::Data)),
        }
        Reuse::Closed
    }

    /// What the reply to DATA or the dot means for these recipients, who await it.
    fn finish(&mut self, step: Step, all: Vec<usize>, (reply, reading): (&Reply, Reading)) {
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

    /// The end of data was sent, and nobody without an answer will get one.
    fn in_doubt(&mut self, why: &str) {
        let outcome = Outcome::in_doubt(&self.connection.next_hop, why);
        let all = self.unanswered();
        self.record(&all, &outcome);
    }
}
