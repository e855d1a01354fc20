//! One client's session: drives [`smtp::server`](crate::smtp::server) over one socket, plain or TLS.
//!
//! `listener` starts it. It performs the machine's actions and decides nothing: `transaction` has recipients routed,
//! `rcpt` asks their next hops (cut-through), `answer` interprets the outcomes, `loop_check` and `returned`
//! look for loops, `content_buffer` stores the content, `end_of_data` sends it to the next hops and decides the
//! reply, `commit` makes durable what is left and hands it to `delivery`. A transaction keeps the configuration that
//! was in force at its MAIL.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::Instrument;

use crate::config::{ReceiveConnector, ReceiveTlsMode};
use crate::delivery::attempt::Outbound;
use crate::delivery::dispatch::Handover;
use crate::delivery::memory::Memory;
use crate::delivery::rcpt_in_flight::RcptsInFlight;
use crate::guesses::Guesses;
use crate::in_force::Current;
use crate::metrics::Metrics;
use crate::patience::ReusableTimer;
use crate::pressure::Pressure;
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::{Action, Event, Expect, Server, TlsState};
use crate::spool::Spool;
use crate::strangers::Strangers;
use crate::strangers::sums::{About, Kind};
use crate::tls::serve::ServerTls;
use crate::trace::Trace;

mod answer;
mod commit;
mod deadline;
pub mod certificate_door;
mod end_of_data;
mod loop_check;
mod identity;
mod lease;
mod link;
mod login;
mod upstream_reply;
mod rcpt;
mod refused;
mod returned;
mod standing;
mod streaming;
mod transaction;
pub mod turn;
pub mod users;
mod wire;
mod without_spool;
mod content_buffer;

use deadline::Deadlines;
use identity::Believed;
pub use identity::Identity;
use lease::Lease;
use link::Link;
pub use login::{Answered, Hashing};
use standing::Standing;
use transaction::{Answer, Transaction};
use turn::Turn;
use wire::{encrypt, profile, sent_away};

/// Replies are sent when this many octets wait, however much the client has pipelined.
const MOST_REPLIES: usize = 64 * 1024;

/// What all sessions share.
#[derive(Clone)]
pub struct Services {
    pub current: Arc<Current>,
    pub spool: Arc<dyn Spool>,
    /// Takes durable messages to `delivery`.
    pub accepted: UnboundedSender<Handover>,
    /// SMTP to next hops that are part of a client's conversation.
    pub outbound: Outbound,
    /// RCPTs that wait for a next hop's answer.
    pub rcpts_in_flight: RcptsInFlight,
    /// Notes about accepted mail for later decisions.
    pub memory: Memory,
    pub metrics: Metrics,
    pub trace: Trace,
    /// Whether there are resources for more mail.
    pub pressure: Arc<Pressure>,
    /// Counts of strangers' events, for summaries in the log.
    pub strangers: Strangers,
    /// Failed passwords, and successful logins by client.
    pub guesses: Arc<Mutex<Guesses>>,
    /// Wakes attempts that wait for the result of another.
    pub answered: Arc<Answered>,
    pub hashing: Arc<Hashing>,
}

/// A session's client, and how it connected.
#[derive(Clone)]
pub struct Client {
    /// In logs and the trace.
    pub id: Arc<str>,
    pub address: SocketAddr,
    /// The listener's address, as configured.
    pub bind: SocketAddr,
    pub connector: Arc<ReceiveConnector>,
    /// TLS settings of the connector that its network chose; `None`: TLS is not offered.
    pub tls: Option<ServerTls>,
    pub identity: Identity,
}

#[derive(Debug, thiserror::Error)]
enum SessionEnd {
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
    #[error("sent away: other clients need the connection")]
    SentAway,
    #[error("the protocol waits for nothing")]
    Stuck,
}

/// Serves one client to the end. Once the turn's token is cancelled, either the client has to go, or the server drains:
/// a transaction in progress may finish and no other begins.
pub async fn serve<S>(services: Arc<Services>, client: Client, socket: S, turn: impl Into<Turn>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let turn = turn.into();
    let turns = turn.clone();
    let span = tracing::info_span!("session", id = &*client.id, client = %client.address.ip().to_canonical(),
        connector = &*client.connector.name);
    async {
        let (strangers, id) = (services.strangers.clone(), client.id.clone());
        let (address, stranger) = (client.address.ip(), client.is_stranger());
        let (ended, stranger) = match Session::begin(services, client, socket, turn).await {
            Ok(mut session) => {
                let ended = session.run().await;
                session.abandon();
                (ended, session.client.is_stranger())
            }
            Err(ended) => (ended, stranger),
        };
        strangers.left(address, &id);
        let told = |kind, reason| !stranger || strangers.tells(&About::new(kind, address, reason));
        if let Some(why) = turns.sent_away().filter(|why| told(Kind::SentAway, why.as_str())) {
            tracing::info!(reason = why.as_str(), "idle session sent away: connections are short"); // the span names it
        }
        let tells = |reason| told(Kind::Broken, reason);
        match ended {
            SessionEnd::Closed | SessionEnd::Eof | SessionEnd::SentAway => tracing::debug!(%ended, "session ended"),
            SessionEnd::Stuck => tracing::error!(%ended, "session ended"),
            SessionEnd::Broken(_) if !tells("broken") => {}
            SessionEnd::Handshake(_) if !tells("handshake") => {}
            SessionEnd::Unread if !tells("unread") => {}
            SessionEnd::Broken(_) | SessionEnd::Handshake(_) | SessionEnd::Unread => {
                tracing::info!(%ended, "session ended")
            }
        }
    }
    .instrument(span)
    .await;
}

struct Session<S> {
    services: Arc<Services>,
    client: Client,
    link: Link<S>,
    machine: Server,
    input: BytesMut,
    output: Vec<u8>,
    transaction: Option<Box<Transaction>>,
    deadlines: Deadlines,
    /// Whether the client may be disconnected in favour of others.
    turn: Turn,
    /// Since when the client has made no progress.
    standing: Standing,
    /// Whether its transaction may lose connections to next hops.
    lending: Lease,
    last_read: usize,
    /// The drain signal, until the machine has got it.
    draining: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    alarm: ReusableTimer,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    async fn begin(services: Arc<Services>, mut client: Client, socket: S, turn: Turn) -> Result<Self, SessionEnd> {
        let config = services.current.load().config.clone();
        let link = match client.connector.tls.mode {
            ReceiveTlsMode::Implicit => Box::pin(encrypt(&services, &turn, &mut client, Link::Plain(socket))).await?,
            _ => Link::Plain(socket),
        };
        let tls = match (&link, client.connector.tls.mode, &client.tls) {
            (Link::Encrypted(_), _, _) => TlsState::Active,
            (_, ReceiveTlsMode::Required, _) => TlsState::Required,
            (_, ReceiveTlsMode::Opportunistic, Some(_)) => TlsState::Offered,
            (_, _, _) => TlsState::Unavailable,
        };
        let machine = Server::new(profile(&config, &client, tls));
        Ok(Self {
            deadlines: Deadlines::new(client.connector.idle_timeout),
            lending: Lease::new(),
            last_read: 0,
            services,
            client,
            link,
            machine,
            input: BytesMut::new(),
            output: Vec::new(),
            transaction: None,
            draining: Some(Box::pin(turn.leave())),
            turn,
            standing: Standing::new(),
            alarm: ReusableTimer::new(),
        })
    }

    /// Performs the machine's actions until the session ends.
    async fn run(&mut self) -> SessionEnd {
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

    async fn perform(&mut self, action: Action) -> Result<(), SessionEnd> {
        match action {
            Action::Send(reply) => {
                reply.write_to(&mut self.output);
                if self.output.len() >= MOST_REPLIES {
                    self.flush().await?;
                }
            }
            Action::Read(expect) => self.read_on(expect).await?,
            Action::Begin(sender) => {
                let hello = self.machine.hello().cloned();
                let begun = Transaction::begin(&self.services, &mut self.client, *sender, hello);
                let begun = begun.and_then(|transaction| self.unless_kept_out(transaction));
                let limits = begun.map(|transaction| self.transaction.insert(transaction).limits());
                self.standing.mail();
                self.lending = Lease::new();
                self.machine.handle(Event::Began(limits));
            }
            Action::Resolve(rcpt) => {
                self.lending.progress();
                self.standing.moved();
                let services = Arc::clone(&self.services);
                self.transaction()?.ask(&services, *rcpt);
            }
            // Boxed: of thousands of sessions nearly all are between two transactions, and need no memory for this
            // future.
            Action::Wait => Box::pin(self.wait()).await?,
            Action::CheckHeader(section) => {
                let verdict = Box::pin(self.check_header(section)).await?;
                self.lending.content(Instant::now().into_std());
                self.machine.handle(Event::HeaderChecked(verdict));
            }
            Action::Content(piece) => {
                let carrier = self.machine.carrier();
                let transaction = self.transaction.as_deref_mut().ok_or(SessionEnd::Stuck)?;
                Box::pin(transaction.append(&self.services, &self.client.id, &piece, carrier)).await;
            }
            Action::Commit(summary) => {
                self.standing.message();
                let transaction = self.transaction.take().ok_or(SessionEnd::Stuck)?;
                let (services, session) = (self.services.clone(), self.client.id.clone());
                match Box::pin(end_of_data::end(&services, &session, transaction, summary)).await {
                    Ok(reply) => self.machine.handle(Event::Ended(Ok(reply))),
                    Err(answer) => self.reply(answer, |reply| Event::Ended(Err(reply))).await?,
                }
            }
            Action::Discard => self.abandon(),
            Action::StartTls => {
                self.standing.moved();
                self.flush().await?;
                let profile = Box::pin(self.start_tls()).await?;
                self.machine.handle(Event::TlsStarted(profile));
            }
            Action::Authenticate(credentials) => {
                self.standing.moved();
                self.flush().await?;
                let verdict = Box::pin(login::check(&self.services, &mut self.client, credentials)).await;
                self.machine.handle(Event::Authenticated(verdict));
            }
            Action::Close => {
                Box::pin(self.close()).await?;
                return Err(SessionEnd::Closed);
            }
        }
        Ok(())
    }

    /// Flushes the output and reads, unless there is no memory for a growing header section.
    async fn read_on(&mut self, expect: Expect) -> Result<(), SessionEnd> {
        self.flush().await?;
        let (held, transaction) = (self.machine.collected(), self.transaction.as_deref_mut());
        if held > 0 && transaction.is_some_and(|transaction| !transaction.collects(held)) {
            self.machine.handle(Event::NoRoom);
            return Ok(());
        }
        self.read(expect).await
    }

    /// Drops the transaction.
    fn abandon(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            transaction.abandoned(&self.services);
        }
    }

    /// Waits for the reply to the oldest RCPT.
    async fn wait(&mut self) -> Result<(), SessionEnd> {
        let (services, session) = (self.services.clone(), self.client.id.clone());
        let answer = self.transaction()?.answer(&services, &session).await.ok_or(SessionEnd::Stuck)?;
        self.reply(answer, Event::Resolved).await
    }

    /// Passes a reply to the machine, once it is due.
    async fn reply(&mut self, answer: Answer, event: fn(Reply) -> Event) -> Result<(), SessionEnd> {
        let Answer { reply, late } = answer;
        let mut event = event(reply);
        if !late.is_zero() {
            self.flush().await?;
            if let Err(why) = Box::pin(self.hold_back(late)).await {
                event = sent_away(why);
            }
        }
        self.machine.handle(event);
        Ok(())
    }

    /// Refuses MAIL where the connector has come to require TLS since the session began, which the machine does not
    /// know: the client has to connect again. Also refuses a stranger in a connection slot that is not for strangers.
    fn unless_kept_out(&self, transaction: Box<Transaction>) -> Result<Box<Transaction>, Reply> {
        match transaction.connector.tls.mode {
            ReceiveTlsMode::Required | ReceiveTlsMode::Implicit if !self.machine.is_encrypted() => {
                Err(reply::SHUTTING_DOWN)
            }
            _ if !self.turn.serves(self.client.whose()) => Err(reply::TOO_MANY_CONNECTIONS),
            _ => Ok(transaction),
        }
    }

    /// The transaction that the machine's action belongs to.
    fn transaction(&mut self) -> Result<&mut Transaction, SessionEnd> {
        self.transaction.as_deref_mut().ok_or(SessionEnd::Stuck)
    }

    async fn check_header(&mut self, section: Bytes) -> Result<Result<(), Reply>, SessionEnd> {
        let (services, session) = (self.services.clone(), self.client.id.clone());
        let transaction = self.transaction.as_deref_mut().ok_or(SessionEnd::Stuck)?;
        let with = transaction::with(&self.machine, &transaction.sender);
        match loop_check::check(&services, &session, transaction, &section).await {
            Err(refused) => Ok(Err(refused)),
            Ok(passed) => {
                transaction.start_content(&services, with, passed).await;
                Ok(Ok(()))
            }
        }
    }
}
