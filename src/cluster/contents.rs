//! Message contents in the database, in pieces of [`PIECE`] octets: what is large goes there before its message is
//! accepted, and everything is read piece by piece.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_postgres::Client;

use super::database::{DatabaseError, Pool};
use super::ids::to_sql;
use crate::message::queue_id::QueueId;
use crate::spool::{Elsewhere, Stored};

/// Octets of all pieces but the last.
pub(super) const PIECE: usize = 256 * 1024;

/// Writes a large content. Its message is accepted by a later transaction, which checks that all of it is there; until
/// then it belongs to the epoch, and goes with it.
///
/// # Errors
/// [`DatabaseError`]; nothing of it counts.
pub(super) async fn upload(pool: &Pool, epoch: i64, id: QueueId, content: &Stored) -> Result<(), DatabaseError> {
    let pooled = pool.get().await?;
    pooled.connection().while_believed(write(pooled.client(), epoch, to_sql(id), content)).await?;
    pooled.give_back().await;
    Ok(())
}

async fn write(client: &Client, epoch: i64, id: i64, content: &Stored) -> Result<(), DatabaseError> {
    let statement = "INSERT INTO fingerpost.upload (id, epoch) SELECT $1, id FROM fingerpost.epoch WHERE id = $2";
    if client.execute(statement, &[&id, &epoch]).await? == 0 {
        return Err(DatabaseError::Ended);
    }
    // Where the epoch has ended meanwhile nobody would look after a piece.
    let statement = "INSERT INTO fingerpost.body (id, piece, content) \
         SELECT id, $2, $3 FROM fingerpost.upload WHERE id = $1 FOR KEY SHARE";
    let statement = client.prepare(statement).await?;
    let mut pieces = content.in_pieces(content.size());
    let unreadable = |error: io::Error| DatabaseError::Away(format!("the content cannot be read again: {error}"));
    let mut number = 0i32;
    while let Some(piece) = pieces.next(PIECE).await.map_err(unreadable)? {
        if client.execute(&statement, &[&id, &number, &&*piece]).await? == 0 {
            return Err(DatabaseError::Ended);
        }
        number += 1;
    }
    Ok(())
}

/// A content that is in the database.
pub(super) struct Remote {
    pub(super) id: QueueId,
    pub(super) pool: Arc<Pool>,
    pub(super) handle: Handle,
}

impl Remote {
    async fn read(&self, at: u64, length: usize) -> Result<Bytes, DatabaseError> {
        let piece = PIECE as u64;
        let number = |at: u64| i32::try_from(at / piece).unwrap_or(i32::MAX);
        let (first, last) = (number(at), number(at + (length as u64).saturating_sub(1)));
        let pooled = self.pool.get().await?;
        let statement = "SELECT content FROM fingerpost.body WHERE id = $1 AND piece BETWEEN $2 AND $3 ORDER BY piece";
        let id = to_sql(self.id);
        let rows = async { Ok(pooled.client().query(statement, &[&id, &first, &last]).await?) };
        let rows = pooled.connection().while_believed(rows).await?;
        pooled.give_back().await;
        let mut bytes = Vec::with_capacity(length);
        let mut skip = usize::try_from(at % piece).unwrap_or_default();
        for row in rows {
            let content: &[u8] = row.get(0);
            let from = content.get(skip..).unwrap_or_default();
            bytes.extend_from_slice(from.get(..length - bytes.len()).unwrap_or(from));
            skip = 0;
        }
        Ok(bytes.into())
    }
}

impl Elsewhere for Remote {
    fn piece(&self, at: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move { self.read(at, length).await.map_err(io::Error::other) })
    }

    fn piece_blocking(&self, at: u64, length: usize) -> io::Result<Bytes> {
        // Some callers are on a thread of the runtime all the same: dead letters.
        tokio::task::block_in_place(|| self.handle.block_on(self.read(at, length))).map_err(io::Error::other)
    }
}
