//! A message's content before it is committed.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::SpoolError;
use super::layout::failed;
use super::stored::Stored;
use crate::message::queue_id::QueueId;

/// The largest content that is part of its record, bytes. A larger one is a file of its own.
pub const IN_RECORD: usize = 256 * 1024;

/// A message's whole content, ready to be committed. Not durable, and gone when dropped, until its record is.
#[derive(Debug)]
pub enum Draft {
    /// At most [`IN_RECORD`] bytes.
    Small {
        /// The id that the message will have.
        id: QueueId,
        content: Bytes,
    },
    /// A file.
    Blob(BlobDraft),
}

/// Content that is too large for memory, while it is being written to its file.
#[derive(Debug)]
pub struct BlobDraft {
    id: QueueId,
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    length: u64,
    /// CRC-32C of what was written.
    sum: u32,
    kept: bool,
}

impl Draft {
    /// The id that the message will have.
    #[must_use]
    pub fn id(&self) -> QueueId {
        match self {
            Self::Small { id, .. } => *id,
            Self::Blob(draft) => draft.id,
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Small { content, .. } => content.len() as u64,
            Self::Blob(draft) => draft.length,
        }
    }

    /// Its content, for reading.
    #[must_use]
    pub fn stored(&self) -> Stored {
        match self {
            Self::Small { content, .. } => Stored::memory(content.clone()),
            Self::Blob(draft) => draft.stored(),
        }
    }
}

impl BlobDraft {
    /// Nothing yet, in an empty file at `path`.
    pub(super) fn new(id: QueueId, file: File, path: PathBuf) -> Self {
        Self { id, file: Arc::new(file), path, length: 0, sum: 0, kept: false }
    }

    /// The id that the message will have.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Writes a piece behind the others. It blocks: pieces should be of some size.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; the draft is of no more use.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        (&*self.file).write_all(piece).map_err(|e| failed("cannot write", &self.path, &e))?;
        self.length += piece.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, piece);
        Ok(())
    }

    /// CRC-32C of what was written so far.
    pub(super) fn sum(&self) -> u32 {
        self.sum
    }

    /// What was written so far, for reading.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored::file(self.file.clone(), self.length, Some(self.sum))
    }

    /// Its file belongs to a record now.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for BlobDraft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
