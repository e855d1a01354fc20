//! The numbers of nodes, which stand in queue ids: a name keeps its number, and none is given to another name while its
//! rows live.

use std::time::Duration;

use tokio_postgres::Row;

use super::database::{Connection, DatabaseError};
use super::epoch::now;
use super::ids::MOST_NODES;

/// Where all numbers are taken, that of a node which has not lived for so long, and whose mail is gone, is for the next new
/// name.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// A node's number.
pub(super) struct Place {
    pub(super) number: i32,
    /// How far ids with this number had come ([`Ids::reached_by`](super::ids::Ids::reached_by)); 0: it is new.
    pub(super) reached: i64,
}

/// The number of the node of this name, as [`place`] has it.
pub(super) async fn number(connection: &Connection, name: &str) -> Result<i32, DatabaseError> {
    Ok(place(connection, name).await?.number)
}

/// The number of the node of this name. Names of pods are new each time: when all numbers are taken a new name gets that of
/// a node that is [`FORGOTTEN`]. What its ids reached goes with it, so that none is given out twice.
pub(super) async fn place(connection: &Connection, name: &str) -> Result<Place, DatabaseError> {
    let client = connection.client();
    let time = now().cast_signed();
    let found = |row: &Row| Place { number: row.get(0), reached: row.get(1) };
    // Nobody else takes it from now on.
    let statement = "WITH old AS (SELECT number, reached FROM fingerpost.node WHERE name = $1 FOR UPDATE) \
         UPDATE fingerpost.node n SET reached = greatest(n.reached, $2) FROM old WHERE n.number = old.number \
         RETURNING n.number, old.reached";
    if let Some(row) = client.query_opt(statement, &[&name, &time]).await? {
        return Ok(found(&row));
    }
    let statement = "INSERT INTO fingerpost.node (number, name, reached) \
         SELECT coalesce(max(number) + 1, 0), $1, $2 FROM fingerpost.node HAVING coalesce(max(number) + 1, 0) <= $3 \
         RETURNING number, 0::bigint";
    if let Some(row) = client.query_opt(statement, &[&name, &time, &MOST_NODES.cast_signed()]).await? {
        return Ok(found(&row));
    }
    // Last, for it may read the whole queue.
    let statement = "WITH old AS (SELECT number, reached FROM fingerpost.node n WHERE reached < $3 \
                 AND NOT EXISTS (SELECT FROM fingerpost.epoch e WHERE e.node = n.number) \
                 AND NOT EXISTS (SELECT FROM fingerpost.queue q WHERE (q.id >> 10) & 1023 = n.number) \
             ORDER BY number LIMIT 1) \
         UPDATE fingerpost.node n SET name = $1, reached = greatest(n.reached, $2) FROM old WHERE n.number = old.number \
         RETURNING n.number, old.reached";
    let forgotten = time - i64::try_from(FORGOTTEN.as_millis()).unwrap_or_default();
    let old = client.query_opt(statement, &[&name, &time, &forgotten]).await?;
    let text = "numbers are taken by nodes that have lived in the last 24 hours or have mail in the queue";
    let none = || DatabaseError::Unfit(format!("all {} {text}", MOST_NODES + 1));
    old.as_ref().map(found).ok_or_else(none)
}
