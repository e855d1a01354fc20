//! A digest of the beginning of a message's body. It identifies a message that comes back with another header section
//! (DESIGN section 6, rule 4).
//!
//! Mail systems change line ends and white space at the ends of lines, and add or remove empty lines at the end: the
//! digest ignores all that, and everything beyond [`BEGINNING`]. Text added in front, text added to a shorter body, and
//! a new encoding change the digest.

use aws_lc_rs::digest::{SHA256, digest};

/// How many octets of a body are digested.
pub const BEGINNING: usize = 64 * 1024;

/// The beginning of a body, as far as it has been received.
#[derive(Debug, Default)]
pub struct Beginning(Vec<u8>);

/// The first 16 bytes of SHA-256 over the beginning of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyDigest(pub [u8; 16]);

impl Beginning {
    /// Takes the next piece of the body.
    pub fn take(&mut self, piece: &[u8]) {
        let room = BEGINNING - self.0.len();
        self.0.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    /// The digest of what has been taken.
    #[must_use]
    pub fn digest(&self) -> BodyDigest {
        let mut lines = Vec::with_capacity(self.0.len());
        let mut ends = 0;
        for line in lines_of(&self.0) {
            let line = line.trim_ascii_end();
            if !line.is_empty() {
                (0..ends).for_each(|_| lines.push(b'\n'));
                lines.extend_from_slice(line);
                ends = 0;
            }
            ends += 1;
        }
        let mut first = [0; 16];
        first.iter_mut().zip(digest(&SHA256, &lines).as_ref()).for_each(|(to, from)| *to = *from);
        BodyDigest(first)
    }
}

/// The lines without their ends. A bare CR or LF ends one as CRLF does.
fn lines_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.strip_prefix(b"\r\n").or_else(|| after.get(1..)).unwrap_or_default();
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(pieces: &[&[u8]]) -> BodyDigest {
        let mut beginning = Beginning::default();
        pieces.iter().for_each(|piece| beginning.take(piece));
        beginning.digest()
    }

    #[test]
    fn what_systems_on_the_way_change_does_not_count() {
        let body = digest_of(&[b"\r\nHello  you,\r\n\r\n  bye.\r\n"]);
        for same in [
            &b"\nHello  you,\n\n  bye.\n"[..],
            b"\r\nHello  you,  \r\n \t\r\n  bye.\t\r\n",
            b"\r\nHello  you,\r\n\r\n  bye.",
            b"\r\nHello  you,\r\n\r\n  bye.\r\n\r\n \r\n",
            b"\rHello  you,\r\r  bye.\r",
        ] {
            assert_eq!(digest_of(&[same]), body, "{:?}", String::from_utf8_lossy(same));
        }
        for other in [
            &b"\r\nHello you,\r\n\r\n  bye.\r\n"[..],
            b"\r\nHello  you,\r\n  bye.\r\n",
            b"\r\nHello  you,\r\n\r\n\r\n  bye.\r\n",
            b"\r\nHello  you,\r\n\r\nbye.\r\n",
            b"\r\nHello  you,\r\n\r\n  bye.\r\n-- \r\nChecked for viruses.\r\n",
            b"\r\n\r\nHello  you,\r\n\r\n  bye.\r\n",
            b"Hello  you,  bye.",
            b"",
        ] {
            assert_ne!(digest_of(&[other]), body, "{:?}", String::from_utf8_lossy(other));
        }
        assert_eq!(digest_of(&[]), digest_of(&[b"\r\n \r\n"]));
    }

    #[test]
    fn pieces_do_not_matter_and_what_is_behind_the_beginning_does_not_either() {
        let body: Vec<u8> = (0..9000).flat_map(|line| format!("line {line} \r\n").into_bytes()).collect();
        assert!(body.len() > BEGINNING);
        let whole = digest_of(&[&body]);
        for size in [1, 2, 1000, BEGINNING - 1, BEGINNING, BEGINNING + 1] {
            assert_eq!(digest_of(&body.chunks(size).collect::<Vec<_>>()), whole, "{size}");
        }
        assert_eq!(digest_of(&[&body[..BEGINNING], b"a footer"]), whole);
        let mut changed = body.clone();
        changed[BEGINNING - 20] ^= 1;
        assert_ne!(digest_of(&[&changed]), whole);
        assert_ne!(digest_of(&[&body[..BEGINNING / 2]]), whole);
    }

    proptest::proptest! {
        #[test]
        fn line_ends_never_matter(lines in proptest::collection::vec("[ -~]{0,6}", 0..12)) {
            let with = |end: &str| digest_of(&[lines.join(end).as_bytes()]);
            proptest::prop_assert_eq!(with("\r\n"), with("\n"));
            proptest::prop_assert_eq!(with("\r\n"), with(" \r\n"));
        }
    }
}
