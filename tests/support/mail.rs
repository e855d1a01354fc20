//! Delivered mail as the tests look at it.

use std::path::{Path, PathBuf};

/// One delivered message.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Whose mailbox it lies in: the address in lower case.
    pub mailbox: String,
    /// Its bytes with CRLF line ends, whatever the store uses.
    pub bytes: Vec<u8>,
}

impl Mail {
    /// Reads a message from a file whose line ends are LF or CRLF.
    pub fn read(mailbox: &str, path: &Path) -> Self {
        let stored = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { mailbox: mailbox.to_owned(), bytes: with_crlf(&stored) }
    }

    /// What stands behind the first empty line.
    pub fn body(&self) -> &[u8] {
        let end = find(&self.bytes, b"\r\n\r\n").map_or(self.bytes.len(), |at| at + 4);
        &self.bytes[end..]
    }

    /// The header section, lossily.
    pub fn header(&self) -> String {
        let end = find(&self.bytes, b"\r\n\r\n").unwrap_or(self.bytes.len());
        String::from_utf8_lossy(&self.bytes[..end]).into_owned()
    }

    /// The unfolded value of the first field of that name.
    pub fn field(&self, name: &str) -> Option<String> {
        let unfolded = self.header().replace("\r\n ", " ").replace("\r\n\t", " ");
        let value = |line: &str| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        unfolded.split("\r\n").find_map(value)
    }

    /// How many fields of that name there are.
    pub fn fields(&self, name: &str) -> usize {
        let header = self.header();
        let named = |line: &&str| line.split_once(':').is_some_and(|(field, _)| field.eq_ignore_ascii_case(name));
        header.split("\r\n").filter(named).count()
    }
}

/// The bytes with every line end as CRLF.
pub fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 40);
    let mut last = 0;
    for &byte in bytes {
        if byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        out.push(byte);
        last = byte;
    }
    out
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// All files in a Maildir's `new`, oldest first.
pub fn maildir_files(maildir: &Path) -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(maildir.join("new")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = folder.filter_map(|file| Some(file.ok()?.path())).collect();
    files.sort();
    files
}
