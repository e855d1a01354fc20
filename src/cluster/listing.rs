//! The mail of all nodes, as the database has it, and which nodes there are: for operators.

use tokio_postgres::Row;

use super::batch;
use super::database::DatabaseError;
use super::ids::{from_sql, to_sql};
use super::spool::ClusterSpool;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Entry;

/// A part of the queue, oldest first.
#[derive(Debug)]
pub struct Listing {
    /// The number of all queued messages.
    pub total: usize,
    pub messages: Vec<Found>,
}

/// A queued message, and whose it is.
#[derive(Debug)]
pub struct Found {
    pub entry: Entry,
    pub owner: Owner,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    Node(OwnerNode),
    /// Its node has ended: it waits to be taken over.
    Nobody,
}

/// A node whose epoch nobody has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerNode {
    pub epoch: i64,
    pub name: String,
}

impl Owner {
    /// The node's name; empty: nobody.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Node(living) => &living.name,
            Self::Nobody => "",
        }
    }
}

const NODE_OF_QUEUE: &str = "fingerpost.queue q LEFT JOIN fingerpost.epoch e ON e.id = q.epoch \
     LEFT JOIN fingerpost.node n ON n.number = e.node";

impl ClusterSpool {
    /// Up to `most` messages of all nodes, those after `behind`.
    ///
    /// # Errors
    /// [`DatabaseError`]. Messages that another version wrote are counted, left out, and named in the log.
    pub async fn list_all(&self, behind: Option<QueueId>, most: usize) -> Result<Listing, DatabaseError> {
        let statement = format!(
            "SELECT q.id, q.format, q.entry, e.id, n.name FROM {NODE_OF_QUEUE} WHERE q.id > $1 ORDER BY q.id LIMIT $2"
        );
        let (behind, most) = (behind.map_or(i64::MIN, to_sql), i64::try_from(most).unwrap_or(i64::MAX));
        let rows = self.pool().query(&statement, &[&behind, &most]).await?;
        let total = self.pool().query("SELECT count(*) FROM fingerpost.queue", &[]).await?;
        let total = total.first().map_or(0, |row| row.get::<_, i64>(0));
        let unread = |error: &DatabaseError| tracing::warn!(%error, "a message is left out of a list");
        let messages = rows.iter().filter_map(|row| found(row).inspect_err(unread).ok()).collect();
        Ok(Listing { total: usize::try_from(total).unwrap_or_default(), messages })
    }

    /// A message of any node.
    ///
    /// # Errors
    /// [`DatabaseError`]; also where another version wrote it.
    pub async fn find(&self, id: QueueId) -> Result<Option<Found>, DatabaseError> {
        let statement = format!("SELECT q.id, q.format, q.entry, e.id, n.name FROM {NODE_OF_QUEUE} WHERE q.id = $1");
        self.pool().query(&statement, &[&to_sql(id)]).await?.first().map(found).transpose()
    }

    /// Who has a message; `None`: there is none with this id.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn owner(&self, id: QueueId) -> Result<Option<Owner>, DatabaseError> {
        let statement = format!("SELECT e.id, n.name FROM {NODE_OF_QUEUE} WHERE q.id = $1");
        Ok(self.pool().query(&statement, &[&to_sql(id)]).await?.first().map(|row| owner(row, 0)))
    }

    /// The other nodes that nobody has ended.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn others(&self) -> Result<Vec<OwnerNode>, DatabaseError> {
        let statement = "SELECT e.id, n.name FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
             WHERE e.id <> $1 ORDER BY n.name";
        let rows = self.pool().query(statement, &[&self.epoch().id]).await?;
        Ok(rows.iter().map(|row| OwnerNode { epoch: row.get(0), name: row.get(1) }).collect())
    }
}

fn found(row: &Row) -> Result<Found, DatabaseError> {
    let entry = batch::entry(row.get(1), row.get(2));
    let entry = entry.map_err(|error| DatabaseError::Unfit(format!("{}: {error}", from_sql(row.get(0)))))?;
    Ok(Found { entry, owner: owner(row, 3) })
}

/// The owner as epoch and name, at this column and the next.
fn owner(row: &Row, at: usize) -> Owner {
    match (row.get(at), row.get(at + 1)) {
        (Some(epoch), Some(name)) => Owner::Node(OwnerNode { epoch, name }),
        _ => Owner::Nobody,
    }
}
