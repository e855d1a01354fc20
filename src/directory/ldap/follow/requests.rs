//! What is wanted of the task that keeps a snapshot fresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Failure, Keeper, full_read};
use crate::directory::snapshot::Accept;
use crate::directory::snapshot::served::Outcome;
use crate::lookup::Lookup;

/// What somebody wants of the task.
pub(in crate::directory::ldap) enum Request {
    /// The directory is to be read as a whole, now.
    Refresh(Refresh),
    /// The directory, asked itself, said something else than it was known to.
    Look(Doubted),
}

/// Somebody waits for a whole read.
pub(in crate::directory::ldap) struct Refresh {
    pub(in crate::directory::ldap) accept: Accept,
    pub(in crate::directory::ldap) done: oneshot::Sender<Result<Refreshed, String>>,
}

/// An address of which the directory, asked itself, said something else than it was known to.
pub(in crate::directory::ldap) struct Doubted {
    pub(super) key: String,
    pub(super) live: Lookup,
    at: Instant,
}

impl Doubted {
    pub(in crate::directory::ldap) fn new(key: String, live: Lookup) -> Self {
        Self { key, live, at: Instant::now() }
    }

    /// Whether a stream of changes had so long to tell it.
    pub(super) fn is_old(&self, patience: Duration) -> bool {
        self.at.elapsed() >= patience
    }
}

/// What a whole read came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refreshed {
    /// Recipients now.
    pub recipients: usize,
    /// So many of them take another way, or none, since.
    pub turned: usize,
    /// So many would, if what is held were accepted.
    pub held: usize,
}

/// Somebody who waits for a whole read, and whose word on what was held has been taken.
pub(super) struct Waiting {
    done: oneshot::Sender<Result<Refreshed, String>>,
    /// So many recipients' mail takes another way for it, or none.
    accepted: usize,
}

impl Keeper {
    /// Takes what is held at the word of somebody who is still there: no more than he can have seen. What the read brings
    /// then has to pass `hold_changes` like any other.
    pub(super) async fn received(&self, refresh: Refresh) -> Result<Option<Waiting>, Failure> {
        let Refresh { accept, done } = refresh;
        if done.is_closed() {
            return Ok(None);
        }
        let snapshot = Arc::clone(&self.snapshot);
        let accepted = match accept {
            Accept::No => 0,
            accept @ (Accept::Yes | Accept::Only(_)) => full_read::blocking(move || snapshot.accept(&accept)).await?,
        };
        Ok(Some(Waiting { done, accepted }))
    }

    /// Tells who waits what the read came to. What was accepted is, whatever became of the read.
    pub(super) fn answer(&self, waiting: Option<Waiting>, read: Result<Outcome, String>) {
        let Some(Waiting { done, accepted }) = waiting else { return };
        let turned = match read {
            Ok(Outcome::Taken(turned)) => Ok(accepted + turned),
            Ok(Outcome::Held(_)) => Ok(accepted),
            Err(_) if accepted > 0 => Ok(accepted),
            Err(cause) => Err(cause),
        };
        let report = self.snapshot.report();
        let recipients = report.recipients.unwrap_or_default();
        // Who asked may have gone.
        let _ = done.send(turned.map(|turned| Refreshed { recipients, turned, held: report.held }));
    }
}
