//! What nodes know of addresses together: each writes what it has learned within a second, and asks for what all have
//! before the last word about an address (DESIGN section 5, "doubt is temporary"). And what they know of messages that
//! come back (section 6, rule 4): how often each node has seen one is written with the question about the others.
//!
//! This is memory, not mail: its transactions wait for no standby. What a failover loses of it costs a refused sender
//! an hour of patience.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::database::{Connection, Database, DatabaseError};
use crate::routing::recently_good::{APART, Accepted, Evidence, News, REMEMBERED, SharedEvidence, SharedNames};
use crate::routing::relay_memory::{KEPT, Returned};
use crate::time::QueueTime;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long writing may take, and removing what is old.
const WRITING: Duration = Duration::from_secs(5);
const FORGETTING: Duration = Duration::from_secs(60);
/// After a question without an answer the next ones are not asked for so long: they would each wait for a second.
const PAUSE: Duration = Duration::from_secs(1);
/// The most rows of each table; beyond, the oldest go.
const MOST: i64 = 1_000_000;

const ASK: &str = "SELECT a.since, a.last, a.forgotten, a.connector, e.last, r.first, r.last FROM (VALUES (1)) one (one) \
     LEFT JOIN fingerpost.accepted_address a ON a.hash = $1 \
     LEFT JOIN fingerpost.accepted_address e ON e.hash = $2 \
     LEFT JOIN fingerpost.refused_address r ON r.hash = $2";
// Rows are in the order of their hashes, so that two nodes do not wait for each other.
const ACCEPTED: &str = "INSERT INTO fingerpost.accepted_address AS known (hash, since, last, connector) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[]) ON CONFLICT (hash) DO UPDATE SET \
     since = CASE WHEN excluded.last - known.last < $5 AND known.last + $6 >= known.forgotten \
     THEN least(known.since, excluded.since) ELSE excluded.since END, \
     last = greatest(known.last, excluded.last), connector = excluded.connector";
const FORGOTTEN: &str = "UPDATE fingerpost.accepted_address known SET forgotten = greatest(known.forgotten, told.at) \
     FROM unnest($1::bigint[], $2::bigint[]) told (hash, at) WHERE known.hash = told.hash";
// Who writes has taken in what was known.
const REFUSED: &str = "INSERT INTO fingerpost.refused_address (hash, first, last) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) ON CONFLICT (hash) DO UPDATE SET \
     first = excluded.first, last = excluded.last";

/// Written again it is the same: a client that tries again does not count twice.
const RETURNED: &str = "WITH own AS (INSERT INTO fingerpost.returned_message (hash, node, times, last) \
     VALUES ($1, $2, $3, $4) ON CONFLICT (hash, node) DO UPDATE SET times = excluded.times, last = excluded.last) \
     SELECT coalesce(sum(times), 0)::bigint FROM fingerpost.returned_message \
     WHERE hash = $1 AND node <> $2 AND last > $4 - $5";

/// The shared memory of addresses, and of messages that come back.
pub struct SharedAddresses {
    database: Database,
    /// This node's number.
    node: i32,
    /// For questions, which must not wait for what is written.
    asking: Mutex<Option<Arc<Asking>>>,
    writing: Mutex<Option<Arc<Connection>>>,
    /// When a question was not answered, if none was since.
    failed: parking_lot::Mutex<Option<Instant>>,
    /// The log has that questions of this kind are not answered.
    told: [AtomicBool; 2],
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    Addresses,
    Returned,
}

impl Question {
    /// What an operator reads where it is not answered.
    fn unanswered(self) -> &'static str {
        match self {
            Self::Addresses => "what other nodes know of addresses cannot be asked: nobody is refused for good",
            Self::Returned => {
                "how often a message has come back to other nodes cannot be asked: what comes back is put off"
            }
        }
    }
}

/// A connection on which many ask at the same time.
struct Asking {
    connection: Connection,
    ask: Statement,
    returned: Statement,
}

impl SharedAddresses {
    pub(super) fn new(database: Database, node: u32) -> Self {
        let (asking, writing, failed) = (Mutex::default(), Mutex::default(), parking_lot::Mutex::default());
        Self { database, node: node.cast_signed(), asking, writing, failed, told: <[AtomicBool; 2]>::default() }
    }

    async fn asking(&self) -> Result<Arc<Asking>, DatabaseError> {
        let mut kept = self.asking.lock().await;
        if let Some(asking) = kept.as_ref().filter(|asking| asking.connection.is_believed()) {
            return Ok(asking.clone());
        }
        *kept = None;
        let opened = tokio::time::timeout(WRITING, async {
            let connection = self.database.connect().await?;
            let client = connection.client();
            // A question that nobody waits for any more ends there too.
            client.batch_execute("SET synchronous_commit = off; SET statement_timeout = '1s'").await?;
            let (ask, returned) = (client.prepare(ASK).await?, client.prepare(RETURNED).await?);
            Ok::<_, DatabaseError>(Asking { connection, ask, returned })
        });
        let asking = opened.await.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into())))?;
        Ok(kept.insert(Arc::new(asking)).clone())
    }

    /// Opens the connection for questions if there is none: that may take longer than a question.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn keep_open(&self) -> Result<(), DatabaseError> {
        self.asking().await.map(drop)
    }

    async fn writing(&self) -> Result<Arc<Connection>, DatabaseError> {
        let mut kept = self.writing.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| connection.is_believed()) {
            return Ok(connection.clone());
        }
        *kept = None;
        let connection = self.database.connect().await?;
        connection.client().batch_execute("SET synchronous_commit = off").await?;
        Ok(kept.insert(Arc::new(connection)).clone())
    }

    async fn evidence(&self, names: SharedNames) -> Result<Evidence, DatabaseError> {
        let asking = self.asking().await?;
        let of = [names.address, names.entry].map(u64::cast_signed);
        let row = asking.connection.client().query_one(&asking.ask, &[&of[0], &of[1]]).await?;
        let time = |at: usize| row.get::<_, Option<i64>>(at).map(|time| QueueTime(time.unsigned_abs()));
        let connector: Option<String> = row.get(3);
        let accepted = match (time(0), time(1), time(2), connector) {
            (Some(since), Some(last), Some(forgotten), Some(connector)) => {
                Some(Accepted { since, last, forgotten, connector })
            }
            _ => None,
        };
        Ok(Evidence { accepted, entry_accepted: time(4), refused: time(5).zip(time(6)) })
    }

    async fn returned_to_all(&self, returned: Returned, now: QueueTime) -> Result<usize, DatabaseError> {
        let asking = self.asking().await?;
        let (hash, times) = (returned.hash.cast_signed(), i32::try_from(returned.times).unwrap_or(i32::MAX));
        let values: [&(dyn ToSql + Sync); 5] =
            [&hash, &self.node, &times, &seconds(&now), &KEPT.as_secs().cast_signed()];
        let others: i64 = asking.connection.client().query_one(&asking.returned, &values).await?.get(0);
        Ok(returned.times.saturating_add(usize::try_from(others).unwrap_or_default()))
    }

    /// What is answered within a second. After a question without an answer nothing is asked for as long; an error that the
    /// database says on a connection that stays is an answer, and concerns no other question.
    async fn answered<T>(
        &self,
        question: Question,
        asked: impl Future<Output = Result<T, DatabaseError>>,
    ) -> Option<T> {
        if self.failed.lock().is_some_and(|at| at.elapsed() < PAUSE) {
            return None;
        }
        let is_told = &self.told[question as usize];
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(DatabaseError::Away("no answer within a second".into())));
        let is_answered = match &answer {
            Ok(_) => true,
            Err(DatabaseError::Said { .. }) => self.is_open(),
            Err(_) => false,
        };
        let failed = (!is_answered).then(Instant::now);
        // Without it: what was asked may still come, and be in the way of what is asked next.
        if failed.is_some()
            && let Ok(mut asking) = self.asking.try_lock()
        {
            *asking = None;
        }
        *self.failed.lock() = failed;
        match &answer {
            Ok(_) => is_told.store(false, Ordering::Relaxed),
            Err(_) if is_told.swap(true, Ordering::Relaxed) => {}
            Err(error) => tracing::warn!(alert = true, %error, "{}", question.unanswered()),
        }
        answer.ok()
    }

    /// Whether questions have a connection that works.
    fn is_open(&self) -> bool {
        let asking = self.asking.try_lock();
        asking.is_ok_and(|asking| asking.as_ref().is_some_and(|asking| asking.connection.is_believed()))
    }

    /// Writes what was learned.
    ///
    /// # Errors
    /// [`DatabaseError`]: it may be written again.
    pub async fn write(&self, news: &[News]) -> Result<(), DatabaseError> {
        self.within(WRITING, self.write_all(news)).await
    }

    /// What `work` on the connection for writing returns; where it fails, or takes too long, that is closed.
    async fn within(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<(), DatabaseError>>,
    ) -> Result<(), DatabaseError> {
        let done = tokio::time::timeout(patience, work).await;
        let done = done.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into())));
        if done.is_err() {
            *self.writing.lock().await = None;
        }
        done
    }

    async fn write_all(&self, news: &[News]) -> Result<(), DatabaseError> {
        let connection = self.writing().await?;
        let client = connection.client();
        // The last word about each.
        let (mut accepted, mut refused, mut forgotten) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for one in news {
            match one {
                News::Accepted { hash, since, last, connector } => {
                    accepted.insert(hash.cast_signed(), (since, last, &**connector));
                }
                News::Refused { hash, first, last } => {
                    refused.insert(hash.cast_signed(), (first, last));
                }
                News::Forgotten { hash, at } => {
                    forgotten.insert(hash.cast_signed(), seconds(at));
                }
            }
        }
        let [remembered, apart] = [REMEMBERED, APART].map(|time| time.as_secs().cast_signed());
        if !accepted.is_empty() {
            let hashes: Vec<i64> = accepted.keys().copied().collect();
            let since: Vec<i64> = accepted.values().map(|(since, ..)| seconds(since)).collect();
            let last: Vec<i64> = accepted.values().map(|(_, last, _)| seconds(last)).collect();
            let connectors: Vec<&str> = accepted.values().map(|(.., connector)| *connector).collect();
            client.execute(ACCEPTED, &[&hashes, &since, &last, &connectors, &remembered, &apart]).await?;
        }
        if !refused.is_empty() {
            let hashes: Vec<i64> = refused.keys().copied().collect();
            let first: Vec<i64> = refused.values().map(|(first, _)| seconds(first)).collect();
            let last: Vec<i64> = refused.values().map(|(_, last)| seconds(last)).collect();
            client.execute(REFUSED, &[&hashes, &first, &last]).await?;
        }
        if !forgotten.is_empty() {
            let (hashes, at): (Vec<i64>, Vec<i64>) = forgotten.into_iter().unzip();
            client.execute(FORGOTTEN, &[&hashes, &at]).await?;
        }
        Ok(())
    }

    /// Forgets what is too old to count, and the oldest beyond a million.
    ///
    /// # Errors
    /// [`DatabaseError`]: it is tried again later.
    pub async fn forget(&self, now: QueueTime) -> Result<(), DatabaseError> {
        self.within(FORGETTING, self.forget_all(now)).await
    }

    async fn forget_all(&self, now: QueueTime) -> Result<(), DatabaseError> {
        let connection = self.writing().await?;
        for (table, kept) in
            [("accepted_address", REMEMBERED), ("refused_address", REMEMBERED), ("returned_message", KEPT)]
        {
            let too_old = seconds(&now) - kept.as_secs().cast_signed();
            let client = connection.client();
            client.execute(&format!("DELETE FROM fingerpost.{table} WHERE last <= $1"), &[&too_old]).await?;
            let beyond = format!(
                "DELETE FROM fingerpost.{table} WHERE hash IN \
                 (SELECT hash FROM fingerpost.{table} ORDER BY last DESC OFFSET $1)"
            );
            client.execute(&beyond, &[&MOST]).await?;
        }
        Ok(())
    }
}

impl SharedEvidence for SharedAddresses {
    fn ask(&self, names: SharedNames) -> BoxFuture<'_, Option<Evidence>> {
        Box::pin(self.answered(Question::Addresses, self.evidence(names)))
    }

    fn returned(&self, returned: Returned, now: QueueTime) -> BoxFuture<'_, Option<usize>> {
        Box::pin(self.answered(Question::Returned, self.returned_to_all(returned, now)))
    }
}

fn seconds(time: &QueueTime) -> i64 {
    time.0.cast_signed()
}
