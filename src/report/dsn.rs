//! Writes a delivery status notification: multipart/report with a text, machine-readable fields and the returned part
//! of the message (RFC 6522, RFC 3464, RFC 6533 where an address is not ASCII). Pure: ids, boundary and time are
//! arguments.
//!
//! `report::make` decides what is reported and calls [`write()`]; `status` has the fields, `words` the text.

mod status;
mod words;

use super::Action;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;
use crate::smtp::reply::Reply;
use crate::time::UnixTime;

#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// Without angle brackets.
    pub message_id: &'a str,
    /// The multipart boundary; must not occur in the message.
    pub boundary: &'a str,
    /// Date.
    pub now: UnixTime,
    pub reporting_mta: &'a Domain,
    pub from: &'a Address,
    /// The sender of the message, to whom the report goes.
    pub to: &'a Address,
    pub about: About<'a>,
    /// At least one.
    pub recipients: &'a [Recipient<'a>],
}

/// The message that the report is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// Its queue id here.
    pub id: &'a str,
    /// When it was received.
    pub arrived: UnixTime,
    /// ENVID as in MAIL, in xtext.
    pub envid: Option<&'a str>,
    /// With angle brackets; empty: it has none.
    pub message_id: &'a str,
    pub returned: Returned<'a>,
}

/// How much of the message is returned.
#[derive(Debug, Clone, Copy)]
pub enum Returned<'a> {
    /// Its header section, without the empty line.
    Headers(&'a [u8]),
    /// All of it (RET=FULL); without bare CR or LF.
    Full(&'a [u8]),
    /// Nothing (RFC 6522 3).
    Nothing,
}

#[derive(Debug, Clone, Copy)]
pub struct Recipient<'a> {
    /// As received.
    pub address: &'a Address,
    /// ORCPT as in RCPT: `addr-type;xtext`.
    pub orcpt: Option<&'a str>,
    pub action: Action,
    /// The last reply about it.
    pub reply: &'a Reply,
    /// Whose reply that is.
    pub speaker: Speaker<'a>,
    /// When delivery is given up, if it is delayed.
    pub retry_until: UnixTime,
}

/// Who gave the last reply about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker<'a> {
    Ourselves,
    NextHop {
        /// The organisation of its send connector; empty: none.
        organization: &'a str,
        /// Its host name; empty: hidden.
        host: &'a str,
    },
}

/// Writes the report: header section and body with CRLF line ends.
#[must_use]
pub fn write(report: &Report<'_>) -> Vec<u8> {
    let charset = Charset::of(report);
    let words = words::text(report);
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(b"This is a delivery status notification in MIME format (RFC 3464).\r\n");

    let coding = if words.is_ascii() { "us-ascii" } else { "utf-8" };
    part(&mut out, report, &format!("text/plain; charset={coding}"), words.as_bytes());
    let status = status::fields(report, charset);
    part(&mut out, report, charset.status_type(), status.as_bytes());
    match report.about.returned {
        Returned::Full(message) => part(&mut out, report, charset.message_type(), message),
        Returned::Nothing => {}
        Returned::Headers(section) => part(&mut out, report, charset.headers_type(), &with_crlf(section)),
    }
    out.extend_from_slice(format!("\r\n--{}--\r\n", report.boundary).as_bytes());
    let mut whole = header(report, encoding(&out)).into_bytes();
    whole.append(&mut out);
    whole
}

/// The value of Content-Transfer-Encoding.
fn encoding(content: &[u8]) -> &'static str {
    if content.is_ascii() { "7bit" } else { "8bit" }
}

/// Whether the report is ASCII or internationalized (RFC 6533).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charset {
    Ascii,
    Utf8,
}

impl Charset {
    fn of(report: &Report<'_>) -> Self {
        let mut addresses = report.recipients.iter().map(|recipient| recipient.address).chain([report.to, report.from]);
        if addresses.all(Address::is_ascii) { Self::Ascii } else { Self::Utf8 }
    }

    fn status_type(self) -> &'static str {
        match self {
            Self::Ascii => "message/delivery-status",
            Self::Utf8 => "message/global-delivery-status",
        }
    }

    fn headers_type(self) -> &'static str {
        match self {
            Self::Ascii => "text/rfc822-headers",
            Self::Utf8 => "message/global-headers",
        }
    }

    fn message_type(self) -> &'static str {
        match self {
            Self::Ascii => "message/rfc822",
            Self::Utf8 => "message/global",
        }
    }
}

fn header(report: &Report<'_>, encoding: &str) -> String {
    let mut header = format!(
        "From: Mail Delivery System <{}>\r\nTo: <{}>\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{}>\r\n",
        report.from,
        report.to,
        words::subject(report),
        report.now.rfc5322(),
        report.message_id
    );
    if is_message_id(report.about.message_id) {
        header.push_str(&format!("In-Reply-To: {0}\r\nReferences: {0}\r\n", report.about.message_id));
    }
    // RFC 3834 2: prevents automatic answers.
    header.push_str("Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
    // RFC 2045 6.4: the encoding of a multipart is that of its parts.
    header.push_str(&format!(
        "Content-Transfer-Encoding: {encoding}\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{}\"\r\n\r\n",
        report.boundary
    ));
    header
}

/// Whether a Message-ID can be repeated: a malformed one could add fields to the report.
fn is_message_id(text: &str) -> bool {
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    inner.is_some_and(|inner| {
        inner.len() <= 900 && inner.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>')
    })
}

fn part(out: &mut Vec<u8>, report: &Report<'_>, kind: &str, content: &[u8]) {
    let encoding = encoding(content);
    let head =
        format!("\r\n--{}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n", report.boundary);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(content);
}

/// A header section for quoting: each bare CR or LF becomes CRLF, and it ends with CRLF.
fn with_crlf(section: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(section.len() + 2);
    let mut bytes = section.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            _ => out.push(b),
        }
    }
    if !out.is_empty() && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Folds a text at spaces into lines of at most `width` octets, or at 900 octets where it has no spaces (RFC 5322
/// 2.1.1). Control characters become spaces.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        for piece in pieces(word, 900) {
            if !line.is_empty() && line.len() + 1 + piece.len() > width {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(piece);
        }
    }
    lines.push(line);
    lines
}

fn pieces(mut word: &str, longest: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    while word.len() > longest {
        let (piece, rest) = word.split_at(word.floor_char_boundary(longest));
        pieces.push(piece);
        word = rest;
    }
    pieces.push(word);
    pieces
}

#[cfg(test)]
mod tests;
