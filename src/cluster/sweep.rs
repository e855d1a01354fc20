//! The standing sweep: ends epochs of nodes that are silent, and takes over the mail that belongs to no living epoch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio_postgres::Row;

use super::batch;
use super::database::{Connection, Database, DatabaseError};
use super::epoch::{self, BEAT, SILENT};
use super::ids::from_sql;
use super::shared::{EndsWith, Shared};
use crate::spool::entry::outline::Outlines;
use crate::spool::header::{FORMAT, OLDEST};

/// The most messages that are taken over in one transaction.
const MOST: i64 = 500;
/// Who has not looked at heartbeats for so long looks for the first time.
const OVERDUE: Duration = Duration::from_secs(15);
/// The most messages that are named at a time because this version cannot read them.
const NAMED: i64 = 20;
/// The epochs of queued messages that have ended, each found with one step into the index `queue_of_epoch`. Those below 0
/// are moves that go on.
const GONE: &str = "WITH RECURSIVE has (epoch) AS ( \
        (SELECT epoch FROM fingerpost.queue WHERE epoch >= 0 ORDER BY epoch LIMIT 1) \
        UNION ALL \
        SELECT (SELECT epoch FROM fingerpost.queue WHERE epoch > has.epoch ORDER BY epoch LIMIT 1) \
        FROM has WHERE has.epoch IS NOT NULL) \
     SELECT epoch FROM has WHERE epoch <> ALL (ARRAY(SELECT id FROM fingerpost.epoch))";

/// The formats of messages that this version reads, the first and the last.
const READ: [i16; 2] = [OLDEST.cast_signed(), FORMAT.cast_signed()];

/// What this node has seen of another's heartbeats.
struct Seen {
    beats: i64,
    since: Instant,
}

/// The task.
pub(super) struct Sweep {
    shared: Arc<Shared>,
    database: Database,
    adopted: UnboundedSender<Outlines>,
    seen: HashMap<i64, Seen>,
    /// When heartbeats were last looked at.
    looked: Option<Instant>,
    /// Epochs that have ended and had messages when the sweep looked last.
    gone: Vec<i64>,
    /// Messages of other formats that wait for a node of the version that wrote them: they have been told.
    unread: HashSet<i64>,
    /// Rows of a transaction whose outcome is not known: they may be ours.
    in_doubt: Vec<Row>,
}

impl Sweep {
    pub(super) fn new(shared: Arc<Shared>, database: Database, adopted: UnboundedSender<Outlines>) -> Self {
        Self {
            shared,
            database,
            adopted,
            seen: HashMap::new(),
            looked: None,
            gone: Vec::new(),
            unread: HashSet::new(),
            in_doubt: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let _ends = EndsWith(self.shared.clone());
        let mut connection: Option<Connection> = None;
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.shared.has_ended() {
            ticks.tick().await;
            self.shared.mail.lock().fresh.drop_old(Instant::now());
            let swept = async {
                let open = match connection.take().filter(|connection| !connection.is_closed()) {
                    Some(open) => open,
                    None => self.database.connect().await?,
                };
                // Each part has its own time: a takeover of very much mail takes long.
                open.while_believed(self.watch(&open)).await?;
                self.take_over(&open).await?;
                open.while_believed(self.name_unread(&open)).await?;
                open.while_believed(clean(&open)).await?;
                Ok::<_, DatabaseError>(open)
            };
            match swept.await {
                Ok(open) => connection = Some(open),
                Err(error) => {
                    if matches!(error, DatabaseError::Away(_)) {
                        self.looked = None;
                    }
                    tracing::debug!(%error, "the mail of other nodes cannot be looked after");
                }
            }
        }
    }

    /// Looks at the other nodes' heartbeats, and ends the epochs of those that are silent. It begins anew what it has seen
    /// where others are not to blame: it has not looked for a while, or this node's own heartbeats are not acknowledged, as
    /// the database stood still or has no standby.
    async fn watch(&mut self, connection: &Connection) -> Result<(), DatabaseError> {
        // Asked before: a node that is suspended meanwhile must not take what it then reads for news.
        let now = Instant::now();
        let looks_on = self.looked.is_some_and(|looked| now.duration_since(looked) <= OVERDUE);
        if !looks_on || !self.shared.epoch.pulse.may_send() {
            self.seen.clear();
        }
        let statement = "SELECT h.epoch, h.beats, n.name FROM fingerpost.heartbeat h \
             JOIN fingerpost.epoch e ON e.id = h.epoch JOIN fingerpost.node n ON n.number = e.node";
        let rows = connection.client().query(statement, &[]).await?;
        if now.elapsed() >= BEAT {
            self.seen.clear(); // it stood still, and so did their heartbeats
        }
        self.looked = Some(Instant::now());
        self.seen.retain(|epoch, _| rows.iter().any(|row| row.get::<_, i64>(0) == *epoch));
        for row in rows.iter().filter(|row| row.get::<_, i64>(0) != self.shared.epoch.id) {
            let (epoch, beats, node): (i64, i64, &str) = (row.get(0), row.get(1), row.get(2));
            let seen = self.seen.entry(epoch).or_insert(Seen { beats, since: now });
            if seen.beats != beats {
                *seen = Seen { beats, since: now };
            }
            if now.duration_since(seen.since) >= SILENT {
                tracing::warn!(
                    alert = true,
                    node,
                    epoch,
                    "a node was not heard of for {SILENT:?}: its mail is taken over"
                );
                epoch::terminate(connection, epoch).await?;
                self.seen.remove(&epoch);
                if epoch::end(connection, epoch, Some(beats)).await? {
                    self.shared.metrics.cluster_takeovers.with_label_values::<&str>(&[]).inc();
                }
            }
        }
        Ok(())
    }

    /// Takes over the messages of epochs that have ended. What another node is taking over at the same time is left to it.
    /// However long that takes, heartbeats are looked at as often as without it.
    async fn take_over(&mut self, connection: &Connection) -> Result<(), DatabaseError> {
        connection.while_believed(self.settle(connection)).await?;
        // Which epochs are gone is asked first: they never come back, while a row may get a living one meanwhile.
        connection.while_believed(self.look_for_gone(connection)).await?;
        let mut watched = Instant::now();
        for epoch in self.gone.clone() {
            let mut after = Some(i64::MIN);
            while let Some(id) = after.filter(|_| self.shared.takes_over()) {
                after = connection.while_believed(self.take_some(connection, epoch, id)).await?;
                if watched.elapsed() >= BEAT {
                    connection.while_believed(self.watch(connection)).await?;
                    watched = Instant::now();
                }
            }
        }
        Ok(())
    }

    async fn look_for_gone(&mut self, connection: &Connection) -> Result<(), DatabaseError> {
        self.gone = connection.client().query(GONE, &[]).await?.iter().map(|row| row.get(0)).collect();
        Ok(())
    }

    /// Takes over some messages of an epoch that has ended, in the order of their ids; returns the last id if there may be
    /// more.
    async fn take_some(&mut self, connection: &Connection, gone: i64, id: i64) -> Result<Option<i64>, DatabaseError> {
        let client = connection.client();
        client.batch_execute("BEGIN; SET LOCAL synchronous_commit = on").await?;
        let mine = self.shared.epoch.id;
        let own = client.query_opt("SELECT 1 FROM fingerpost.epoch WHERE id = $1 FOR KEY SHARE", &[&mine]).await?;
        if own.is_none() {
            client.batch_execute("ROLLBACK").await?;
            return Err(DatabaseError::Ended);
        }
        // What another version wrote is for a node of that version.
        let statement = "UPDATE fingerpost.queue SET epoch = $1 WHERE id IN ( \
                SELECT id FROM fingerpost.queue WHERE epoch = $2 AND id > $3 AND format BETWEEN $5 AND $6 \
                ORDER BY id LIMIT $4 FOR UPDATE SKIP LOCKED) \
             RETURNING id, format, entry, sum";
        self.in_doubt = client.query(statement, &[&mine, &gone, &id, &MOST, &READ[0], &READ[1]]).await?;
        connection.commit().await?;
        let rows = std::mem::take(&mut self.in_doubt);
        self.adopt(&rows);
        let last = rows.iter().map(|row| row.get::<_, i64>(0)).max();
        Ok(last.filter(|_| rows.len() == usize::try_from(MOST).unwrap_or_default()))
    }

    /// Names messages that no node of this version can take over, once each; of very many only some.
    async fn name_unread(&mut self, connection: &Connection) -> Result<(), DatabaseError> {
        let statement = "SELECT id, format FROM fingerpost.queue \
             WHERE epoch = ANY ($1) AND format NOT BETWEEN $2 AND $3 ORDER BY epoch, id LIMIT $4";
        let rows = match self.gone.is_empty() {
            true => Vec::new(),
            false => connection.client().query(statement, &[&self.gone, &READ[0], &READ[1], &NAMED]).await?,
        };
        for row in rows.iter().filter(|row| !self.unread.contains(&row.get(0))) {
            let (queue_id, format) = (from_sql(row.get(0)), row.get::<_, i16>(1));
            tracing::error!(alert = true, %queue_id, format, "a message cannot be read: it stays in the database");
        }
        self.unread = rows.iter().map(|row| row.get(0)).collect();
        Ok(())
    }

    /// Adopts what a transaction took over whose outcome was not known: the rows that are ours now. Waits for it if it is
    /// still committing.
    async fn settle(&mut self, connection: &Connection) -> Result<(), DatabaseError> {
        if self.in_doubt.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = self.in_doubt.iter().map(|row| row.get(0)).collect();
        // Whose they are is looked at here: as a condition it would hold for the rows as they were, and wait for nothing.
        let statement = "SELECT id, epoch FROM fingerpost.queue WHERE id = ANY ($1) FOR UPDATE";
        let rows = async { Ok(connection.client().query(statement, &[&ids]).await?) };
        let rows = connection.without_warning(rows).await?;
        let is_ours = |row: &&Row| row.get::<_, i64>(1) == self.shared.epoch.id;
        let ours: HashSet<i64> = rows.iter().filter(is_ours).map(|row| row.get(0)).collect();
        let mut rows = std::mem::take(&mut self.in_doubt);
        rows.retain(|row| ours.contains(&row.get(0)));
        self.adopt(&rows);
        Ok(())
    }

    fn adopt(&self, rows: &[Row]) {
        if rows.is_empty() {
            return;
        }
        let mut outlines = Outlines::default();
        let mut mail = self.shared.mail.lock();
        for row in rows {
            match batch::entry(row.get(1), row.get(2)) {
                Ok(entry) => {
                    mail.own.insert(&entry, u32::try_from(row.get::<_, i64>(3)).unwrap_or_default());
                    outlines.insert(&entry);
                }
                Err(error) => {
                    let queue_id = from_sql(row.get(0));
                    tracing::error!(alert = true, %queue_id, %error, "a message cannot be read: it stays in the database");
                }
            }
        }
        drop(mail);
        tracing::info!(messages = rows.len(), "took over mail of a node that is gone");
        let _ = self.adopted.send(outlines); // the program ends
    }
}

/// Removes what epochs that have ended left: keys of batches, and parts of large contents; and requests that nobody waits
/// for any more.
async fn clean(connection: &Connection) -> Result<(), DatabaseError> {
    let gone = "epoch <> ALL (ARRAY(SELECT id FROM fingerpost.epoch))";
    let client = connection.client();
    client.execute(&format!("DELETE FROM fingerpost.batch WHERE {gone}"), &[]).await?;
    let uploads = format!("DELETE FROM fingerpost.upload WHERE {gone} RETURNING id");
    client.batch_execute("BEGIN").await?;
    let ids: Vec<i64> = client.query(&uploads, &[]).await?.iter().map(|row| row.get(0)).collect();
    // A statement of its own: it sees the pieces that the first one has waited for.
    client.execute("DELETE FROM fingerpost.body WHERE id = ANY ($1)", &[&ids]).await?;
    connection.commit().await?;
    super::requests::forget_old(connection).await
}
