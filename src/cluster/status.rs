//! The cluster in one look, as the database tells it: who lives, whose mail waits, and whether a standby has it.

use serde::Serialize;

use super::database::{Connection, DatabaseError, SESSIONS, application};
use super::schema;
use crate::time::UnixTime;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// The number of the tables.
    pub schema: i32,
    pub database: Answering,
    /// Every node that has ever joined, by number.
    pub nodes: Vec<Node>,
    /// Messages that belong to no living epoch: the next sweep of a node takes them over.
    pub waiting_to_be_taken_over: u64,
    /// Messages of an import or export that has not ended.
    pub being_moved: u64,
}

/// The server that answered, which takes writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answering {
    /// As it sees itself; `None`: over a socket of its own machine.
    pub address: Option<String>,
    pub port: Option<i32>,
    /// One more with each promotion.
    pub timeline: u32,
    pub synchronous_standby_names: String,
    pub synchronous_standby: SyncStandby,
}

/// Whether a standby is connected that commits wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncStandby {
    Connected,
    None,
    /// This role may not see it.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    pub number: i32,
    pub name: String,
    /// `None`: it is not running.
    pub running: Option<Running>,
}

/// A node's life that nobody has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Running {
    pub epoch: i64,
    pub since: UnixTime,
    pub version: String,
    /// The digest of its configuration, in hex.
    pub configuration: String,
    /// What it has in the queue.
    pub messages: u64,
    pub is_connected: bool,
}

impl ClusterStatus {
    /// Nodes that live: a killed one has its epoch until another node ends it, but no session.
    pub fn living(&self) -> impl Iterator<Item = &Running> {
        self.nodes.iter().filter_map(|node| node.running.as_ref()).filter(|running| running.is_connected)
    }

    /// Whether all living nodes have the same configuration.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let mut digests = self.living().map(|running| &running.configuration);
        let first = digests.next();
        digests.all(|digest| Some(digest) == first)
    }
}

/// Asks for all of it, as of one moment.
///
/// # Errors
/// [`DatabaseError`]; [`DatabaseError::Unfit`]: it has no tables, or those of a newer version.
pub async fn look(connection: &Connection) -> Result<ClusterStatus, DatabaseError> {
    let schema = schema::readable(connection).await?;
    let client = connection.client();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let database = answering(connection).await?;
    let nodes = nodes(connection).await?;
    let statement = "SELECT count(*) FILTER (WHERE epoch >= 0), count(*) FILTER (WHERE epoch < 0) FROM fingerpost.queue \
         WHERE epoch <> ALL (ARRAY(SELECT id FROM fingerpost.epoch))";
    let row = client.query_one(statement, &[]).await?;
    let [waiting, moved] = [0, 1].map(|at| row.get::<_, i64>(at).unsigned_abs());
    client.batch_execute("COMMIT").await?;
    Ok(ClusterStatus { schema, database, nodes, waiting_to_be_taken_over: waiting, being_moved: moved })
}

/// The server that answers, and its standby.
pub(crate) async fn answering(connection: &Connection) -> Result<Answering, DatabaseError> {
    // A name of a log file begins with the timeline. The control file has that of the last checkpoint, which may be older.
    let statement = "SELECT host(inet_server_addr()), inet_server_port(), \
         left(pg_walfile_name(pg_current_wal_lsn()), 8), current_setting('synchronous_standby_names'), \
         (SELECT bool_or(sync_state IN ('sync', 'quorum')) FROM pg_stat_replication), \
         (SELECT count(*) FROM pg_stat_replication WHERE sync_state IS NULL)";
    let row = connection.client().query_one(statement, &[]).await?;
    let (connected, unseen): (Option<bool>, i64) = (row.get(4), row.get(5));
    Ok(Answering {
        address: row.get(0),
        port: row.get(1),
        timeline: u32::from_str_radix(row.get(2), 16).unwrap_or_default(),
        synchronous_standby_names: row.get(3),
        synchronous_standby: match (connected, unseen) {
            (Some(true), _) => SyncStandby::Connected,
            (_, 0) => SyncStandby::None,
            _ => SyncStandby::Unknown,
        },
    })
}

async fn nodes(connection: &Connection) -> Result<Vec<Node>, DatabaseError> {
    let client = connection.client();
    let sessions: Vec<String> = client.query(SESSIONS, &[]).await?.iter().map(|row| row.get(0)).collect();
    let statement = "SELECT n.number, n.name, e.id, extract(epoch FROM e.began)::bigint, e.version, \
         coalesce(h.configuration, ''), (SELECT count(*) FROM fingerpost.queue q WHERE q.epoch = e.id) \
         FROM fingerpost.node n LEFT JOIN fingerpost.epoch e ON e.node = n.number \
         LEFT JOIN fingerpost.heartbeat h ON h.epoch = e.id ORDER BY n.number";
    let node = |row: &tokio_postgres::Row| Node {
        number: row.get(0),
        name: row.get(1),
        running: row.get::<_, Option<i64>>(2).map(|epoch| Running {
            epoch,
            since: UnixTime(row.get::<_, i64>(3).unsigned_abs()),
            version: row.get(4),
            configuration: row.get(5),
            messages: row.get::<_, i64>(6).unsigned_abs(),
            is_connected: sessions.contains(&application(epoch)),
        }),
    };
    Ok(client.query(statement, &[]).await?.iter().map(node).collect())
}
