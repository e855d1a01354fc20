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
use super::database::{Connection, DatabaseError};
use super::epoch;
use super::ids::to_sql;
use super::moving::{self, Damaged, MOST, MoveError, OCTETS, epoch_of};
use super::node_number;
use super::settings::has_standby_names;
use crate::config::Standby;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Entry;
use crate::spool::header::FORMAT;
use crate::spool::moved::{Moved, State};
use crate::spool::{Spool, Stored};
use crate::time::QueueTime;

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// How many messages are in the database by it.
    pub moved: u64,
    /// What cannot be moved, and where it is. Nobody delivers it.
    pub damaged: Vec<Damaged>,
}

/// Moves everything that waits in `spool`, whose folder is `folder`, and marks it. `node`: the name of this node.
/// `standby`: whether all of it must be on two machines before that.
///
/// # Errors
/// [`MoveError`]. The spool may be marked as begun: the same again goes on.
pub async fn import(
    connection: &Connection,
    node: &str,
    standby: Standby,
    folder: &Path,
    spool: &dyn Spool,
) -> Result<Imported, MoveError> {
    let moved = match Moved::read(folder)? {
        Some(Moved { state: State::Emptying | State::Exporting, .. }) => {
            let text = "mail is being moved from the database to this node's own spool: first run `fingerpost cluster \
                 export` again until it says that all is here";
            return Err(MoveError::Refused(text.into()));
        }
        Some(moved) => moved,
        None => Moved { number: moving::new_number()?, state: State::Importing, node: None },
    };
    let epoch = epoch_of(moved.number);
    let mut damaged = Vec::new();
    if moved.state == State::Importing {
        // An import that goes on under another name writes the same ids.
        let node = match moved.node {
            Some(node) => node,
            None => number(connection, node).await?,
        };
        let moved = Moved { node: Some(node), ..moved };
        moved.write(folder)?;
        let row = connection.client().query_one("SELECT age FROM fingerpost.installation", &[]).await?;
        let age = QueueTime(row.get::<_, i64>(0).unsigned_abs());
        damaged = Target { connection, epoch, node, age, spool, folder }.everything().await?;
        confirm(connection, node, standby).await?;
        Moved { state: State::Imported, ..moved }.write(folder)?;
    }
    Ok(Imported { moved: moving::give_to_nodes(connection, epoch).await?, damaged })
}

/// Everything that was written before is on two machines, if it must be: a COMMIT waits for all of the log before it, but
/// only if a standby was named then, which is looked at behind it.
async fn confirm(connection: &Connection, node: u32, standby: Standby) -> Result<(), MoveError> {
    let written = async {
        let statement = "UPDATE fingerpost.node SET reached = reached WHERE number = $1";
        Ok(connection.client().execute(statement, &[&node.cast_signed()]).await?)
    };
    moving::transaction(connection, written).await?;
    if standby == Standby::Required && !has_standby_names(connection).await? {
        let text = "synchronous_standby_names is empty: no second machine would have the mail; name the standby, and run \
             the same command again";
        return Err(DatabaseError::Unfit(text.into()).into());
    }
    Ok(())
}

/// The number of the node of this name: under the lock under which nodes join, as that gives out numbers as well.
async fn number(connection: &Connection, name: &str) -> Result<u32, MoveError> {
    let number = async {
        epoch::lock_nodes(connection).await?;
        Ok(node_number::number(connection, name).await?.unsigned_abs())
    };
    moving::transaction(connection, number).await
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
    let given = async {
        match moving::give_to_nodes(&connection, epoch_of(mark.number)).await {
            Err(MoveError::Database(error)) => Err(error),
            given => Ok(given),
        }
    };
    let given = connection.while_believed(given).await??;
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
    node: u32,
    /// The queue's time in the database.
    age: QueueTime,
    spool: &'a dyn Spool,
    /// The spool's.
    folder: &'a Path,
}

impl Target<'_> {
    /// Returns what cannot be moved.
    async fn everything(&self) -> Result<Vec<Damaged>, MoveError> {
        let (mut damaged, mut after) = (Vec::new(), None);
        loop {
            let ids = self.spool.ids_after(after, MOST);
            let Some(last) = ids.last() else { return Ok(damaged) };
            after = Some(*last);
            let mut together = Vec::new();
            let mut octets = 0;
            for id in ids {
                let Some(entry) = self.spool.entry(id)? else { continue };
                let content = self.spool.open(id)?;
                if let Err(error) = content.verify().await {
                    damaged.push(Damaged { id, why: self.aside(&entry, &content, &error) });
                    continue;
                }
                octets += entry.content.size;
                together.push(entry);
                if octets >= OCTETS {
                    self.write(std::mem::take(&mut together)).await?;
                    octets = 0;
                }
            }
            self.write(together).await?;
        }
    }

    /// Keeps a message whose content cannot be read; says where, and what to do.
    fn aside(&self, entry: &Entry, content: &Stored, error: &io::Error) -> String {
        self.spool.keep_damaged(entry, content);
        let folder = self.folder.join("aside");
        let eml = folder.join(format!("{}.eml", entry.id));
        let place = if eml.exists() {
            format!("what there is of it is kept as {}, and its envelope beside it", eml.display())
        } else {
            format!("what there is of it is kept in {}", folder.display())
        };
        format!(
            "its content cannot be read as it was written ({error}); {place}: no node has it, so tell its sender, \
             <{}>",
            entry.sender.reverse_path.as_str()
        )
    }

    /// One transaction.
    async fn write(&self, messages: Vec<Entry>) -> Result<(), MoveError> {
        let written = async {
            for entry in messages {
                let (id, content) = (entry.id, self.spool.open(entry.id)?);
                let written = self.message(self.as_there(entry), &content).await;
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
        let unreadable = |error: io::Error| wrong(format!("its content cannot be read any more ({error})"));
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
        while let Some(piece) = pieces.next(PIECE).await.map_err(unreadable)? {
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
    /// number in its id, as two nodes may have given out one. An id that comes from a cluster has one already.
    fn as_there(&self, mut entry: Entry) -> Entry {
        moving::as_old(&mut entry, self.spool.queue_time(), self.age);
        let (id, node) = (entry.id, u64::from(self.node) << 10);
        // Whoever gives out many ids in a moment counts into the number's place: no two may become one.
        let is_free = || self.spool.open_recipients(QueueId(id.0.saturating_sub(node))).is_empty();
        let has_number = id.is_clustered() || (id.0 >> 10 & 1023 != 0 && is_free());
        if !has_number {
            entry.id = QueueId(id.0 + node);
        }
        entry
    }
}
