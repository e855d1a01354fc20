//! The content of a message that is to be sent, and what becomes of one that is not what was written (DESIGN section 8):
//! it is not sent, a copy is kept for a person to look at, and the message waits like one whose next hop is away.

use std::sync::Arc;

use super::QueueShared;
use crate::delivery::outcome::{Class, Outcome};
use crate::smtp::reply::TRY_AGAIN;
use crate::spool::Stored;
use crate::spool::entry::Entry;

/// A message's content. What was damaged before is read to its end first: nobody gets a part of it again.
///
/// # Errors
/// The outcome for all of its recipients: it cannot be read now, or is damaged still.
pub(super) async fn open(shared: &QueueShared, entry: &Entry) -> Result<Stored, Outcome> {
    let stored = shared.parts.spool.open(entry.id).map_err(|error| {
        tracing::error!(alert = true, queue_id = %entry.id, %error, "queued content cannot be read; delivery is tried again later");
        Outcome::ours(Class::Deferred, TRY_AGAIN)
    })?;
    if stored.is_damaged()
        && let Err(error) = stored.verify().await
    {
        tracing::warn!(queue_id = %entry.id, %error, "queued content is damaged still; it is not sent");
        return Err(Outcome::unreadable(&error));
    }
    Ok(stored)
}

/// After an attempt: keeps a copy of what turned out to be damaged.
pub(super) async fn look(shared: &QueueShared, entry: &Entry, stored: &Stored) {
    if !stored.is_damaged() {
        return;
    }
    let (spool, entry, stored) = (shared.parts.spool.clone(), Arc::new(entry.clone()), stored.clone());
    let kept = tokio::task::spawn_blocking(move || spool.keep_damaged(&entry, &stored)).await;
    if let Err(error) = kept {
        tracing::error!(%error, "keeping a copy of damaged content failed");
    }
}
