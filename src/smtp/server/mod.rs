//! The server's side of SMTP as a state machine without a socket (RFC 5321, 2920, 3030, 3207, 4954).
//!
//! `crate::session` drives a [`Server`]: it asks for the [next](Server::next) action with the octets that have come
//! in so far, performs it, and [tells](Server::handle) the machine what came of it. What a command means for the
//! state is in `commands`, what is done with a message's content in `content`, AUTH in `auth`. Where a recipient goes,
//! whether a message loops, and what is durable is decided elsewhere; here stands only that 250 comes after it.

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

/// Errors in commands after which a session ends (RFC 5321 7.8 leaves the number to us).
const MAX_ERRORS: usize = 20;
/// Recipients refused one after another after which a session ends: somebody tries names.
const MAX_REFUSED_IN_A_ROW: usize = 100;
/// Recipients of one transaction that are asked about at once.
const MAX_PENDING: usize = 16;

/// What has happened.
#[derive(Debug)]
pub enum Event {
    /// The transaction of [`Action::Begin`] may begin within these limits, or not.
    Began(Result<Limits, Reply>),
    /// The answer to the oldest [`Action::Resolve`] that has none yet.
    Resolved(Reply),
    /// The header section of [`Action::CheckHeader`] may pass, or the message is refused.
    HeaderChecked(Result<(), Reply>),
    /// The message of [`Action::Commit`] is delivered or durable and this says so, or it is refused.
    Ended(Result<Reply, Reply>),
    /// TLS is up, and the client's certificate may have changed what holds for it.
    TlsStarted(Profile),
    /// The client is who [`Action::Authenticate`] says, or is told this.
    Authenticated(Result<(), Reply>),
    /// The client is to go, with this last reply: a deadline has passed, or somebody else needs its place.
    SentAway(Reply),
    /// There is no memory for a header section that goes on: the message is refused.
    NoRoom,
    /// We are about to stop: a transaction under way may end, no other begins.
    Draining,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Append to what will be sent.
    Send(Reply),
    /// Send what is due, then read more; the machine has no use for an event until then, but for a deadline or the drain.
    Read(Expect),
    /// An event is due: the answer to the oldest [`Action::Resolve`] without one.
    Wait,
    /// MAIL: take the configuration in force. Answered by [`Event::Began`].
    Begin(Box<Sender>),
    /// RCPT: decide about it. Answered by [`Event::Resolved`], in order.
    Resolve(Box<Rcpt>),
    /// The header section, without the empty line. Answered by [`Event::HeaderChecked`].
    CheckHeader(Bytes),
    /// Content behind the header section, beginning with the empty line.
    Content(Bytes),
    /// That was all of it: deliver it or make it durable. Answered by [`Event::Ended`].
    Commit(Summary),
    /// The transaction is over, or its content is refused already: throw away what there is of it.
    Discard,
    /// Send what is due, throw away what has been read, and begin TLS. Answered by [`Event::TlsStarted`].
    StartTls,
    /// Find out whether this is the password. Answered by [`Event::Authenticated`].
    Authenticate(Credentials),
    /// Send what is due and close.
    Close,
}

/// What is read next: which deadline holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Command,
    /// A message's content.
    Content,
}

/// What brings a message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    Data,
    Bdat,
}

/// The limits of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a message.
    pub max_message_size: u64,
    /// Octets of its header section.
    pub max_header_size: u64,
    pub max_recipients: usize,
}

/// What is known of a whole message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Whether there is an 8-bit octet in it.
    pub eight_bit: bool,
    /// Whether there is a bare CR or LF in it (BDAT only).
    pub bare_lf: bool,
}

/// Where in a session we are.
#[derive(Debug)]
enum SessionState {
    /// No transaction.
    Idle,
    /// MAIL was given; [`Event::Began`] is due.
    Opening(Option<u64>, Utf8),
    /// MAIL was accepted.
    Envelope(Envelope),
    /// Content is being read.
    Content(Incoming, Source),
    /// A chunk has been read; another is due.
    BetweenChunks(Incoming),
    /// A chunk that nobody wants is being read; then this reply is due and the state is that one again.
    Skipping(u64, Reply, Box<SessionState>),
    /// [`Event::Ended`] is due.
    Committing,
    /// [`Event::TlsStarted`] is due.
    Handshake,
    /// The client's answer to a challenge is due.
    Authenticating(Exchange),
    /// [`Event::Authenticated`] is due.
    CheckingCredentials,
    /// Nothing more is read.
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
    /// Resolved, but the answer is not there yet.
    pending: usize,
}

/// One session's protocol.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    hello: Option<Hello>,
    state: SessionState,
    lines: lines::Lines,
    /// A command that waits for the answers to the RCPTs before it.
    held: Option<Result<Command, CommandError>>,
    out: VecDeque<Action>,
    errors: usize,
    refused_in_a_row: usize,
    auth_failures: usize,
    draining: bool,
}

impl Server {
    /// A session at its beginning. The first action is the greeting.
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

    /// What brings the content that is being read.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        match &self.state {
            SessionState::Content(_, Source::Dots(_)) => Carrier::Data,
            _ => Carrier::Bdat,
        }
    }

    /// The next thing to do. Takes what it can use from `input`; what it leaves there is its business later.
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

    /// Takes note of what has happened.
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
            // The driver answers what it was asked and nothing else.
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

    /// Sends a reply; 421 is the last one (RFC 5321 3.8).
    fn send(&mut self, reply: Reply) {
        if reply.code == 421 {
            self.state = SessionState::Closed;
        }
        self.out.push_back(Action::Send(reply));
    }

    /// Sends a last reply.
    fn close_with(&mut self, reply: Reply) {
        self.send(reply);
        self.state = SessionState::Closed;
    }

    /// Answers a command that is an error, and counts it.
    fn error(&mut self, reply: Reply) {
        self.errors += 1;
        self.send(reply);
        if self.errors >= MAX_ERRORS {
            self.close_with(reply::TOO_MANY_ERRORS);
        }
    }
}
