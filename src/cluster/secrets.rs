//! Keys that all nodes use: the first node that needs one brings it, and everybody uses that.

use super::database::{Connection, DatabaseError};
use super::spool::ClusterSpool;
use crate::spool::SpoolError;

impl ClusterSpool {
    /// The key of this name that all nodes use, if there is one.
    ///
    /// # Errors
    /// [`SpoolError::Io`] with what to do.
    pub async fn key<const N: usize>(&self, name: &str) -> Result<Option<[u8; N]>, SpoolError> {
        let found = async {
            let connection = self.database().connect().await?;
            connection.while_believed(read(&connection, name)).await
        };
        found.await.map_err(|error| SpoolError::Io(error.to_string()))
    }

    /// The same; `ours` becomes it if there is none yet.
    ///
    /// # Errors
    /// [`SpoolError::Io`] with what to do.
    pub async fn key_or<const N: usize>(&self, name: &str, ours: [u8; N]) -> Result<[u8; N], SpoolError> {
        let found = async {
            let connection = self.database().connect().await?;
            connection.while_believed(read_or_write(&connection, name, ours)).await
        };
        found.await.map_err(|error| SpoolError::Io(error.to_string()))
    }
}

async fn read_or_write<const N: usize>(
    connection: &Connection,
    name: &str,
    ours: [u8; N],
) -> Result<[u8; N], DatabaseError> {
    let statement = "INSERT INTO fingerpost.secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    connection.client().execute(statement, &[&name, &&ours[..]]).await?;
    let found = read(connection, name).await?;
    found.ok_or_else(|| DatabaseError::Unfit(format!("its key `{name}` was deleted just now: start again")))
}

async fn read<const N: usize>(connection: &Connection, name: &str) -> Result<Option<[u8; N]>, DatabaseError> {
    let statement = "SELECT value FROM fingerpost.secret WHERE name = $1";
    let Some(row) = connection.client().query_opt(statement, &[&name]).await? else { return Ok(None) };
    let value: &[u8] = row.get(0);
    let length = || DatabaseError::Unfit(format!("its key `{name}` has {} octets instead of {N}", value.len()));
    value.try_into().map(Some).map_err(|_| length())
}
