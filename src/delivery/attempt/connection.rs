//! One connection to a next hop: writes bytes and reads replies, each with a deadline.
//!
//! `open` makes it ready for MAIL, `conversation` uses it, `pool` keeps it between messages. Commands are queued, and
//! written when a reply is waited for, which implements pipelining (RFC 2920).

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::black_hole::{BlackHole, STALL, Watch};
use crate::config::SmtpOut;
use crate::delivery::silence::{Listening, OfHost, Then};
use crate::patience::{ReusableTimer, within};
use crate::smtp::client::offers::Offers;
use crate::smtp::client::replies::{Replies, ReplyError};
use crate::smtp::domain::Domain;
use crate::smtp::reply::Reply;

/// How long to wait for the reply to QUIT.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the connection cannot be used any further.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the next hop closed the connection")]
    Closed,
    /// No reply, or no progress in writing, for this long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// No reply for this long, while other messages of ours wait on the same host, and another host can take this one.
    #[error("no answer within {0:.1?}, and others of ours wait there too")]
    Silent(Duration),
    /// No progress, and full segments seem to be lost on the path.
    #[error("{0}")]
    BlackHole(BlackHole),
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What was received is not SMTP.
    #[error("not SMTP: {0}")]
    Reply(#[from] ReplyError),
}

/// The settings with which a connection was opened; it is reused only with the same.
#[derive(Debug)]
pub struct Terms {
    /// Our name in EHLO.
    pub ehlo: Domain,
    pub smtp: Arc<SmtpOut>,
}

impl Terms {
    /// Whether connections with the one can be used for the other.
    #[must_use]
    pub fn are_same(&self, those: &Self) -> bool {
        self.ehlo == those.ehlo && (Arc::ptr_eq(&self.smtp, &those.smtp) || self.smtp == those.smtp)
    }
}

pub struct Connection {
    stream: Stream,
    replies: Replies,
    /// Queued and not yet written.
    out: Vec<u8>,
    pub offers: Offers,
    /// `name[address]:port`.
    pub next_hop: Arc<str>,
    pub terms: Arc<Terms>,
    pub opened: Instant,
    pub history: History,
    pub local: Option<IpAddr>,
    /// The number of recipients that were refused on it.
    pub refusals: u32,
    /// The time limit of each reply, unless another is given: `reply_timeout`, or less if a client waits.
    pub patience: Duration,
    /// How fast the host answers; `None`: not recorded.
    pub silence: Option<OfHost>,
    /// Whether a silent host is left for another one.
    pub leaves: bool,
    /// Notified when enough other messages wait on the host as well; `None` if it is left anyway.
    pub enough: Option<Arc<Notify>>,
    watch: Watch,
    alarm: ReusableTimer,
}

/// Whether it has been used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// It was opened for this message.
    Fresh,
    /// It comes from the pool and may have been closed by the next hop.
    Reused,
}

pub enum Stream {
    /// TCP without TLS.
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket, without TLS.
    Unix(UnixStream),
}

impl Stream {
    /// The TCP connection; `None` for a Unix socket.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Unix(_) => None,
        }
    }

    /// Writes everything; if the future is dropped, `rest` is what has not been written.
    async fn write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all_buf(rest).await,
            Self::Unix(socket) => socket.write_all_buf(rest).await,
            Self::Tls(tls) => {
                tls.write_all_buf(rest).await?;
                tls.flush().await
            }
        }
    }
}

impl Connection {
    /// The peer's address; `None` for a Unix socket.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.stream.tcp()?.peer_addr().ok()
    }

    /// On a socket that has just been connected.
    #[must_use]
    pub fn new(stream: Stream, next_hop: Arc<str>, terms: Arc<Terms>, watch: Watch) -> Self {
        let patience = terms.smtp.reply_timeout;
        let local = stream.tcp().and_then(|socket| socket.local_addr().ok()).map(|local| local.ip());
        Self {
            stream,
            replies: Replies::default(),
            out: Vec::with_capacity(512),
            offers: Offers::default(),
            next_hop,
            terms,
            opened: Instant::now(),
            history: History::Fresh,
            local,
            refusals: 0,
            patience,
            silence: None,
            leaves: false,
            enough: None,
            watch,
            alarm: ReusableTimer::new(),
        }
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The next hop's certificate, DER.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        let Stream::Tls(tls) = &self.stream else { return None };
        tls.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.as_ref())
    }

    /// Adds to the output.
    pub fn queue(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Octets in the output.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Writes the output and waits for one reply, at most for [`Connection::patience`].
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn reply(&mut self) -> Result<Reply, Broken> {
        self.reply_within(self.patience).await
    }

    /// The same for one command.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn command(&mut self, line: &str) -> Result<Reply, Broken> {
        self.queue(line.as_bytes());
        self.queue(b"\r\n");
        self.reply().await
    }

    /// Writes the output and waits for one reply, which must be complete within `limit`.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn reply_within(&mut self, limit: Duration) -> Result<Reply, Broken> {
        if let Some(reply) = self.replies.next_reply()? {
            return Ok(reply);
        }
        self.flush().await?;
        let began = Instant::now();
        let deadline = began + limit;
        let mut look = self.next_look(deadline);
        let mut silence = Listening::new(self.silence.clone(), began);
        loop {
            tokio::select! {
                biased;
                reply = read(&mut self.stream, &mut self.replies) => {
                    if reply.is_ok() {
                        silence.answered();
                    }
                    return reply;
                }
                () = self.alarm.at(silence.next_look().map_or(look, |next| next.min(look))) => {
                    let now = Instant::now();
                    let enough = silence.look(now) == Then::Leave;
                    if enough && self.leaves {
                        return Err(Broken::Silent(now - began));
                    }
                    if let Some(told) = self.enough.as_ref().filter(|_| enough) {
                        told.notify_one();
                    }
                    if now >= look {
                        self.stalled(deadline, limit)?;
                        look = self.next_look(deadline);
                    }
                }
            }
        }
    }

    /// Writes the output.
    ///
    /// # Errors
    /// [`Broken`]: not all of it was written.
    pub async fn flush(&mut self) -> Result<(), Broken> {
        if self.out.is_empty() {
            return Ok(());
        }
        let limit = self.terms.smtp.reply_timeout;
        let mut look = STALL.min(limit);
        let mut deadline = None;
        let out = std::mem::take(&mut self.out);
        let mut rest = out.as_slice();
        let written = loop {
            match within(look, self.stream.write(&mut rest)).await {
                Ok(written) => break written.map_err(Broken::from),
                Err(_) => {
                    // The clock is read only here, for performance.
                    let now = Instant::now();
                    let deadline = *deadline.get_or_insert(now + limit.saturating_sub(look));
                    look = look.min(deadline.saturating_duration_since(now));
                    if let Err(broken) = self.stalled(deadline, limit) {
                        break Err(broken);
                    }
                }
            }
        };
        self.out = out;
        self.out.clear();
        written
    }

    /// When to check for progress.
    fn next_look(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + STALL.min(self.terms.smtp.reply_timeout))
    }

    /// Nothing has moved for a while: whether to go on waiting.
    fn stalled(&mut self, deadline: Instant, limit: Duration) -> Result<(), Broken> {
        let suspected = self.look();
        let over = Instant::now() >= deadline;
        match suspected {
            // While the kernel still has output, the next hop cannot have received it and be thinking about it.
            Some((hole, since)) if over || since >= self.terms.smtp.reply_timeout => Err(Broken::BlackHole(hole)),
            None if over => Err(Broken::TimedOut(limit)),
            _ => Ok(()),
        }
    }

    /// Whether output seems to be lost in a path MTU black hole, and for how long. A caller that stops waiting asks
    /// before it closes the connection. A new suspicion is logged.
    pub fn look(&mut self) -> Option<(BlackHole, Duration)> {
        self.stream.tcp().and_then(|socket| self.watch.look(socket, &self.next_hop))
    }

    /// The output buffer, for appending.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Starts TLS. Bytes after the reply to STARTTLS are dropped (RFC 3207 6), and so are the extensions offered before
    /// (RFC 3207 4.2).
    ///
    /// # Errors
    /// [`Broken`]: the handshake failed.
    pub async fn start_tls(
        mut self,
        connector: &TlsConnector,
        name: rustls_pki_types::ServerName<'static>,
    ) -> Result<Self, Broken> {
        let Stream::Plain(socket) = self.stream else { return Ok(self) };
        let limit = self.patience;
        let handshake = timeout(limit, connector.connect(name, socket)).await;
        self.stream = Stream::Tls(Box::new(handshake.map_err(|_| Broken::TimedOut(limit))??));
        self.replies.discard();
        self.offers = Offers::default();
        Ok(self)
    }

    /// Whether there are no unread replies.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether it seems alive: nothing was received while it was idle. A next hop that gave it up has closed it or sent
    /// 421.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match &self.stream {
            Stream::Plain(socket) => SockRef::from(socket).peek(&mut byte),
            Stream::Tls(tls) => SockRef::from(tls.get_ref().0).peek(&mut byte),
            Stream::Unix(socket) => SockRef::from(socket).peek(&mut byte),
        };
        self.is_in_step() && matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Shuts it down: a reply that is still to come must not be taken for that to another command.
    pub fn shut(&self) {
        // A closed connection needs no shutdown.
        let _ = match &self.stream {
            Stream::Plain(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
            Stream::Tls(tls) => SockRef::from(tls.get_ref().0).shutdown(Shutdown::Both),
            Stream::Unix(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
        };
    }

    /// Sends QUIT and closes (RFC 5321 4.1.1.10). It does not matter whether it is answered.
    pub async fn quit(mut self) {
        self.queue(b"QUIT\r\n");
        let _ = timeout(FAREWELL, self.reply()).await;
    }
}

/// Reads until a reply is complete.
async fn read(stream: &mut Stream, replies: &mut Replies) -> Result<Reply, Broken> {
    loop {
        let buffer = &mut replies.buffer;
        buffer.reserve(1024);
        let read = match stream {
            Stream::Plain(socket) => socket.read_buf(buffer).await?,
            Stream::Unix(socket) => socket.read_buf(buffer).await?,
            Stream::Tls(tls) => tls.read_buf(buffer).await?,
        };
        if read == 0 {
            return Err(Broken::Closed);
        }
        if let Some(reply) = replies.next_reply()? {
            return Ok(reply);
        }
    }
}
