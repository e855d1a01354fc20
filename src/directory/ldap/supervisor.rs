//! Keeps one connection to the first server that answers, for as long as the directory is configured.
//!
//! `LdapDirectory` spawns it; it tells the questions through [`State`] which connection to use. After a failure the
//! servers are tried in order, beginning with the next one; while a later server is used, the earlier ones are tried
//! every minute. Each connection is tested with a question before it is used, and whenever it has been idle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer;
use super::connection::{self, Connection, End, Link};
use super::pulse::Pulse;
use super::search::Failure;
use super::server::Server;
use crate::config::LdapConfig;

/// How often the servers before the one in use are tried.
const RETURN_AFTER: Duration = Duration::from_secs(60);

/// A connection that was idle for so long is tested.
const IDLE: Duration = Duration::from_secs(30);

/// A connection that ends sooner counts as a failure.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// Pauses after failures in a row: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A password that was rejected is not tried again for so long, lest the account be locked; a new one is.
const REJECTED_FOR: Duration = Duration::from_secs(60);

/// What the questions are to do.
#[derive(Clone)]
pub(super) enum State {
    /// Wait.
    Connecting,
    /// Use this connection.
    Up(Arc<Connection>),
    /// Answer `Unavailable`, for this reason.
    Down(Arc<str>),
}

pub(super) struct Supervisor {
    name: Arc<str>,
    config: LdapConfig,
    servers: Vec<Arc<Server>>,
    states: watch::Sender<State>,
    pulse: Arc<Pulse>,
    generation: AtomicU64,
    rejected: Mutex<Option<Rejected>>,
}

struct Rejected {
    password: String,
    at: Instant,
    code: u32,
    text: String,
}

/// Why no server could be connected to.
enum Failed {
    /// At least one did not answer in time: tried again at once, until the breaker opens.
    Silent(Arc<str>),
    /// All said no.
    Refused(Arc<str>),
}

impl Supervisor {
    pub(super) fn new(
        name: Arc<str>,
        config: LdapConfig,
        servers: Vec<Arc<Server>>,
        pulse: Arc<Pulse>,
    ) -> (Self, watch::Receiver<State>) {
        let (states, receiver) = watch::channel(State::Connecting);
        let (generation, rejected) = (AtomicU64::new(0), Mutex::new(None));
        (Self { name, config, servers, states, pulse, generation, rejected }, receiver)
    }

    pub(super) async fn run(self) {
        let (mut first, mut failures) = (0, 0);
        loop {
            let (cause, after) = match self.connect(first).await {
                Ok(link) => {
                    let ended = self.serve(link).await;
                    first = ended.next % self.servers.len();
                    failures = if ended.short_lived { failures + 1 } else { 0 };
                    // A server that was restarted is back at once; one that drops every connection is not.
                    (ended.cause, if failures > 1 { pause(failures) } else { Duration::ZERO })
                }
                Err(Failed::Silent(cause)) => (cause, Duration::ZERO),
                Err(Failed::Refused(cause)) => {
                    failures += 1;
                    (cause, pause(failures))
                }
            };
            let wait = self.pulse.until_test().unwrap_or_default().max(after);
            if !wait.is_zero() {
                self.down(cause);
                sleep(wait).await;
            }
        }
    }

    /// One round over the servers. One whose test question is answered as it should be is preferred.
    async fn connect(&self, first: usize) -> Result<Link, Failed> {
        let (before, after) = self.servers.split_at(first.min(self.servers.len()));
        let (mut causes, mut silent, mut second_best) = (Vec::new(), false, None);
        for server in after.iter().chain(before) {
            match timeout(self.config.timeout / 3, self.open(server)).await {
                Ok(Ok(link)) if link.health.is_ok() => return Ok(link),
                Ok(Ok(link)) => second_best = second_best.or(Some(link)),
                Ok(Err(failure)) => causes.push(format!("{}: {failure}", server.url)),
                Err(_) => {
                    silent = true;
                    server.fell_silent();
                    causes.push(format!("{}: no answer in time", server.url));
                    self.pulse.timed_out();
                    if self.pulse.until_test().is_some() {
                        // Nobody waits for the rest of the round.
                        self.down(causes.join("; ").into());
                    }
                }
            }
        }
        match second_best {
            Some(link) => Ok(link),
            None if silent => Err(Failed::Silent(causes.join("; ").into())),
            None => Err(Failed::Refused(causes.join("; ").into())),
        }
    }

    /// Connects to a server and asks the test question.
    async fn open(&self, server: &Arc<Server>) -> Result<Link, Failure> {
        let password = self.password()?;
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        let opened = connection::open(server, &self.config, password.as_deref(), generation).await;
        let mut link = opened.inspect_err(|failure| self.remember(failure, password.as_deref()))?;
        link.health = self.test(&link.connection).await?;
        Ok(link)
    }

    /// The test question: the probe, or whether the bases are there. An unclean answer is an answer.
    async fn test(&self, connection: &Connection) -> Result<Result<(), Arc<str>>, Failure> {
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

    /// The password, read anew for each connection; `None` for an anonymous one.
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
        let password = text.trim_end_matches(['\r', '\n']);
        // RFC 4513 5.1.2: servers take an empty password for an anonymous bind and call it success.
        if password.is_empty() {
            return Err(Failure::NotTried(format!("password_file {} is empty; write the password", path.display())));
        }
        match &*self.rejected.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(rejected) if rejected.password == password && rejected.at.elapsed() < REJECTED_FOR => {
                Err(Failure::Refused { doing: "the bind", code: rejected.code, text: rejected.text.clone() })
            }
            _ => Ok(Some(password.to_owned())),
        }
    }

    fn remember(&self, failure: &Failure, password: Option<&str>) {
        if let (Failure::Refused { code, text, .. }, Some(password)) = (failure, password)
            && failure.is_rejected_credentials()
        {
            let rejected =
                Rejected { password: password.to_owned(), at: Instant::now(), code: *code, text: text.clone() };
            *self.rejected.lock().unwrap_or_else(PoisonError::into_inner) = Some(rejected);
        }
    }

    /// Lets the questions use the connection until it ends; moves to an earlier server when one is back.
    async fn serve(&self, mut link: Link) -> Ended {
        loop {
            let server = Arc::clone(&link.connection.server);
            tracing::debug!(directory = %self.name, server = server.url, "connected");
            self.pulse.passed_test();
            self.pulse.health(&link.health);
            self.states.send_replace(State::Up(Arc::clone(&link.connection)));
            let end = tokio::select! {
                end = &mut link.driver => connection::ended(end),
                end = link.connection.condemned() => end,
                () = self.falls_silent(&link.connection) => End::Silent,
                earlier = self.earlier(server.index) => {
                    // Questions under way end on the old connection, which goes with the last of them.
                    link.driver.detach();
                    link = earlier;
                    continue;
                }
            };
            tracing::debug!(directory = %self.name, server = server.url, "connection ended: {end:?}");
            self.states.send_replace(State::Connecting);
            return self.ended(&link, end);
        }
    }

    fn ended(&self, link: &Link, end: End) -> Ended {
        let server = &link.connection.server;
        let short_lived = link.opened.elapsed() < SHORT_LIVED;
        match end {
            End::Silent => {
                server.fell_silent();
                self.pulse.timed_out();
                let cause = format!("{}: no answer in time", server.url).into();
                Ended { next: server.index + 1, short_lived: false, cause }
            }
            End::Broken(why) => {
                let next = if short_lived { server.index + 1 } else { server.index };
                Ended { next, short_lived, cause: format!("{}: {why}", server.url).into() }
            }
        }
    }

    /// Returns when an idle connection does not answer the test question.
    async fn falls_silent(&self, connection: &Connection) {
        loop {
            sleep(IDLE).await;
            if connection.idle() < IDLE {
                continue;
            }
            match timeout(self.config.timeout / 3, self.test(connection)).await {
                Ok(Ok(health)) => self.pulse.health(&health),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Returns when a server before that one is back.
    async fn earlier(&self, index: usize) -> Link {
        loop {
            sleep(RETURN_AFTER).await;
            for server in self.servers.iter().take(index) {
                match timeout(self.config.timeout / 3, self.open(server)).await {
                    Ok(Ok(link)) if link.health.is_ok() => return link,
                    Ok(Ok(_) | Err(_)) | Err(_) => {}
                }
            }
        }
    }

    fn down(&self, cause: Arc<str>) {
        self.pulse.health(&Err(Arc::clone(&cause)));
        self.states.send_replace(State::Down(cause));
    }
}

/// How serving a connection ended.
struct Ended {
    /// The server to begin with; may be one too far.
    next: usize,
    short_lived: bool,
    cause: Arc<str>,
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}
