//! Whether all nodes have stopped: asked before the whole queue goes elsewhere.

use std::time::Instant;

use super::database::{Connection, DatabaseError, SESSIONS, application};
use super::epoch::{self, LOOK, SILENT};
use super::moving::MoveError;

/// A node that nobody has ended, and that has no session at the database.
#[derive(Debug)]
pub struct Silent {
    pub name: String,
    epoch: i64,
    /// `None`: it has no row for them.
    beats: Option<i64>,
}

/// The nodes that may live, but have no session. `mine`: the last epoch of this state folder, whose process has ended;
/// it is ended at once.
///
/// # Errors
/// [`MoveError::Refused`]: a node lives.
pub async fn silent(connection: &Connection, mine: Option<i64>) -> Result<Vec<Silent>, MoveError> {
    if let Some(mine) = mine {
        epoch::terminate(connection, mine).await?;
        epoch::end(connection, mine, None).await?;
    }
    let client = connection.client();
    let sessions: Vec<String> = client.query(SESSIONS, &[]).await?.iter().map(|row| row.get(0)).collect();
    let statement = "SELECT e.id, n.name, h.beats FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
         LEFT JOIN fingerpost.heartbeat h ON h.epoch = e.id ORDER BY n.name";
    let rows = client.query(statement, &[]).await?;
    let silent = rows.iter().map(|row| Silent { epoch: row.get(0), name: row.get(1), beats: row.get(2) });
    let (living, silent): (Vec<Silent>, Vec<Silent>) =
        silent.partition(|node| sessions.contains(&application(node.epoch)));
    if living.is_empty() { Ok(silent) } else { Err(lives(&living)) }
}

/// Watches them for [`SILENT`] and ends those that have shown no heartbeat.
///
/// # Errors
/// [`MoveError::Refused`]: one lives.
pub async fn end(connection: &Connection, silent: &[Silent]) -> Result<(), MoveError> {
    let statement = "SELECT epoch, beats FROM fingerpost.heartbeat";
    let began = Instant::now();
    while !silent.is_empty() && began.elapsed() < SILENT {
        tokio::time::sleep(LOOK).await;
        let rows = connection.client().query(statement, &[]).await?;
        let has_beaten = |node: &&Silent| {
            rows.iter().any(|row| row.get::<_, i64>(0) == node.epoch && Some(row.get(1)) != node.beats)
        };
        if let Some(node) = silent.iter().find(has_beaten) {
            return Err(lives(std::slice::from_ref(node)));
        }
    }
    for node in silent {
        epoch::terminate(connection, node.epoch).await?;
        if !epoch::end(connection, node.epoch, node.beats).await? && is_there(connection, node.epoch).await? {
            return Err(lives(std::slice::from_ref(node)));
        }
    }
    Ok(())
}

async fn is_there(connection: &Connection, epoch: i64) -> Result<bool, DatabaseError> {
    let statement = "SELECT 1 FROM fingerpost.epoch WHERE id = $1";
    Ok(connection.client().query_opt(statement, &[&epoch]).await?.is_some())
}

fn lives(nodes: &[Silent]) -> MoveError {
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    MoveError::Refused(format!(
        "nodes are running: {}. Stop all nodes first; `fingerpost cluster status` shows them",
        names.join(", ")
    ))
}
