//! Kind `call-ahead`: asks a mail server with RCPT whether it would accept mail for an address, without sending any.
//!
//! `directory::build` opens it, `resolve` asks it through [`Directory`]. A [`Prober`] talks to the server. An
//! acceptance is believed only while the server refuses an address that cannot exist (`strangers`), a refusal only if
//! it is about the recipient. Everything else is `Unavailable` (DESIGN section 5, "doubt is temporary").
//!
//! If the server asks us back about the same address, that question joins the one in progress, so that no probe causes
//! another one (DESIGN section 6, rule 2). For this reason probes of non-existent addresses are registered as well.
//!
//! A server may delay its refusal for longer than sessions wait (a tarpit). The question then continues in the
//! background, and its result is used at the sender's next attempt. Only the first guard question of a domain is waited
//! for to its end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use self::health::DirectoryHealth;
use self::pace::Pace;
use self::prober::{Heard, Prober, Until};
use self::strangers::{Manner, Strangers};
use crate::config::{AskedServer, CallAheadConfig};
use crate::directory::cache::{Cache, Condition};
use crate::directory::in_flight::InFlight;
use crate::directory::shares::{Most, Shares, Turn};
use crate::directory::{AnswerFuture, Directory, result};
use crate::lookup::{Answer, Fresh, Freshness, Kind, Lookup, Question, Recipient};
use crate::metrics::Metrics;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

mod guard;
mod pace;
pub mod prober;
mod health;
mod strangers;

/// The most addresses that are asked about concurrently, on one connection each.
pub const MAX_PROBES: usize = 12;

/// Strangers' questions get half of them, so that a client that guesses addresses does not keep others out.
const SHARES: Most = Most { strangers: MAX_PROBES / 2, ..Most::of(MAX_PROBES) };

/// The most probes of non-existent addresses beside them.
const MAX_STRANGERS: usize = 4;

/// A question that takes longer gives way to others.
const SLOW: Duration = Duration::from_secs(1);

/// How long a mail server may take to answer RCPT. Exchange's tarpit is 5 s by default.
const TARPIT: Duration = Duration::from_secs(45);

/// Callers wait this much longer than a question may take, so that they get the reason why it failed.
const GRACE: Duration = Duration::from_millis(100);

/// The most addresses with a delayed refusal that are remembered.
const REMEMBERED_LATE: usize = 10_000;

pub struct CallAheadDirectory(Arc<Asker>);

/// The state that the tasks of questions share.
struct Asker {
    name: Arc<str>,
    config: CallAheadConfig,
    server: AskedServer,
    prober: Arc<dyn Prober>,
    cache: Cache,
    in_flight: InFlight,
    /// Addresses that the server last refused later than `timeout`.
    late: quick_cache::sync::Cache<Arc<str>, ()>,
    /// Limits probes of non-existent addresses.
    guards: Semaphore,
    shares: Arc<Shares>,
    pace: Mutex<Pace>,
    strangers: Mutex<Strangers>,
    health: DirectoryHealth,
    metrics: Metrics,
}

impl CallAheadDirectory {
    /// Prepares the directory; no connection is made yet.
    ///
    /// # Errors
    /// Its send connector does not exist.
    pub fn open(
        name: &Arc<str>,
        config: &CallAheadConfig,
        prober: &Arc<dyn Prober>,
        metrics: &Metrics,
    ) -> Result<Self, Vec<String>> {
        let Some(server) = config.server.clone() else {
            return Err(vec![format!("`send_connector`: no send connector is called `{}`", config.send_connector)]);
        };
        metrics.directory_lookup_duration.with_label_values(&[&**name]);
        let asker = Asker {
            name: Arc::clone(name),
            server,
            prober: Arc::clone(prober),
            // DESIGN section 3, "live answer".
            cache: Cache::live_for(config.cache.not_found, config.cache),
            // One question for each address at a time, however long it takes.
            in_flight: InFlight::live_for(Duration::MAX),
            late: quick_cache::sync::Cache::new(REMEMBERED_LATE),
            guards: Semaphore::new(MAX_STRANGERS),
            shares: Shares::new(SHARES, config.timeout),
            pace: Mutex::new(Pace::new(config.probes_per_second)),
            strangers: Mutex::new(Strangers::new(config.cache)),
            health: DirectoryHealth::new(name, metrics),
            metrics: metrics.clone(),
            config: config.clone(),
        };
        Ok(Self(Arc::new(asker)))
    }
}

impl Directory for CallAheadDirectory {
    fn known(&self, question: &Question) -> Option<Answer> {
        let answer = self.0.remembered(question)?;
        self.0.count("cached");
        Some(answer)
    }

    fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a> {
        self.ask_in_turn(question, None)
    }

    fn shares(&self) -> Option<&Arc<Shares>> {
        Some(&self.0.shares)
    }

    fn ask_in_turn<'a>(&'a self, question: &'a Question, turn: Option<Turn>) -> AnswerFuture<'a> {
        Box::pin(async move {
            // Another question may have been answered during the wait.
            if let Some(answer) = self.known(question) {
                return answer;
            }
            let (asker, address) = (Arc::clone(&self.0), question.address.clone());
            let key = question.address.key().into();
            let answer = self.0.in_flight.ask(&key, question.freshness, || asker.question(address, turn));
            tokio::pin!(answer);
            if let Ok(answer) = timeout(self.0.patience(&key), &mut answer).await {
                return answer;
            }
            // A server that asks back about the probed address would wait for itself.
            let asks_back = strangers::is_like(&question.address);
            if asks_back || !self.0.waits_for_first_guard(question.address.domain()) {
                return self.0.not_in_time();
            }
            timeout(TARPIT, answer).await.unwrap_or_else(|_| self.0.not_in_time())
        })
    }
}

impl Asker {
    /// A cached answer. One that is about to expire is refreshed in the background.
    fn remembered(self: &Arc<Self>, question: &Question) -> Option<Answer> {
        let (address, now) = (&question.address, Instant::now().into_std());
        if self.strangers.lock().manner(address.domain(), now) == Some(Manner::Accepted) {
            return Some(Answer { lookup: self.accepts_everything(address.domain()), fresh: Fresh::Live });
        }
        let condition = if self.health.is_well() { Condition::Well } else { Condition::InDoubt };
        let answer = self.cache.get(address.key(), question.freshness, condition, now)?;
        self.keep_manner(address.domain());
        if self.cache.is_ageing(address.key(), now) {
            let (asker, again) = (Arc::clone(self), address.clone());
            // Runs in the background.
            drop(self.in_flight.join_or_start(&address.key().into(), Freshness::Any, || asker.question(again, None)));
        }
        Some(answer)
    }

    async fn question(self: Arc<Self>, address: Address, turn: Option<Turn>) -> Answer {
        let asked = Instant::now();
        let lookup = self.lookup(&address, asked + self.config.timeout, turn).await;
        self.count(result(&lookup));
        let duration = asked.elapsed().as_secs_f64();
        self.metrics.directory_lookup_duration.with_label_values(&[&*self.name]).observe(duration);
        if lookup == Lookup::NotFound && asked.elapsed() > self.config.timeout {
            self.late.insert(address.key().into(), ());
        } else {
            self.late.remove(address.key());
        }
        self.cache.put(address.key().into(), &lookup, asked.into_std());
        Answer { lookup, fresh: Fresh::Live }
    }

    /// How long a caller waits. For a recipient that the server refused late before, it waits longer, so that the
    /// refusal is given at the second attempt at the latest.
    fn patience(&self, key: &str) -> Duration {
        let timeout = self.config.timeout + GRACE;
        if self.late.get(key).is_some() { timeout + TARPIT } else { timeout }
    }

    fn not_in_time(&self) -> Answer {
        let server = &self.config.send_connector;
        let cause = format!("{server}: no answer in time; the question goes on for {TARPIT:?}");
        Answer { lookup: Lookup::Unavailable(cause.into()), fresh: Fresh::Live }
    }

    async fn lookup(self: &Arc<Self>, address: &Address, deadline: Instant, turn: Option<Turn>) -> Lookup {
        let lookup = self.read(self.probe(address, deadline, turn).await);
        if let Lookup::Unavailable(cause) = &lookup {
            tracing::debug!(directory = %self.name, %address, "unavailable: {cause}");
        }
        if !matches!(lookup, Lookup::Found(_)) {
            return lookup;
        }
        match self.manner(address.domain()).await {
            Ok(Manner::Refused) => lookup,
            Ok(Manner::Accepted) => self.accepts_everything(address.domain()),
            Err(cause) => Lookup::Unavailable(cause),
        }
    }

    /// Asks about one address when it is its turn.
    async fn probe(&self, address: &Address, deadline: Instant, turn: Option<Turn>) -> Heard {
        if let Err(cause) = self.health.admits() {
            return Heard::Failed(cause);
        }
        let turn = match self.shares.turn_or(turn).await {
            Ok(turn) => turn,
            Err(cause) => return Heard::Failed(cause),
        };
        self.in_time(address, deadline, turn.gives_way(SLOW)).await
    }

    /// Asks about a non-existent address. All answers depend on the result, so it gives way to no other question.
    async fn probe_nobody(&self, address: &Address) -> Heard {
        if let Err(cause) = self.health.admits() {
            return Heard::Failed(cause);
        }
        let deadline = Instant::now() + TARPIT;
        match timeout_at(deadline, self.guards.acquire()).await {
            Ok(Ok(_place)) => self.in_time(address, deadline, std::future::pending()).await,
            _ => Heard::Failed(format!("{MAX_STRANGERS} questions about nobody were under way for {TARPIT:?}")),
        }
    }

    /// Asks, no faster than `probes_per_second`.
    async fn in_time(&self, address: &Address, deadline: Instant, gives_way: impl Future<Output = ()>) -> Heard {
        let at = self.pace.lock().reserve(Instant::now().into_std(), deadline.into_std());
        let Some(at) = at else {
            let (most, waits) = (self.config.probes_per_second, self.config.timeout);
            return Heard::Failed(format!("more than {most} questions a second for {waits:?} (probes_per_second)"));
        };
        sleep_until(at.into()).await;
        tokio::select! {
            biased;
            heard = self.speak(address, deadline) => heard,
            () = gives_way => Heard::Unclear(format!("no answer within {SLOW:?}, and others waited to be asked")),
        }
    }

    async fn speak(&self, address: &Address, deadline: Instant) -> Heard {
        let (begun, timeout) = (Instant::now(), self.config.timeout);
        let until = Until { asked: deadline.min(begun + timeout), answered: begun + TARPIT };
        let heard = self.prober.probe(&self.server, address, until).await;
        // If the turn came late, the server has not had enough time to answer.
        let had_time = until.asked.saturating_duration_since(begun) >= timeout / 3;
        match &heard {
            Heard::Silent(_) if !had_time => {}
            heard => self.health.heard(heard),
        }
        heard
    }

    /// The answer, if the server's replies can be believed.
    fn read(&self, heard: Heard) -> Lookup {
        let server = &self.config.send_connector;
        match heard {
            Heard::Accepted(words) => Lookup::Found(Arc::new(Recipient {
                kind: Kind::Mailbox,
                target: None,
                mail_server: None,
                send_connector: None,
                entry: format!("{server}: {words}").into(),
                rule: "RCPT TO accepted".into(),
            })),
            Heard::Unknown => Lookup::NotFound,
            Heard::Unclear(words) | Heard::Withheld(words) | Heard::Silent(words) | Heard::Failed(words) => {
                Lookup::Unavailable(format!("{server}: {words}").into())
            }
        }
    }

    fn accepts_everything(&self, domain: &Domain) -> Lookup {
        Lookup::AcceptsEverything(self.relays_unknowns(domain).into())
    }

    fn relays_unknowns(&self, domain: &Domain) -> String {
        let server = &self.config.send_connector;
        format!("{server} accepts every address of {domain}, and relays or returns itself what it does not know")
    }

    fn count(&self, result: &str) {
        self.metrics.directory_lookups.with_label_values(&[&*self.name, result]).inc();
    }
}
