//! One search, on the current connection, and on the next one if that fails.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout, timeout_at};

use super::Asker;
use super::connection::{Connection, ConnectionLoss};
use super::search::Reply;
use super::server::Server;
use super::supervisor::ConnectionState;

impl Asker {
    /// Searches until the time is up, on the next connection if one fails. Returns which server answered.
    pub(super) async fn search(&self, filter: &str) -> Result<(Reply, Arc<Server>), Arc<str>> {
        let deadline = Instant::now() + self.config.timeout;
        let (mut after, mut cause) = (0, None);
        for _ in 0..self.attempts {
            let connection = match self.connection(after, deadline).await {
                Ok(connection) => connection,
                Err(none) => return Err(cause.unwrap_or(none)),
            };
            after = connection.generation;
            let url = &connection.server.url;
            let patience = deadline.min(Instant::now() + self.patience);
            let search = self.doubting(connection.search(&self.config, filter));
            match timeout_at(patience, search).await {
                Ok(Ok(reply)) => {
                    self.health.answered();
                    return Ok((reply, connection.server.clone()));
                }
                Ok(Err(failure)) if !failure.is_servers_fault() => {
                    self.health.answered();
                    let cause: Arc<str> = format!("{url}: {failure}").into();
                    if !failure.is_this_searchs_fault() {
                        self.health.set(&Err(Arc::clone(&cause)));
                    }
                    return Err(cause);
                }
                Ok(Err(failure)) => {
                    cause = Some(format!("{url}: {failure}").into());
                    connection.condemn(ConnectionLoss::Broken(failure.to_string()));
                }
                Err(_) => {
                    cause = Some(format!("{url}: no answer in time").into());
                    connection.condemn(ConnectionLoss::Silent);
                }
            }
        }
        Err(cause.unwrap_or_else(|| "there is no server".into()))
    }

    /// Waits for an answer. If it takes long, the directory is doubtful until it comes: otherwise a frozen server would
    /// be noticed only when a question times out, and cached "not found" answers would be used until then.
    async fn doubting<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        if let Ok(answer) = timeout(self.config.timeout / 3, &mut answer).await {
            return answer;
        }
        let _doubt = self.health.doubt();
        answer.await
    }

    /// The current connection, if it is later than `after`; waits until there is one or it is known that there is none.
    pub(super) async fn connection(&self, after: u64, deadline: Instant) -> Result<Arc<Connection>, Arc<str>> {
        let mut states = self.states.clone();
        if let ConnectionState::Lost(cause) = &*states.borrow() {
            return Err(Arc::clone(cause));
        }
        let known = |state: &ConnectionState| match state {
            ConnectionState::Connecting(_) | ConnectionState::Lost(_) => false,
            ConnectionState::Up(connection) => connection.generation > after,
            ConnectionState::Down(_) => true,
        };
        match timeout_at(deadline, states.wait_for(known)).await.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(ConnectionState::Up(connection))) => return Ok(connection),
            Ok(Ok(ConnectionState::Down(cause))) => return Err(cause),
            Ok(Ok(ConnectionState::Connecting(_) | ConnectionState::Lost(_))) | Err(_) => {}
            Ok(Err(_)) => return Err("the directory is no longer configured".into()),
        }
        match &*self.states.borrow() {
            ConnectionState::Connecting(Some(cause)) | ConnectionState::Lost(cause) => {
                let cause: Arc<str> = format!("no connection in time: {cause}").into();
                self.health.set(&Err(Arc::clone(&cause)));
                Err(cause)
            }
            ConnectionState::Connecting(None) | ConnectionState::Up(_) | ConnectionState::Down(_) => {
                Err("no connection in time".into())
            }
        }
    }
}
