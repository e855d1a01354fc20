//! A snapshot's file in `state_dir`: the result of a full read, then later changes. With it a restart knows the
//! recipients even if the directory is unavailable.
//!
//! A record is its length and its CRC-32C, four octets each in little-endian order, and its content as postcard writes
//! it. The head has the sizes, so that a table is built without room to spare. An incomplete record at the end is an
//! interrupted write: the records before it are used. A file that is damaged elsewhere is not used, and the directory
//! is read again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use self::beside::Beside;
use super::journal::Journal;
use super::position::Position;
use super::table::{Builder, Sizes, Table, TooLarge};
use super::view::{Change, View};
use crate::directory::known::{Id, Known};
use crate::time::UnixTime;

mod beside;

/// Changes whenever [`Record`] does, or any type in it.
const MAGIC: &[u8; 8] = b"FPSNAP1\n";
/// Magic, identification, three sizes, CRC.
const HEAD: usize = 8 + 8 + 3 * 8 + 4;
/// The largest record: it has space for an entry with 5,000 addresses.
pub(super) const LONGEST: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// An entry as it was read.
    Entry(Known),
    /// Follows all entries; later ones have changes, and how far the directory has been followed.
    Until { changes: Vec<Change>, position: Position, at: UnixTime },
}

#[derive(Debug)]
pub struct Loaded {
    pub view: View,
    /// How far the directory has been followed.
    pub position: Position,
    pub at: UnixTime,
    /// When the last full read began.
    pub whole: UnixTime,
    /// What was read, and by which rules: see [`Writer::create`].
    pub of: Id,
    /// The end of the last complete record.
    end: u64,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    /// It has another magic.
    #[error("another version of the program wrote it")]
    Foreign,
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// A file that is being written beside the current one.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    beside: Beside,
    of: Id,
    sizes: Sizes,
    begun: UnixTime,
}

impl Writer {
    /// Begins a new file, and creates the folder if it is missing. `of` identifies what is read: it differs if the
    /// configuration reads another part of the directory, or by other rules.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path, of: Id) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            crate::private::folder(folder)?;
        }
        let beside = Beside::of(path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&beside.new)?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        file.write_all(&[0; HEAD])?;
        Ok(Self { file, beside, of, sizes: Sizes::default(), begun: UnixTime::now() })
    }

    /// Adds entries.
    ///
    /// # Errors
    /// The system's.
    pub fn put(&mut self, entries: Vec<Known>) -> io::Result<()> {
        for known in entries {
            self.sizes.add(&known);
            self.file.write_all(&framed(&Record::Entry(known))?)?;
        }
        Ok(())
    }

    /// The number of entries so far.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.sizes.entries
    }

    /// The size of its table in octets.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.sizes.octets()
    }

    #[must_use]
    pub fn begun(&self) -> UnixTime {
        self.begun
    }

    /// Completes the file, and builds a table from it. [`PendingFile::install`] puts it in use.
    ///
    /// # Errors
    /// An error of the system, or the table would be too large.
    pub fn finish(mut self, position: Position) -> Result<(PendingFile, Arc<Table>), Unreadable> {
        let until = Record::Until { changes: Vec::new(), position: position.clone(), at: self.begun };
        self.file.write_all(&framed(&until)?)?;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&head(self.of, self.sizes))?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
        let loaded = load(&file)?;
        let journal = Journal::new(file, loaded.end, position, self.begun);
        Ok((PendingFile { beside: self.beside, journal }, Arc::clone(loaded.view.table())))
    }
}

/// A complete file that is not in use yet; dropping it deletes it.
#[derive(Debug)]
pub struct PendingFile {
    beside: Beside,
    journal: Journal,
}

impl PendingFile {
    /// Replaces the current file.
    ///
    /// # Errors
    /// The system's.
    pub fn install(self) -> io::Result<Journal> {
        let Beside { new, path } = &self.beside;
        fs::rename(new, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(self.journal)
    }
}

/// Reads the current file; `None`: there is none. An incomplete record at the end is cut off, so that appended records
/// can be read.
///
/// # Errors
/// It cannot be used.
pub fn open(path: &Path) -> Result<Option<(Loaded, Journal)>, Unreadable> {
    Beside::clear(path);
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let loaded = load(&file)?;
    file.set_len(loaded.end)?;
    let journal = Journal::new(file, loaded.end, loaded.position.clone(), loaded.at);
    Ok(Some((loaded, journal)))
}

fn load(file: &File) -> Result<Loaded, Unreadable> {
    let length = file.metadata()?.len();
    let mut file = BufReader::with_capacity(1 << 18, file);
    let mut first = [0; HEAD];
    file.read_exact(&mut first)?;
    let (of, sizes) = read_head(&first, length)?;
    let mut builder = Builder::new(sizes);
    let mut end = HEAD as u64;
    let (mut position, mut at) = loop {
        let (record, length) = next(&mut file)?.ok_or(Unreadable::Damaged)?;
        end += length;
        match record {
            Record::Entry(known) => builder.add(&known)?,
            Record::Until { position, at, .. } => break (position, at),
        }
    };
    let whole = at;
    let mut view = View::new(builder.finish().into());
    loop {
        match next(&mut file) {
            Ok(Some((Record::Until { changes, position: later, at: then }, length))) => {
                changes.into_iter().for_each(|change| view.apply(change));
                (position, at) = (later, then);
                end += length;
            }
            Err(Unreadable::Foreign) => return Err(Unreadable::Foreign),
            Ok(_) | Err(_) => break,
        }
    }
    Ok(Loaded { view, position, at, whole, of, end })
}

pub(super) fn framed<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    let content = postcard::to_allocvec(record).map_err(io::Error::other)?;
    let length = u32::try_from(content.len()).ok().filter(|length| *length as usize <= LONGEST);
    let length = length.ok_or_else(|| io::Error::other("an entry of more than 4 MiB"))?;
    let mut framed = Vec::with_capacity(content.len() + 8);
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
    framed.extend_from_slice(&content);
    Ok(framed)
}

/// The next record and its length; `None`: the end of the file.
pub(super) fn next<T: DeserializeOwned>(file: &mut impl io::Read) -> Result<Option<(T, u64)>, Unreadable> {
    let mut frame = [0; 8];
    match file.read_exact(&mut frame) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let [a, b, c, d, e, f, g, h] = frame;
    let (length, sum) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]));
    if length > LONGEST {
        return Err(Unreadable::Damaged);
    }
    let mut content = vec![0; length];
    file.read_exact(&mut content)?;
    if crc32c::crc32c(&content) != sum {
        return Err(Unreadable::Damaged);
    }
    // The checksum is right: if it cannot be decoded, another version wrote it.
    let (record, rest) = postcard::take_from_bytes(&content).map_err(|_| Unreadable::Foreign)?;
    if !rest.is_empty() {
        return Err(Unreadable::Foreign);
    }
    Ok(Some((record, frame.len() as u64 + length as u64)))
}

fn head(of: Id, sizes: Sizes) -> Vec<u8> {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&of.0.to_le_bytes());
    for size in [sizes.entries, sizes.addresses, sizes.records] {
        head.extend_from_slice(&(size as u64).to_le_bytes());
    }
    let sum = crc32c::crc32c(&head);
    head.extend_from_slice(&sum.to_le_bytes());
    head
}

/// Parses a head. No size may be larger than the file.
fn read_head(head: &[u8; HEAD], length: u64) -> Result<(Id, Sizes), Unreadable> {
    let (said, sum) = head.split_at(HEAD - 4);
    if !said.starts_with(MAGIC) {
        return Err(Unreadable::Foreign);
    }
    if sum != crc32c::crc32c(said).to_le_bytes() {
        return Err(Unreadable::Damaged);
    }
    sizes(said, length).ok_or(Unreadable::Damaged)
}

fn sizes(said: &[u8], length: u64) -> Option<(Id, Sizes)> {
    let number = |at: usize| Some(u64::from_le_bytes(said.get(8 + at * 8..16 + at * 8)?.try_into().ok()?));
    let size = |at: usize| usize::try_from(number(at)?).ok().filter(|size| *size as u64 <= length.saturating_mul(2));
    Some((Id(number(0)?), Sizes { entries: size(1)?, addresses: size(2)?, records: size(3)? }))
}

#[cfg(test)]
mod tests;
