//! Connections to the database: of several hosts the one that takes writes, with verified TLS, keepalives, and a count
//! of the warnings that came, since a cancelled wait for the standby ends as a success with a warning.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::timelines::Timelines;
use crate::config::Cluster;
use crate::tls::connect;

mod visit;

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

/// What a session is set to. A transaction that its node forgot, or left when its power failed, must not hold locks for ever.
const SETTINGS: &str = "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = '30s'; \
     SET lock_timeout = '15s'; SET client_min_messages = warning; SET tcp_keepalives_idle = 10; \
     SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

#[derive(Debug, Clone, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be reached, or the connection broke.
    #[error("the database is away: {0}")]
    Away(String),
    /// It answered with an error.
    #[error("the database says: {text}")]
    Said { code: SqlState, text: String },
    /// It must not be used as it is; the text says what to do.
    #[error("the database cannot be used: {0}")]
    Unfit(String),
    /// This node's epoch was ended by another node, which has its mail now.
    #[error("another node has taken over: this one was not heard of for too long")]
    Ended,
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(said) => {
                let detail = said.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
                Self::Said { code: said.code().clone(), text: format!("{}{detail}", said.message()) }
            }
            None => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                Self::Away(format!("{error}{cause}"))
            }
        }
    }
}

impl DatabaseError {
    /// Whether it has no room: 53100 and its class.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Said { code, .. } if *code == SqlState::DISK_FULL)
    }

    /// Whether it says that what it has stored is damaged: class XX.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Said { code, .. } if code.code().starts_with("XX"))
    }

    /// Whether the role has no right to it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Said { code, .. } if *code == SqlState::INSUFFICIENT_PRIVILEGE)
    }
}

/// The port of a host without one.
const PORT: u16 = 5432;

/// How to reach the database. Clones share which primary is believed.
#[derive(Clone)]
pub struct Database {
    /// Everything but the host.
    config: tokio_postgres::Config,
    hosts: Vec<(Host, u16)>,
    password_file: Option<PathBuf>,
    tls: Option<MakeRustlsConnect>,
    timelines: Timelines,
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
        let hosts = url.get_hosts().iter().cloned().enumerate().map(|(at, host)| (host, port(at))).collect();
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
        let mut asked: FuturesUnordered<_> =
            self.hosts.iter().map(|(host, port)| self.connect_to(host, *port, password.as_deref())).collect();
        let mut best: Option<Connection> = None;
        let mut failed = DatabaseError::Away("it has no host".into());
        loop {
            let patience = if best.is_some() { OTHERS } else { Duration::MAX };
            match tokio::time::timeout(patience, asked.next()).await {
                Ok(Some(Ok(connection))) => {
                    if best.as_ref().is_none_or(|best| best.timeline < connection.timeline) {
                        best = Some(connection);
                    }
                }
                Ok(Some(Err(error))) => failed = error,
                Ok(None) | Err(_) => break,
            }
        }
        let connection = best.ok_or(failed)?;
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

    async fn open(&self, host: &Host, port: u16, password: Option<&str>) -> Result<Connection, DatabaseError> {
        let mut config = self.config.clone();
        match host {
            Host::Tcp(name) => config.host(name),
            Host::Unix(folder) => config.host_path(folder),
        };
        config.port(port);
        if let Some(password) = password {
            config.password(password);
        }
        let mut connection = match self.tls.clone() {
            Some(tls) => Connection::open(&config, tls).await,
            None => Connection::open(&config, NoTls).await,
        }?;
        connection.client.batch_execute(SETTINGS).await?;
        connection.timelines = self.timelines.clone();
        Ok(connection)
    }

    /// Opens a connection to this host if it takes writes.
    async fn connect_to(&self, host: &Host, port: u16, password: Option<&str>) -> Result<Connection, DatabaseError> {
        let opened = tokio::time::timeout(CONNECT, async {
            let mut connection = self.open(host, port, password).await?;
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

/// An open connection. When it is dropped, the session ends.
pub struct Connection {
    client: Client,
    /// That of its primary.
    timeline: u32,
    timelines: Timelines,
    warnings: Arc<AtomicU64>,
    driver: JoinHandle<()>,
}

impl Connection {
    async fn open<T>(config: &tokio_postgres::Config, tls: T) -> Result<Self, DatabaseError>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, mut connection) = config.connect(tls).await?;
        let warnings = Arc::new(AtomicU64::new(0));
        let counted = warnings.clone();
        let driver = tokio::spawn(async move {
            // A warning is counted before the answer that follows it is handed out.
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    counted.fetch_add(1, Ordering::SeqCst);
                    tracing::warn!(code = notice.code().code(), "the database warns: {}", notice.message());
                }
            }
        });
        Ok(Self { client, timeline: 0, timelines: Timelines::default(), warnings, driver })
    }

    async fn read_timeline(&mut self) -> Result<(), DatabaseError> {
        let timeline: i32 = self.client.query_one(TIMELINE, &[]).await?.get(0);
        self.timeline = timeline.unsigned_abs();
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

    /// Whether its primary has not been replaced.
    #[must_use]
    pub fn is_believed(&self) -> bool {
        !self.is_closed() && self.timeline >= self.timelines.highest()
    }

    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// How many warnings have come.
    #[must_use]
    pub fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A few connections for reading and for large contents.
pub struct Pool {
    database: Database,
    idle: Mutex<Vec<Connection>>,
    slots: Semaphore,
}

/// One of them, in use.
pub struct Pooled<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    _slot: SemaphorePermit<'a>,
}

impl Pool {
    #[must_use]
    pub fn new(database: Database, connections: usize) -> Self {
        Self { database, idle: Mutex::default(), slots: Semaphore::new(connections) }
    }

    /// # Errors
    /// [`DatabaseError::Away`].
    pub async fn get(&self) -> Result<Pooled<'_>, DatabaseError> {
        let slot = self.slots.acquire().await.map_err(|_| DatabaseError::Away("the program ends".into()))?;
        let idle = {
            let mut idle = self.idle.lock().await;
            idle.retain(Connection::is_believed);
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => self.database.connect().await?,
        };
        Ok(Pooled { pool: self, connection: Some(connection), _slot: slot })
    }

    /// The rows of one statement.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub async fn query(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, DatabaseError> {
        let pooled = self.get().await?;
        let rows = async { Ok(pooled.client().query(statement, values).await?) };
        let rows = pooled.connection().while_believed(rows).await?;
        pooled.give_back().await;
        Ok(rows)
    }
}

impl Pooled<'_> {
    #[expect(clippy::expect_used, reason = "it is taken only when this is given back")]
    #[must_use]
    pub fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("in use")
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        self.connection().client()
    }

    /// Keeps the connection for others. One that is dropped instead is closed: its state is unknown.
    pub async fn give_back(mut self) {
        if let Some(connection) = self.connection.take().filter(|connection| !connection.is_closed()) {
            self.pool.idle.lock().await.push(connection);
        }
    }
}
