//! Kind `ldap`: one cached query for each recipient (`mode = "lookup"`), or all recipients in memory (`mode =
//! "snapshot"`), where a query confirms an answer.
//!
//! `directory::build` opens it, `resolve` asks it through [`Directory`]. A question is one search for the address and
//! the probe together; `supervisor` keeps the connection, `connection` opens one, `search` searches on it, `answer`
//! interprets the result; `follow` keeps a snapshot up to date. Anything but a clean answer is `Unavailable` (DESIGN
//! section 5, "doubt is temporary").

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::asker::Asker;
use self::change_hold::Holding;
pub use self::examination::Examination;
pub use self::follow::Refreshed;
use self::follow::{Keeper, Refresh, Request};
use self::health::DirectoryHealth;
use self::oddities::Oddities;
use self::opener::Opener;
use self::shown::Shown;
use self::supervisor::Supervisor;
pub use self::tried::Tried;
use crate::config::{LdapConfig, LdapMode};
use crate::directory::cache::{Cache, LIVE};
use crate::directory::expected::Announced;
use crate::directory::in_flight::InFlight;
use crate::directory::mail::{Mail, NoMail};
use crate::directory::shares::{Most, Shares, Turn};
use crate::directory::snapshot::report::{SnapshotReport, WholeRead};
use crate::directory::snapshot::served::{HeldList, Served};
use crate::directory::snapshot::{Accept, Room, Snapshot};
use crate::directory::{AnswerFuture, Directory};
use crate::lookup::{Answer, Fresh, Freshness, Question};
use crate::metrics::Metrics;
use crate::smtp::address::Address;

mod answer;
mod asker;
mod asking;
mod connection;
mod examination;
mod follow;
mod backpressure;
mod handshake;
mod change_hold;
mod login;
mod oddities;
mod opener;
mod health;
mod reason;
mod rejected;
mod root_dse;
mod search;
mod server;
mod shown;
mod stream;
mod supervisor;
mod tried;
mod tls;
mod full_read;

/// A question that had to wait for its turn has at least this long; one that did not has `timeout`.
const AT_LEAST: Duration = Duration::from_millis(250);
/// The most concurrent questions; others wait for their turn. OpenLDAP closes a connection on which more than 100
/// requests wait (`conn_max_pending`, for anonymous binds), so all requests on one connection stay below that.
pub const MAX_QUESTIONS: usize = 60;
/// The most concurrent searches for users who log in, beside them.
const MAX_LOGINS: usize = 16;
/// The length of the queue of requests for the task that follows the directory.
const REQUESTS: usize = 64;

/// A directory that is queried by LDAP. Dropping it closes its connection.
pub struct LdapDirectory {
    asker: Arc<Asker>,
    opener: Arc<Opener>,
    in_flight: InFlight,
    following: Option<Following>,
    /// Only if it is asked for each recipient.
    holding: Option<Holding>,
    _supervisor: AbortOnDropHandle<()>,
}

/// The task that keeps its snapshot up to date.
struct Following {
    requests: mpsc::Sender<Request>,
    progress: Arc<AtomicUsize>,
    problem: Arc<Mutex<Option<String>>>,
    keeper: AbortOnDropHandle<()>,
}

impl LdapDirectory {
    /// Prepares the directory and begins to connect; needs a tokio runtime. Without a folder it keeps no snapshot and
    /// is asked for each recipient, whatever its mode.
    ///
    /// # Errors
    /// What is wrong with its urls or its CA.
    pub fn open(
        name: &Arc<str>,
        config: &LdapConfig,
        folder: Option<&Path>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<String>> {
        let mail: Arc<dyn Mail> = Arc::new(NoMail);
        let room = folder.map(|folder| Room { folder, metrics, mail: &mail });
        Self::open_after(None, name, config, room, metrics)
    }

    /// The same with a folder and knowledge of accepted mail, and as the successor of another one: passwords that were
    /// rejected for the same account stay rejected.
    ///
    /// # Errors
    /// The same.
    pub fn open_after(
        previous: Option<&Self>,
        name: &Arc<str>,
        config: &LdapConfig,
        room: Option<Room<'_>>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<String>> {
        let servers = server::parse(config)?;
        if servers.iter().any(|server| server.is_encrypted()) {
            tls::client_config(config).map_err(|problem| vec![problem])?;
        }
        let health = Arc::new(DirectoryHealth::new(name, metrics));
        metrics.directory_lookup_duration.with_label_values(&[&**name]);
        let one = servers.len() == 1;
        let attempts = servers.len() + 2;
        let rejected = previous.and_then(|previous| previous.opener.rejected_of(config)).unwrap_or_default();
        let opener = Arc::new(Opener::new(name, config, servers, rejected, metrics));
        let (supervisor, states) =
            Supervisor::new(Arc::clone(name), config.timeout, Arc::clone(&opener), Arc::clone(&health));
        let kept = match (config.mode, room) {
            (LdapMode::Snapshot(kept), Some(room)) => Some((kept, room)),
            (LdapMode::Snapshot(_) | LdapMode::Lookup, _) => None,
        };
        let snapshot = kept.map(|(kept, room)| Arc::new(Snapshot::open(name, config, kept, &room)));
        let (requests, waiting) = mpsc::channel(REQUESTS);
        let following = snapshot.as_ref().zip(kept).map(|(snapshot, (kept, _))| {
            Following::begin(
                Keeper {
                    name: Arc::clone(name),
                    config: Arc::new(config.clone()),
                    kept,
                    snapshot: Arc::clone(snapshot),
                    states: states.clone(),
                    health: Arc::clone(&health),
                    requests: tokio::sync::Mutex::new(waiting),
                    progress: Arc::default(),
                    problem: Arc::default(),
                    anew: Mutex::default(),
                },
                requests.clone(),
            )
        });
        let asker = Asker {
            name: Arc::clone(name),
            config: config.clone(),
            cache: Cache::new(kept.map_or(config.cache, |(kept, _)| config.cache.at_most(kept.poll))),
            snapshot,
            doubted: requests,
            shares: Shares::new(Most::of(MAX_QUESTIONS), config.timeout),
            logins: Semaphore::new(MAX_LOGINS),
            states,
            health,
            cached: metrics.directory_lookups.with_label_values(&[&**name, "cached"]),
            metrics: metrics.clone(),
            patience: if one { config.timeout } else { config.timeout / 3 },
            attempts,
            oddities: Oddities::default(),
            shown: Shown::default(),
        };
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        let holding = room.filter(|_| kept.is_none()).map(|room| Holding::open(name, config, &room));
        let holding = holding.transpose().map_err(|problem| vec![problem])?;
        let (asker, in_flight) = (Arc::new(asker), InFlight::live_for(LIVE));
        Ok(Self { asker, opener, in_flight, following, holding, _supervisor: supervisor })
    }

    /// Reads the whole directory now; where it is asked for each recipient, only accepts changes. `None`: it counts no
    /// changes.
    pub async fn refresh(&self, accept: Accept) -> Option<Result<Refreshed, String>> {
        let connected = self.connect_again().await;
        let Some(following) = &self.following else {
            let holding = self.holding.as_ref()?;
            if let (Err(cause), Accept::No) = (connected, &accept) {
                return Some(Err(cause.to_string()));
            }
            let turned = holding.accept(accept).await;
            return Some(Ok(Refreshed { recipients: holding.len(), turned, held: holding.held() }));
        };
        let (done, answer) = oneshot::channel();
        let sent = following.requests.send(Request::Refresh(Refresh { accept, done })).await;
        let broke_off = || Err("it broke off; `fingerpost directory stats` and the log say why".to_owned());
        Some(if sent.is_ok() { answer.await.unwrap_or_else(|_| broke_off()) } else { broke_off() })
    }

    /// The held changes, address by address; `None`: it counts no changes.
    #[must_use]
    pub fn held_list(&self) -> Option<HeldList> {
        match (&self.asker.snapshot, &self.holding) {
            (Some(snapshot), _) => Some(snapshot.held_list()),
            (None, holding) => holding.as_ref().map(Holding::held_list),
        }
    }

    /// Announces changes that are not counted or held, for this long; blocks while that is saved. `None`: it counts no
    /// changes.
    pub fn announce(&self, announced: Announced, during: Duration) -> Option<Result<(), String>> {
        match (&self.asker.snapshot, &self.holding) {
            (Some(snapshot), _) => Some(snapshot.announce(announced, during)),
            (None, holding) => holding.as_ref().map(|holding| holding.announce(announced, during)),
        }
    }

    /// The key under which it knows an address.
    pub(super) fn key(&self, address: &Address) -> String {
        self.asker.config.profile.key(address).into_owned()
    }

    /// Whether a text, which is not an address, has the form of a name that the profile uses.
    pub(super) fn is_name(&self, text: &str) -> bool {
        self.asker.config.profile.is_name(text)
    }

    /// The state of its snapshot.
    #[must_use]
    pub fn report(&self) -> Option<SnapshotReport> {
        let (snapshot, following) = (self.asker.snapshot.as_ref()?, self.following.as_ref()?);
        let first = snapshot.served().is_none();
        let reading = first.then(|| following.progress.load(Ordering::Relaxed));
        let problem = following.problem.lock().clone();
        Some(SnapshotReport { reading, problem, ..snapshot.report() })
    }

    /// Its last whole read, if it shows deletions in whole reads only. `None`: also where it was not read yet.
    pub(super) fn whole_read(&self, name: &str) -> Option<WholeRead> {
        let snapshot = self.asker.snapshot.as_ref()?;
        let ago = snapshot.whole_read_ago()?;
        Some(WholeRead { directory: name.to_owned(), ago, found_gone: snapshot.found_gone() })
    }

    /// Stops keeping the snapshot up to date: a successor does.
    pub(super) fn give_way(&self) {
        self.opener.give_way();
        if let Some(snapshot) = &self.asker.snapshot {
            snapshot.give_way();
        }
        if let Some(following) = &self.following {
            following.keeper.abort();
        }
        if let Some(holding) = &self.holding {
            holding.give_way();
        }
    }

    /// Saves its state for a successor of the same name.
    pub(super) fn save(&self) {
        if let Some(holding) = &self.holding {
            holding.save();
        }
    }

    /// The recipients in memory.
    pub(super) fn served(&self) -> Option<Arc<Served>> {
        self.asker.snapshot.as_ref()?.served()
    }
}

impl Following {
    fn begin(keeper: Keeper, requests: mpsc::Sender<Request>) -> Self {
        let (progress, problem) = (Arc::clone(&keeper.progress), Arc::clone(&keeper.problem));
        Self { requests, progress, problem, keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())) }
    }
}

impl Directory for LdapDirectory {
    fn known(&self, question: &Question) -> Option<Answer> {
        self.remembered(question).map(|answer| self.passed(question, answer))
    }

    fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a> {
        self.ask_in_turn(question, None)
    }

    fn shares(&self) -> Option<&Arc<Shares>> {
        Some(&self.asker.shares)
    }

    fn ask_in_turn<'a>(&'a self, question: &'a Question, turn: Option<Turn>) -> AnswerFuture<'a> {
        Box::pin(async move {
            // Another question may have been answered during the wait.
            if let Some(answer) = self.known(question) {
                return answer;
            }
            let (asker, address) = (Arc::clone(&self.asker), question.address.clone());
            let key = question.address.key().into();
            let answer = self.in_flight.ask(&key, question.freshness, || asker.question(address, turn)).await;
            self.passed(question, answer)
        })
    }

    fn version(&self) -> u64 {
        self.asker.snapshot.as_ref().map_or(0, |snapshot| snapshot.version())
    }
}

impl LdapDirectory {
    /// The answer, unless it has to be held.
    fn passed(&self, question: &Question, answer: Answer) -> Answer {
        let Some(holding) = &self.holding else { return answer };
        holding.pass(&self.asker.config.profile.key(&question.address), question.freshness, answer)
    }

    /// The answer in the snapshot or the cache.
    fn remembered(&self, question: &Question) -> Option<Answer> {
        if question.freshness == Freshness::Any
            && let Some(lookup) = self.asker.in_memory(&question.address)
        {
            self.asker.cached.inc();
            return Some(Answer { lookup, fresh: Fresh::Cached });
        }
        let (key, now) = (question.address.key(), Instant::now().into_std());
        let answer = self.asker.cache.get(key, question.freshness, self.asker.condition(), now)?;
        self.asker.cached.inc();
        Some(answer)
    }
}
