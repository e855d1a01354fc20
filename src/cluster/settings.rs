//! What a database must be like before a node or a command uses it: settings, version, clock, and no pooler that gives
//! each transaction another session.

use std::time::Duration;

use super::database::{Connection, DatabaseError};
use super::epoch;
use super::status::{self, SyncStandby};
use crate::obstacle::Obstacle;

/// A clock that differs more from the database's would give other nodes wrong times.
const CLOCK_OFF: Duration = Duration::from_secs(60);
/// The oldest PostgreSQL, as `server_version_num`.
const OLDEST: i32 = 130_000;

/// Refuses databases that lose what they acknowledged, and clocks that are apart.
pub(crate) async fn check(connection: &Connection) -> Result<(), DatabaseError> {
    match obstacles(connection).await?.into_iter().next() {
        None => Ok(()),
        Some(obstacle) => Err(DatabaseError::Unfit(obstacle.to_string())),
    }
}

/// All that keeps the database from being used.
///
/// # Errors
/// [`DatabaseError`]: it could not be asked.
pub(crate) async fn obstacles(connection: &Connection) -> Result<Vec<Obstacle>, DatabaseError> {
    let client = connection.client();
    let statement = "SELECT current_setting('fsync'), current_setting('full_page_writes'), pg_backend_pid(), \
         extract(epoch FROM clock_timestamp())::float8, current_setting('server_version_num')::integer";
    let row = client.query_one(statement, &[]).await?;
    let mut found = Vec::new();
    for (setting, at) in [("fsync", 0), ("full_page_writes", 1)] {
        if row.get::<_, &str>(at) != "on" {
            found.push(Obstacle::new(format!("{setting} is off: a power cut would lose mail"), "set it to on"));
        }
    }
    let (backend, time, version): (i32, f64, i32) = (row.get(2), row.get(3), row.get(4));
    if version < OLDEST {
        found.push(Obstacle::new(format!("its version is {version}"), "install PostgreSQL 13 or newer"));
    }
    let apart = (Duration::from_millis(epoch::now()).as_secs_f64() - time).abs();
    if apart > CLOCK_OFF.as_secs_f64() {
        found.push(Obstacle::new(format!("this clock and the database's are {apart:.0} s apart"), "use NTP on both"));
    }
    // A pooler in transaction mode gives each transaction another session.
    let again: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let is_kept: bool =
        client.query_one("SELECT current_setting('idle_in_transaction_session_timeout') = '30s'", &[]).await?.get(0);
    if again != backend || !is_kept {
        let cure = "use session mode, or none";
        found.push(Obstacle::new("a pooler in transaction mode is in between", cure));
    }
    Ok(found)
}

/// Commits wait for a standby that is not connected, as far as this role may see: whatever is written hangs.
///
/// # Errors
/// [`DatabaseError`]: it could not be asked.
pub(crate) async fn missing_standby(connection: &Connection) -> Result<Option<Obstacle>, DatabaseError> {
    let answering = status::answering(connection).await?;
    let names = answering.synchronous_standby_names.trim();
    let is_missing = !names.is_empty() && answering.synchronous_standby == SyncStandby::None;
    let found = format!("no standby of \"{names}\" is connected, and commits wait for one");
    Ok(is_missing.then(|| Obstacle::new(found, "get it going, or have the database's manager name another")))
}

/// With `standby = "required"` and no name there nothing is accepted.
pub(crate) fn no_standby_named() -> DatabaseError {
    DatabaseError::Unfit(
        "synchronous_standby_names is empty: no second machine would have the mail; name the standby, or set \
         [cluster] standby = \"preferred\""
            .into(),
    )
}

/// Whether commits wait for a standby: `synchronous_standby_names` has one.
pub(crate) async fn has_standby_names(connection: &Connection) -> Result<bool, DatabaseError> {
    let statement = "SELECT current_setting('synchronous_standby_names') AS names";
    let row = connection.client().query_one(statement, &[]).await?;
    Ok(!row.get::<_, &str>(0).trim().is_empty())
}
