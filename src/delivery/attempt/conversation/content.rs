//! The message itself: DATA or BDAT, the content as it comes, the dot and what is said to it.

use std::time::Duration;

use tokio::time::Instant;

use super::Conversation;
use crate::config::Speaks;
use crate::delivery::attempt::HandedResult;
use crate::delivery::attempt::answer::{Answer, Ended, Patience, verdict};
use crate::delivery::attempt::connection::Broken;
use crate::delivery::attempt::fit::Way;
use crate::delivery::attempt::trouble::{BAD_CONNECTION, Trouble};
use crate::delivery::refusal::{Meaning, Step, meaning};
use crate::smtp::client::encode::Encoder;
use crate::smtp::reply::{Reply, TRY_AGAIN};

/// How long a next hop that breaks off in the middle of the content is listened to: it may have said why.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Conversation {
    /// DATA and the reply to it; with BDAT nothing. The content may be written then.
    ///
    /// # Errors
    /// The transaction is over, and everybody has been told.
    pub(crate) async fn data(&mut self, way: Way) -> Result<(), Ended> {
        let lines = match way {
            Way::Bdat => return Ok(()),
            Way::Data(lines) => lines,
        };
        if !self.data_said {
            self.say_data();
        }
        let reply = match self.reply().await {
            Ok(reply) => reply,
            Err(broken) => return Err(self.broke(&broken, Step::Data)),
        };
        self.data_said = false;
        let means = meaning(Step::Data, &reply);
        if means == Meaning::Positive {
            self.encoder = Some(Encoder::new(lines));
            return Ok(());
        }
        self.finish(Step::Data, &reply, means);
        let usable = reply.code != 421 && means != Meaning::OutOfStep;
        Err(if usable { self.reset().await } else { Ended::Closed })
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
    /// told then.
    pub(crate) async fn verdict(&mut self, patience: Patience) -> Ended {
        let began = Instant::now();
        let replies = match self.connection.terms.smtp.speaks {
            Speaks::Smtp => 1,
            Speaks::Lmtp => self.accepted.len(),
        };
        let mut waiting = std::mem::take(&mut self.accepted).into_iter();
        let mut all_positive = true;
        for _ in 0..replies {
            self.accepted = match self.connection.terms.smtp.speaks {
                Speaks::Smtp => waiting.by_ref().collect(),
                Speaks::Lmtp => waiting.by_ref().take(1).collect(),
            };
            match self.reply_within(patience.left(began)).await {
                Ok(reply) => {
                    let means = meaning(Step::Dot, &reply);
                    self.finish(Step::Dot, &reply, means);
                    all_positive &= means == Meaning::Positive;
                    if reply.code != 421 && means != Meaning::OutOfStep {
                        continue;
                    }
                    self.accepted.extend(waiting);
                    self.unknown_outcome(&format!("it said: {reply}"));
                }
                Err(broken) => {
                    self.accepted.extend(waiting);
                    self.unknown_outcome(&broken.to_string());
                }
            }
            return Ended::Closed;
        }
        // RFC 5321 4.1.1.4 has it clear its buffers; Postfix, refusing at the end of data, keeps the transaction.
        if all_positive { self.in_step() } else { self.reset().await }
    }

    /// The content cannot be read any more: nothing has arrived.
    pub(crate) fn unreadable(&mut self) -> Ended {
        let all = self.unanswered();
        self.tell(&all, || Answer::Final(HandedResult::Deferred(TRY_AGAIN)));
        Ended::Closed
    }

    /// The next hop stopped taking the content. It may have said why; else nothing has arrived, for the end of data was
    /// never sent.
    pub(crate) async fn interrupted(&mut self, broken: &Broken) -> Ended {
        match self.reply_within(LAST_WORDS).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                let means = meaning(Step::Dot, &reply);
                self.finish(Step::Dot, &reply, means);
            }
            _ => self.trouble(Trouble::broken(&self.connection, broken, Step::Data)),
        }
        Ended::Closed
    }

    /// What the reply to DATA or the dot means for the recipients that await it.
    fn finish(&mut self, step: Step, reply: &Reply, means: Meaning) {
        let all = std::mem::take(&mut self.accepted);
        match means {
            Meaning::Positive => {
                let dsn = self.connection.offers.dsn;
                self.tell(&all, || Answer::Final(HandedResult::Accepted { reply: reply.clone(), dsn }));
            }
            Meaning::OutOfStep if step == Step::Dot => {
                self.accepted = all;
                self.unknown_outcome(&format!("it said: {reply}"));
            }
            Meaning::Unreachable(_) | Meaning::FaultBetweenUs | Meaning::OurMistake | Meaning::OutOfStep => {
                let trouble = Trouble::said(&self.connection, step, reply, means);
                self.tell(&all, || Answer::Trouble(trouble.clone()));
            }
            Meaning::FinalReply
            | Meaning::PassedOn
            | Meaning::SenderRefused
            | Meaning::TooManyRecipients
            | Meaning::UnknownRecipient => self.tell(&all, || Answer::Final(verdict(reply.clone()))),
        }
    }

    /// DESIGN section 8: this is how a message can arrive twice.
    fn unknown_outcome(&mut self, why: &str) {
        let next_hop = &self.connection.next_hop;
        let text = format!("{next_hop}: outcome unknown, the message may arrive twice: after the final dot: {why}");
        let reply = Reply { code: 451, enhanced: Some(BAD_CONNECTION), text: text.into() };
        let all = self.unanswered();
        self.tell(&all, || Answer::Final(HandedResult::Deferred(reply.clone())));
    }
}
