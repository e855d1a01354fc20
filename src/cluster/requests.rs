//! What an operator wants done by another node, with its mail or with a directory's changes: a request is a row addressed
//! to that node's epoch, which takes it, does it, and writes its reply. Only the owner changes anything of its mail.
//!
//! The table has no log: requests wait for no standby, and are lost with their primary.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::database::{Connection, DatabaseError, random};
use super::spool::ClusterSpool;
use crate::message::queue_id::QueueId;

/// How often a node looks for requests.
pub const LOOK: Duration = Duration::from_secs(1);
/// How often a reply is looked for.
const AGAIN: Duration = Duration::from_millis(100);
/// How long it may take to withdraw a request.
const WITHDRAW: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    /// Try a message now.
    Retry {
        id: QueueId,
    },
    /// Try now what waits for this connector, or all.
    RetryAll {
        connector: Option<String>,
    },
    Drop {
        id: QueueId,
    },
    /// Changes of a directory are expected, or accepted if they are held: those of the addresses with these keys, or of
    /// so many recipients; for this long.
    Announce {
        directory: String,
        keys: Option<Vec<String>>,
        count: usize,
        seconds: u64,
    },
}

/// What a node says that was to do it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Reply {
    /// With so many messages.
    Done { messages: usize },
    /// It does not have this message.
    NotMine,
    /// Perhaps only in part.
    Failed { error: String },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    Answered(Reply),
    /// The epoch that it was addressed to ended before it answered; it may have done it.
    OwnerEnded,
    /// It was withdrawn: nothing was done, and nothing will be.
    Withdrawn,
    /// It was taken or lost: it may have been done, or may still be.
    Unknown,
}

/// A request that this node has to answer.
#[derive(Debug)]
pub struct Taken {
    key: Vec<u8>,
    /// `None`: another version wrote it.
    pub request: Option<Request>,
}

/// A request's row.
struct Row {
    taken: bool,
    reply: Option<Reply>,
}

impl Row {
    fn of(row: &tokio_postgres::Row) -> Self {
        let reply: Option<String> = row.get(1);
        let unreadable = || Reply::Failed { error: "its reply cannot be read: is it another version?".into() };
        let reply = reply.map(|text| serde_json::from_str(&text).unwrap_or_else(|_| unreadable()));
        Self { taken: row.get(0), reply }
    }
}

impl ClusterSpool {
    /// Asks the node of this epoch, and waits until then for its reply.
    ///
    /// # Errors
    /// [`DatabaseError`]: as [`Asked::Unknown`].
    pub async fn ask(&self, epoch: i64, request: &Request, until: Instant) -> Result<Asked, DatabaseError> {
        let key: [u8; 16] = random()?;
        let text = serde_json::to_string(request).map_err(|error| DatabaseError::Unfit(error.to_string()))?;
        let waited = timeout_at(until, self.wait_for_reply(&key, epoch, &text)).await;
        let withdrawn = timeout(WITHDRAW, self.withdraw(&key)).await;
        let withdrawn = withdrawn.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into())));
        match (waited, withdrawn) {
            (Ok(Ok(Asked::Answered(reply))), _) | (_, Ok(Some(Row { reply: Some(reply), .. }))) => {
                Ok(Asked::Answered(reply))
            }
            (_, Err(error)) => Err(error),
            (Ok(Ok(Asked::OwnerEnded)), Ok(_)) => Ok(Asked::OwnerEnded),
            (_, Ok(Some(Row { taken: false, .. }))) => Ok(Asked::Withdrawn),
            (_, Ok(_)) => Ok(Asked::Unknown),
        }
    }

    /// Writes a request, and waits until it has its reply or no one to reply.
    async fn wait_for_reply(&self, key: &[u8], epoch: i64, text: &str) -> Result<Asked, DatabaseError> {
        let statement = "INSERT INTO fingerpost.request (key, epoch, request) \
             SELECT $1, id, $3 FROM fingerpost.epoch WHERE id = $2 RETURNING 1";
        if self.pool().query(statement, &[&key, &epoch, &text]).await?.is_empty() {
            return Ok(Asked::OwnerEnded);
        }
        let statement = "SELECT taken, reply, EXISTS (SELECT FROM fingerpost.epoch e WHERE e.id = r.epoch) \
             FROM fingerpost.request r WHERE key = $1";
        loop {
            sleep(AGAIN).await;
            let rows = self.pool().query(statement, &[&key]).await?;
            let Some(row) = rows.first() else { return Ok(Asked::Unknown) };
            if let Some(reply) = Row::of(row).reply {
                return Ok(Asked::Answered(reply));
            }
            if !row.get::<_, bool>(2) {
                return Ok(Asked::OwnerEnded);
            }
        }
    }

    /// Removes a request, unless its owner is taking it just now; returns it as it was.
    async fn withdraw(&self, key: &[u8]) -> Result<Option<Row>, DatabaseError> {
        let statement = "DELETE FROM fingerpost.request WHERE key IN \
             (SELECT key FROM fingerpost.request WHERE key = $1 FOR UPDATE SKIP LOCKED) RETURNING taken, reply";
        Ok(self.pool().query(statement, &[&key]).await?.first().map(Row::of))
    }

    /// The requests to this node that have come. Each is handed out once.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn take_requests(&self) -> Result<Vec<Taken>, DatabaseError> {
        let statement = "UPDATE fingerpost.request SET taken = true WHERE epoch = $1 AND NOT taken \
             AND EXISTS (SELECT FROM fingerpost.epoch WHERE id = $1) RETURNING key, request";
        let rows = self.pool().query(statement, &[&self.epoch().id]).await?;
        let taken =
            |row: &tokio_postgres::Row| Taken { key: row.get(0), request: serde_json::from_str(row.get(1)).ok() };
        Ok(rows.iter().map(taken).collect())
    }

    /// Tells who asked.
    ///
    /// # Errors
    /// [`DatabaseError`]: he does not hear it.
    pub async fn reply(&self, taken: &Taken, reply: &Reply) -> Result<(), DatabaseError> {
        let text = serde_json::to_string(reply).map_err(|error| DatabaseError::Unfit(error.to_string()))?;
        let statement = "UPDATE fingerpost.request SET reply = $2 WHERE key = $1";
        self.pool().query(statement, &[&taken.key, &text]).await.map(drop)
    }
}

/// Removes requests whose asker is gone.
pub(super) async fn forget_old(connection: &Connection) -> Result<(), DatabaseError> {
    let statement = "DELETE FROM fingerpost.request WHERE asked < now() - interval '1 minute'";
    connection.client().execute(statement, &[]).await?;
    Ok(())
}
