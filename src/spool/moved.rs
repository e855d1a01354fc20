//! The mark of a spool whose mail is, or was, moved to the database of a cluster or from there: no server uses it
//! meanwhile. `fingerpost cluster import` and `export` write it, a start reads it. Docs: `cluster::import`,
//! `cluster::export`.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::SpoolError;
use super::layout::{failed, sync_folder};
use crate::private;

const FILE: &str = "moved";
/// What the file begins with; the number is its format. Format 1 had imports only, and no node.
const MAGIC: &str = "fingerpost moved 2";
const MAGIC_1: &str = "fingerpost moved 1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// The move's number: its messages have it in the database.
    pub number: u64,
    pub state: State,
    /// To the database: the number of the node that stands in the ids there, if it is known.
    pub node: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// To the database: some messages may be there.
    Importing,
    /// To the database: all are there.
    Imported,
    /// From the database: nothing is here yet, and what was imported before is being dropped.
    Emptying,
    /// From the database: some messages may be here.
    Exporting,
}

const STATES: [(State, &str); 4] = [
    (State::Importing, "importing"),
    (State::Imported, "imported"),
    (State::Emptying, "emptying"),
    (State::Exporting, "exporting"),
];
const STATES_1: [(State, &str); 2] = [(State::Importing, "begun"), (State::Imported, "done")];

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

    /// Makes a spool an ordinary one, durably.
    ///
    /// # Errors
    /// The mark cannot be removed.
    pub fn remove(spool: &Path) -> Result<(), SpoolError> {
        let path = spool.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("cannot remove", &path, &error)),
            _ => {}
        }
        sync_folder(spool)
    }

    fn text(self) -> String {
        let name = STATES.iter().find(|(state, _)| *state == self.state).map_or("", |(_, name)| name);
        let node = self.node.map(|node| format!("{node}\n")).unwrap_or_default();
        format!("{MAGIC}\n{:016x}\n{name}\n{node}", self.number)
    }
}

fn parse(text: &str) -> Option<Moved> {
    let mut lines = text.lines();
    let states: &[(State, &str)] = match lines.next()? {
        MAGIC => &STATES,
        MAGIC_1 => &STATES_1,
        _ => return None,
    };
    let number = u64::from_str_radix(lines.next()?, 16).ok()?;
    let said = lines.next()?;
    let (state, _) = states.iter().find(|(_, name)| *name == said)?;
    let node = lines.next().map(str::parse).transpose().ok()?;
    Some(Moved { number, state: *state, node })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;

    #[test]
    fn it_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Moved::read(folder.path()).unwrap(), None);
        for (state, _) in STATES {
            for node in [None, Some(1023)] {
                let moved = Moved { number: 0x0123_4567_89ab_cdef, state, node };
                moved.write(folder.path()).unwrap();
                assert_eq!(Moved::read(folder.path()).unwrap(), Some(moved));
            }
        }
        for text in ["fingerpost moved 3\n", "fingerpost moved 1\n07\nexporting\n", "fingerpost moved 2\n07\ndone\n"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            Moved::read(folder.path()).unwrap_err();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        for _ in 0..2 {
            Moved::remove(folder.path()).unwrap();
            assert_eq!(Moved::read(folder.path()).unwrap(), None);
        }
    }

    #[test]
    fn its_format() {
        let moved = Moved { number: 7, state: State::Importing, node: Some(3) };
        let format = Format { name: "spool-moved", extension: "txt", oldest: 1, current: 2 };
        format.check(moved.text().as_bytes(), |number, bytes| {
            let node = moved.node.filter(|_| number > 1); // format 1 did not have it
            assert_eq!(parse(std::str::from_utf8(bytes).unwrap()), Some(Moved { node, ..moved }));
        });
    }
}
