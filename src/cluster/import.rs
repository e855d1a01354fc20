//! Moves the mail of a node's own spool into the database: each message once, however often the move breaks off.
//!
//! A move has a number, which stands in the spool's mark ([`Moved`]). While it goes on its messages belong to an epoch
//! that nobody has, minus that number, and nobody takes them over; so a message that is there already is found, and left.
//! When all are there the spool is marked as moved, and only then they belong to epoch 0, which has ended: the next sweep
//! of any node takes them over. An import that is killed before that ends with the node's next start ([`finish`]).

use std::io;
use std::path::Path;

use super::ClusterSpool;
use super::contents::PIECE;
use super::database::Connection;
use super::epoch;
use super::ids::to_sql;
use super::moving::{self, MOST, MoveError, OCTETS, epoch_of};
use crate::message::queue_id::QueueId;
use crate::spool::entry::Entry;
use crate::spool::header::FORMAT;
use crate::spool::moved::{Moved, State};
use crate::spool::{Spool, Stored};
use crate::time::QueueTime;

/// Moves everything that waits in `spool`, whose folder is `folder`, and marks it. `node`: the name of this node.
/// Returns how many messages are in the database by it.
///
/// # Errors
/// [`MoveError`]. The spool may be marked as begun: the same again goes on.
pub async fn import(connection: &Connection, node: &str, folder: &Path, spool: &dyn Spool) -> Result<u64, MoveError> {
    let moved = match Moved::read(folder)? {
        Some(Moved { state: State::Emptying | State::Exporting, .. }) => {
            let text = "mail is being moved from the database to this node's own spool: first run `fingerpost cluster \
                 export` again until it says that all is here";
            return Err(MoveError::Refused(text.into()));
        }
        Some(moved) => moved,
        None => Moved { number: moving::new_number()?, state: State::Importing },
    };
    moved.write(folder)?;
    let epoch = epoch_of(moved.number);
    if moved.state == State::Importing {
        let client = connection.client();
        let age: i64 = client.query_one("SELECT age FROM fingerpost.installation", &[]).await?.get(0);
        let (node, age) = (epoch::node(connection, node).await?, QueueTime(age.unsigned_abs()));
        Target { connection, epoch, node, age }.everything(spool).await?;
        Moved { state: State::Imported, ..moved }.write(folder)?;
    }
    moving::give_to_nodes(connection, epoch).await
}

/// Gives the nodes what an import of this node moved and marked, where it was killed before it did so itself.
///
/// # Errors
/// [`MoveError`]; a start again goes on.
pub async fn finish(joined: &ClusterSpool, mark: Moved) -> Result<(), MoveError> {
    if mark.state != State::Imported {
        return Ok(());
    }
    let connection = joined.database().connect().await?;
    let given = moving::give_to_nodes(&connection, epoch_of(mark.number)).await?;
    if given > 0 {
        tracing::info!(
            messages = given,
            "the import of this node's own spool had not ended: its mail is the nodes' now"
        );
    }
    Ok(())
}

/// Where a move's messages go.
struct Target<'a> {
    connection: &'a Connection,
    epoch: i64,
    /// This node's number.
    node: i32,
    /// The queue's time in the database.
    age: QueueTime,
}

impl Target<'_> {
    async fn everything(&self, spool: &dyn Spool) -> Result<(), MoveError> {
        let mut after = None;
        loop {
            let ids = spool.ids_after(after, MOST);
            let Some(last) = ids.last() else { return Ok(()) };
            after = Some(*last);
            let mut together = Vec::new();
            let mut octets = 0;
            for id in ids {
                let Some(entry) = spool.entry(id)? else { continue };
                octets += entry.content.size;
                together.push(entry);
                if octets >= OCTETS {
                    self.write(spool, std::mem::take(&mut together)).await?;
                    octets = 0;
                }
            }
            self.write(spool, together).await?;
        }
    }

    /// One transaction.
    async fn write(&self, spool: &dyn Spool, messages: Vec<Entry>) -> Result<(), MoveError> {
        let written = async {
            for entry in messages {
                let (id, content) = (entry.id, spool.open(entry.id)?);
                let written = self.message(self.as_there(entry, spool.queue_time()), &content).await;
                written.map_err(|error| match error {
                    MoveError::Message(_, why) => MoveError::Message(id, why),
                    other => other,
                })?;
            }
            Ok(())
        };
        moving::transaction(self.connection, written).await
    }

    /// Writes one message, unless it is there already.
    async fn message(&self, entry: Entry, content: &Stored) -> Result<(), MoveError> {
        let client = self.connection.client();
        let wrong = |why: String| MoveError::Message(entry.id, why);
        let damaged = |error: io::Error| {
            wrong(format!(
                "its content cannot be read as it was written ({error}): start without [cluster] and drop it"
            ))
        };
        content.verify().await.map_err(damaged)?;
        let bytes = entry.to_bytes().map_err(|error| wrong(error.to_string()))?;
        let (id, format) = (to_sql(entry.id), FORMAT.cast_signed());
        let statement = "INSERT INTO fingerpost.queue (id, epoch, format, entry, sum) VALUES ($1, $2, $3, $4, 0) \
             ON CONFLICT (id) DO NOTHING";
        if client.execute(statement, &[&id, &self.epoch, &format, &bytes]).await? == 0 {
            let statement = "SELECT 1 FROM fingerpost.queue WHERE id = $1 AND epoch = $2";
            let ours = client.query_opt(statement, &[&id, &self.epoch]).await?;
            let taken = || wrong("another node's message has its id: run it again when that is delivered".to_owned());
            return ours.map(drop).ok_or_else(taken);
        }
        let (mut pieces, mut number, mut sum) = (content.in_pieces(content.size()), 0i32, 0);
        while let Some(piece) = pieces.next(PIECE).await.map_err(damaged)? {
            sum = crc32c::crc32c_append(sum, &piece);
            let statement = "INSERT INTO fingerpost.body (id, piece, content) VALUES ($1, $2, $3)";
            client.execute(statement, &[&id, &number, &&*piece]).await?;
            number += 1;
        }
        let statement = "UPDATE fingerpost.queue SET sum = $2 WHERE id = $1";
        client.execute(statement, &[&id, &i64::from(sum)]).await?;
        Ok(())
    }

    /// The message as the database has it: as old as it is here, now, by the time of the queue there; with this node's
    /// number in its id, as two nodes may have given out one. An id that a cluster gave out has one already.
    fn as_there(&self, mut entry: Entry, now: QueueTime) -> Entry {
        moving::as_old(&mut entry, now, self.age);
        if !entry.id.is_clustered() {
            entry.id = QueueId(entry.id.0 + (u64::from(self.node.unsigned_abs()) << 10));
        }
        entry
    }
}
