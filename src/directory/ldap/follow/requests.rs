//! Requests to the task that keeps a snapshot up to date.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Failure, Keeper, full_read};
use crate::directory::snapshot::Accept;
use crate::directory::snapshot::served::Outcome;
use crate::lookup::Lookup;

pub(in crate::directory::ldap) enum Request {
    /// Read the whole directory now.
    Refresh(Refresh),
    /// Read entries again: the directory's own answer differed from the snapshot.
    Look(Doubted),
}

/// A request for a full read, and where to send its result.
pub(in crate::directory::ldap) struct Refresh {
    pub(in crate::directory::ldap) accept: Accept,
    pub(in crate::directory::ldap) done: oneshot::Sender<Result<Refreshed, String>>,
}

/// An address whose live answer differed from the snapshot.
pub(in crate::directory::ldap) struct Doubted {
    pub(super) key: String,
    pub(super) live: Lookup,
    at: Instant,
}

impl Doubted {
    pub(in crate::directory::ldap) fn new(key: String, live: Lookup) -> Self {
        Self { key, live, at: Instant::now() }
    }

    /// Whether a stream has had this long to send the change.
    pub(super) fn is_old(&self, patience: Duration) -> bool {
        self.at.elapsed() >= patience
    }
}

/// The result of a full read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refreshed {
    pub recipients: usize,
    /// How many recipients' destination has changed.
    pub turned: usize,
    /// How many would change if held changes were accepted.
    pub held: usize,
}

/// A request for a full read, after held changes were accepted as it asked.
pub(super) struct Waiting {
    done: oneshot::Sender<Result<Refreshed, String>>,
    /// How many recipients' destination changed by that.
    accepted: usize,
}

impl Keeper {
    /// Accepts held changes for a caller that is still there: only those that it can have seen. What the read finds has
    /// to pass `hold_changes` again.
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

    /// Sends the result of the read. Accepted changes stay accepted even if the read failed.
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
        // The caller may be gone.
        let _ = done.send(turned.map(|turned| Refreshed { recipients, turned, held: report.held }));
    }
}
