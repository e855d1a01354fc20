//! Reads the part of a message that its report returns.

use super::waiting::Room;
use super::{Action, Reported, dsn, io};
use crate::message::header;
use crate::message::queue_id::QueueId;
use crate::smtp::envelope::Ret;
use crate::spool::entry::{Entry, Queued};
use crate::spool::{Spool, SpoolError};

/// Larger messages are not returned in full, bytes; their header section is.
const LARGEST_RETURNED: u64 = 10 * 1024 * 1024;
/// The most of a header section that is read, bytes.
const LONGEST_HEADER: u64 = 1024 * 1024;
/// The most of a header section that is returned, in bytes and whole lines.
const RETURNED_HEADER: usize = 16 * 1024;

/// The part of the message that was read.
pub(super) enum Original {
    /// The header section, and how much of it is returned.
    Headers(Vec<u8>, usize),
    /// All of it, and the length of its header section.
    Full(Vec<u8>, usize),
}

impl Original {
    /// Reads the header section, or the whole message if a recipient failed, MAIL had RET=FULL (RFC 3461 4.3) and
    /// `room` allows it. A message that cannot be read is reported without it.
    pub(super) async fn read(spool: &dyn Spool, room: Room, about: &Entry, due: &[(&Queued, &Reported)]) -> Self {
        let content = &about.content;
        let failed = due.iter().any(|(_, reported)| reported.action == Action::Failed);
        let returnable = room == Room::Whole && content.size <= LARGEST_RETURNED && !content.bare_lf;
        let full = failed && about.sender.ret == Some(Ret::Full) && returnable;
        let length = if full { content.size } else { content.header_size.min(LONGEST_HEADER) };
        let Ok(bytes) = begin(spool, about.id, length).await else { return Self::Headers(Vec::new(), 0) };
        let header = usize::try_from(content.header_size).unwrap_or(usize::MAX).min(bytes.len());
        match room {
            _ if full => Self::Full(bytes, header),
            Room::Nothing => Self::Headers(bytes, 0),
            Room::Headers | Room::Whole => {
                let back = whole_lines(&bytes, RETURNED_HEADER).len();
                Self::Headers(bytes, back)
            }
        }
    }

    pub(super) fn returned(&self) -> dsn::Returned<'_> {
        match self {
            Self::Headers(_, 0) => dsn::Returned::Nothing,
            Self::Headers(section, back) => dsn::Returned::Headers(section.get(..*back).unwrap_or_default()),
            Self::Full(message, _) => dsn::Returned::Full(message),
        }
    }

    pub(super) fn message_id(&self) -> String {
        let section = match self {
            Self::Headers(section, _) => section.as_slice(),
            Self::Full(message, header) => message.get(..*header).unwrap_or_default(),
        };
        header::examine(section).message_id
    }
}

/// As many whole lines as fit into `room` octets.
fn whole_lines(section: &[u8], room: usize) -> &[u8] {
    if section.len() <= room {
        return section;
    }
    let begins = section.get(..room).unwrap_or_default();
    let end = memchr::memrchr(b'\n', begins).map_or(0, |at| at + 1);
    section.get(..end).unwrap_or_default()
}

/// The first bytes of a message. All of it is read, to check its checksum: damaged content is not returned.
async fn begin(spool: &dyn Spool, id: QueueId, length: u64) -> Result<Vec<u8>, SpoolError> {
    let stored = spool.open(id)?;
    let read = tokio::task::spawn_blocking(move || stored.begin(length)).await;
    read.map_err(std::io::Error::other).flatten().map_err(|error| io("message", id, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_header_section_comes_back_in_part() {
        for (section, room, back) in [
            (&b"A: 1\r\nB: 2\r\n"[..], 12, &b"A: 1\r\nB: 2\r\n"[..]),
            (b"A: 1\r\nB: 2\r\n", 11, b"A: 1\r\n"),
            (b"A: 1\r\nB: 2\r\n", 6, b"A: 1\r\n"),
            (b"A: 1\r\nB: 2\r\n", 5, b""),
            (b"", 5, b""),
        ] {
            assert_eq!(whole_lines(section, room), back, "{room}");
        }
    }
}
