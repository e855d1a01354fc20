//! Whether a name and a password belong together: the entry is found with the directory's own account, then bound as on
//! a connection of its own (RFC 4513 5.1.3), which says nothing else and ends with it.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::search::{Failure, Reply};
use super::server::Server;
use super::{Asker, LdapDirectory, answer, connection};
use crate::config::LdapConfig;
use crate::directory::{LogIn, Login, MayBind};

impl LdapDirectory {
    /// Asks this directory. The caller has refused empty passwords.
    pub(in crate::directory) async fn log_in(&self, name: &str, password: &str, may_bind: MayBind<'_>) -> LogIn {
        let until = Instant::now() + self.asker.config.timeout * 2;
        match timeout_at(until, self.asker.log_in(name, password, may_bind)).await {
            Ok(answer) => answer,
            Err(_) => LogIn::Known(Login::Unavailable("no answer in time".into())),
        }
    }
}

impl Asker {
    async fn log_in(&self, name: &str, password: &str, may_bind: MayBind<'_>) -> LogIn {
        let filter = self.config.profile.login_filter(name).to_string();
        let (found, server) = match self.search(&filter).await {
            Ok(found) => found,
            Err(cause) => return unavailable(&cause),
        };
        let entry = match found.entries.as_slice() {
            [] => {
                return match self.is_complete(&found).await {
                    Ok(()) => LogIn::Unknown,
                    Err(doubt) => unavailable(&doubt),
                };
            }
            // RFC 4513 5.1.2: without a name a bind succeeds as nobody.
            [entry] if entry.dn.is_empty() => return unavailable("an entry without a name"),
            [entry] => entry,
            _ => return unavailable("several entries have this name"),
        };
        if !may_bind(&entry.dn) {
            return LogIn::Known(Login::NotAsked);
        }
        LogIn::Known(match bind(&server, &self.config, &entry.dn, password).await {
            Ok(()) => Login::Accepted,
            Err(failure) => match failure.refused_login() {
                Some(why) => Login::Rejected(format!("{}: {why}", entry.dn)),
                None => Login::Unavailable(failure.to_string()),
            },
        })
    }

    /// Whether a not-found can be believed: there is no part that was not searched, and the probe is there.
    async fn is_complete(&self, found: &Reply) -> Result<(), Arc<str>> {
        answer::complete(found)?;
        let Some(probe) = &self.config.probe else { return Ok(()) };
        let (reply, _) = self.search(&self.config.profile.filter([probe]).to_string()).await?;
        answer::read(&self.config, &reply, probe).health
    }
}

async fn bind(server: &Arc<Server>, config: &LdapConfig, dn: &str, password: &str) -> Result<(), Failure> {
    let config = LdapConfig { bind_dn: dn.to_owned(), ..config.clone() };
    connection::open(server, &config, Some(password), 0).await.map(drop)
}

fn unavailable(cause: &str) -> LogIn {
    LogIn::Known(Login::Unavailable(cause.to_owned()))
}
