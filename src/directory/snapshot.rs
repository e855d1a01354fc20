//! All recipients of a directory in memory, their freshness, and their file in `state_dir`.
//!
//! `ldap` fills a snapshot (`mode = "snapshot"`) and answers from it. `table`, `view`, `served` and `guard` are pure;
//! `saved` is the file. A snapshot answers "not found" only while it follows the directory, and nothing if it has not
//! been confirmed for `max_stale`: the directory itself is asked then.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use self::changes_file::ChangesFile;
use self::freshness::SnapshotFreshness;
use self::journal::Journal;
use self::kept::SnapshotState;
use self::position::Position;
use self::saved::Writer;
use self::served::{Outcome, Rules, Served};
use self::suspect::Suspect;
use self::view::{Change, View};
use crate::config::{LdapConfig, SnapshotConfig};
use crate::directory::known::{Id, Known};
use crate::directory::mail::Mail;
use crate::directory::odd::Telling;
use crate::directory::refreshing::Refreshing;
use crate::lookup::{Kind, Lookup};
use crate::metrics::Metrics;
use crate::time::UnixTime;
use arc_swap::ArcSwapOption;

pub mod changes_file;
mod freshness;
pub mod guard;
mod journal;
pub mod kept;
mod measure;
pub mod position;
pub mod report;
pub mod saved;
pub mod served;
mod suspect;
mod log;
pub mod table;
pub mod view;
pub mod window;
mod word;

/// How often the file records that nothing has changed.
const NOTE_EVERY: Duration = Duration::from_mins(1);
/// If more entries have changed, a full read is cheaper.
pub const MOST_CHANGES: usize = 20_000;

/// A directory's recipients, shared by those who look addresses up and the task that keeps them up to date.
pub struct Snapshot {
    name: Arc<str>,
    config: SnapshotConfig,
    /// How long "not found" is believed after the directory was last followed.
    follows_for: Duration,
    path: PathBuf,
    /// Identifies what is read from the directory, and by which rules.
    of: Id,
    empty: Served,
    served: ArcSwapOption<Served>,
    contact: Mutex<SnapshotFreshness>,
    /// The current file; `None`: there is none yet.
    journal: Mutex<Option<Journal>>,
    /// Held while the next version is made.
    turn: Mutex<()>,
    /// The state of `hold_changes`.
    changes: Mutex<ChangesFile>,
    mail: Arc<dyn Mail>,
    version: AtomicU64,
    found_gone: AtomicU64,
    /// Whether the recipients in force cannot be derived from the file.
    file_is_behind: AtomicBool,
    metrics: Metrics,
    /// The account that reads the directory, for display.
    reader: String,
    telling: Mutex<Telling>,
}

/// Whether held changes are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accept {
    No,
    Yes,
    /// Those of addresses with these keys.
    Only(Vec<String>),
}

/// The services that a snapshot needs.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// The folder for its files.
    pub folder: &'a Path,
    pub metrics: &'a Metrics,
    pub mail: &'a Arc<dyn Mail>,
}

impl Snapshot {
    /// Begins with the content of a file in the folder; a file that cannot be used is logged.
    #[must_use]
    pub fn open(name: &Arc<str>, directory: &LdapConfig, config: SnapshotConfig, room: &Room<'_>) -> Self {
        let Room { folder, metrics, mail } = *room;
        let (limits, servers) = (directory.hold_changes, Arc::new(directory.mailbox_servers.clone()));
        let (changes, kept) = ChangesFile::open(folder.join(format!("{name}.changes")));
        let snapshot = Self {
            name: Arc::clone(name),
            config,
            follows_for: config.poll + directory.timeout,
            path: folder.join(format!("{name}.snapshot")),
            of: what_is_read(directory),
            empty: Served::nobody(Rules { name: Arc::clone(name), limits, servers }).expecting(kept.expected.clone()),
            served: ArcSwapOption::empty(),
            contact: Mutex::default(),
            journal: Mutex::default(),
            turn: Mutex::default(),
            changes: Mutex::new(changes),
            mail: Arc::clone(mail),
            version: AtomicU64::new(1),
            found_gone: AtomicU64::default(),
            file_is_behind: AtomicBool::new(false),
            metrics: metrics.clone(),
            reader: directory.bind_dn.clone(),
            telling: Mutex::default(),
        };
        snapshot.load(kept);
        snapshot.measure();
        snapshot
    }

    fn load(&self, kept: SnapshotState) {
        let name = &*self.name;
        match saved::open(&self.path) {
            Ok(None) => {}
            Ok(Some((loaded, journal))) => {
                let recipients = loaded.view.count_entries();
                tracing::info!(directory = name, recipients, as_of = %loaded.at, "the saved snapshot is in use");
                // If the configuration reads something else now, or changes are held (which the file does not have), a
                // full read is needed.
                let (position, whole) = if loaded.of == self.of && kept.holding.is_none() {
                    (loaded.position, Some(loaded.whole.of_day()))
                } else {
                    (Position::Unknown, None)
                };
                let served = self.empty.clone().resumed(loaded.view, kept);
                log::resumed(name, &served);
                self.served.store(Some(served.into()));
                *self.contact.lock() = SnapshotFreshness::saved(position, loaded.at.of_day(), instant(), whole);
                *self.journal.lock() = Some(journal);
            }
            Err(error) => tracing::warn!(
                directory = name,
                file = %self.path.display(),
                "the saved snapshot cannot be used: {error}; the directory is asked for each recipient until it has \
                 been read as a whole"
            ),
        }
    }

    /// The answer about the address with this key; `None`: the directory has to be asked.
    #[must_use]
    pub fn answer(&self, key: &str, now: UnixTime) -> Option<Lookup> {
        // Freshness is determined first: changes in between only improve it.
        let (age, followed) = {
            let contact = self.contact.lock();
            (contact.age(now), contact.last_followed())
        };
        let served = self.served.load();
        let served = served.as_deref()?;
        let lookup = served.lookup(key);
        let believed = match &lookup {
            Lookup::Found(recipient) if recipient.kind != Kind::NoMailbox => {
                age.is_some_and(|age| age <= self.config.max_stale)
            }
            // A new address that is not used yet is reported as not found.
            Lookup::Found(_) | Lookup::NotFound if served.withholds(key) => {
                age.is_some_and(|age| age <= self.config.max_stale)
            }
            // If no entry shows the attributes that tell recipients, the directory is asked whether they may be read.
            Lookup::Found(_) | Lookup::NotFound => {
                served.current().shows_recipients()
                    && followed.is_some_and(|at| instant().saturating_duration_since(at) <= self.follows_for)
            }
            // An administrator may be correcting it just now.
            Lookup::Ambiguous(_) | Lookup::Unavailable(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) => false,
        };
        believed.then_some(lookup)
    }

    /// Whether the directory's own answer about the address differs from the snapshot.
    #[must_use]
    pub fn contradicts(&self, key: &str, live: &Lookup) -> bool {
        self.served.load().as_deref().is_some_and(|served| served.differs(key, live))
    }

    /// The directory's own answer about an address: returns entries to be read again, if it differs from the snapshot.
    #[must_use]
    pub fn suspects(&self, key: &str, live: &Lookup) -> Vec<Suspect> {
        let served = self.served.load();
        let Some(served) = served.as_deref().filter(|served| served.differs(key, live)) else { return Vec::new() };
        let known = served.latest().owned_by(key).into_iter().map(|known| Suspect { dn: known.dn, id: Some(known.id) });
        let mut suspects: Vec<Suspect> = known.collect();
        if let Lookup::Found(recipient) = live
            && suspects.iter().all(|suspect| *suspect.dn != *recipient.entry)
        {
            suspects.push(Suspect { dn: recipient.entry.to_string(), id: None });
        }
        suspects
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The recipients; `None`: none have been read yet.
    #[must_use]
    pub fn served(&self) -> Option<Arc<Served>> {
        self.served.load_full()
    }

    /// A number that changes with the recipients.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// Where following continues.
    #[must_use]
    pub fn position(&self) -> Position {
        self.contact.lock().position.clone()
    }

    /// Whether a full read is needed: to update the file, or because too much has changed since the last one.
    #[must_use]
    pub fn wants_whole_read(&self) -> bool {
        let changed = self.served.load().as_deref().map_or(0, |served| served.latest().changed());
        self.file_is_behind.load(Ordering::Relaxed) || changed > MOST_CHANGES
    }

    /// The time until the next full read; zero if there was none with this configuration.
    #[must_use]
    pub fn until_whole_read(&self) -> Duration {
        self.contact.lock().until_whole_read(self.config.full_read, UnixTime::steady())
    }

    /// The time since the last full read began. `None`: there was none with this configuration, or deletions show at once,
    /// in a stream.
    #[must_use]
    pub fn whole_read_ago(&self) -> Option<Duration> {
        self.contact.lock().whole_read_ago(UnixTime::steady())
    }

    /// How often an entry was found gone when the directory was asked about it.
    #[must_use]
    pub fn found_gone(&self) -> u64 {
        self.found_gone.load(Ordering::Relaxed)
    }

    /// A file for a full read.
    ///
    /// # Errors
    /// The system's.
    pub fn begin(&self) -> io::Result<Writer> {
        Writer::create(&self.path, self.of)
    }

    /// Adds entries to a full read. Those whose addresses may not be read any more keep their known addresses.
    ///
    /// # Errors
    /// The system's.
    pub fn put(&self, writer: &mut Writer, mut entries: Vec<Known>) -> io::Result<()> {
        if let Some(served) = self.served.load().as_deref() {
            served.latest().remember(&mut entries);
        }
        writer.put(entries)
    }

    /// Completes a full read; when it began the directory had been followed up to `position`. Blocks. `probe` is the
    /// key of an address that must be there.
    ///
    /// # Errors
    /// The result cannot be believed, or not be stored.
    pub fn read(&self, writer: Writer, position: Position, probe: Option<&str>) -> Result<Outcome, String> {
        let (begun, now) = (writer.begun().of_day(), UnixTime::steady());
        let _both = Refreshing::begin(&self.metrics, writer.octets());
        let kept = |error: &dyn std::fmt::Display| format!("{}: {error}", self.path.display());
        let (written, table) = writer.finish(position.clone()).map_err(|error| kept(&error))?;
        let mut view = View::new(table);
        probe.map_or(Ok(()), |probe| view.vouched_for(probe))?;
        let _turn = self.turn.lock();
        let mut served = self.serving();
        let unread = view.keep_unread(served.latest());
        let outcome = served.read(view, self.now());
        self.keep(&mut served);
        match outcome {
            Outcome::Taken(_) => {
                *self.journal.lock() = Some(written.install().map_err(|error| kept(&error))?);
                self.file_is_behind.store(false, Ordering::Relaxed);
                if !unread.is_empty() {
                    self.note(unread, Some(&position), begun);
                }
            }
            Outcome::Held(_) => {
                self.note(Vec::new(), None, now);
                // Reading again at once would have the same result.
                self.file_is_behind.store(false, Ordering::Relaxed);
            }
        }
        self.publish(served, outcome);
        self.contact.lock().read(position, begun, instant());
        Ok(outcome)
    }

    /// Applies changes; there are no others up to that position.
    pub fn changed(&self, changes: Vec<Change>, position: Position) -> Outcome {
        let outcome = self.take(changes, Some(&position));
        self.contact.lock().followed(position, UnixTime::steady(), instant());
        outcome
    }

    /// Applies the current state of some entries. Others may have changed as well.
    pub fn corrected(&self, changes: Vec<Change>) -> Outcome {
        if changes.iter().any(|change| matches!(change, Change::Gone(_))) {
            self.found_gone.fetch_add(1, Ordering::Relaxed);
        }
        self.take(changes, None)
    }

    fn take(&self, changes: Vec<Change>, position: Option<&Position>) -> Outcome {
        let _turn = self.turn.lock();
        let mut served = self.serving();
        let (before, now) = (served.held(), UnixTime::steady());
        let (news, outcome) = served.changed(served.latest().with_kept(changes), self.now());
        self.keep(&mut served);
        let noted = self.journal.lock().as_ref().map(|journal| journal.noted().of_day());
        let is_due = noted.is_none_or(|noted| now.since(noted) >= NOTE_EVERY);
        let something = !news.is_empty();
        // The file's time must not be later than what has been followed.
        let at = if position.is_some() { Some(now) } else { self.contact.lock().confirmed() };
        match outcome {
            Outcome::Taken(_) if before > 0 => self.file_is_behind.store(true, Ordering::Relaxed),
            Outcome::Taken(_) if something || is_due => self.note(news, position, at.unwrap_or(now)),
            // While the directory answers, held changes do not make the snapshot older, even over a restart.
            Outcome::Held(_) if is_due => self.note(Vec::new(), None, at.unwrap_or(now)),
            Outcome::Taken(_) | Outcome::Held(_) => {}
        }
        if something || served.held() != before {
            self.publish(served, outcome);
        }
        outcome
    }

    /// `at` is by the steady clock, as everything here; the file has wall-clock time.
    fn note(&self, news: Vec<Change>, position: Option<&Position>, at: UnixTime) {
        let mut journal = self.journal.lock();
        let Some(journal) = &mut *journal else { return self.file_is_behind.store(true, Ordering::Relaxed) };
        if let Err(error) = journal.append(news, position, at.by_day()) {
            // After a restart, changes that the file lacks are read again.
            tracing::warn!(directory = %self.name, file = %self.path.display(), "cannot be written: {error}");
            self.file_is_behind.store(true, Ordering::Relaxed);
        }
    }

    /// The directory is no longer followed: "not found" is no longer believed.
    pub fn lost(&self) {
        self.contact.lock().lost();
    }

    fn serving(&self) -> Served {
        self.served.load().as_deref().unwrap_or(&self.empty).clone()
    }

    fn publish(&self, served: Served, outcome: Outcome) {
        log::held(&self.name, self.served.load().as_deref(), outcome);
        self.served.store(Some(served.into()));
        self.version.fetch_add(1, Ordering::Relaxed);
        self.measure();
    }
}

/// Identifies how a directory is read: where, by which rules (a number that changes with `profile`), and by which
/// version of the program.
fn what_is_read(directory: &LdapConfig) -> Id {
    let LdapConfig { base, profile, refuse_disabled, .. } = directory;
    Id::of(format!("{} 2 {base:?} {profile:?} {refuse_disabled}", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// The monotonic clock, which tests may stop.
fn instant() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
