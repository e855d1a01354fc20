//! The tables, by number: each migration brings the schema from the number before to its own. Rows of `body` are
//! inserted and deleted, never updated.

use tokio_postgres::error::SqlState;

use super::database::{Connection, DatabaseError};
use super::epoch;
use super::moving::MoveError;
use super::stopped;
use crate::obstacle::Obstacle;

/// The number that this version writes. The schemas that it can work with are this one alone.
pub const SCHEMA: i32 = 3;

/// Migrations; the first makes number 1.
const MIGRATIONS: [&str; SCHEMA as usize] = [
    "
CREATE SCHEMA fingerpost;
-- What exists once. age: the queue's time in seconds, which goes on only while a node lives.
CREATE TABLE fingerpost.installation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    schema integer NOT NULL,
    age bigint NOT NULL,
    timeline integer NOT NULL DEFAULT 0
);
INSERT INTO fingerpost.installation (schema, age) VALUES (1, extract(epoch FROM now())::bigint);
-- Numbers are part of queue ids. reached: how far those have come, in milliseconds (src/cluster/ids.rs).
CREATE TABLE fingerpost.node (
    number integer PRIMARY KEY CHECK (number BETWEEN 0 AND 1023),
    name text NOT NULL UNIQUE,
    reached bigint NOT NULL DEFAULT 0
);
-- A node's life from a start to its end. Whoever ends it deletes the row; transactions of the node lock it.
CREATE TABLE fingerpost.epoch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node integer NOT NULL UNIQUE REFERENCES fingerpost.node (number),
    version text NOT NULL,
    began timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE fingerpost.heartbeat (
    epoch bigint PRIMARY KEY,
    beats bigint NOT NULL DEFAULT 0,
    configuration text NOT NULL
) WITH (fillfactor = 50);
-- A transaction's key. void: it must never commit.
CREATE TABLE fingerpost.batch (
    key bytea PRIMARY KEY,
    epoch bigint NOT NULL,
    void boolean NOT NULL DEFAULT false
);
-- One row a queued message; entry: its envelope and state, as the spool's records have it in that format; sum: CRC-32C
-- of its content.
CREATE TABLE fingerpost.queue (
    id bigint PRIMARY KEY,
    epoch bigint NOT NULL,
    format smallint NOT NULL,
    entry bytea NOT NULL,
    sum bigint NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000,
        autovacuum_vacuum_cost_delay = 0);
CREATE INDEX queue_of_epoch ON fingerpost.queue (epoch, id);
-- Contents, in pieces of 256 KiB.
CREATE TABLE fingerpost.body (
    id bigint NOT NULL,
    piece integer NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (id, piece)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE fingerpost.body ALTER COLUMN content SET STORAGE EXTERNAL;
-- Large contents whose message is not there yet.
CREATE TABLE fingerpost.upload (
    id bigint PRIMARY KEY,
    epoch bigint NOT NULL
);
",
    "
-- Keys that all nodes use.
CREATE TABLE fingerpost.secret (
    name text PRIMARY KEY,
    value bytea NOT NULL
);
-- What nodes know of addresses, by keyed hashes; times are the queue's.
CREATE TABLE fingerpost.accepted_address (
    hash bigint PRIMARY KEY,
    since bigint NOT NULL,
    last bigint NOT NULL,
    forgotten bigint NOT NULL DEFAULT 0,
    connector text NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE fingerpost.refused_address (
    hash bigint PRIMARY KEY,
    first bigint NOT NULL,
    last bigint NOT NULL
) WITH (fillfactor = 70);
-- What operators want done with mail of other nodes. epoch: whom it is addressed to; taken: it is being done. Without a
-- log: it does not wait for a standby, and is empty after a crash and on a new primary.
CREATE UNLOGGED TABLE fingerpost.request (
    key bytea PRIMARY KEY,
    epoch bigint NOT NULL,
    asked timestamptz NOT NULL DEFAULT now(),
    request text NOT NULL,
    taken boolean NOT NULL DEFAULT false,
    reply text
);
CREATE INDEX request_of_epoch ON fingerpost.request (epoch);
",
    "
-- draining: its node is about to leave, so others must not count on it.
ALTER TABLE fingerpost.epoch ADD COLUMN draining boolean NOT NULL DEFAULT false;
-- When a node last read a directory as a whole, by the queue's time. Without a log: after a crash all tell it again.
CREATE UNLOGGED TABLE fingerpost.directory_read (
    directory text PRIMARY KEY,
    at bigint NOT NULL
);
-- How often a message has come back to a node, by keyed hashes of what identifies it; last is the queue's time.
CREATE TABLE fingerpost.returned_message (
    hash bigint NOT NULL,
    node integer NOT NULL,
    times integer NOT NULL,
    last bigint NOT NULL,
    PRIMARY KEY (hash, node)
) WITH (fillfactor = 70);
",
];

/// What `init` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    New,
    /// From this number.
    Upgraded(i32),
    AlreadyThere,
}

/// The schema's number; `None`: there is none.
///
/// # Errors
/// [`DatabaseError`].
pub async fn number(connection: &Connection) -> Result<Option<i32>, DatabaseError> {
    let row = connection.client().query_opt("SELECT schema FROM fingerpost.installation", &[]).await;
    match row {
        Ok(row) => Ok(row.map(|row| row.get(0))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_missing(error: &tokio_postgres::Error) -> bool {
    [Some(&SqlState::UNDEFINED_TABLE), Some(&SqlState::INVALID_SCHEMA_NAME)].contains(&error.code())
}

/// Makes the schema, or upgrades it, in one transaction. Before an upgrade it ends the nodes whose heartbeats do not go on
/// for [`SILENT`](super::epoch::SILENT).
///
/// # Errors
/// [`DatabaseError`]; [`DatabaseError::Unfit`] where nodes of an older version live, or the schema is too new.
pub async fn init(connection: &Connection) -> Result<Made, DatabaseError> {
    let client = connection.client();
    if number(connection).await?.is_some_and(|from| from < SCHEMA) {
        end_silent(connection).await.map_err(|error| match error {
            MoveError::Database(error) => error,
            error => DatabaseError::Unfit(error.to_string()),
        })?;
    }
    // One at a time: two administrators may do it at once. And no node joins meanwhile: it looks at the schema under the
    // second lock.
    client.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(hashtext('fingerpost schema'))").await?;
    epoch::lock_nodes(connection).await?;
    let found = number_or_none(connection).await?;
    let from = found.unwrap_or_default();
    if from > SCHEMA {
        return Err(too_new(from));
    }
    if from > 0 && from < SCHEMA {
        refuse_living(connection).await?;
    }
    for (number, migration) in (1..).zip(MIGRATIONS).filter(|(number, _)| *number > from) {
        client.batch_execute(migration).await?;
        client.execute("UPDATE fingerpost.installation SET schema = $1", &[&number]).await?;
    }
    connection.commit().await?;
    Ok(match found {
        None => Made::New,
        Some(SCHEMA) => Made::AlreadyThere,
        Some(from) => Made::Upgraded(from),
    })
}

async fn end_silent(connection: &Connection) -> Result<(), MoveError> {
    let unended = stopped::unended(connection, None, "").await?;
    stopped::end(connection, &unended).await
}

/// Nodes may have joined since the silent ones were ended.
async fn refuse_living(connection: &Connection) -> Result<(), DatabaseError> {
    let statement = "SELECT n.name FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node ORDER BY n.name";
    let rows = connection.client().query(statement, &[]).await?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(DatabaseError::Unfit(format!(
        "nodes of an older version are running: {}. Stop them first; `fingerpost cluster status` shows them",
        names.join(", ")
    )))
}

/// As [`number`], where a missing table must not end the transaction.
async fn number_or_none(connection: &Connection) -> Result<Option<i32>, DatabaseError> {
    let there = "SELECT to_regclass('fingerpost.installation') IS NOT NULL";
    let is_there: bool = connection.client().query_one(there, &[]).await?.get(0);
    if is_there { number(connection).await } else { Ok(None) }
}

/// The schema is what this version works with.
///
/// # Errors
/// [`DatabaseError::Unfit`] with what to do.
pub async fn check(connection: &Connection) -> Result<(), DatabaseError> {
    match obstacle(number(connection).await?) {
        None => Ok(()),
        Some(obstacle) => Err(DatabaseError::Unfit(obstacle.to_string())),
    }
}

/// The schema's number, where this version can at least read it: an older one is for `init` to upgrade.
///
/// # Errors
/// [`DatabaseError::Unfit`] with what to do.
pub async fn readable(connection: &Connection) -> Result<i32, DatabaseError> {
    match number(connection).await? {
        Some(number) if number <= SCHEMA => Ok(number),
        Some(number) => Err(too_new(number)),
        None => Err(DatabaseError::Unfit(no_tables().to_string())),
    }
}

/// Why this version does not work with tables of this number.
pub(crate) fn obstacle(number: Option<i32>) -> Option<Obstacle> {
    match number {
        Some(SCHEMA) => None,
        None => Some(no_tables()),
        Some(number) if number > SCHEMA => {
            let found = format!("its schema is number {number}, this version knows {SCHEMA}");
            Some(Obstacle::new(found, "install a newer one"))
        }
        Some(number) => {
            let found = format!("its schema is number {number}, this version needs {SCHEMA}");
            Some(Obstacle::new(found, "run `fingerpost cluster init`"))
        }
    }
}

fn no_tables() -> Obstacle {
    Obstacle::new("it has no tables of Fingerpost", "run `fingerpost cluster init`")
}

fn too_new(number: i32) -> DatabaseError {
    DatabaseError::Unfit(obstacle(Some(number)).unwrap_or_else(no_tables).to_string())
}
