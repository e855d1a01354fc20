//! A message's content, read by position: from memory, from its record in a segment, or from a file of its own.
//!
//! It can be read to its end whatever becomes of the message meanwhile: it holds the file that it reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};

/// A message's content.
#[derive(Debug, Clone)]
pub struct Stored(Source);

#[derive(Debug, Clone)]
enum Source {
    Memory(Bytes),
    /// `sum`: the whole's CRC-32C, where it is known.
    Range {
        file: Arc<File>,
        from: u64,
        length: u64,
        sum: Option<u32>,
    },
}

impl Stored {
    /// What is in memory.
    #[must_use]
    pub fn memory(content: Bytes) -> Self {
        Self(Source::Memory(content))
    }

    /// The first `length` bytes of a file.
    #[must_use]
    pub fn file(file: Arc<File>, length: u64) -> Self {
        Self(Source::Range { file, from: 0, length, sum: None })
    }

    /// Part of a segment.
    pub(super) fn range(file: Arc<File>, from: u64, length: u32, sum: u32) -> Self {
        Self(Source::Range { file, from, length: u64::from(length), sum: Some(sum) })
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.0 {
            Source::Memory(content) => content.len() as u64,
            Source::Range { length, .. } => *length,
        }
    }

    /// `length` bytes at `at`, all of them. What is in the page cache, as new mail is, is read at once; what is not, on
    /// a thread that may wait for the disk.
    ///
    /// # Errors
    /// What the disk said; content that is not what was written, where it is read in one piece.
    pub async fn piece(&self, at: u64, length: usize) -> io::Result<Bytes> {
        let (file, from) = match &self.0 {
            Source::Memory(content) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let to = from.saturating_add(length);
                return if to <= content.len() { Ok(content.slice(from..to)) } else { Err(ended()) };
            }
            Source::Range { file, from, .. } => (file.clone(), from + at),
        };
        let mut piece = vec![0; length];
        let cached = preadv2(&*file, &mut [io::IoSliceMut::new(&mut piece)], from, ReadWriteFlags::NOWAIT);
        if cached != Ok(length) {
            let read = move || file.read_exact_at(&mut piece, from).map(|()| piece);
            piece = tokio::task::spawn_blocking(read).await??;
        }
        self.check(&piece)?;
        Ok(piece.into())
    }

    /// Reads it from its beginning. It blocks.
    pub fn reader(&self) -> impl Read + Send + 'static {
        Reader { stored: self.clone(), at: 0 }
    }

    /// All of it, which must be of a size that memory can hold. It blocks.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub fn whole(&self) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        self.reader().read_to_end(&mut content)?;
        self.check(&content)?;
        if content.len() as u64 == self.size() { Ok(content) } else { Err(ended()) }
    }

    fn check(&self, piece: &[u8]) -> io::Result<()> {
        match &self.0 {
            Source::Range { sum: Some(sum), length, .. } if *length == piece.len() as u64 => {
                let is_right = crc32c::crc32c(piece) == *sum;
                let error = || io::Error::new(io::ErrorKind::InvalidData, "it is not what was written: check the disk");
                if is_right { Ok(()) } else { Err(error()) }
            }
            Source::Range { .. } | Source::Memory(_) => Ok(()),
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was")
}

struct Reader {
    stored: Stored,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.stored.size().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = left.min(to.len());
        let read = match &self.stored.0 {
            Source::Memory(content) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(content.len());
                to[..length].copy_from_slice(&content[from..from + length]);
                length
            }
            Source::Range { file, from, .. } => file.read_at(&mut to[..length], from + self.at)?,
        };
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<(&'static str, Stored)> {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, b"beforeCONTENTbehind").unwrap();
        let file = Arc::new(file);
        let sum = crc32c::crc32c(b"CONTENT");
        vec![
            ("memory", Stored::memory(Bytes::from_static(b"CONTENT"))),
            ("segment", Stored::range(file.clone(), 6, 7, sum)),
            ("file", Stored(Source::Range { file, from: 6, length: 7, sum: None })),
        ]
    }

    #[tokio::test]
    async fn content_is_read_by_position_wherever_it_is() {
        for (what, stored) in sources() {
            assert_eq!(stored.size(), 7, "{what}");
            assert_eq!(stored.piece(0, 7).await.unwrap(), "CONTENT", "{what}");
            assert_eq!(stored.piece(3, 2).await.unwrap(), "TE", "{what}");
            assert_eq!(stored.whole().unwrap(), b"CONTENT", "{what}");
            let mut begin = Vec::new();
            stored.reader().take(4).read_to_end(&mut begin).unwrap();
            assert_eq!(begin, b"CONT", "{what}");
        }
        assert!(sources()[0].1.piece(3, 5).await.is_err());
    }

    #[tokio::test]
    async fn content_that_has_changed_on_the_disk_is_not_given_out() {
        let (_, stored) = sources().remove(1);
        let Source::Range { file, .. } = &stored.0 else { panic!("a range") };
        file.write_at(b"X", 8).unwrap();
        assert!(stored.piece(0, 7).await.is_err());
        assert!(stored.whole().is_err());
        file.set_len(9).unwrap();
        assert!(stored.whole().is_err());
        assert!(stored.piece(0, 7).await.is_err());
    }
}
