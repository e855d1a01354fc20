//! The end of a snapshot's file in use: what has changed since the whole was read is added there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::position::Position;
use super::saved::{Record, framed};
use super::view::Change;
use crate::time::UnixTime;

/// Changes in one record: it has a largest size.
const MOST: usize = 1_000;

/// A file, open to be added to. One that another file has taken the place of takes what is added with it.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Where the last whole record ends.
    end: u64,
    /// How far what it holds goes.
    position: Position,
    noted: UnixTime,
}

impl Journal {
    pub(super) fn new(file: File, end: u64, position: Position, noted: UnixTime) -> Self {
        Self { file, end, position, noted }
    }

    /// Adds what has changed up to that position; `None`: it holds what it held. It is not synced: what a power cut takes
    /// is asked for again.
    ///
    /// # Errors
    /// The system's. The file is as it was, or ends in what is no record.
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
            // Where even that fails the next record is written over it.
            let _ = self.file.set_len(self.end);
            return Err(error);
        }
        self.end += record.len() as u64;
        (self.position, self.noted) = (position, at);
        Ok(())
    }

    /// Makes what was added last over a power cut.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// When it was last told that it is what the directory has.
    #[must_use]
    pub fn noted(&self) -> UnixTime {
        self.noted
    }
}
