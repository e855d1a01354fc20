//! How many questions are under way on behalf of each client, where a directory cannot be asked much at once.
//!
//! A turn is taken before a question is joined or begun, so that nobody waits for another one's turn, and lasts as long
//! as the question, which goes on when whoever asked is gone. Of one's questions that take long (Exchange's tarpit keeps
//! a no back) half give way to his own others that wait, so that one unknown recipient does not hold up a mailing list.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use crate::routing::verdict::Behalf;

/// Everybody's share.
pub struct Shares {
    /// Questions of one at once.
    most: usize,
    /// How long somebody waits for his turn.
    patience: Duration,
    /// Those who have a turn or wait for one.
    asking: Mutex<HashMap<Behalf, Arc<Share>>>,
}

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
    user: User,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// Ends when the question, which has taken longer than `slow` by then, is to give way to another one of the same
    /// client.
    pub(super) async fn gives_way(&self, slow: Duration) {
        sleep(slow).await;
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
    behalf: Behalf,
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
    /// At most so many questions of one at once; whoever has waited for `patience` is told to come again.
    #[must_use]
    pub fn new(most: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, patience, asking: Mutex::default() })
    }

    /// Waits for a turn. We need none ourselves.
    ///
    /// # Errors
    /// None came in time.
    pub async fn turn(self: &Arc<Self>, behalf: &Behalf) -> Result<Option<Turn>, String> {
        if *behalf == Behalf::Ours {
            return Ok(None);
        }
        let user = self.user(behalf);
        let turns = Arc::clone(&user.share.turns);
        if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            return Ok(Some(Turn { user, _permit: permit }));
        }
        let waits = Waits::new(&user.share);
        let permit = timeout(self.patience, turns.acquire_owned()).await;
        drop(waits);
        match permit {
            Ok(Ok(permit)) => Ok(Some(Turn { user, _permit: permit })),
            _ => {
                let (most, patience) = (self.most, self.patience);
                Err(format!("{most} questions on behalf of the same client were under way for {patience:?}"))
            }
        }
    }

    fn user(self: &Arc<Self>, behalf: &Behalf) -> User {
        let mut asking = self.asking();
        let share = asking.entry(behalf.clone()).or_insert_with(|| {
            Arc::new(Share {
                turns: Arc::new(Semaphore::new(self.most)),
                lasting: Semaphore::new(self.most / 2),
                wanted: Semaphore::new(0),
                waiting: AtomicUsize::new(0),
                users: AtomicUsize::new(0),
            })
        });
        share.users.fetch_add(1, Ordering::SeqCst);
        User { shares: Arc::clone(self), share: Arc::clone(share), behalf: behalf.clone() }
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<Behalf, Arc<Share>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let mut asking = self.shares.asking();
        if self.share.users.fetch_sub(1, Ordering::SeqCst) == 1 {
            asking.remove(&self.behalf);
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
        let shares = Shares::new(2, Duration::from_secs(5));
        let one = client("192.0.2.1");
        let held = [shares.turn(&one).await.unwrap(), shares.turn(&client("::ffff:192.0.2.1")).await.unwrap()];
        assert!(shares.turn(&one).await.is_err(), "a third has to wait");
        for other in [client("192.0.2.2"), client("2001:db8::1"), Behalf::Sender("a.example".into()), Behalf::Ours] {
            assert!(shares.turn(&other).await.is_ok(), "{other:?}");
        }
        let waits = tokio::spawn({
            let (shares, one) = (Arc::clone(&shares), one.clone());
            async move { shares.turn(&one).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waits.await.unwrap(), "its turn comes");
        assert!(shares.asking().is_empty(), "nobody is remembered");
        let network = shares.turn(&client("2001:db8::1")).await.unwrap();
        let _more = shares.turn(&client("2001:db8::2")).await.unwrap();
        assert!(shares.turn(&client("2001:db8::3")).await.is_err(), "a /64 is one client");
        drop(network);
    }
}
