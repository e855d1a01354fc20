//! Looks at all nodes and at the mail of all, for the gauges that one node exports for all: that with the lowest number
//! of those that live. It only reads: what others see of it does not depend on a standby, nor on heartbeats.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::database::{Connection, DatabaseError, Pool};
use super::epoch::BEAT;
use super::ids::from_sql;
use super::living::{self, Living};
use super::shared::Shared;
use crate::time::UnixTime;

/// How often the mail is counted: a whole index is read for it.
const EVERY: Duration = Duration::from_mins(1);
/// A node without an answer for so long does not speak for all any more; others end its epoch later.
const STALE: Duration = Duration::from_secs(20);

/// All mail in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mail {
    pub messages: i64,
    /// Messages that belong to no living node.
    pub unowned: i64,
    /// When the oldest was received.
    pub oldest: Option<UnixTime>,
}

/// Counts the mail.
///
/// # Errors
/// [`DatabaseError`].
pub async fn count(connection: &Connection) -> Result<Mail, DatabaseError> {
    // Which epochs live, and what they have, is asked as of one moment. The index `queue_of_epoch` has all of it.
    let statement = "SELECT count(*), count(*) FILTER (WHERE epoch <> ALL (ARRAY(SELECT id FROM fingerpost.epoch))), \
         min(id) FROM fingerpost.queue";
    let row = connection.client().query_one(statement, &[]).await?;
    let oldest: Option<i64> = row.get(2);
    Ok(Mail { messages: row.get(0), unowned: row.get(1), oldest: oldest.map(|id| from_sql(id).made_at()) })
}

/// The task that keeps the gauges.
pub(super) struct Census {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    /// When the mail was last counted; `None`: not since this node speaks for all.
    counted: Option<Instant>,
}

impl Census {
    pub(super) async fn keep(shared: Arc<Shared>, pool: Arc<Pool>) {
        let mut census = Self { shared, pool, counted: None };
        let mut answered = Instant::now();
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !census.shared.has_ended() {
            ticks.tick().await;
            match census.look().await {
                Ok(()) => answered = Instant::now(),
                Err(error) => {
                    tracing::debug!(%error, "the mail of all nodes cannot be counted");
                    if answered.elapsed() >= STALE {
                        census.is_not_elected();
                    }
                }
            }
        }
        census.is_not_elected();
    }

    /// Looks whether this node is elected; sets the gauges if it is.
    async fn look(&mut self) -> Result<(), DatabaseError> {
        let pooled = in_time(self.pool.get()).await?;
        let connection = pooled.connection();
        let nodes = async { Ok(self.elected(connection).await?) };
        let nodes = in_time(connection.while_believed(nodes)).await?;
        let Some(Living { nodes, configurations, .. }) = nodes else {
            pooled.give_back().await;
            self.is_not_elected();
            return Ok(());
        };
        let metrics = &self.shared.metrics.cluster;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.nodes.with_label_values::<&str>(&[]).set(number(nodes));
        metrics.configurations.with_label_values::<&str>(&[]).set(number(configurations));
        if self.counted.is_none_or(|counted| counted.elapsed() >= EVERY) {
            self.counted = Some(Instant::now());
            let Mail { messages, unowned, oldest } = in_time(connection.while_believed(count(connection))).await?;
            let age = oldest.map_or(Duration::ZERO, |oldest| UnixTime::now().since(oldest)).as_secs();
            metrics.queue_messages.with_label_values::<&str>(&[]).set(messages);
            metrics.unowned_messages.with_label_values::<&str>(&[]).set(unowned);
            metrics.queue_oldest.with_label_values::<&str>(&[]).set(age.cast_signed());
        }
        pooled.give_back().await;
        Ok(())
    }

    /// The living nodes, if this one lives and has the lowest number.
    async fn elected(&self, connection: &Connection) -> Result<Option<Living>, tokio_postgres::Error> {
        let statement = format!(
            "SELECT EXISTS (SELECT FROM fingerpost.epoch WHERE id = $1), {} FROM {}",
            living::COLUMNS,
            living::NODES
        );
        let row = connection.client().query_one(&statement, &[&self.shared.epoch.id]).await?;
        let (lives, living): (bool, Living) = (row.get(0), Living::read(&row, 1));
        Ok((lives && living.rank == 0).then_some(living))
    }

    fn is_not_elected(&mut self) {
        self.counted = None;
        self.shared.metrics.cluster.clear();
    }
}

/// What it returns, if that does not take so long that the last answer would be [`STALE`].
async fn in_time<T>(answer: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, DatabaseError> {
    let answer = tokio::time::timeout(2 * BEAT, answer).await;
    answer.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into())))
}
