//! Kind `ldap`: one query a recipient, cached (`mode = "lookup"`), or all recipients in memory (`mode = "snapshot"`), where
//! one query is what makes sure.
//!
//! `directory::build` opens it, `resolve` asks it through [`Directory`]. A question is one search for the address and
//! the probe together; `supervisor` keeps the connection, `connection` makes one, `search` is a search on it, `answer`
//! says what came back means; `follow` keeps a snapshot fresh. Whatever is not a clean answer is `Unavailable` (DESIGN section 5, "doubt is temporary").

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use self::answer::Reading;
pub use self::examination::Examination;
pub use self::follow::Refreshed;
use self::follow::{Doubted, Keeper, Refresh, Request};
use self::holding::Holding;
use self::oddities::Oddities;
use self::pulse::Pulse;
use self::shown::{By, Shown};
use self::supervisor::{State, Supervisor};
use crate::config::{LdapConfig, LdapMode};
use crate::directory::cache::{Cache, Condition, is_known};
use crate::directory::in_flight::InFlight;
use crate::directory::odd;
use crate::directory::shares::{Most, Shares, Turn};
use crate::directory::snapshot::report::SnapshotReport;
use crate::directory::snapshot::served::Served;
use crate::directory::snapshot::{Accept, Snapshot};
use crate::directory::{Asked, Directory, result};
use crate::metrics::Metrics;
use crate::recipient::{Answer, Fresh, Kind, Lookup};
use crate::routing::verdict::{Freshness, Question};
use crate::smtp::address::Address;
use crate::time::UnixTime;

mod answer;
mod asking;
mod connection;
mod examination;
mod follow;
mod gate;
mod holding;
mod login;
mod oddities;
mod pulse;
mod root;
mod search;
mod server;
mod shown;
mod stream;
mod supervisor;
mod tls;
mod whole;

/// So long a question may take whatever its turn has cost: its own `timeout` comes first where it waited for none.
const AT_LEAST: Duration = Duration::from_millis(250);
/// So many questions at once; the others wait for their turn. OpenLDAP closes a connection on which more than 100 requests
/// wait (`conn_max_pending`, where it is bound as nobody), so all that may be under way on one stays below that.
pub const MAX_QUESTIONS: usize = 60;
/// So many searches for users who log in, beside them.
const MAX_LOGINS: usize = 16;
/// How many requests wait for a task that reads.
const REQUESTS: usize = 64;

/// A directory that is asked by LDAP. Dropping it closes its connection.
pub struct LdapDirectory {
    asker: Arc<Asker>,
    in_flight: InFlight,
    following: Option<Following>,
    /// Where it is asked for each recipient.
    holding: Option<Holding>,
    _supervisor: AbortOnDropHandle<()>,
}

/// How its snapshot is kept fresh.
struct Following {
    requests: mpsc::Sender<Request>,
    progress: Arc<AtomicUsize>,
    problem: Arc<Mutex<Option<String>>>,
    keeper: AbortOnDropHandle<()>,
}

/// What a question needs; shared by the tasks that ask.
struct Asker {
    name: Arc<str>,
    config: LdapConfig,
    cache: Cache,
    snapshot: Option<Arc<Snapshot>>,
    /// To whoever keeps it fresh.
    doubted: mpsc::Sender<Request>,
    shares: Arc<Shares>,
    logins: Semaphore,
    states: watch::Receiver<State>,
    pulse: Arc<Pulse>,
    metrics: Metrics,
    /// Answers from memory: a look-up of its series for each would cost more than the answer.
    cached: IntCounter,
    /// How long one server has for one question before the next is tried.
    patience: Duration,
    /// How often a question is asked, on one connection each.
    attempts: usize,
    oddities: Oddities,
    shown: Shown,
}

impl LdapDirectory {
    /// Prepares the directory and begins to connect, within a tokio runtime. Without a folder it keeps no snapshot and
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
        let servers = server::parse(config)?;
        if servers.iter().any(|server| server.is_encrypted()) {
            tls::client_config(config.ca.as_deref()).map_err(|problem| vec![problem])?;
        }
        let pulse = Arc::new(Pulse::new(name, metrics));
        metrics.directory_lookup_duration.with_label_values(&[&**name]);
        let one = servers.len() == 1;
        let attempts = servers.len() + 2;
        let (supervisor, states) = Supervisor::new(Arc::clone(name), config.clone(), servers, Arc::clone(&pulse));
        let kept = match (config.mode, folder) {
            (LdapMode::Snapshot(kept), Some(folder)) => Some((kept, folder)),
            (LdapMode::Snapshot(_) | LdapMode::Lookup, _) => None,
        };
        let snapshot = kept.map(|(kept, folder)| Arc::new(Snapshot::open(name, config, kept, folder, metrics)));
        let (requests, waiting) = mpsc::channel(REQUESTS);
        let following = snapshot.as_ref().zip(kept).map(|(snapshot, (kept, _))| {
            Following::begin(
                Keeper {
                    name: Arc::clone(name),
                    config: Arc::new(config.clone()),
                    kept,
                    snapshot: Arc::clone(snapshot),
                    states: states.clone(),
                    pulse: Arc::clone(&pulse),
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
            pulse,
            cached: metrics.directory_lookups.with_label_values(&[&**name, "cached"]),
            metrics: metrics.clone(),
            patience: if one { config.timeout } else { config.timeout / 3 },
            attempts,
            oddities: Oddities::default(),
            shown: Shown::default(),
        };
        let supervisor = AbortOnDropHandle::new(tokio::spawn(supervisor.run()));
        let holding = folder.filter(|_| kept.is_none()).map(|folder| Holding::open(name, config, folder, metrics));
        let holding = holding.transpose().map_err(|problem| vec![problem])?;
        Ok(Self { asker: Arc::new(asker), in_flight: InFlight::default(), following, holding, _supervisor: supervisor })
    }

    /// Reads it as a whole, now; where it is asked for each recipient there is only something to accept. `None`: it keeps
    /// nothing.
    pub async fn refresh(&self, accept: Accept) -> Option<Result<Refreshed, String>> {
        let Some(following) = &self.following else {
            let holding = self.holding.as_ref()?;
            let turned = if accept == Accept::Yes { holding.accept() } else { 0 };
            return Some(Ok(Refreshed { recipients: holding.len(), turned, held: holding.held() }));
        };
        let (done, answer) = oneshot::channel();
        let sent = following.requests.send(Request::Refresh(Refresh { accept, done })).await;
        let broke_off = || Err("it broke off; `fingerpost directory stats` and the log say why".to_owned());
        Some(if sent.is_ok() { answer.await.unwrap_or_else(|_| broke_off()) } else { broke_off() })
    }

    /// How its snapshot is.
    #[must_use]
    pub fn report(&self) -> Option<SnapshotReport> {
        let (snapshot, following) = (self.asker.snapshot.as_ref()?, self.following.as_ref()?);
        let first = snapshot.served().is_none();
        let reading = first.then(|| following.progress.load(Ordering::Relaxed));
        let problem = following.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(SnapshotReport { reading, problem, ..snapshot.report() })
    }

    /// Keeps nothing fresh any more: another one does.
    pub(super) fn give_way(&self) {
        if let Some(following) = &self.following {
            following.keeper.abort();
        }
        if let Some(holding) = &self.holding {
            holding.give_way();
        }
    }

    /// Writes what it remembers, for one of the same name that is about to be opened.
    pub(super) fn save(&self) {
        if let Some(holding) = &self.holding {
            holding.save();
        }
    }

    /// All recipients in memory.
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

    fn ask<'a>(&'a self, question: &'a Question) -> Asked<'a> {
        self.ask_in_turn(question, None)
    }

    fn shares(&self) -> Option<&Arc<Shares>> {
        Some(&self.asker.shares)
    }

    fn ask_in_turn<'a>(&'a self, question: &'a Question, turn: Option<Turn>) -> Asked<'a> {
        Box::pin(async move {
            // Who waited may find what another one asked.
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
    /// The answer, unless it is to be held.
    fn passed(&self, question: &Question, answer: Answer) -> Answer {
        let Some(holding) = &self.holding else { return answer };
        holding.pass(&self.asker.config.profile.key(&question.address), question.freshness, answer)
    }

    /// What snapshot and cache have.
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

impl Asker {
    /// What the snapshot has.
    fn in_memory(&self, address: &Address) -> Option<Lookup> {
        let snapshot = self.snapshot.as_ref()?;
        let key = self.config.profile.key(address);
        let lookup = snapshot.answer(&key, UnixTime::steady())?;
        // Whether others show what this one lacks, the directory is to be asked first.
        if matches!(&lookup, Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox)
            && snapshot.served().is_some_and(|served| served.current().lacks(&key))
            && !self.is_shown(By::Kind)
        {
            return None;
        }
        (is_known(&lookup) || self.condition() == Condition::Well).then_some(lookup)
    }

    /// Has entries read again of which the directory says something else than the snapshot.
    fn compare(&self, address: &Address, live: &Lookup) {
        let Some(snapshot) = &self.snapshot else { return };
        let key = self.config.profile.key(address);
        if snapshot.contradicts(&key, live) {
            // Where too many wait already, the next whole read shows it.
            let _ = self.doubted.try_send(Request::Look(Doubted::new(key.into_owned(), live.clone())));
        }
    }

    /// One question to the directory itself.
    async fn question(self: Arc<Self>, address: Address, turn: Option<Turn>) -> Answer {
        let asked = Instant::now();
        let lookup = match self.shares.turn_or(turn).await {
            // Nobody waits for a turn and for the answer, each as long as may be.
            Ok(turn) => match timeout_at(turn.until() + AT_LEAST, self.lookup(&address)).await {
                Ok(lookup) => lookup,
                Err(_) => Lookup::Unavailable("no answer in the time that waiting for a turn had left".into()),
            },
            Err(cause) => Lookup::Unavailable(cause.into()),
        };
        self.count(result(&lookup));
        let duration = asked.elapsed().as_secs_f64();
        self.metrics.directory_lookup_duration.with_label_values(&[&*self.name]).observe(duration);
        self.cache.put(address.key().into(), &lookup, asked.into_std());
        Answer { lookup, fresh: Fresh::Live }
    }

    async fn lookup(self: &Arc<Self>, address: &Address) -> Lookup {
        let filter = self.config.profile.filter(std::iter::once(address).chain(&self.config.probe)).to_string();
        let reply = match self.search(&filter).await {
            Ok((reply, _)) => reply,
            Err(cause) => {
                tracing::debug!(directory = %self.name, %address, "unavailable: {cause}");
                return Lookup::Unavailable(cause);
            }
        };
        let reading = answer::read(&self.config, &reply, address);
        self.pulse.health(&reading.health);
        self.met(&reading.known);
        if let Some(at_odds) = &reading.at_odds {
            tracing::debug!(directory = %self.name, %address, "{at_odds}");
        }
        let healthy = reading.health.is_ok();
        let lookup = match (self.believed(reading).await, self.unread(address)) {
            // It was the address of an entry whose addresses may not be read any more.
            (Lookup::NotFound, Some(unread)) => unread,
            (lookup, _) => lookup,
        };
        if healthy {
            self.compare(address, &lookup);
        }
        lookup
    }

    /// What the snapshot says of an address whose owner lacks what its like have.
    fn unread(&self, address: &Address) -> Option<Lookup> {
        let (served, key) = (self.snapshot.as_ref()?.served()?, self.config.profile.key(address));
        let lookup = served.current().lookup(&key);
        (matches!(lookup, Lookup::Unavailable(_)) && served.current().lacks(&key)).then_some(lookup)
    }

    /// The answer, unless it rests on the absence of attributes that no entry shows: the right to read them may be missing.
    async fn believed(self: &Arc<Self>, reading: Reading) -> Lookup {
        let rests_on = match &reading.lookup {
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => {
                reading.at_odds.as_deref().is_some_and(odd::is_lack).then_some(By::Kind)
            }
            // The probe would show it.
            Lookup::NotFound => self.config.probe.is_none().then_some(By::Address),
            _ => None,
        };
        match rests_on {
            Some(by) => self.shown(by).await.map_or_else(Lookup::Unavailable, |()| reading.lookup),
            None => reading.lookup,
        }
    }

    /// A connection that was lost or fell silent is in doubt before anything else is known of it.
    fn condition(&self) -> Condition {
        let connected = matches!(&*self.states.borrow(), State::Up(connection) if !connection.is_condemned());
        if connected && self.pulse.is_well() { Condition::Well } else { Condition::InDoubt }
    }

    fn count(&self, result: &str) {
        self.metrics.directory_lookups.with_label_values(&[&*self.name, result]).inc();
    }
}
