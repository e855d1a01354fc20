//! One transaction of a node: what several callers want to make durable. Its outcome is known, or it is asked for by the
//! batch's key ([`settle`]).

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tokio_postgres::{Row, Statement};

use super::applied::{self, Applied};
use super::database::{Connection, DatabaseError};
use super::ids::{from_sql, to_sql};
use super::settings::no_standby_named;
use crate::config::Standby;
use crate::message::queue_id::QueueId;
use crate::spool::entry::{Change, Entry, RecipientState};
use crate::spool::header::FORMAT;

/// A new message.
#[derive(Debug)]
pub struct New {
    pub id: QueueId,
    pub entry: Vec<u8>,
    pub sum: u32,
    pub content: Body,
}

#[derive(Debug)]
pub enum Body {
    Here(Bytes),
    /// So many octets, which are in the database already.
    Uploaded(u64),
}

/// What a transaction writes.
#[derive(Debug, Default)]
pub struct Batch {
    pub key: [u8; 16],
    /// The key of the last batch whose outcome is known: it is not needed any more.
    pub settled: Option<[u8; 16]>,
    pub new: Vec<New>,
    /// Messages to be deleted: finished ones, and mail that its client has kept.
    pub gone: Vec<QueueId>,
    /// Messages whose entries change, and all changes.
    pub changed: Vec<QueueId>,
    pub changes: Vec<Change>,
    /// Statements that have nothing to do are made, too: they show whether mail could be accepted.
    pub tries_all: bool,
}

/// How a transaction ended.
#[derive(Debug)]
pub enum End {
    /// With the messages that are not this node's any more: no recipient is left, or another version wrote them.
    Committed(Replication, Vec<QueueId>),
    /// Nothing of it is durable.
    Refused(DatabaseError),
    /// It may be durable, now or later.
    Unknown(DatabaseError),
}

/// Whether a second machine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    Standby,
    /// `standby = "preferred"`, and there is none.
    Alone,
}

/// The statements, prepared on one connection.
pub struct Statements {
    epoch: Statement,
    begin: Statement,
    settled: Statement,
    queue: Statement,
    body: Statement,
    uploaded: Statement,
    uploads: Statement,
    gone: Statement,
    gone_bodies: Statement,
    read: Statement,
    write: Statement,
    unreadable: Statement,
    standby: Statement,
}

impl Statements {
    /// # Errors
    /// [`DatabaseError`].
    pub async fn prepare(connection: &Connection) -> Result<Self, DatabaseError> {
        let client = connection.client();
        Ok(Self {
            epoch: client.prepare("SELECT 1 FROM fingerpost.epoch WHERE id = $1 FOR KEY SHARE").await?,
            begin: client.prepare("INSERT INTO fingerpost.batch (key, epoch) VALUES ($1, $2)").await?,
            settled: client.prepare("DELETE FROM fingerpost.batch WHERE key = $1").await?,
            queue: client
                .prepare(
                    "INSERT INTO fingerpost.queue (id, epoch, format, entry, sum) SELECT i, $1, $2, e, s \
                     FROM unnest($3::bigint[], $4::bytea[], $5::bigint[]) AS new (i, e, s)",
                )
                .await?,
            body: client
                .prepare(
                    "INSERT INTO fingerpost.body (id, piece, content) SELECT i, 0, c \
                     FROM unnest($1::bigint[], $2::bytea[]) AS new (i, c)",
                )
                .await?,
            uploaded: client
                .prepare(
                    "SELECT u.id, (SELECT coalesce(sum(length(content)), 0)::bigint FROM fingerpost.body b \
                     WHERE b.id = u.id) FROM fingerpost.upload u WHERE u.id = ANY ($1)",
                )
                .await?,
            uploads: client.prepare("DELETE FROM fingerpost.upload WHERE id = ANY ($1)").await?,
            gone: client.prepare("DELETE FROM fingerpost.queue WHERE id = ANY ($1)").await?,
            gone_bodies: client.prepare("DELETE FROM fingerpost.body WHERE id = ANY ($1)").await?,
            read: client
                .prepare("SELECT id, format, entry FROM fingerpost.queue WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
                .await?,
            write: client
                .prepare(
                    "UPDATE fingerpost.queue q SET format = $1, entry = e \
                     FROM unnest($2::bigint[], $3::bytea[]) AS new (i, e) WHERE q.id = i",
                )
                .await?,
            unreadable: client
                .prepare("UPDATE fingerpost.queue SET epoch = 0 WHERE id = ANY ($1) AND epoch = $2")
                .await?,
            standby: client.prepare("SELECT current_setting('synchronous_standby_names')").await?,
        })
    }
}

/// Makes a batch durable. The COMMIT is never cancelled, but left after a minute, or where another primary has replaced its
/// own: whoever hears no answer asks for it by its key.
pub async fn commit(
    connection: &Connection,
    statements: &Statements,
    epoch: i64,
    batch: &Batch,
    standby: Standby,
) -> End {
    let written = connection.while_believed(write(connection, statements, epoch, batch)).await;
    let written = written.and_then(|(standbys, finished)| Ok((replication(&standbys, standby)?, finished)));
    let (replication, finished) = match written {
        Ok(written) => written,
        Err(error) => {
            // Nothing was committed, whether this is heard or not; where there is no answer the session ends.
            if !matches!(error, DatabaseError::Away(_)) {
                let rollback = async { Ok(connection.client().batch_execute("ROLLBACK").await?) };
                let _ = connection.while_believed(rollback).await;
            }
            return End::Refused(error);
        }
    };
    let client = connection.client();
    // A wait for the standby that ends because none is named any more ends without a warning.
    let committed = connection.without_warning(async {
        let (committed, standbys) = (client.batch_execute("COMMIT"), client.query_one(&statements.standby, &[]));
        let ((), standbys) = tokio::try_join!(biased; committed, standbys)?;
        Ok(standbys.get::<_, String>(0))
    });
    match connection.while_believed(committed).await.and_then(|standbys| self::replication(&standbys, standby)) {
        Ok(_) => End::Committed(replication, finished),
        Err(error) => End::Unknown(error),
    }
}

fn replication(standbys: &str, wanted: Standby) -> Result<Replication, DatabaseError> {
    match (standbys.trim().is_empty(), wanted) {
        (false, _) => Ok(Replication::Standby),
        (true, Standby::Preferred) => Ok(Replication::Alone),
        (true, Standby::Required) => Err(no_standby_named()),
    }
}

/// Writes everything but the COMMIT; returns `synchronous_standby_names`. The statements are sent at once.
async fn write(
    connection: &Connection,
    statements: &Statements,
    epoch: i64,
    batch: &Batch,
) -> Result<(String, Vec<QueueId>), DatabaseError> {
    let client = connection.client();
    let ids = |ids: &[QueueId]| ids.iter().copied().map(to_sql).collect::<Vec<i64>>();
    let (gone, changed) = (ids(&batch.gone), ids(&batch.changed));
    let new = Columns::of(&batch.new);
    let (key, settled, format) = (&batch.key[..], batch.settled.as_ref().map(|key| &key[..]), FORMAT.cast_signed());
    let begin = client.batch_execute("BEGIN; SET LOCAL synchronous_commit = on");
    let own = async { client.query_opt(&statements.epoch, &[&epoch]).await };
    let begun = async { client.execute(&statements.begin, &[&key, &epoch]).await };
    let standby = async { client.query_one(&statements.standby, &[]).await };
    let messages = async {
        if new.ids.is_empty() && !batch.tries_all {
            return Ok(Vec::new());
        }
        let queue =
            async { client.execute(&statements.queue, &[&epoch, &format, &new.ids, &new.entries, &new.sums]).await };
        let body = async { client.execute(&statements.body, &[&new.small, &new.contents]).await };
        let uploaded = async {
            if new.large.is_empty() { Ok(Vec::new()) } else { client.query(&statements.uploaded, &[&new.large]).await }
        };
        let uploads = async {
            if new.large.is_empty() { Ok(0) } else { client.execute(&statements.uploads, &[&new.large]).await }
        };
        let (_, _, uploaded, _) = tokio::try_join!(biased; queue, body, uploaded, uploads)?;
        Ok(uploaded)
    };
    let removed = async {
        if gone.is_empty() && !batch.tries_all {
            return Ok(());
        }
        // First the upload: it waits for a piece that is still being committed, which would be left over otherwise.
        let uploads = async { client.execute(&statements.uploads, &[&gone]).await };
        let queue = async { client.execute(&statements.gone, &[&gone]).await };
        let bodies = async { client.execute(&statements.gone_bodies, &[&gone]).await };
        tokio::try_join!(biased; uploads, queue, bodies).map(|_| ())
    };
    let read =
        async { if changed.is_empty() { Ok(Vec::new()) } else { client.query(&statements.read, &[&changed]).await } };
    let forgotten = async {
        match settled {
            Some(settled) => client.execute(&statements.settled, &[&settled]).await,
            None => Ok(0),
        }
    };
    let (_, own, _, uploaded, (), rows, _, standby) =
        tokio::try_join!(biased; begin, own, begun, messages, removed, read, forgotten, standby)?;
    if own.is_none() {
        return Err(DatabaseError::Ended);
    }
    check_uploads(&batch.new, &uploaded)?;
    let Applied { ids, entries, finished, unreadable } = applied::applied(&rows, &batch.changes)?;
    if !ids.is_empty() {
        client.execute(&statements.write, &[&format, &ids, &entries]).await?;
    }
    // A node of the version that wrote them takes them over; the sweep names them.
    if !unreadable.is_empty() {
        client.execute(&statements.unreadable, &[&unreadable, &epoch]).await?;
    }
    if !finished.is_empty() {
        let queue = async { client.execute(&statements.gone, &[&finished]).await };
        let bodies = async { client.execute(&statements.gone_bodies, &[&finished]).await };
        tokio::try_join!(queue, bodies)?;
    }
    // What has no row any more was delivered after all by the node that had it before.
    let there: HashSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let is_over = |id: &&i64| finished.contains(id) || unreadable.contains(id) || !there.contains(id);
    let over = changed.iter().filter(is_over);
    Ok((standby.get(0), over.copied().map(from_sql).collect()))
}

/// New messages as the columns of their tables.
struct Columns<'a> {
    ids: Vec<i64>,
    entries: Vec<&'a [u8]>,
    sums: Vec<i64>,
    small: Vec<i64>,
    contents: Vec<&'a [u8]>,
    large: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(new: &'a [New]) -> Self {
        let mut small = Vec::new();
        let mut contents: Vec<&[u8]> = Vec::new();
        let mut large = Vec::new();
        for message in new {
            match &message.content {
                Body::Here(content) => {
                    small.push(to_sql(message.id));
                    contents.push(content);
                }
                Body::Uploaded(_) => large.push(to_sql(message.id)),
            }
        }
        Self {
            ids: new.iter().map(|message| to_sql(message.id)).collect(),
            entries: new.iter().map(|message| &*message.entry).collect(),
            sums: new.iter().map(|message| i64::from(message.sum)).collect(),
            small,
            contents,
            large,
        }
    }
}

/// All octets of large contents are there: after a change of the primary, earlier transactions may not be.
fn check_uploads(new: &[New], found: &[Row]) -> Result<(), DatabaseError> {
    let found: HashMap<QueueId, i64> = found.iter().map(|row| (from_sql(row.get(0)), row.get(1))).collect();
    for message in new {
        if let Body::Uploaded(size) = message.content
            && found.get(&message.id).copied().map(i64::unsigned_abs) != Some(size)
        {
            return Err(DatabaseError::Away(format!("a part of the content of {} is gone", message.id)));
        }
    }
    Ok(())
}

/// An entry as its row has it, in any format that the node's own spool reads as well. What is written is always in the
/// current one.
///
/// # Errors
/// [`DatabaseError::Unfit`]: another version wrote it.
pub fn entry(format: i16, bytes: &[u8]) -> Result<Entry, DatabaseError> {
    Entry::read(format.cast_unsigned(), bytes)
        .ok_or_else(|| DatabaseError::Unfit(format!("a message is in format {format}, which this version cannot read")))
}

/// What became of a batch whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Committed,
    /// It can never commit.
    Void,
}

/// Asks what became of a batch: inserts its key as void, which waits for the batch if it is still committing.
///
/// # Errors
/// [`DatabaseError`]: unknown still.
pub async fn settle(connection: &Connection, epoch: i64, key: [u8; 16]) -> Result<Settled, DatabaseError> {
    let client = connection.client();
    // It waits nearly for as long as its caller, so that no session is left behind that waits for ever.
    client.batch_execute("SET lock_timeout = '45s'").await?;
    // Where the epoch has ended its keys are gone, and tell nothing.
    let statement = "INSERT INTO fingerpost.batch (key, epoch, void) \
         SELECT $1, id, true FROM fingerpost.epoch WHERE id = $2 FOR KEY SHARE ON CONFLICT (key) DO NOTHING";
    let inserted = async { Ok(client.execute(statement, &[&&key[..], &epoch]).await?) };
    if connection.without_warning(inserted).await? == 1 {
        return Ok(Settled::Void);
    }
    // Written, so that it is committed with the standby, and with it everything before.
    let statement = "UPDATE fingerpost.batch SET void = void WHERE key = $1 RETURNING void";
    let row = async { Ok(client.query_opt(statement, &[&&key[..]]).await?) };
    let row = connection.without_warning(row).await?;
    match row.map(|row| row.get::<_, bool>(0)) {
        None => Err(DatabaseError::Ended),
        Some(true) => Ok(Settled::Void),
        Some(false) => Ok(Settled::Committed),
    }
}

/// Deletes messages: their clients have them. Again and again is the same as once.
///
/// # Errors
/// [`DatabaseError`].
pub async fn delete(connection: &Connection, ids: &[QueueId]) -> Result<(), DatabaseError> {
    let ids: Vec<i64> = ids.iter().copied().map(to_sql).collect();
    connection.client().batch_execute("BEGIN").await?;
    delete_rows(connection, &ids).await?;
    connection.commit().await
}

/// Deletes messages and their contents, in the transaction that was begun.
async fn delete_rows(connection: &Connection, ids: &[i64]) -> Result<(), DatabaseError> {
    for statement in
        ["DELETE FROM fingerpost.queue WHERE id = ANY ($1)", "DELETE FROM fingerpost.body WHERE id = ANY ($1)"]
    {
        connection.client().execute(statement, &[&ids]).await?;
    }
    Ok(())
}

/// After the epoch has ended: writes what was delivered, wherever the message belongs now. One that another version wrote
/// is left as it is, and named in the log.
///
/// # Errors
/// [`DatabaseError`].
pub async fn delivered_after_all(connection: &Connection, changes: &[Change]) -> Result<(), DatabaseError> {
    use crate::spool::entry::Outcome;
    let is_delivered = |change: &&Change| matches!(&change.state, RecipientState::Done(Outcome::Delivered { .. }));
    let changes: Vec<Change> = changes.iter().filter(is_delivered).cloned().collect();
    if changes.is_empty() {
        return Ok(());
    }
    let client = connection.client();
    let ids: Vec<i64> = changes.iter().map(|change| to_sql(change.id)).collect();
    client.batch_execute("BEGIN").await?;
    let statement = "SELECT id, format, entry FROM fingerpost.queue WHERE id = ANY ($1) ORDER BY id FOR UPDATE";
    let rows = client.query(statement, &[&ids]).await?;
    let Applied { ids, entries, finished, unreadable } = applied::applied(&rows, &changes)?;
    let statement = "UPDATE fingerpost.queue SET format = $1, entry = $2 WHERE id = $3";
    for (id, entry) in ids.iter().zip(&entries) {
        client.execute(statement, &[&FORMAT.cast_signed(), entry, id]).await?;
    }
    delete_rows(connection, &finished).await?;
    connection.commit().await?;
    for queue_id in unreadable.into_iter().map(from_sql) {
        tracing::error!(alert = true, %queue_id, "a message cannot be read: it stays in the database, and may arrive twice");
    }
    Ok(())
}
