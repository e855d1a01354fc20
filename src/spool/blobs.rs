//! Message contents that are too large for a record: one file each, in numbered folders.
//!
//! Once a sync of a folder has failed it is not synced again; new contents go to another folder.

use std::fs;

use parking_lot::Mutex;

use super::SpoolError;
use super::condition::{Condition, Takes};
use super::draft::BlobDraft;
use super::layout::{Layout, alert, discard, failed, make_folder, new_file, sync_folder};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// Creates files for large contents and makes them durable.
pub(super) struct Blobs {
    layout: Layout,
    metrics: Metrics,
    condition: Condition,
    current: Mutex<Current>,
}

#[derive(Debug)]
enum Current {
    /// There is none yet; the next one gets this number.
    Next(u32),
    /// This one, whose name is durable.
    Open(u32),
    /// The sync of the parent folder failed: no new folder can be made durable until the next start.
    Stopped(SpoolError),
}

impl Blobs {
    /// Creates a new folder for the first content.
    pub(super) fn new(layout: Layout, metrics: Metrics, condition: Condition, next: u32) -> Self {
        Self { layout, metrics, condition, current: Mutex::new(Current::Next(next)) }
    }

    /// Creates an empty file for a content that is being received.
    pub(super) fn create(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        let path = self.layout.incoming.join(id.to_string());
        let file = new_file(&path).map_err(|e| failed("cannot make", &path, &e))?;
        Ok(BlobDraft::new(id, file, path))
    }

    /// Makes a content and its name durable; returns its folder. Blocks; may run on several threads.
    pub(super) fn place(&self, draft: &mut BlobDraft) -> Result<u32, SpoolError> {
        draft.file.sync_data().map_err(|e| {
            let error = failed("cannot sync", &draft.path, &e);
            alert(&self.metrics, &error, "the message is turned away for now");
            error
        })?;
        // One at a time: if a sync of the folder fails, no other thread may sync it again.
        let mut current = self.current.lock();
        let folder = self.ready(&mut current)?;
        let path = self.layout.large(folder, draft.id());
        fs::rename(&draft.path, &path).map_err(|e| failed("cannot name", &path, &e))?;
        draft.path = path;
        sync_folder(&self.layout.large_folder(folder)).inspect_err(|error| {
            alert(&self.metrics, error, "large mail goes to another folder");
            *current = Current::Next(folder + 1);
        })?;
        Ok(folder)
    }

    /// Removes the content of a finished message. Not synced: a file that reappears after a power cut belongs to no
    /// message and is discarded at start.
    pub(super) fn remove(&self, folder: u32, id: QueueId) {
        discard(&self.layout.large(folder, id));
    }

    /// The folder for new contents, made durable before its first use.
    fn ready(&self, current: &mut Current) -> Result<u32, SpoolError> {
        let number = match &*current {
            Current::Open(number) => return Ok(*number),
            Current::Stopped(error) => return Err(error.clone()),
            Current::Next(number) => *number,
        };
        make_folder(&self.layout.large_folder(number))?;
        if let Err(error) = sync_folder(&self.layout.large) {
            alert(&self.metrics, &error, "no large mail can be taken any more: fingerpost ends, to be started again");
            // A failed sync of the parent folder must not be repeated, so no further folder can be made.
            self.condition.set_takes(Takes::NothingMore(error.to_string()), &self.metrics);
            *current = Current::Stopped(error.clone());
            return Err(error);
        }
        *current = Current::Open(number);
        Ok(number)
    }
}
