//! Segments of the spool that the disk cannot read: lists them with their messages, and gives one up.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Parts;
use super::api::{Answer, failed, from_disk};
use super::json::Json;
use super::queue::Message;
use crate::message::queue_id::QueueId;
use crate::spool::condition::Unreadable;

/// The response to `GET /api/spool/unreadable`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segments {
    pub unreadable: Vec<Unreadable>,
}

/// A segment that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    pub segment: u32,
    /// Its messages, as far as they could be read. They have left the queue.
    pub messages: Vec<Message>,
    /// Messages of which only the id is known.
    pub unknown: Vec<QueueId>,
}

pub(super) async fn unreadable(State(parts): State<Arc<Parts>>) -> Json<Segments> {
    Json(Segments { unreadable: parts.spool.condition().unreadable() })
}

/// Keeps the segment in `aside/`, and drops the messages in it without reports, as every drop.
pub(super) async fn release(State(parts): State<Arc<Parts>>, Path(segment): Path<String>) -> Answer<Released> {
    let wrong = |_| failed(StatusCode::BAD_REQUEST, format!("`{segment}` is not the number of a segment"));
    let segment: u32 = segment.parse().map_err(wrong)?;
    let spool = parts.spool.clone();
    let kept = tokio::task::spawn_blocking(move || spool.keep_unreadable(segment)).await;
    let broken = |error: String| failed(StatusCode::INTERNAL_SERVER_ERROR, error);
    let kept = kept.map_err(|error| broken(error.to_string()))?.map_err(|error| broken(error.to_string()))?;
    let text = || format!("segment {segment} is not among those that cannot be read: nothing of it is let go");
    let ids = kept.ok_or_else(|| failed(StatusCode::NOT_FOUND, text()))?;
    let mut released = Released { segment, messages: Vec::new(), unknown: Vec::new() };
    for id in ids {
        match from_disk(&parts, move |delivery| delivery.show(id)).await.unwrap_or_default() {
            Some(entry) => {
                let message = Message::of(&entry);
                let recipients: Vec<&str> = message.recipients.iter().map(|one| &*one.address).collect();
                tracing::warn!(queue_id = %id, sender = message.sender, recipients = recipients.join(" "), segment,
                    "an operator let its segment go");
                released.messages.push(message);
            }
            None => released.unknown.push(id),
        }
        parts.delivery.drop_message(id).await.map_err(broken)?;
    }
    Ok(Json(released))
}
