//! What operators have tried: each server of a directory, and a connection that had been given up.

use std::sync::Arc;

use tokio::time::timeout;

use super::LdapDirectory;
use super::change_hold::Holding;
use super::search::Failure;
use super::supervisor::ConnectionState;

/// What came of trying a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// As it is written, with its port.
    pub url: String,
    /// Why it would be no use; `Ok`: it would answer.
    pub result: Result<(), String>,
}

impl LdapDirectory {
    /// Connects to every server, binds, and asks the test question. A password that one of them rejects is tried at few.
    pub async fn try_servers(&self) -> Vec<Tried> {
        let mut tried = Vec::new();
        for server in &self.opener.servers {
            let result = match self.opener.open(server).await {
                Ok(link) => link.health.map_err(|cause| cause.to_string()),
                Err(Failure::Rejected(words)) if !words.starts_with(server.url.as_str()) => {
                    Err(format!("not tried: {words}"))
                }
                Err(failure) => Err(failure.to_string()),
            };
            tried.push(Tried { url: server.url.clone(), result });
        }
        tried
    }

    /// Why it does not answer; where it does, which servers were no use when they were last tried. And what is held where no
    /// snapshot says so.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problem = match self.asker.health.problem() {
            Some(cause) => vec![cause.to_string()],
            None => self.opener.problems(),
        };
        let held = self.holding.as_ref().map_or(0, Holding::held);
        if held > 0 {
            let name = &self.asker.name;
            problem.push(format!(
                "changes of {held} recipients are held, and their mail gets 451: see fingerpost directory held {name}"
            ));
        }
        problem
    }

    /// Has what was given up tried again, a rejected password too, and waits for what comes of it.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn connect_again(&self) -> Result<(), Arc<str>> {
        let mut states = self.asker.states.clone();
        let is_up = matches!(&*states.borrow_and_update(), ConnectionState::Up(_));
        self.opener.try_again();
        if is_up {
            return Ok(());
        }
        let told = async {
            while states.changed().await.is_ok() {
                match &*states.borrow_and_update() {
                    ConnectionState::Up(_) => return Ok(()),
                    ConnectionState::Down(cause) | ConnectionState::Lost(cause) => return Err(Arc::clone(cause)),
                    ConnectionState::Connecting(_) => {}
                }
            }
            Err("the directory is no longer configured".into())
        };
        timeout(self.asker.config.timeout, told).await.unwrap_or_else(|_| {
            Err(match &*self.asker.states.borrow() {
                ConnectionState::Connecting(Some(cause)) => Arc::clone(cause),
                _ => "no connection in time".into(),
            })
        })
    }
}
