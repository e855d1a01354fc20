//! Opens the content of a message to be sent, and handles damaged content (DESIGN section 8): it is not sent, a copy is
//! kept for operators, and the message waits as if its next hop were unreachable.

use std::sync::Arc;

use super::QueueShared;
use crate::delivery::outcome::{Class, Outcome};
use crate::smtp::reply::TRY_AGAIN;
use crate::spool::Stored;
use crate::spool::entry::Entry;

/// A message's content. Content that was found damaged is first read to its end, so that no part of it is sent again.
///
/// # Errors
/// The outcome for all recipients: it cannot be read now, or is still damaged.
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

/// After an attempt: keeps a copy of content that was found damaged.
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
