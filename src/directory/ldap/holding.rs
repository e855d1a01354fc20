//! `hold_changes` where a directory is asked for each recipient: what changes is counted over the addresses that it has had
//! lately, which stand in `state_dir`, saved every minute, so that a restart does not forget them.
//!
//! `LdapDirectory` has every answer pass here.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::config::LdapConfig;
use crate::directory::remembered::{Remembered, Saved};
use crate::metrics::Metrics;
use crate::recipient::{Answer, Lookup};
use crate::routing::verdict::Freshness;
use crate::time::UnixTime;

/// How often it is saved.
const EVERY: Duration = Duration::from_mins(1);

/// The addresses of one directory, and their file.
pub(super) struct Holding {
    kept: Arc<Kept>,
    _saving: AbortOnDropHandle<()>,
}

struct Kept {
    name: Arc<str>,
    path: PathBuf,
    remembered: Mutex<Remembered>,
    /// How many changes the file has.
    saved: Mutex<u64>,
    metrics: Metrics,
}

impl Holding {
    /// Reads what was saved; without a file, or with one that is of no use, nobody is remembered.
    pub(super) fn open(name: &Arc<str>, config: &LdapConfig, folder: &Path, metrics: &Metrics) -> Self {
        let path = folder.join(format!("{name}.ways"));
        let saved = read(&path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "the ways of recipients cannot be read: all are forgotten");
            Vec::new()
        });
        let remembered = Remembered::new(config.hold_changes, config.mailbox_servers.clone(), saved);
        metrics.directory_changes_held.with_label_values(&[&**name]).set(0);
        let kept = Arc::new(Kept {
            name: Arc::clone(name),
            path,
            remembered: Mutex::new(remembered),
            saved: Mutex::default(),
            metrics: metrics.clone(),
        });
        let saving = Arc::clone(&kept);
        let saving = tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                let kept = Arc::clone(&saving);
                // A panic would have been logged; the next minute tries again.
                let _ = spawn_blocking(move || kept.save()).await;
            }
        });
        Self { kept, _saving: AbortOnDropHandle::new(saving) }
    }

    /// The answer, unless it is to be held.
    pub(super) fn pass(&self, key: &str, wanted: Freshness, answer: Answer) -> Answer {
        let now = UnixTime::now();
        let kept = &self.kept;
        let mut remembered = kept.remembered();
        let before = remembered.held();
        let held = match wanted {
            Freshness::Any => remembered.is_held(key, &answer.lookup, now),
            Freshness::Live => {
                remembered.believe(key, &answer.lookup, now);
                false
            }
        };
        let after = remembered.held();
        drop(remembered);
        if before != after {
            kept.tell(before, after);
        }
        if held { Answer { lookup: Lookup::Held(kept.advice()), ..answer } } else { answer }
    }

    /// How many recipients wait.
    pub(super) fn held(&self) -> usize {
        self.kept.remembered().held()
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.kept.remembered().len()
    }

    /// Somebody says that the changes are meant. Says how many waited.
    pub(super) fn accept(&self) -> usize {
        let held = self.kept.remembered().accept();
        self.kept.tell(held, 0);
        held
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.kept.save();
    }
}

impl Kept {
    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advice(&self) -> Arc<str> {
        let name = &self.name;
        format!(
            "its answer changed, as those of too many did; look at the directory, and if that is meant: fingerpost \
             directory refresh {name} --accept"
        )
        .into()
    }

    fn tell(&self, before: usize, after: usize) {
        let name = &*self.name;
        self.metrics.directory_changes_held.with_label_values(&[name]).set(i64::try_from(after).unwrap_or(i64::MAX));
        match (before, after) {
            (0, 0) => {}
            (0, _) => tracing::error!(directory = name, "changes are held: {}", self.advice()),
            (_, 0) => tracing::info!(directory = name, "no changes are held any more"),
            _ => {}
        }
    }

    fn save(&self) {
        let mut done = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, saved) = {
            let remembered = self.remembered();
            if *done == remembered.changes() {
                return;
            }
            (remembered.changes(), remembered.saved())
        };
        match write(&self.path, &saved) {
            Ok(()) => *done = changes,
            Err(error) => {
                tracing::warn!(file = %self.path.display(), %error, "the ways of recipients cannot be saved");
            }
        }
    }
}

/// A CRC-32C in little-endian order, then what postcard writes.
fn read(path: &Path) -> io::Result<Vec<Saved>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let damaged = || io::Error::other("it is damaged");
    let (sum, saved) = content.split_first_chunk().ok_or_else(damaged)?;
    if u32::from_le_bytes(*sum) != crc32c::crc32c(saved) {
        return Err(damaged());
    }
    postcard::from_bytes(saved).map_err(|_| damaged())
}

fn write(path: &Path, saved: &[Saved]) -> io::Result<()> {
    let saved = postcard::to_allocvec(saved).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("ways.new");
    fs::write(&new, [&crc32c::crc32c(&saved).to_le_bytes()[..], &saved].concat())?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::known::Id;

    #[test]
    fn it_comes_back_as_it_was_saved_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directories/ad.ways");
        assert_eq!(read(&path).unwrap(), []);
        let saved = [(Id(1), Id(2), UnixTime(3)), (Id(4), Id(5), UnixTime(6))];
        write(&path, &saved).unwrap();
        assert_eq!(read(&path).unwrap(), saved);
        let mut content = fs::read(&path).unwrap();
        content[5] ^= 1;
        fs::write(&path, content).unwrap();
        assert!(read(&path).is_err());
    }
}
