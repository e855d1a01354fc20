//! What each command means in each state (RFC 5321 4.1.4).

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{
    Action, Command, CommandError, DotReader, Dsn, Envelope, Expect, Hello, Incoming, Line, MAX_PENDING, Rcpt, Reply,
    Sender, Server, SessionState, Source, StartTls, TlsState, Utf8, reply,
};
use crate::smtp::command::{self, Chunk, ForwardPath};
use crate::smtp::envelope::Notify;
use crate::smtp::extension;

/// The next command of the input, if it can be handled now.
enum NextCommand {
    Command(Result<Command, CommandError>),
    /// The line is not complete.
    More,
    /// There is none: the session is over, or the line has been answered already.
    Answered,
}

impl Server {
    /// Takes one command off the input and handles it. `Some`: this action has to be performed before there is one.
    pub(super) fn command(&mut self, input: &mut BytesMut) -> Option<Action> {
        let pending = match &self.state {
            SessionState::Envelope(envelope) => envelope.pending,
            _ => 0,
        };
        if pending == 0 && self.draining && matches!(self.state, SessionState::Idle) {
            self.close_with(reply::SHUTTING_DOWN);
            return None;
        }
        if pending >= MAX_PENDING {
            return Some(Action::Wait);
        }
        let command = match self.next_command(input, pending) {
            NextCommand::Command(command) => command,
            NextCommand::More if pending > 0 => return Some(Action::Wait),
            NextCommand::More => {
                // Nothing is due: the memory is freed, since thousands of clients may be idle.
                self.out = VecDeque::new();
                return Some(Action::Read(Expect::Command));
            }
            NextCommand::Answered => return None,
        };
        match (&mut self.state, command) {
            // Consecutive RCPTs are resolved concurrently and answered in their order.
            (SessionState::Envelope(envelope), Ok(Command::Rcpt(mut rcpt))) if envelope.takes(&rcpt) => {
                if self.profile.dsn() == Dsn::NotOffered {
                    rcpt.notify = rcpt.notify.map(Notify::without_success);
                }
                envelope.pending += 1;
                self.out.push_back(Action::Resolve(rcpt));
            }
            (_, command) if pending > 0 => {
                self.held = Some(command);
                return Some(Action::Wait);
            }
            (_, Ok(command)) => self.obey(command, input),
            (_, Err(error)) if error.ends_session() => self.close_with(error.reply()),
            (_, Err(error)) => self.error(error.reply()),
        }
        None
    }

    /// The command that was held back, or the next line's.
    fn next_command(&mut self, input: &mut BytesMut, pending: usize) -> NextCommand {
        if let Some(command) = self.held.take() {
            return NextCommand::Command(command);
        }
        match self.lines.take(input) {
            Line::Whole(line) => NextCommand::Command(command::parse(&line)),
            Line::Partial => NextCommand::More,
            Line::TooLong => NextCommand::Command(Err(CommandError::TooLong)),
            Line::Bare if pending > 0 => NextCommand::More, // it stays in the input until the answers before it are out
            Line::Bare => {
                self.close_with(reply::BARE_IN_COMMAND);
                NextCommand::Answered
            }
        }
    }

    /// Handles one command.
    fn obey(&mut self, command: Command, input: &mut BytesMut) {
        if self.profile.tls == TlsState::Required && needs_tls(&command) {
            return match command {
                Command::Bdat(chunk) => self.skip_chunk(chunk, reply::TLS_REQUIRED),
                _ => self.error(reply::TLS_REQUIRED),
            };
        }
        match command {
            Command::Ehlo(name) => self.ehlo(name),
            Command::Helo(name) => {
                self.reset();
                self.hello = Some(Hello::Helo(name));
                self.send(Reply::bare(250, self.profile.hostname.clone().into()));
            }
            Command::Mail(sender) => self.mail(sender),
            Command::Rcpt(_) => self.refuse_rcpt(),
            Command::Data => self.data(),
            Command::Bdat(chunk) => self.bdat(chunk),
            Command::Rset => {
                self.reset();
                self.send(reply::OK);
            }
            Command::Noop => self.send(reply::OK),
            Command::Quit => self.close_with(reply::CLOSING),
            Command::Vrfy => self.send(reply::CANNOT_VRFY),
            Command::Help => self.send(reply::HELP),
            Command::StartTls => self.start_tls(input),
            Command::Auth(mechanism, initial) => self.auth(mechanism, initial.as_ref()),
        }
    }

    fn ehlo(&mut self, name: String) {
        self.reset();
        self.hello = Some(Hello::Ehlo(name));
        let start_tls = match self.profile.tls {
            TlsState::Offered | TlsState::Required => StartTls::Offered,
            TlsState::Unavailable | TlsState::Active => StartTls::NotOffered,
        };
        let (size, auth) = (self.profile.max_message_size, self.auth_offer());
        let dsn = self.profile.dsn();
        self.send(extension::ehlo(&self.profile.hostname, size, start_tls, auth, dsn));
    }

    /// RFC 5321 4.1.4: EHLO, HELO and RSET abort the transaction.
    fn reset(&mut self) {
        match std::mem::replace(&mut self.state, SessionState::Idle) {
            SessionState::Idle => {}
            _ => self.out.push_back(Action::Discard),
        }
    }

    fn mail(&mut self, mut sender: Box<Sender>) {
        if self.profile.dsn() == Dsn::NotOffered {
            // A parameter of an extension that was not offered has no effect.
            sender.ret = None;
        }
        match &self.state {
            SessionState::BetweenChunks(_) => self.error(reply::NEED_BDAT),
            SessionState::Idle if self.hello.is_none() => self.error(reply::HELLO_FIRST),
            SessionState::Idle => {
                let utf8 = if sender.smtputf8 { Utf8::Given } else { Utf8::Absent };
                self.state = SessionState::Opening(sender.size, utf8);
                self.out.push_back(Action::Begin(sender));
            }
            _ => self.error(reply::NESTED_MAIL),
        }
    }

    /// Refuses a RCPT that cannot be resolved.
    fn refuse_rcpt(&mut self) {
        match &mut self.state {
            SessionState::BetweenChunks(_) => self.error(reply::NEED_BDAT),
            SessionState::Envelope(envelope) => {
                envelope.refused += 1;
                // RFC 5321 4.5.3.1.10: recipients that were accepted before stay accepted.
                let why = if envelope.is_full() { reply::TOO_MANY_RECIPIENTS } else { reply::UTF8_NEEDED };
                self.send(why);
            }
            _ => self.error(reply::NEED_MAIL),
        }
    }

    fn data(&mut self) {
        match &self.state {
            SessionState::BetweenChunks(_) => self.error(reply::NEED_BDAT),
            SessionState::Envelope(envelope) if envelope.accepted > 0 => {
                let incoming = Incoming::new(envelope.limits);
                self.state = SessionState::Content(incoming, Source::Dots(DotReader::default()));
                self.send(reply::START_MAIL_INPUT);
            }
            SessionState::Envelope(envelope) if envelope.refused > 0 => self.send(reply::NO_VALID_RECIPIENTS),
            SessionState::Envelope(_) => self.error(reply::NEED_RCPT),
            _ => self.error(reply::NEED_MAIL),
        }
    }

    fn bdat(&mut self, chunk: Chunk) {
        let source = Source::Chunk { size: chunk.size, left: chunk.size, place: chunk.place };
        match std::mem::replace(&mut self.state, SessionState::Idle) {
            SessionState::BetweenChunks(incoming) => self.state = SessionState::Content(incoming, source),
            SessionState::Envelope(envelope) if envelope.accepted > 0 => {
                self.state = SessionState::Content(Incoming::new(envelope.limits), source);
            }
            SessionState::Envelope(envelope) => {
                self.state = SessionState::Envelope(envelope);
                self.skip_chunk(chunk, reply::NEED_RCPT);
            }
            state => {
                self.state = state;
                self.skip_chunk(chunk, reply::NEED_MAIL);
            }
        }
    }

    /// RFC 3030 2: the octets of a refused chunk are skipped, never read as commands.
    fn skip_chunk(&mut self, chunk: Chunk, why: Reply) {
        let back = Box::new(std::mem::replace(&mut self.state, SessionState::Idle));
        self.state = SessionState::Skipping(chunk.size, why, back);
    }

    fn start_tls(&mut self, input: &mut BytesMut) {
        match self.profile.tls {
            TlsState::Unavailable => self.error(reply::NOT_IMPLEMENTED),
            TlsState::Active => self.error(reply::TLS_ACTIVE),
            TlsState::Offered | TlsState::Required => {
                input.clear(); // RFC 3207 5: what was injected behind STARTTLS is not the client's
                self.reset();
                self.hello = None;
                self.send(reply::READY_FOR_TLS);
                self.state = SessionState::Handshake;
                self.out.push_back(Action::StartTls);
            }
        }
    }
}

impl Envelope {
    /// Whether this recipient can be resolved.
    fn takes(&self, rcpt: &Rcpt) -> bool {
        !self.is_full() && (self.utf8 == Utf8::Given || is_ascii(rcpt))
    }

    fn is_full(&self) -> bool {
        self.accepted + self.pending >= self.limits.max_recipients
    }
}

fn is_ascii(rcpt: &Rcpt) -> bool {
    match &rcpt.to {
        ForwardPath::Mailbox(address) => address.is_ascii(),
        ForwardPath::Postmaster => true,
    }
}

/// RFC 3207 4: whether the command is refused where TLS is required and missing.
fn needs_tls(command: &Command) -> bool {
    match command {
        Command::Mail(_) | Command::Rcpt(_) | Command::Data | Command::Bdat(_) | Command::Vrfy => true,
        Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop => false,
        Command::Quit | Command::Help | Command::StartTls | Command::Auth(..) => false,
    }
}
