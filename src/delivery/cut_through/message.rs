//! The message on its way to one branch's next hop, beside the others': DATA, the content, the dot.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::branch::{Branch, Line, Stream};
use super::lag::Lag;
use super::pace::Pace;
use super::{End, Ending};
use crate::delivery::attempt::Outbound;
use crate::delivery::attempt::answer::{Ended, Patience};
use crate::delivery::attempt::black_hole::BlackHole;
use crate::delivery::attempt::connection::Broken;
use crate::delivery::attempt::loan::Loan;
use crate::delivery::stamping::stamp;
use crate::in_force::InForce;
use crate::message::envelope::{Origin, Sender};
use crate::smtp::reply::{Enhanced, Reply, TRY_AGAIN};
use crate::spool::Stored;
use crate::spool::entry::Content;

/// How long a next hop may take over the final dot while a client waits (DESIGN section 7).
const DOT: Duration = Duration::from_secs(480);
/// Octets of one piece.
const PIECE: usize = 64 * 1024;

const TOO_SLOW: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop takes the message too slowly");
const LEFT_BEHIND: Reply =
    Reply::fixed(451, Enhanced(4, 4, 1), "the next hop was slower than the message's others; the queue goes on");
const SLOW_354: Reply = Reply::fixed(451, Enhanced(4, 4, 1), "the next hop takes too long to answer DATA");

/// What is sent.
pub(crate) struct Message<'a> {
    /// Where it came from.
    pub origin: &'a Origin,
    /// What MAIL said to us.
    pub sender: &'a Sender,
    /// What is known of the content.
    pub content: &'a Content,
    /// The content.
    pub body: Body<'a>,
    /// What the stamp says that goes before it.
    pub in_force: &'a InForce,
}

/// Where the content is.
pub(crate) enum Body<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// In a file.
    File(Stored),
}

/// Why the content was not written whole.
enum Stopped {
    Broken(Broken),
    Unreadable(io::Error),
    /// What it looks like on the wire, if that says why.
    LeftBehind(Option<BlackHole>),
    Standstill,
}

impl Branch {
    /// Sends the message to its recipients; says the envelope again where it was taken back. What was streamed already is
    /// only ended.
    pub(super) async fn send(&mut self, outbound: &Outbound, message: &Message<'_>, lag: &Lag) -> Vec<Ending> {
        let mut endings = match std::mem::take(&mut self.stream) {
            Stream::Over(endings) => endings,
            Stream::On => self.end_content(lag).await,
            Stream::No => {
                if matches!(self.line, Line::Away) && !self.members.is_empty() {
                    self.open(outbound, (message.origin, message.sender), Some(message.content), None).await;
                }
                match self.begin_content(message, lag).await {
                    Ok(()) => self.end_content(lag).await,
                    Err(endings) => endings,
                }
            }
        };
        endings.extend(self.take_lost());
        // Whatever broke in between, nobody is left without an answer.
        for ending in self.all(&End::Unreachable(TRY_AGAIN)) {
            if !endings.iter().any(|known| known.at == ending.at) {
                endings.push(ending);
            }
        }
        endings
    }

    /// The content has become too large to be read first: what there is of it goes out, and the rest as it comes.
    pub(super) async fn begin_stream(&mut self, outbound: &Outbound, message: &Message<'_>, lag: &Lag) {
        if matches!(self.line, Line::Away) && !self.members.is_empty() {
            self.open(outbound, (message.origin, message.sender), None, None).await;
        }
        if matches!(&self.line, Line::Open(loan) if loan.takes_unseen()) {
            self.stream = match self.begin_content(message, lag).await {
                Ok(()) => Stream::On,
                Err(endings) => Stream::Over(endings),
            };
            self.feed(&[], lag).await;
        }
    }

    /// The next piece of a content that is being streamed.
    pub(super) async fn feed(&mut self, piece: &[u8], lag: &Lag) {
        let (Stream::On, Line::Open(loan)) = (&self.stream, &mut self.line) else { return };
        loan.piece(piece);
        if let Err(stopped) = flush(loan, lag, &mut self.pace).await {
            self.stream = Stream::Over(self.stopped(stopped).await);
        }
    }

    /// DATA, and the content as far as it is there; its last piece goes out with what follows.
    async fn begin_content(&mut self, message: &Message<'_>, lag: &Lag) -> Result<(), Vec<Ending>> {
        if self.members.is_empty() {
            self.release();
        }
        let addresses: Vec<_> = self.members.iter().map(|member| (member.address(), &member.rcpt_to)).collect();
        let prefix = stamp(message.in_force, &self.out.connector, &message.content.identity, &addresses);
        let octets = prefix.len() as u64 + message.content.size;
        let patience = self.patience();
        if let Line::Unreachable(why) = &self.line {
            return Err(self.all(&End::Unreachable(why.clone())));
        }
        let Line::Open(loan) = &mut self.line else { return Err(Vec::new()) };
        let way = match loan.way(message.sender, message.content, octets) {
            Ok(way) => way,
            Err(reply) => {
                self.release();
                return Err(self.all(&End::Refused(reply)));
            }
        };
        match timeout(patience, loan.data(way, octets)).await {
            Err(_) => {
                loan.timed_out(&SLOW_354);
                self.close(Ended::Closed);
                return Err(self.all(&End::Unreachable(SLOW_354)));
            }
            Ok(Err(ended)) => return Err(self.told(ended)),
            Ok(Ok(())) => {}
        }
        match write(loan, prefix.as_bytes(), message, (lag, &mut self.pace)).await {
            Ok(()) => Ok(()),
            Err(stopped) => Err(self.stopped(stopped).await),
        }
    }

    /// The dot, and what is said to it.
    async fn end_content(&mut self, lag: &Lag) -> Vec<Ending> {
        let Line::Open(loan) = &mut self.line else { return Vec::new() };
        loan.end();
        if let Err(stopped) = flush(loan, lag, &mut self.pace).await {
            return self.stopped(stopped).await;
        }
        let ended = loan.verdict(Patience::InAll(DOT)).await;
        self.told(ended)
    }

    /// What the next hop has told everybody; the connection goes back if it can be used.
    fn told(&mut self, ended: Ended) -> Vec<Ending> {
        let Line::Open(loan) = &mut self.line else { return Vec::new() };
        let told = loan.told();
        loan.note(&told);
        let endings = told.into_iter().map(|(at, answer)| self.ending(at, answer)).collect();
        self.close(ended);
        endings
    }

    /// The content was not written whole.
    async fn stopped(&mut self, stopped: Stopped) -> Vec<Ending> {
        let end = match stopped {
            Stopped::Broken(broken) => {
                let Line::Open(loan) = &mut self.line else { return Vec::new() };
                let ended = loan.interrupted(&broken).await;
                return self.told(ended).into_iter().map(Ending::broken_off).collect();
            }
            Stopped::LeftBehind(None) => End::CutLoose(LEFT_BEHIND),
            Stopped::LeftBehind(Some(hole)) => End::CutLoose(LEFT_BEHIND.saying(hole.to_string())),
            Stopped::Standstill => End::Deferred(TOO_SLOW),
            Stopped::Unreadable(error) => {
                tracing::error!(alert = true, %error, "cannot read a message's content");
                End::Deferred(TRY_AGAIN)
            }
        };
        self.close(Ended::Closed);
        self.all(&end)
    }
}

/// Writes what there is. A small message goes out with its dot, in one write.
async fn write(
    loan: &mut Loan,
    prefix: &[u8],
    message: &Message<'_>,
    (lag, pace): (&Lag, &mut Pace),
) -> Result<(), Stopped> {
    loan.piece(prefix);
    match &message.body {
        Body::Memory(bytes) => {
            for (number, piece) in bytes.chunks(PIECE).enumerate() {
                if number > 0 {
                    flush(loan, lag, pace).await?;
                }
                loan.piece(piece);
            }
        }
        Body::File(file) => {
            let mut at = 0;
            while at < message.content.size {
                let length = usize::try_from(message.content.size - at).unwrap_or(PIECE).min(PIECE);
                if at > 0 {
                    flush(loan, lag, pace).await?;
                }
                loan.piece(&file.piece(at, length).await.map_err(Stopped::Unreadable)?);
                at += length as u64;
            }
        }
    }
    Ok(())
}

/// Writes out a piece, as long as the branch keeps up with the others and moves at all.
async fn flush(loan: &mut Loan, lag: &Lag, pace: &mut Pace) -> Result<(), Stopped> {
    let (octets, began) = (loan.queued(), Instant::now());
    let flushed = tokio::select! {
        biased;
        flushed = timeout(pace.left(), loan.flush()) => flushed,
        () = lag.too_far(pace.behind) => return Err(Stopped::LeftBehind(loan.look())),
    };
    let Ok(flushed) = flushed else {
        loan.look();
        return Err(Stopped::Standstill);
    };
    flushed.map_err(Stopped::Broken)?;
    pace.took(octets, began.elapsed());
    pace.behind += lag.arrived();
    Ok(())
}
