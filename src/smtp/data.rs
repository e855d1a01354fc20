//! Reads a message's content as DATA carries it: dot-stuffing (RFC 5321 4.5.2), line ends and NUL; and finds the end of
//! its header section. `server` feeds it pieces of any size.
//!
//! End of data is CRLF.CRLF and nothing else (RFC 5321 4.1.1.4): content that a more lenient next hop could read as an
//! end of data is refused, so that it never becomes a second message there (SMTP smuggling).

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// Why content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A CR without its LF, or an LF without its CR (RFC 5321 2.3.8). Refused in DATA only.
    BareLineEnd,
    /// NUL (RFC 5322 4): a server that drops it reads CRLF NUL `.` CRLF as the end of data.
    Nul,
}

/// Reads DATA: finds its end, removes stuffed dots, and remembers the first flaw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DotReader {
    at: At,
    flaw: Option<Flaw>,
    bare: bool,
}

/// The reader's position in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// After CRLF, or at the beginning.
    #[default]
    LineStart,
    /// After a dot at the start of a line.
    Dot,
    /// After that dot and a CR.
    DotCr,
    /// Anywhere else.
    Line,
    /// After a CR within a line; the CR is passed on together with its LF.
    Cr,
    /// After CRLF.CRLF.
    End,
}

impl DotReader {
    /// Whether the end of data has been read.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.at == At::End
    }

    /// The first flaw that has been read. From there on [`read`](Self::read) returns no content: the message is
    /// refused.
    #[must_use]
    pub fn flaw(&self) -> Option<Flaw> {
        self.flaw
    }

    /// Whether a bare CR or LF has been read, even if another flaw came first.
    #[must_use]
    pub fn bare(&self) -> bool {
        self.bare
    }

    /// Takes octets off `input`, up to the end of data if it is there, and returns their content, unstuffed. The result
    /// shares `input`'s memory unless octets in the middle had to be left out, which is rare.
    pub fn read(&mut self, input: &mut BytesMut) -> Bytes {
        let mut content = Content::of(input);
        let mut taken = 0;
        while taken < input.len() && self.at != At::End {
            if self.at == At::Line {
                let plain = plain(&input[taken..]);
                self.emit(&mut content, taken..taken + plain);
                taken += plain;
                if taken == input.len() {
                    break;
                }
            }
            self.step(input[taken], taken, &mut content);
            taken += 1;
        }
        let Content { part, copied, .. } = content;
        let read = input.split_to(taken);
        copied.map_or_else(|| read.freeze().slice(part), Bytes::from)
    }

    /// Takes one octet, in any state.
    fn step(&mut self, byte: u8, at: usize, content: &mut Content<'_>) {
        self.at = match (self.at, byte) {
            (At::LineStart, b'.') => At::Dot,
            (At::LineStart | At::Line, b'\r') => At::Cr,
            (At::Dot, b'\r') => At::DotCr,
            (At::DotCr, b'\n') => At::End,
            (At::Cr, b'\n') => {
                if at == 0 {
                    self.emit_kept_cr(content);
                }
                self.emit(content, at.saturating_sub(1)..at + 1);
                At::LineStart
            }
            (At::DotCr | At::Cr, b'\r') => {
                self.note(Flaw::BareLineEnd);
                At::Cr
            }
            (At::LineStart | At::Line | At::Dot, b'\n') | (At::DotCr | At::Cr, _) => {
                self.note(Flaw::BareLineEnd);
                At::Line
            }
            (At::LineStart | At::Line | At::Dot, b'\0') => {
                self.note(Flaw::Nul);
                At::Line
            }
            (At::LineStart | At::Line | At::Dot, _) => {
                self.emit(content, at..at + 1);
                At::Line
            }
            (At::End, _) => At::End,
        };
    }

    fn note(&mut self, flaw: Flaw) {
        self.bare |= flaw == Flaw::BareLineEnd;
        self.flaw.get_or_insert(flaw);
    }

    fn emit(&self, content: &mut Content<'_>, stretch: Range<usize>) {
        if self.flaw.is_none() {
            content.push(stretch);
        }
    }

    /// Passes on the CR that was the last octet of the piece before.
    fn emit_kept_cr(&self, content: &mut Content<'_>) {
        if self.flaw.is_none() {
            content.copied().push(b'\r');
        }
    }
}

/// The content of one piece of input: a slice of it as long as that is possible, else a copy.
struct Content<'a> {
    input: &'a [u8],
    part: Range<usize>,
    /// The copy, from when octets in the middle had to be left out.
    copied: Option<Vec<u8>>,
}

impl<'a> Content<'a> {
    fn of(input: &'a [u8]) -> Self {
        Self { input, part: 0..0, copied: None }
    }

    fn push(&mut self, more: Range<usize>) {
        if self.copied.is_none() && self.part.is_empty() {
            self.part = more;
        } else if self.copied.is_none() && self.part.end == more.start {
            self.part.end = more.end;
        } else {
            let more = &self.input[more];
            self.copied().extend_from_slice(more);
        }
    }

    fn copied(&mut self) -> &mut Vec<u8> {
        let (input, part) = (self.input, self.part.clone());
        self.copied.get_or_insert_with(|| {
            let mut copy = Vec::with_capacity(input.len());
            copy.extend_from_slice(&input[part]);
            copy
        })
    }
}

/// How many octets of `rest`, which begins within a line, can be passed on unchanged: text, and line ends that text
/// follows. After them the reader is within a line again.
fn plain(rest: &[u8]) -> usize {
    let text = &rest[..memchr::memchr(b'\0', rest).unwrap_or(rest.len())];
    let mut lines = 0;
    let strange = memchr::memchr_iter(b'\n', text).find(|&at| {
        let before_text = text.get(at + 1).is_some_and(|next| !matches!(next, b'.' | b'\r' | b'\n'));
        let ordinary = before_text && text[..at].ends_with(b"\r");
        lines += usize::from(ordinary);
        !ordinary
    });
    let text = &text[..strange.unwrap_or(text.len())];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    // If there are as many CRs as CRLFs, none is bare.
    let mut returns = memchr::memchr_iter(b'\r', text);
    if returns.clone().count() == lines {
        return text.len();
    }
    returns.find(|&at| text.get(at + 1) != Some(&b'\n')).unwrap_or(text.len())
}

/// Where the header section in `text` ends: the length of its fields, which is also where the empty line begins.
/// `None`: there is no empty line yet. Lines end with LF, with or without a CR before it, because BDAT may carry
/// either. Octets before `from` were searched in an earlier call.
#[must_use]
pub fn header_end(text: &[u8], from: usize) -> Option<usize> {
    if text.starts_with(b"\r\n") || text.starts_with(b"\n") {
        return Some(0);
    }
    let start = from.saturating_sub(2); // an empty line may lie across the border
    memchr::memchr_iter(b'\n', &text[start..]).map(|at| start + at + 1).find(|&line| {
        let rest = &text[line..];
        rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads `input` in two pieces, cut at `cut`: the content, what is left after the end of data, and the first flaw.
    fn read(input: &[u8], cut: usize) -> (Vec<u8>, Option<Vec<u8>>, Option<Flaw>) {
        let mut reader = DotReader::default();
        let mut left = BytesMut::from(&input[..cut]);
        let mut content = reader.read(&mut left).to_vec();
        if !reader.ended() {
            assert!(left.is_empty());
            left = BytesMut::from(&input[cut..]);
            content.extend_from_slice(&reader.read(&mut left));
        } else {
            left.extend_from_slice(&input[cut..]);
        }
        (content, reader.ended().then(|| left.to_vec()), reader.flaw())
    }

    #[test]
    fn content_without_dots_is_not_copied() {
        let mut input = BytesMut::from(&b"From: a\r\n\r\nb\r\nc\r\n.\r\nQUIT"[..]);
        let begins = input.as_ptr();
        let content = DotReader::default().read(&mut input);
        assert_eq!((&content[..], &input[..]), (&b"From: a\r\n\r\nb\r\nc\r\n"[..], &b"QUIT"[..]));
        assert_eq!(content.as_ptr(), begins);
    }

    #[test]
    fn end_of_data_is_crlf_dot_crlf_wherever_the_network_cuts() {
        for (input, content, rest) in [
            (&b".\r\nQUIT"[..], &b""[..], Some(&b"QUIT"[..])),
            (b"a\r\n.\r\nQUIT", b"a\r\n", Some(b"QUIT")),
            (b"a\r\n..\r\n...b\r\n.\r\n", b"a\r\n.\r\n..b\r\n", Some(b"")),
            (b".a\r\n.\r\n", b"a\r\n", Some(b"")),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n", Some(b"")),
            (b"a.\r\n", b"a.\r\n", None),
            (b"\x01\xff\r\n.\r\n", b"\x01\xff\r\n", Some(b"")),
        ] {
            for cut in 0..=input.len() {
                let expected = (content.to_vec(), rest.map(<[u8]>::to_vec), None);
                assert_eq!(read(input, cut), expected, "{input:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_a_lenient_reader_takes_for_the_end_is_refused_and_read_past() {
        let bare = [
            "\n.\n",
            "\n.\r\n",
            "\r\n.\n",
            "\r.\r",
            "\r\n.\r",
            "\r.\r\n",
            "\r\r\n.\r\r\n",
            "\r.\n",
            "\n.\r",
            "\r\n.\r\0\n",
        ];
        let nul = ["\0", "\r\n\0.\r\n", "\r\n.\0\r\n", "\0\r\n.\n", "b\0\n.\r"];
        let flawed = bare.map(|text| (text, Flaw::BareLineEnd)).into_iter().chain(nul.map(|text| (text, Flaw::Nul)));
        for (lookalike, why) in flawed {
            let input = format!("a{lookalike}MAIL FROM:<>\r\n.\r\nQUIT");
            for cut in 0..=input.len() {
                let (content, rest, flaw) = read(input.as_bytes(), cut);
                assert_eq!((rest.as_deref(), flaw), (Some(&b"QUIT"[..]), Some(why)), "{input:?} cut at {cut}");
                assert!(input.as_bytes().starts_with(&content), "{content:?} came out of {input:?} cut at {cut}");
            }
        }
    }

    /// The same result by searching the whole text.
    fn searched(input: &[u8]) -> (Option<Vec<u8>>, bool) {
        let text = [b"\r\n", input].concat();
        let end = text.windows(5).position(|five| five == b"\r\n.\r\n");
        let content = &text[..end.map_or(text.len(), |end| end + 2)];
        let without_pairs = String::from_utf8_lossy(content).replace("\r\n", "");
        (end.map(|end| text[end + 5..].to_vec()), without_pairs.contains(['\r', '\n', '\0']))
    }

    #[test]
    fn every_short_text_ends_where_searching_finds_its_end() {
        for number in 0..5_usize.pow(7) {
            let text: Vec<u8> = (0..7).map(|at| b"\r\n.a\0"[number / 5_usize.pow(at) % 5]).collect();
            let (_, rest, flaw) = read(&text, number % 8);
            let (expected_rest, flawed) = searched(&text);
            assert_eq!(rest, expected_rest, "{text:?}");
            // A text that breaks off after a CR has no flaw yet.
            let open = rest.is_none() && flaw.is_none() && text.ends_with(b"\r");
            assert!(flaw.is_some() == flawed || open, "{text:?}");
        }
    }

    #[test]
    fn the_header_section_ends_at_the_first_empty_line() {
        for (text, end) in [
            (&b"\r\nbody"[..], Some(0)),
            (b"A: b\r\n\r\nbody", Some(6)),
            (b"A: b\n\nbody", Some(5)),
            (b"A: b\r\n \r\n\r\n", Some(9)),
            (b"A: b\r\n", None),
            (b"A: b\r\n\r", None),
            (b"", None),
        ] {
            assert_eq!(header_end(text, 0), end, "{text:?}");
            for cut in 0..text.len() {
                if header_end(&text[..cut], 0).is_none() {
                    assert_eq!(header_end(text, cut), end, "{text:?} known up to {cut}");
                }
            }
        }
    }

    proptest! {
        /// A text that is stuffed by RFC 5321 4.5.2 and read in pieces comes out unchanged.
        #[test]
        fn stuffing_and_reading_cancel_out(lines in prop::collection::vec("[a.\\x01-\\x09]{0,5}", 0..8), size in 1_usize..9) {
            let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines.iter().map(|l| if l.starts_with('.') { format!(".{l}\r\n") } else { format!("{l}\r\n") }).collect();
            let wire = format!("{stuffed}.\r\n");
            let mut reader = DotReader::default();
            let mut content = Vec::new();
            for piece in wire.as_bytes().chunks(size) {
                let mut piece = BytesMut::from(piece);
                content.extend_from_slice(&reader.read(&mut piece));
                prop_assert!(piece.is_empty());
            }
            prop_assert!(reader.ended() && reader.flaw().is_none());
            prop_assert_eq!(content, text.into_bytes());
        }
    }
}
