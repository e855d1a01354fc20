//! A message's content from the spool to a next hop, in pieces of bounded size.

use std::io;

use super::Message;
use super::connection::Broken;
use super::conversation::Conversation;
use super::fit::Way;

/// Bytes of one piece. A message up to this size is one read and, with the final dot, one write.
const PIECE: usize = 64 * 1024;

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
            let left = usize::try_from(self.content.size - at).unwrap_or(PIECE);
            let piece = self.body.piece(at, left.min(PIECE)).await?;
            at += piece.len() as u64;
            conversation.piece(&piece);
            if at < self.content.size {
                conversation.flush().await?;
            }
        }
        conversation.end();
        Ok(conversation.flush().await?)
    }
}
