//! Reads a message's content from memory, from its record in a segment, from a file of its own, or from a database.
//!
//! It keeps its file open, so it can be read to its end even if the message is finished meanwhile. The last piece is
//! returned only if the checksum of the whole is right, so that damaged content is never sent completely.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rustix::io::{ReadWriteFlags, preadv2};

#[derive(Debug, Clone)]
pub struct Stored {
    source: Source,
    /// Whether a reader has found that the checksum is wrong.
    is_damaged: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Bytes),
    /// `sum`: the whole's CRC-32C; `None`: unknown.
    Range {
        file: Arc<File>,
        from: u64,
        length: u64,
        sum: Option<u32>,
    },
    Elsewhere {
        content: Arc<dyn Elsewhere>,
        length: u64,
        sum: u32,
    },
}

/// A content that is neither in memory nor in a file.
pub trait Elsewhere: Send + Sync {
    /// `length` bytes at `at`, or fewer if it is shorter.
    fn piece(&self, at: u64, length: usize) -> BoxFuture<'_, io::Result<Bytes>>;

    /// The same, blocking; not on a thread of the runtime.
    ///
    /// # Errors
    /// It cannot be read.
    fn piece_blocking(&self, at: u64, length: usize) -> io::Result<Bytes>;
}

impl fmt::Debug for dyn Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Elsewhere")
    }
}

impl From<Source> for Stored {
    fn from(source: Source) -> Self {
        Self { source, is_damaged: Arc::default() }
    }
}

impl Stored {
    #[must_use]
    pub fn memory(content: Bytes) -> Self {
        Source::Memory(content).into()
    }

    /// The first `length` bytes of a file; `sum`: their CRC-32C, if known.
    #[must_use]
    pub fn file(file: Arc<File>, length: u64, sum: Option<u32>) -> Self {
        Source::Range { file, from: 0, length, sum }.into()
    }

    /// `length` bytes; `sum`: their CRC-32C.
    #[must_use]
    pub fn elsewhere(content: Arc<dyn Elsewhere>, length: u64, sum: u32) -> Self {
        Source::Elsewhere { content, length, sum }.into()
    }

    /// Part of a segment.
    pub(super) fn range(file: Arc<File>, from: u64, length: u32, sum: u32) -> Self {
        Source::Range { file, from, length: u64::from(length), sum: Some(sum) }.into()
    }

    /// Marks it as found damaged before.
    #[must_use]
    pub(crate) fn known_as_damaged(self) -> Self {
        self.is_damaged.store(true, Ordering::Relaxed);
        self
    }

    #[must_use]
    pub fn size(&self) -> u64 {
        match &self.source {
            Source::Memory(content) => content.len() as u64,
            Source::Range { length, .. } | Source::Elsewhere { length, .. } => *length,
        }
    }

    /// Whether any reader has found that the checksum is wrong.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    /// Reads all of it on a blocking thread and checks the checksum. Done before content is sent that was found
    /// damaged, so that no part of it is sent again.
    ///
    /// # Errors
    /// Those of [`Self::piece`].
    pub async fn verify(&self) -> io::Result<()> {
        let stored = self.clone();
        let read = move || io::copy(&mut stored.reader(), &mut io::sink());
        tokio::task::spawn_blocking(read).await??;
        self.is_damaged.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Reads all of its `length` bytes in pieces.
    #[must_use]
    pub fn in_pieces(&self, length: u64) -> Pieces<'_> {
        Pieces { stored: self, at: 0, length, sum: 0 }
    }

    /// Reads exactly `length` bytes at `at`. What is in the page cache, as new mail is, is read at once; the rest on a
    /// blocking thread.
    ///
    /// # Errors
    /// An error of the disk; a wrong checksum, if all is read in one piece.
    pub async fn piece(&self, at: u64, length: usize) -> io::Result<Bytes> {
        let (file, from) = match &self.source {
            Source::Memory(content) => {
                let from = usize::try_from(at).unwrap_or(usize::MAX);
                let to = from.saturating_add(length);
                return if to <= content.len() { Ok(content.slice(from..to)) } else { Err(self.ended()) };
            }
            Source::Elsewhere { content, .. } => {
                let piece = content.piece(at, length).await?;
                if piece.len() != length {
                    return Err(self.ended());
                }
                if length as u64 == self.size() {
                    self.check(crc32c::crc32c(&piece))?;
                }
                return Ok(piece);
            }
            Source::Range { file, from, .. } => (file.clone(), from + at),
        };
        let mut piece = vec![0; length];
        let cached = preadv2(&*file, &mut [io::IoSliceMut::new(&mut piece)], from, ReadWriteFlags::NOWAIT);
        if cached != Ok(length) {
            let read = move || file.read_exact_at(&mut piece, from).map(|()| piece);
            piece = tokio::task::spawn_blocking(read).await??;
        }
        if length as u64 == self.size() {
            self.check(crc32c::crc32c(&piece))?;
        }
        Ok(piece.into())
    }

    /// Reads it from its beginning, blocking. The last read fails if the checksum is wrong.
    pub fn reader(&self) -> impl Read + Send + 'static {
        Reader { stored: self.clone(), at: 0, sum: 0 }
    }

    /// Its first `length` bytes, or fewer; all of it is read to check the checksum. Blocks.
    ///
    /// # Errors
    /// Those of [`Self::piece`].
    pub fn begin(&self, length: u64) -> io::Result<Vec<u8>> {
        let mut reader = self.reader();
        let mut bytes = Vec::new();
        reader.by_ref().take(length).read_to_end(&mut bytes)?;
        io::copy(&mut reader, &mut io::sink())?;
        Ok(bytes)
    }

    /// All of it, which must fit into memory. Blocks.
    ///
    /// # Errors
    /// Those of [`Self::piece`].
    pub fn whole(&self) -> io::Result<Vec<u8>> {
        self.begin(u64::MAX)
    }

    /// What there is of it, even if the checksum is wrong. Blocks.
    pub(super) fn as_it_is(&self) -> io::Result<Vec<u8>> {
        let mut content = vec![0; usize::try_from(self.size()).unwrap_or(usize::MAX)];
        match &self.source {
            Source::Memory(bytes) => content.copy_from_slice(bytes),
            Source::Range { file, from, .. } => file.read_exact_at(&mut content, *from)?,
            Source::Elsewhere { content: elsewhere, .. } => {
                return Ok(elsewhere.piece_blocking(0, content.len())?.into());
            }
        }
        Ok(content)
    }

    /// Compares the checksum of what was read.
    fn check(&self, read: u32) -> io::Result<()> {
        match &self.source {
            Source::Range { sum: Some(sum), .. } | Source::Elsewhere { sum, .. } if *sum != read => {
                self.is_damaged.store(true, Ordering::Relaxed);
                Err(io::Error::new(io::ErrorKind::InvalidData, "it is not what was written: check the disk"))
            }
            Source::Range { .. } | Source::Elsewhere { .. } | Source::Memory(_) => Ok(()),
        }
    }

    /// It is shorter than it was. In a database that is damage: a part of it was deleted.
    fn ended(&self) -> io::Error {
        if let Source::Elsewhere { .. } = &self.source {
            self.is_damaged.store(true, Ordering::Relaxed);
        }
        io::Error::new(io::ErrorKind::UnexpectedEof, "it is shorter than it was")
    }
}

#[derive(Debug)]
pub struct Pieces<'a> {
    stored: &'a Stored,
    at: u64,
    length: u64,
    sum: u32,
}

impl Pieces<'_> {
    /// The next piece, of at most `most` bytes; `None`: there is none left.
    ///
    /// # Errors
    /// An error of the disk; a wrong checksum, instead of the last piece.
    pub async fn next(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        let length = usize::try_from(self.length - self.at).unwrap_or(most).min(most);
        if length == 0 {
            return Ok(None);
        }
        let piece = self.stored.piece(self.at, length).await?;
        self.at += length as u64;
        self.sum = crc32c::crc32c_append(self.sum, &piece);
        if self.at == self.length {
            self.stored.check(self.sum)?;
        }
        Ok(Some(piece))
    }
}

struct Reader {
    stored: Stored,
    at: u64,
    sum: u32,
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.stored.size().saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = left.min(to.len());
        if length == 0 {
            return Ok(0);
        }
        let read = match &self.stored.source {
            Source::Memory(content) => {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(content.len());
                to[..length].copy_from_slice(&content[from..from + length]);
                length
            }
            Source::Range { file, from, .. } => file.read_at(&mut to[..length], from + self.at)?,
            Source::Elsewhere { content, .. } => {
                let bytes = content.piece_blocking(self.at, length)?;
                to[..bytes.len()].copy_from_slice(&bytes);
                bytes.len()
            }
        };
        if read == 0 {
            return Err(self.stored.ended());
        }
        self.sum = crc32c::crc32c_append(self.sum, &to[..read]);
        self.at += read as u64;
        if self.at == self.stored.size() {
            self.stored.check(self.sum)?;
        }
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
            ("file", Source::Range { file: file.clone(), from: 6, length: 7, sum: Some(sum) }.into()),
            ("file of an older format", Source::Range { file, from: 6, length: 7, sum: None }.into()),
        ]
    }

    async fn in_pieces(stored: &Stored, most: usize) -> io::Result<Vec<u8>> {
        let mut pieces = stored.in_pieces(stored.size());
        let mut all = Vec::new();
        while let Some(piece) = pieces.next(most).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn content_is_read_by_position_wherever_it_is() {
        for (what, stored) in sources() {
            assert_eq!(stored.size(), 7, "{what}");
            assert_eq!(stored.piece(0, 7).await.unwrap(), "CONTENT", "{what}");
            assert_eq!(stored.piece(3, 2).await.unwrap(), "TE", "{what}");
            assert_eq!(stored.whole().unwrap(), b"CONTENT", "{what}");
            assert_eq!(stored.begin(4).unwrap(), b"CONT", "{what}");
            for most in 1..9 {
                assert_eq!(in_pieces(&stored, most).await.unwrap(), b"CONTENT", "{what} in pieces of {most}");
            }
            stored.verify().await.unwrap();
            assert!(!stored.is_damaged());
        }
        assert!(sources()[0].1.piece(3, 5).await.is_err());
    }

    #[tokio::test]
    async fn content_that_has_changed_on_the_disk_is_not_given_out() {
        for (what, stored) in sources().drain(1..3) {
            let Source::Range { file, .. } = &stored.source else { panic!("a range") };
            file.write_at(b"X", 8).unwrap();
            for most in 1..9 {
                let mut pieces = stored.in_pieces(7);
                let mut given = 0;
                let error = loop {
                    match pieces.next(most).await {
                        Ok(piece) => given += piece.expect("no end without an error").len(),
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                assert!(given < 7, "{what}: the last piece of {most} stays here");
            }
            assert!(stored.is_damaged());
            assert!(stored.piece(0, 7).await.is_err());
            assert!(stored.whole().is_err() && stored.begin(1).is_err() && stored.verify().await.is_err());
            assert_eq!(stored.as_it_is().unwrap(), b"COXTENT");
            file.write_at(b"N", 8).unwrap();
            assert!(stored.clone().is_damaged(), "until somebody has read it");
            stored.verify().await.unwrap();
            assert!(!stored.is_damaged(), "the disk had a bad day");
            file.set_len(9).unwrap();
            assert_eq!(stored.whole().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(stored.piece(0, 7).await.is_err() && !stored.is_damaged());
            file.write_at(b"beforeCONTENTbehind", 0).unwrap();
        }
    }
}
