//! A message's content before it is committed.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::SpoolError;
use super::entry::Entry;
use super::layout::failed;
use super::stored::Stored;
use crate::message::queue_id::QueueId;

/// The largest content that is part of its record, in bytes. Larger ones are files.
pub const IN_RECORD: usize = 256 * 1024;

/// A message's complete content, ready to be committed. Until its record is durable it is not, and dropping it deletes
/// it.
#[derive(Debug)]
pub enum Draft {
    /// At most [`IN_RECORD`] bytes.
    Small {
        id: QueueId,
        content: Bytes,
    },
    Blob(BlobDraft),
}

/// Content that is too large for memory and is being written to its file.
#[derive(Debug)]
pub struct BlobDraft {
    id: QueueId,
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    length: u64,
    /// CRC-32C of what has been written.
    sum: u32,
    kept: bool,
}

impl Draft {
    #[must_use]
    pub fn id(&self) -> QueueId {
        match self {
            Self::Small { id, .. } => *id,
            Self::Blob(draft) => draft.id,
        }
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Small { content, .. } => content.len() as u64,
            Self::Blob(draft) => draft.length,
        }
    }

    /// Refuses content of another length than the envelope says, which would be taken for damaged later.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub(crate) fn is_content_of(&self, entry: &Entry) -> Result<(), SpoolError> {
        let (id, size) = (self.id(), self.size());
        if id != entry.id || size != entry.content.size {
            let text = format!("{} is to be {} bytes, its content {id} has {size}", entry.id, entry.content.size);
            return Err(SpoolError::Io(text));
        }
        match self {
            Self::Small { .. } if size > IN_RECORD as u64 => {
                Err(SpoolError::Io(format!("{id} has {size} bytes: too many for a record")))
            }
            Self::Small { .. } | Self::Blob(_) => Ok(()),
        }
    }

    /// CRC-32C of the content.
    #[must_use]
    pub fn sum(&self) -> u32 {
        match self {
            Self::Small { content, .. } => crc32c::crc32c(content),
            Self::Blob(draft) => draft.sum(),
        }
    }

    #[must_use]
    pub fn stored(&self) -> Stored {
        match self {
            Self::Small { content, .. } => Stored::memory(content.clone()),
            Self::Blob(draft) => draft.stored(),
        }
    }
}

impl BlobDraft {
    /// An empty draft in a new file at `path`.
    pub(super) fn new(id: QueueId, file: File, path: PathBuf) -> Self {
        Self { id, file: Arc::new(file), path, length: 0, sum: 0, kept: false }
    }

    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Appends a piece. Blocks, so pieces should not be small.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; the draft must not be used any further.
    pub fn append(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        (&*self.file).write_all(piece).map_err(|e| failed("cannot write", &self.path, &e))?;
        self.length += piece.len() as u64;
        self.sum = crc32c::crc32c_append(self.sum, piece);
        Ok(())
    }

    /// CRC-32C of what has been written.
    pub(super) fn sum(&self) -> u32 {
        self.sum
    }

    /// What has been written, for reading.
    #[must_use]
    pub fn stored(&self) -> Stored {
        Stored::file(self.file.clone(), self.length, Some(self.sum))
    }

    /// Its file belongs to a record now and is not deleted.
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
