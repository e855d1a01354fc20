//! Keeps one connection to the first server that answers, for as long as the directory is configured.
//! `LdapDirectory` spawns it; questions get their connection through [`ConnectionState`]. After a failure the servers
//! are tried in order, beginning with the next one; while a later server is used, the earlier ones are tried every
//! minute. Each connection is tested with a question before use, and after it was idle.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::{self, Connection, ConnectionLoss, Link};
use super::health::DirectoryHealth;
use super::opener::Opener;
use super::search::Failure;
use super::server::Server;

/// How often servers before the one in use are tried.
const RETURN_AFTER: Duration = Duration::from_secs(60);

/// A connection that was idle for this long is tested.
const IDLE: Duration = Duration::from_secs(30);

/// A connection that ends sooner counts as a failure.
const SHORT_LIVED: Duration = Duration::from_secs(1);

/// Pauses after consecutive failures, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often the password file is checked for a change.
const LOOK_AT_FILE: Duration = Duration::from_millis(500);

/// What questions do.
#[derive(Clone)]
pub(super) enum ConnectionState {
    /// They wait. The reason why there is no connection yet, if known.
    Connecting(Option<Arc<str>>),
    /// They use this connection.
    Up(Arc<Connection>),
    /// The server in use has been gone for longer than a question may take. Questions that wait already go on waiting;
    /// new ones are answered `Unavailable` for this reason.
    Lost(Arc<str>),
    /// They are answered `Unavailable` for this reason.
    Down(Arc<str>),
}

pub(super) struct Supervisor {
    name: Arc<str>,
    /// The time limit of a question.
    timeout: Duration,
    opener: Arc<Opener>,
    states: watch::Sender<ConnectionState>,
    health: Arc<DirectoryHealth>,
}

/// Why no connection could be opened.
enum Failed {
    /// At least one server did not answer in time: all are tried again at once, until the breaker opens.
    Silent(Arc<str>),
    Refused(Arc<str>, Prospect),
}

/// Whether another attempt may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prospect {
    /// It may: a server refuses or drops connections, as while it starts.
    Better,
    /// It will fail in the same way.
    Same,
    /// Nothing was sent; the configuration, or a file, has to change first.
    NothingSent,
}

impl Supervisor {
    pub(super) fn new(
        name: Arc<str>,
        timeout: Duration,
        opener: Arc<Opener>,
        health: Arc<DirectoryHealth>,
    ) -> (Self, watch::Receiver<ConnectionState>) {
        let (states, receiver) = watch::channel(ConnectionState::Connecting(None));
        (Self { name, timeout, opener, states, health }, receiver)
    }

    pub(super) async fn run(self) {
        let (mut first, mut failures, mut lost) = (0, 0, None);
        loop {
            let (cause, after, prospect) = match self.connect(first).await {
                Ok(link) => {
                    let ended = self.serve(link).await;
                    lost = Some(Instant::now());
                    first = ended.next % self.opener.servers.len();
                    failures = if ended.short_lived { failures + 1 } else { 0 };
                    // A server that was restarted is tried at once; one that drops every connection is not.
                    (ended.cause, if failures > 1 { pause(failures) } else { Duration::ZERO }, Prospect::Same)
                }
                Err(Failed::Silent(cause)) => (cause, Duration::ZERO, Prospect::Same),
                Err(Failed::Refused(cause, prospect)) => {
                    failures += 1;
                    let wait = if prospect == Prospect::NothingSent { LOOK_AT_FILE } else { pause(failures) };
                    (cause, wait, prospect)
                }
            };
            let wait = self.health.until_test().unwrap_or_default().max(after);
            if !wait.is_zero() {
                self.rest(wait, cause, prospect, lost).await;
            }
        }
    }

    /// Waits for the next attempt. At first questions wait for a server that was there a moment ago and may be
    /// restarting; after the time limit of a question, new ones fail at once.
    async fn rest(&self, wait: Duration, cause: Arc<str>, prospect: Prospect, lost: Option<Instant>) {
        let left = lost.map_or(Duration::ZERO, |lost| self.timeout.saturating_sub(lost.elapsed()));
        let may_return = lost.is_some() && prospect == Prospect::Better && self.health.until_test().is_none();
        let wait = match may_return {
            true if !left.is_zero() => {
                self.states.send_replace(ConnectionState::Connecting(Some(cause)));
                wait.min(self.timeout / 10).min(left)
            }
            true => {
                self.down(ConnectionState::Lost(cause));
                wait
            }
            false => {
                self.down(ConnectionState::Down(cause));
                wait
            }
        };
        let until = Instant::now() + wait;
        while Instant::now() < until {
            tokio::select! {
                () = self.opener.again.notified() => return,
                () = sleep_until(until.min(Instant::now() + LOOK_AT_FILE)) => {}
            }
            if self.opener.has_another_password() {
                return;
            }
        }
    }

    /// Tries each server once. One with a clean answer to the test question is preferred.
    async fn connect(&self, first: usize) -> Result<Link, Failed> {
        let servers = &self.opener.servers;
        let (before, after) = servers.split_at(first.min(servers.len()));
        let (mut causes, mut silent, mut second_best) = (Vec::new(), false, None);
        let mut prospect = Prospect::NothingSent;
        for server in after.iter().chain(before) {
            match self.opener.open(server).await {
                Ok(link) if link.health.is_ok() => return Ok(link),
                Ok(link) => second_best = second_best.or(Some(link)),
                Err(Failure::Silent(_)) => {
                    silent = true;
                    causes.push(format!("{}: no answer in time", server.url));
                    self.health.timed_out();
                    if self.health.until_test().is_some() {
                        // The rest of the round is not waited for.
                        self.down(ConnectionState::Down(causes.join("; ").into()));
                    }
                }
                Err(failure) => {
                    prospect = prospect.with(&failure);
                    let cause = match failure {
                        Failure::Rejected(words) => words.to_string(),
                        failure => format!("{}: {failure}", server.url),
                    };
                    if !causes.contains(&cause) {
                        causes.push(cause);
                    }
                }
            }
        }
        match second_best {
            Some(link) => Ok(link),
            None if silent => Err(Failed::Silent(causes.join("; ").into())),
            None => Err(Failed::Refused(causes.join("; ").into(), prospect)),
        }
    }

    /// Lets questions use the connection until it ends; moves to an earlier server when one is back.
    async fn serve(&self, mut link: Link) -> Disconnect {
        loop {
            let server = Arc::clone(&link.connection.server);
            tracing::debug!(directory = %self.name, server = server.url, "connected");
            self.health.passed_test();
            self.health.set(&link.health);
            self.opener.log(&server);
            self.states.send_replace(ConnectionState::Up(Arc::clone(&link.connection)));
            let end = tokio::select! {
                end = &mut link.driver => connection::ended(end),
                end = link.connection.condemned() => end,
                () = self.falls_silent(&link.connection) => ConnectionLoss::Silent,
                earlier = self.earlier(&server) => {
                    // Questions in progress finish on the old connection, which closes after the last.
                    link.driver.detach();
                    link = earlier;
                    continue;
                }
            };
            tracing::debug!(directory = %self.name, server = server.url, "connection ended: {end:?}");
            self.states.send_replace(ConnectionState::Connecting(None));
            return self.ended(&link, end);
        }
    }

    fn ended(&self, link: &Link, end: ConnectionLoss) -> Disconnect {
        let server = &link.connection.server;
        let short_lived = link.opened.elapsed() < SHORT_LIVED;
        match end {
            ConnectionLoss::Silent => {
                self.opener.fell_silent(server);
                self.health.timed_out();
                let cause = format!("{}: no answer in time", server.url).into();
                Disconnect { next: server.index + 1, short_lived: false, cause }
            }
            ConnectionLoss::Broken(why) => {
                let next = if short_lived { server.index + 1 } else { server.index };
                Disconnect { next, short_lived, cause: format!("{}: {why}", server.url).into() }
            }
        }
    }

    /// Completes when an idle connection does not answer the test question.
    async fn falls_silent(&self, connection: &Connection) {
        loop {
            sleep(IDLE).await;
            if connection.idle() < IDLE {
                continue;
            }
            match timeout(self.timeout / 3, self.opener.test(connection)).await {
                Ok(Ok(health)) => self.health.set(&health),
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Completes when an earlier server is back. Later servers are tried now and then, so that their failure is known
    /// before they are needed.
    async fn earlier(&self, in_use: &Server) -> Link {
        loop {
            sleep(RETURN_AFTER).await;
            for server in &self.opener.servers {
                if server.index > in_use.index && self.opener.is_due(server) {
                    // The opener records the result.
                    let _ = self.opener.open(server).await;
                } else if server.index < in_use.index
                    && let Ok(link) = self.opener.open(server).await
                    && link.health.is_ok()
                {
                    return link;
                }
            }
            self.opener.log(in_use);
        }
    }

    fn down(&self, state: ConnectionState) {
        if let ConnectionState::Down(cause) | ConnectionState::Lost(cause) = &state {
            self.health.set(&Err(Arc::clone(cause)));
        }
        self.states.send_replace(state);
    }
}

impl Prospect {
    /// Combines it with another server's failure.
    fn with(self, failure: &Failure) -> Self {
        match failure {
            Failure::Rejected(_) | Failure::NotTried(_) => self,
            failure if failure.is_servers_fault() && !matches!(failure, Failure::Tls(_)) => Self::Better,
            _ if self == Self::Better => Self::Better,
            _ => Self::Same,
        }
    }
}

/// How serving a connection ended.
struct Disconnect {
    /// The index of the server to begin with; may be one too large.
    next: usize,
    short_lived: bool,
    cause: Arc<str>,
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}
