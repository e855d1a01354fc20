//! Line ends of BDAT content, which has no dot-stuffing and may have bare CR and LF (RFC 3030). `server` feeds it
//! pieces of any size; DESIGN section 7 (`bare_lf`) says what is done with such content.

/// Looks for a bare CR or LF in content that is kept unchanged (BDAT).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineEnds {
    after_cr: bool,
    bare: bool,
}

impl LineEnds {
    pub fn read(&mut self, piece: &[u8]) {
        let Some(&first) = piece.first() else { return };
        if self.bare {
            return;
        }
        self.bare = self.after_cr && first != b'\n';
        let mut before = if self.after_cr { b'\r' } else { b' ' };
        let mut from = 0;
        for at in memchr::memchr2_iter(b'\r', b'\n', piece) {
            if at > from {
                self.bare |= before == b'\r';
                before = b' ';
            }
            self.bare |= (piece[at] == b'\n') != (before == b'\r');
            before = if piece[at] == b'\r' { b'\r' } else { b' ' };
            from = at + 1;
        }
        self.bare |= before == b'\r' && from < piece.len();
        self.after_cr = before == b'\r' && from == piece.len();
    }

    /// Whether there was a bare CR or LF; a CR at the very end is one.
    #[must_use]
    pub fn bare(&self) -> bool {
        self.bare || self.after_cr
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_looked_at_across_pieces() {
        for (text, bare) in [
            (&b"a\r\nb\r\n\r\n"[..], false),
            (b"", false),
            (b"a\nb", true),
            (b"a\rb", true),
            (b"a\r", true),
            (b"a\r\r\n", true),
            (b"\n", true),
            (b"\r\n\n", true),
        ] {
            for cut in 0..=text.len() {
                let mut ends = LineEnds::default();
                ends.read(&text[..cut]);
                ends.read(&text[cut..]);
                assert_eq!(ends.bare(), bare, "{text:?} cut at {cut}");
            }
        }
    }
}
