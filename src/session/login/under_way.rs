//! A password attempt in progress. It counts in the limits of [`guesses`](crate::guesses) until it is answered, waits
//! for its turn there, and wakes those who wait for it when it ends, even if its session ends before.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::{Instant, timeout_at};

use super::{Services, guesses};
use crate::directory::{Login, MayBind};
use crate::guesses::{Awaited, Closed, Guess, Outcome, Reach, Step};
use crate::time::UnixTime;

/// How long an attempt waits for others of its client: longer than a bind takes with a directory's default `timeout`.
const PATIENCE: Duration = Duration::from_secs(30);
/// Waiting attempts are woken in this many groups: thousands may wait, and one result concerns a few.
const GROUPS: usize = 64;

/// Wakes attempts that wait for another to end.
pub struct Answered(Box<[Notify]>);

impl Default for Answered {
    fn default() -> Self {
        Self((0..GROUPS).map(|_| Notify::new()).collect())
    }
}

impl Answered {
    fn of(&self, awaited: Awaited) -> Option<&Notify> {
        self.0.get((awaited.0 % GROUPS as u64) as usize)
    }

    fn notify(&self, awaited: Awaited) {
        if let Some(group) = self.of(awaited) {
            group.notify_waiters();
        }
    }

    async fn wait(waiting: Option<Notified<'_>>) {
        if let Some(waiting) = waiting {
            waiting.await;
        }
    }
}

/// An attempt in progress.
pub(super) struct UnderWay<'a> {
    services: &'a Services,
    pub(super) guess: Guess,
    /// The account that it counts against, until it is settled.
    reach: Mutex<Option<Reach>>,
    /// Why it may not ask about the account.
    closed: OnceLock<Closed>,
}

impl<'a> UnderWay<'a> {
    /// Waits until the attempt may be made.
    ///
    /// # Errors
    /// Why it must not be made.
    pub(super) async fn begin(services: &'a Services, guess: Guess) -> Result<Self, Step> {
        let until = Instant::now() + PATIENCE;
        loop {
            let waiting = {
                let mut guesses = guesses(services);
                match guesses.begin(&guess, UnixTime::steady()) {
                    Step::Ask => {
                        let (reach, closed) = (Mutex::new(None), OnceLock::new());
                        return Ok(Self { services, guess, reach, closed });
                    }
                    // Registered before the awaited attempt can end, so that its end is not missed.
                    Step::Wait(awaited) => services.answered.of(awaited).map(Notify::notified),
                    step @ (Step::Refuse | Step::Later) => return Err(step),
                }
            };
            timeout_at(until, Answered::wait(waiting)).await.map_err(|_| Step::Later)?;
        }
    }

    /// Why the account must not be asked about; `None`: it may.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed.get().copied()
    }

    pub(super) fn settle(&self, login: &Login) {
        self.settle_as(match login {
            Login::Accepted => Outcome::Right,
            Login::Rejected(_) => Outcome::Wrong,
            Login::Unavailable(_) | Login::NotAsked => Outcome::NotLookedAt,
            Login::Unanswered(_) => Outcome::Unanswered,
        });
    }

    fn settle_as(&self, outcome: Outcome) {
        let Some(reach) = self.reach.lock().take() else { return };
        let settled = guesses(self.services).settle(reach, outcome, UnixTime::steady());
        if let Some(awaited) = settled {
            self.services.answered.notify(awaited);
        }
    }

    async fn reaches(&self, account: &str) -> bool {
        loop {
            let waiting = {
                let mut guesses = guesses(self.services);
                match guesses.reach(&self.guess, account, UnixTime::steady()) {
                    Ok(reach) => {
                        *self.reach.lock() = Some(reach);
                        return true;
                    }
                    Err(Closed::Wait(awaited)) => self.services.answered.of(awaited).map(Notify::notified),
                    Err(closed) => {
                        let _ = self.closed.set(closed); // it is asked once
                        return false;
                    }
                }
            };
            Answered::wait(waiting).await;
        }
    }
}

impl MayBind for UnderWay<'_> {
    fn may_bind<'a>(&'a self, account: &'a str) -> BoxFuture<'a, bool> {
        Box::pin(self.reaches(account))
    }
}

impl Drop for UnderWay<'_> {
    /// If the session ends meanwhile, the attempt that was sent still counts.
    fn drop(&mut self) {
        self.settle_as(Outcome::Unanswered);
        let ended = guesses(self.services).end(&self.guess);
        self.services.answered.notify(ended);
    }
}
