//! Buffers a message's content: our Received field, then what the client sends.
//!
//! Small content stays in memory: a message that next hops accept at once never touches the disk, and one that is
//! queued becomes part of its record. Larger content is written to a file of the spool in pieces, unsynced. So memory
//! does not grow with the message.

use std::sync::Arc;

use crate::delivery::branch::Body;
use crate::in_force::InForce;
use crate::message::queue_id::QueueId;
use crate::message::received::{self, With};
use crate::pressure::Share;
use crate::smtp::envelope::Origin;
use crate::spool::{BlobDraft, Draft, IN_RECORD, Spool, SpoolError};
use crate::time::UnixTime;

/// How much is written to a file at once, octets.
const PIECE: usize = 64 * 1024;
/// The same while sessions hold too much in memory.
const SHORT: usize = 16 * 1024;
/// Initial capacity; most messages are smaller.
const USUAL: usize = 8 * 1024;

pub(super) struct Writing {
    spool: Arc<dyn Spool>,
    pub(super) id: QueueId,
    /// The time in our Received field.
    pub(super) at: UnixTime,
    /// Octets, with our Received field.
    pub(super) size: u64,
    /// Octets of our Received field.
    pub(super) received_size: u64,
    /// What is not in the file yet: everything, as long as there is none.
    buffer: Vec<u8>,
    file: Filed,
    /// Its reservation of disk space.
    share: Share,
}

enum Filed {
    No,
    /// The file has everything except the buffer.
    Begun(BlobDraft),
    /// Writing failed; the rest of the content is dropped, and the message is refused at its end.
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

    /// Appends a piece; writes when the buffer is full.
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

    /// Octets that are in memory.
    pub(super) fn in_memory(&self) -> u64 {
        self.buffer.capacity() as u64
    }

    /// The whole content, for reading. If there is a file, the rest is written to it first.
    ///
    /// # Errors
    /// The first error in writing, now or before.
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
    /// The first error in writing, now or before.
    pub(super) async fn finish(mut self) -> Result<Draft, SpoolError> {
        if !matches!(self.file, Filed::No) && !self.buffer.is_empty() {
            self.write_out().await;
        }
        match self.file {
            Filed::No => {
                self.buffer.shrink_to_fit(); // it may be kept until the first attempt
                Ok(Draft::Small { id: self.id, content: self.buffer.into() })
            }
            Filed::Begun(draft) => Ok(Draft::Blob(draft)),
            Filed::Failed(error) => Err(error),
        }
    }

    /// Writes the buffer to the file, on a blocking thread.
    async fn write_out(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if let Err(short) = self.share.take_room(buffer.len()) {
            // The file is deleted: incomplete messages give way to complete ones.
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
