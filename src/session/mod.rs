//! One client's session: drives [`smtp::server`](crate::smtp::server) over one socket, plain or TLS.
//!
//! `listener` starts it. It performs what the machine asks for and decides nothing: [`transaction`] asks where
//! recipients go, [`header`] whether a message loops, [`writing`] and [`commit`] make it durable and hand it to
//! `delivery`. A transaction keeps the configuration that was in force at its MAIL.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::config::{Config, ReceiveConnector, ReceiveTlsMode};
use crate::in_force::Current;
use crate::metrics::Metrics;
use crate::pressure::Pressure;
use crate::routing::relay_memory::RelayMemory;
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::{Action, Event, Expect, Profile, Server, TlsState};
use crate::spool::Spool;
use crate::spool::entry::Entry;
use crate::trace::Trace;

mod commit;
mod deadline;
pub mod door;
mod header;
mod link;
mod transaction;
mod writing;

use deadline::Deadlines;
use link::Link;
use transaction::Transaction;

/// How much is read at once.
const READ: usize = 64 * 1024;
/// How much of our replies waits before it is sent, however much the client has pipelined.
const MOST_REPLIES: usize = 64 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_mins(1);
/// How long a client may leave our replies unread.
const SEND: Duration = Duration::from_mins(5);
/// How long we read on after our last reply, so that a reset does not overtake it.
const LINGER: Duration = Duration::from_secs(2);

/// What sessions work with.
#[derive(Clone)]
pub struct Services {
    /// The configuration in force.
    pub current: Arc<Current>,
    /// Where accepted mail becomes durable.
    pub spool: Arc<dyn Spool>,
    /// Takes what has become durable: `delivery`.
    pub accepted: UnboundedSender<Entry>,
    /// What next hops accepted lately.
    pub relay_memory: Arc<Mutex<RelayMemory>>,
    /// Counters.
    pub metrics: Metrics,
    /// The message trace.
    pub trace: Trace,
    /// Whether there is room for more mail.
    pub pressure: Arc<Pressure>,
}

/// Who a session is with, and through which door it came.
#[derive(Clone)]
pub struct Client {
    /// The session's id, in logs and the trace.
    pub id: String,
    /// The client's address.
    pub address: SocketAddr,
    /// The bind it came in by, as configured.
    pub bind: SocketAddr,
    /// The receive connector that serves it.
    pub connector: Arc<ReceiveConnector>,
    /// That connector's certificate; `None`: no TLS.
    pub tls: Option<Arc<ServerConfig>>,
}

/// How a session ended, for the log.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("closed")]
    Closed,
    #[error("the client closed the connection")]
    Eof,
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("the client does not read our replies")]
    Unread,
    #[error("the protocol waits for nothing")]
    Stuck,
}

/// Serves one client to the end. Once `draining` is cancelled, a transaction under way may end and no other begins.
pub async fn serve<S>(services: Arc<Services>, client: Client, socket: S, draining: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let span = tracing::info_span!("session", id = client.id, client = %client.address.ip().to_canonical(),
        connector = &*client.connector.name);
    async {
        let ended = match Session::begin(services, client, socket, draining).await {
            Ok(mut session) => session.run().await,
            Err(ended) => ended,
        };
        match ended {
            Ended::Closed | Ended::Eof => tracing::debug!(%ended, "session ended"),
            Ended::Stuck => tracing::error!(%ended, "session ended"),
            Ended::Broken(_) | Ended::Handshake(_) | Ended::Unread => tracing::info!(%ended, "session ended"),
        }
    }
    .instrument(span)
    .await;
}

/// One session under way.
struct Session<S> {
    services: Arc<Services>,
    client: Client,
    link: Link<S>,
    machine: Server,
    input: BytesMut,
    output: Vec<u8>,
    transaction: Option<Transaction>,
    deadlines: Deadlines,
    /// Until the machine has been told to drain.
    draining: Option<CancellationToken>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    async fn begin(
        services: Arc<Services>,
        client: Client,
        socket: S,
        draining: CancellationToken,
    ) -> Result<Self, Ended> {
        let link = match (client.connector.tls.mode, &client.tls) {
            (ReceiveTlsMode::Implicit, Some(tls)) => encrypt(Link::Plain(socket), tls).await?,
            (ReceiveTlsMode::Implicit, None) => {
                return Err(Ended::Handshake(io::Error::other("the receive connector has no certificate")));
            }
            _ => Link::Plain(socket),
        };
        let machine = Server::new(profile(&services.current.load().config, &client));
        Ok(Self {
            deadlines: Deadlines::new(client.connector.idle_timeout),
            services,
            client,
            link,
            machine,
            input: BytesMut::new(),
            output: Vec::new(),
            transaction: None,
            draining: Some(draining),
        })
    }

    /// Does what the machine asks for until there is nothing more to do.
    async fn run(&mut self) -> Ended {
        loop {
            let action = self.machine.next(&mut self.input);
            if !matches!(action, Action::Read(_)) {
                self.deadlines.taken();
            }
            if let Err(ended) = self.perform(action).await {
                return ended;
            }
        }
    }

    async fn perform(&mut self, action: Action) -> Result<(), Ended> {
        match action {
            Action::Send(reply) => {
                self.output.extend_from_slice(&reply.to_wire());
                if self.output.len() >= MOST_REPLIES {
                    self.flush().await?;
                }
            }
            Action::Read(expect) => {
                self.flush().await?;
                self.read(expect).await?;
            }
            Action::Begin(sender) => {
                let hello = self.machine.hello().cloned();
                let begun = Transaction::begin(&self.services, &mut self.client, *sender, hello);
                let begun = begun.and_then(|transaction| self.unless_in_clear(transaction));
                let limits = begun.map(|transaction| self.transaction.insert(transaction).limits());
                self.machine.handle(Event::Began(limits));
            }
            Action::Resolve(rcpt) => self.transaction()?.ask(*rcpt),
            Action::Wait => {
                let (services, session) = (self.services.clone(), self.client.id.clone());
                let answer = self.transaction()?.answer(&services, &session).await.ok_or(Ended::Stuck)?;
                self.machine.handle(Event::Resolved(answer));
            }
            Action::CheckHeader(section) => {
                let verdict = self.check_header(section).await?;
                self.machine.handle(Event::HeaderChecked(verdict));
            }
            Action::Content(piece) => self.transaction()?.append(&piece).await,
            Action::Commit(summary) => {
                let transaction = self.transaction.take().ok_or(Ended::Stuck)?;
                let (services, session) = (self.services.clone(), self.client.id.clone());
                let result = commit::commit(services, session, transaction, summary).await;
                self.machine.handle(Event::Spooled(result));
            }
            Action::Discard => self.transaction = None,
            Action::StartTls => {
                self.flush().await?;
                self.start_tls().await?;
                self.machine.handle(Event::TlsStarted);
            }
            Action::Close => {
                self.flush().await?;
                self.linger().await;
                return Err(Ended::Closed);
            }
        }
        Ok(())
    }

    /// A door that demands TLS since this session began was not one when the machine was told: the client has to come
    /// again.
    fn unless_in_clear(&self, transaction: Transaction) -> Result<Transaction, Reply> {
        match transaction.connector.tls.mode {
            ReceiveTlsMode::Required | ReceiveTlsMode::Implicit if !self.machine.is_encrypted() => {
                Err(reply::SHUTTING_DOWN)
            }
            _ => Ok(transaction),
        }
    }

    /// The transaction that the machine's action belongs to.
    fn transaction(&mut self) -> Result<&mut Transaction, Ended> {
        self.transaction.as_mut().ok_or(Ended::Stuck)
    }

    async fn check_header(&mut self, section: Vec<u8>) -> Result<Result<(), Reply>, Ended> {
        let (services, session) = (self.services.clone(), self.client.id.clone());
        let transaction = self.transaction.as_mut().ok_or(Ended::Stuck)?;
        let with = transaction::with(&self.machine, &transaction.sender);
        match header::check(&services, &session, transaction, &section).await {
            Err(refused) => Ok(Err(refused)),
            Ok(passed) => {
                transaction.start_content(&services, with, passed).await;
                Ok(Ok(()))
            }
        }
    }

    /// Reads some octets, or notes that the deadline has passed or that we are draining.
    async fn read(&mut self, expect: Expect) -> Result<(), Ended> {
        let deadline = self.deadlines.next(expect, Instant::now());
        self.input.reserve(READ);
        let drained = async {
            match &self.draining {
                Some(token) => token.cancelled().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = drained => {
                self.draining = None;
                self.machine.handle(Event::Draining);
            }
            read = self.link.read_buf(&mut self.input) => match read? {
                0 => return Err(Ended::Eof),
                octets => self.deadlines.received(octets, Instant::now()),
            },
            () = tokio::time::sleep_until(deadline) => self.machine.handle(Event::TimedOut),
        }
        Ok(())
    }

    /// Sends what is due.
    async fn flush(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        let sent = timeout(SEND, async {
            self.link.write_all(&self.output).await?;
            self.link.flush().await
        });
        sent.await.map_err(|_| Ended::Unread)??;
        self.output.clear();
        Ok(())
    }

    async fn start_tls(&mut self) -> Result<(), Ended> {
        let tls = self.client.tls.clone();
        let tls = tls.ok_or_else(|| Ended::Handshake(io::Error::other("the receive connector has no certificate")))?;
        let link = std::mem::replace(&mut self.link, Link::Gone);
        self.link = encrypt(link, &tls).await?;
        Ok(())
    }

    /// Closes our side and reads on for a moment.
    async fn linger(&mut self) {
        let until_closed = async {
            self.link.shutdown().await?;
            loop {
                self.input.clear();
                if self.link.read_buf(&mut self.input).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let _ = timeout(LINGER, until_closed).await; // whatever the client does, we are done
    }
}

async fn encrypt<S>(link: Link<S>, tls: &Arc<ServerConfig>) -> Result<Link<S>, Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let late = |_| Ended::Handshake(io::ErrorKind::TimedOut.into());
    timeout(HANDSHAKE, link.encrypt(tls.clone())).await.map_err(late)?.map_err(Ended::Handshake)
}

/// What the machine has to know of the door.
fn profile(config: &Config, client: &Client) -> Profile {
    let tls = match (client.connector.tls.mode, &client.tls) {
        (ReceiveTlsMode::Implicit, _) => TlsState::Active,
        (ReceiveTlsMode::Required, _) => TlsState::Required,
        (ReceiveTlsMode::Opportunistic, Some(_)) => TlsState::Offered,
        (ReceiveTlsMode::Opportunistic, None) | (ReceiveTlsMode::None, _) => TlsState::Unavailable,
    };
    let hostname = config.server.hostname.as_str().to_owned();
    Profile { hostname, max_message_size: client.connector.max_message_size, tls }
}
