//! Parses one command line of SMTP (RFC 5321 4.1). `server` calls [`parse`] with a line without its CRLF.
//!
//! Paths are parsed in `path`, the parameters of MAIL and RCPT in `extension`. `server` checks whether a command is
//! allowed in the state of the session.

use super::address::{Address, ReversePath};
use super::reply::{self, Reply};
use super::sasl::{Mechanism, Response};
use super::{extension, path};
use crate::smtp::envelope::{Notify, Sender};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The client's name; characters that cannot stand in a Received field are `?`.
    Ehlo(String),
    /// As for EHLO.
    Helo(String),
    /// Reverse-path and parameters.
    Mail(Box<Sender>),
    /// Forward-path and parameters.
    Rcpt(Box<Rcpt>),
    Data,
    /// That many octets follow (RFC 3030).
    Bdat(Chunk),
    Rset,
    Noop,
    Quit,
    /// The argument is not read.
    Vrfy,
    /// The argument is not read.
    Help,
    /// RFC 3207.
    StartTls,
    /// RFC 4954: the mechanism, and the initial response if there is one.
    Auth(Mechanism, Option<Response>),
}

/// RCPT's arguments. `crate::session` makes a [`crate::smtp::envelope::RcptTo`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rcpt {
    pub to: ForwardPath,
    pub notify: Option<Notify>,
    /// ORCPT as written.
    pub orcpt: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// A mailbox; a source route has been removed.
    Mailbox(Address),
    /// `<postmaster>` without a domain (RFC 5321 4.5.1).
    Postmaster,
}

/// BDAT's arguments (RFC 3030 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub size: u64,
    pub place: ChunkPosition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkPosition {
    Inner,
    /// `LAST`.
    Last,
}

/// Why a line is not a command of this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not a command of SMTP.
    #[error("command unrecognized")]
    Unrecognized,
    /// A command of SMTP that this server does not have.
    #[error("command not implemented")]
    NotImplemented,
    #[error("not text")]
    NotText,
    /// The line is longer than the limit.
    #[error("line too long")]
    TooLong,
    /// Missing, superfluous or malformed arguments.
    #[error("syntax error in arguments")]
    Arguments,
    /// MAIL's path is malformed.
    #[error("bad sender address")]
    Sender,
    /// RCPT's path is malformed.
    #[error("bad recipient address")]
    Recipient,
    /// A parameter is malformed or given twice.
    #[error("bad parameter")]
    Parameter,
    /// A parameter of an extension that is not offered.
    #[error("unknown parameter")]
    UnknownParameter,
    /// MAIL has a non-ASCII address without SMTPUTF8.
    #[error("SMTPUTF8 needed")]
    Utf8Needed,
    /// BDAT's size cannot be read, so the chunk cannot be told from commands.
    #[error("bad chunk size")]
    ChunkSize,
    /// AUTH with a mechanism that is not offered.
    #[error("unknown mechanism")]
    Mechanism,
    /// A command of another protocol, such as HTTP.
    #[error("not SMTP")]
    OtherProtocol,
}

impl CommandError {
    #[must_use]
    pub fn reply(self) -> Reply {
        match self {
            Self::Unrecognized => reply::UNRECOGNIZED,
            Self::NotImplemented => reply::NOT_IMPLEMENTED,
            Self::NotText => reply::NOT_TEXT,
            Self::TooLong => reply::LINE_TOO_LONG,
            Self::Arguments => reply::BAD_ARGUMENTS,
            Self::Sender => reply::BAD_SENDER,
            Self::Recipient => reply::BAD_RECIPIENT,
            Self::Parameter => reply::BAD_PARAMETER,
            Self::UnknownParameter => reply::UNKNOWN_PARAMETER,
            Self::Utf8Needed => reply::UTF8_NEEDED,
            Self::ChunkSize => reply::BAD_CHUNK_SIZE,
            Self::Mechanism => reply::UNKNOWN_MECHANISM,
            Self::OtherProtocol => reply::NOT_SMTP,
        }
    }

    /// Whether the session is closed, because what follows may not be commands.
    #[must_use]
    pub fn ends_session(self) -> bool {
        matches!(self, Self::ChunkSize | Self::OtherProtocol)
    }
}

/// Parses a line without its CRLF.
///
/// # Errors
/// A [`CommandError`], whose [`reply`](CommandError::reply) the client gets.
pub fn parse(line: &[u8]) -> Result<Command, CommandError> {
    let line = std::str::from_utf8(line).map_err(|_| CommandError::NotText)?;
    let line = line.trim_end_matches([' ', '\t']); // RFC 5321 4.1.1: trailing white space is tolerated
    let (verb, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let arguments = arguments.trim_start_matches(' ');
    match verb.to_ascii_uppercase().as_str() {
        "EHLO" => client_name(arguments).map(Command::Ehlo),
        "HELO" => client_name(arguments).map(Command::Helo),
        "MAIL" => mail(arguments),
        "RCPT" => rcpt(arguments),
        "DATA" => alone(Command::Data, arguments),
        "BDAT" => bdat(arguments),
        "RSET" => alone(Command::Rset, arguments),
        "NOOP" => Ok(Command::Noop),
        "QUIT" => alone(Command::Quit, arguments),
        "VRFY" if arguments.is_empty() => Err(CommandError::Arguments),
        "VRFY" => Ok(Command::Vrfy),
        "HELP" => Ok(Command::Help),
        "STARTTLS" => alone(Command::StartTls, arguments),
        "AUTH" => auth(arguments),
        "EXPN" | "ETRN" | "TURN" | "ATRN" | "SEND" | "SOML" | "SAML" | "BURL" => Err(CommandError::NotImplemented),
        "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" | "PRI" => Err(CommandError::OtherProtocol),
        _ => Err(CommandError::Unrecognized),
    }
}

fn alone(command: Command, arguments: &str) -> Result<Command, CommandError> {
    if arguments.is_empty() { Ok(command) } else { Err(CommandError::Arguments) }
}

/// The name of EHLO or HELO. Any name is accepted, since many clients have no proper one; a character that no host name
/// or address literal contains becomes `?`, because the name goes into a Received field.
fn client_name(written: &str) -> Result<String, CommandError> {
    if written.is_empty() || written.len() > 255 {
        return Err(CommandError::Arguments);
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    Ok(written.chars().map(|c| if known(c) { c } else { '?' }).collect())
}

fn mail(arguments: &str) -> Result<Command, CommandError> {
    let (path, parameters) = path::split(arguments, "FROM").ok_or(CommandError::Sender)?;
    let reverse_path = match path {
        "" => ReversePath::Null,
        mailbox => ReversePath::Address(path::mailbox(mailbox).map_err(|_| CommandError::Sender)?),
    };
    let sender = extension::mail_parameters(reverse_path, parameters)?;
    let needs_utf8 = sender.reverse_path.address().is_some_and(|address| !address.is_ascii());
    if needs_utf8 && !sender.smtputf8 {
        return Err(CommandError::Utf8Needed);
    }
    Ok(Command::Mail(Box::new(sender)))
}

fn rcpt(arguments: &str) -> Result<Command, CommandError> {
    let (path, parameters) = path::split(arguments, "TO").ok_or(CommandError::Recipient)?;
    let to = if path.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Mailbox(path::mailbox(path).map_err(|_| CommandError::Recipient)?)
    };
    let (notify, orcpt) = extension::rcpt_parameters(parameters)?;
    Ok(Command::Rcpt(Box::new(Rcpt { to, notify, orcpt })))
}

fn auth(arguments: &str) -> Result<Command, CommandError> {
    let (mechanism, initial) = match arguments.split_once(' ') {
        Some((mechanism, initial)) => (mechanism, Some(Response::new(initial.trim_start_matches(' ')))),
        None => (arguments, None),
    };
    match (mechanism, Mechanism::named(mechanism)) {
        ("", _) => Err(CommandError::Arguments),
        (_, Some(mechanism)) => Ok(Command::Auth(mechanism, initial)),
        (_, None) => Err(CommandError::Mechanism),
    }
}

fn bdat(arguments: &str) -> Result<Command, CommandError> {
    let (size, place) = match arguments.split_once(' ') {
        None => (arguments, ChunkPosition::Inner),
        Some((size, last)) if last.trim_start().eq_ignore_ascii_case("LAST") => (size, ChunkPosition::Last),
        Some(_) => return Err(CommandError::ChunkSize),
    };
    if !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(CommandError::ChunkSize);
    }
    let size = size.parse().map_err(|_| CommandError::ChunkSize)?;
    Ok(Command::Bdat(Chunk { size, place }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Result<ForwardPath, CommandError> {
        match parse(format!("RCPT TO:{text}").as_bytes())? {
            Command::Rcpt(rcpt) => Ok(rcpt.to),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn simple_commands_are_read_in_any_case() {
        for (line, command) in [
            ("ehlo mx.contoso.com", Command::Ehlo("mx.contoso.com".into())),
            ("EHLO [IPv6:2001:db8::1]", Command::Ehlo("[IPv6:2001:db8::1]".into())),
            ("HELO it's (me)", Command::Helo("it?s??me?".into())),
            ("DATA  ", Command::Data),
            ("rset", Command::Rset),
            ("NOOP whatever", Command::Noop),
            ("Quit", Command::Quit),
            ("VRFY alice", Command::Vrfy),
            ("HELP", Command::Help),
            ("StartTLS", Command::StartTls),
            ("auth plain", Command::Auth(Mechanism::Plain, None)),
            ("AUTH Login YQ==", Command::Auth(Mechanism::Login, Some(Response::new("YQ==")))),
            ("BDAT 0 last", Command::Bdat(Chunk { size: 0, place: ChunkPosition::Last })),
            ("BDAT 86", Command::Bdat(Chunk { size: 86, place: ChunkPosition::Inner })),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_told_apart() {
        for (line, error) in [
            (&b""[..], CommandError::Unrecognized),
            (b"FOO", CommandError::Unrecognized),
            (b"EHLO", CommandError::Arguments),
            (b"DATA now", CommandError::Arguments),
            (b"STARTTLS x", CommandError::Arguments),
            (b"VRFY", CommandError::Arguments),
            (b"EXPN list", CommandError::NotImplemented),
            (b"AUTH", CommandError::Arguments),
            (b"AUTH GSSAPI", CommandError::Mechanism),
            (b"NOOP \xff", CommandError::NotText),
            (b"GET / HTTP/1.1", CommandError::OtherProtocol),
            (b"BDAT", CommandError::ChunkSize),
            (b"BDAT +5", CommandError::ChunkSize),
            (b"BDAT 5 FIRST", CommandError::ChunkSize),
            (b"BDAT 99999999999999999999999", CommandError::ChunkSize),
            (b"MAIL TO:<a@b.c>", CommandError::Sender),
            (b"MAIL FROM:", CommandError::Sender),
            (b"MAIL FROM: ", CommandError::Sender),
            (b"MAIL FROM", CommandError::Sender),
            (b"MAIL FROMa@b.c", CommandError::Sender),
            (b"MAIL FROM:SIZE=1", CommandError::Sender),
            (b"MAIL FROM:a@b.c>", CommandError::Sender),
            (b"MAIL FROM:a@b.c> SIZE=1", CommandError::Sender),
            (b"MAIL FROM:a b@b.c", CommandError::Sender),
            (b"MAIL FROM:a@b.c x@y.z", CommandError::Parameter),
            (b"MAIL FROM:a@b.c,x@y.z", CommandError::Sender),
            (b"MAIL FROM:\"a b@b.c", CommandError::Sender),
            (b"MAIL FROM:A <a@b.c>", CommandError::Sender),
            (b"MAIL FROM:a@b.c\rRCPT", CommandError::Sender),
            (b"MAIL FROM:a@b.c\tSIZE=1", CommandError::Sender),
            (b"MAIL FROM:<postmaster>", CommandError::Sender),
            (b"MAIL FROM:<a@b.c", CommandError::Sender),
            (b"MAIL FROM:<a@b.c>SIZE=1", CommandError::Sender),
            (b"MAIL FROM:<@b.c>", CommandError::Sender),
            ("MAIL FROM:<ren\u{e9}@b.c>".as_bytes(), CommandError::Utf8Needed),
            (b"MAIL FROM:<a@b.c> BY=120;R", CommandError::UnknownParameter),
            (b"RCPT TO:<>", CommandError::Recipient),
            (b"RCPT TO:", CommandError::Recipient),
            (b"RCPT TO:alice", CommandError::Recipient),
            (b"RCPT TO:<alice>", CommandError::Recipient),
            (b"RCPT TO:<\"\"@b.c>", CommandError::Recipient),
            (b"RCPT TO:<a@b.c> SIZE=1", CommandError::UnknownParameter),
        ] {
            assert_eq!(parse(line), Err(error), "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn forward_paths_lose_their_source_route_and_nothing_else() {
        for (text, mailbox) in [
            ("<alice@contoso.com>", "alice@contoso.com"),
            (" <alice@contoso.com>", "alice@contoso.com"),
            ("<@a.example,@b.example:alice@contoso.com>", "alice@contoso.com"),
            ("<@[IPv6:::1]:alice@contoso.com>", "alice@contoso.com"),
            ("<\"a>b@c\"@contoso.com>", "\"a>b@c\"@contoso.com"),
            ("<a%b!c@contoso.com>", "a%b!c@contoso.com"),
            ("alice@contoso.com", "alice@contoso.com"),
            (" alice@contoso.com  NOTIFY=NEVER", "alice@contoso.com"),
            ("<alice@contoso.com.>", "alice@contoso.com"),
            ("@a.example:alice@contoso.com.", "alice@contoso.com"),
            ("<ali..ce@contoso.com>", "\"ali..ce\"@contoso.com"),
            ("\"a b\"@contoso.com NOTIFY=NEVER", "\"a b\"@contoso.com"),
            ("<u@[192.0.2.1]>", "u@[192.0.2.1]"),
        ] {
            let ForwardPath::Mailbox(address) = to(text).unwrap() else { panic!("{text}") };
            assert_eq!(address.as_str(), mailbox);
        }
        assert_eq!(to("<PostMaster>"), Ok(ForwardPath::Postmaster));
        assert_eq!(to("PostMaster"), Ok(ForwardPath::Postmaster));
        for text in ["<@a.example>", "<@a.example:>", "<@a.example,b:u@c.d>", "<@:u@c.d>", "<a@b.c>>"] {
            assert_eq!(to(text), Err(CommandError::Recipient), "{text}");
        }
    }

    #[test]
    fn reverse_paths_are_taken_as_printers_write_them() {
        for (line, mailbox, size) in [
            ("MAIL FROM:chris@fabrikam.test", "chris@fabrikam.test", None),
            ("MAIL FROM: chris@fabrikam.test", "chris@fabrikam.test", None),
            ("mail from : chris@fabrikam.test SIZE=5", "chris@fabrikam.test", Some(5)),
            ("MAIL FROM:chris@fabrikam.test.  SIZE=5", "chris@fabrikam.test", Some(5)),
            ("MAIL FROM:<chris@fabrikam.test.> SIZE=5", "chris@fabrikam.test", Some(5)),
            ("MAIL FROM:<chris..x@fabrikam.test>", "\"chris..x\"@fabrikam.test", None),
            ("MAIL FROM:.chris.@fabrikam.test.", "\".chris.\"@fabrikam.test", None),
            ("MAIL FROM:@a.example:chris@fabrikam.test", "chris@fabrikam.test", None),
            ("MAIL FROM:\"a b>c\"@fabrikam.test SIZE=5", "\"a b>c\"@fabrikam.test", Some(5)),
        ] {
            let Ok(Command::Mail(sender)) = parse(line.as_bytes()) else { panic!("{line}") };
            assert_eq!((sender.reverse_path.as_str(), sender.size), (mailbox, size), "{line}");
        }
    }

    #[test]
    fn the_null_reverse_path_is_no_address() {
        let Ok(Command::Mail(sender)) = parse(b"MAIL FROM:<> SIZE=7") else { panic!() };
        assert_eq!((sender.reverse_path, sender.size), (ReversePath::Null, Some(7)));
    }
}
