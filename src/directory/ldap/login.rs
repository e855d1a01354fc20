//! Checks a name and password: finds the entry with the directory's own account, then binds as the entry on a
//! connection of its own (RFC 4513 5.1.3), which is used for nothing else.

use std::sync::Arc;

use tokio::time::timeout;

use super::search::{Failure, Reply};
use super::server::Server;
use super::{Asker, LdapDirectory, answer, connection};
use crate::directory::login::{LogIn, Login, MayBind};

impl LdapDirectory {
    /// Asks this directory. The caller has refused empty passwords.
    pub(in crate::directory) async fn log_in(&self, name: &str, password: &str, may_bind: &dyn MayBind) -> LogIn {
        let patience = self.asker.config.timeout * 2;
        let (dn, server) = match timeout(patience, self.asker.find(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(login)) => return login,
            Err(_) => return unavailable("no answer in time"),
        };
        match timeout(patience, may_bind.may_bind(&dn)).await {
            Ok(true) => LogIn::Known(self.asker.bind(&server, &dn, password).await),
            Ok(false) => LogIn::Known(Login::NotAsked),
            Err(_) => unavailable("other passwords for this account are under way and not answered in time"),
        }
    }
}

impl Asker {
    /// The distinguished name of the only entry for this login name, and the server that returned it.
    async fn find(&self, name: &str) -> Result<(String, Arc<Server>), LogIn> {
        let filter = self.config.profile.login_filter(name).to_string();
        // Dropping the future leaves the queue.
        let _place = self.logins.acquire().await;
        let (found, server) = self.search(&filter).await.map_err(|cause| unavailable(&cause))?;
        match found.entries.as_slice() {
            [] => Err(match self.is_complete(&found).await {
                Ok(()) => LogIn::Unknown,
                Err(doubt) => unavailable(&doubt),
            }),
            // RFC 4513 5.1.2: a bind without a name succeeds as anonymous.
            [entry] if entry.dn.is_empty() => Err(unavailable("an entry without a name")),
            [entry] => Ok((entry.dn.clone(), server)),
            _ => Err(unavailable("several entries have this name")),
        }
    }

    /// Whether "not found" can be believed: everything was searched, and the probe is there.
    async fn is_complete(&self, found: &Reply) -> Result<(), Arc<str>> {
        answer::complete(found)?;
        let Some(probe) = &self.config.probe else { return Ok(()) };
        let (reply, _) = self.search(&self.config.profile.filter([probe]).to_string()).await?;
        answer::read(&self.config, &reply, probe).health
    }

    /// Tries the password. Before the connection is established nothing is sent; afterwards a missing answer proves
    /// nothing, and the directory may have counted a wrong password.
    async fn bind(&self, server: &Arc<Server>, dn: &str, password: &str) -> Login {
        let patience = self.config.timeout;
        let link = match timeout(patience, connection::open(server, &self.config, 0)).await {
            Ok(Ok(link)) => link,
            Ok(Err(failure)) => return Login::Unavailable(failure.to_string()),
            Err(_) => return Login::Unavailable("no connection in time".into()),
        };
        match timeout(patience, link.connection.ldap().simple_bind(dn, password)).await {
            Ok(Ok(answer)) => login(dn, Failure::check("the bind", &answer)),
            Ok(Err(broken)) => Login::Unanswered(Failure::from(broken).to_string()),
            Err(_) => Login::Unanswered("no answer in time".into()),
        }
    }
}

/// Interprets an answer. After operationsError, timeLimitExceeded, unavailable and other, the server may have checked
/// the password; after all other errors it has not.
fn login(dn: &str, answer: Result<(), Failure>) -> Login {
    let Err(failure) = answer else { return Login::Accepted };
    match (failure.refused_login(), &failure) {
        (Some(why), _) => Login::Rejected(format!("{dn}: {why}")),
        (None, Failure::Refused { code: 1 | 3 | 52 | 80, .. }) => Login::Unanswered(failure.to_string()),
        (None, _) => Login::Unavailable(failure.to_string()),
    }
}

fn unavailable(cause: &str) -> LogIn {
    LogIn::Known(Login::Unavailable(cause.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_looked_at_is_no_knowledge() {
        let of = |code| login("uid=ann", Err(Failure::Refused { doing: "the bind", code, text: String::new() }));
        assert_eq!(login("uid=ann", Ok(())), Login::Accepted);
        for (codes, expected) in [
            (&[19, 48, 49, 53][..], "rejected"),
            (&[1, 3, 52, 80], "unanswered"),
            (&[2, 7, 8, 10, 11, 13, 14, 32, 34, 51, 118], "unavailable"),
        ] {
            for code in codes {
                let became = match of(*code) {
                    Login::Rejected(_) => "rejected",
                    Login::Unanswered(_) => "unanswered",
                    Login::Unavailable(_) => "unavailable",
                    Login::Accepted | Login::NotAsked => "another",
                };
                assert_eq!(became, expected, "{code}");
            }
        }
    }
}
