//! Whose turn it is in a session: the session writes it down, `listener` reads it when it looks for a place.
//!
//! A session that waits for its client may be sent away, one that takes its content only where that is slow; one that owes
//! its client an answer may not. What a wait costs is two operations on an atomic of the session's own: nobody else touches it until places are
//! short.

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

/// How far a client is that we wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Before the first MAIL of its session, a TLS handshake of which nothing has come included.
    BeforeMail,
    /// Within a TLS handshake that has begun.
    Handshake,
    /// After its first MAIL.
    AfterMail,
    /// Within a message's content. [`Idle::since`] is until when it came fast enough.
    Content,
    /// It looks for addresses: a refusal is held back, or the last one was.
    Harvests,
}

/// A session that waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle {
    /// When the client last got on, from the turn's beginning of time.
    pub since: Duration,
    /// How far it is.
    pub stage: Stage,
    pub whose: Whose,
}

/// Why a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Somebody else wants its place.
    Wanted,
    /// It was idle for longer than places that are short allow.
    Idle,
    /// It looks for addresses, and places are short.
    Harvests,
}

impl Why {
    /// Why one that is idle so goes.
    #[must_use]
    pub fn of(idle: Idle, otherwise: Self) -> Self {
        if idle.stage == Stage::Harvests { Self::Harvests } else { otherwise }
    }
}

impl Why {
    /// In logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wanted => "place-wanted",
            Self::Idle => "idle",
            Self::Harvests => "unknown-recipients",
        }
    }
}

/// It is our turn.
const OURS: u64 = 0;
/// It was sent away: these, and nothing else, stay. Times end long before.
const WANTED: u64 = u64::MAX;
const IDLE: u64 = u64::MAX - 1;
const HARVESTS: u64 = u64::MAX - 2;
/// Bits below the time: the stage, and whose client it is.
const BELOW: u32 = 4;

impl Idle {
    /// Never [`OURS`].
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

/// What a session may do with the place that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// What its receive connector allows.
    Free,
    /// It is one of those that strangers do not get: show by MAIL that it is none.
    Reserved,
}

/// One session's turns. Cloning shares them.
#[derive(Clone)]
pub struct Turn(Arc<TurnState>);

struct TurnState {
    word: AtomicU64,
    /// What [`Idle::since`] counts from: the same for all who are compared.
    start: Instant,
    /// The session is to end: all are, or it is sent away.
    leave: CancellationToken,
    /// Those who may wait until their last reply is read.
    farewells: Arc<Semaphore>,
    place: SlotKind,
    /// It was waited for as one that is no stranger.
    known: AtomicBool,
}

/// A session without a listener is never sent away.
impl From<CancellationToken> for Turn {
    fn from(draining: CancellationToken) -> Self {
        Self::new(Instant::now(), draining, Arc::new(Semaphore::new(1)), SlotKind::Free)
    }
}

impl Turn {
    /// Ours, as long as nothing else is said. `leave` is this session's alone.
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

    /// How it is idle; `None`: it is not, or it was sent away.
    #[must_use]
    pub fn idle(&self) -> Option<Idle> {
        Idle::of_word(self.0.word.load(Ordering::Acquire))
    }

    /// Sends it away if it is still idle as it was. Its place is free then.
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

    /// Why it was sent away, if it was.
    #[must_use]
    pub fn sent_away(&self) -> Option<Why> {
        match self.0.word.load(Ordering::Acquire) {
            WANTED => Some(Why::Wanted),
            IDLE => Some(Why::Idle),
            HARVESTS => Some(Why::Harvests),
            _ => None,
        }
    }

    /// Whether its client has turned out to be no stranger.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.0.known.load(Ordering::Relaxed)
    }

    /// Whether this client may have a transaction in its place.
    pub(crate) fn serves(&self, whose: Whose) -> bool {
        self.0.place == SlotKind::Free || whose == Whose::Known
    }

    /// Rings when all sessions are to end or this one is sent away.
    pub(super) fn leave(&self) -> WaitForCancellationFutureOwned {
        self.0.leave.clone().cancelled_owned()
    }

    /// Whether its last reply may be waited for; who was sent away holds no place any more, so these are few.
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
            // Where that fails it was sent away meanwhile, and stays so.
            was if Idle::of_word(was).is_some() => {
                let _ = self.0.word.compare_exchange(was, idle.to_word(), Ordering::AcqRel, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// It ends.
    ///
    /// # Errors
    /// The client was sent away meanwhile.
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

    /// Goes on with what the client has a part in. `stage` says how far it is, told how often we have waited for it: each
    /// time that it does its part it has got on, where `moves` says so.
    ///
    /// # Errors
    /// The client was sent away meanwhile.
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

/// What it means that a client moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    /// It has got on.
    GetOn,
    /// It has to come to an end.
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
