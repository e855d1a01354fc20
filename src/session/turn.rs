//! Whether a session waits for its client or the client for it: the session records that, and `listener` reads it when
//! it needs a connection slot.
//!
//! A session that waits for its client may be closed in favour of another client; while it receives content only if
//! that is slow; while it owes a reply it may not. Recording a wait costs two operations on an atomic of the session's
//! own, which nobody else touches until slots are short.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::smtp::envelope::Whose;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The session's first MAIL. A TLS handshake of which nothing has come counts as this.
    BeforeMail,
    /// The rest of a TLS handshake.
    Handshake,
    /// A command after the first MAIL.
    AfterMail,
    /// A message's content. [`Idle::since`] is until when it came fast enough.
    Content,
    /// Anything, from a client that harvests addresses: a refusal is being delayed, or the last one was.
    Harvests,
}

/// A session that waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// When the client last made progress, since the common start of all turns.
    pub since: Duration,
    pub stage: Stage,
    pub whose: Whose,
}

/// Why a session is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Another client needs its connection slot.
    Wanted,
    /// It was idle for longer than is allowed while slots are short.
    Idle,
    /// The client harvests addresses, and slots are short.
    Harvests,
}

impl Why {
    /// The reason for closing a session that is idle so.
    #[must_use]
    pub fn of(idle: Idle, otherwise: Self) -> Self {
        if idle.stage == Stage::Harvests { Self::Harvests } else { otherwise }
    }
}

impl Why {
    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "place-wanted",
            Self::Idle => "idle",
            Self::Harvests => "unknown-recipients",
        }
    }
}

/// The server's turn.
const OURS: u64 = 0;
/// The session was closed by the listener; the state is final. No time reaches this value.
const WANTED: u64 = u64::MAX;
const IDLE: u64 = u64::MAX - 1;
const HARVESTS: u64 = u64::MAX - 2;
/// Bits below the time: the stage, and whether it is a stranger's.
const BELOW: u32 = 4;

impl Idle {
    /// Never equal to [`OURS`].
    fn to_word(self) -> u64 {
        let since = u64::try_from(self.since.as_micros()).unwrap_or(u64::MAX) & (u64::MAX >> (BELOW + 2));
        let stage = match self.stage {
            Stage::BeforeMail => 0,
            Stage::Handshake => 2,
            Stage::AfterMail => 4,
            Stage::Harvests => 6,
            Stage::Content => 8,
        };
        (since + 1) << BELOW | stage | u64::from(self.whose == Whose::Stranger)
    }

    fn of_word(word: u64) -> Option<Self> {
        if matches!(word, OURS | WANTED | IDLE | HARVESTS) {
            return None;
        }
        let stage = match word & 14 {
            0 => Stage::BeforeMail,
            2 => Stage::Handshake,
            4 => Stage::AfterMail,
            8 => Stage::Content,
            _ => Stage::Harvests,
        };
        let whose = if word & 1 == 1 { Whose::Stranger } else { Whose::Known };
        Some(Self { since: Duration::from_micros((word >> BELOW).saturating_sub(1)), stage, whose })
    }
}

/// The kind of connection slot that a session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// It may be used as the receive connector allows.
    Free,
    /// It is not for strangers: the client has to show by its first MAIL that it is none.
    Reserved,
}

/// The state of one session's turns. Clones share it.
#[derive(Clone)]
pub struct Turn(Arc<TurnState>);

struct TurnState {
    word: AtomicU64,
    /// What [`Idle::since`] counts from; the same for all sessions that are compared.
    start: Instant,
    /// Cancelled when the session has to end: the server stops, or the session was closed.
    leave: CancellationToken,
    /// Limits the closed sessions that may wait until their last reply is read.
    farewells: Arc<Semaphore>,
    place: SlotKind,
    /// Whether the client was recorded as known, not a stranger.
    known: AtomicBool,
}

/// A session without a listener is never closed by one.
impl From<CancellationToken> for Turn {
    fn from(draining: CancellationToken) -> Self {
        Self::new(Instant::now(), draining, Arc::new(Semaphore::new(1)), SlotKind::Free)
    }
}

impl Turn {
    /// Begins with the server's turn. `leave` belongs to this session only.
    #[must_use]
    pub fn new(start: Instant, leave: CancellationToken, farewells: Arc<Semaphore>, place: SlotKind) -> Self {
        Self(Arc::new(TurnState {
            word: AtomicU64::new(OURS),
            start,
            leave,
            farewells,
            place,
            known: AtomicBool::new(false),
        }))
    }

    /// How it is idle; `None`: it is not, or has been closed.
    #[must_use]
    pub fn idle(&self) -> Option<Idle> {
        Idle::of_word(self.0.word.load(Ordering::Acquire))
    }

    /// Closes the session if it is still idle as described; its slot is free then.
    #[must_use]
    pub fn send_away(&self, idle: Idle, why: Why) -> bool {
        let last = match why {
            Why::Wanted => WANTED,
            Why::Idle => IDLE,
            Why::Harvests => HARVESTS,
        };
        let sent = self.0.word.compare_exchange(idle.to_word(), last, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if sent {
            self.0.leave.cancel();
        }
        sent
    }

    /// Why it was closed; `None`: it was not.
    #[must_use]
    pub fn sent_away(&self) -> Option<Why> {
        match self.0.word.load(Ordering::Acquire) {
            WANTED => Some(Why::Wanted),
            IDLE => Some(Why::Idle),
            HARVESTS => Some(Why::Harvests),
            _ => None,
        }
    }

    /// Whether its client has turned out to be known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.known.load(Ordering::Relaxed)
    }

    /// Whether this client may begin a transaction in its slot.
    pub(crate) fn serves(&self, whose: Whose) -> bool {
        self.0.place == SlotKind::Free || whose == Whose::Known
    }

    /// Completes when the session has to end.
    pub(super) fn leave(&self) -> WaitForCancellationFutureOwned {
        self.0.leave.clone().cancelled_owned()
    }

    /// A permit to wait until the last reply is read; closed sessions hold no slot any more, so there are few permits.
    pub(super) fn farewell(&self) -> Option<OwnedSemaphorePermit> {
        self.0.farewells.clone().try_acquire_owned().ok()
    }

    /// The client's turn begins.
    pub(crate) fn begins(&self, since: Instant, stage: Stage, whose: Whose) {
        if whose == Whose::Known {
            self.0.known.store(true, Ordering::Relaxed);
        }
        let idle = Idle { since: since.saturating_duration_since(self.0.start), stage, whose };
        match self.0.word.load(Ordering::Relaxed) {
            OURS => self.0.word.store(idle.to_word(), Ordering::Release), // nobody else touches it
            // If this fails, the session was closed meanwhile, and stays so.
            was if Idle::of_word(was).is_some() => {
                let _ = self.0.word.compare_exchange(was, idle.to_word(), Ordering::AcqRel, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// The client's turn ends.
    ///
    /// # Errors
    /// The session was closed meanwhile.
    pub(crate) fn ends(&self) -> Result<(), Why> {
        let word = self.0.word.load(Ordering::Relaxed);
        let ours = Idle::of_word(word).is_none()
            || self.0.word.compare_exchange(word, OURS, Ordering::AcqRel, Ordering::Acquire).is_ok();
        match self.sent_away() {
            Some(why) => Err(why),
            None => {
                debug_assert!(ours, "only the session takes its turn back");
                Ok(())
            }
        }
    }

    /// Runs a future that needs the client, such as a handshake. `stage` gives what is waited for, from the number of
    /// waits so far; where `moves` says so, each wait that ends is progress.
    ///
    /// # Errors
    /// The session was closed meanwhile.
    pub(super) async fn meanwhile<T>(
        &self,
        whose: Whose,
        stage: impl Fn(usize) -> Stage,
        moves: Moves,
        work: impl Future<Output = T>,
    ) -> Result<T, Why> {
        let (mut work, mut leave) = (pin!(work), pin!(self.0.leave.cancelled()));
        let (mut waits, mut since) = (0, None);
        poll_fn(|context| {
            if let Err(why) = self.ends() {
                return Poll::Ready(Err(why));
            }
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Ok(done));
            }
            if moves == Moves::GetOn {
                since = None;
            }
            self.begins(*since.get_or_insert_with(Instant::now), stage(waits), whose);
            waits += 1;
            match leave.as_mut().poll(context) {
                Poll::Ready(()) => self.sent_away().map_or(Poll::Pending, |why| Poll::Ready(Err(why))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Whether what a client sends is progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    GetOn,
    /// It is not: the whole has to finish in time.
    MeanNothing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        Turn::from(CancellationToken::new())
    }

    #[test]
    fn what_is_written_down_is_read() {
        for since in [0, 1, 7, 86_400_000, u64::from(u32::MAX) * 1000] {
            for stage in [Stage::BeforeMail, Stage::Handshake, Stage::AfterMail, Stage::Content, Stage::Harvests] {
                for whose in [Whose::Known, Whose::Stranger] {
                    let idle = Idle { since: Duration::from_micros(since), stage, whose };
                    assert_eq!(Idle::of_word(idle.to_word()), Some(idle));
                }
            }
        }
        assert_eq!([OURS, WANTED, IDLE, HARVESTS].map(Idle::of_word), [None; 4]);
    }

    #[tokio::test]
    async fn only_who_is_still_idle_is_sent_away() {
        let turn = turn();
        assert_eq!(turn.idle(), None);
        turn.begins(Instant::now(), Stage::BeforeMail, Whose::Stranger);
        let seen = turn.idle().unwrap();
        assert_eq!(turn.ends(), Ok(()));
        assert!(!turn.send_away(seen, Why::Wanted), "it is our turn");
        turn.begins(Instant::now() + Duration::from_secs(1), Stage::AfterMail, Whose::Stranger);
        assert!(!turn.send_away(seen, Why::Wanted), "it has got on since");
        assert!(turn.send_away(turn.idle().unwrap(), Why::Wanted));
        assert_eq!((turn.idle(), turn.ends(), turn.sent_away()), (None, Err(Why::Wanted), Some(Why::Wanted)));
        turn.leave().await;
    }

    #[tokio::test(start_paused = true)]
    async fn work_with_the_client_ends_when_it_is_sent_away() {
        let turn = turn();
        let stage = |waits| if waits == 0 { Stage::BeforeMail } else { Stage::Handshake };
        let done = turn.meanwhile(Whose::Stranger, stage, Moves::GetOn, async { 7 }).await;
        assert_eq!((done, turn.idle()), (Ok(7), None));

        let (other, gate) = (turn.clone(), Arc::new(Semaphore::new(0)));
        let opened = gate.clone();
        let task = tokio::spawn(async move {
            let work = async {
                let _ = opened.acquire().await;
                std::future::pending::<()>().await;
            };
            other.meanwhile(Whose::Stranger, stage, Moves::GetOn, work).await
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let silent = turn.idle().unwrap();
        assert_eq!((silent.stage, silent.since), (Stage::BeforeMail, Duration::ZERO));
        gate.add_permits(1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let moving = turn.idle().unwrap();
        assert_eq!((moving.stage, moving.since), (Stage::Handshake, Duration::from_secs(2)));
        assert!(!turn.send_away(silent, Why::Idle) && turn.send_away(moving, Why::Idle));
        assert_eq!(task.await.unwrap(), Err(Why::Idle));
    }
}
