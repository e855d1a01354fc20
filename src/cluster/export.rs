//! Moves the mail in the database into a node's own spool, while no node lives: each message once, however often the
//! move breaks off. The mirror of [`import`](super::import).
//!
//! At each moment one system may deliver a message, or none. The steps, each durable before the next:
//!
//! 1. The spool's mark says that an export goes on, and its number. From here on no server uses the spool.
//! 2. Where the spool was moved to the database before, what it still has is that mail as it was: it is dropped.
//! 3. In one transaction all messages get the export's own epoch, which no sweep takes. No epoch of a node may be there,
//!    and none can come meanwhile, for a node joins under the same lock.
//! 4. Some messages are committed to the spool; then they are deleted from the database. Both may have a message, and
//!    neither delivers it: there it belongs to the export's epoch, and here the mark stands. A message that the spool
//!    has already is found by its id, and only what was delivered since is added.
//! 5. What cannot be moved, message by message, is given back to the nodes: the spool does not have it.
//! 6. The mark is removed: the spool is an ordinary one.
//!
//! A row is deleted only as it was read: a node whose epoch has ended may still write that it delivered. A row that has
//! changed meanwhile is read again; one that is gone was delivered, and its message is dropped here.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio_postgres::Row;

use super::batch;
use super::contents::{PIECE, Remote};
use super::database::{Connection, Database, DatabaseError, Pool};
use super::epoch;
use super::ids::{from_sql, to_sql};
use super::moving::{self, Damaged, MOST, MoveError, OCTETS, epoch_of};
use crate::message::queue_id::QueueId;
use crate::spool::entry::{Change, Entry, Outcome, RecipientState, Record};
use crate::spool::moved::{Moved, State};
use crate::spool::{Draft, IN_RECORD, Spool, Stored};
use crate::time::QueueTime;

/// What an export did.
#[derive(Debug)]
pub struct Exported {
    /// How many messages it moved; before it broke off others may have been moved.
    pub moved: u64,
    /// What it could not move, and why. They are the nodes' again.
    pub damaged: Vec<Damaged>,
    /// How many messages belong to another move that has not ended.
    pub of_other_moves: u64,
    /// How many others are in the database: they came meanwhile.
    pub later: u64,
}

/// Moves everything into `spool`, whose folder is `folder`. All nodes must have [stopped](super::stopped).
///
/// # Errors
/// [`MoveError`]. The spool may be marked: the same again goes on.
pub async fn export(database: &Database, folder: &Path, spool: &dyn Spool) -> Result<Exported, MoveError> {
    let connection = database.connect().await?;
    let mark = begin(&connection, folder).await?;
    if mark.state == State::Emptying {
        empty(spool).await?;
        Moved { state: State::Exporting, ..mark }.write(folder)?;
    }
    let epoch = epoch_of(mark.number);
    take(&connection, epoch).await?;
    let row = connection.client().query_one("SELECT age FROM fingerpost.installation", &[]).await?;
    let age = QueueTime(row.get::<_, i64>(0).unsigned_abs());
    let pool = Arc::new(Pool::new(database.clone(), 1));
    let Pass { moved, damaged, .. } = Source { connection: &connection, pool, epoch, age, spool }.everything().await?;
    let ids: Vec<i64> = damaged.iter().map(|damaged| to_sql(damaged.id)).collect();
    moving::give_back(&connection, epoch, &ids).await?;
    let statement =
        "SELECT count(*) FILTER (WHERE epoch < 0), count(*) FILTER (WHERE epoch >= 0) FROM fingerpost.queue";
    let left = connection.client().query_one(statement, &[]).await?;
    let (of_moves, others) = (left.get::<_, i64>(0).unsigned_abs(), left.get::<_, i64>(1).unsigned_abs());
    Moved::remove(folder)?;
    Ok(Exported { moved, of_other_moves: of_moves, later: others.saturating_sub(damaged.len() as u64), damaged })
}

/// The spool's mark, which stands from now on.
async fn begin(connection: &Connection, folder: &Path) -> Result<Moved, MoveError> {
    let found = Moved::read(folder)?;
    let mark = match found {
        Some(mark @ Moved { state: State::Emptying | State::Exporting, .. }) => return Ok(mark),
        Some(Moved { state: State::Importing, .. }) => {
            let text = "the mail in this node's own spool is being moved to the database: first run `fingerpost cluster \
                 import` again until it says that all is there";
            return Err(MoveError::Refused(text.into()));
        }
        Some(Moved { state: State::Imported, number, .. }) => {
            moving::give_to_nodes(connection, epoch_of(number)).await?; // the import may have ended before this
            Moved { number: moving::new_number()?, state: State::Emptying, node: None }
        }
        None => Moved { number: moving::new_number()?, state: State::Exporting, node: None },
    };
    mark.write(folder)?;
    Ok(mark)
}

/// Drops everything in a spool.
async fn empty(spool: &dyn Spool) -> Result<(), MoveError> {
    let mut after = None;
    loop {
        let ids = spool.ids_after(after, MOST);
        let Some(last) = ids.last() else { return Ok(()) };
        after = Some(*last);
        drop_all(spool, &ids).await?;
    }
}

/// Finishes messages, without reports.
async fn drop_all(spool: &dyn Spool, ids: &[QueueId]) -> Result<(), MoveError> {
    let dropped = |id, recipient| Change { id, recipient, state: RecipientState::Done(Outcome::Dropped), route: None };
    let of = |id: QueueId| spool.open_recipients(id).into_iter().map(move |recipient| dropped(id, recipient));
    let changes: Vec<Change> = ids.iter().copied().flat_map(of).collect();
    if !changes.is_empty() {
        spool.commit(Record { accepted: Vec::new(), changes }).await?;
    }
    Ok(())
}

/// Gives all messages of nodes to the export.
async fn take(connection: &Connection, epoch: i64) -> Result<(), MoveError> {
    let client = connection.client();
    let taken = async {
        epoch::lock_nodes(connection).await?;
        let nodes: i64 = client.query_one("SELECT count(*) FROM fingerpost.epoch", &[]).await?.get(0);
        if nodes > 0 {
            let text = "a node has started meanwhile: stop all nodes, and run the same command again";
            return Err(MoveError::Refused(text.into()));
        }
        client.execute("UPDATE fingerpost.queue SET epoch = $1 WHERE epoch >= 0", &[&epoch]).await?;
        Ok(())
    };
    moving::transaction(connection, taken).await
}

/// Where an export's messages come from, and go to.
struct Source<'a> {
    connection: &'a Connection,
    /// For contents.
    pool: Arc<Pool>,
    epoch: i64,
    /// The queue's time in the database.
    age: QueueTime,
    spool: &'a dyn Spool,
}

/// Why a message is not moved.
enum NotMoved {
    Damaged(String),
    Error(MoveError),
}

impl<E: Into<MoveError>> From<E> for NotMoved {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Messages that are committed to the spool together, and their rows as they were read.
#[derive(Default)]
struct Together {
    records: Vec<Record>,
    ids: Vec<i64>,
    entries: Vec<Vec<u8>>,
    octets: u64,
}

/// What one look at all rows did.
#[derive(Default)]
struct Pass {
    moved: u64,
    /// Rows that are still there because they changed after they were read.
    changed: usize,
    damaged: Vec<Damaged>,
}

/// The next rows.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// Those that the database cannot read.
    damaged: Vec<Damaged>,
    /// `None`: there are no others.
    last: Option<i64>,
}

impl Source<'_> {
    /// Moves what can be moved, until nothing has changed meanwhile.
    async fn everything(&self) -> Result<Pass, MoveError> {
        let mut moved = 0;
        loop {
            let pass = self.pass().await?;
            moved += pass.moved;
            if pass.changed == 0 {
                return Ok(Pass { moved, ..pass });
            }
        }
    }

    async fn pass(&self) -> Result<Pass, MoveError> {
        let (mut pass, mut after) = (Pass::default(), i64::MIN);
        loop {
            let Rows { rows, damaged, last } = self.rows_after(after).await?;
            let Some(last) = last else { return Ok(pass) };
            after = last;
            pass.damaged.extend(damaged);
            let mut together = Together::default();
            for row in &rows {
                match self.message(row).await {
                    Ok(record) => together.add(row, record),
                    Err(NotMoved::Damaged(why)) => pass.damaged.push(Damaged { id: from_sql(row.get(0)), why }),
                    Err(NotMoved::Error(error)) => return Err(error),
                }
                if together.octets >= OCTETS {
                    self.commit(std::mem::take(&mut together), &mut pass).await?;
                }
            }
            self.commit(together, &mut pass).await?;
        }
    }

    /// The rows after this id; where the database says that one of them is damaged, each by itself.
    async fn rows_after(&self, after: i64) -> Result<Rows, DatabaseError> {
        let client = self.connection.client();
        let statement =
            "SELECT id, format, entry, sum FROM fingerpost.queue WHERE epoch = $1 AND id > $2 ORDER BY id LIMIT $3";
        let most = i64::try_from(MOST).unwrap_or(i64::MAX);
        let rows = client.query(statement, &[&self.epoch, &after, &most]).await.map_err(DatabaseError::from);
        match rows {
            Ok(rows) => return Ok(Rows { last: rows.last().map(|row| row.get(0)), rows, damaged: Vec::new() }),
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        let ids = "SELECT id FROM fingerpost.queue WHERE epoch = $1 AND id > $2 ORDER BY id LIMIT $3";
        let ids = client.query(ids, &[&self.epoch, &after, &most]).await?;
        let mut found = Rows { last: ids.last().map(|row| row.get(0)), ..Rows::default() };
        let statement = "SELECT id, format, entry, sum FROM fingerpost.queue WHERE epoch = $1 AND id = $2";
        for id in ids.iter().map(|row| row.get::<_, i64>(0)) {
            match client.query(statement, &[&self.epoch, &id]).await.map_err(DatabaseError::from) {
                Ok(rows) => found.rows.extend(rows),
                Err(error) if error.is_damage() => {
                    found.damaged.push(Damaged { id: from_sql(id), why: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// A row's message, as the spool has it.
    async fn message(&self, row: &Row) -> Result<Record, NotMoved> {
        let entry = batch::entry(row.get(1), row.get(2)).map_err(|error| NotMoved::Damaged(error.to_string()))?;
        if let Some(there) = self.spool.entry(entry.id)? {
            return Ok(Record { accepted: Vec::new(), changes: outcomes(&entry, &there)? });
        }
        let sum = u32::try_from(row.get::<_, i64>(3)).unwrap_or_default();
        let remote = Remote { id: entry.id, pool: self.pool.clone(), handle: Handle::current() };
        let content = Stored::elsewhere(Arc::new(remote), entry.content.size, sum);
        let draft = self.draft(entry.id, &content).await?;
        let mut entry = entry;
        moving::as_old(&mut entry, self.age, self.spool.queue_time());
        Ok(Record { accepted: vec![(draft, entry)], changes: Vec::new() })
    }

    /// Reads a content, and checks its sum.
    async fn draft(&self, id: QueueId, content: &Stored) -> Result<Draft, NotMoved> {
        let size = content.size();
        if size <= IN_RECORD as u64 {
            let content = content.piece(0, usize::try_from(size).unwrap_or_default()).await.map_err(unreadable)?;
            return Ok(Draft::Small { id, content });
        }
        let mut draft = self.spool.create_as(id)?;
        let mut pieces = content.in_pieces(size);
        while let Some(piece) = pieces.next(PIECE).await.map_err(unreadable)? {
            draft.append(&piece)?;
        }
        Ok(Draft::Blob(draft))
    }

    /// Makes messages durable in the spool, and deletes them from the database.
    async fn commit(&self, together: Together, pass: &mut Pass) -> Result<(), MoveError> {
        let Together { records, ids, entries, .. } = together;
        if ids.is_empty() {
            return Ok(());
        }
        // A record for each, since reading a message reads its whole record; they share a sync.
        let committed = join_all(records.into_iter().map(|record| self.spool.commit(record))).await;
        committed.into_iter().collect::<Result<Vec<()>, _>>()?;
        // Entries of other rows are not compared: one of them may be damaged.
        let delete = "WITH gone AS (DELETE FROM fingerpost.queue q USING unnest($1::bigint[], $2::bytea[]) AS moved (i, e) \
                 WHERE q.id = ANY ($1) AND q.id = moved.i AND q.entry = moved.e AND q.epoch = $3 RETURNING q.id), \
             bodies AS (DELETE FROM fingerpost.body b USING gone WHERE b.id = gone.id) \
             SELECT id FROM gone";
        let left = "SELECT id FROM fingerpost.queue WHERE id = ANY ($1)";
        let client = self.connection.client();
        let numbers = |rows: Vec<Row>| rows.iter().map(|row| row.get(0)).collect::<HashSet<i64>>();
        let deleted = async {
            let deleted = client.query(delete, &[&ids, &entries, &self.epoch]).await?;
            let left = client.query(left, &[&ids]).await?;
            Ok((numbers(deleted), numbers(left)))
        };
        let (deleted, left) = moving::transaction(self.connection, deleted).await?;
        pass.moved += deleted.len() as u64;
        pass.changed += left.len();
        // What a node that was cut off has finished meanwhile.
        let over = ids.iter().filter(|id| !deleted.contains(id) && !left.contains(id));
        drop_all(self.spool, &over.copied().map(from_sql).collect::<Vec<_>>()).await
    }
}

impl Together {
    fn add(&mut self, row: &Row, record: Record) {
        self.octets += record.accepted.iter().map(|(_, entry)| entry.content.size).sum::<u64>();
        self.records.push(record);
        self.ids.push(row.get(0));
        self.entries.push(row.get(2));
    }
}

/// What was delivered by the database, of a message that the spool has already.
fn outcomes(entry: &Entry, there: &Entry) -> Result<Vec<Change>, NotMoved> {
    let same = |one: &Entry| (one.received_at, one.sender.clone(), one.content.clone(), one.recipients.len());
    if same(entry) != same(there) {
        let text = "the node's own spool has another message with this id: move it again when that is delivered";
        return Err(NotMoved::Damaged(text.into()));
    }
    let pairs = (0..).zip(entry.recipients.iter().zip(&there.recipients));
    let is_new = |state: &RecipientState, there: &RecipientState| {
        matches!(state, RecipientState::Done(_)) && !matches!(there, RecipientState::Done(_))
    };
    let changed = pairs.filter(|(_, (now, there))| is_new(&now.state, &there.state));
    let change = |(recipient, state)| Change { id: entry.id, recipient, state, route: None };
    Ok(changed.map(|(at, (now, _))| (at, now.state.clone())).map(change).collect())
}

/// A content that cannot be read: damaged, or the database is away.
fn unreadable(error: io::Error) -> NotMoved {
    let said = error.get_ref().and_then(|cause| cause.downcast_ref::<DatabaseError>());
    match (said, error.kind()) {
        (Some(said), _) if said.is_damage() => NotMoved::Damaged(format!("its content cannot be read: {said}")),
        (Some(said), _) => NotMoved::Error(said.clone().into()),
        (None, ErrorKind::InvalidData) => {
            NotMoved::Damaged("its content is not what was written: its sum differs".into())
        }
        (None, ErrorKind::UnexpectedEof) => NotMoved::Damaged("a part of its content is missing".into()),
        (None, _) => NotMoved::Error(DatabaseError::Away(error.to_string()).into()),
    }
}
