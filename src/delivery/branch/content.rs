//! Sends the message to a branch's next hop, concurrently with other branches: DATA, the content, and its end.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::lag::Lag;
use super::one_by_one::{ONE_BY_ONE, OneByOne, are_unknown};
use super::pace::{Pace, Took};
use super::{Branch, Dot, IMPATIENT, Line, MAX_RECIPIENTS, OTHER_HOSTS, Others, Stream};
use crate::config::{SendConnector, Speaks};
use crate::delivery::attempt::black_hole::BlackHole;
use crate::delivery::attempt::checkout::Checkout;
use crate::delivery::attempt::connection::Broken;
use crate::delivery::attempt::conversation::{Patience, Reuse};
use crate::delivery::health::Key;
use crate::delivery::outcome::{Class, Outcome};
use crate::smtp::address::Address;
use crate::smtp::envelope::{Origin, Sender};
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::Stored;
use crate::spool::entry::Content;

/// RFC 5321 4.5.3.2.6: the next hop may take long for its reply to the end of data; sent again the message would arrive
/// twice.
const DOT: Duration = Duration::from_secs(600);
const PIECE: usize = 64 * 1024;
/// How long the end of data waits until the message is surely ours to send, and how often that is looked at: many outcomes
/// of others may be on their way to the disks.
const OURS_WITHIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);

/// The least time for a reply to the end of data.
const DOT_AT_LEAST: Duration = Duration::from_secs(120);

const OUT_OF_TIME: Reply =
    Reply::fixed(451, Enhanced(4, 4, 1), "the next hop took too long over the content; the queue goes on");
pub(crate) const NOT_OURS: Reply = Reply::fixed(
    451,
    Enhanced(4, 3, 0),
    "it is not sure that no other node sends it, or what was sent lately is not durable; the queue goes on",
);
const TOO_SLOW: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop takes the message too slowly");
const LEFT_BEHIND: Reply =
    Reply::fixed(451, Enhanced(4, 4, 1), "the next hop was slower than the message's others; the queue goes on");

/// Makes our header fields, with CRLF, which precede the content: the stamp for a send connector and these recipients,
/// each as received and as sent.
pub type Fields<'a> = dyn Fn(&SendConnector, &[(&Address, &Address)]) -> String + Sync + 'a;

/// What is sent.
pub(crate) struct Message<'a> {
    pub origin: &'a Origin,
    /// The client's MAIL arguments.
    pub sender: &'a Sender,
    pub content: &'a Content,
    pub body: Body<'a>,
    /// Our fields before the content.
    pub fields: &'a Fields<'a>,
    pub waits: Waits,
    /// Whether its end may be sent: not where another node may have taken it over.
    pub is_ours: &'a (dyn Fn() -> bool + Sync),
}

/// Who waits for the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    Nobody,
    /// A client that is still sending the message.
    Client,
    /// A client, until this time.
    ClientUntil(Instant),
}

impl Waits {
    /// When the end of data must be sent at the latest, so that there is time for the reply.
    pub(super) fn last_dot(self) -> Option<Instant> {
        match self {
            Self::ClientUntil(until) => Some(until - DOT_AT_LEAST),
            Self::Nobody | Self::Client => None,
        }
    }
}

pub(crate) enum Body<'a> {
    Memory(&'a [u8]),
    File(Stored),
}

/// Why the content was not written completely.
enum Stopped {
    Broken(Broken),
    Unreadable(io::Error),
    /// It was too slow for the other branches; the black hole, if that seems to be the cause.
    LeftBehind(Option<BlackHole>),
    Standstill,
    /// The end of data would be too late for a reply.
    OutOfTime,
    /// Another node may send it.
    NotOurs,
}

impl Branch {
    /// Sends the message to its recipients, in as many transactions as necessary; sends the envelope again where it was
    /// aborted. A message that was streamed is only ended.
    pub(crate) async fn send(&mut self, message: &Message<'_>, lag: &Lag) -> Vec<(usize, Outcome)> {
        let mut other_hosts = if message.waits == Waits::Nobody { usize::MAX } else { OTHER_HOSTS };
        let mut alone: Option<OneByOne> = None;
        loop {
            let most = if alone.is_some() { 1 } else { MAX_RECIPIENTS };
            if self.members.len() > most {
                let rest = self.members.split_off(most);
                self.later.splice(..0, rest);
            }
            let (answers, host) = self.transaction(message, lag).await;
            if alone.is_none() && self.out.speaks() == Speaks::Smtp && are_unknown(&answers) {
                // The reply does not tell which recipient it means: each is asked about alone (Exchange's filter on
                // mailbox servers).
                alone = Some(OneByOne::begin(message));
                let all = std::mem::take(&mut self.members);
                self.later.splice(..0, all);
            }
            let mut postponed = false;
            for (at, outcome) in answers {
                match (&host, outcome.class) {
                    (Some(_), Class::Unreachable) if other_hosts > 0 => {
                        postponed = true;
                        self.postpone(at, outcome);
                    }
                    _ => self.end(at, outcome, Others::Accepted),
                }
            }
            // Whatever broke, every recipient gets an outcome.
            let left_out = match &self.line {
                Line::Unreachable(why) => why.clone(),
                Line::Away | Line::Open(_) => Outcome::undone(),
            };
            self.ended.extend(self.members.drain(..).map(|member| (member.at, left_out.clone())));
            self.members = std::mem::take(&mut self.later);
            if alone.as_mut().is_some_and(|alone| !alone.goes_on(message)) {
                let rest = Outcome::ours(Class::LeftToQueue, ONE_BY_ONE);
                self.ended.extend(self.members.drain(..).map(|member| (member.at, rest.clone())));
            }
            if self.members.is_empty() {
                return std::mem::take(&mut self.ended);
            }
            if let Some(host) = host.filter(|_| postponed) {
                other_hosts = other_hosts.saturating_sub(1);
                self.tried.push(host);
            }
        }
    }

    /// A member goes to another host, if there is one.
    fn postpone(&mut self, at: usize, outcome: Outcome) {
        self.last = Some(outcome);
        if let Some(place) = self.members.iter().position(|member| member.at == at) {
            self.later.push(self.members.remove(place));
        }
    }

    /// One transaction; also returns the host, if it accepted the envelope and then failed.
    async fn transaction(&mut self, message: &Message<'_>, lag: &Lag) -> (Vec<(usize, Outcome)>, Option<Key>) {
        match std::mem::take(&mut self.stream) {
            Stream::Over(answers, host) => return (answers, host),
            Stream::On => {
                let host = self.host();
                return (self.end_content(message, lag).await, host);
            }
            Stream::No => {}
        }
        let fields = self.fields(message);
        let octets = fields.len() as u64 + message.content.size;
        self.say_envelope(message, Some((message.content, octets))).await;
        if self.members.is_empty() {
            self.give_up(message).await;
        }
        let host = self.host();
        match self.begin_content(message, &fields, lag).await {
            Ok(()) => (self.end_content(message, lag).await, host),
            Err(answers) => (answers, host),
        }
    }

    /// Sends the envelope if the next hop does not have it, with what is known of the content.
    async fn say_envelope(&mut self, message: &Message<'_>, content: Option<(&Content, u64)>) {
        if !matches!(self.line, Line::Away) || self.members.is_empty() {
            return;
        }
        let left = self.left.max(self.out.waits.reply * 2);
        let opening = self.open(message.origin, message.sender, content, &[], None);
        if message.waits == Waits::Nobody {
            opening.await;
        } else if timeout(left, opening).await.is_err() {
            self.line = Line::Unreachable(Outcome::ours(Class::Unreachable, IMPATIENT));
        }
    }

    /// No recipient is left.
    async fn give_up(&mut self, message: &Message<'_>) {
        match std::mem::replace(&mut self.line, Line::Away) {
            Line::Open(checkout) if message.waits == Waits::Nobody => checkout.give_up().await,
            Line::Open(checkout) => checkout.take_back(),
            line => self.line = line,
        }
    }

    fn host(&self) -> Option<Key> {
        match &self.line {
            Line::Open(checkout) => Some(checkout.key()),
            Line::Away | Line::Unreachable(_) => None,
        }
    }

    fn fields(&self, message: &Message<'_>) -> String {
        let addresses: Vec<_> = self.members.iter().map(|member| (&member.rcpt.address, &member.rcpt_to)).collect();
        (message.fields)(&self.out.connector, &addresses)
    }

    /// The content has become too large to be received first: sends what there is, and the rest as it comes.
    pub(crate) async fn begin_stream(&mut self, message: &Message<'_>, lag: &Lag) {
        self.say_envelope(message, None).await;
        if matches!(&self.line, Line::Open(checkout) if checkout.takes_unseen()) && !self.members.is_empty() {
            let (fields, host) = (self.fields(message), self.host());
            self.stream = match self.begin_content(message, &fields, lag).await {
                Ok(()) => Stream::On,
                Err(answers) => Stream::Over(answers, host),
            };
            self.feed(&[], lag).await;
        }
    }

    /// Sends the next piece of a content that is streamed.
    pub(crate) async fn feed(&mut self, piece: &[u8], lag: &Lag) {
        let (Stream::On, Line::Open(checkout)) = (&self.stream, &mut self.line) else { return };
        checkout.piece(piece);
        match flush(checkout, lag, &self.pace, None).await {
            Ok(took) => self.pace.took(took, lag.arrived()),
            Err(stopped) => {
                let host = self.host();
                self.stream = Stream::Over(self.stopped(stopped).await, host);
            }
        }
    }

    /// Sends DATA, and the content so far; the last piece is written with what follows.
    async fn begin_content(
        &mut self,
        message: &Message<'_>,
        fields: &str,
        lag: &Lag,
    ) -> Result<(), Vec<(usize, Outcome)>> {
        if let Line::Unreachable(why) = &self.line {
            return Err(self.all(why));
        }
        let Line::Open(checkout) = &mut self.line else { return Err(Vec::new()) };
        let octets = fields.len() as u64 + message.content.size;
        let way = match checkout.way(message.sender, message.content, octets) {
            Ok(way) => way,
            Err(reply) => {
                self.release();
                return Err(self.all(&Outcome::ours(Class::Refused, reply)));
            }
        };
        if let Err(ended) = checkout.data(way, octets).await {
            return Err(self.outcomes(ended));
        }
        if message.waits == Waits::Nobody {
            self.pace = Pace::unhurried();
        }
        match write(checkout, fields.as_bytes(), message, lag, &mut self.pace).await {
            Ok(()) => Ok(()),
            Err(stopped) => Err(self.stopped(stopped).await),
        }
    }

    /// Sends the end of data and reads the reply.
    async fn end_content(&mut self, message: &Message<'_>, lag: &Lag) -> Vec<(usize, Outcome)> {
        let Line::Open(checkout) = &mut self.line else { return Vec::new() };
        let last_dot = message.waits.last_dot();
        if last_dot.is_some_and(|last| Instant::now() > last) {
            return self.stopped(Stopped::OutOfTime).await;
        }
        let begun = Instant::now();
        while !(message.is_ours)() {
            if begun.elapsed() > OURS_WITHIN {
                return self.stopped(Stopped::NotOurs).await;
            }
            tokio::time::sleep(LOOK).await;
        }
        checkout.end();
        match flush(checkout, lag, &self.pace, last_dot).await {
            Ok(took) => self.pace.took(took, lag.arrived()),
            Err(stopped) => return self.stopped(stopped).await,
        }
        let patience = match message.waits {
            Waits::ClientUntil(until) => Patience::Until(until),
            Waits::Nobody | Waits::Client => Patience::ForEach(DOT),
        };
        self.dot = Dot::Out;
        let ended = checkout.verdict(patience).await;
        self.dot = Dot::NotSent;
        self.outcomes(ended)
    }

    /// The recipients' outcomes; returns the connection if it can be used.
    fn outcomes(&mut self, ended: Reuse) -> Vec<(usize, Outcome)> {
        let Line::Open(checkout) = &mut self.line else { return Vec::new() };
        let answers = checkout.take_outcomes();
        checkout.error();
        self.close(ended);
        answers
    }

    /// The content was not written completely.
    async fn stopped(&mut self, stopped: Stopped) -> Vec<(usize, Outcome)> {
        let outcome = match stopped {
            Stopped::Broken(broken) => {
                let Line::Open(checkout) = &mut self.line else { return Vec::new() };
                let ended = checkout.interrupted(&broken).await;
                return self.outcomes(ended);
            }
            Stopped::LeftBehind(None) => Outcome::ours(Class::LeftToQueue, LEFT_BEHIND),
            Stopped::LeftBehind(Some(hole)) => Outcome::ours(Class::LeftToQueue, LEFT_BEHIND.saying(hole.to_string())),
            Stopped::Standstill => Outcome::ours(Class::Deferred, TOO_SLOW),
            Stopped::NotOurs => Outcome::ours(Class::LeftToQueue, NOT_OURS),
            Stopped::OutOfTime => Outcome::ours(Class::LeftToQueue, OUT_OF_TIME),
            Stopped::Unreadable(error) => {
                tracing::error!(alert = true, %error, "cannot read a message's content");
                Outcome::unreadable(&error)
            }
        };
        self.close(Reuse::Closed);
        self.all(&outcome)
    }
}

/// Writes the content so far. A small message is written together with its end, in one write.
async fn write(
    checkout: &mut Checkout,
    prefix: &[u8],
    message: &Message<'_>,
    lag: &Lag,
    pace: &mut Pace,
) -> Result<(), Stopped> {
    let last_dot = message.waits.last_dot();
    checkout.piece(prefix);
    match &message.body {
        Body::Memory(bytes) => {
            for (number, piece) in bytes.chunks(PIECE).enumerate() {
                if number > 0 {
                    let took = flush(checkout, lag, pace, last_dot).await?;
                    pace.took(took, Duration::ZERO);
                }
                checkout.piece(piece);
            }
        }
        Body::File(file) => {
            let (mut pieces, mut is_first) = (file.in_pieces(message.content.size), true);
            // The last piece is returned only if the checksum of the whole is right, so otherwise no end of data is
            // sent.
            while let Some(piece) = pieces.next(PIECE).await.map_err(Stopped::Unreadable)? {
                if !std::mem::take(&mut is_first) {
                    let took = flush(checkout, lag, pace, last_dot).await?;
                    pace.took(took, Duration::ZERO);
                }
                checkout.piece(&piece);
            }
        }
    }
    Ok(())
}

/// Writes a piece, as long as the branch keeps up with the others, makes progress, and is in time for the end of data.
async fn flush(checkout: &mut Checkout, lag: &Lag, pace: &Pace, last_dot: Option<Instant>) -> Result<Took, Stopped> {
    let (octets, began) = (checkout.queued(), Instant::now());
    let in_time = last_dot.map_or(Duration::MAX, |last| last.saturating_duration_since(began));
    let flushed = tokio::select! {
        biased;
        flushed = timeout(pace.left().min(in_time), checkout.flush()) => flushed,
        () = lag.too_far(pace.behind) => return Err(Stopped::LeftBehind(checkout.look())),
    };
    let Ok(flushed) = flushed else {
        checkout.look();
        return Err(if in_time < pace.left() { Stopped::OutOfTime } else { Stopped::Standstill });
    };
    flushed.map_err(Stopped::Broken)?;
    Ok(Took { octets, time: began.elapsed() })
}
