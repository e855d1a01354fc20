//! When nodes read directories as a whole. Some changes show in whole reads only, deletions in Active Directory above all:
//! where one node has read, the others read too, so that they never differ for longer than a minute and a read.

use super::database::DatabaseError;
use super::spool::ClusterSpool;
use crate::time::QueueTime;

/// How much later the last read of another node may have begun: queue times of nodes differ by up to ten seconds.
const APART: u64 = 30;

/// When a whole read of a directory began, by the queue's time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRead {
    pub directory: String,
    pub at: QueueTime,
}

impl DirectoryRead {
    /// Whether another node's read, `last`, shows what this one did not.
    #[must_use]
    pub fn is_behind(&self, last: &Self) -> bool {
        self.directory == last.directory && last.at.0 > self.at.0 + APART
    }
}

impl ClusterSpool {
    /// Tells this node's reads to the others; returns the last read of each directory by any node.
    ///
    /// # Errors
    /// [`DatabaseError`]; the same again later is as good.
    pub async fn tell_reads(&self, own: &[DirectoryRead]) -> Result<Vec<DirectoryRead>, DatabaseError> {
        let rows = self.pool().query("SELECT directory, at FROM fingerpost.directory_read", &[]).await?;
        let read = |row: &tokio_postgres::Row| DirectoryRead {
            directory: row.get(0),
            at: QueueTime(row.get::<_, i64>(1).unsigned_abs()),
        };
        let all: Vec<DirectoryRead> = rows.iter().map(read).collect();
        let is_news =
            |own: &&DirectoryRead| !all.iter().any(|last| last.directory == own.directory && last.at >= own.at);
        let news: Vec<&DirectoryRead> = own.iter().filter(is_news).collect();
        if !news.is_empty() {
            let directories: Vec<&str> = news.iter().map(|read| &*read.directory).collect();
            let times: Vec<i64> = news.iter().map(|read| read.at.0.cast_signed()).collect();
            let statement = "INSERT INTO fingerpost.directory_read AS known (directory, at) \
                 SELECT * FROM unnest($1::text[], $2::bigint[]) \
                 ON CONFLICT (directory) DO UPDATE SET at = greatest(known.at, excluded.at) RETURNING 1";
            self.pool().query(statement, &[&directories, &times]).await?;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_behind_one_that_began_well_after_it() {
        let read = |directory: &str, at| DirectoryRead { directory: directory.to_owned(), at: QueueTime(at) };
        for (own, last, expected) in [
            (read("ad", 100), read("ad", 131), true),
            (read("ad", 100), read("ad", 130), false), // clocks, or both at once
            (read("ad", 100), read("ad", 40), false),
            (read("ad", 100), read("notes", 900), false),
        ] {
            assert_eq!(own.is_behind(&last), expected, "{own:?} {last:?}");
        }
    }
}
