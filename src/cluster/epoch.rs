//! A node's life: it joins with an epoch of its own, shows with heartbeats that it lives, and ends when it leaves or
//! when another node, which has not heard of it for [`SILENT`], deletes its epoch.
//!
//! A transaction that accepts mail or writes an outcome locks its epoch's row, so that after the row is gone nothing of
//! this node is committed any more. What cannot be taken back, the end of a queued message's content, is bound by
//! time instead: [`Pulse::may_send`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio_postgres::types::ToSql;

use super::database::{Connection, Database, DatabaseError};
use super::draining::Draining;
use super::ids::{self, Ids};
use super::living::{self, Living};
use super::node_number::{self, Place};
use super::schema;
use super::settings::{self, has_standby_names, no_standby_named};
use super::shared::Shared;
use crate::config::Standby;
use crate::spool::condition::Takes;
use crate::time::QueueTime;

/// How often a node shows that it lives.
pub const BEAT: Duration = Duration::from_secs(5);
/// Who has seen no beat of a node for so long may end its epoch.
pub const SILENT: Duration = Duration::from_secs(30);
/// How often a node is looked at while it is watched.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// No queued message is sent to its end later than this after the last acknowledged heartbeat was sent.
const SEND_WITHIN: Duration = Duration::from_secs(20);

/// The time since the last acknowledged heartbeat, and the queue's time. Clones share it.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// When the last acknowledged heartbeat was sent: milliseconds of the clock that goes on while a machine is
    /// suspended.
    sent: AtomicU64,
    start: Instant,
    /// The queue's time at `start`, in seconds; it is set forward to that of nodes that are ahead.
    age: AtomicU64,
}

impl Pulse {
    fn new(sent: u64, age: u64) -> Self {
        Self(Arc::new(Inner { sent: sent.into(), start: Instant::now(), age: age.into() }))
    }

    /// Whether a queued message may be sent to its end: no other node can have taken over its mail yet.
    #[must_use]
    pub fn may_send(&self) -> bool {
        let since = boot_time().saturating_sub(self.0.sent.load(Ordering::SeqCst));
        u128::from(since) < SEND_WITHIN.as_millis()
    }

    /// The queue's time, which all nodes share: it stands still while none lives.
    #[must_use]
    pub fn queue_time(&self) -> QueueTime {
        QueueTime(self.0.age.load(Ordering::Relaxed) + self.0.start.elapsed().as_secs())
    }

    fn beaten(&self, sent: u64, age: u64) {
        self.0.sent.fetch_max(sent, Ordering::SeqCst);
        self.0.age.fetch_max(age.saturating_sub(self.0.start.elapsed().as_secs()), Ordering::Relaxed);
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// Milliseconds since the machine started, with the time that it was suspended.
fn boot_time() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanoseconds) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

/// A node's epoch.
pub struct Epoch {
    pub id: i64,
    pub node: u32,
    /// The node's name.
    pub name: String,
    pub ids: Ids,
    pub pulse: Pulse,
    pub(super) draining: Draining,
    /// The nodes that lived when the last heartbeat was answered.
    living: Mutex<Living>,
}

impl Epoch {
    /// Joins as the node of this name, with a new epoch. `mine`: the last epoch of this state folder, whose process is
    /// known to have ended. Another epoch of this name is watched for [`SILENT`] and ended if it is silent.
    ///
    /// # Errors
    /// [`DatabaseError`]; [`DatabaseError::Unfit`]: the schema, the database's settings, the clocks, or a living node of
    /// the same name.
    pub async fn join(
        connection: &Connection,
        name: &str,
        configuration: &str,
        mine: Option<i64>,
    ) -> Result<Self, DatabaseError> {
        schema::check(connection).await?;
        settings::check(connection).await?;
        let mut before = None;
        if let Some(last) = last_of(connection, name).await? {
            if Some(last.id) != mine {
                tracing::warn!(node = name, "a node of this name was alive: watching whether it is still");
                if beats_within(connection, &last, SILENT).await? {
                    return Err(lives(name));
                }
            }
            terminate(connection, last.id).await?;
            before = Some(Last { beats: last.beats.filter(|_| Some(last.id) != mine), ..last });
        }
        Self::begin(connection, name, configuration, before).await
    }

    /// Begins the epoch. `before`: the name's last epoch, which is ended if it has shown no heartbeat since.
    async fn begin(
        connection: &Connection,
        name: &str,
        configuration: &str,
        before: Option<Last>,
    ) -> Result<Self, DatabaseError> {
        let client = connection.client();
        let sent = boot_time();
        client.batch_execute("BEGIN").await?;
        lock_nodes(connection).await?;
        // Again: `init` may have upgraded it meanwhile, and holds this lock while it does.
        schema::check(connection).await?;
        let Place { number, reached } = node_number::place(connection, name).await?;
        let statement = "SELECT id FROM fingerpost.epoch WHERE node = $1";
        let other: Option<i64> = client.query_opt(statement, &[&number]).await?.map(|row| row.get(0));
        if let Some(other) = other {
            // Another one has joined meanwhile, or this one goes on.
            let seen = before.filter(|last| last.id == other).ok_or_else(|| lives(name))?;
            let statement = "DELETE FROM fingerpost.heartbeat WHERE epoch = $1 AND beats = coalesce($2, beats)";
            if client.execute(statement, &[&other, &seen.beats]).await? == 0 && seen.beats.is_some() {
                return Err(lives(name));
            }
            client.execute("DELETE FROM fingerpost.epoch WHERE id = $1", &[&other]).await?;
        }
        let statement = "INSERT INTO fingerpost.epoch (node, version) VALUES ($1, $2) RETURNING id";
        let id: i64 = client.query_one(statement, &[&number, &env!("CARGO_PKG_VERSION")]).await?.get(0);
        let statement = "INSERT INTO fingerpost.heartbeat (epoch, configuration) VALUES ($1, $2)";
        client.execute(statement, &[&id, &configuration]).await?;
        // What a node gives out that ends before its first heartbeat is skipped as well.
        let statement = "UPDATE fingerpost.node SET reached = greatest(reached, $2) WHERE number = $1";
        let (reached, next) = (reached.unsigned_abs(), reached + ids::STEP.cast_signed());
        client.execute(statement, &[&number, &next]).await?;
        let age: i64 = client.query_one("SELECT age FROM fingerpost.installation", &[]).await?.get(0);
        let living = format!("SELECT {} FROM {}", living::COLUMNS, living::NODES);
        let living = Living::read(&client.query_one(&living, &[&id]).await?, 0);
        connection.commit().await?;
        let node = number.unsigned_abs();
        let (pulse, living) = (Pulse::new(sent, age.unsigned_abs()), Mutex::new(living));
        let (ids, draining) = (Ids::new(node, reached), Draining::new());
        Ok(Self { id, node, name: name.to_owned(), ids, pulse, draining, living })
    }

    /// The nodes that lived when the last heartbeat was answered. Where the database is away this stays as it was.
    #[must_use]
    pub fn living(&self) -> Living {
        *self.living.lock()
    }

    /// Shows that the node lives and whether it drains, and learns which others live.
    ///
    /// # Errors
    /// [`DatabaseError::Ended`]: the epoch is gone.
    pub async fn beat(&self, connection: &Connection, configuration: &str) -> Result<(), DatabaseError> {
        let sent = boot_time();
        let (age, reached) = (self.pulse.queue_time().0.cast_signed(), self.ids.reached_by(now()).cast_signed());
        // The row itself decides: whoever ends the epoch removes it first. The time that all nodes share is written behind it
        // and by one of them, so that no beat waits for another node's.
        let statement = format!(
            "WITH beat AS (UPDATE fingerpost.heartbeat SET beats = beats + 1, configuration = $4 \
                 WHERE epoch = $1 RETURNING epoch), \
             reached AS (UPDATE fingerpost.node SET reached = greatest(reached, $3) WHERE number = \
                 (SELECT node FROM fingerpost.epoch WHERE id = (SELECT epoch FROM beat))), \
             drains AS (UPDATE fingerpost.epoch SET draining = $5 \
                 WHERE id = (SELECT epoch FROM beat) AND draining <> $5), \
             age AS (UPDATE fingerpost.installation SET age = $2 WHERE age <= $2::bigint - {} AND EXISTS (SELECT FROM beat)) \
             SELECT (SELECT greatest(age, $2) FROM fingerpost.installation), (SELECT count(*) FROM beat), {} FROM {}",
            BEAT.as_secs(),
            living::COLUMNS,
            living::NODES
        );
        let values: [&(dyn ToSql + Sync); 5] = [&self.id, &age, &reached, &configuration, &self.draining.to_write()];
        let row = async { Ok(connection.client().query_one(&statement, &values).await?) };
        let row = connection.without_warning(row).await?;
        let (age, living): (i64, i64) = (row.get(0), row.get(1));
        if living == 0 {
            return Err(DatabaseError::Ended);
        }
        self.pulse.beaten(sent, age.unsigned_abs());
        *self.living.lock() = Living::read(&row, 2);
        Ok(())
    }

    /// Leaves: what the node still has is taken over at once.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn leave(&self, connection: &Connection) -> Result<(), DatabaseError> {
        end(connection, self.id, None).await.map(drop)
    }

    /// Keeps beating; completes when the epoch has ended. The connection is opened anew when it breaks.
    pub(super) async fn keep_beating(&self, database: &Database, node: &Shared) {
        let mut connection: Option<Connection> = None;
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_told = false;
        loop {
            ticks.tick().await;
            let beaten = async {
                // A primary that was replaced may go on: what it acknowledges the others do not see.
                let open = match connection.take().filter(Connection::is_believed) {
                    Some(open) => open,
                    None => database.connect().await?,
                };
                open.while_believed(self.beat(&open, &node.configuration())).await?;
                // Whoever has no mail to write would go on being sent what it cannot take.
                if node.standby == Standby::Required && !open.while_believed(has_standby_names(&open)).await? {
                    node.takes(Takes::Nothing(no_standby_named().to_string()));
                }
                Ok(open)
            };
            // A beat that hangs is given up with its connection.
            let beaten = tokio::time::timeout(2 * BEAT, beaten).await;
            match beaten.unwrap_or_else(|_| Err(DatabaseError::Away("a heartbeat hangs".into()))) {
                Ok(open) => {
                    connection = Some(open);
                    is_told = false;
                }
                Err(DatabaseError::Ended) => return,
                Err(error) => {
                    node.takes(Takes::Nothing(error.to_string()));
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(alert = true, %error, "no heartbeat: another node takes over if this goes on");
                    }
                }
            }
        }
    }
}

/// Ends an epoch: waits for its transactions that are committing, and lets no other begin. `beats`: only if it has shown
/// no other since. Returns whether it has ended.
pub(super) async fn end(connection: &Connection, epoch: i64, beats: Option<i64>) -> Result<bool, DatabaseError> {
    let client = connection.client();
    client.batch_execute("BEGIN").await?;
    let statement = "DELETE FROM fingerpost.heartbeat WHERE epoch = $1 AND beats = coalesce($2, beats)";
    if client.execute(statement, &[&epoch, &beats]).await? == 0 && beats.is_some() {
        client.batch_execute("ROLLBACK").await?;
        return Ok(false);
    }
    client.execute("DELETE FROM fingerpost.epoch WHERE id = $1", &[&epoch]).await?;
    connection.commit().await?;
    Ok(true)
}

/// Ends the sessions of a node, whose transactions would be waited for.
pub(super) async fn terminate(connection: &Connection, epoch: i64) -> Result<(), DatabaseError> {
    let statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE application_name = $1 AND usename = current_user AND pid <> pg_backend_pid()";
    connection.client().query(statement, &[&super::database::application(epoch)]).await?;
    Ok(())
}

/// No node joins, and none else changes the tables, until the transaction that was begun ends.
pub(super) async fn lock_nodes(connection: &Connection) -> Result<(), DatabaseError> {
    Ok(connection.client().batch_execute("SELECT pg_advisory_xact_lock(hashtext('fingerpost nodes'))").await?)
}

/// The epoch of a node that nobody has ended.
struct Last {
    id: i64,
    /// Its heartbeats when it was looked at; `None`: it has no row for them, or they do not matter.
    beats: Option<i64>,
}

async fn last_of(connection: &Connection, name: &str) -> Result<Option<Last>, DatabaseError> {
    let statement = "SELECT e.id, h.beats FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
         LEFT JOIN fingerpost.heartbeat h ON h.epoch = e.id WHERE n.name = $1";
    let row = connection.client().query_opt(statement, &[&name]).await?;
    Ok(row.map(|row| Last { id: row.get(0), beats: row.get(1) }))
}

fn lives(name: &str) -> DatabaseError {
    DatabaseError::Unfit(format!("a node named {name} is running: give each node a name of its own, [cluster] node"))
}

/// Whether this epoch shows that it lives, watched for so long.
async fn beats_within(connection: &Connection, last: &Last, patience: Duration) -> Result<bool, DatabaseError> {
    let statement = "SELECT beats FROM fingerpost.heartbeat WHERE epoch = $1";
    let began = Instant::now();
    while began.elapsed() < patience {
        tokio::time::sleep(LOOK).await;
        let row = connection.client().query_opt(statement, &[&last.id]).await?;
        match row.map(|row| row.get::<_, i64>(0)) {
            None => return Ok(false), // somebody ended it
            Some(beats) if Some(beats) != last.beats => return Ok(true),
            Some(_) => {}
        }
    }
    Ok(false)
}
