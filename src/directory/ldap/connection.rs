//! One connection to one server: TCP, TLS, bind, and the task that drives it.
//!
//! `supervisor` opens and closes it; questions share it, and may condemn it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, StdStream};
use parking_lot::Mutex;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::backpressure::Backpressure;
use super::search::Failure;
use super::server::{Security, Server};
use super::{handshake, tls};
use crate::config::LdapConfig;
use crate::net::staggered::{Attempt, first_to_succeed};

/// A bound connection for concurrent requests.
pub(super) struct Connection {
    /// Numbers a directory's connections in order, from 1.
    pub(super) generation: u64,
    pub(super) server: Arc<Server>,
    ldap: Ldap,
    /// Pauses the library's task.
    pub(super) gate: Arc<Backpressure>,
    end: OnceLock<ConnectionLoss>,
    condemned: Notify,
    answered: Mutex<Instant>,
}

/// Why a connection is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ConnectionLoss {
    /// It was lost, or got malformed data.
    Broken(String),
    /// A question was not answered in time.
    Silent,
}

/// A connection and the task that drives it.
pub(super) struct Link {
    pub(super) connection: Arc<Connection>,
    pub(super) driver: Driver,
    pub(super) opened: Instant,
    /// The result of the test question.
    pub(super) health: Result<(), Arc<str>>,
}

/// The client library's task. It panics on some malformed answers, which ends only the connection.
pub(super) type Driver = AbortOnDropHandle<ldap3::result::Result<()>>;

/// If an address does not answer, the name's next one is tried concurrently after this time (RFC 8305 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long to wait for the driving task's reason after it ended.
const MOMENT: Duration = Duration::from_millis(100);

/// What the connection binds with.
#[derive(Clone, Copy)]
pub(super) enum Credentials<'a> {
    /// `bind_dn` with this password.
    Password(&'a str),
    /// Our certificate (SASL EXTERNAL, RFC 4422 appendix A).
    Certificate,
}

impl Credentials<'_> {
    fn doing(self) -> &'static str {
        match self {
            Self::Password(_) => "the bind",
            Self::Certificate => "the bind by certificate (SASL EXTERNAL)",
        }
    }
}

/// Connects, without binding. The caller sets the time limit.
pub(super) async fn open(server: &Arc<Server>, config: &LdapConfig, generation: u64) -> Result<Link, Failure> {
    let (connection, ldap) = connect(server, config).await?;
    let gate = Arc::<Backpressure>::default();
    let shared = Arc::clone(&gate);
    let driver = AbortOnDropHandle::new(tokio::spawn(async move { shared.drive(connection.drive()).await }));
    let now = Instant::now();
    let connection = Arc::new(Connection {
        generation,
        server: Arc::clone(server),
        ldap,
        gate,
        end: OnceLock::new(),
        condemned: Notify::new(),
        answered: Mutex::new(now),
    });
    Ok(Link { connection, driver, opened: now, health: Ok(()) })
}

impl Link {
    /// Binds. The caller sets the time limit.
    pub(super) async fn bind(mut self, config: &LdapConfig, credentials: Credentials<'_>) -> Result<Self, Failure> {
        let mut ldap = self.connection.ldap();
        let bound = match credentials {
            Credentials::Password(password) => ldap.simple_bind(&config.bind_dn, password).await,
            Credentials::Certificate => ldap.sasl_external_bind().await,
        };
        match bound {
            Ok(answer) => Failure::check(credentials.doing(), &answer)?,
            Err(error) => return Err(lost(&self.connection.server, error.into(), self.driver).await),
        }
        self.opened = Instant::now();
        self.connection.answered();
        Ok(self)
    }
}

/// Connects to the first of the server's addresses that accepts, with TLS if configured. Only one of them gets further
/// requests, so that a wrong password counts once.
async fn connect(server: &Server, config: &LdapConfig) -> Result<(LdapConnAsync, Ldap), Failure> {
    let tls = match server.is_encrypted() {
        true => Some(tls::client_config(config).map_err(Failure::NotTried)?),
        false => None,
    };
    let addresses = server.addresses().await.map_err(Failure::Broken)?;
    let share = HEAD_START.min(config.timeout / 3 / u32::try_from(addresses.len()).unwrap_or(u32::MAX));
    let all_begun = Instant::now() + share * u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let several = addresses.len() > 1;
    let attempts = addresses.into_iter().map(|address| {
        let tls = tls.clone();
        let attempt: Attempt<'_, _, _> = Box::pin(async move {
            let connected = connect_to(server, address, config.timeout / 3, tls).await;
            connected.map(|connected| (address, connected)).map_err(|failure| match failure {
                Failure::Broken(why) if several => Failure::Broken(format!("{}: {why}", address.ip())),
                Failure::Tls(why) if several => Failure::Tls(format!("{}: {why}", address.ip())),
                failure => failure,
            })
        });
        attempt
    });
    let connected = first_to_succeed(attempts.collect(), all_begun).await;
    let (address, connected) = connected.unwrap_or_else(|| Err(Failure::Broken("it has no address".to_owned())))?;
    server.connected(address);
    Ok(connected)
}

async fn connect_to(
    server: &Server,
    address: SocketAddr,
    patience: Duration,
    tls: Option<Arc<ClientConfig>>,
) -> Result<(LdapConnAsync, Ldap), Failure> {
    let mut settings = LdapConnSettings::new().set_starttls(server.security == Security::StartTls);
    if let Some(tls) = tls {
        settings = settings.set_config(tls);
    }
    let stream = tcp(address, patience).await.map_err(|error| Failure::Broken(error.to_string()))?;
    let settings = settings.set_std_stream(StdStream::Tcp(stream));
    LdapConnAsync::with_settings(settings, &server.url).await.map_err(|error| failed(server, error))
}

/// The failure for an error in connecting or TLS.
fn failed(server: &Server, error: LdapError) -> Failure {
    match error {
        // A domain controller without a certificate accepts the request and then cannot answer.
        LdapError::LdapResult { result } => {
            let said = Failure::check("StartTLS", &result).err().map(|refused| refused.to_string()).unwrap_or_default();
            Failure::Tls(format!("the server does not begin TLS; give it a certificate, or name another one ({said})"))
        }
        LdapError::Io { source } if server.is_encrypted() && ends(&source) => {
            let (what, cure) = handshake::ENDS;
            Failure::Broken(format!("{what}; {cure} ({source})"))
        }
        error => error.into(),
    }
}

/// Whether the connection was closed, in any way.
fn ends(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// The reason for losing the connection before the bind, which the driving task has.
async fn lost(server: &Server, failure: Failure, driver: Driver) -> Failure {
    let driven = timeout(MOMENT, driver).await;
    let (what, cure) = match (driven, server.is_encrypted()) {
        (Ok(Ok(Err(LdapError::Io { source }))), true) if !ends(&source) => return LdapError::from(source).into(),
        (_, true) => handshake::ENDS_LATER,
        (_, false) => {
            ("the server closes the connection when we bind", "if this port is for TLS (636, 3269), write ldaps://")
        }
    };
    Failure::Broken(format!("{what}; {cure} ({failure})"))
}

/// A socket that notices when a firewall has dropped the connection: by keep-alives while it is idle, and while a
/// question waits by octets that are not acknowledged for `patience`.
async fn tcp(address: SocketAddr, patience: Duration) -> std::io::Result<std::net::TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let minute = Duration::from_secs(60);
    let keepalive = TcpKeepalive::new().with_time(minute).with_interval(Duration::from_secs(10)).with_retries(3);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(patience))?;
    stream.into_std()
}

impl Connection {
    pub(super) fn ldap(&self) -> Ldap {
        self.ldap.clone()
    }

    /// A question was answered on it.
    pub(super) fn answered(&self) {
        *self.answered.lock() = Instant::now();
    }

    /// The time since the last answer.
    pub(super) fn idle(&self) -> Duration {
        self.answered.lock().elapsed()
    }

    /// Gives it up; the supervisor opens another. The first cause is kept.
    pub(super) fn condemn(&self, end: ConnectionLoss) {
        // A later cause is a consequence of the first.
        let _ = self.end.set(end);
        self.condemned.notify_one();
    }

    pub(super) fn is_condemned(&self) -> bool {
        self.end.get().is_some()
    }

    pub(super) async fn condemned(&self) -> ConnectionLoss {
        self.condemned.notified().await;
        self.end.get().cloned().unwrap_or(ConnectionLoss::Silent)
    }
}

/// Why the driving task ended.
pub(super) fn ended(result: Result<ldap3::result::Result<()>, JoinError>) -> ConnectionLoss {
    ConnectionLoss::Broken(match result {
        Ok(Ok(())) => "the server closed the connection".to_owned(),
        Ok(Err(error)) => Failure::from(error).to_string(),
        Err(_) => "malformed answer".to_owned(),
    })
}
