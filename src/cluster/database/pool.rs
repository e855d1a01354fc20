//! A few connections that are kept open for whoever needs one.

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use super::{Connection, Database, DatabaseError};

/// A few connections for reading and for large contents.
pub struct Pool {
    database: Database,
    idle: Mutex<Vec<Connection>>,
    slots: Semaphore,
}

/// One of them, in use.
pub struct Pooled<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    _slot: SemaphorePermit<'a>,
}

impl Pool {
    #[must_use]
    pub fn new(database: Database, connections: usize) -> Self {
        Self { database, idle: Mutex::default(), slots: Semaphore::new(connections) }
    }

    /// # Errors
    /// [`DatabaseError::Away`].
    pub async fn get(&self) -> Result<Pooled<'_>, DatabaseError> {
        let slot = self.slots.acquire().await.map_err(|_| DatabaseError::Away("the program ends".into()))?;
        let idle = {
            let mut idle = self.idle.lock().await;
            idle.retain(Connection::is_believed);
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        Ok(Pooled { pool: self, connection: Some(connection), _slot: slot })
    }

    /// The rows of one statement.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn query(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, DatabaseError> {
        let pooled = self.get().await?;
        let rows = async { Ok(pooled.client().query(statement, values).await?) };
        let rows = pooled.connection().while_believed(rows).await?;
        pooled.give_back().await;
        Ok(rows)
    }
}

impl Pooled<'_> {
    #[expect(clippy::expect_used, reason = "it is taken only when this is given back")]
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("in use")
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        self.connection().client()
    }

    /// Keeps the connection for others. One that is dropped instead is closed: its state is unknown.
    pub async fn give_back(mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            self.pool.idle.lock().await.push(connection);
        }
    }
}
