//! Replies as they come from the wire (RFC 5321 4.2), with enhanced status codes (RFC 2034).
//!
//! A line ends with LF; the CR before it may be missing, which is harmless for replies: each command gets exactly one.
//! The length of a line, the number of lines and the text of a reply are bounded.

use bytes::{Buf, BytesMut};

use crate::smtp::reply::{Enhanced, Reply};

/// The longest line, in octets. RFC 5321 4.5.3.1.5 says 512; some servers send more.
const MAX_LINE: usize = 4096;
/// The most lines of one reply. A server with many extensions sends about twenty to EHLO.
const MAX_LINES: usize = 128;
/// The longest text of one reply, in octets.
const MAX_TEXT: usize = 16 * 1024;

/// Why bytes are not a reply. The connection cannot be used any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line does not begin with a code from 200 to 599 that is followed by a space, a hyphen or nothing.
    #[error("`{0}` is not a reply")]
    Form(String),
    /// RFC 5321 4.2.1: every line of a reply has the same code.
    #[error("a reply changes its code from {0} to {1}")]
    CodeChanged(u16, u16),
    /// A line or a reply exceeds its limit.
    #[error("a reply is too long")]
    TooLong,
}

/// Splits a byte stream into replies.
#[derive(Debug, Default)]
pub struct Replies {
    /// Bytes that were read and not parsed yet; the caller appends here.
    pub buffer: BytesMut,
    /// How many octets of `buffer` have been searched for the end of the line.
    searched: usize,
    /// The lines of the reply so far.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    code: u16,
    enhanced: Option<Enhanced>,
    lines: usize,
    text: String,
}

impl Replies {
    /// The next reply; `None` until it is complete.
    ///
    /// # Errors
    /// [`ReplyError`]: the connection cannot be used any further.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        while let Some(end) = memchr::memchr(b'\n', &self.buffer[self.searched..]).map(|at| self.searched + at) {
            self.searched = 0;
            if end > MAX_LINE {
                return Err(ReplyError::TooLong);
            }
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            if let Some(reply) = self.line(line.strip_suffix(b"\r").unwrap_or(&line))? {
                return Ok(Some(reply));
            }
        }
        self.searched = self.buffer.len();
        if self.searched > MAX_LINE { Err(ReplyError::TooLong) } else { Ok(None) }
    }

    /// Whether nothing is left over: neither unparsed bytes nor part of a reply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && self.partial.is_none()
    }

    /// Drops all unparsed bytes. After the reply to STARTTLS they may have been injected by an attacker (RFC 3207 6).
    pub fn discard(&mut self) {
        *self = Self::default();
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let (code, last, text) = split(line).ok_or_else(|| ReplyError::Form(clean(&line[..line.len().min(80)])))?;
        let (enhanced, text) = match enhanced(code, text) {
            Some((enhanced, rest)) => (Some(enhanced), rest),
            None => (None, text),
        };
        let partial = match &mut self.partial {
            None => self.partial.insert(Partial { code, enhanced, lines: 1, text: clean(text) }),
            Some(partial) if partial.code != code => return Err(ReplyError::CodeChanged(partial.code, code)),
            Some(partial) => {
                partial.lines += 1;
                partial.enhanced = partial.enhanced.or(enhanced);
                partial.text.push('\n');
                partial.text.push_str(&clean(text));
                partial
            }
        };
        if partial.lines > MAX_LINES || partial.text.len() > MAX_TEXT {
            return Err(ReplyError::TooLong);
        }
        if !last {
            return Ok(None);
        }
        let whole = self.partial.take();
        Ok(whole.map(|p| Reply { code: p.code, enhanced: p.enhanced, text: p.text.into() }))
    }
}

/// A line's code, whether the line is the reply's last, and its text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    if !digits.iter().all(u8::is_ascii_digit) || !(200..600).contains(&code) {
        return None;
    }
    match rest.first() {
        None => Some((code, true, rest)),
        Some(b' ') => Some((code, true, &rest[1..])),
        Some(b'-') => Some((code, false, &rest[1..])),
        Some(_) => None,
    }
}

/// The enhanced code at the beginning of a line's text, and the rest of it. Its class has to be the reply code's (RFC
/// 2034 4); where they differ the enhanced code is ignored. IronPort writes a `#` before it.
fn enhanced(code: u16, text: &[u8]) -> Option<(Enhanced, &[u8])> {
    let class = u8::try_from(code / 100).ok()?;
    let bare = text.strip_prefix(b"#").unwrap_or(text);
    let end = bare.iter().position(|b| *b == b' ').unwrap_or(bare.len());
    let mut parts = std::str::from_utf8(&bare[..end]).ok()?.split('.');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        let fits = (1..=digits).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if fits { part.parse::<u16>().ok() } else { None }
    };
    let (said, subject, detail) = (number(1)?, number(3)?, number(3)?);
    if parts.next().is_some() || !matches!(said, 2 | 4 | 5) || !matches!(class, 2 | 4 | 5) {
        return None;
    }
    Some((Enhanced(class, subject, detail), bare.get(end + 1..).unwrap_or_default()))
}

fn clean(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8]) -> Result<Vec<String>, ReplyError> {
        let mut replies = Replies::default();
        let mut all = Vec::new();
        for byte in wire {
            replies.buffer.extend_from_slice(&[*byte]);
            while let Some(reply) = replies.next_reply()? {
                all.push(format!("{}|{:?}|{}", reply.code, reply.enhanced.map(|e| e.to_string()), reply.text));
            }
        }
        assert!(replies.is_empty());
        Ok(all)
    }

    #[test]
    fn replies_are_read_byte_by_byte() {
        for (wire, reply) in [
            ("220 mx.contoso.com ESMTP\r\n", "220|None|mx.contoso.com ESMTP"),
            ("250\r\n", "250|None|"),
            ("250 \r\n", "250|None|"),
            ("250 2.1.5 ok\r\n", "250|Some(\"2.1.5\")|ok"),
            ("250 2.1.5\r\n", "250|Some(\"2.1.5\")|"),
            ("250 2.1.5 ok\n", "250|Some(\"2.1.5\")|ok"),
            ("550-5.1.1 no such\r\n550 5.1.1 user\r\n", "550|Some(\"5.1.1\")|no such\nuser"),
            ("550-no such\r\n550 5.1.1 user\r\n", "550|Some(\"5.1.1\")|no such\nuser"),
            ("550 #5.1.0 Address rejected\r\n", "550|Some(\"5.1.0\")|Address rejected"),
            ("550 4.7.1 contradicts itself\r\n", "550|Some(\"5.7.1\")|contradicts itself"),
            ("550 5.1.1234 no\r\n", "550|None|5.1.1234 no"),
            ("550 10.0.0.5 no\r\n", "550|None|10.0.0.5 no"),
            ("354 3.0.0 go\r\n", "354|None|3.0.0 go"),
            ("250 a\0b\tc\x7f\r\n", "250|None|a b c "),
        ] {
            assert_eq!(read(wire.as_bytes()).unwrap(), [reply], "{wire:?}");
        }
        assert_eq!(read(b"250 a\r\n250-b\r\n250 c\r\n").unwrap(), ["250|None|a", "250|None|b\nc"]);
        assert_eq!(read(b"550 gr\xfc\xdfe\r\n").unwrap(), ["550|None|gr\u{fffd}\u{fffd}e"]);
    }

    #[test]
    fn other_bytes_are_refused() {
        for wire in ["\r\n", "25\r\n", "199 no\r\n", "600 no\r\n", "2500 no\r\n", "+25 no\r\n", "abc\r\n", "250_x\r\n"]
        {
            assert!(matches!(read(wire.as_bytes()), Err(ReplyError::Form(_))), "{wire:?}");
        }
        assert_eq!(read(b"250-a\r\n251 b\r\n"), Err(ReplyError::CodeChanged(250, 251)));
    }

    #[test]
    fn lengths_are_bounded() {
        let line = format!("250 {}", "x".repeat(MAX_LINE));
        assert_eq!(read(line.as_bytes()), Err(ReplyError::TooLong));
        let lines = "250-x\r\n".repeat(MAX_LINES + 1);
        assert_eq!(read(lines.as_bytes()), Err(ReplyError::TooLong));
        let wordy = format!("250-{}\r\n", "x".repeat(4000)).repeat(5);
        assert_eq!(read(wordy.as_bytes()), Err(ReplyError::TooLong));
    }
}
