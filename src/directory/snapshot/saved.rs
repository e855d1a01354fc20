//! A snapshot's file in `state_dir`: what was read as a whole, then what has changed since, so that a restart knows the
//! recipients though the directory is away.
//!
//! A record is its length and its CRC-32C, four octets each in little-endian order, and its content as postcard writes it.
//! The head has the sizes, so that a table is built without room to spare. A torn record at the end is where writing broke
//! off: what stands before it counts. A file that is damaged elsewhere is of no use, and costs a read of the directory.

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

/// Another one whenever [`Record`], or anything in it, changes.
const MAGIC: &[u8; 8] = b"FPSNAP1\n";
/// Magic, what was read, three sizes, CRC.
const HEAD: usize = 8 + 8 + 3 * 8 + 4;
/// No entry is larger: 5,000 addresses have room.
pub(super) const LONGEST: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// An entry as it was read.
    Entry(Known),
    /// All entries stand before this; later again: what has changed, and how far the directory has been followed.
    Until { changes: Vec<Change>, position: Position, at: UnixTime },
}

/// What a file has.
#[derive(Debug)]
pub struct Loaded {
    /// The recipients.
    pub view: View,
    /// How far the directory has been followed.
    pub position: Position,
    pub at: UnixTime,
    /// When the last whole read began.
    pub whole: UnixTime,
    /// Which part of the directory, and by which rules: [`Writer::create`].
    pub of: Id,
    /// Where the last whole record ends.
    end: u64,
}

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
    /// It begins otherwise.
    #[error("another version of the program wrote it")]
    Foreign,
    /// It holds too much.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// A file that is being written, beside the one in use.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    beside: Beside,
    of: Id,
    sizes: Sizes,
    begun: UnixTime,
}

impl Writer {
    /// Begins a new file; the folder is made where it is missing. `of` tells what is read: another one when the
    /// configuration asks for another part of the directory, or reads it by other rules.
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

    /// How many entries it has so far.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.sizes.entries
    }

    /// Octets that its table will take.
    #[must_use]
    pub fn octets(&self) -> usize {
        self.sizes.octets()
    }

    /// When it was begun.
    #[must_use]
    pub fn begun(&self) -> UnixTime {
        self.begun
    }

    /// Ends the file, and reads it into a table. It is not in use yet: [`PendingFile::install`].
    ///
    /// # Errors
    /// The system's; more than a table holds.
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

/// A whole file that is not in use yet; it goes when this does.
#[derive(Debug)]
pub struct PendingFile {
    beside: Beside,
    journal: Journal,
}

impl PendingFile {
    /// Puts it in the place of the one in use.
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

/// Reads the file in use; `None`: there is none. What was torn is cut off, so that what is added later can be read.
///
/// # Errors
/// It is of no use.
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

/// The next record and its length; `None`: the file ends here.
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
    // It is what was written: if it is no record, another version wrote it.
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

/// What a head says, if it is one. Nothing in a file can be larger than the file.
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
