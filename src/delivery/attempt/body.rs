//! A message's content from its file to a next hop, in pieces of bounded size.

use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::io::{ReadWriteFlags, preadv2};

use super::Message;
use super::connection::{Broken, Connection};
use super::fit::Way;
use crate::smtp::client::encode::Encoder;

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
    pub(super) async fn write(&self, connection: &mut Connection, way: Way) -> Result<(), BodyError> {
        match way {
            Way::Data(lines) => {
                let mut encoder = Encoder::new(lines);
                encoder.push(self.prefix, connection.buffer());
                let mut at = 0;
                while at < self.content.size {
                    let piece = self.read(at).await?;
                    at += piece.len() as u64;
                    encoder.push(&piece, connection.buffer());
                    if at < self.content.size {
                        connection.flush().await?;
                    }
                }
                encoder.finish(connection.buffer());
            }
            // RFC 3030 2: the size is that of the bytes as they are, nothing is stuffed.
            Way::Bdat => {
                let all = self.prefix.len() as u64 + self.content.size;
                connection.queue(format!("BDAT {all} LAST\r\n").as_bytes());
                connection.queue(self.prefix);
                let mut at = 0;
                while at < self.content.size {
                    let piece = self.read(at).await?;
                    at += piece.len() as u64;
                    connection.queue(&piece);
                    if at < self.content.size {
                        connection.flush().await?;
                    }
                }
            }
        }
        Ok(connection.flush().await?)
    }

    /// The piece at `at`, whole. What is in the page cache, as new mail is, is read at once; what is not, on a thread
    /// that may wait for the disk.
    async fn read(&self, at: u64) -> io::Result<Vec<u8>> {
        let file = self.file.clone();
        let length = usize::try_from(PIECE.min(self.content.size - at)).unwrap_or(usize::MAX);
        let mut piece = vec![0; length];
        let cached = preadv2(&*file, &mut [io::IoSliceMut::new(&mut piece)], at, ReadWriteFlags::NOWAIT);
        if cached == Ok(length) {
            return Ok(piece);
        }
        let read = move || file.read_exact_at(&mut piece, at).map(|()| piece);
        tokio::task::spawn_blocking(read).await?
    }
}
