//! SMTP replies (RFC 5321 4.2) with enhanced status codes (RFC 2034, RFC 3463).
//!
//! A [`Reply`] is one side's answer to a command. All replies of this server are constants here, with fixed public
//! text; the cause goes to the log only.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// `class.subject.detail` (RFC 3463 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(class, subject, detail) = *self;
        for (before, number) in [("", u16::from(class)), (".", subject), (".", detail)] {
            f.write_str(before)?;
            f.write_str(itoa::Buffer::new().format(number))?;
        }
        Ok(())
    }
}

/// One reply, of one line or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// The enhanced status code, if there is one; `text` does not repeat it.
    pub enhanced: Option<Enhanced>,
    /// The text; lines are separated by `
    /// `. No CR, no final newline.
    pub text: Cow<'static, str>,
}

impl Reply {
    #[must_use]
    pub const fn fixed(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Self { code, enhanced: Some(enhanced), text: Cow::Borrowed(text) }
    }

    /// A reply without an enhanced code: greetings, EHLO, 354 (RFC 2034 4).
    #[must_use]
    pub const fn bare(code: u16, text: Cow<'static, str>) -> Self {
        Self { code, enhanced: None, text }
    }

    /// The same codes with another text.
    #[must_use]
    pub fn saying(&self, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: self.code, enhanced: self.enhanced, text: text.into() }
    }

    /// 2xx.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4xx.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5xx.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// The reply's bytes on the wire, every line ended by CRLF. Control characters become spaces.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.text.len() + 16);
        self.write_to(&mut wire);
        wire
    }

    /// Appends the bytes of [`to_wire`](Self::to_wire).
    pub fn write_to(&self, wire: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            wire.extend_from_slice(itoa::Buffer::new().format(self.code).as_bytes());
            wire.push(if lines.peek().is_some() { b'-' } else { b' ' });
            if let Some(Enhanced(class, subject, detail)) = self.enhanced {
                for (number, behind) in [(u16::from(class), b'.'), (subject, b'.'), (detail, b' ')] {
                    wire.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                    wire.push(behind);
                }
            }
            wire.extend(line.bytes().map(|b| if b < b' ' || b == 0x7f { b' ' } else { b }));
            wire.extend_from_slice(b"\r\n");
        }
    }
}

/// On one line, as in logs, `queue list` and Diagnostic-Code: `550 5.1.1 no such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(itoa::Buffer::new().format(self.code))?;
        if let Some(enhanced) = self.enhanced {
            f.write_str(" ")?;
            enhanced.fmt(f)?;
        }
        for line in self.text.split('\n') {
            f.write_str(" ")?;
            f.write_str(line)?;
        }
        Ok(())
    }
}

// Replies of routing (DESIGN section 5).

/// Row 0: the domain was accepted within the last hour.
pub const DOMAIN_RECENTLY_REMOVED: Reply =
    Reply::fixed(451, Enhanced(4, 3, 2), "the domain is being reconfigured, try again later");
/// Row 1.
pub const RELAYING_DENIED: Reply = Reply::fixed(550, Enhanced(5, 7, 1), "relaying denied");
/// Row 2: no address space covers the domain.
pub const NO_ROUTE: Reply = Reply::fixed(550, Enhanced(5, 4, 4), "no route to the recipient's domain");
/// Section 6: the recipient would go back where it came from, or has been here.
pub const ROUTING_LOOP: Reply = Reply::fixed(550, Enhanced(5, 4, 6), "routing loop detected");
/// Section 6, after the header section: all recipients are looped, or too many hops.
pub const MESSAGE_LOOP: Reply = Reply::fixed(554, Enhanced(5, 4, 6), "routing loop detected");
/// Section 6: the message came back, and how often to other nodes is not known.
pub const LOOP_UNCERTAIN: Reply =
    Reply::fixed(451, Enhanced(4, 3, 0), "this message may be in a routing loop, try again later");
/// Row 5: the directory did not give a clean answer.
pub const DIRECTORY_UNAVAILABLE: Reply =
    Reply::fixed(451, Enhanced(4, 4, 3), "directory temporarily unavailable, try again later");
/// Row 6: two entries have the address.
pub const DIRECTORY_AMBIGUOUS: Reply =
    Reply::fixed(451, Enhanced(4, 3, 5), "the recipient's directory entry is ambiguous, try again later");
/// Row 5: the answer changed together with too many others (`hold_changes`).
pub const DIRECTORY_CHANGED: Reply =
    Reply::fixed(451, Enhanced(4, 3, 5), "the recipient's directory entry changed unexpectedly, try again later");
/// RFC 7505 4.2.
pub const NULL_MX: Reply = Reply::fixed(556, Enhanced(5, 1, 10), "the recipient's domain takes no mail");
/// RFC 5321 5.1: the domain does not exist (RFC 3463 3.2, X.1.2).
pub const NO_SUCH_DOMAIN: Reply = Reply::fixed(550, Enhanced(5, 1, 2), "the recipient's domain does not exist");
/// RFC 5321 5.1: it exists and has neither MX nor address (RFC 3463 3.5, X.4.4).
pub const NO_MAIL_SERVER: Reply = Reply::fixed(550, Enhanced(5, 4, 4), "the recipient's domain has no mail server");
/// Rows 4, 7, 8 and 11: a stranger's source route.
pub const SOURCE_ROUTE: Reply =
    Reply::fixed(550, Enhanced(5, 1, 3), "source routes (% ! @ in the local part) are not taken");
/// Row 9 and 10.
pub const USER_UNKNOWN: Reply = Reply::fixed(550, Enhanced(5, 1, 1), "user unknown");
/// Rows 3 and 8 to 11, and a next hop's "unknown recipient", while it is in doubt (section 5).
pub const UNKNOWN_JUST_NOW: Reply =
    Reply::fixed(451, Enhanced(4, 3, 0), "the recipient is unknown now and should not be, try again later");
/// Section 6, rule 2: too many sessions wait for the answer about one recipient.
pub const TOO_MANY_WAIT: Reply =
    Reply::fixed(451, Enhanced(4, 3, 2), "too many ask about this recipient at once, try again later");
/// Section 7: no next hop of the recipient's send connector can be used (RFC 3463 3.5, X.4.1).
pub const NEXT_HOP_UNREACHABLE: Reply =
    Reply::fixed(451, Enhanced(4, 4, 1), "the recipient's mail system cannot be reached now, try again later");
/// Section 7: the end of data was sent and not answered.
pub const OUTCOME_UNKNOWN: Reply = Reply::fixed(
    451,
    Enhanced(4, 4, 2),
    "the recipient's mail system did not say whether it has the message, try again later",
);
/// Anything not proven permanent is temporary.
pub const TRY_AGAIN: Reply = Reply::fixed(451, Enhanced(4, 3, 0), "temporary failure, try again later");

// Replies of the session (RFC 5321 4.2, RFC 3463).

/// Required TLS is missing (RFC 3207 4).
pub const TLS_REQUIRED: Reply = Reply::fixed(530, Enhanced(5, 7, 0), "must issue a STARTTLS command first");
/// STARTTLS is accepted (RFC 3207 4).
pub const READY_FOR_TLS: Reply = Reply::fixed(220, Enhanced(2, 0, 0), "ready to start TLS");
/// RSET, NOOP.
pub const OK: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "ok");
/// MAIL.
pub const SENDER_OK: Reply = Reply::fixed(250, Enhanced(2, 1, 0), "sender ok");
/// RCPT.
pub const RECIPIENT_OK: Reply = Reply::fixed(250, Enhanced(2, 1, 5), "recipient ok");
/// DATA.
pub const START_MAIL_INPUT: Reply = Reply::bare(354, Cow::Borrowed("start mail input; end with <CRLF>.<CRLF>"));
/// QUIT.
pub const CLOSING: Reply = Reply::fixed(221, Enhanced(2, 0, 0), "closing connection");
/// VRFY (RFC 5321 3.5.3).
pub const CANNOT_VRFY: Reply = Reply::fixed(252, Enhanced(2, 5, 2), "cannot VRFY user; try RCPT");
/// HELP.
pub const HELP: Reply =
    Reply::fixed(214, Enhanced(2, 0, 0), "EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH");
/// A command that does not exist in SMTP.
pub const UNRECOGNIZED: Reply = Reply::fixed(500, Enhanced(5, 5, 1), "command unrecognized");
/// A command of SMTP that this server does not have, or does not offer now.
pub const NOT_IMPLEMENTED: Reply = Reply::fixed(502, Enhanced(5, 5, 1), "command not implemented");
/// A command line that is not UTF-8.
pub const NOT_TEXT: Reply = Reply::fixed(500, Enhanced(5, 5, 2), "command line is not text");
/// A command line longer than the limit (RFC 5321 4.5.3.1.4).
pub const LINE_TOO_LONG: Reply = Reply::fixed(500, Enhanced(5, 5, 2), "command line too long");
/// A command line with a bare CR or LF.
pub const BARE_IN_COMMAND: Reply =
    Reply::fixed(500, Enhanced(5, 5, 2), "bare CR or LF received; lines end with CRLF; closing connection");
/// A command of another protocol.
pub const NOT_SMTP: Reply = Reply::fixed(500, Enhanced(5, 5, 2), "this is an SMTP server; closing connection");
/// Arguments that are missing, superfluous or malformed.
pub const BAD_ARGUMENTS: Reply = Reply::fixed(501, Enhanced(5, 5, 4), "syntax error in parameters or arguments");
/// A BDAT whose size cannot be read: what follows cannot be told from commands (RFC 3030 2).
pub const BAD_CHUNK_SIZE: Reply =
    Reply::fixed(501, Enhanced(5, 5, 4), "syntax error in BDAT arguments; closing connection");
/// MAIL with a malformed address.
pub const BAD_SENDER: Reply = Reply::fixed(501, Enhanced(5, 1, 7), "bad sender address syntax");
/// RCPT with a malformed address.
pub const BAD_RECIPIENT: Reply = Reply::fixed(501, Enhanced(5, 1, 3), "bad destination mailbox address syntax");
/// A malformed parameter, or one that is given twice.
pub const BAD_PARAMETER: Reply = Reply::fixed(501, Enhanced(5, 5, 4), "syntax error in a MAIL or RCPT parameter");
/// A parameter of an extension that is not offered.
pub const UNKNOWN_PARAMETER: Reply = Reply::fixed(555, Enhanced(5, 5, 4), "MAIL or RCPT parameter not recognized");
/// An address that needs SMTPUTF8 without it (RFC 6531 3.5).
pub const UTF8_NEEDED: Reply = Reply::fixed(553, Enhanced(5, 6, 7), "a non-ASCII address needs SMTPUTF8");
/// MAIL before EHLO or HELO.
pub const HELLO_FIRST: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "send EHLO or HELO first");
/// MAIL within a transaction.
pub const NESTED_MAIL: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "sender already given");
/// RCPT, DATA or BDAT without MAIL.
pub const NEED_MAIL: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "need MAIL command first");
/// DATA or BDAT without RCPT; BDAT after RCPTs that were all refused.
pub const NEED_RCPT: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "need RCPT command first");
/// DATA after RCPTs that were all refused (RFC 5321 3.3).
pub const NO_VALID_RECIPIENTS: Reply = Reply::fixed(554, Enhanced(5, 5, 1), "no valid recipients");
/// MAIL, RCPT or DATA between the chunks of a message (RFC 3030 2).
pub const NEED_BDAT: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "need BDAT or RSET");
/// STARTTLS within TLS.
pub const TLS_ACTIVE: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "TLS is already active");
/// AUTH succeeded (RFC 4954 6, as the following).
pub const AUTHENTICATED: Reply = Reply::fixed(235, Enhanced(2, 7, 0), "authentication successful");
/// AUTH: no such name with this password.
pub const AUTH_FAILED: Reply = Reply::fixed(535, Enhanced(5, 7, 8), "authentication credentials invalid");
/// AUTH: the password cannot be checked now.
pub const AUTH_UNAVAILABLE: Reply =
    Reply::fixed(454, Enhanced(4, 7, 0), "temporary authentication failure, try again later");
/// AUTH in clear text.
pub const AUTH_NEEDS_TLS: Reply = Reply::fixed(538, Enhanced(5, 7, 11), "encryption required for authentication");
/// AUTH with a mechanism that is not offered.
pub const UNKNOWN_MECHANISM: Reply = Reply::fixed(504, Enhanced(5, 5, 4), "authentication mechanism not supported");
/// AUTH: the client gave up.
pub const AUTH_CANCELLED: Reply = Reply::fixed(501, Enhanced(5, 7, 0), "authentication cancelled");
/// AUTH: not base64, or not what the mechanism wants.
pub const BAD_AUTH_LINE: Reply = Reply::fixed(501, Enhanced(5, 5, 2), "cannot decode the response");
/// AUTH: a response longer than the limit.
pub const AUTH_LINE_TOO_LONG: Reply = Reply::fixed(500, Enhanced(5, 5, 6), "authentication exchange line is too long");
/// AUTH twice.
pub const AUTHENTICATED_ALREADY: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "already authenticated");
/// AUTH within a transaction.
pub const AUTH_IN_TRANSACTION: Reply = Reply::fixed(503, Enhanced(5, 5, 1), "no AUTH during a mail transaction");
/// More recipients than `max_recipients` (RFC 5321 4.5.3.1.10).
pub const TOO_MANY_RECIPIENTS: Reply = Reply::fixed(452, Enhanced(4, 5, 3), "too many recipients");
/// Larger than `max_message_size` (RFC 1870 6).
pub const MESSAGE_TOO_LARGE: Reply = Reply::fixed(552, Enhanced(5, 3, 4), "message size exceeds fixed maximum");
/// A header section larger than `max_header_size`.
pub const HEADER_TOO_LARGE: Reply = Reply::fixed(552, Enhanced(5, 3, 4), "header size exceeds fixed maximum");
/// A bare CR or LF in DATA (RFC 5321 2.3.8).
pub const BARE_IN_DATA: Reply =
    Reply::fixed(554, Enhanced(5, 6, 11), "message contains a bare CR or LF; lines end with CRLF; closing connection");
/// NUL in content (RFC 5322 4).
pub const NUL_IN_DATA: Reply = Reply::fixed(554, Enhanced(5, 6, 0), "message contains a NUL octet");
/// Back-pressure: disk space, memory or inodes are short, or too many messages are queued.
pub const INSUFFICIENT_STORAGE: Reply =
    Reply::fixed(452, Enhanced(4, 3, 1), "insufficient system storage, try again later");
/// Too many errors in a session.
pub const TOO_MANY_ERRORS: Reply = Reply::fixed(421, Enhanced(4, 7, 0), "too many errors, closing connection");
/// A deadline has passed (RFC 5321 4.5.3.2).
pub const TIMED_OUT: Reply = Reply::fixed(421, Enhanced(4, 4, 2), "timeout, closing connection");
/// The server is stopping, or the listener was removed.
pub const SHUTTING_DOWN: Reply = Reply::fixed(421, Enhanced(4, 3, 2), "service shutting down, closing connection");
/// `max_connections`.
pub const TOO_MANY_CONNECTIONS: Reply = Reply::fixed(421, Enhanced(4, 3, 2), "too many connections, try again later");
/// `max_connections`: an idle connection is closed, and another client gets its slot.
pub const PLACE_WANTED: Reply =
    Reply::fixed(421, Enhanced(4, 3, 2), "idle while others wait for a connection, closing connection");
/// `max_connections_per_ip`.
pub const TOO_MANY_FROM_ADDRESS: Reply = Reply::fixed(421, Enhanced(4, 7, 0), "too many connections from your address");
/// `limits.unknown_one_session`.
pub const TOO_MANY_UNKNOWN: Reply =
    Reply::fixed(421, Enhanced(4, 7, 0), "too many unknown recipients from your address, one session at a time");
/// The same while connections are short.
pub const TOO_MANY_UNKNOWN_NOW: Reply =
    Reply::fixed(421, Enhanced(4, 7, 0), "too many unknown recipients while others wait, closing connection");
/// No receive connector serves the client.
pub const NOT_SERVED: Reply = Reply::fixed(554, Enhanced(5, 7, 1), "no service for your address");

impl Reply {
    /// The greeting (RFC 5321 4.2).
    #[must_use]
    pub fn greeting(hostname: &str) -> Self {
        Self::bare(220, format!("{hostname} ESMTP Fingerpost").into())
    }

    /// The message is durable under this id.
    #[must_use]
    pub fn queued_as(id: &str) -> Self {
        OK.saying(format!("queued as {id}"))
    }

    /// The message has been accepted by every next hop; this was its id here.
    #[must_use]
    pub fn delivered_as(id: &str) -> Self {
        OK.saying(format!("delivered as {id}"))
    }

    /// A chunk has been read and others follow (RFC 3030 2).
    #[must_use]
    pub fn chunk_received(octets: u64) -> Self {
        OK.saying(format!("{octets} octets received"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_has_every_line_coded_and_nothing_else() {
        let reply = Reply::fixed(250, Enhanced(2, 0, 0), "one\r\x00two\nthree");
        assert_eq!(reply.to_wire(), b"250-2.0.0 one  two\r\n250 2.0.0 three\r\n");
        assert_eq!(reply.to_string(), "250 2.0.0 one\r\0two three");
        let numbers = Reply::fixed(599, Enhanced(5, 65_535, 10), "");
        assert_eq!(numbers.to_wire(), b"599 5.65535.10 \r\n");
    }
}
