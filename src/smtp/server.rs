//! The server's side of SMTP as a state machine without a socket (RFC 5321, 2920, 3030, 3207, 4954).
//!
//! `crate::session` drives a [`Server`]: it asks for the [next](Server::next) action with the octets that have come in
//! so far, performs it, and reports the result as an [`Event`]. `commands` handles commands, `content` a message's
//! content, `auth` AUTH. Where a recipient goes, whether a message loops and when it is durable is decided by the
//! driver; the machine guarantees that 250 is sent only afterwards.
//!
//! ```
//! use bytes::BytesMut;
//! use fingerpost::smtp::server::{Action, Event, Limits, Server};
//! # use fingerpost::smtp::{extension::Dsn, reply, server::{AuthState, Profile, TlsState}};
//! # let hostname = "mx.example".to_owned();
//! # let (tls, auth, dsn) = (TlsState::Unavailable, AuthState::Unavailable, Dsn::NotOffered);
//! # let profile = Profile { hostname, max_message_size: 1000, tls, auth, dsn };
//!
//! let mut server = Server::new(profile);
//! let mut input = BytesMut::from("EHLO client\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n");
//! let mut codes = Vec::new();
//! loop {
//!     match server.next(&mut input) {
//!         Action::Send(reply) => codes.push(reply.code),
//!         Action::Begin(_) => {
//!             let limits = Limits { max_message_size: 1000, max_header_size: 500, max_recipients: 10 };
//!             server.handle(Event::Began(Ok(limits)));
//!         }
//!         Action::Resolve(_) => {} // route the recipient; the machine asks for the result with `Wait`
//!         Action::Wait => server.handle(Event::Resolved(reply::USER_UNKNOWN)),
//!         _ => break, // `Read`: it needs more input
//!     }
//! }
//! assert_eq!(codes, [220, 250, 250, 550]);
//! ```

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::command::{Command, CommandError, Rcpt};
use super::data::DotReader;
use super::extension::{Dsn, StartTls};
use super::reply::{self, Reply};
use super::sasl::{Credentials, Exchange};
use crate::smtp::envelope::Sender;

mod auth;
mod commands;
mod content;
mod lines;
mod profile;
#[cfg(test)]
mod tests;

pub use auth::AuthState;
use content::{Incoming, Source};
use lines::Line;
pub use profile::{Hello, Profile, TlsState};

/// Command errors after which a session is closed (RFC 5321 7.8 leaves the number to the server).
const MAX_ERRORS: usize = 20;
/// Consecutive refused recipients after which a session is closed: the client is guessing addresses.
const MAX_REFUSED_IN_A_ROW: usize = 100;
/// Recipients of one transaction that are resolved concurrently.
const MAX_PENDING: usize = 16;

/// The result of an [`Action`], or something that happens to the session.
#[derive(Debug)]
pub enum Event {
    /// The transaction of [`Action::Begin`] begins with these limits, or is refused.
    Began(Result<Limits, Reply>),
    /// The reply to the oldest [`Action::Resolve`] that has none yet.
    Resolved(Reply),
    /// The header section of [`Action::CheckHeader`] is accepted, or the message is refused.
    HeaderChecked(Result<(), Reply>),
    /// The message of [`Action::Commit`] is delivered or durable, with this reply, or it is refused.
    Ended(Result<Reply, Reply>),
    /// TLS is established; the client's certificate may have changed the profile.
    TlsStarted(Profile),
    /// The credentials of [`Action::Authenticate`] are right, or the client gets this reply.
    Authenticated(Result<(), Reply>),
    /// The session is to be closed with this last reply: a deadline has passed, or another client needs its connection
    /// slot.
    SentAway(Reply),
    /// There is no memory for more of a header section: the message is refused.
    NoRoom,
    /// The server is about to stop: a transaction that has begun may finish, no other begins.
    Draining,
}

/// What the driver is to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Append this reply to the output.
    Send(Reply),
    /// Flush the output, then read more input. Until then the machine takes no event but a deadline or the drain.
    Read(Expect),
    /// Wait for an event: the result of the oldest [`Action::Resolve`] without one.
    Wait,
    /// MAIL: take the configuration in force. Its result is [`Event::Began`].
    Begin(Box<Sender>),
    /// RCPT: decide about it. Its result is [`Event::Resolved`], in order.
    Resolve(Box<Rcpt>),
    /// Check the header section (without the empty line). Its result is [`Event::HeaderChecked`].
    CheckHeader(Bytes),
    /// Store or pass on content after the header section, beginning with the empty line.
    Content(Bytes),
    /// The content is complete: deliver it or make it durable. Its result is [`Event::Ended`].
    Commit(Summary),
    /// The transaction is over, or its content is refused: drop what was stored of it.
    Discard,
    /// Flush the output, drop unread input, and begin TLS. Its result is [`Event::TlsStarted`].
    StartTls,
    /// Check the password. Its result is [`Event::Authenticated`].
    Authenticate(Credentials),
    /// Flush the output and close.
    Close,
}

/// What is read next, which decides the deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Command,
    Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Data,
    Bdat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In octets.
    pub max_message_size: u64,
    /// In octets.
    pub max_header_size: u64,
    pub max_recipients: usize,
}

/// What is known of a message's content at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Whether it has an 8-bit octet.
    pub eight_bit: bool,
    /// Whether it has a bare CR or LF (BDAT only).
    pub bare_lf: bool,
}

#[derive(Debug)]
enum SessionState {
    /// No transaction.
    Idle,
    /// MAIL was given; [`Event::Began`] is due.
    Opening(Option<u64>, Utf8),
    Envelope(Envelope),
    /// Content is being read.
    Content(Incoming, Source),
    /// A chunk has been read; another is due.
    BetweenChunks(Incoming),
    /// A refused chunk is being skipped; then this reply is sent and the state returns to that one.
    Skipping(u64, Reply, Box<SessionState>),
    /// [`Event::Ended`] is due.
    Committing,
    /// [`Event::TlsStarted`] is due.
    Handshake,
    /// The client's response to a challenge is due.
    Authenticating(Exchange),
    /// [`Event::Authenticated`] is due.
    CheckingCredentials,
    Closed,
}

/// Whether MAIL had SMTPUTF8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Utf8 {
    Absent,
    Given,
}

/// A transaction whose content has not begun.
#[derive(Debug)]
struct Envelope {
    limits: Limits,
    utf8: Utf8,
    accepted: usize,
    refused: usize,
    /// RCPTs whose [`Event::Resolved`] is due.
    pending: usize,
}

/// The state machine of one session.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    hello: Option<Hello>,
    state: SessionState,
    lines: lines::Lines,
    /// A command that waits until the RCPTs before it are answered.
    held: Option<Result<Command, CommandError>>,
    out: VecDeque<Action>,
    errors: usize,
    refused_in_a_row: usize,
    auth_failures: usize,
    draining: bool,
}

impl Server {
    /// A new session. Its first action is the greeting.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        let greeting = Reply::greeting(&profile.hostname);
        Self {
            profile,
            hello: None,
            state: SessionState::Idle,
            lines: lines::Lines::default(),
            held: None,
            out: VecDeque::from([Action::Send(greeting)]),
            errors: 0,
            refused_in_a_row: 0,
            auth_failures: 0,
            draining: false,
        }
    }

    /// How the client introduced itself, since the last EHLO, HELO or STARTTLS.
    #[must_use]
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Whether the session is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.profile.tls == TlsState::Active
    }

    /// What carries the content that is being read.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        match &self.state {
            SessionState::Content(_, Source::Dots(_)) => Carrier::Data,
            _ => Carrier::Bdat,
        }
    }

    /// The next action. Takes what it can use off `input`; the rest has to be passed again.
    pub fn next(&mut self, input: &mut BytesMut) -> Action {
        loop {
            if let Some(action) = self.out.pop_front() {
                return action;
            }
            let rest = match &mut self.state {
                SessionState::Closed => return Action::Close,
                SessionState::Opening(..) | SessionState::Committing => return Action::Wait,
                SessionState::Handshake | SessionState::CheckingCredentials => return Action::Wait,
                SessionState::Authenticating(_) => {
                    if let Some(action) = self.auth_line(input) {
                        return action;
                    }
                    continue;
                }
                SessionState::Content(incoming, _) if incoming.is_being_checked() => return Action::Wait,
                SessionState::Content(_, source) if source.exhausted() => {
                    self.end_of_source();
                    continue;
                }
                SessionState::Skipping(0, ..) => {
                    self.end_of_skipping();
                    continue;
                }
                SessionState::Content(..) | SessionState::Skipping(..) if input.is_empty() => {
                    return Action::Read(Expect::Content);
                }
                SessionState::Skipping(left, ..) => {
                    content::skip(left, input);
                    continue;
                }
                SessionState::Content(incoming, source) => incoming.read(source, input),
                SessionState::Idle | SessionState::Envelope(_) | SessionState::BetweenChunks(_) => {
                    if let Some(action) = self.command(input) {
                        return action;
                    }
                    continue;
                }
            };
            self.out.extend(rest);
        }
    }

    pub fn handle(&mut self, event: Event) {
        match (std::mem::replace(&mut self.state, SessionState::Closed), event) {
            (SessionState::Closed, _) => {}
            (_, Event::SentAway(why)) => self.close_with(why),
            (state, Event::Draining) => {
                self.draining = true;
                self.state = state;
            }
            (SessionState::Opening(size, utf8), Event::Began(limits)) => self.began(size, utf8, limits),
            (SessionState::Envelope(envelope), Event::Resolved(answer)) => self.resolved(envelope, answer),
            (SessionState::Content(incoming, source), Event::HeaderChecked(verdict)) => {
                self.header_checked(incoming, source, verdict);
            }
            (SessionState::Content(incoming, source), Event::NoRoom) => self.no_room(incoming, source),
            (SessionState::Committing, Event::Ended(result)) => self.ended(result),
            (SessionState::Handshake, Event::TlsStarted(profile)) => {
                self.profile = Profile { tls: TlsState::Active, ..profile };
                self.state = SessionState::Idle;
            }
            (SessionState::CheckingCredentials, Event::Authenticated(verdict)) => self.authenticated(verdict),
            // The driver sends results only for actions that it was given.
            (state, Event::Began(_) | Event::Resolved(_) | Event::HeaderChecked(_) | Event::NoRoom) => {
                self.state = state
            }
            (state, Event::Ended(_) | Event::TlsStarted(_) | Event::Authenticated(_)) => self.state = state,
        }
    }

    fn began(&mut self, size: Option<u64>, utf8: Utf8, limits: Result<Limits, Reply>) {
        self.state = SessionState::Idle;
        match limits {
            Err(refused) => self.send(refused),
            Ok(limits) if size.is_some_and(|size| size > limits.max_message_size) => {
                self.out.push_back(Action::Discard); // RFC 1870 6.1
                self.send(reply::MESSAGE_TOO_LARGE);
            }
            Ok(limits) => {
                self.state = SessionState::Envelope(Envelope { limits, utf8, accepted: 0, refused: 0, pending: 0 });
                self.send(reply::SENDER_OK);
            }
        }
    }

    fn resolved(&mut self, mut envelope: Envelope, answer: Reply) {
        envelope.pending = envelope.pending.saturating_sub(1);
        if answer.is_positive() {
            envelope.accepted += 1;
            self.refused_in_a_row = 0;
        } else {
            envelope.refused += 1;
            self.refused_in_a_row += usize::from(answer.is_permanent());
        }
        self.state = SessionState::Envelope(envelope);
        self.send(answer);
        if self.refused_in_a_row >= MAX_REFUSED_IN_A_ROW {
            self.close_with(reply::TOO_MANY_ERRORS);
        }
    }

    fn ended(&mut self, result: Result<Reply, Reply>) {
        self.state = SessionState::Idle;
        if result.is_ok() {
            self.errors = 0;
        }
        self.send(result.unwrap_or_else(|refused| refused));
    }

    /// Appends a reply; after 421 the session is closed (RFC 5321 3.8).
    fn send(&mut self, reply: Reply) {
        if reply.code == 421 {
            self.state = SessionState::Closed;
        }
        self.out.push_back(Action::Send(reply));
    }

    /// Appends a last reply.
    fn close_with(&mut self, reply: Reply) {
        self.send(reply);
        self.state = SessionState::Closed;
    }

    /// Replies to a command that is an error, and counts it.
    fn error(&mut self, reply: Reply) {
        self.errors += 1;
        self.send(reply);
        if self.errors >= MAX_ERRORS {
            self.close_with(reply::TOO_MANY_ERRORS);
        }
    }
}
