//! Tables that survive a restart, each in a file of its own in `state_dir`, saved every minute and at the end:
//! `recently-good` (addresses with recently accepted mail and first refusals, so that a restart neither turns doubt
//! into bounces nor restarts its hour) and `known-logins` (successful logins by client).
//!
//! `run` calls it. A file that cannot be read is replaced by an empty table.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::guesses::Guesses;
use crate::keyed_hash::HashKey;
use crate::routing::recently_good::RecentlyGood;
use crate::time::Moment;

/// How often a table is saved.
const EVERY: Duration = Duration::from_mins(1);

/// A table that is saved.
pub trait Table: Sized + Send + 'static {
    const FILE: &str;
    /// The consequence of a file that cannot be read, for the log.
    const FORGOTTEN: &str;
    /// The consequence of a file that cannot be written, for the log.
    const UNSAVED: &str;

    fn new(key: HashKey) -> Self;

    /// Reads what was saved; `now` is the time of reading.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn from_bytes(bytes: &[u8], now: Moment) -> Result<Self, String>;

    /// The bytes to save.
    fn to_bytes(&self) -> Vec<u8>;

    /// A number that changes when there is something to save.
    fn changes(&self) -> u64;
}

impl Table for RecentlyGood {
    const FILE: &str = "recently-good";
    const FORGOTTEN: &str = "recently good addresses cannot be read: all are forgotten, and until they had mail again \
        those whom no directory has are believed to be unknown at once";
    const UNSAVED: &str = "recently good addresses cannot be saved: after a restart older ones count; check the owner \
        and the free space of state_dir";

    fn new(key: HashKey) -> Self {
        Self::new(key)
    }

    fn from_bytes(bytes: &[u8], now: Moment) -> Result<Self, String> {
        Self::from_bytes(bytes, now).map_err(|error| error.to_string())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn changes(&self) -> u64 {
        self.changes()
    }
}

impl Table for Guesses {
    const FILE: &str = "known-logins";
    const FORGOTTEN: &str = "who logged in from where cannot be read: all is forgotten, and where many passwords fail \
        nobody logs in for half an hour";
    const UNSAVED: &str = "who logged in from where cannot be saved: after a restart older logins count; check the \
        owner and the free space of state_dir";

    fn new(key: HashKey) -> Self {
        Self::new(key)
    }

    fn from_bytes(bytes: &[u8], _now: Moment) -> Result<Self, String> {
        Self::from_bytes(bytes).map_err(|error| error.to_string())
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes()
    }

    fn changes(&self) -> u64 {
        self.changes()
    }
}

pub struct SavedTable<T> {
    pub table: Arc<Mutex<T>>,
    path: PathBuf,
    /// The number of changes at the last save.
    saved: Mutex<u64>,
}

impl<T: Table> SavedTable<T> {
    /// Reads the file; if there is none, or it cannot be read, the table is empty.
    ///
    /// # Errors
    /// The system has no random numbers for the table's key.
    pub fn load(state_dir: &Path, now: Moment) -> Result<Self, String> {
        let path = state_dir.join(T::FILE);
        let table = match read(&path, now) {
            Ok(Some(table)) => table,
            Ok(None) => T::new(super::random_key()?),
            Err(error) => {
                tracing::warn!(file = %path.display(), error, "{}", T::FORGOTTEN);
                T::new(super::random_key()?)
            }
        };
        let saved = Mutex::new(table.changes());
        Ok(Self { table: Arc::new(Mutex::new(table)), path, saved })
    }

    /// Saves every minute until `stop`.
    pub async fn keep_saving(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.save().await;
        }
    }

    /// Saves if the table has changed. A failure is logged, and the file stays unchanged.
    pub async fn save(self: &Arc<Self>) {
        let kept = self.clone();
        let saved = tokio::task::spawn_blocking(move || kept.write_if_changed()).await;
        let error = match saved {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        tracing::warn!(file = %self.path.display(), error, "{}", T::UNSAVED);
    }

    fn write_if_changed(&self) -> io::Result<()> {
        let mut saved = self.saved.lock();
        let table = self.table.lock();
        let changes = table.changes();
        if changes == *saved {
            return Ok(());
        }
        let bytes = table.to_bytes();
        drop(table);
        replace(&self.path, &bytes)?;
        *saved = changes;
        Ok(())
    }
}

fn read<T: Table>(path: &Path, now: Moment) -> Result<Option<T>, String> {
    match fs::read(path) {
        Ok(bytes) => T::from_bytes(&bytes, now).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Replaces a file durably and atomically, with access for this user only: it contains a key.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::formats::Format;
    use crate::routing::doubt::{KnownBy, Refused};
    use crate::smtp::address::Address;
    use crate::smtp::reply::ROUTING_LOOP;
    use crate::time::{QueueTime, UnixTime};

    fn bob() -> Address {
        Address::parse("bob@contoso.com").unwrap()
    }

    fn is_good(kept: &SavedTable<RecentlyGood>) -> bool {
        kept.table.lock().is_good(&bob(), QueueTime(1))
    }

    fn load(folder: &Path) -> Arc<SavedTable<RecentlyGood>> {
        let now = Moment { day: UnixTime(9), queue: QueueTime(9), up: Duration::ZERO };
        Arc::new(SavedTable::load(folder, now).unwrap())
    }

    /// Every number's example has bob, who was good at 1; the bytes contain the number. The example of 1 was written by
    /// hand from the code that had it (07341d7).
    #[test]
    fn the_formats_of_recently_good() {
        let mut table = <RecentlyGood as Table>::new([9; 16]);
        table.accepted(&bob(), "secondary", QueueTime(1));
        let now = Moment { day: UnixTime(9), queue: QueueTime(9), up: Duration::ZERO };
        let bytes = Table::to_bytes(&table);
        let number = bytes.strip_prefix(b"fingerpost recently good ").unwrap()[0] - b'0';
        let format = Format { name: "recently-good", extension: "bin", oldest: 1, current: number.into() };
        format.check(&bytes, |number, bytes| {
            let read = <RecentlyGood as Table>::from_bytes(bytes, now);
            let read = read.unwrap_or_else(|error| panic!("number {number} is not carried over: {error}"));
            assert!(read.is_good(&bob(), QueueTime(1)), "number {number}");
        });
    }

    #[tokio::test]
    async fn it_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let kept = load(folder.path());
        kept.save().await;
        assert!(!folder.path().join(RecentlyGood::FILE).exists(), "nothing to save");
        kept.table.lock().accepted(&bob(), "secondary", QueueTime(1));
        kept.save().await;
        assert_eq!(fs::metadata(folder.path().join(RecentlyGood::FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        let again = load(folder.path());
        assert!(is_good(&again));
        fs::remove_file(folder.path().join(RecentlyGood::FILE)).unwrap();
        again.save().await;
        assert!(!folder.path().join(RecentlyGood::FILE).exists(), "what has not changed is not written");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn when_an_address_was_refused_first_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let first = |kept: &SavedTable<RecentlyGood>| {
            kept.table.lock().known(&bob(), KnownBy::Directory, QueueTime(9)).first_refused
        };
        let kept = load(folder.path());
        let returned = Refused::ByUs { row: Some(8), reply: &ROUTING_LOOP };
        kept.table.lock().doubt(&bob(), KnownBy::Directory, &returned, QueueTime(5));
        kept.save().await;
        let again = load(folder.path());
        assert_eq!((first(&kept), first(&again)), (Some(QueueTime(5)), Some(QueueTime(5))));
        again.table.lock().accepted(&bob(), "secondary", QueueTime(6));
        again.save().await;
        assert_eq!(first(&load(folder.path())), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_saved_every_minute() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, stop) = (load(folder.path()), CancellationToken::new());
        let saving = tokio::spawn(kept.clone().keep_saving(stop.clone()));
        tokio::time::sleep(EVERY / 2).await;
        kept.table.lock().accepted(&bob(), "secondary", QueueTime(1));
        tokio::time::sleep(EVERY / 4).await;
        assert!(!folder.path().join(RecentlyGood::FILE).exists());
        tokio::time::sleep(EVERY / 2).await;
        stop.cancel();
        saving.await.unwrap();
        assert!(is_good(&load(folder.path())));
    }

    #[tokio::test]
    async fn what_is_of_no_use_is_begun_anew_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RecentlyGood::FILE), "of no use").unwrap();
        let kept = load(folder.path());
        assert!(!is_good(&kept));
        kept.table.lock().accepted(&bob(), "secondary", QueueTime(1));
        kept.save().await;
        assert!(is_good(&load(folder.path())));

        fs::remove_file(folder.path().join(RecentlyGood::FILE)).unwrap();
        fs::create_dir(folder.path().join(RecentlyGood::FILE)).unwrap();
        let kept = load(folder.path());
        kept.table.lock().accepted(&bob(), "secondary", QueueTime(1));
        kept.save().await;
        assert!(folder.path().join(RecentlyGood::FILE).is_dir(), "it cannot be replaced, and nothing else happens");
    }
}
