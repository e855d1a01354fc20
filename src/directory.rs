//! The directories, which know who has a mailbox, behind one interface.
//!
//! `resolve` asks them; each kind returns an [`Answer`]. Any error becomes [`Lookup::Unavailable`].

pub mod breaker;
mod building;
pub mod cache;
pub mod conflicts;
pub mod call_ahead;
pub mod expected;
pub mod file;
pub mod filter;
pub mod in_flight;
pub mod known;
pub mod ldap;
mod line;
mod login;
pub mod mail;
pub mod odd;
pub mod profile;
mod refreshing;
pub mod last_destination;
pub mod shares;
pub mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use self::building::listed;
pub use self::building::{Needs, build};
use self::call_ahead::CallAheadDirectory;
pub use self::conflicts::Conflict;
pub use self::expected::Announced;
use self::file::FileDirectory;
use self::ldap::LdapDirectory;
pub use self::ldap::{Examination, Refreshed, Tried};
pub use self::login::{Login, MayBind};
use self::shares::{Shares, Turn};
pub use self::snapshot::Accept;
pub use self::snapshot::report::{SnapshotReport, WholeRead};
use self::snapshot::served::Served;
pub use self::snapshot::served::{HeldAddress, HeldList};
use crate::config::DirectoryKind;
use crate::fast_map::FastMap;
use crate::lookup::{Answer, Behalf, Fresh, Lookup, Question, Standing};
use crate::routing::table::DirectoryRules;
use crate::smtp::address::Address;

#[derive(Default)]
pub struct Directories {
    by_name: FastMap<Arc<str>, Arc<dyn Directory>>,
    /// The directories with their configuration, for the next configuration to reuse.
    built: Vec<Built>,
    /// Tasks that watch files and count conflicts; they end with this configuration.
    _watches: Vec<AbortOnDropHandle<()>>,
}

/// A directory and its configuration.
#[derive(Clone)]
struct Built {
    name: Arc<str>,
    kind: DirectoryKind,
    directory: AnyDirectory,
}

#[derive(Clone)]
enum AnyDirectory {
    File(Arc<FileDirectory>),
    Ldap(Arc<LdapDirectory>),
    CallAhead(Arc<CallAheadDirectory>),
}

pub type AnswerFuture<'a> = futures_util::future::BoxFuture<'a, Answer>;

pub trait Directory: Send + Sync {
    /// The answer if memory has it; `None`: call [`ask`](Self::ask).
    fn known(&self, _: &Question) -> Option<Answer> {
        None
    }

    /// Answers one question. It never fails and never takes longer than the directory's time-out: any fault is
    /// `Unavailable`.
    fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a>;

    /// The shares by client, where one client may not use all of the directory's capacity.
    fn shares(&self) -> Option<&Arc<Shares>> {
        None
    }

    /// As [`ask`](Self::ask), with a turn of [`shares`](Self::shares), which lasts as long as the question.
    fn ask_in_turn<'a>(&'a self, question: &'a Question, _: Option<Turn>) -> AnswerFuture<'a> {
        self.ask(question)
    }

    /// A number that changes with the directory's content; 0 if it cannot tell.
    fn version(&self) -> u64 {
        0
    }
}

impl Directories {
    pub fn new(directories: impl IntoIterator<Item = (Arc<str>, Arc<dyn Directory>)>) -> Self {
        Self { by_name: directories.into_iter().collect(), ..Self::default() }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Directory>> {
        self.by_name.get(name)
    }

    /// Up to `most` addresses that more than one entry has, in alphabetical order, among directories whose whole
    /// content is in memory. `rules` have the domains that each directory is asked about.
    #[must_use]
    pub fn conflicts(&self, rules: &[DirectoryRules], most: usize) -> Vec<Conflict> {
        conflicts::find(&listed(&self.built), rules, most)
    }

    /// Examines an LDAP directory, with searches for a non-existent address. `None`: it is not an LDAP directory.
    pub async fn examine(&self, name: &str, nobody: &Address) -> Option<Result<Examination, Arc<str>>> {
        Some(self.ldap(name)?.examine(nobody).await)
    }

    /// Connects to each server of an LDAP directory. `None`: it is not one.
    pub async fn try_servers(&self, name: &str) -> Option<Vec<Tried>> {
        Some(self.ldap(name)?.try_servers().await)
    }

    /// Why an LDAP directory does not answer, or which of its servers do not.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        self.ldap(name).map(LdapDirectory::problems).unwrap_or_default()
    }

    /// The state of the directory's snapshot; `None`: it has none.
    #[must_use]
    pub fn snapshot(&self, name: &str) -> Option<SnapshotReport> {
        self.ldap(name)?.report()
    }

    /// Reads the whole directory now. `None`: it counts no changes.
    pub async fn refresh(&self, name: &str, accept: Accept) -> Option<Result<Refreshed, String>> {
        self.ldap(name)?.refresh(accept).await
    }

    /// The last whole reads of the directories that show deletions in whole reads only.
    #[must_use]
    pub fn whole_reads(&self) -> Vec<WholeRead> {
        let read = |built: &Built| match &built.directory {
            AnyDirectory::Ldap(ldap) => ldap.whole_read(&built.name),
            AnyDirectory::File(_) | AnyDirectory::CallAhead(_) => None,
        };
        self.built.iter().filter_map(read).collect()
    }

    /// The held changes, address by address. `None`: it counts no changes.
    #[must_use]
    pub fn held(&self, name: &str) -> Option<HeldList> {
        self.ldap(name)?.held_list()
    }

    /// Announces changes that are not counted or held, for this long; blocks while that is saved. `None`: it counts no
    /// changes.
    pub fn announce(&self, name: &str, announced: Announced, during: Duration) -> Option<Result<(), String>> {
        self.ldap(name)?.announce(announced, during)
    }

    /// The directory's key for an address. `None`: it is not an LDAP directory.
    #[must_use]
    pub fn key(&self, name: &str, address: &Address) -> Option<String> {
        Some(self.ldap(name)?.key(address))
    }

    /// The directory's key for a name that is not an address, such as `held` and `export` list: a name of the form that its
    /// profile has, whether an entry still has it or not, or one that it has in memory or had before changes were held.
    #[must_use]
    pub fn key_of_name(&self, name: &str, text: &str) -> Option<String> {
        let key = text.to_lowercase();
        let has = |served: &Served| [served.current(), served.latest()].iter().any(|view| view.has(&key));
        let is_one = self.ldap(name)?.is_name(&key) || self.entries(name).is_some_and(|served| has(&served));
        is_one.then_some(key)
    }

    /// The directory's content in memory; `None`: it has none, or has not been read yet.
    #[must_use]
    pub fn entries(&self, name: &str) -> Option<Arc<Served>> {
        self.ldap(name)?.served()
    }

    /// Called when a new configuration is in force: directories that were not reused stop updating their snapshots, and
    /// leave their files to their successors. Sessions in progress may still ask them.
    pub fn give_way_to(&self, successors: &Self) {
        for built in &self.built {
            let AnyDirectory::Ldap(ldap) = &built.directory else { continue };
            let is_same = |other: &Built| match &other.directory {
                AnyDirectory::Ldap(other) => Arc::ptr_eq(other, ldap),
                AnyDirectory::File(_) | AnyDirectory::CallAhead(_) => false,
            };
            if !successors.built.iter().any(is_same) {
                ldap.give_way();
            }
        }
    }

    fn ldap(&self, name: &str) -> Option<&LdapDirectory> {
        self.built.iter().find(|built| *built.name == *name).and_then(|built| match &built.directory {
            AnyDirectory::Ldap(ldap) => Some(&**ldap),
            AnyDirectory::File(_) | AnyDirectory::CallAhead(_) => None,
        })
    }

    /// The answer if the directory has it in memory.
    #[must_use]
    pub fn known(&self, question: &Question) -> Option<Answer> {
        self.by_name.get(&question.directory)?.known(question)
    }

    /// Waits for a turn to ask the directory.
    ///
    /// # Errors
    /// The answer, because no turn came in time.
    pub async fn turn(&self, question: &Question, behalf: &Behalf, standing: Standing) -> Result<Option<Turn>, Answer> {
        let Some(shares) = self.by_name.get(&question.directory).and_then(|directory| directory.shares()) else {
            return Ok(None);
        };
        let turn = shares.turn(behalf, standing).await.map(Some);
        turn.map_err(|cause| Answer { lookup: Lookup::Unavailable(cause.into()), fresh: Fresh::Live })
    }

    /// Asks the directory that the question names.
    pub async fn ask(&self, question: &Question) -> Answer {
        self.ask_in_turn(question, None).await
    }

    /// The same with a turn.
    pub async fn ask_in_turn(&self, question: &Question, turn: Option<Turn>) -> Answer {
        match self.by_name.get(&question.directory) {
            Some(directory) => directory.ask_in_turn(question, turn).await,
            None => Answer {
                lookup: Lookup::Unavailable("no such directory in this configuration".into()),
                fresh: Fresh::Live,
            },
        }
    }
}

impl Built {
    fn file(&self) -> Option<Arc<FileDirectory>> {
        match &self.directory {
            AnyDirectory::File(file) => Some(Arc::clone(file)),
            AnyDirectory::Ldap(_) | AnyDirectory::CallAhead(_) => None,
        }
    }

    fn shared(&self) -> Arc<dyn Directory> {
        match &self.directory {
            AnyDirectory::File(file) => Arc::clone(file) as _,
            AnyDirectory::Ldap(ldap) => Arc::clone(ldap) as _,
            AnyDirectory::CallAhead(asked) => Arc::clone(asked) as _,
        }
    }
}

/// The label of `directory_lookups_total{result}`.
fn result(lookup: &Lookup) -> &'static str {
    match lookup {
        Lookup::Found(_) => "found",
        Lookup::NotFound => "not-found",
        Lookup::Ambiguous(_) => "ambiguous",
        Lookup::AcceptsEverything(_) => "accepts-everything",
        Lookup::Held(_) => "unavailable",
        Lookup::Unavailable(_) => "unavailable",
    }
}
