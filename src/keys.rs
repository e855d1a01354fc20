//! Loop keys: created at the first start, read from files, used to sign and verify stamps (DESIGN section 6, rule 3).
//!
//! Start and reload [`load`] them; delivery signs with the first, `routing::loops` verifies with all.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::message::stamp::Key;

/// The keys of one installation: the first signs, all verify.
#[derive(Clone)]
pub struct LoopKeys {
    /// 32 bytes each; at least one.
    keys: Vec<Key>,
    /// So many of them, the first, are from no file.
    elsewhere: usize,
}

impl LoopKeys {
    /// `first` signs.
    #[must_use]
    pub fn new(first: [u8; 32], others: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { keys: std::iter::once(first).chain(others).map(Key::new).collect(), elsewhere: 0 }
    }

    /// The same, and this one signs, which is all nodes' of a cluster.
    #[must_use]
    pub fn signing_with(mut self, first: [u8; 32]) -> Self {
        if *self.signing().octets() != first {
            self.keys.insert(0, Key::new(first));
            self.elsewhere += 1;
        }
        self
    }

    fn of_files(&self) -> &[Key] {
        self.keys.get(self.elsewhere..).unwrap_or_default()
    }

    #[must_use]
    pub fn signing(&self) -> &Key {
        &self.keys[0] // `new` puts one in
    }

    /// The signing one first.
    #[must_use]
    pub fn all(&self) -> &[Key] {
        &self.keys
    }
}

impl std::fmt::Debug for LoopKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoopKeys({} keys)", self.keys.len())
    }
}

/// Reads the key files, which have 64 hex digits each. A missing file whose key is `in_use` is written again, because
/// stamps on mail in transit need it. Otherwise a missing first file is created (mode 0600, random, durable).
///
/// # Errors
/// Which file, what is wrong with it and what to do.
pub fn load(files: &[PathBuf], in_use: Option<InUse<'_>>) -> Result<LoopKeys, String> {
    let Some((first, others)) = files.split_first() else {
        return Err("[loop_detection] key_files is empty: name at least one file".to_owned());
    };
    let first = match read_or_restore(first, in_use) {
        Err(Failure::Missing) => make(first).map_err(|failure| failure.told(first))?,
        read => read.map_err(|failure| failure.told(first))?,
    };
    let others = others.iter().map(|file| read_or_restore(file, in_use).map_err(|failure| failure.told(file)));
    Ok(LoopKeys::new(first, others.collect::<Result<Vec<_>, _>>()?))
}

/// Writes a key that comes from elsewhere to its file, if there is none.
///
/// # Errors
/// As [`load`].
pub fn keep(file: &Path, key: &[u8; 32]) -> Result<(), String> {
    match read(file) {
        Err(Failure::Missing) => write(file, key).map_err(|error| Failure::Write(error).told(file)),
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.told(file)),
    }
}

/// The keys in use, and their files in the same order.
#[derive(Debug, Clone, Copy)]
pub struct InUse<'a> {
    pub files: &'a [PathBuf],
    pub keys: &'a LoopKeys,
}

fn read_or_restore(file: &Path, in_use: Option<InUse<'_>>) -> Result<[u8; 32], Failure> {
    let known = in_use.and_then(|used| used.files.iter().zip(used.keys.of_files()).find(|(known, _)| *known == file));
    match (read(file), known) {
        (Err(Failure::Missing), Some((_, key))) => {
            write(file, key.octets()).map_err(Failure::Write)?;
            let file = file.display();
            tracing::error!(%file, "the loop key was gone and is written again from memory; find out who removed it");
            Ok(*key.octets())
        }
        (read, _) => read,
    }
}

/// Why a key file cannot be used.
enum Failure {
    Missing,
    Open(u32),
    Form,
    Io(io::Error),
    Write(io::Error),
}

impl Failure {
    fn told(self, file: &Path) -> String {
        let file = file.display();
        match self {
            Self::Missing => {
                format!("{file}: there is no such loop key: only the first of key_files is made by itself")
            }
            Self::Open(mode) => {
                format!("{file}: mode {mode:04o} lets others read or change the loop key: chmod 600 {file}")
            }
            Self::Form => {
                format!(
                    "{file}: not a loop key, which is 64 hex digits: restore it; or remove it: a reload then writes the \
                     key in use again, a start makes a new one"
                )
            }
            Self::Io(error) => format!("{file}: the loop key cannot be read: {error}"),
            Self::Write(error) => {
                format!("{file}: the loop key is missing and cannot be made: {error}; make its folder writable")
            }
        }
    }
}

fn read(file: &Path) -> Result<[u8; 32], Failure> {
    let mode = match fs::metadata(file) {
        Ok(metadata) => metadata.permissions().mode() & 0o7777,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Failure::Missing),
        Err(error) => return Err(Failure::Io(error)),
    };
    if mode & 0o077 != 0 {
        return Err(Failure::Open(mode));
    }
    let text = fs::read(file).map_err(Failure::Io)?;
    from_hex(text.trim_ascii()).ok_or(Failure::Form)
}

fn from_hex(digits: &[u8]) -> Option<[u8; 32]> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
        _ => None,
    });
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

fn to_hex(key: &[u8; 32]) -> String {
    let mut digits = String::with_capacity(65);
    for byte in key {
        let _ = write!(digits, "{byte:02x}"); // writing to a String cannot fail
    }
    digits.push('\n');
    digits
}

/// Creates a key and its file.
fn make(file: &Path) -> Result<[u8; 32], Failure> {
    let mut key = [0; 32];
    let filled = aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("the system has no randomness"));
    filled.and_then(|()| write(file, &key)).map_err(Failure::Write)?;
    Ok(key)
}

/// Writes a key durably, and creates its folder. The file is created atomically, and never replaces another one.
fn write(file: &Path, key: &[u8; 32]) -> io::Result<()> {
    let digits = to_hex(key);
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut draft = file.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft); // what a crash left behind; if it stays, the next line says so
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    written.write_all(digits.as_bytes())?;
    written.sync_all()?;
    fs::hard_link(&draft, file)?;
    fs::remove_file(&draft)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_format() {
        let format = crate::formats::Format { name: "loop-key", extension: "txt", oldest: 1, current: 1 };
        format.check(to_hex(&[0x0f; 32]).as_bytes(), |_, bytes| {
            assert_eq!(from_hex(bytes.trim_ascii()), Some([0x0f; 32]));
        });
    }

    fn octets(keys: &LoopKeys) -> Vec<[u8; 32]> {
        keys.all().iter().map(|key| *key.octets()).collect()
    }

    fn file(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_file_is_made_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/loop.key");
        let made = load(std::slice::from_ref(&file), None).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&file).unwrap().trim().len(), 64);
        assert_eq!(octets(&load(&[file], None).unwrap()), octets(&made));
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
        let other = load(&[folder.path().join("other.key")], None).unwrap();
        assert_ne!(other.signing().octets(), made.signing().octets());
    }

    #[test]
    fn the_first_signs_and_all_verify() {
        let folder = tempfile::tempdir().unwrap();
        let new = file(folder.path(), "new", &"0A".repeat(32), 0o600);
        let old = file(folder.path(), "old", &format!("{}\r\n", "ff".repeat(32)), 0o400);
        let keys = load(&[new, old], None).unwrap();
        assert_eq!((keys.signing().octets(), octets(&keys)), (&[10; 32], vec![[10; 32], [255; 32]]));
        assert_eq!(format!("{keys:?}"), "LoopKeys(2 keys)");
    }

    #[test]
    fn a_key_of_all_nodes_signs_and_is_not_taken_for_that_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = [file(folder.path(), "own", &"0a".repeat(32), 0o600)];
        let keys = load(&files, None).unwrap();
        assert_eq!(octets(&keys.clone().signing_with([10; 32])), [[10; 32]]);
        let keys = keys.signing_with([7; 32]);
        assert_eq!(octets(&keys), [[7; 32], [10; 32]]);
        fs::remove_file(&files[0]).unwrap();
        let restored = load(&files, Some(InUse { files: &files, keys: &keys })).unwrap();
        assert_eq!(octets(&restored), [[10; 32]]);
        fs::remove_file(&files[0]).unwrap();
        keep(&files[0], &[7; 32]).unwrap();
        keep(&files[0], &[8; 32]).unwrap();
        assert_eq!(octets(&load(&files, None).unwrap()), [[7; 32]]);
    }

    #[test]
    fn a_key_in_use_is_written_again_and_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let first = folder.path().join("state/loop.key");
        let old = file(folder.path(), "old", &"ff".repeat(32), 0o600);
        let files = [first.clone(), old.clone()];
        let keys = load(&files, None).unwrap();
        let in_use = Some(InUse { files: &files, keys: &keys });
        fs::remove_dir_all(folder.path().join("state")).unwrap();
        fs::remove_file(&old).unwrap();
        assert_eq!(octets(&load(&files, in_use).unwrap()), octets(&keys));
        assert_eq!(octets(&load(&files, None).unwrap()), octets(&keys), "the files are back");
        // Rotation: a new file is created, and the key of the removed one still verifies.
        fs::remove_file(&first).unwrap();
        let rotated = load(&[folder.path().join("new.key"), first.clone()], in_use).unwrap();
        assert_eq!(octets(&rotated)[1], octets(&keys)[0]);
        // If the folder cannot be created, the reload is refused with the reason.
        fs::remove_dir_all(folder.path().join("state")).unwrap();
        fs::write(folder.path().join("state"), "").unwrap();
        let error = load(&files, in_use).unwrap_err();
        assert!(error.contains("loop.key"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        let good = file(folder.path(), "good", &"00".repeat(32), 0o600);
        let missing = folder.path().join("missing");
        let below_a_file = good.join("loop.key");
        for (files, wanted) in [
            (vec![], "name at least one file"),
            (vec![good.clone(), missing], "only the first"),
            (vec![file(folder.path(), "open", &"00".repeat(32), 0o640)], "chmod 600"),
            (vec![file(folder.path(), "short", &"00".repeat(31), 0o600)], "64 hex digits"),
            (vec![file(folder.path(), "odd", &"0".repeat(63), 0o600)], "64 hex digits"),
            (vec![file(folder.path(), "words", "no key", 0o600)], "64 hex digits"),
            (vec![file(folder.path(), "empty", "", 0o600)], "64 hex digits"),
            (vec![good, folder.path().to_owned()], "loop key"),
            (vec![below_a_file], "cannot be"),
        ] {
            let error = load(&files, None).unwrap_err();
            assert!(error.contains(wanted), "{files:?}: {error}");
        }
    }
}
