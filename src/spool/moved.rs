//! The mark of a spool whose mail is being moved, or was moved, to the database of a cluster: no server uses it any more.
//! `fingerpost cluster import` writes it, a start reads it.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::SpoolError;
use super::layout::{failed, sync_folder};
use crate::private;

const FILE: &str = "moved";
/// What the file begins with; the number is its format.
const MAGIC: &str = "fingerpost moved 1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The move's number: its messages have it in the database until all are there.
    pub number: u64,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Some messages may be in the database.
    Begun,
    /// All are.
    Done,
}

impl Moved {
    /// Reads the mark of a spool, if it has one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(spool: &Path) -> Result<Option<Self>, SpoolError> {
        let path = spool.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("cannot read", &path, &error)),
        };
        let unknown = || SpoolError::Io(format!("{}: another version of Fingerpost wrote it", path.display()));
        parse(&text).ok_or_else(unknown).map(Some)
    }

    /// Marks a spool durably.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub fn write(self, spool: &Path) -> Result<(), SpoolError> {
        let (path, new) = (spool.join(FILE), spool.join("moved.new"));
        let written = private::create(&new).and_then(|mut file| {
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        });
        written.map_err(|error| failed("cannot write", &path, &error))?;
        sync_folder(spool)
    }

    fn text(self) -> String {
        let state = match self.state {
            State::Begun => "begun",
            State::Done => "done",
        };
        format!("{MAGIC}\n{:016x}\n{state}\n", self.number)
    }
}

fn parse(text: &str) -> Option<Moved> {
    let mut lines = text.lines();
    if lines.next()? != MAGIC {
        return None;
    }
    let number = u64::from_str_radix(lines.next()?, 16).ok()?;
    let state = match lines.next()? {
        "begun" => State::Begun,
        "done" => State::Done,
        _ => return None,
    };
    Some(Moved { number, state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;

    #[test]
    fn it_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Moved::read(folder.path()).unwrap(), None);
        for state in [State::Begun, State::Done] {
            let moved = Moved { number: 0x0123_4567_89ab_cdef, state };
            moved.write(folder.path()).unwrap();
            assert_eq!(Moved::read(folder.path()).unwrap(), Some(moved));
        }
        fs::write(folder.path().join(FILE), "fingerpost moved 2\n").unwrap();
        Moved::read(folder.path()).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn its_format() {
        let moved = Moved { number: 7, state: State::Begun };
        let format = Format { name: "spool-moved", extension: "txt", oldest: 1, current: 1 };
        format.check(moved.text().as_bytes(), |_, bytes| {
            assert_eq!(parse(std::str::from_utf8(bytes).unwrap()), Some(moved));
        });
    }
}
