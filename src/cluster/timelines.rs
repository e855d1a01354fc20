//! Which primary is believed. A promotion begins a new timeline with a higher number; a primary of a lower one was
//! replaced, whatever it says itself. The highest number that this node has seen is kept over restarts.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::database::DatabaseError;
use crate::private;

/// What the file begins with; the number is its format.
const MAGIC: &str = "fingerpost timeline 1 ";

/// The highest timeline seen so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Timelines(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    highest: watch::Sender<u32>,
    file: Mutex<Option<PathBuf>>,
}

impl Timelines {
    /// Keeps it in this file from now on, and takes what the file has.
    ///
    /// # Errors
    /// The file is there and cannot be read: a primary that was replaced could be believed. The text says what to do.
    pub fn keep_in(&self, file: &Path) -> Result<(), String> {
        let saved = saved(file)?;
        *self.0.file.lock() = Some(file.to_owned());
        self.0.highest.send_if_modified(|highest| std::mem::replace(highest, saved.max(*highest)) < saved);
        Ok(())
    }

    #[must_use]
    pub fn highest(&self) -> u32 {
        *self.0.highest.borrow()
    }

    /// A primary shows this timeline.
    ///
    /// # Errors
    /// [`DatabaseError::Away`]: it was replaced by another; or the file cannot be written.
    pub fn note(&self, timeline: u32) -> Result<(), DatabaseError> {
        let file = self.0.file.lock();
        let highest = self.highest();
        if timeline < highest {
            let file = file.as_ref().map(|file| {
                format!(" (where the database was restored, or upgraded: remove {} at each node)", file.display())
            });
            let text = format!(
                "a primary on timeline {timeline} answers, which one on timeline {highest} replaced{}",
                file.unwrap_or_default()
            );
            return Err(DatabaseError::Away(text));
        }
        if timeline > highest {
            if let Some(file) = &*file {
                save(file, timeline).map_err(|error| DatabaseError::Away(format!("{}: {error}", file.display())))?;
            }
            self.0.highest.send_replace(timeline);
        }
        Ok(())
    }

    /// Completes when a timeline beyond this one has been seen.
    pub async fn beyond(&self, timeline: u32) {
        let mut highest = self.0.highest.subscribe();
        let _ = highest.wait_for(|highest| *highest > timeline).await; // its sender lives as long as this
    }
}

/// The highest timeline that the node of this file has seen; 0: none.
///
/// # Errors
/// As [`Timelines::keep_in`].
pub fn saved(file: &Path) -> Result<u32, String> {
    let saved = match fs::read_to_string(file) {
        Ok(text) => number(&text).ok_or_else(|| format!("it is not a timeline of a node: {:?}", text.trim_end())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.to_string()),
    };
    saved.map_err(|error| {
        let file = file.display();
        format!("{file}: {error}; remove it if no database of before the last promotion can be reached any more")
    })
}

fn number(text: &str) -> Option<u32> {
    text.strip_prefix(MAGIC)?.trim_end().parse().ok()
}

fn save(file: &Path, timeline: u32) -> io::Result<()> {
    let draft = file.with_extension("new");
    let mut written = private::create(&draft)?;
    written.write_all(format!("{MAGIC}{timeline}\n").as_bytes())?;
    written.sync_all()?;
    fs::rename(&draft, file)?;
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_primary_that_was_replaced_is_never_believed_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("timeline");
        let timelines = Timelines::default();
        timelines.keep_in(&file).unwrap();
        assert!(timelines.note(1).is_ok() && timelines.note(3).is_ok() && timelines.note(3).is_ok());
        assert!(timelines.note(2).is_err());
        timelines.beyond(2).await;
        let waiting = tokio::spawn({
            let timelines = timelines.clone();
            async move { timelines.beyond(3).await }
        });
        timelines.note(4).unwrap();
        waiting.await.unwrap();
        let after_a_restart = Timelines::default();
        after_a_restart.keep_in(&file).unwrap();
        assert!(after_a_restart.note(3).is_err() && after_a_restart.note(4).is_ok());
        fs::write(&file, "").unwrap();
        let told = Timelines::default().keep_in(&file).unwrap_err();
        assert!(told.contains("timeline: it is not a timeline of a node: \"\"; remove it if"), "{told}");
    }
}
