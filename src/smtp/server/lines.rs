//! Splits input into command lines. A line ends with CRLF and with nothing else.

use bytes::{Buf, BytesMut};

/// The longest command line, CRLF included: RFC 5321 4.5.3.1.4's 512 and what SIZE, BODY, SMTPUTF8 and DSN add
/// (RFC 3461 4.2 alone 500 for ORCPT), with room to spare.
const MAX_LINE: usize = 2048;

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether the current line is too long; its beginning has been dropped.
    too_long: bool,
}

/// What is at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole line, without its CRLF.
    Whole(BytesMut),
    /// The end of a line that was longer than [`MAX_LINE`]; it has been dropped.
    TooLong,
    /// A bare CR or LF: from here on it is uncertain where lines end.
    Bare,
    /// A line that is not complete.
    Partial,
}

impl Lines {
    /// Takes the next line.
    pub(super) fn take(&mut self, input: &mut BytesMut) -> Line {
        let Some(at) = memchr::memchr2(b'\r', b'\n', input) else {
            self.drop_what_is_too_long(input, input.len());
            return Line::Partial;
        };
        match (input[at], input.get(at + 1)) {
            (b'\r', None) => {
                self.drop_what_is_too_long(input, at);
                Line::Partial
            }
            (b'\r', Some(b'\n')) => {
                let line = input.split_to(at);
                input.advance(2);
                if std::mem::take(&mut self.too_long) || line.len() > MAX_LINE - 2 {
                    return Line::TooLong;
                }
                Line::Whole(line)
            }
            _ => Line::Bare,
        }
    }

    /// Bounds the memory of a session whose line never ends.
    fn drop_what_is_too_long(&mut self, input: &mut BytesMut, text: usize) {
        if self.too_long || text > MAX_LINE - 2 {
            self.too_long = true;
            input.advance(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `input`, fed in two pieces.
    fn lines(input: &[u8], cut: usize) -> Vec<Line> {
        let mut lines = Lines::default();
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for piece in [&input[..cut], &input[cut..]] {
            buffer.extend_from_slice(piece);
            loop {
                match lines.take(&mut buffer) {
                    Line::Partial => break,
                    Line::Bare => {
                        found.push(Line::Bare);
                        return found;
                    }
                    line => found.push(line),
                }
            }
        }
        found
    }

    #[test]
    fn lines_end_with_crlf_wherever_the_network_cuts() {
        let whole = |text: &str| Line::Whole(text.as_bytes().into());
        let long = format!("NOOP\r\n{}\r\nQUIT\r\n", "x".repeat(MAX_LINE - 1));
        let longest = "x".repeat(MAX_LINE - 2);
        for (input, expected) in [
            ("NOOP\r\nQUIT\r\nRSE", vec![whole("NOOP"), whole("QUIT")]),
            ("\r\n", vec![whole("")]),
            ("NOOP\nQUIT\r\n", vec![Line::Bare]),
            ("RSET\r\nNOOP\rQUIT\r\n", vec![whole("RSET"), Line::Bare]),
            ("NOOP\r\r\n", vec![Line::Bare]),
            (&format!("{longest}\r\n"), vec![whole(&longest)]),
            (&long, vec![whole("NOOP"), Line::TooLong, whole("QUIT")]),
        ] {
            for cut in 0..=input.len() {
                assert_eq!(lines(input.as_bytes(), cut), expected, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_line_that_never_ends_is_not_kept() {
        let mut lines = Lines::default();
        let mut buffer = BytesMut::new();
        for _ in 0..1000 {
            buffer.extend_from_slice(&[b'x'; 1000]);
            assert_eq!(lines.take(&mut buffer), Line::Partial);
            assert!(buffer.len() < MAX_LINE);
        }
        buffer.extend_from_slice(b"\r\n");
        assert_eq!(lines.take(&mut buffer), Line::TooLong);
    }
}
