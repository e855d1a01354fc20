//! The folder of a node whose spool is elsewhere: large contents while they are being received, and the node's last
//! epoch. One process has it at a time.

use std::fs::{self, File};
use std::path::PathBuf;

use super::SpoolError;
use super::draft::BlobDraft;
use super::layout::{self, failed, make_folder, new_file, sync_folder};
use crate::message::queue_id::QueueId;

/// What the file of the epoch begins with; the number is its format.
const MAGIC: &str = "fingerpost epoch 1 ";

#[derive(Debug)]
pub struct NodeFolder {
    folder: PathBuf,
    _lock: File,
}

impl NodeFolder {
    /// Creates and locks the folder, and removes incomplete contents.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; another process has it.
    pub fn open(folder: PathBuf) -> Result<Self, SpoolError> {
        make_folder(&folder)?;
        let lock = layout::lock(&folder)?;
        let incoming = folder.join("incoming");
        make_folder(&incoming)?;
        for path in layout::list(&incoming)? {
            layout::discard(&path);
        }
        Ok(Self { folder, _lock: lock })
    }

    /// An empty file for a content that is being received.
    ///
    /// # Errors
    /// [`SpoolError::Io`].
    pub fn draft(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        let path = self.folder.join("incoming").join(id.to_string());
        let file = new_file(&path).map_err(|e| failed("cannot make", &path, &e))?;
        Ok(BlobDraft::new(id, file, path))
    }

    /// The epoch of the process that had the folder before: it has ended.
    #[must_use]
    pub fn epoch(&self) -> Option<i64> {
        fs::read_to_string(self.file("epoch")).ok()?.strip_prefix(MAGIC)?.trim_end().parse().ok()
    }

    /// # Errors
    /// [`SpoolError::Io`].
    pub fn save_epoch(&self, epoch: i64) -> Result<(), SpoolError> {
        let (path, draft) = (self.file("epoch"), self.folder.join("epoch.new"));
        let written = fs::write(&draft, format!("{MAGIC}{epoch}\n")).and_then(|()| File::open(&draft)?.sync_all());
        written.and_then(|()| fs::rename(&draft, &path)).map_err(|e| failed("cannot write", &path, &e))?;
        sync_folder(&self.folder)
    }

    /// A file of the node's own.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_its_epoch_and_belongs_to_one_process() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("node");
        let folder = NodeFolder::open(path.clone()).unwrap();
        assert_eq!(folder.epoch(), None);
        folder.save_epoch(7).unwrap();
        let mut draft = folder.draft(QueueId(1)).unwrap();
        draft.append(b"half").unwrap();
        std::mem::forget(draft); // the process was killed
        assert!(NodeFolder::open(path.clone()).is_err(), "another one has it");
        drop(folder);
        let folder = NodeFolder::open(path.clone()).unwrap();
        assert_eq!(folder.epoch(), Some(7));
        assert_eq!(fs::read_dir(path.join("incoming")).unwrap().count(), 0);
        assert_eq!(std::io::ErrorKind::NotFound, fs::read(path.join("epoch.new")).unwrap_err().kind());
    }
}
