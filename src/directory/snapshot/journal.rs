//! Appends changes to a snapshot's file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::position::Position;
use super::saved::{Record, framed};
use super::view::Change;
use crate::time::UnixTime;

/// The most changes in one record, whose size is limited.
const MOST: usize = 1_000;

/// A file that is open for appending. If it has been replaced, what is appended is lost with it.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// The end of the last complete record.
    end: u64,
    /// The position of the last change.
    position: Position,
    noted: UnixTime,
}

impl Journal {
    pub(super) fn new(file: File, end: u64, position: Position, noted: UnixTime) -> Self {
        Self { file, end, position, noted }
    }

    /// Appends changes and the new position; `None`: the position is unchanged. Not synced: what a power cut removes is
    /// read from the directory again.
    ///
    /// # Errors
    /// An error of the system. The file is unchanged, or ends with an incomplete record.
    pub fn append(&mut self, mut changes: Vec<Change>, position: Option<&Position>, at: UnixTime) -> io::Result<()> {
        while changes.len() > MOST {
            let rest = changes.split_off(MOST);
            self.add(changes, self.position.clone(), at)?;
            changes = rest;
        }
        self.add(changes, position.unwrap_or(&self.position).clone(), at)
    }

    fn add(&mut self, changes: Vec<Change>, position: Position, at: UnixTime) -> io::Result<()> {
        let record = framed(&Record::Until { changes, position: position.clone(), at })?;
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            // If that fails too, the next record overwrites it.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.end += record.len() as u64;
        (self.position, self.noted) = (position, at);
        Ok(())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// When the file last recorded that it is equal to the directory.
    #[must_use]
    pub fn noted(&self) -> UnixTime {
        self.noted
    }
}
