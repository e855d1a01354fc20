//! Connections to the database: of several hosts the one that takes writes, with verified TLS, keepalives, and a count
//! of the warnings that came, since a cancelled wait for the standby ends as a success with a warning.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::Severity;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::timelines::Timelines;
use crate::config::Cluster;
use crate::tls::connect;

mod error;
mod pool;
mod visit;

pub use error::DatabaseError;
use error::Failed;
pub use pool::{Pool, Pooled};
pub use visit::{Role, Visited};

/// Of one host.
const CONNECT: Duration = Duration::from_secs(5);
/// A host that vanished is noticed within about this time.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How long anything may take but a COMMIT.
const LONGEST: Duration = Duration::from_secs(60);
/// How long the other hosts are waited for when one takes writes.
const OTHERS: Duration = Duration::from_millis(300);
/// The control file has it only after the next checkpoint.
const TIMELINE: &str = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer";

/// Where PostgreSQL waits for a standby: which of its functions a warning comes from, in any language.
const WAIT_FOR_STANDBY: &str = "SyncRepWaitForLSN";
/// How long a connection to a host waits for a place among those that it may have.
const PLACE: Duration = Duration::from_secs(2);

/// What a session is set to. A transaction that its node forgot, or left when its power failed, must not hold locks for ever.
const SETTINGS: &str = "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = '30s'; \
     SET lock_timeout = '15s'; SET client_min_messages = warning; SET tcp_keepalives_idle = 10; \
     SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '20s'";

/// The port of a host without one.
const PORT: u16 = 5432;

/// How to reach the database. Clones share which primary is believed.
#[derive(Clone)]
pub struct Database {
    /// Everything but the host.
    config: tokio_postgres::Config,
    hosts: Vec<Server>,
    password_file: Option<PathBuf>,
    tls: Option<MakeRustlsConnect>,
    timelines: Timelines,
}

/// One of its hosts.
#[derive(Clone)]
struct Server {
    host: Host,
    port: u16,
    /// For the sessions there: those too that hang in a commit which nobody waits for any more.
    places: Arc<Semaphore>,
}

impl Database {
    /// # Errors
    /// The URL or the CAs cannot be used; the text says why.
    pub fn new(cluster: &Cluster) -> Result<Self, String> {
        let url: tokio_postgres::Config = cluster.database.parse().map_err(|error| format!("{error}"))?;
        let mut config = tokio_postgres::Config::new();
        config.user(url.get_user().unwrap_or_default()).dbname(url.get_dbname().unwrap_or_default());
        config.options(url.get_options().unwrap_or_default()).application_name("fingerpost");
        config.target_session_attrs(TargetSessionAttrs::ReadWrite).connect_timeout(CONNECT);
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE / 3).keepalives_retries(3);
        config.tcp_user_timeout(2 * KEEPALIVE);
        let tls = match url.get_ssl_mode() {
            SslMode::Disable => {
                config.ssl_mode(SslMode::Disable);
                None
            }
            _ => {
                config.ssl_mode(SslMode::Require);
                Some(MakeRustlsConnect::new(connect::verified(cluster.ca.as_deref()).map_err(|e| e.to_string())?))
            }
        };
        // A port counts for all hosts, or each has its own.
        let ports = url.get_ports();
        let port = |at: usize| *ports.get(at).or(ports.first()).unwrap_or(&PORT);
        let places = || Arc::new(Semaphore::new(cluster.connections));
        let server = |(at, host): (usize, &Host)| Server { host: host.clone(), port: port(at), places: places() };
        let hosts = url.get_hosts().iter().enumerate().map(server).collect();
        Ok(Self { config, hosts, password_file: cluster.password_file.clone(), tls, timelines: Timelines::default() })
    }

    /// The same, for sessions of this epoch: whoever ends it finds them by that.
    #[must_use]
    pub fn of_epoch(mut self, epoch: i64) -> Self {
        self.config.application_name(application(epoch));
        self
    }

    #[must_use]
    pub fn timelines(&self) -> &Timelines {
        &self.timelines
    }

    /// Where it may be: `db1:5432, db2:5432`.
    #[must_use]
    pub fn hosts(&self) -> String {
        self.hosts.iter().map(visit::shown).collect::<Vec<_>>().join(", ")
    }

    /// Opens a connection to the host that takes writes; where several do, to the one on the highest timeline. All are
    /// asked at once: one may be frozen.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn connect(&self) -> Result<Connection, DatabaseError> {
        let password = self.password().await?;
        let mut asked: FuturesUnordered<_> = self
            .hosts
            .iter()
            .map(|server| async {
                let opened = self.connect_to(server, password.as_deref()).await;
                opened.map_err(|error| Failed { host: visit::shown(server), error })
            })
            .collect();
        let mut best: Option<Connection> = None;
        let mut failed = Vec::new();
        loop {
            let patience = if best.is_some() { OTHERS } else { Duration::MAX };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(Some(Ok(connection))) => {
                    if best.as_ref().is_none_or(|best| best.timeline < connection.timeline) {
                        best = Some(connection);
                    }
                }
                Ok(Some(Err(failure))) => failed.push(failure),
                Ok(None) | Err(_) => break,
            }
        }
        let connection = best.ok_or_else(|| error::all(failed))?;
        self.timelines.note(connection.timeline)?;
        Ok(connection)
    }

    async fn password(&self) -> Result<Option<String>, DatabaseError> {
        let Some(file) = &self.password_file else { return Ok(None) };
        let password = tokio::fs::read_to_string(file).await;
        let password = password.map_err(|error| {
            DatabaseError::Unfit(format!("password_file {}: {error}; check the path and its rights", file.display()))
        })?;
        Ok(Some(password.trim_end_matches(['\r', '\n']).to_owned()))
    }

    async fn open(&self, server: &Server, password: Option<&str>) -> Result<Connection, DatabaseError> {
        let place = tokio::time::timeout(PLACE, server.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            let text = "all its sessions that [cluster] connections allows are in use, or hang in a commit";
            return Err(DatabaseError::Away(text.into()));
        };
        let mut config = self.config.clone();
        match &server.host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(folder) => config.host_path(folder),
        };
        config.port(server.port);
        if let Some(password) = password {
            config.password(password);
        }
        let connection = match self.tls.clone() {
            Some(tls) => Connection::open(&config, tls, place, self.timelines.clone()).await,
            None => Connection::open(&config, NoTls, place, self.timelines.clone()).await,
        }?;
        connection.client.batch_execute(SETTINGS).await?;
        Ok(connection)
    }

    /// Opens a connection to this host if it takes writes.
    async fn connect_to(&self, server: &Server, password: Option<&str>) -> Result<Connection, DatabaseError> {
        let opened = tokio::time::timeout(CONNECT, async {
            let mut connection = self.open(server, password).await?;
            connection.read_timeline().await?;
            Ok(connection)
        });
        opened.await.unwrap_or_else(|_| Err(away_too_long()))
    }
}

fn away_too_long() -> DatabaseError {
    DatabaseError::Away("no answer in time".into())
}

/// Octets that nobody can guess.
pub(super) fn random<const N: usize>() -> Result<[u8; N], DatabaseError> {
    let mut octets = [0; N];
    let none = |_| DatabaseError::Away("the system gives no random numbers".into());
    aws_lc_rs::rand::fill(&mut octets).map_err(none)?;
    Ok(octets)
}

/// The names of all sessions at the database that this role may see: [`application`].
pub(super) const SESSIONS: &str = "SELECT application_name FROM pg_stat_activity WHERE application_name IS NOT NULL";

/// The name of an epoch's sessions.
pub(super) fn application(epoch: i64) -> String {
    format!("fingerpost epoch {epoch}")
}

/// An open connection. When it is dropped, the session ends as soon as the server has answered what it was asked: one that
/// hangs in a commit goes on there whether its client is here or not, and so it keeps its place. At a primary that was
/// replaced nothing is waited for.
pub struct Connection {
    client: Client,
    /// That of its primary.
    timeline: u32,
    timelines: Timelines,
    /// Waits for the standby that were cancelled.
    warnings: Arc<AtomicU64>,
    /// Where its timeline is told to what drives it.
    tells: Option<oneshot::Sender<u32>>,
}

impl Connection {
    /// `place`: held until the session has ended.
    async fn open<T>(
        config: &tokio_postgres::Config,
        tls: T,
        place: OwnedSemaphorePermit,
        timelines: Timelines,
    ) -> Result<Self, DatabaseError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, mut connection) = config.connect(tls).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        // A warning is counted before the answer that follows it is handed out.
        let answers = async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    if notice.routine() == Some(WAIT_FOR_STANDBY) {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                    tracing::warn!(code = notice.code().code(), "the database warns: {}", notice.message());
                }
            }
        };
        let (tells, told) = oneshot::channel();
        let beyond = timelines.clone();
        tokio::spawn(async move {
            let _place = place;
            let replaced = async {
                if let Ok(timeline) = told.await {
                    beyond.beyond(timeline).await;
                }
            };
            tokio::select! {
                () = answers => {}
                () = replaced => {}
            }
        });
        Ok(Self { client, timeline: 0, timelines, warnings, tells: Some(tells) })
    }

    async fn read_timeline(&mut self) -> Result<(), DatabaseError> {
        let timeline: i32 = self.client.query_one(TIMELINE, &[]).await?.get(0);
        self.timeline = timeline.unsigned_abs();
        if let Some(tells) = self.tells.take() {
            let _ = tells.send(self.timeline); // it has ended
        }
        Ok(())
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What `work` returns, unless another primary replaces this connection's meanwhile, or it takes a minute: a frozen
    /// server never answers.
    ///
    /// # Errors
    /// [`DatabaseError::Away`], and those of `work`.
    pub async fn while_believed<T>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>>,
    ) -> Result<T, DatabaseError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.timelines.beyond(self.timeline) => Err(DatabaseError::Away("its primary was replaced".into())),
            () = tokio::time::sleep(LONGEST) => Err(DatabaseError::Away(format!("no answer for {LONGEST:?}"))),
        }
    }

    /// What `work` returns, unless a wait for the standby was cancelled meanwhile: it ends as a success with a warning.
    ///
    /// # Errors
    /// [`DatabaseError::Away`]: it is not known whether a second machine has it; and those of `work`.
    pub async fn without_warning<T>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>>,
    ) -> Result<T, DatabaseError> {
        let before = self.warnings.load(Ordering::SeqCst);
        let done = work.await;
        if self.warnings.load(Ordering::SeqCst) != before {
            return Err(DatabaseError::Away("the wait for the standby was cancelled".into()));
        }
        done
    }

    /// Commits the transaction that was begun.
    ///
    /// # Errors
    /// As [`Connection::without_warning`].
    pub async fn commit(&self) -> Result<(), DatabaseError> {
        self.without_warning(async { Ok(self.client.batch_execute("COMMIT").await?) }).await
    }

    /// Whether its primary has not been replaced.
    #[must_use]
    pub fn is_believed(&self) -> bool {
        !self.is_closed() && self.timeline >= self.timelines.highest()
    }

    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}
