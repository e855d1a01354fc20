//! The session's socket: reading, sending, deadlines and the TLS handshake.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::lease::{LeaseState, Look, Others};
use super::link::Link;
use super::turn::{Moves, Stage, Turn, Why};
use super::{Believed, Client, Services, Session, SessionEnd};
use crate::config::{Config, OfferDsn};
use crate::patience::within;
use crate::smtp::extension::Dsn;
use crate::smtp::reply;
use crate::smtp::server::{Event, Expect, Profile, TlsState};
use crate::strangers::sums::{About, Kind};

/// The most octets of streaming content that are read at once.
const READ: usize = 64 * 1024;
/// The most that are read otherwise, into a buffer on the stack.
const LITTLE: usize = 16 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_mins(1);
/// How long a client may leave our replies unread.
const SEND: Duration = Duration::from_mins(5);
/// How long input is read and dropped after the last reply, so that a reset does not overtake the reply.
const LINGER: Duration = Duration::from_secs(2);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    /// Reads some octets, or records that the deadline has passed or that the server drains.
    pub(super) async fn read(&mut self, expect: Expect) -> Result<(), SessionEnd> {
        let now = Instant::now();
        match expect {
            Expect::Command if self.machine.is_between_chunks() => self.deadlines.content_begins(now),
            Expect::Command => self.deadlines.content_ended(),
            Expect::Content => {}
        }
        let deadline = self.deadlines.next(expect, now);
        self.turn_begins(expect, now);
        let branches = self.transaction.as_ref().map(|transaction| &transaction.branches);
        let branches = branches.filter(|branches| branches.has_checkouts());
        let look = branches.and_then(|branches| {
            let others = branches.crowded().map_or(Others::Few, Others::Many);
            self.lending.wait(now.into_std(), others)
        });
        let look_at = look.map_or(deadline, |look| deadline.min(look.at().into()));
        let way = Reading::of(expect, self.last_read, &mut self.input);
        let drained = async {
            match &mut self.draining {
                Some(draining) => draining.as_mut().await,
                None => std::future::pending().await,
            }
        };
        let wanted = async {
            match branches.filter(|_| self.lending.state == LeaseState::MayLose) {
                Some(branches) => branches.wanted().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = drained => {
                self.draining = None;
                if self.turn.sent_away().is_none() {
                    self.machine.handle(Event::Draining);
                }
            }
            read = read(&mut self.link, &mut self.input, way) => match read {
                Ok(octets) if octets > 0 => {
                    self.last_read = octets;
                    let now = Instant::now();
                    self.lending.came(now.into_std());
                    self.deadlines.received(octets, now);
                }
                gone => {
                    self.suspect_black_hole(expect);
                    return Err(gone.map_or_else(SessionEnd::from, |_| SessionEnd::Eof));
                }
            },
            at = wanted => self.give_back(at),
            () = self.alarm.at(look_at) => match look {
                _ if Instant::now() >= deadline => {
                    self.suspect_black_hole(expect);
                    self.machine.handle(Event::SentAway(reply::TIMED_OUT));
                }
                Some(Look::AtOthers(_)) => {}
                Some(Look::MayLose(_)) | None => self.lending.may_lose(),
            }
        }
        if let Err(why) = self.turn.ends() {
            self.machine.handle(sent_away(why));
        }
        Ok(())
    }

    /// Delays a reply. This delays nobody else: connections to next hops that others want are given back, and where
    /// connection slots are short the session is closed instead.
    ///
    /// # Errors
    /// The session was closed meanwhile.
    pub(super) async fn hold_back(&mut self, late: Duration) -> Result<(), Why> {
        let (turn, whose) = (self.turn.clone(), self.client.whose());
        self.standing.harvests();
        turn.meanwhile(whose, |_| Stage::Harvests, Moves::MeanNothing, self.keep_connections(late)).await
    }

    /// Gives the transaction's connections back to others that want them, for this long.
    async fn keep_connections(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let branches = self.transaction.as_ref().map(|transaction| &transaction.branches);
            let branches = branches.filter(|branches| branches.has_checkouts());
            let wanted = async {
                match branches {
                    Some(branches) => branches.wanted().await,
                    None => std::future::pending().await,
                }
            };
            match timeout_at(until, wanted).await {
                Ok(at) => self.give_back(at),
                Err(_) => return,
            }
        }
    }

    /// Records that it is the client's turn.
    fn turn_begins(&mut self, expect: Expect, now: Instant) {
        if let Some(paid) = self.deadlines.content_paid() {
            self.turn.begins(paid, Stage::Content, self.client.whose());
        } else if expect == Expect::Command && !self.machine.is_in_content() {
            let since = self.standing.waits(self.machine.hello(), now);
            self.turn.begins(since, self.standing.stage, self.client.whose());
        }
    }

    /// Gives back a connection that another transaction wants, because the client is slow.
    fn give_back(&mut self, at: usize) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.branches.stream() {
            self.lending.lost();
        }
        transaction.branches.give_back(at);
    }

    /// Logs a likely path MTU black hole as the reason why content did not come.
    fn suspect_black_hole(&self, expect: Expect) {
        let stalled = self.deadlines.stalled_at_start(Instant::now());
        let (Expect::Content, Some((silence, octets))) = (expect, stalled) else { return };
        let connector = &*self.client.connector.name;
        let about = About::new(Kind::Broken, self.client.address.ip(), "path-mtu");
        let about = About { detail: "path-mtu", ..about };
        // No alert: any client can fall silent. Many of them raise one by the metric.
        if self.client.tells(&self.services.strangers, &about) {
            tracing::warn!(
                "suspected path MTU black hole: {octets} bytes of content came after our go-ahead, then nothing for \
                 {silence:?}; set max_segment_size = 1200 on receive connector {connector}"
            );
        }
        self.services.metrics.path_mtu_black_holes.with_label_values(&[connector]).inc();
    }

    pub(super) async fn flush(&mut self) -> Result<(), SessionEnd> {
        if self.output.is_empty() {
            return Ok(());
        }
        // Nearly always the kernel takes it at once; then no future for waiting is needed, of which there would be
        // thousands.
        let at_once = poll_fn(|context| Poll::Ready(write(&mut self.link, &self.output, context))).await?;
        if let WriteProgress::Part(sent) = at_once {
            Box::pin(self.flush_from(sent)).await?;
        }
        if self.transaction.is_some() {
            self.output.clear();
        } else {
            self.output = Vec::new(); // as the input: thousands may be silent now
        }
        Ok(())
    }

    /// Sends the rest, for which the client has to make room first.
    async fn flush_from(&mut self, sent: usize) -> Result<(), SessionEnd> {
        let (link, rest) = (&mut self.link, self.output.get(sent..).unwrap_or_default());
        let sending = async {
            link.write_all(rest).await?;
            link.flush().await
        };
        if self.machine.is_in_content() {
            timeout(SEND, sending).await.map_err(|_| SessionEnd::Unread)??;
        } else {
            // It is the client's turn to read.
            let (stage, whose) = (self.standing.stage, self.client.whose());
            let sending = self.turn.meanwhile(whose, |_| stage, Moves::MeanNothing, sending);
            timeout(SEND, sending).await.map_err(|_| SessionEnd::Unread)?.map_err(|_| SessionEnd::SentAway)??;
        }
        Ok(())
    }

    /// Runs the handshake; returns the profile that applies after it.
    pub(super) async fn start_tls(&mut self) -> Result<Profile, SessionEnd> {
        let config = self.services.current.load().config.clone();
        let link = std::mem::replace(&mut self.link, Link::Gone);
        self.link = encrypt(&self.services, &self.turn, &mut self.client, link).await?;
        Ok(profile(&config, &self.client, TlsState::Active))
    }

    /// Sends the output and closes. A session that was closed by the listener holds no slot any more, and only a few of
    /// those may wait.
    pub(super) async fn close(&mut self) -> Result<(), SessionEnd> {
        if self.turn.sent_away().is_none() {
            self.flush().await?;
            self.linger().await;
            return Ok(());
        }
        let farewell = self.turn.farewell();
        let said = within(Duration::ZERO, async {
            self.link.write_all(&self.output).await?;
            self.link.flush().await
        });
        said.await.map_err(|_| SessionEnd::SentAway)??;
        if farewell.is_some() {
            self.linger().await;
        }
        Ok(())
    }

    /// Shuts down our side and reads on for a moment.
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

/// The machine's event for a session that the listener closed.
pub(super) fn sent_away(why: Why) -> Event {
    Event::SentAway(match why {
        Why::Wanted => reply::PLACE_WANTED,
        Why::Idle => reply::TIMED_OUT,
        Why::Harvests => reply::TOO_MANY_UNKNOWN_NOW,
    })
}

/// The result of a write.
enum WriteProgress {
    Whole,
    /// This many octets; or all, but a layer in between still has some.
    Part(usize),
}

/// Writes what can be written without waiting.
fn write<S>(link: &mut Link<S>, output: &[u8], context: &mut Context<'_>) -> io::Result<WriteProgress>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut sent = 0;
    while let Some(rest) = output.get(sent..).filter(|rest| !rest.is_empty()) {
        match Pin::new(&mut *link).poll_write(context, rest)? {
            Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(octets) => sent += octets,
            Poll::Pending => return Ok(WriteProgress::Part(sent)),
        }
    }
    match Pin::new(link).poll_flush(context)? {
        Poll::Ready(()) => Ok(WriteProgress::Whole),
        Poll::Pending => Ok(WriteProgress::Part(sent)),
    }
}

/// Which buffer is read into.
#[derive(Clone, Copy)]
enum Reading {
    /// One on the stack: an idle client then needs no buffer, and there may be thousands.
    Little,
    /// The input buffer itself: streaming content is not copied once more.
    Much,
}

impl Reading {
    fn of(expect: Expect, last_read: usize, input: &mut BytesMut) -> Self {
        if expect == Expect::Content && last_read >= LITTLE / 2 {
            input.reserve(READ);
            return Self::Much;
        }
        if input.is_empty() {
            *input = BytesMut::new();
        }
        Self::Little
    }
}

/// Reads what is there.
async fn read<S>(link: &mut Link<S>, input: &mut BytesMut, how: Reading) -> io::Result<usize>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Reading::Much = how {
        return link.read_buf(input).await;
    }
    poll_fn(|context| {
        let mut room = [MaybeUninit::uninit(); LITTLE];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *link).poll_read(context, &mut read))?;
        input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

/// Runs the handshake. A client certificate may select another receive connector.
pub(super) async fn encrypt<S>(
    services: &Services,
    turn: &Turn,
    client: &mut Client,
    link: Link<S>,
) -> Result<Link<S>, SessionEnd>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let none = || SessionEnd::Handshake(io::Error::other("the receive connector has no certificate"));
    let tls = client.tls.clone().ok_or_else(none)?;
    let late = |_| SessionEnd::Handshake(io::ErrorKind::TimedOut.into());
    // Until something of it arrives the client has not even sent EHLO.
    let stage = |waits| if waits == 0 { Stage::BeforeMail } else { Stage::Handshake };
    let handshake = turn.meanwhile(client.whose(), stage, Moves::GetOn, link.encrypt(tls.config.clone()));
    let link = timeout(HANDSHAKE, handshake).await.map_err(late)?.map_err(|_| SessionEnd::SentAway)?;
    let link = link.map_err(SessionEnd::Handshake)?;
    let config = services.current.load().config.clone();
    let about = About::new(Kind::Certificate, client.address.ip(), "");
    let stranger = client.is_stranger();
    let tells = || !stranger || services.strangers.tells(&about);
    let believed = Believed::of(&tls, link.peer_certificates(), tells);
    client.showed(&config, believed, tells);
    Ok(link)
}

/// The machine's profile for the client's receive connector.
pub(super) fn profile(config: &Config, client: &Client, tls: TlsState) -> Profile {
    let hostname = config.server.hostname.as_str().to_owned();
    let dsn = match client.connector.dsn {
        OfferDsn::Organizations if client.is_stranger() => Dsn::NotOffered,
        OfferDsn::Organizations | OfferDsn::Everybody => Dsn::Offered,
    };
    let max_message_size = client.connector.max_message_size;
    Profile { hostname, max_message_size, tls, auth: client.auth_state(), dsn }
}
