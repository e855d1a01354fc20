//! A message's content from its file to a next hop, in pieces of bounded size.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::io::{ReadWriteFlags, preadv2};

use super::Message;
use super::connection::Broken;
use super::conversation::Conversation;
use super::fit::Way;

/// Bytes of one piece. A message up to this size is one read and, with the final dot, one write.
const PIECE: u64 = 64 * 1024;

/// Why the content was not sent whole; the next hop has seen no end of data.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// It could not be read.
    #[error("cannot read the message's content: {0}")]
    Read(#[from] io::Error),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] Broken),
}

impl Message<'_> {
    /// Writes the prefix, the content and the end of data.
    ///
    /// # Errors
    /// [`BodyError`]: the connection is of no more use.
    pub(super) async fn write(&self, conversation: &mut Conversation, way: Way) -> Result<(), BodyError> {
        if way == Way::Bdat {
            conversation.chunk(self.prefix.len() as u64 + self.content.size);
        }
        conversation.piece(self.prefix);
        let mut at = 0;
        while at < self.content.size {
            let piece = self.read(at).await?;
            at += piece.len() as u64;
            conversation.piece(&piece);
            if at < self.content.size {
                conversation.flush().await?;
            }
        }
        conversation.end();
        Ok(conversation.flush().await?)
    }

    async fn read(&self, at: u64) -> io::Result<Vec<u8>> {
        read(&self.file, at, usize::try_from(PIECE.min(self.content.size - at)).unwrap_or(usize::MAX)).await
    }
}

/// `length` bytes at `at`, all of them. What is in the page cache, as new mail is, is read at once; what is not, on a
/// thread that may wait for the disk.
pub(crate) async fn read(file: &Arc<File>, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = file.clone();
    let mut piece = vec![0; length];
    let cached = preadv2(&*file, &mut [io::IoSliceMut::new(&mut piece)], at, ReadWriteFlags::NOWAIT);
    if cached == Ok(length) {
        return Ok(piece);
    }
    let read = move || file.read_exact_at(&mut piece, at).map(|()| piece);
    tokio::task::spawn_blocking(read).await?
}
