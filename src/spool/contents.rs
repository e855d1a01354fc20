//! Where the content of messages lies: numbered folders of some thousand files. The committer keeps one.
//!
//! A folder is only ever synced until a sync of it fails; from then on new messages go to another one.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::layout::{alert, discard, failed, make_folder, sync_folder};
use super::spares::Spares;
use super::{Draft, SpoolError};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// Files in one folder: more are slow on some file systems.
const FOLDER: usize = 10_000;

/// The folders and how many files are in each.
pub(super) struct Contents {
    root: PathBuf,
    files: HashMap<u32, usize>,
    current: Option<Current>,
    next: u32,
    /// The sync of `root` failed: no new folder can be made durable until the next start.
    stopped: Option<SpoolError>,
    metrics: Metrics,
    spares: Arc<Spares>,
}

/// What [`Contents`] begins with.
pub(super) struct Start<'a> {
    /// Where the folders are.
    pub root: PathBuf,
    /// Which message's content recovery found in which folder.
    pub places: &'a HashMap<QueueId, u32>,
    /// The number of the next folder.
    pub next: u32,
    /// Where the files of finished messages go.
    pub spares: Arc<Spares>,
    /// Counters.
    pub metrics: Metrics,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    number: u32,
    taken: usize,
}

impl Contents {
    /// Goes on with what recovery found. New messages go to a new folder.
    pub(super) fn new(start: Start<'_>) -> Self {
        let Start { root, places, next, spares, metrics } = start;
        let mut files = HashMap::new();
        for folder in places.values() {
            *files.entry(*folder).or_default() += 1;
        }
        Self { root, files, current: None, next, stopped: None, metrics, spares }
    }

    /// Moves drafts, whose bytes are durable, to where messages lie. They are not durably there before [`Self::sync`].
    /// Returns the folder.
    pub(super) fn place<'a>(&mut self, drafts: impl Iterator<Item = &'a mut Draft>) -> Result<u32, SpoolError> {
        let folder = self.ready()?;
        for draft in drafts {
            let path = self.path(folder, draft.id);
            fs::rename(&draft.path, &path).map_err(|e| failed("cannot name", &path, &e))?;
            draft.path = path;
            if let Some(current) = &mut self.current {
                current.taken += 1;
            }
        }
        Ok(folder)
    }

    /// Makes the names given since the last sync durable.
    pub(super) fn sync(&mut self) -> Result<(), SpoolError> {
        let Some(current) = self.current else { return Ok(()) };
        let synced = sync_folder(&self.folder(current.number));
        if synced.is_err() || current.taken >= FOLDER {
            self.current = None;
        }
        synced
    }

    /// Counts a message that is accepted.
    pub(super) fn keep(&mut self, folder: u32) {
        *self.files.entry(folder).or_default() += 1;
    }

    /// Takes away the content of a finished message, and its folder with the last one. Not synced: what comes back after
    /// a power cut belongs to nobody and is discarded then.
    pub(super) fn remove(&mut self, folder: u32, id: QueueId) {
        self.spares.put(&self.path(folder, id));
        let Some(files) = self.files.get_mut(&folder) else { return };
        *files = files.saturating_sub(1);
        if *files == 0 && self.current.is_none_or(|current| current.number != folder) {
            self.files.remove(&folder);
            discard(&self.folder(folder));
        }
    }

    /// The folder that takes new messages, made durable before its first use.
    fn ready(&mut self) -> Result<u32, SpoolError> {
        if let Some(current) = self.current {
            return Ok(current.number);
        }
        if let Some(error) = &self.stopped {
            return Err(error.clone());
        }
        let number = self.next;
        make_folder(&self.folder(number))?;
        if let Err(error) = sync_folder(&self.root) {
            alert(&self.metrics, &error, "no mail is taken until fingerpost is restarted");
            self.stopped = Some(error.clone());
            return Err(error);
        }
        self.files.retain(|number, files| {
            if *files == 0 {
                discard(&self.root.join(folder_name(*number)));
            }
            *files > 0
        });
        self.next += 1;
        self.current = Some(Current { number, taken: 0 });
        Ok(number)
    }

    fn folder(&self, number: u32) -> PathBuf {
        self.root.join(folder_name(number))
    }

    fn path(&self, folder: u32, id: QueueId) -> PathBuf {
        self.folder(folder).join(id.to_string())
    }
}

/// A folder's name.
pub(super) fn folder_name(number: u32) -> String {
    format!("{number:08}")
}
