//! Attempts that operators request: to reach each server of a directory, and to connect again.

use std::sync::Arc;

use tokio::time::timeout;

use super::LdapDirectory;
use super::change_hold::Holding;
use super::search::Failure;
use super::supervisor::ConnectionState;

/// The result of trying a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// With its port.
    pub url: String,
    /// Why it cannot be used.
    pub result: Result<(), String>,
}

impl LdapDirectory {
    /// Connects to every server, binds, and asks the test question. A password that is rejected is tried at a few
    /// servers only.
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

    /// Why it does not answer; if it does, servers that could not be used when they were last tried. And held changes,
    /// where no snapshot reports them.
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

    /// Connects again, even with a rejected password, and waits for the result.
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
