//! Counts the mail of all nodes, for gauges that one node exports for all. It reads an index of the whole queue once a
//! minute, and no message.

use std::sync::Arc;
use std::time::Duration;

use super::database::{Connection, DatabaseError, Pool};
use super::ids::from_sql;
use super::spool::Shared;
use crate::time::UnixTime;

/// How often the elected node counts.
const EVERY: Duration = Duration::from_mins(1);

/// All mail in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    pub messages: i64,
    /// Those that belong to no living node.
    pub unowned: i64,
    /// When the oldest was received.
    pub oldest: Option<UnixTime>,
}

/// Counts.
///
/// # Errors
/// [`DatabaseError`].
pub async fn count(connection: &Connection) -> Result<Census, DatabaseError> {
    // Which epochs live, and what they have, is asked as of one moment. The index has all of it.
    let statement = "SELECT count(*), count(*) FILTER (WHERE epoch <> ALL (ARRAY(SELECT id FROM fingerpost.epoch))), \
         min(id) FROM fingerpost.queue";
    let row = connection.client().query_one(statement, &[]).await?;
    let oldest: Option<i64> = row.get(2);
    Ok(Census { messages: row.get(0), unowned: row.get(1), oldest: oldest.map(|id| from_sql(id).made_at()) })
}

/// Counts while this node is elected.
pub(super) async fn keep_counting(shared: Arc<Shared>, pool: Arc<Pool>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.has_ended() {
        ticks.tick().await;
        if !shared.speaks_for_all() {
            continue;
        }
        let counted = async {
            let pooled = pool.get().await?;
            let census = pooled.connection().while_believed(count(pooled.connection())).await?;
            pooled.give_back().await;
            Ok::<_, DatabaseError>(census)
        };
        match counted.await {
            Ok(census) if shared.speaks_for_all() => {
                let age = census.oldest.map_or(Duration::ZERO, |oldest| UnixTime::now().since(oldest));
                let metrics = &shared.metrics.cluster;
                metrics.queue_messages.with_label_values::<&str>(&[]).set(census.messages);
                metrics.unowned_messages.with_label_values::<&str>(&[]).set(census.unowned);
                metrics.queue_oldest.with_label_values::<&str>(&[]).set(age.as_secs().cast_signed());
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the mail of all nodes cannot be counted"),
        }
    }
}
