//! What moves of mail between a node's own spool and the database have in common. A move has a number, which stands in
//! the spool's mark before anything else; while it goes on its messages belong in the database to an epoch that nobody
//! has, and nobody takes them over.

use super::database::{Connection, DatabaseError, random};
use crate::message::queue_id::QueueId;
use crate::spool::SpoolError;
use crate::spool::entry::{Entry, RecipientState};
use crate::time::QueueTime;

/// The most messages, and octets of them, that are moved at once.
pub(super) const MOST: usize = 200;
pub(super) const OCTETS: u64 = 8 << 20;

/// The epoch of mail that the next sweep of any node takes over.
const NOBODYS: i64 = 0;

/// A message that cannot be moved, by its id where it is.
#[derive(Debug)]
pub struct Damaged {
    pub id: QueueId,
    pub why: String,
}

/// Why mail is not moved. Nothing is lost, and the same move again goes on.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// A message cannot be moved as it is.
    #[error("message {0}: {1}")]
    Message(QueueId, String),
    /// Not as things are; the text says what to do.
    #[error("{0}")]
    Refused(String),
}

impl From<tokio_postgres::Error> for MoveError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

/// A number that no other move has.
pub(super) fn new_number() -> Result<u64, DatabaseError> {
    random().map(u64::from_le_bytes)
}

/// The epoch of a move's messages: below 0.
pub(super) fn epoch_of(number: u64) -> i64 {
    -((number >> 2).cast_signed() | 1)
}

/// Makes a transaction of `work` that is on two machines where a standby is named.
pub(super) async fn transaction<T>(
    connection: &Connection,
    work: impl Future<Output = Result<T, MoveError>>,
) -> Result<T, MoveError> {
    connection.client().batch_execute("BEGIN; SET LOCAL synchronous_commit = on").await?;
    let done = work.await?;
    connection.while_believed(connection.commit()).await?;
    Ok(done)
}

/// Gives what a move's epoch still has to the nodes; returns how many messages that is.
pub(super) async fn give_to_nodes(connection: &Connection, epoch: i64) -> Result<u64, MoveError> {
    let statement = "UPDATE fingerpost.queue SET epoch = $1 WHERE epoch = $2";
    transaction(connection, async { Ok(connection.client().execute(statement, &[&NOBODYS, &epoch]).await?) }).await
}

/// Gives these messages of a move's epoch to the nodes.
pub(super) async fn give_back(connection: &Connection, epoch: i64, ids: &[i64]) -> Result<(), MoveError> {
    let statement = "UPDATE fingerpost.queue SET epoch = $1 WHERE epoch = $2 AND id = ANY ($3)";
    let given = async { Ok(connection.client().execute(statement, &[&NOBODYS, &epoch, &ids]).await?) };
    transaction(connection, given).await.map(drop)
}

/// Converts a message's times to another queue time: it is as old there as it is here.
pub(super) fn as_old(entry: &mut Entry, now: QueueTime, there: QueueTime) {
    let convert = |at: QueueTime| QueueTime(there.0.saturating_sub(now.since(at).as_secs()));
    entry.queued_at = convert(entry.queued_at);
    let waiting = entry.recipients.iter_mut().filter_map(|queued| match &mut queued.state {
        RecipientState::Waiting(waiting) => waiting.ages_from.as_mut(),
        RecipientState::Held(_) | RecipientState::Done(_) => None,
    });
    waiting.for_each(|from| *from = convert(*from));
}
