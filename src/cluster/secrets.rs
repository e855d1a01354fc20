//! Keys that all nodes share: the first node that needs one brings it, and everybody uses that.

use super::database::{Connection, DatabaseError};

/// The key of this name. `ours` becomes it if there is none yet.
pub(super) async fn shared<const N: usize>(
    connection: &Connection,
    name: &str,
    ours: [u8; N],
) -> Result<[u8; N], DatabaseError> {
    let statement = "INSERT INTO fingerpost.secret (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    connection.client().execute(statement, &[&name, &&ours[..]]).await?;
    let found = existing(connection, name).await?;
    found.ok_or_else(|| DatabaseError::Unfit(format!("its key `{name}` was deleted just now: start again")))
}

/// The key of this name, if there is one.
pub(super) async fn existing<const N: usize>(
    connection: &Connection,
    name: &str,
) -> Result<Option<[u8; N]>, DatabaseError> {
    let statement = "SELECT value FROM fingerpost.secret WHERE name = $1";
    let Some(row) = connection.client().query_opt(statement, &[&name]).await? else { return Ok(None) };
    let value: &[u8] = row.get(0);
    let length = || DatabaseError::Unfit(format!("its key `{name}` has {} octets instead of {N}", value.len()));
    value.try_into().map(Some).map_err(|_| length())
}
