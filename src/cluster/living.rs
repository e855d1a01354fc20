//! The living nodes, as the database tells them.

use tokio_postgres::Row;

/// The columns that [`Living::read`] reads, for the epoch that is the first parameter. A node lives until another one
/// ends its epoch.
pub(super) const COLUMNS: &str = "count(*) FILTER (WHERE e.node < (SELECT node FROM fingerpost.epoch WHERE id = $1)), \
     count(*), count(DISTINCT h.configuration)";
/// Where they come from: as many rows as nodes live.
pub(super) const NODES: &str = "fingerpost.heartbeat h JOIN fingerpost.epoch e ON e.id = h.epoch";

/// The living nodes, as one of them sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Living {
    /// How many of them have lower numbers than this one.
    pub rank: usize,
    pub nodes: usize,
    /// How many different configurations they have.
    pub configurations: usize,
}

impl Living {
    /// Reads [`COLUMNS`], of which the first is at this position.
    pub(super) fn read(row: &Row, first: usize) -> Self {
        let column = |at: usize| usize::try_from(row.get::<_, i64>(first + at)).unwrap_or_default();
        Self { rank: column(0), nodes: column(1), configurations: column(2) }
    }
}
