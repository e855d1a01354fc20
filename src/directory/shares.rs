//! How many questions are under way on behalf of each client and in all, where a directory cannot be asked much at once.
//!
//! A turn is taken before a question is joined or begun, so that nobody waits for another one's turn, and lasts as long
//! as the question, which goes on when whoever asked is gone. Of one's questions that take long (Exchange's tarpit keeps
//! a no back) half give way to his own others that wait, so that one unknown recipient does not hold up a mailing list.
//! Who has a turn of his own waits in the `line` of all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

pub use super::line::Most;
use super::line::{Line, LinePermit};
use crate::lookup::{Behalf, Standing};

/// Everybody's share.
pub struct Shares {
    most: Most,
    line: Arc<Line>,
    /// How long somebody waits for his turn.
    patience: Duration,
    /// Those who have a turn or wait for one.
    asking: Mutex<HashMap<Asking, Arc<Share>>>,
}

/// Somebody, as what he is: who asks for people we know has a share of his own for them.
type Asking = (Behalf, Standing);

/// One's share.
struct Share {
    turns: Arc<Semaphore>,
    /// Whose question has one of these gives way no more.
    lasting: Semaphore,
    /// One for each of `waiting` that has not had a question give way for it yet.
    wanted: Semaphore,
    waiting: AtomicUsize,
    /// How many have a turn or wait for one; changed under the table's lock.
    users: AtomicUsize,
}

/// A turn, until it is dropped.
pub struct Turn {
    place: LinePermit,
    /// We have all that there is.
    own: Option<Own>,
    /// Until when somebody would have waited for it.
    until: Instant,
}

/// A turn among one's own.
struct Own {
    user: User,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// Until when whoever waited for the turn would have waited: the time that the question has left.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Ends when the question, which has taken longer than `slow` by then, is to give way to another one.
    pub(super) async fn gives_way(&self, slow: Duration) {
        sleep(slow).await;
        let own = async {
            match &self.own {
                Some(own) => own.gives_way().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.place.gives_way() => {}
            () = own => {}
        }
    }
}

impl Own {
    /// To another one of the same client.
    async fn gives_way(&self) {
        let share = &self.user.share;
        tokio::select! {
            biased;
            Ok(_lasting) = share.lasting.acquire() => std::future::pending().await,
            Ok(wanted) = share.wanted.acquire() => wanted.forget(),
        }
    }
}

/// Keeps a share in the table.
struct User {
    shares: Arc<Shares>,
    share: Arc<Share>,
    asking: Asking,
}

/// Somebody who waits for a turn.
struct Waits<'a>(&'a Share);

impl<'a> Waits<'a> {
    fn new(share: &'a Share) -> Self {
        share.waiting.fetch_add(1, Ordering::SeqCst);
        share.wanted.add_permits(1);
        Self(share)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Self(share) = self;
        let others = share.waiting.fetch_sub(1, Ordering::SeqCst) - 1;
        if share.wanted.available_permits() > others {
            share.wanted.forget_permits(1);
        }
    }
}

impl Shares {
    /// At most so many questions at once; whoever has waited for `patience` is told to come again.
    #[must_use]
    pub fn new(most: Most, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, line: Line::new(most), patience, asking: Mutex::default() })
    }

    /// Waits for a turn. We have no share ourselves.
    ///
    /// # Errors
    /// None came in time.
    pub async fn turn(self: &Arc<Self>, behalf: &Behalf, standing: Standing) -> Result<Turn, String> {
        let until = Instant::now() + self.patience;
        let own = match behalf {
            Behalf::Ours => None,
            Behalf::Client(_) | Behalf::Sender(_) => Some(self.own((behalf.clone(), standing), until).await?),
        };
        match self.line.take(behalf, standing, until).await {
            Some(place) => Ok(Turn { place, own, until }),
            None => {
                let (most, patience) = (self.most.for_kind(standing), self.patience);
                Err(format!("{most} questions were under way for {patience:?}"))
            }
        }
    }

    /// The same for a question that has one, or is ours.
    pub(super) async fn turn_or(self: &Arc<Self>, turn: Option<Turn>) -> Result<Turn, String> {
        match turn {
            Some(turn) => Ok(turn),
            None => self.turn(&Behalf::Ours, Standing::Known).await,
        }
    }

    async fn own(self: &Arc<Self>, asking: Asking, until: Instant) -> Result<Own, String> {
        let user = self.user(asking);
        let turns = Arc::clone(&user.share.turns);
        if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            return Ok(Own { user, _permit: permit });
        }
        let waits = Waits::new(&user.share);
        let permit = timeout_at(until, turns.acquire_owned()).await;
        drop(waits);
        match permit {
            Ok(Ok(permit)) => Ok(Own { user, _permit: permit }),
            _ => {
                let (most, patience) = (self.most.each, self.patience);
                Err(format!("{most} questions on behalf of the same client were under way for {patience:?}"))
            }
        }
    }

    fn user(self: &Arc<Self>, asking: Asking) -> User {
        let mut all = self.asking();
        let share = all.entry(asking.clone()).or_insert_with(|| {
            Arc::new(Share {
                turns: Arc::new(Semaphore::new(self.most.each)),
                lasting: Semaphore::new(self.most.each / 2),
                wanted: Semaphore::new(0),
                waiting: AtomicUsize::new(0),
                users: AtomicUsize::new(0),
            })
        });
        share.users.fetch_add(1, Ordering::SeqCst);
        User { shares: Arc::clone(self), share: Arc::clone(share), asking }
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<Asking, Arc<Share>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut asking = self.shares.asking();
        if self.share.users.fetch_sub(1, Ordering::SeqCst) == 1 {
            asking.remove(&self.asking);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Behalf {
        Behalf::client(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_has_his_own_turns() {
        let shares = Shares::new(Most::of(12), Duration::from_secs(5));
        let one = client("192.0.2.1");
        let held = [
            shares.turn(&one, Standing::Stranger).await.unwrap(),
            shares.turn(&client("::ffff:192.0.2.1"), Standing::Stranger).await.unwrap(),
        ];
        assert!(shares.turn(&one, Standing::Stranger).await.is_err(), "a third has to wait");
        for other in [client("192.0.2.2"), client("2001:db8::1"), Behalf::Sender("a.example".into()), Behalf::Ours] {
            assert!(shares.turn(&other, Standing::Stranger).await.is_ok(), "{other:?}");
        }
        let waits = tokio::spawn({
            let (shares, one) = (Arc::clone(&shares), one.clone());
            async move { shares.turn(&one, Standing::Stranger).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waits.await.unwrap(), "its turn comes");
        assert!(shares.asking().is_empty(), "nobody is remembered");
        let network = shares.turn(&client("2001:db8::1"), Standing::Stranger).await.unwrap();
        let _more = shares.turn(&client("2001:db8::2"), Standing::Stranger).await.unwrap();
        assert!(shares.turn(&client("2001:db8::3"), Standing::Stranger).await.is_err(), "a /64 is one client");
        drop(network);
    }
}
