//! One transaction: MAIL, RCPT for up to 100 recipients, the content, and what each recipient was told.
//!
//! `attempt` calls [`run`] until every recipient has its answer or the next hop is in trouble. Replies are read by the
//! table in `refusal`. RFC 5321 3.3, 4.1.1; RFC 2920 (pipelining); RFC 3030 (BDAT).

use std::collections::VecDeque;
use std::time::Duration;

use super::body::BodyError;
use super::connection::{Broken, Connection, History};
use super::fit::{self, Fit, Way};
use super::trouble::{BAD_CONNECTION, Trouble};
use super::{HandedResult, Message};
use crate::delivery::refusal::{Meaning, Step, meaning};
use crate::smtp::client::commands;
use crate::smtp::reply::{Enhanced, Reply, TRY_AGAIN};

/// RFC 5321 4.5.3.2.6: the next hop may take its time over the final dot; sent again it would arrive twice.
const DOT_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a next hop that breaks off in the middle of the content is listened to: it may have said why.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes of a reply's words that are kept: they are stored with every recipient.
const MAX_WORDS: usize = 2000;

/// What one recipient was told.
#[derive(Debug)]
pub(super) enum Answer {
    /// It is over.
    Final(HandedResult),
    /// It goes in another transaction with the same next hop.
    Again,
    /// Another next hop may take it.
    Trouble(Trouble),
}

/// How the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Ready for MAIL.
    Ready,
    /// Of no more use.
    Closed,
    /// It came from the pool and was dead already: nothing was said, nobody was told anything.
    Unused,
}

/// Sends the branch's message to the recipients at these positions.
pub(super) async fn run(
    connection: &mut Connection,
    message: &Message<'_>,
    batch: &[usize],
) -> (Vec<(usize, Answer)>, Ended) {
    let refused = |reply: Reply| Answer::Final(HandedResult::Refused(reply));
    let mut fit = match fit::message(message, &connection.terms.smtp, &connection.offers) {
        Ok(fit) => fit,
        Err(reply) => return (batch.iter().map(|at| (*at, refused(reply.clone()))).collect(), Ended::Ready),
    };
    let mut told = Vec::new();
    let mut asked = VecDeque::new();
    for at in batch {
        match fit::recipient(message.recipients[*at].rcpt_to, &connection.offers) {
            Ok(path) => {
                fit.mail.smtputf8 |= !path.is_ascii();
                asked.push_back((*at, path.into_owned()));
            }
            Err(reply) => told.push((*at, refused(reply))),
        }
    }
    if asked.is_empty() {
        return (told, Ended::Ready);
    }
    let mut transaction = Transaction { connection, message, fit, asked, told, accepted: Vec::new() };
    let ended = transaction.converse().await;
    let told = transaction.told;
    // A reply too many would answer the next message's commands.
    let ended = if ended == Ended::Ready && !connection.is_in_step() { Ended::Closed } else { ended };
    (told, ended)
}

struct Transaction<'a> {
    connection: &'a mut Connection,
    message: &'a Message<'a>,
    fit: Fit,
    /// Recipients whose RCPT has no answer yet, and how they are written.
    asked: VecDeque<(usize, String)>,
    told: Vec<(usize, Answer)>,
    /// Recipients that await the message's reply.
    accepted: Vec<usize>,
}

impl Transaction<'_> {
    async fn converse(&mut self) -> Ended {
        self.queue_envelope();
        if let Some(ended) = self.mail().await {
            return ended;
        }
        if let Some(ended) = self.rcpts().await {
            return ended;
        }
        if self.accepted.is_empty() {
            return self.give_up().await;
        }
        if let Some(ended) = self.data().await {
            return ended;
        }
        self.content().await
    }

    /// MAIL, and with PIPELINING everything up to DATA (RFC 2920 3.1).
    fn queue_envelope(&mut self) {
        let mut lines = String::with_capacity(64 * (2 + self.asked.len()));
        commands::mail(&self.fit.reverse_path, self.message.sender, &self.fit.mail, &mut lines);
        if self.connection.offers.pipelining {
            for (at, path) in &self.asked {
                self.write_rcpt(*at, path, &mut lines);
            }
            if self.pipelines_data() {
                lines.push_str("DATA\r\n");
            }
        }
        self.connection.queue(lines.as_bytes());
    }

    fn write_rcpt(&self, at: usize, path: &str, out: &mut String) {
        let target = &self.message.recipients[at];
        if self.connection.offers.dsn {
            commands::rcpt_with_dsn(path, target.rcpt_to, target.rcpt, out);
        } else {
            commands::rcpt(path, out);
        }
    }

    fn pipelines_data(&self) -> bool {
        self.connection.offers.pipelining && self.fit.way != Way::Bdat
    }

    async fn reply(&mut self) -> Result<Reply, Broken> {
        self.reply_within(self.connection.terms.smtp.reply_timeout).await
    }

    async fn reply_within(&mut self, limit: Duration) -> Result<Reply, Broken> {
        let reply = self.connection.reply_within(limit).await?;
        if reply.text.len() <= MAX_WORDS {
            return Ok(reply);
        }
        Ok(reply.saying(reply.text[..reply.text.floor_char_boundary(MAX_WORDS)].to_owned()))
    }

    async fn mail(&mut self) -> Option<Ended> {
        let reply = match self.reply().await {
            Ok(reply) => reply,
            Err(_) if self.connection.history == History::Reused => return Some(Ended::Unused),
            Err(broken) => return Some(self.broke(&broken, Step::Mail)),
        };
        match meaning(Step::Mail, &reply) {
            Meaning::Positive => return None,
            _ if reply.code == 421 && self.connection.history == History::Reused => return Some(Ended::Unused),
            Meaning::SenderRefused => {
                let all = self.unanswered();
                self.tell(&all, || Answer::Final(HandedResult::Refused(reply.clone())));
            }
            other => {
                self.trouble(Trouble::said(self.connection, Step::Mail, &reply, other));
                if reply.code == 421 || other == Meaning::OutOfStep {
                    return Some(Ended::Closed);
                }
            }
        }
        // The replies to what was pipelined behind it say nothing new, but they have to be read.
        if self.connection.offers.pipelining {
            for _ in 0..std::mem::take(&mut self.asked).len() {
                if self.reply().await.is_err() {
                    return Some(Ended::Closed);
                }
            }
            return Some(self.give_up().await);
        }
        Some(Ended::Ready)
    }

    async fn rcpts(&mut self) -> Option<Ended> {
        while let Some((at, path)) = self.asked.front() {
            let at = *at;
            if !self.connection.offers.pipelining {
                let mut line = String::new();
                self.write_rcpt(at, path, &mut line);
                self.connection.queue(line.as_bytes());
            }
            let reply = match self.reply().await {
                Ok(reply) => reply,
                Err(broken) => return Some(self.broke(&broken, Step::Rcpt)),
            };
            let means = meaning(Step::Rcpt, &reply);
            if reply.code == 421 || means == Meaning::OutOfStep {
                // The recipients before it have no message yet, those behind it no answer.
                self.trouble(Trouble::said(self.connection, Step::Rcpt, &reply, means));
                return Some(Ended::Closed);
            }
            self.asked.pop_front();
            match means {
                Meaning::Positive => self.accepted.push(at),
                other => {
                    let answer = self.recipients_answer(reply, other);
                    self.told.push((at, answer));
                }
            }
        }
        None
    }

    fn recipients_answer(&self, reply: Reply, means: Meaning) -> Answer {
        match means {
            Meaning::TooManyRecipients if self.accepted.is_empty() => {
                // Not even one: another transaction would end the same way.
                let text = reply.text.clone();
                Answer::Final(HandedResult::Deferred(Reply { code: 452, enhanced: Some(Enhanced(4, 5, 3)), text }))
            }
            Meaning::TooManyRecipients => Answer::Again,
            Meaning::UnknownRecipient => Answer::Final(HandedResult::UnknownRecipient(reply)),
            Meaning::PassedOn | Meaning::FinalReply | Meaning::SenderRefused => Answer::Final(verdict(reply)),
            Meaning::Positive
            | Meaning::Unreachable(_)
            | Meaning::FaultBetweenUs
            | Meaning::OurMistake
            | Meaning::OutOfStep => Answer::Trouble(Trouble::said(self.connection, Step::Rcpt, &reply, means)),
        }
    }

    /// Nobody is left to send it to.
    async fn give_up(&mut self) -> Ended {
        if self.pipelines_data() {
            match self.reply().await {
                // RFC 2920 3.1: it wants a message for nobody and gets an empty one, which is no state to go on from.
                Ok(reply) if reply.code == 354 => {
                    self.connection.queue(b".\r\n");
                    let _ = self.reply().await;
                    return Ended::Closed;
                }
                Ok(reply) if reply.code != 421 => {}
                _ => return Ended::Closed,
            }
        }
        self.reset().await
    }

    async fn reset(&mut self) -> Ended {
        match self.connection.command("RSET").await {
            Ok(reply) if reply.is_positive() => Ended::Ready,
            _ => Ended::Closed,
        }
    }

    async fn data(&mut self) -> Option<Ended> {
        if self.fit.way == Way::Bdat {
            return None;
        }
        if !self.connection.offers.pipelining {
            self.connection.queue(b"DATA\r\n");
        }
        let reply = match self.reply().await {
            Ok(reply) => reply,
            Err(broken) => return Some(self.broke(&broken, Step::Data)),
        };
        let means = meaning(Step::Data, &reply);
        if means == Meaning::Positive {
            return None;
        }
        self.finish(Step::Data, &reply, means);
        let usable = reply.code != 421 && means != Meaning::OutOfStep;
        Some(if usable { self.reset().await } else { Ended::Closed })
    }

    async fn content(&mut self) -> Ended {
        match self.message.write(self.connection, self.fit.way).await {
            Ok(()) => {}
            Err(BodyError::Read(error)) => {
                tracing::error!(alert = true, %error, "cannot read a queued message's content");
                let all = self.unanswered();
                self.tell(&all, || Answer::Final(HandedResult::Deferred(TRY_AGAIN)));
                return Ended::Closed;
            }
            Err(BodyError::Write(broken)) => return self.interrupted(&broken).await,
        }
        match self.reply_within(DOT_TIMEOUT).await {
            Ok(reply) => {
                let means = meaning(Step::Dot, &reply);
                self.finish(Step::Dot, &reply, means);
                if reply.code == 421 || means == Meaning::OutOfStep { Ended::Closed } else { Ended::Ready }
            }
            Err(broken) => {
                self.unknown_outcome(&broken.to_string());
                Ended::Closed
            }
        }
    }

    /// The next hop stopped taking the content. It may have said why; else nothing has arrived, for the end of data was
    /// never sent.
    async fn interrupted(&mut self, broken: &Broken) -> Ended {
        match self.reply_within(LAST_WORDS).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                let means = meaning(Step::Dot, &reply);
                self.finish(Step::Dot, &reply, means);
            }
            _ => self.trouble(Trouble::broken(self.connection, broken, Step::Data)),
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
                let trouble = Trouble::said(self.connection, step, reply, means);
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

    /// Everybody without an answer.
    fn unanswered(&self) -> Vec<usize> {
        self.asked.iter().map(|(at, _)| *at).chain(self.accepted.iter().copied()).collect()
    }

    fn tell(&mut self, recipients: &[usize], answer: impl Fn() -> Answer) {
        self.told.extend(recipients.iter().map(|at| (*at, answer())));
    }

    /// Everybody without an answer goes to another next hop.
    fn trouble(&mut self, trouble: Trouble) {
        let all = self.unanswered();
        self.tell(&all, || Answer::Trouble(trouble.clone()));
    }

    fn broke(&mut self, broken: &Broken, step: Step) -> Ended {
        self.trouble(Trouble::broken(self.connection, broken, step));
        Ended::Closed
    }
}

/// 4xx or 5xx, as it was said.
fn verdict(reply: Reply) -> HandedResult {
    if reply.is_permanent() { HandedResult::Refused(reply) } else { HandedResult::Deferred(reply) }
}
