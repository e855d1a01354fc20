//! A message's content on its way in: our Received field, then what the client sent.
//!
//! It stays in memory while it is small: a message that next hops take at once never touches the disk, and one that is
//! queued becomes part of its record. A larger one goes to a file of the spool in pieces, unsynced. Memory does not grow
//! with the message.

use std::sync::Arc;

use crate::delivery::branch::Body;
use crate::in_force::InForce;
use crate::message::queue_id::QueueId;
use crate::message::received::{self, With};
use crate::pressure::Share;
use crate::smtp::envelope::Origin;
use crate::spool::{BlobDraft, Draft, IN_RECORD, Spool, SpoolError};
use crate::time::UnixTime;

/// How much is written to a file at once.
const PIECE: usize = 64 * 1024;
/// The same where sessions hold too much in memory.
const SHORT: usize = 16 * 1024;
/// What most messages have room in.
const USUAL: usize = 8 * 1024;

/// Content being taken in.
pub(super) struct Writing {
    spool: Arc<dyn Spool>,
    pub(super) id: QueueId,
    /// When we took it, as our Received field says.
    pub(super) at: UnixTime,
    /// Octets, our Received field included.
    pub(super) size: u64,
    /// Octets of our Received field.
    pub(super) received_size: u64,
    /// What is not in the file: everything, as long as there is none.
    buffer: Vec<u8>,
    file: Filed,
    /// What it takes of the disk.
    share: Share,
}

/// Whether there is a file.
enum Filed {
    /// Not yet.
    No,
    /// The content but for the buffer is in it.
    Begun(BlobDraft),
    /// Writing failed; the rest of the content is thrown away and the message refused at its end.
    Failed(SpoolError),
}

impl Writing {
    pub(super) fn new(spool: Arc<dyn Spool>, origin: &Origin, with: With, in_force: &InForce, share: Share) -> Self {
        let (id, at) = (spool.new_id(), UnixTime::now());
        let mut buffer = received::field(origin, with, &in_force.config.server.hostname, id, at).into_bytes();
        buffer.reserve(USUAL);
        let received_size = buffer.len() as u64;
        Self { spool, id, at, size: received_size, received_size, buffer, file: Filed::No, share }
    }

    /// Takes a piece; writes when there is enough.
    pub(super) async fn append(&mut self, piece: &[u8]) {
        if let Filed::Failed(_) = self.file {
            return;
        }
        self.size += piece.len() as u64;
        self.share.received(piece.len());
        self.buffer.extend_from_slice(piece);
        let most = match self.file {
            _ if self.share.is_short_of_memory() => SHORT,
            Filed::No => IN_RECORD,
            Filed::Begun(_) | Filed::Failed(_) => PIECE,
        };
        if self.buffer.len() > most {
            self.write_out().await;
        }
    }

    /// Octets of it that are in memory.
    pub(super) fn in_memory(&self) -> u64 {
        self.buffer.capacity() as u64
    }

    /// The whole content, for reading. What is in a file already goes there entirely.
    ///
    /// # Errors
    /// What went wrong now or before.
    pub(super) async fn body(&mut self) -> Result<Body<'_>, SpoolError> {
        if !matches!(self.file, Filed::No) && !self.buffer.is_empty() {
            self.write_out().await;
        }
        match &self.file {
            Filed::No => Ok(Body::Memory(&self.buffer)),
            Filed::Failed(error) => Err(error.clone()),
            Filed::Begun(draft) => Ok(Body::File(draft.stored())),
        }
    }

    /// The whole content, ready to be committed.
    ///
    /// # Errors
    /// What went wrong now or before.
    pub(super) async fn finish(mut self) -> Result<Draft, SpoolError> {
        if !matches!(self.file, Filed::No) && !self.buffer.is_empty() {
            self.write_out().await;
        }
        match self.file {
            Filed::No => Ok(Draft::Small { id: self.id, content: self.buffer.into() }),
            Filed::Begun(draft) => Ok(Draft::Blob(draft)),
            Filed::Failed(error) => Err(error),
        }
    }

    /// Writes the buffer to the file, on a thread that may block.
    async fn write_out(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if let Err(short) = self.share.take_room(buffer.len()) {
            // What is in the file goes with it: half-sent messages give way to whole ones.
            self.file = Filed::Failed(SpoolError::Full(short));
            self.share.thrown_away();
            return;
        }
        let (spool, id) = (self.spool.clone(), self.id);
        let begun = match std::mem::replace(&mut self.file, Filed::No) {
            Filed::No => None,
            Filed::Begun(draft) => Some(draft),
            failed @ Filed::Failed(_) => {
                self.file = failed;
                return;
            }
        };
        let writing = move || {
            let mut draft = match begun {
                Some(draft) => draft,
                None => spool.create_as(id)?,
            };
            draft.append(&buffer)?;
            Ok((draft, buffer))
        };
        match tokio::task::spawn_blocking(writing).await {
            Ok(Ok((draft, mut buffer))) => {
                buffer.clear();
                if self.share.is_short_of_memory() {
                    buffer.shrink_to(SHORT);
                }
                (self.file, self.buffer) = (Filed::Begun(draft), buffer);
            }
            Ok(Err(error)) => self.file = Filed::Failed(error),
            Err(error) => self.file = Filed::Failed(SpoolError::Io(error.to_string())),
        }
    }
}
