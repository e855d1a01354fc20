//! Whether all nodes have stopped: asked before the whole queue goes elsewhere. Heartbeats tell, not sessions: that of a
//! machine that has lost its power stays.

use std::time::Instant;

use super::database::{Connection, DatabaseError};
use super::epoch::{self, BEAT, LOOK, SILENT};
use super::moving::MoveError;

/// A node that nobody has ended.
#[derive(Debug)]
pub struct Unended {
    pub name: String,
    epoch: i64,
    /// `None`: it has no row for them.
    beats: Option<i64>,
}

/// The nodes that may live. `mine`: the last epoch of this state folder, whose process has ended; it is ended at once if it
/// was of the node `name`, as the folder may be a copy of another's.
///
/// # Errors
/// [`DatabaseError`].
pub async fn unended(connection: &Connection, mine: Option<i64>, name: &str) -> Result<Vec<Unended>, MoveError> {
    let client = connection.client();
    let statement = "SELECT e.id, n.name, h.beats FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node \
         LEFT JOIN fingerpost.heartbeat h ON h.epoch = e.id ORDER BY n.name";
    let rows = client.query(statement, &[]).await?;
    let mut unended: Vec<Unended> =
        rows.iter().map(|row| Unended { epoch: row.get(0), name: row.get(1), beats: row.get(2) }).collect();
    let is_mine = |node: &mut Unended| Some(node.epoch) == mine && node.name == name;
    for mine in unended.extract_if(.., is_mine) {
        epoch::terminate(connection, mine.epoch).await?;
        epoch::end(connection, mine.epoch, None).await?;
    }
    Ok(unended)
}

/// Watches them for [`SILENT`] and ends those that have shown no heartbeat.
///
/// # Errors
/// [`MoveError::Refused`]: some live.
pub async fn end(connection: &Connection, unended: &[Unended]) -> Result<(), MoveError> {
    let statement = "SELECT epoch, beats FROM fingerpost.heartbeat";
    let (began, mut patience) = (Instant::now(), SILENT);
    let mut living: Vec<&Unended> = Vec::new();
    while !unended.is_empty() && began.elapsed() < patience {
        tokio::time::sleep(LOOK).await;
        let rows = connection.client().query(statement, &[]).await?;
        let has_beaten = |node: &&Unended| {
            rows.iter().any(|row| row.get::<_, i64>(0) == node.epoch && Some(row.get(1)) != node.beats)
        };
        let was_none = living.is_empty();
        living = unended.iter().filter(has_beaten).collect();
        if was_none && !living.is_empty() {
            patience = patience.min(began.elapsed() + BEAT); // the others that live beat as well
        }
    }
    if !living.is_empty() {
        return Err(lives(&living));
    }
    for node in unended {
        epoch::terminate(connection, node.epoch).await?;
        if !epoch::end(connection, node.epoch, node.beats).await? && is_there(connection, node.epoch).await? {
            return Err(lives(&[node]));
        }
    }
    Ok(())
}

async fn is_there(connection: &Connection, epoch: i64) -> Result<bool, DatabaseError> {
    let statement = "SELECT 1 FROM fingerpost.epoch WHERE id = $1";
    Ok(connection.client().query_opt(statement, &[&epoch]).await?.is_some())
}

fn lives(nodes: &[&Unended]) -> MoveError {
    let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
    MoveError::Refused(format!(
        "nodes are running: {}. Stop all nodes first; `fingerpost cluster status` shows them",
        names.join(", ")
    ))
}
