//! Rows of the queue with what became of their messages.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::batch::entry;
use super::database::DatabaseError;
use super::ids::to_sql;
use crate::spool::entry::Change;

/// Entries with their changes.
#[derive(Default)]
pub(super) struct Applied {
    /// Those that go on, and what they are now.
    pub(super) ids: Vec<i64>,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) finished: Vec<i64>,
    /// Those that another version wrote: nothing can be applied to them here, and they must not spoil the others.
    pub(super) unreadable: Vec<i64>,
}

/// Applies changes to rows of id, format and entry.
///
/// # Errors
/// [`DatabaseError::Unfit`]: an entry cannot be written.
pub(super) fn applied(rows: &[Row], changes: &[Change]) -> Result<Applied, DatabaseError> {
    let mut applied = Applied::default();
    let mut of: HashMap<i64, Vec<&Change>> = HashMap::new();
    for change in changes {
        of.entry(to_sql(change.id)).or_default().push(change);
    }
    for row in rows {
        let id = row.get::<_, i64>(0);
        let Ok(mut entry) = entry(row.get(1), row.get(2)) else {
            applied.unreadable.push(id);
            continue;
        };
        of.remove(&id).into_iter().flatten().for_each(|change| entry.apply(change));
        if entry.is_finished() {
            applied.finished.push(id);
        } else {
            applied.ids.push(id);
            applied.entries.push(entry.to_bytes().map_err(|error| DatabaseError::Unfit(error.to_string()))?);
        }
    }
    Ok(applied)
}
