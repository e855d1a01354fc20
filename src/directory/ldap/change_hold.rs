//! `hold_changes` where a directory is asked for each recipient: changes are counted among the addresses that it has
//! had lately, which are saved in `state_dir` every minute.
//!
//! `LdapDirectory` passes every answer through it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::config::LdapConfig;
use crate::directory::expected::Announced;
use crate::directory::last_destination::{Circumstances, Remembered, Saved};
use crate::directory::mail::{AnsweredAddress, Mail};
use crate::directory::snapshot::changes_file::{ChangesFile, has_room};
use crate::directory::snapshot::kept::SnapshotState;
use crate::directory::snapshot::served::HeldList;
use crate::directory::snapshot::{Accept, Room};
use crate::lookup::{Answer, Freshness, Lookup};
use crate::metrics::Metrics;
use crate::state;
use crate::time::UnixTime;

/// How often it is saved.
const EVERY: Duration = Duration::from_mins(1);
/// Changes whenever [`Saved`] does.
const MAGIC: &[u8; 8] = b"FPWAYS2\n";
/// The format without counted changes.
const FIRST_MAGIC: &[u8; 8] = b"FPWAYS1\n";

/// The addresses of one directory, and their file.
pub(super) struct Holding {
    kept: Arc<Inner>,
    _saving: AbortOnDropHandle<()>,
}

struct Inner {
    name: Arc<str>,
    path: PathBuf,
    remembered: Mutex<Remembered>,
    /// The number of changes at the last save.
    saved: Mutex<u64>,
    /// Whether a successor writes the file now.
    has_given_way: AtomicBool,
    metrics: Metrics,
    announced: Mutex<ChangesFile>,
    mail: Arc<dyn Mail>,
    within: Duration,
}

impl Holding {
    /// Reads the file; if there is none, or it cannot be read, begins empty.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn open(name: &Arc<str>, config: &LdapConfig, room: &Room<'_>) -> Result<Self, String> {
        let Room { folder, metrics, mail } = *room;
        let path = folder.join(format!("{name}.ways"));
        let saved = read(&path).unwrap_or_else(|error| {
            tracing::warn!(file = %path.display(), %error, "the ways of recipients cannot be read: all are forgotten");
            None
        });
        let saved = saved.map_or_else(|| state::random_key().map(Saved::nobody), Ok)?.by(UnixTime::steady());
        let mut remembered = Remembered::new(config.hold_changes, config.mailbox_servers.clone(), saved);
        let (announced, kept) = ChangesFile::open(folder.join(format!("{name}.changes")));
        *remembered.expected_mut() = kept.expected;
        metrics.directory_changes_held.with_label_values(&[&**name]).set(0);
        let kept = Arc::new(Inner {
            name: Arc::clone(name),
            path,
            remembered: Mutex::new(remembered),
            saved: Mutex::default(),
            has_given_way: AtomicBool::new(false),
            metrics: metrics.clone(),
            announced: Mutex::new(announced),
            mail: Arc::clone(mail),
            within: config.hold_changes.within,
        });
        let saving = Arc::clone(&kept);
        let saving = tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                let kept = Arc::clone(&saving);
                // A panic has been logged; the next minute tries again.
                let _ = spawn_blocking(move || {
                    kept.change(|remembered| remembered.forget_held(UnixTime::steady()));
                    kept.save();
                })
                .await;
            }
        });
        Ok(Self { kept, _saving: AbortOnDropHandle::new(saving) })
    }

    /// The answer, unless it has to be held. An answer that was requested because another one is in doubt is never held
    /// and not recorded.
    pub(super) fn pass(&self, key: &str, wanted: Freshness, answer: Answer) -> Answer {
        if wanted == Freshness::Live {
            return answer;
        }
        let kept = &self.kept;
        let asked = AnsweredAddress { directory: &kept.name, key, answer: &answer.lookup };
        let (now, day, at) = (UnixTime::steady(), UnixTime::now(), kept.mail.now());
        let with = Circumstances { now, day, at, served_by: &|| kept.mail.serves_elsewhere(&asked) };
        let held = kept.change(|remembered| remembered.is_held(key, &answer.lookup, with));
        if held { Answer { lookup: Lookup::Held(kept.advice()), ..answer } } else { answer }
    }

    /// How many addresses wait.
    pub(super) fn held(&self) -> usize {
        self.kept.change(|remembered| {
            remembered.forget_held(UnixTime::steady());
            remembered.held()
        })
    }

    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.kept.remembered.lock().len()
    }

    /// An operator accepts the changes. Returns how many waited.
    pub(super) async fn accept(&self, accept: Accept) -> usize {
        let kept = Arc::clone(&self.kept);
        let accepted = spawn_blocking(move || {
            let until = kept.mail.now().plus(kept.within);
            let accepted = kept.change(|remembered| match accept {
                Accept::No => 0,
                Accept::Yes => remembered.accept(UnixTime::steady()),
                Accept::Only(keys) => remembered.accept_only(keys, until),
            });
            kept.save();
            accepted
        });
        // A panic has been logged.
        accepted.await.unwrap_or_default()
    }

    /// Announces changes that are not counted or held, for this long.
    ///
    /// # Errors
    /// There is more than can be saved; nothing is announced.
    pub(super) fn announce(&self, announced: Announced, during: Duration) -> Result<(), String> {
        let now = self.kept.mail.now();
        let until = now.plus(during);
        let mut expected = self.kept.change(|remembered| remembered.expected_mut().clone());
        expected.forget(now);
        expected.announce(announced.clone(), until);
        has_room(&expected)?;
        self.kept.change(|remembered| match announced {
            Announced::Only(keys) => drop(remembered.accept_only(keys, until)),
            any @ Announced::Any(_) => remembered.expected_mut().announce(any, until),
        });
        self.kept.save();
        Ok(())
    }

    pub(super) fn held_list(&self) -> HeldList {
        self.kept.remembered.lock().held_list()
    }

    /// Saves now, for a successor that is about to read the file.
    pub(super) fn save(&self) {
        self.kept.save();
    }

    /// A successor writes the file from now on.
    pub(super) fn give_way(&self) {
        // Waits for a save in progress, which is the last.
        let _saved = self.kept.saved.lock();
        self.kept.has_given_way.store(true, Ordering::Relaxed);
        self.kept.announced.lock().give_way();
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.kept.save();
    }
}

impl Inner {
    /// Changes the memory, and logs when changes begin or cease to be held.
    fn change<T>(&self, change: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut remembered = self.remembered.lock();
        let before = remembered.held();
        let changed = change(&mut remembered);
        let after = remembered.held();
        drop(remembered);
        if before != after {
            self.log(before, after);
        }
        changed
    }

    fn advice(&self) -> Arc<str> {
        let name = &self.name;
        format!(
            "its answer changed, as those of too many did (what changed before is in force: of that no list is kept where \
             the directory is asked for each recipient); see fingerpost directory held {name}, look at the directory, and \
             if that is meant: fingerpost directory refresh {name} --accept"
        )
        .into()
    }

    fn log(&self, before: usize, after: usize) {
        if self.has_given_way.load(Ordering::Relaxed) {
            return;
        }
        let name = &*self.name;
        self.metrics.directory_changes_held.with_label_values(&[name]).set(i64::try_from(after).unwrap_or(i64::MAX));
        match (before, after) {
            (0, _) => tracing::error!(directory = name, "changes are held: {}", self.advice()),
            (_, 0) => tracing::info!(directory = name, "no changes are held any more"),
            _ => {}
        }
    }

    fn save(&self) {
        let mut done = self.saved.lock();
        if self.has_given_way.load(Ordering::Relaxed) {
            return;
        }
        let expected = self.remembered.lock().expected().clone();
        let mut announced = self.announced.lock();
        if let Err(error) = announced.keep(SnapshotState { expected, ..SnapshotState::default() }) {
            tracing::warn!(directory = %self.name, "what is announced cannot be kept over a restart: {error}");
        }
        drop(announced);
        let (changes, saved) = {
            let remembered = self.remembered.lock();
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

/// Magic, a little-endian CRC-32C, then postcard. `None`: there is no file.
fn read(path: &Path) -> io::Result<Option<Saved>> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let foreign = || io::Error::other("another version of the program wrote it");
    let (magic, content) = content.split_first_chunk().ok_or_else(foreign)?;
    if ![MAGIC, FIRST_MAGIC].contains(&magic) {
        return Err(foreign());
    }
    let damaged = || io::Error::other("it is damaged");
    let (sum, saved) = content.split_first_chunk().ok_or_else(damaged)?;
    if u32::from_le_bytes(*sum) != crc32c::crc32c(saved) {
        return Err(damaged());
    }
    let saved = if magic == MAGIC { whole(saved) } else { whole(saved).map(Saved::first) };
    saved.map(Some).ok_or_else(foreign)
}

/// An intact file with further bytes is of another version.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes).ok().filter(|(_, rest)| rest.is_empty()).map(|(whole, _)| whole)
}

fn to_bytes(saved: &Saved) -> io::Result<Vec<u8>> {
    let saved = postcard::to_allocvec(saved).map_err(io::Error::other)?;
    Ok([&MAGIC[..], &crc32c::crc32c(&saved).to_le_bytes(), &saved].concat())
}

fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let bytes = to_bytes(saved)?;
    if let Some(folder) = path.parent() {
        crate::private::folder(folder)?;
    }
    let new = path.with_extension("ways.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;

    #[test]
    fn its_format() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ad.ways");
        let format = Format { name: "directory-ways", extension: "ways", oldest: 1, current: 2 };
        format.check(&to_bytes(&Saved::example()).unwrap(), |number, bytes| {
            fs::write(&path, bytes).unwrap();
            let expected = if number == 1 { Saved::first_example() } else { Saved::example() };
            assert_eq!(read(&path).unwrap(), Some(expected));
        });
        // An intact file with one more octet is not damaged.
        let longer = postcard::to_allocvec(&(Saved::example(), 0_u8)).unwrap();
        fs::write(&path, [&MAGIC[..], &crc32c::crc32c(&longer).to_le_bytes(), &longer].concat()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("another version"));
    }

    #[test]
    fn it_comes_back_as_it_was_saved_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("directories/ad.ways");
        assert_eq!(read(&path).unwrap(), None);
        let saved = Saved::nobody([9; 16]);
        write(&path, &saved).unwrap();
        assert_eq!(read(&path).unwrap(), Some(saved));
        let whole = fs::read(&path).unwrap();
        for (at, cause) in [(2, "another version"), (9, "damaged"), (14, "damaged")] {
            let mut content = whole.clone();
            content[at] ^= 1;
            fs::write(&path, content).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains(cause), "{at}");
        }
    }
}
