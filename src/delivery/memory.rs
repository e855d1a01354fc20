//! What is remembered of accepted mail for later mail: relays, for loop detection (DESIGN section 6, rule 4), and
//! addresses whose mail was accepted or refused lately (section 5, "doubt is temporary").
//!
//! Sessions and the queue note accepted mail here, once for each message; both read it.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::last_refusals::{LastRefusal, LastRefusals};
use super::outcome::Outcome;
use super::refuses_everybody::RefusesEverybody;
use crate::config::ReceiveConnector;
use crate::message::header::Identity;
use crate::report::dead_letter::DeadLetters;
use crate::report::waiting::Waiting;
use crate::routing::doubt::{self, Doubt, KnownBy, Refused};
use crate::routing::loops::Relayed;
use crate::routing::recently_good::{Brought, RecentlyGood, SharedEvidence};
use crate::routing::relay_memory::{Names, RelayMemory, Returned};
use crate::routing::verdict::{Route, RouteKind};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::Origin;
use crate::spool::Spool;
use crate::strangers::taken::Taken;
use crate::time::{QueueTime, UnixTime};

/// What other nodes know cannot be asked for: nobody is refused for good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unasked;

/// The memories. Clones share them.
#[derive(Clone)]
pub struct Memory {
    pub relays: Arc<Mutex<RelayMemory>>,
    pub recently_good: Arc<Mutex<RecentlyGood>>,
    /// What other nodes know of addresses, if there are any.
    shared: Option<Arc<dyn SharedEvidence>>,
    /// Clients whose mail was accepted lately.
    clients: Arc<Mutex<Taken>>,
    /// Reports about strangers' messages in the queue.
    pub(crate) reports: Waiting,
    pub(crate) dead_letters: DeadLetters,
    /// Next hops that may refuse all recipients.
    everybody: Arc<Mutex<RefusesEverybody>>,
    refusals: Arc<Mutex<LastRefusals>>,
    /// For its time, by which recently good addresses and doubt are counted.
    spool: Arc<dyn Spool>,
}

impl Memory {
    /// Made from memories that others share; the spool has the time for them.
    #[must_use]
    pub fn new(
        relays: Arc<Mutex<RelayMemory>>,
        recently_good: Arc<Mutex<RecentlyGood>>,
        spool: Arc<dyn Spool>,
    ) -> Self {
        Self {
            relays,
            recently_good,
            shared: None,
            clients: Arc::default(),
            reports: Waiting::default(),
            dead_letters: DeadLetters::default(),
            everybody: Arc::default(),
            refusals: Arc::default(),
            spool,
        }
    }

    /// The same, with what other nodes know.
    #[must_use]
    pub fn with_shared(mut self, shared: Arc<dyn SharedEvidence>) -> Self {
        self.shared = Some(shared);
        self
    }

    /// Takes in what other nodes know of an address, which comes before the last word about it.
    ///
    /// # Errors
    /// [`Unasked`].
    pub(crate) async fn take_in(&self, address: &Address, by: KnownBy) -> Result<(), Unasked> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let names = self.good().shared_names(address, by);
        let evidence = shared.ask(names).await.ok_or(Unasked)?;
        self.good().learn(names, &evidence, self.queue_time());
        Ok(())
    }

    /// Applies the rule to a refusal of ours, and records the result.
    pub(crate) async fn doubt(&self, address: &Address, by: KnownBy, refused: &Refused<'_>) -> Doubt {
        let now = self.queue_time();
        let known = self.good().known(address, by, now);
        if !doubt::doubt(refused, &known, now).rests_on_memory() {
            return self.good().doubt(address, by, refused, now);
        }
        match self.take_in(address, by).await {
            Ok(()) => self.good().doubt(address, by, refused, now),
            Err(Unasked) => Doubt::Temporary,
        }
    }

    /// How other nodes name a message, if there are any.
    pub(crate) fn names(&self) -> Option<Names> {
        self.shared.is_some().then(|| Names::new(self.good().key()))
    }

    /// Whether a message has come back so often, at all nodes together, that this is a loop.
    ///
    /// # Errors
    /// [`Unasked`].
    pub(crate) async fn is_loop(&self, returned: Returned) -> Result<bool, Unasked> {
        let Some(shared) = &self.shared else { return Ok(returned.times >= returned.loops_at) };
        let times = shared.returned(returned, self.queue_time()).await.ok_or(Unasked)?;
        Ok(times >= returned.loops_at)
    }

    pub(crate) fn queue_time(&self) -> QueueTime {
        self.spool.queue_time()
    }

    /// Notes a message that a next hop has accepted for these recipients (as received) by these routes; `stranger`
    /// brought it.
    pub(crate) fn accepted<'a>(
        &self,
        reverse_path: &ReversePath,
        facts: &Identity,
        stranger: Option<IpAddr>,
        recipients: impl Iterator<Item = (&'a Address, &'a Route)> + Clone,
    ) {
        let (now, queue_time) = (UnixTime::steady(), self.queue_time());
        let mut relays = self.relays();
        for (recipient, route) in recipients.clone() {
            relays.note(&Relayed { connector: &route.connector, recipient, reverse_path, facts, now });
        }
        drop(relays);
        let mut good = self.good();
        for (recipient, route) in recipients {
            let is_known = matches!(route.way, RouteKind::Resolved | RouteKind::Redirected);
            good.accepted_from(recipient, &route.connector, Brought { stranger, is_known }, queue_time);
        }
    }

    pub(crate) fn clients(&self) -> MutexGuard<'_, Taken> {
        self.clients.lock()
    }

    pub(crate) fn relays(&self) -> MutexGuard<'_, RelayMemory> {
        self.relays.lock()
    }

    /// The last refusal of a recipient.
    #[must_use]
    pub fn last_refusal(&self, address: &Address) -> Option<LastRefusal> {
        self.refusals.lock().of(address).cloned()
    }

    /// Notes an outcome, if it is a refusal.
    pub(crate) fn refused(&self, address: &Address, outcome: &Outcome) {
        if !outcome.row.is_empty() {
            let mut refusals = self.refusals.lock();
            refusals.note(address, outcome, UnixTime::now());
        }
    }

    pub(crate) fn everybody(&self) -> MutexGuard<'_, RefusesEverybody> {
        self.everybody.lock()
    }

    pub(crate) fn good(&self) -> MutexGuard<'_, RecentlyGood> {
        self.recently_good.lock()
    }
}

/// The client, if it is a stranger that sends mail of its own: filters and partners forward mail of many.
pub(crate) fn stranger(origin: &Origin, connector: Option<&ReceiveConnector>) -> Option<IpAddr> {
    origin.client.filter(|_| origin.is_stranger() && connector.is_none_or(ReceiveConnector::is_for_anybody))
}
