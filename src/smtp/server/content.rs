//! Receives a message's content: by DATA or BDAT, with its header section checked first, and refused where it breaks a
//! rule. Memory is bounded by the header section's limit and the size of one piece.

use bytes::{Buf, Bytes, BytesMut};

use super::{Action, DotReader, Limits, Reply, Server, SessionState, Summary};
use crate::smtp::command::ChunkPosition;
use crate::smtp::data::{Flaw, header_end};
use crate::smtp::line_ends::LineEnds;
use crate::smtp::reply;

/// How the content is framed.
#[derive(Debug)]
pub(super) enum Source {
    /// DATA.
    Dots(DotReader),
    /// One chunk of BDAT.
    Chunk {
        /// Octets of the chunk.
        size: u64,
        /// Octets still to come.
        left: u64,
        place: ChunkPosition,
    },
}

impl Source {
    /// Whether its end has been read.
    pub(super) fn exhausted(&self) -> bool {
        match self {
            Self::Dots(reader) => reader.ended(),
            Self::Chunk { left, .. } => *left == 0,
        }
    }
}

/// The state of the header section.
#[derive(Debug)]
enum Header {
    /// It is not complete; these are its pieces so far, joined.
    Collecting(BytesMut),
    /// [`Event::HeaderChecked`](super::Event::HeaderChecked) is due; this is the content after it that has been read.
    Checking(Bytes),
    Passed,
}

/// A message that is being received.
#[derive(Debug)]
pub(super) struct Incoming {
    limits: Limits,
    size: u64,
    eight_bit: bool,
    line_ends: LineEnds,
    flaw: Option<Flaw>,
    header: Header,
    /// Why it is refused. From then on its content is read to its end and dropped.
    refused: Option<Reply>,
}

impl Incoming {
    pub(super) fn new(limits: Limits) -> Self {
        let header = Header::Collecting(BytesMut::new());
        let line_ends = LineEnds::default();
        Self { limits, size: 0, eight_bit: false, line_ends, flaw: None, header, refused: None }
    }

    pub(super) fn is_being_checked(&self) -> bool {
        matches!(self.header, Header::Checking(_))
    }

    /// Reads on; returns the next action, if there is one.
    pub(super) fn read(&mut self, source: &mut Source, input: &mut BytesMut) -> Option<Action> {
        match source {
            Source::Dots(reader) => {
                let piece = reader.read(input);
                self.flaw = reader.flaw();
                self.take(piece)
            }
            Source::Chunk { left, .. } => {
                let mut piece = input.split_to(within(*left, input.len()));
                *left -= piece.len() as u64;
                if let Some(nul) = memchr::memchr(b'\0', &piece) {
                    piece.truncate(nul);
                    self.flaw = Some(Flaw::Nul); // RFC 3030 3: without BINARYMIME a chunk holds text
                }
                self.line_ends.read(&piece);
                self.take(piece.freeze())
            }
        }
    }

    /// Takes a piece of content. Flaws are found in the order in which they stand in the message, so that the reply
    /// does not depend on how the network cuts it.
    fn take(&mut self, piece: Bytes) -> Option<Action> {
        if self.refused.is_some() {
            return None;
        }
        self.size = self.size.saturating_add(piece.len() as u64);
        self.eight_bit |= !piece.is_ascii();
        match &mut self.header {
            Header::Collecting(section) => {
                let known = section.len();
                // Nearly always the first piece holds the whole section, which is not copied then.
                let whole = if known == 0 { header_end(&piece, 0) } else { None };
                if whole.is_none() {
                    section.extend_from_slice(&piece);
                }
                let end = whole.or_else(|| header_end(section, known));
                // While the end is unknown, a final CR may be the beginning of the empty line.
                let fields = end.unwrap_or(section.len().saturating_sub(1));
                if let Some(why) = self.limits.refuse_header(fields) {
                    return self.refuse(why);
                }
                let Some(end) = end else { return self.flaw_in_header() };
                let mut section = if whole.is_some() { piece } else { std::mem::take(section).freeze() };
                let rest = section.split_off(end);
                Some(self.check(section, rest))
            }
            Header::Checking(rest) => {
                *rest = [&rest[..], &piece[..]].concat().into();
                None
            }
            Header::Passed => self.pass(piece),
        }
    }

    /// Passes on content after the header section, unless the message is refused.
    fn pass(&mut self, piece: Bytes) -> Option<Action> {
        if self.size > self.limits.max_message_size {
            return self.refuse(reply::MESSAGE_TOO_LARGE); // RFC 1870 6.3
        }
        if let Some(flaw) = self.flaw {
            return self.refuse(flaw_reply(flaw));
        }
        (!piece.is_empty()).then_some(Action::Content(piece))
    }

    /// Refuses the message if a flaw has been read in its header section.
    fn flaw_in_header(&mut self) -> Option<Action> {
        let flaw = self.flaw?;
        self.refuse(flaw_reply(flaw))
    }

    /// The content ended before the header section did: all of it is header section.
    fn end_in_header(&mut self, section: Bytes) -> Action {
        match self.limits.refuse_header(section.len()) {
            Some(why) => self.refuse(why).unwrap_or(Action::Discard),
            None => self.check(section, Bytes::new()),
        }
    }

    /// Hands out the header section; `rest` is the content after it that has been read.
    fn check(&mut self, section: Bytes, rest: Bytes) -> Action {
        self.header = Header::Checking(rest);
        Action::CheckHeader(section)
    }

    /// Refuses the message; the first reason is kept.
    fn refuse(&mut self, why: Reply) -> Option<Action> {
        if self.refused.is_some() {
            return None;
        }
        self.refused = Some(why);
        self.header = Header::Passed;
        Some(Action::Discard)
    }
}

impl Limits {
    /// Why a header section of this length is refused: by whichever limit it exceeds first.
    fn refuse_header(self, fields: usize) -> Option<Reply> {
        let fields = fields as u64;
        if fields <= self.max_header_size && fields <= self.max_message_size {
            return None;
        }
        let whole = self.max_message_size < self.max_header_size;
        Some(if whole { reply::MESSAGE_TOO_LARGE } else { reply::HEADER_TOO_LARGE })
    }
}

fn flaw_reply(flaw: Flaw) -> Reply {
    match flaw {
        Flaw::BareLineEnd => reply::BARE_IN_DATA,
        Flaw::Nul => reply::NUL_IN_DATA,
    }
}

/// How many of `available` octets lie within `left`.
fn within(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

/// Drops up to `left` octets.
pub(super) fn skip(left: &mut u64, input: &mut BytesMut) {
    let taken = within(*left, input.len());
    input.advance(taken);
    *left -= taken as u64;
}

impl Server {
    /// Whether content is being read, or the next chunk is due.
    #[must_use]
    pub fn is_in_content(&self) -> bool {
        matches!(self.state, SessionState::Content(..) | SessionState::BetweenChunks(_) | SessionState::Skipping(..))
    }

    /// Whether a chunk of a message has come and its last one has not.
    #[must_use]
    pub fn is_between_chunks(&self) -> bool {
        matches!(self.state, SessionState::BetweenChunks(_))
    }

    /// Octets of memory that an incomplete header section takes.
    #[must_use]
    pub fn collected(&self) -> usize {
        match &self.state {
            SessionState::Content(incoming, _) | SessionState::BetweenChunks(incoming) => match &incoming.header {
                Header::Collecting(section) => section.capacity(),
                Header::Checking(_) | Header::Passed => 0,
            },
            _ => 0,
        }
    }

    /// Refuses the message because there is no memory for more of its header section.
    pub(super) fn no_room(&mut self, mut incoming: Incoming, source: Source) {
        if let Header::Collecting(_) = incoming.header {
            self.out.extend(incoming.refuse(reply::INSUFFICIENT_STORAGE));
        }
        self.state = SessionState::Content(incoming, source);
    }

    /// Handles the result of checking the header section.
    pub(super) fn header_checked(&mut self, mut incoming: Incoming, source: Source, verdict: Result<(), Reply>) {
        let header = std::mem::replace(&mut incoming.header, Header::Passed);
        let action = match (header, verdict) {
            (Header::Checking(_), Err(why)) => incoming.refuse(why),
            (Header::Checking(rest), Ok(())) => incoming.pass(rest),
            (other, _) => {
                incoming.header = other;
                None
            }
        };
        self.out.extend(action);
        self.state = SessionState::Content(incoming, source);
    }

    /// Handles the end of DATA or of a chunk.
    pub(super) fn end_of_source(&mut self) {
        let (mut incoming, source) = match std::mem::replace(&mut self.state, SessionState::Idle) {
            SessionState::Content(incoming, source) => (incoming, source),
            other => {
                self.state = other;
                return;
            }
        };
        if let Some(why) = incoming.refused {
            return match source {
                // As in a command: it is uncertain where this client's lines end, so the session is closed. The reply
                // is sent at the end of the message, because a client would not read it earlier.
                Source::Dots(reader) if reader.bare() => self.close_with(why),
                Source::Dots(_) | Source::Chunk { .. } => self.send(why),
            };
        }
        if let Source::Chunk { size, place: ChunkPosition::Inner, .. } = source {
            self.state = SessionState::BetweenChunks(incoming);
            return self.send(Reply::chunk_received(size));
        }
        if let Header::Collecting(section) = &mut incoming.header {
            let section = std::mem::take(section).freeze();
            self.out.push_back(incoming.end_in_header(section));
            self.state = SessionState::Content(incoming, source);
            return;
        }
        let summary = Summary { eight_bit: incoming.eight_bit, bare_lf: incoming.line_ends.bare() };
        self.out.push_back(Action::Commit(summary));
        self.state = SessionState::Committing;
    }

    /// Handles the end of a chunk that was skipped.
    pub(super) fn end_of_skipping(&mut self) {
        match std::mem::replace(&mut self.state, SessionState::Idle) {
            SessionState::Skipping(_, why, back) => {
                self.state = *back;
                self.error(why);
            }
            other => self.state = other,
        }
    }
}
