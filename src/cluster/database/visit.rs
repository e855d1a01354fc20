//! Every host of the database by itself, for an operator: [`Database::connect`] is content with the one that takes writes.

use futures_util::future::join_all;
use tokio_postgres::config::{Host, TargetSessionAttrs};

use super::{CONNECT, Connection, Database, DatabaseError, Server, away_too_long};

/// One host, and what it is.
pub struct Visited {
    /// `db1:5432`.
    pub host: String,
    pub answer: Result<Role, DatabaseError>,
}

/// What a host is that lets us in.
pub enum Role {
    /// It takes writes.
    Primary(Connection),
    /// It follows a primary.
    Standby,
    /// It is no standby, and takes no writes: `default_transaction_read_only` is on.
    ReadOnly,
}

impl Database {
    /// Whether everything that is said to it can be read on the way: `sslmode=disable`.
    #[must_use]
    pub fn is_in_clear(&self) -> bool {
        self.tls.is_none()
    }

    /// Visits all hosts at once, in the order in which they are written.
    ///
    /// # Errors
    /// The password cannot be read.
    pub async fn visit_all(&self) -> Result<Vec<Visited>, DatabaseError> {
        let password = self.password().await?;
        let mut any = self.clone();
        any.config.target_session_attrs(TargetSessionAttrs::Any);
        let visits = any.hosts.iter().map(|server| async {
            let answer = tokio::time::timeout(CONNECT, any.visit(server, password.as_deref())).await;
            Visited { host: shown(server), answer: answer.unwrap_or_else(|_| Err(away_too_long())) }
        });
        Ok(join_all(visits).await)
    }

    async fn visit(&self, server: &Server, password: Option<&str>) -> Result<Role, DatabaseError> {
        let mut connection = self.open(server, password).await?;
        let statement = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
        let row = connection.client().query_one(statement, &[]).await?;
        match (row.get(0), row.get(1)) {
            (true, _) => Ok(Role::Standby),
            (false, true) => Ok(Role::ReadOnly),
            (false, false) => {
                connection.read_timeline().await?;
                Ok(Role::Primary(connection))
            }
        }
    }
}

/// `db1:5432`, or the folder of a socket.
pub(super) fn shown(server: &Server) -> String {
    match &server.host {
        Host::Tcp(name) => format!("{name}:{}", server.port),
        Host::Unix(folder) => folder.display().to_string(),
    }
}
