//! A message's content as DATA carries it: dot-stuffed and ended by CRLF.CRLF (RFC 5321 4.5.2).
//!
//! Content comes in pieces of any size and goes out unchanged, except that a line that begins with a dot gets one more.
//! Content with a bare CR or LF, which a client can send by BDAT, cannot be sent unchanged by DATA (RFC 5321 2.3.8):
//! either it is not sent by DATA at all, or [`Lines::MadeCrlf`] ends those lines with CRLF.

/// How line ends are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// Unchanged: all are CRLF already.
    AsTheyAre,
    /// A bare CR or LF becomes CRLF.
    MadeCrlf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastOctet {
    LineStart,
    Cr,
    Other,
}

/// Encodes one message's content.
#[derive(Debug)]
pub struct Encoder {
    lines: Lines,
    end: LastOctet,
    /// With [`Lines::MadeCrlf`]: the last piece ended with a CR, whose LF may begin the next one.
    held_cr: bool,
}

impl Encoder {
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self { lines, end: LastOctet::LineStart, held_cr: false }
    }

    /// Appends the encoding of the next piece to `out`.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        match self.lines {
            Lines::AsTheyAre => self.stuff(piece, out),
            Lines::MadeCrlf => self.make_crlf(piece, out),
        }
    }

    /// Appends the end of data; a last line without CRLF gets one.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.held_cr {
            self.stuff(b"\r\n", out);
        }
        if self.end != LastOctet::LineStart {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }

    fn make_crlf(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        if self.held_cr && !rest.is_empty() {
            self.held_cr = false;
            self.stuff(b"\r\n", out);
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
            self.stuff(&rest[..at], out);
            if rest[at..] == *b"\r" {
                self.held_cr = true;
                return;
            }
            self.stuff(b"\r\n", out);
            rest = &rest[at..];
            rest = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        }
        self.stuff(rest, out);
    }

    fn stuff(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let Some(last) = piece.last() else { return };
        let mut rest = piece;
        if self.end == LastOctet::Cr && piece[0] == b'\n' {
            out.push(b'\n');
            rest = &piece[1..];
            self.end = LastOctet::LineStart;
        }
        if self.end == LastOctet::LineStart && rest.first() == Some(&b'.') {
            out.push(b'.');
        }
        while let Some(at) = memchr::memmem::find(rest, b"\r\n.") {
            out.extend_from_slice(&rest[..at + 2]);
            out.push(b'.');
            rest = &rest[at + 2..];
        }
        out.extend_from_slice(rest);
        self.end = match last {
            b'\r' => LastOctet::Cr,
            b'\n' if rest.is_empty() || rest.ends_with(b"\r\n") => LastOctet::LineStart,
            _ => LastOctet::Other,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(content: &[u8], lines: Lines, split: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(lines);
        let mut out = Vec::new();
        for piece in content.chunks(split) {
            encoder.push(piece, &mut out);
        }
        encoder.finish(&mut out);
        out
    }

    #[test]
    fn content_is_stuffed_however_it_is_split() {
        for (content, wire) in [
            ("", ".\r\n"),
            (".", "..\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".a\r\n.\r\n..\r\n", "..a\r\n..\r\n...\r\n.\r\n"),
            ("\r\n\r\n.\r\n", "\r\n\r\n..\r\n.\r\n"),
            ("a.b\r\n.c", "a.b\r\n..c\r\n.\r\n"),
            ("a\r\r\n.\r\n", "a\r\r\n..\r\n.\r\n"),
        ] {
            for split in 1..=content.len().max(1) {
                let got = encoded(content.as_bytes(), Lines::AsTheyAre, split);
                assert_eq!(String::from_utf8_lossy(&got), wire, "{content:?} by {split}");
            }
        }
    }

    #[test]
    fn bare_cr_and_lf_become_crlf_however_they_are_split() {
        for (content, wire) in [
            ("a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd\r\n.\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\n.\r\nb\r.\r\n", "a\r\n..\r\nb\r\n..\r\n.\r\n"),
            ("\r\r\n\n", "\r\n\r\n\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            ("\r.\r", "\r\n..\r\n.\r\n"),
        ] {
            for split in 1..=content.len() {
                let got = encoded(content.as_bytes(), Lines::MadeCrlf, split);
                assert_eq!(String::from_utf8_lossy(&got), wire, "{content:?} by {split}");
            }
        }
    }
}
