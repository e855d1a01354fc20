//! Opens connections to the servers of a directory, with its own account, and tracks each server's state.
//!
//! `supervisor` keeps the connection that it uses and tries the other servers; `check --connect` tries all. Only it
//! binds with the directory's account, so it has the limit for rejected passwords.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGaugeVec;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::answer;
use super::connection::{self, Connection, Credentials, Link};
use super::rejected::{FOR, Rejected, Sent, UNANSWERED_FOR};
use super::search::Failure;
use super::server::Server;
use crate::config::LdapConfig;
use crate::metrics::Metrics;
use crate::time::UnixTime;

/// How often a server that is not in use is tried; sooner if it did not answer.
const TRY_AGAIN: Duration = Duration::from_hours(1);
const TRY_DEAD_AGAIN: Duration = Duration::from_mins(5);

/// Rejected passwords; handed to the directory's successor after a reload.
pub(super) type SharedRejected = Arc<Mutex<Rejected>>;

pub(super) struct Opener {
    name: Arc<str>,
    config: LdapConfig,
    pub(super) servers: Vec<Arc<Server>>,
    generation: AtomicU64,
    rejected: SharedRejected,
    standings: Mutex<Vec<Standing>>,
    up: IntGaugeVec,
    /// Whether a successor of the same name reports the servers' state.
    gave_way: AtomicBool,
    /// Wakes the supervisor when an operator wants another attempt.
    pub(super) again: Notify,
}

/// The state of a server.
#[derive(Debug, Clone, Default)]
struct Standing {
    tried: Option<Instant>,
    /// Why it cannot be used; `None`: it can.
    problem: Option<String>,
    /// Whether that was logged.
    told: bool,
}

impl Opener {
    pub(super) fn new(
        name: &Arc<str>,
        config: &LdapConfig,
        servers: Vec<Arc<Server>>,
        rejected: SharedRejected,
        metrics: &Metrics,
    ) -> Self {
        Self {
            name: Arc::clone(name),
            config: config.clone(),
            generation: AtomicU64::new(0),
            rejected,
            standings: Mutex::new(vec![Standing::default(); servers.len()]),
            servers,
            up: metrics.directory_server_up.clone(),
            gave_way: AtomicBool::new(false),
            again: Notify::new(),
        }
    }

    /// The rejected passwords, for a successor with the same account.
    pub(super) fn rejected_of(&self, config: &LdapConfig) -> Option<SharedRejected> {
        (self.config.bind_dn == config.bind_dn).then(|| Arc::clone(&self.rejected))
    }

    /// Connects to a server, binds, and asks the test question.
    pub(super) async fn open(self: &Arc<Self>, server: &Arc<Server>) -> Result<Link, Failure> {
        let limit = self.config.timeout / 3;
        let opened = timeout(limit, self.try_to_open(server)).await.unwrap_or_else(|_| {
            server.fell_silent();
            Err(Failure::Silent(limit))
        });
        match &opened {
            Ok(link) => self.is_now(server, link.health.as_ref().err().map(ToString::to_string)),
            // These say nothing about the server.
            Err(Failure::NotTried(_) | Failure::Rejected(_)) => self.was_tried(server),
            Err(failure) => self.is_now(server, Some(failure.to_string())),
        }
        opened
    }

    /// A successor reports the servers' state from now on.
    pub(super) fn give_way(&self) {
        self.gave_way.store(true, Ordering::Relaxed);
    }

    /// Whether a server that is not in use should be tried now.
    pub(super) fn is_due(&self, server: &Server) -> bool {
        let standings = self.standings.lock();
        let Some(standing) = standings.get(server.index) else { return false };
        let pause = if standing.problem.is_some() { TRY_DEAD_AGAIN } else { TRY_AGAIN };
        standing.tried.is_none_or(|tried| tried.elapsed() >= pause)
    }

    /// The server in use does not answer.
    pub(super) fn fell_silent(&self, server: &Server) {
        server.fell_silent();
        self.is_now(server, Some("no answer in time".to_owned()));
    }

    /// Logs once each which other servers cannot be used, and which can again.
    pub(super) fn log(&self, in_use: &Server) {
        for (server, standing) in self.servers.iter().zip(self.standings.lock().iter_mut()) {
            match &standing.problem {
                Some(problem) if !standing.told => {
                    // If no server is usable, the one in use is not either.
                    let instead = if server.url == in_use.url { "" } else { &format!(", {} is used", in_use.url) };
                    tracing::warn!(
                        directory = %self.name,
                        "server {} does not answer as it should{instead}: {problem}",
                        server.url
                    );
                }
                None if standing.told => tracing::info!(directory = %self.name, "server {} answers again", server.url),
                Some(_) | None => continue,
            }
            standing.told = standing.problem.is_some();
        }
    }

    /// The servers that cannot be used, and why.
    pub(super) fn problems(&self) -> Vec<String> {
        let standings = self.standings.lock();
        let of = |(server, standing): (&Arc<Server>, &Standing)| {
            standing.problem.as_ref().map(|problem| format!("server {}: {problem}", server.url))
        };
        self.servers.iter().zip(standings.iter()).filter_map(of).collect()
    }

    /// An operator wants a rejected password tried again.
    pub(super) fn try_again(&self) {
        self.rejected.lock().forget();
        self.again.notify_one();
    }

    /// Whether a password was rejected and the file has another one now.
    pub(super) fn has_another_password(&self) -> bool {
        let Some(path) = self.config.password_file.as_ref().filter(|_| self.rejected.lock().has_any()) else {
            return false;
        };
        std::fs::read_to_string(path).is_ok_and(|text| self.rejected.lock().is_another(trimmed(&text)))
    }

    async fn try_to_open(self: &Arc<Self>, server: &Arc<Server>) -> Result<Link, Failure> {
        let password = self.password()?;
        if let Some(password) = &password {
            self.may_try(server, password)?;
        }
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let link = connection::open(server, &self.config, generation).await?;
        let mut link = match password {
            Some(password) => self.bind(link, password).await?,
            None if self.config.certificate.is_some() && server.is_encrypted() => {
                link.bind(&self.config, Credentials::Certificate).await?
            }
            None => link,
        };
        link.health = self.test(&link.connection).await?;
        Ok(link)
    }

    fn may_try(&self, server: &Server, password: &str) -> Result<(), Failure> {
        let may_try = self.rejected.lock().may_try(&server.url, password, Instant::now().into_std());
        may_try.map_err(Failure::Rejected)
    }

    /// Binds with a password. The bind continues even if the caller is gone: servers delay the refusal of a wrong
    /// password, and another bind would count as a further attempt.
    async fn bind(self: &Arc<Self>, link: Link, password: String) -> Result<Link, Failure> {
        let opener = Arc::clone(self);
        let bind = tokio::spawn(async move {
            let server = Arc::clone(&link.connection.server);
            let sent = opener.rejected.lock().sent(&password, Instant::now().into_std());
            let bind = link.bind(&opener.config, Credentials::Password(&password));
            let bound = timeout(UNANSWERED_FOR, bind).await.unwrap_or(Err(Failure::Silent(UNANSWERED_FOR)));
            match &bound {
                Ok(_) => opener.rejected.lock().accepted(sent),
                Err(failure) if failure.is_rejected_credentials() => {
                    return Err(opener.was_rejected(&server, sent, failure));
                }
                Err(_) => drop(opener.rejected.lock().settle(sent)),
            }
            bound
        });
        bind.await.unwrap_or_else(|_| Err(Failure::Broken("the bind broke off".to_owned())))
    }

    fn was_rejected(&self, server: &Server, sent: Sent, failure: &Failure) -> Failure {
        let said = format!(
            "{failure}; at {}, and to keep the account from being locked this password is not tried again for {} minutes, \
             unless password_file changes or `fingerpost directory refresh {}` says that it is right now",
            UnixTime::now(),
            FOR.as_secs() / 60,
            self.name
        );
        let words: Arc<str> = format!("{}: {said}", server.url).into();
        self.is_now(server, Some(said));
        self.rejected.lock().rejected(sent, &server.url, Instant::now().into_std(), &words);
        Failure::Rejected(words)
    }

    /// Asks the test question: the probe, or whether the bases exist. An answer that is not clean is an answer.
    pub(super) async fn test(&self, connection: &Connection) -> Result<Result<(), Arc<str>>, Failure> {
        let health = match &self.config.probe {
            Some(probe) => {
                let filter = self.config.profile.filter([probe]).to_string();
                let reply = connection.search(&self.config, &filter).await;
                reply.map(|reply| answer::read(&self.config, &reply, probe).health)
            }
            None => connection.see_bases(&self.config).await.map(Ok),
        };
        match health {
            Ok(health) => Ok(health),
            Err(failure) if failure.is_servers_fault() => Err(failure),
            Err(failure) => Ok(Err(format!("{}: {failure}", connection.server.url).into())),
        }
    }

    /// The password, read again for each connection; `None`: the bind is by certificate or anonymous.
    fn password(&self) -> Result<Option<String>, Failure> {
        if self.config.bind_dn.is_empty() {
            return Ok(None);
        }
        let Some(path) = &self.config.password_file else {
            return Err(Failure::NotTried("bind_dn without a password; write password_file".to_owned()));
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::NotTried(format!("password_file {}: {error}; check the path and its rights", path.display()))
        })?;
        let password = trimmed(&text);
        // RFC 4513 5.1.2: servers treat a bind with an empty password as anonymous, and it succeeds.
        if password.is_empty() {
            return Err(Failure::NotTried(format!("password_file {} is empty; write the password", path.display())));
        }
        Ok(Some(password.to_owned()))
    }

    fn is_now(&self, server: &Server, problem: Option<String>) {
        if !self.gave_way.load(Ordering::Relaxed) {
            self.up.with_label_values(&[&*self.name, &server.url]).set(i64::from(problem.is_none()));
        }
        if let Some(standing) = self.standings.lock().get_mut(server.index) {
            (standing.tried, standing.problem) = (Some(Instant::now()), problem);
        }
    }

    fn was_tried(&self, server: &Server) {
        if let Some(standing) = self.standings.lock().get_mut(server.index) {
            standing.tried = Some(Instant::now());
        }
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}
