//! One connection to a next hop: bytes out, replies in, each with a deadline.
//!
//! `open` makes it ready for MAIL, `conversation` speaks over it, `pool` keeps it between messages. Commands are
//! queued and go out together with the next reply that is waited for, which is all that pipelining takes (RFC 2920).

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

/// How long we wait for the answer to QUIT.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the conversation is over.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The next hop closed the connection.
    #[error("the next hop closed the connection")]
    Closed,
    /// Nothing came, or nothing more was taken, for so long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Nothing came for so long, others of ours wait there too, and another host may have what this one brings.
    #[error("no answer within {0:.1?}, and others of ours wait there too")]
    Silent(Duration),
    /// The same, and full segments seem to get lost on the way.
    #[error("{0}")]
    BlackHole(BlackHole),
    /// The network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is not SMTP.
    #[error("not SMTP: {0}")]
    Reply(#[from] ReplyError),
}

/// What a connection was made with; another may use it only with the same.
#[derive(Debug)]
pub struct Terms {
    /// What we said in EHLO.
    pub ehlo: Domain,
    /// The connector's settings.
    pub smtp: Arc<SmtpOut>,
}

impl Terms {
    /// Whether a connection made on these terms serves those.
    #[must_use]
    pub fn are_same(&self, those: &Self) -> bool {
        self.ehlo == those.ehlo && (Arc::ptr_eq(&self.smtp, &those.smtp) || self.smtp == those.smtp)
    }
}

/// An SMTP connection.
pub struct Connection {
    stream: Stream,
    replies: Replies,
    /// Queued and not yet written.
    out: Vec<u8>,
    /// What the next hop offers.
    pub offers: Offers,
    /// Which next hop it is: `name[address]:port`.
    pub next_hop: Arc<str>,
    /// What it was made with.
    pub terms: Arc<Terms>,
    /// When it was made.
    pub opened: Instant,
    /// Whether a message has gone over it before.
    pub history: History,
    /// Our own address on it.
    pub local: Option<IpAddr>,
    /// Recipients that were refused on it.
    pub refusals: u32,
    /// How long each reply is waited for, unless it is said otherwise: `reply_timeout`, or less where somebody waits for us.
    pub patience: Duration,
    /// What is known of how the host answers; `None`: nothing is noted of it.
    pub silence: Option<OfHost>,
    /// Whether a silent host is left, for another one.
    pub leaves: bool,
    /// Where it is not left: who is told that enough others wait there too.
    pub enough: Option<Arc<Notify>>,
    watch: Watch,
    alarm: ReusableTimer,
}

/// Whether a message has gone over a connection before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// It was made for the message at hand.
    Fresh,
    /// It comes from the pool: that it is dead may only now be seen.
    Reused,
}

/// What the bytes go over.
pub enum Stream {
    /// TCP in clear.
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket, which has no TLS.
    Unix(UnixStream),
}

impl Stream {
    /// The TCP connection, where there is one.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Unix(_) => None,
        }
    }

    /// Writes all of it; `rest` is what is left whenever it is given up.
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
    /// Where it goes; a Unix socket has no address.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.stream.tcp()?.peer_addr().ok()
    }

    /// Over a socket that was just connected; nothing is read yet.
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

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// The certificate that the next hop showed, DER.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        let Stream::Tls(tls) = &self.stream else { return None };
        tls.get_ref().1.peer_certificates()?.first().map(|certificate| certificate.as_ref())
    }

    /// Adds to what goes out next.
    pub fn queue(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Octets that go out next.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.out.len()
    }

    /// Writes what is queued and waits for one reply, for [`Connection::patience`].
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn reply(&mut self) -> Result<Reply, Broken> {
        self.reply_within(self.patience).await
    }

    /// The same for a command of its own.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn command(&mut self, line: &str) -> Result<Reply, Broken> {
        self.queue(line.as_bytes());
        self.queue(b"\r\n");
        self.reply().await
    }

    /// Writes what is queued and waits for one reply. The whole of it must be there in time.
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

    /// Writes what is queued.
    ///
    /// # Errors
    /// [`Broken`]: then the last bytes of it have not left us whole.
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
                    // The clock is first asked here: the beginning was one look ago.
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

    /// When to see whether something moves.
    fn next_look(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + STALL.min(self.terms.smtp.reply_timeout))
    }

    /// Nothing has moved for a while: may it go on?
    fn stalled(&mut self, deadline: Instant, limit: Duration) -> Result<(), Broken> {
        let suspected = self.look();
        let over = Instant::now() >= deadline;
        match suspected {
            // What the kernel holds for us is not sent: no next hop is thinking about it.
            Some((hole, since)) if over || since >= self.terms.smtp.reply_timeout => Err(Broken::BlackHole(hole)),
            None if over => Err(Broken::TimedOut(limit)),
            _ => Ok(()),
        }
    }

    /// Whether what was sent seems to get lost in a path MTU black hole, and for how long it has; who cuts a wait short
    /// asks before the connection is closed. A new suspicion is told.
    pub fn look(&mut self) -> Option<(BlackHole, Duration)> {
        self.stream.tcp().and_then(|socket| self.watch.look(socket, &self.next_hop))
    }

    /// The buffer of what goes out next, for whoever fills it piece by piece.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Encrypts it. What was read behind the reply to STARTTLS is thrown away (RFC 3207 6), and so is what was
    /// offered before (RFC 3207 4.2).
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

    /// Whether every reply that was read has been used.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether it looks alive: nothing was said while it lay idle. A next hop that gave it up has closed it or
    /// said 421.
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

    /// Nothing more goes out: a reply that is still to come must not be taken for that to another command.
    pub fn shut(&self) {
        // One that is gone already is shut.
        let _ = match &self.stream {
            Stream::Plain(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
            Stream::Tls(tls) => SockRef::from(tls.get_ref().0).shutdown(Shutdown::Both),
            Stream::Unix(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
        };
    }

    /// Says QUIT and closes (RFC 5321 4.1.1.10). Whether it is answered changes nothing.
    pub async fn quit(mut self) {
        self.queue(b"QUIT\r\n");
        let _ = timeout(FAREWELL, self.reply()).await;
    }
}

/// Reads until a whole reply is there.
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
