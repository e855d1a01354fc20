//! A snapshot's file in `state_dir`: what was read as a whole, then what has changed since, so that a restart knows the
//! recipients though the directory is away.
//!
//! A record is its length and its CRC-32C, four octets each in little-endian order, and its content as postcard writes it.
//! The head has the sizes, so that a table is built without room to spare. A torn record at the end is where writing broke
//! off: what stands before it counts. A file that is damaged elsewhere is of no use, and costs a read of the directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::position::Position;
use super::table::{Builder, Sizes, Table, TooLarge};
use super::view::{Change, View};
use crate::directory::known::{Id, Known};
use crate::time::UnixTime;

const MAGIC: &[u8; 8] = b"FPSNAP1\n";
/// Magic, what was read, three sizes, CRC.
const HEAD: usize = 8 + 8 + 3 * 8 + 4;
/// No entry is larger: 5,000 addresses have room.
const LONGEST: usize = 4 << 20;

/// One record.
#[derive(Debug, Serialize, Deserialize)]
enum Record {
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
    /// When that was.
    pub at: UnixTime,
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
    /// It holds too much.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// A file that is being written, beside the one in use.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    of: Id,
    sizes: Sizes,
}

impl Writer {
    /// Begins a new file; the folder is made where it is missing. `of` tells what is read: another one when the
    /// configuration asks for another part of the directory, or reads it by other rules.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path, of: Id) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(beside(path))?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        file.write_all(&[0; HEAD])?;
        Ok(Self { file, path: path.to_owned(), of, sizes: Sizes::default() })
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

    /// Ends the file, and reads it into a table. It is not in use yet: [`Written::install`].
    ///
    /// # Errors
    /// The system's; more than a table holds.
    pub fn finish(mut self, position: Position, at: UnixTime) -> Result<(Written, Arc<Table>), Unreadable> {
        self.file.write_all(&framed(&Record::Until { changes: Vec::new(), position, at })?)?;
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&head(self.of, self.sizes))?;
        file.sync_all()?;
        let written = Written { path: self.path };
        let loaded = load(&beside(&written.path))?.ok_or(Unreadable::Damaged)?;
        Ok((written, Arc::clone(loaded.view.table())))
    }
}

/// A whole file that is not in use yet; it goes when this does.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
}

impl Written {
    /// Puts it in the place of the one in use.
    ///
    /// # Errors
    /// The system's.
    pub fn install(self) -> io::Result<()> {
        fs::rename(beside(&self.path), &self.path)?;
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        // It is gone where it was installed.
        let _ = fs::remove_file(beside(&self.path));
    }
}

/// Adds what has changed to the file in use. It is not synced: what a power cut takes is asked for again.
///
/// # Errors
/// The system's.
pub fn append(path: &Path, changes: Vec<Change>, position: &Position, at: UnixTime) -> io::Result<()> {
    let record = framed(&Record::Until { changes, position: position.clone(), at })?;
    OpenOptions::new().append(true).open(path)?.write_all(&record)
}

/// Reads the file in use; `None`: there is none. What was torn is cut off, so that what is added later can be read.
///
/// # Errors
/// It is of no use.
pub fn open(path: &Path) -> Result<Option<Loaded>, Unreadable> {
    let loaded = load(path)?;
    if let Some(loaded) = &loaded {
        OpenOptions::new().write(true).open(path)?.set_len(loaded.end)?;
    }
    Ok(loaded)
}

fn load(path: &Path) -> Result<Option<Loaded>, Unreadable> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut file = BufReader::with_capacity(1 << 18, file);
    let mut first = [0; HEAD];
    file.read_exact(&mut first)?;
    let (of, sizes) = read_head(&first, file.get_ref().metadata()?.len()).ok_or(Unreadable::Damaged)?;
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
    let mut view = View::new(builder.finish().into());
    while let Ok(Some((Record::Until { changes, position: later, at: then }, length))) = next(&mut file) {
        changes.into_iter().for_each(|change| view.apply(change));
        (position, at) = (later, then);
        end += length;
    }
    Ok(Some(Loaded { view, position, at, of, end }))
}

fn beside(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn framed(record: &Record) -> io::Result<Vec<u8>> {
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
fn next(file: &mut impl io::Read) -> Result<Option<(Record, u64)>, Unreadable> {
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
    let record = postcard::from_bytes(&content).map_err(|_| Unreadable::Damaged)?;
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
fn read_head(head: &[u8; HEAD], length: u64) -> Option<(Id, Sizes)> {
    let (said, sum) = head.split_at(HEAD - 4);
    if !said.starts_with(MAGIC) || sum != crc32c::crc32c(said).to_le_bytes() {
        return None;
    }
    let number = |at: usize| Some(u64::from_le_bytes(said.get(8 + at * 8..16 + at * 8)?.try_into().ok()?));
    let size = |at: usize| usize::try_from(number(at)?).ok().filter(|size| *size as u64 <= length.saturating_mul(2));
    Some((Id(number(0)?), Sizes { entries: size(1)?, addresses: size(2)?, records: size(3)? }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::known::{Claim, Meaning, Strength};
    use crate::recipient::{Kind, Lookup};

    fn known(name: &str) -> Known {
        let claims = vec![Claim { key: format!("{name}@contoso.com"), strength: Strength::Certain }];
        let rule = "test".to_owned();
        let meaning = Meaning { kind: Kind::Mailbox, target: None, mail_server: None, rule, at_odds: None };
        Known { id: Id::of(name.as_bytes()), dn: format!("CN={name},DC=contoso"), claims, meaning: Ok(meaning) }
    }

    fn has(loaded: &Loaded, name: &str) -> bool {
        matches!(loaded.view.lookup(&format!("{name}@contoso.com")), Lookup::Found(_))
    }

    /// A file with ann and bob, to which carl came while ann went.
    fn written(folder: &Path) -> PathBuf {
        let path = folder.join("state/ad.snapshot");
        let mut writer = Writer::create(&path, Id(5)).unwrap();
        writer.put(vec![known("ann"), known("bob")]).unwrap();
        let (written, table) = writer.finish(Position::Unknown, UnixTime(7)).unwrap();
        assert_eq!(table.len(), 2);
        written.install().unwrap();
        let position = Position::Usn { invocation: b"dc1".to_vec(), usn: 9 };
        append(&path, vec![Change::Put(known("carl")), Change::Gone(Id::of(b"ann"))], &position, UnixTime(8)).unwrap();
        path
    }

    #[test]
    fn what_was_written_comes_back_with_what_changed_since() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(&folder.path().join("none")).unwrap().is_none());
        let loaded = load(&written(folder.path())).unwrap().unwrap();
        assert_eq!(["ann", "bob", "carl"].map(|name| has(&loaded, name)), [false, true, true]);
        assert_eq!(loaded.position, Position::Usn { invocation: b"dc1".to_vec(), usn: 9 });
        assert_eq!((loaded.at, loaded.of, loaded.view.count_entries()), (UnixTime(8), Id(5), 2));
    }

    #[test]
    fn a_file_cut_off_anywhere_is_read_to_its_last_whole_record_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = fs::read(&path).unwrap();
        let mut states = Vec::new();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            states.push(load(&path).ok().flatten().map(|loaded| has(&loaded, "carl")));
        }
        states.dedup();
        assert_eq!(states, [None, Some(false), Some(true)]);
    }

    #[test]
    fn what_is_added_behind_a_torn_record_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
        assert!(!has(&open(&path).unwrap().unwrap(), "carl"));
        append(&path, vec![Change::Put(known("dora"))], &Position::Unknown, UnixTime(9)).unwrap();
        let loaded = open(&path).unwrap().unwrap();
        assert_eq!(["ann", "carl", "dora"].map(|name| has(&loaded, name)), [true, false, true]);
    }

    #[test]
    fn a_damaged_octet_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            fs::write(&path, damaged).unwrap();
            // What stands behind the damage is not believed; what stands before it was right.
            if let Ok(Some(loaded)) = load(&path) {
                assert!(has(&loaded, "ann") && has(&loaded, "bob") && !has(&loaded, "carl"), "octet {at}");
            }
        }
    }

    #[test]
    fn a_file_that_is_not_installed_leaves_the_other_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let mut writer = Writer::create(&path, Id(5)).unwrap();
        writer.put(vec![known("eve")]).unwrap();
        drop(writer.finish(Position::Unknown, UnixTime(9)).unwrap());
        assert!(has(&load(&path).unwrap().unwrap(), "bob"));
        assert!(!beside(&path).exists());
    }
}
