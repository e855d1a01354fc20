//! Asks an LDAP directory one question. `asking` searches, `answer` interprets the result.

use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::answer::{self, Reading};
use super::follow::{Doubted, Request};
use super::health::DirectoryHealth;
use super::oddities::Oddities;
use super::shown::{By, Shown};
use super::supervisor::ConnectionState;
use super::{AT_LEAST, Snapshot};
use crate::config::LdapConfig;
use crate::directory::cache::{Cache, Condition, is_known};
use crate::directory::shares::{Shares, Turn};
use crate::directory::{odd, result};
use crate::lookup::{Answer, Fresh, Kind, Lookup};
use crate::metrics::Metrics;
use crate::smtp::address::Address;
use crate::time::UnixTime;

/// The state that the tasks of questions share.
pub(super) struct Asker {
    pub(super) name: Arc<str>,
    pub(super) config: LdapConfig,
    pub(super) cache: Cache,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// To the task that keeps the snapshot up to date.
    pub(super) doubted: mpsc::Sender<Request>,
    pub(super) shares: Arc<Shares>,
    pub(super) logins: Semaphore,
    pub(super) states: watch::Receiver<ConnectionState>,
    pub(super) health: Arc<DirectoryHealth>,
    pub(super) metrics: Metrics,
    /// Kept because looking the series up for each cached answer would cost more than the answer.
    pub(super) cached: IntCounter,
    /// How long one server has for a question before the next is tried.
    pub(super) patience: Duration,
    /// On how many connections a question is tried.
    pub(super) attempts: usize,
    pub(super) oddities: Oddities,
    pub(super) shown: Shown,
}

impl Asker {
    /// The snapshot's answer.
    pub(super) fn in_memory(&self, address: &Address) -> Option<Lookup> {
        let snapshot = self.snapshot.as_ref()?;
        let key = self.config.profile.key(address);
        let lookup = snapshot.answer(&key, UnixTime::steady())?;
        // The directory first has to be asked whether other entries show the missing attribute.
        if matches!(&lookup, Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox)
            && snapshot.served().is_some_and(|served| served.current().lacks(&key))
            && !self.is_shown(By::Kind)
        {
            return None;
        }
        (is_known(&lookup) || self.condition() == Condition::Well).then_some(lookup)
    }

    /// Has entries read again if the directory's answer differs from the snapshot.
    pub(super) fn compare(&self, address: &Address, live: &Lookup) {
        let Some(snapshot) = &self.snapshot else { return };
        let key = self.config.profile.key(address);
        if snapshot.contradicts(&key, live) {
            // If too many are waiting already, the next full read shows the difference.
            let _ = self.doubted.try_send(Request::Look(Doubted::new(key.into_owned(), live.clone())));
        }
    }

    pub(super) async fn question(self: Arc<Self>, address: Address, turn: Option<Turn>) -> Answer {
        let asked = Instant::now();
        let lookup = match self.shares.turn_or(turn).await {
            // Waiting for a turn and waiting for the answer share one time limit.
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

    pub(super) async fn lookup(self: &Arc<Self>, address: &Address) -> Lookup {
        let filter = self.config.profile.filter(std::iter::once(address).chain(&self.config.probe)).to_string();
        let reply = match self.search(&filter).await {
            Ok((reply, _)) => reply,
            Err(cause) => {
                tracing::debug!(directory = %self.name, %address, "unavailable: {cause}");
                return Lookup::Unavailable(cause);
            }
        };
        let reading = answer::read(&self.config, &reply, address);
        self.health.set(&reading.health);
        self.met(&reading.known);
        if let Some(at_odds) = &reading.at_odds {
            tracing::debug!(directory = %self.name, %address, "{at_odds}");
        }
        let healthy = reading.health.is_ok();
        let lookup = self.unless_unread(address, self.believed(reading).await);
        if healthy {
            self.compare(address, &lookup);
        }
        lookup
    }

    /// The directory's answer, unless the snapshot knows that the address's owner may not be read any more.
    fn unless_unread(&self, address: &Address, live: Lookup) -> Lookup {
        match self.snapshot.as_ref().and_then(|snapshot| snapshot.served()) {
            Some(served) => served.unless_unread(&self.config.profile.key(address), live),
            None => live,
        }
    }

    /// The answer, unless it rests on missing attributes that no entry shows: the right to read them may be missing.
    pub(super) async fn believed(self: &Arc<Self>, reading: Reading) -> Lookup {
        let rests_on = match &reading.lookup {
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => {
                reading.at_odds.as_deref().is_some_and(odd::is_lack).then_some(By::Kind)
            }
            // With a probe, that would show it.
            Lookup::NotFound => self.config.probe.is_none().then_some(By::Address),
            _ => None,
        };
        match rests_on {
            Some(by) => self.shown(by).await.map_or_else(Lookup::Unavailable, |()| reading.lookup),
            None => reading.lookup,
        }
    }

    /// A connection that was lost or does not answer makes the directory doubtful at once.
    pub(super) fn condition(&self) -> Condition {
        let connected = matches!(&*self.states.borrow(), ConnectionState::Up(connection) if !connection.is_condemned());
        if connected && self.health.is_well() { Condition::Well } else { Condition::InDoubt }
    }

    pub(super) fn count(&self, result: &str) {
        self.metrics.directory_lookups.with_label_values(&[&*self.name, result]).inc();
    }
}
