//! The folder of a node whose spool is elsewhere: large contents while they are being received, the node's last epoch,
//! and in `aside/` copies of damaged content. One process has it at a time.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use super::draft::BlobDraft;
use super::entry::Entry;
use super::layout::{self, Layout, failed, make_folder, new_file, sync_folder};
use super::stored::Stored;
use super::{SpoolError, quarantine};
use crate::message::queue_id::QueueId;
use crate::private;

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

    /// Keeps what there is of a damaged content, and its envelope, for operators. Blocks.
    pub fn keep_damaged(&self, entry: &Entry, content: &Stored) {
        let layout = Layout::at(&self.folder);
        let kept = make_folder(&layout.aside).and_then(|()| sync_folder(&self.folder));
        let kept = kept.and_then(|()| match content.as_it_is() {
            Ok(bytes) => {
                quarantine::keep_message(&layout, entry, &bytes);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(queue_id = %entry.id, %error, "what there is of a damaged content cannot be read");
                quarantine::keep_envelope(&layout, entry)
            }
        });
        if let Err(error) = kept {
            tracing::warn!("{error}");
        }
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
        let written = private::create(&draft).and_then(|mut file| {
            file.write_all(format!("{MAGIC}{epoch}\n").as_bytes())?;
            file.sync_all()
        });
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
