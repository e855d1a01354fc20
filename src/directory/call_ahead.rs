//! Kind `call-ahead`: a mail server is asked itself whether it would take mail for an address, and never sent any.
//!
//! `directory::build` opens it, `resolve` asks it through [`Directory`]. A [`Prober`] speaks with the server. What it
//! heard is believed in so far as it proves something: a yes only while the server says no to an address that nobody
//! can have (`strangers`), a no only if it is about the recipient. Whatever else happens is `Unavailable` (DESIGN
//! section 5, "doubt is temporary").
//!
//! A server that asks us back about the address that it is asked about joins that question and waits for its end, so
//! that no probe ever causes another one (DESIGN section 6, rule 2). For this the strange addresses, too, are questions
//! under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout_at};

use self::pace::Pace;
use self::prober::{Heard, Prober};
use self::pulse::Pulse;
use self::strangers::{Manner, Strangers};
use crate::config::{AskedServer, CallAheadConfig};
use crate::directory::cache::{Cache, Condition};
use crate::directory::in_flight::InFlight;
use crate::directory::{Asked, Directory, result};
use crate::metrics::Metrics;
use crate::recipient::{Answer, Fresh, Kind, Lookup, Recipient};
use crate::routing::verdict::{Freshness, Question};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

mod pace;
pub mod prober;
mod pulse;
mod strangers;

/// So many addresses are asked about at once, on a connection each.
pub const MAX_PROBES: usize = 8;

/// A mail server that is asked.
pub struct CallAheadDirectory(Arc<Asker>);

/// What a question needs; shared by the tasks that ask.
struct Asker {
    name: Arc<str>,
    config: CallAheadConfig,
    server: AskedServer,
    prober: Arc<dyn Prober>,
    cache: Cache,
    in_flight: InFlight,
    bound: Semaphore,
    pace: Mutex<Pace>,
    strangers: Mutex<Strangers>,
    pulse: Pulse,
    metrics: Metrics,
}

impl CallAheadDirectory {
    /// Prepares the directory; nobody is asked yet.
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
            // One question an address at a time, however long it takes.
            in_flight: InFlight::live_for(Duration::MAX),
            bound: Semaphore::new(MAX_PROBES),
            pace: Mutex::new(Pace::new(config.probes_per_second)),
            strangers: Mutex::new(Strangers::new(config.cache)),
            pulse: Pulse::new(name, metrics),
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

    fn ask<'a>(&'a self, question: &'a Question) -> Asked<'a> {
        Box::pin(async move {
            // Who waited may find what another one asked.
            if let Some(answer) = self.known(question) {
                return answer;
            }
            let (asker, address) = (Arc::clone(&self.0), question.address.clone());
            let key = question.address.key().into();
            self.0.in_flight.ask(&key, question.freshness, || asker.question(address)).await
        })
    }
}

impl Asker {
    /// What is known without asking. An answer that will end soon is asked for again beside it.
    fn remembered(self: &Arc<Self>, question: &Question) -> Option<Answer> {
        let (address, now) = (&question.address, Instant::now().into_std());
        if self.strangers().manner(address.domain(), now) == Some(Manner::Accepted) {
            return Some(Answer { lookup: self.accepts_everything(address.domain()), fresh: Fresh::Live });
        }
        let condition = if self.pulse.is_well() { Condition::Well } else { Condition::InDoubt };
        let answer = self.cache.get(address.key(), question.freshness, condition, now)?;
        if self.cache.is_ageing(address.key(), now) {
            let (asker, again) = (Arc::clone(self), address.clone());
            // Nobody waits for it.
            drop(self.in_flight.join_or_start(&address.key().into(), Freshness::Any, || asker.question(again)));
        }
        Some(answer)
    }

    /// One question to the server itself.
    async fn question(self: Arc<Self>, address: Address) -> Answer {
        let asked = Instant::now();
        let lookup = self.lookup(&address, asked + self.config.timeout).await;
        self.count(result(&lookup));
        let duration = asked.elapsed().as_secs_f64();
        self.metrics.directory_lookup_duration.with_label_values(&[&*self.name]).observe(duration);
        self.cache.put(address.key().into(), &lookup, asked.into_std());
        Answer { lookup, fresh: Fresh::Live }
    }

    async fn lookup(self: &Arc<Self>, address: &Address, deadline: Instant) -> Lookup {
        let lookup = self.read(self.probe(address, deadline).await);
        if let Lookup::Unavailable(cause) = &lookup {
            tracing::debug!(directory = %self.name, %address, "unavailable: {cause}");
        }
        if !matches!(lookup, Lookup::Found(_)) {
            return lookup;
        }
        match self.manner(address.domain(), deadline).await {
            Ok(Manner::Refused) => lookup,
            Ok(Manner::Accepted) => self.accepts_everything(address.domain()),
            Err(cause) => Lookup::Unavailable(cause),
        }
    }

    /// How the server treats addresses of this domain that nobody has: asked once for all who want to know it.
    async fn manner(self: &Arc<Self>, domain: &Domain, deadline: Instant) -> Result<Manner, Arc<str>> {
        if let Some(manner) = self.strangers().manner(domain, Instant::now().into_std()) {
            return Ok(manner);
        }
        let (asker, asked) = (Arc::clone(self), domain.clone());
        // No address is called like a domain.
        let key = domain.as_str().into();
        let answer = self.in_flight.ask(&key, Freshness::Live, || asker.stranger(asked));
        let answer = timeout_at(deadline, answer).await;
        match answer.map(|answer| answer.lookup) {
            Ok(Lookup::NotFound) => Ok(Manner::Refused),
            Ok(Lookup::Unavailable(cause)) => {
                Err(format!("its yes is not believed while nobody knows whether it ever says no: {cause}").into())
            }
            Ok(Lookup::Found(_) | Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_)) => {
                Ok(Manner::Accepted)
            }
            Err(_) => Err("it was not known in time whether it ever says no".into()),
        }
    }

    /// Asks about an address that nobody has, and notes how that was taken.
    async fn stranger(self: Arc<Self>, domain: Domain) -> Answer {
        let answer = match strangers::address(&domain) {
            Ok(address) => {
                let (asker, key) = (Arc::clone(&self), address.key().into());
                let question = || async move {
                    let deadline = Instant::now() + asker.config.timeout;
                    Answer { lookup: asker.read(asker.probe(&address, deadline).await), fresh: Fresh::Live }
                };
                self.in_flight.ask(&key, Freshness::Live, question).await
            }
            Err(cause) => Answer { lookup: Lookup::Unavailable(cause.into()), fresh: Fresh::Live },
        };
        match &answer.lookup {
            Lookup::Found(_) => self.note(&domain, Manner::Accepted),
            Lookup::NotFound => self.note(&domain, Manner::Refused),
            Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) | Lookup::Unavailable(_) => {}
        }
        answer
    }

    fn note(&self, domain: &Domain, manner: Manner) {
        let (before, accepting) = {
            let mut strangers = self.strangers();
            (strangers.note(domain, manner, Instant::now().into_std()), strangers.any_accepted())
        };
        self.metrics.directory_accepts_everything.with_label_values(&[&*self.name]).set(i64::from(accepting));
        match (before, manner) {
            (Some(Manner::Accepted), Manner::Refused) => {
                tracing::info!(directory = %self.name, %domain, "the mail server refuses unknown recipients again");
            }
            (None | Some(Manner::Refused), Manner::Accepted) => {
                // What it said before rested on nothing, perhaps.
                self.cache.forget();
                tracing::error!(
                    alert = true,
                    directory = %self.name,
                    "{}: let it refuse unknown recipients at RCPT",
                    self.relays_unknowns(domain)
                );
            }
            (Some(Manner::Accepted), Manner::Accepted) | (None | Some(Manner::Refused), Manner::Refused) => {}
        }
    }

    /// One address, when it is its turn.
    async fn probe(&self, address: &Address, deadline: Instant) -> Heard {
        let timeout = self.config.timeout;
        if let Err(cause) = self.pulse.admits() {
            return Heard::Failed(cause);
        }
        let permit = timeout_at(deadline, self.bound.acquire()).await;
        // A place that becomes free when the time is up is none.
        let (Ok(Ok(_permit)), true) = (permit, Instant::now() < deadline) else {
            return Heard::Failed(format!("{MAX_PROBES} questions were under way for {timeout:?}"));
        };
        let turn = self.pace().reserve(Instant::now().into_std(), deadline.into_std());
        let Some(turn) = turn else {
            let most = self.config.probes_per_second;
            return Heard::Failed(format!("more than {most} questions a second for {timeout:?} (probes_per_second)"));
        };
        sleep_until(turn.into()).await;
        let begun = Instant::now();
        let heard = timeout_at(deadline, self.prober.probe(&self.server, address, deadline)).await;
        let heard = heard.unwrap_or_else(|_| Heard::Silent("no answer in time".to_owned()));
        // Who had to wait for his turn has not given it the time to answer.
        let had_time = deadline.saturating_duration_since(begun) >= timeout / 3;
        match &heard {
            Heard::Silent(_) if !had_time => {}
            heard => self.pulse.heard(heard),
        }
        heard
    }

    /// What was heard about an address, taken at its word.
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
            Heard::Unclear(words) | Heard::Silent(words) | Heard::Failed(words) => {
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

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, result: &str) {
        self.metrics.directory_lookups.with_label_values(&[&*self.name, result]).inc();
    }
}
