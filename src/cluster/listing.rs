//! The mail of all nodes, as the database has it, and which nodes there are: for operators.

use std::time::Duration;

use tokio_postgres::Row;

use super::batch;
use super::database::{DatabaseError, SESSIONS, application};
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
    Node(Living),
    /// Its node has ended: it waits to be taken over.
    Nobody,
}

/// A node whose epoch nobody has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
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

/// How long telling others that this node stops may take.
const TELLING: Duration = Duration::from_secs(2);

/// Whether a node may drain though no other one is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    Never,
    Too,
}

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
    pub async fn others(&self) -> Result<Vec<Living>, DatabaseError> {
        let statement = "SELECT e.id, n.name FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
             WHERE e.id <> $1 ORDER BY n.name";
        let rows = self.pool().query(statement, &[&self.epoch().id]).await?;
        Ok(rows.iter().map(|row| Living { epoch: row.get(0), name: row.get(1) }).collect())
    }

    /// Says that this node drains, unless no other one would be left; `alone`: also then. Returns those that go on: they have
    /// a session at the database, and do not drain.
    ///
    /// # Errors
    /// [`DatabaseError`]: it does not drain; if its row says so, the next heartbeat takes that back.
    pub async fn drain(&self, alone: Alone) -> Result<Vec<Living>, DatabaseError> {
        let draining = &self.epoch().draining;
        let _asking = draining.ask();
        let pooled = self.pool().get().await?;
        let (connection, client) = (pooled.connection(), pooled.client());
        let asked = async {
            // Of two that drain in the same moment the second sees the first. A primary that forgets it ends nothing.
            let begin =
                "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_advisory_xact_lock(hashtext('fingerpost drain'))";
            client.batch_execute(begin).await?;
            let sessions: Vec<String> = client.query(SESSIONS, &[]).await?.iter().map(|row| row.get(0)).collect();
            let statement = "SELECT e.id, n.name FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
                 WHERE e.id <> $1 AND NOT e.draining ORDER BY n.name";
            let rows = client.query(statement, &[&self.epoch().id]).await?;
            let mut others: Vec<Living> =
                rows.iter().map(|row| Living { epoch: row.get(0), name: row.get(1) }).collect();
            others.retain(|other| sessions.contains(&application(other.epoch)));
            if !others.is_empty() || alone == Alone::Too {
                client
                    .execute("UPDATE fingerpost.epoch SET draining = true WHERE id = $1", &[&self.epoch().id])
                    .await?;
            }
            client.batch_execute("COMMIT").await?;
            Ok(others)
        };
        let others = connection.while_believed(asked).await?;
        if !others.is_empty() || alone == Alone::Too {
            draining.begin();
        }
        pooled.give_back().await;
        Ok(others)
    }

    /// The node begins to stop: from now on it takes over no more mail, and says so to those that would drain and count on it,
    /// within 2 s if the database answers.
    pub async fn begin_to_stop(&self) {
        self.take_over_no_more();
        self.epoch().draining.begin();
        let told = async {
            let pooled = self.pool().get().await?;
            // A primary that forgets it hears it again with the next heartbeat.
            let statement = format!(
                "BEGIN; SET LOCAL synchronous_commit = off; UPDATE fingerpost.epoch SET draining = true WHERE id = {}; COMMIT",
                self.epoch().id
            );
            pooled.client().batch_execute(&statement).await?;
            pooled.give_back().await;
            Ok::<_, DatabaseError>(())
        };
        let told = tokio::time::timeout(TELLING, told).await;
        if let Err(error) = told.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into()))) {
            tracing::debug!(%error, "other nodes cannot be told that this one stops");
        }
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
        (Some(epoch), Some(name)) => Owner::Node(Living { epoch, name }),
        _ => Owner::Nobody,
    }
}
