//! Drops messages for an operator: durably, and recipients in an attempt when it ends.

use std::sync::Arc;

use super::attempt::Loaded;
use super::queue::Dropping;
use super::{QueueShared, commit};
use crate::message::queue_id::QueueId;
use crate::spool::SpoolError;
use crate::spool::entry::{Change, Outcome, RecipientState, Record};

/// Drops a message; returns whether it exists.
pub(super) async fn begin(shared: Arc<QueueShared>, id: QueueId) -> Result<bool, SpoolError> {
    let loaded = match Loaded::begin(&shared, id).await {
        Ok(loaded) => loaded,
        Err(error) => return unread(&shared, id, &error).await,
    };
    let Some(_loaded) = loaded else { return Ok(false) };
    let dropping = shared.queue.lock().begin_drop(id);
    let Some(dropping) = dropping else { return Ok(false) };
    commit::drop_recipients(&shared, &dropping).await?;
    tracing::info!(queue_id = %id, sender = %dropping.entry.sender.reverse_path, "dropped by an operator");
    Ok(true)
}

/// Drops a message that cannot be read: no attempt is in progress for it.
async fn unread(shared: &QueueShared, id: QueueId, error: &SpoolError) -> Result<bool, SpoolError> {
    let dropped = |recipient| Change { id, recipient, state: RecipientState::Done(Outcome::Dropped), route: None };
    let changes: Vec<Change> = shared.parts.spool.open_recipients(id).into_iter().map(dropped).collect();
    let there_is_one = !changes.is_empty();
    shared.parts.spool.commit(Record { accepted: Vec::new(), changes }).await?;
    shared.queue.lock().forget(id);
    if there_is_one {
        tracing::info!(queue_id = %id, %error, "dropped by an operator, unread");
    }
    Ok(there_is_one)
}

/// Recipients of a message are free again: if the message was dropped meanwhile, they are dropped now.
pub(super) async fn go_on(shared: Arc<QueueShared>, id: QueueId) {
    let rest = shared.queue.lock().rest_of_dropped(id);
    if let Some(rest) = rest {
        go_on_with(shared, rest).await;
    }
}

/// Drops what an operator dropped before the start.
pub(super) async fn go_on_before(shared: Arc<QueueShared>, id: QueueId) {
    match Loaded::begin(&shared, id).await {
        Ok(Some(_loaded)) => {
            let dropping = shared.queue.lock().begin_drop(id);
            if let Some(dropping) = dropping {
                go_on_with(shared.clone(), dropping).await;
            }
        }
        Ok(None) => {}
        Err(error) => tracing::error!(queue_id = %id, %error, "a dropped message cannot be read; it stays"),
    }
}

/// Drops the rest of a message that was dropped before.
async fn go_on_with(shared: Arc<QueueShared>, rest: Dropping) {
    if let Err(error) = commit::drop_recipients(&shared, &rest).await {
        tracing::error!(queue_id = %rest.entry.id, %error, "a dropped message cannot be taken out of the queue; it stays");
    }
}
