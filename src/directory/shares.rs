//! Limits the questions in progress for each client and in all, where a directory's capacity is small.
//!
//! A turn is taken before a question is joined or begun, so that no client waits for another one's turn. It lasts as
//! long as the question, which continues when the caller is gone. Half of a client's slow questions (Exchange's tarpit
//! delays refusals) give way to its other questions, so that one unknown recipient does not delay a mailing list. A
//! client that has a turn then waits in the common `line`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

pub use super::line::Most;
use super::line::{Line, LinePermit};
use crate::lookup::{Behalf, Standing};

/// The shares of all clients.
pub struct Shares {
    most: Most,
    line: Arc<Line>,
    /// How long a client waits for its turn.
    patience: Duration,
    /// Clients with a turn, or waiting for one.
    asking: Mutex<HashMap<Asking, Arc<Share>>>,
}

/// A client with its standing: one that asks about known recipients has a separate share for those.
type Asking = (Behalf, Standing);

struct Share {
    turns: Arc<Semaphore>,
    /// A question with one of these does not give way any more.
    lasting: Semaphore,
    /// One for each of `waiting` for which no question has given way yet.
    wanted: Semaphore,
    waiting: AtomicUsize,
    /// How many have a turn or wait for one; changed only under the table's lock.
    users: AtomicUsize,
}

/// A turn; dropping it ends it.
pub struct Turn {
    place: LinePermit,
    /// `None`: our own questions have no share.
    own: Option<Own>,
    /// Until when the caller would have waited for it.
    until: Instant,
}

/// A turn in a client's share.
struct Own {
    user: User,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// Until when the caller would have waited for the turn: the time that is left for the question.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Completes when the question, which has taken longer than `slow`, has to give way to another one.
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
    /// To another question of the same client.
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

/// A question that waits for a turn.
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
    /// Allows `most` questions at once; one that has waited for `patience` fails.
    #[must_use]
    pub fn new(most: Most, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, line: Line::new(most), patience, asking: Mutex::default() })
    }

    /// Waits for a turn. Our own questions have one at once.
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

    /// The same unless there is a turn already, or the question is ours.
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
        let mut all = self.asking.lock();
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
}

impl Drop for User {
    fn drop(&mut self) {
        let mut asking = self.shares.asking.lock();
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
        assert!(shares.asking.lock().is_empty(), "nobody is remembered");
        let network = shares.turn(&client("2001:db8::1"), Standing::Stranger).await.unwrap();
        let _more = shares.turn(&client("2001:db8::2"), Standing::Stranger).await.unwrap();
        assert!(shares.turn(&client("2001:db8::3"), Standing::Stranger).await.is_err(), "a /64 is one client");
        drop(network);
    }
}
