//! Sending by SMTP: a branch's next hops, a connection that is ready for MAIL, and the conversation on it (DESIGN
//! section 7).
//!
//! `walk` goes from next hop to next hop until a connection is ready for MAIL (`checkout`); `delivery::branch` uses
//! it. `next_hops` lists the hosts, `open` opens a connection, `conversation` is one transaction; `pool`,
//! `health` and `dns` are shared by all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

mod alerts;
pub(crate) mod black_hole;
pub(crate) mod checkout;
pub(crate) mod connection;
pub(crate) mod conversation;
pub(crate) mod negotiate;
mod next_hops;
mod xforward;
mod known;
mod login;
mod open;
mod probe;
mod reach;
mod socket;
mod test;
mod tries;
pub(crate) mod next_hop_error;
pub mod dry_run;
pub(crate) mod walk;

use alerts::Alerts;
use connection::Terms;
use next_hops::Turns;
pub use reach::Reach;
use tries::Tries;

use super::dns::{Dns, DnsError};
use super::health::{Back, Health};
use super::pool::Pool;
use super::silence::Silence;
use super::slots::{Applicant, Client, HostLimits, Slots};
use crate::config::{CutThrough, Select, SendConnector, SmtpOut, Speaks, WhenUnreachable};
use crate::metrics::Metrics;
use crate::share::Share;
use crate::smtp::domain::Domain;
use crate::tls::connect::TlsClients;

/// If smart hosts are used in turn, a second one is tried concurrently when the first has not greeted for this long.
const BESIDE: Duration = Duration::from_secs(2);
/// How long a greeting may take on an established connection if the client would otherwise have to come again: Kerio
/// Connect and Postfix's postscreen delay unknown clients.
const SLOW_GREETING: Duration = Duration::from_secs(45);
/// If every next hop is down, a client waits this long for a test of one.
const TEST: Duration = Duration::from_secs(2);
/// For waits of the queue that have no limit.
const ENDLESS: Duration = Duration::from_hours(24);

/// Connection pools, health of next hops, and DNS, for all branches. Clones share them.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Inner>,
}

struct Inner {
    dns: Dns,
    health: Arc<Health>,
    pool: Arc<Pool>,
    slots: Slots,
    hosts: HostLimits,
    silence: Silence,
    alerts: Alerts,
    turns: Turns,
    tries: Tries,
    tls: TlsClients,
    own_listeners: Mutex<Arc<[SocketAddr]>>,
    metrics: Metrics,
}

impl Inner {
    fn own_listeners(&self) -> Arc<[SocketAddr]> {
        self.own_listeners.lock().clone()
    }
}

/// The sending side of one branch. Clones share it.
#[derive(Clone)]
pub(crate) struct WayOut {
    shared: Arc<Inner>,
    /// The settings of its connections.
    terms: Arc<Terms>,
    pub(crate) connector: Arc<SendConnector>,
    /// The domain whose MX is looked up if there are no smart hosts.
    pub(crate) next_hop_domain: Domain,
    pub(crate) waits: Waits,
    pub(crate) applicant: Applicant,
    /// Which hosts it may connect to.
    reach: Reach,
    /// Frees its slot in the queue, if it has one.
    place: Option<Arc<GivesPlace>>,
}

/// Frees an attempt's slot in the queue before the attempt is over.
pub type GivesPlace = dyn Fn() + Send + Sync;

/// Time limits, one for each kind of wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// For one of the connector's connection slots.
    slot: Duration,
    /// For a host to connect and greet, all its addresses together.
    connect: Duration,
    /// At least this long for a greeting on an established connection.
    greeting: Duration,
    /// For each reply from EHLO to 354.
    pub(crate) reply: Duration,
    /// Until a second host is tried concurrently.
    beside: Duration,
    /// For a test, if all hosts are down.
    test: Duration,
}

impl Waits {
    /// For the queue, in which no client waits.
    pub(crate) fn of_queue(smtp: &SmtpOut) -> Self {
        let (connect, reply) = (smtp.connect_timeout, smtp.reply_timeout);
        let beside = match smtp.select {
            Select::RoundRobin => BESIDE,
            Select::Failover => connect / 2,
        };
        Self { slot: ENDLESS, connect, greeting: reply, reply, beside, test: connect + reply }
    }

    /// For a client that waits. `otherwise` is done if no next hop can be used: the client has to come again, or its
    /// mail is queued.
    pub(crate) fn of_client(smtp: &SmtpOut, cut_through: &CutThrough, otherwise: WhenUnreachable) -> Self {
        let patience = cut_through.patience;
        let greeting = match otherwise {
            WhenUnreachable::Defer => SLOW_GREETING.max(patience),
            WhenUnreachable::Queue | WhenUnreachable::Auto => Duration::ZERO,
        };
        let beside = match smtp.select {
            Select::RoundRobin => BESIDE.min(patience / 2),
            Select::Failover => patience / 2,
        };
        let connect = patience.min(smtp.connect_timeout);
        Self {
            slot: patience,
            connect,
            greeting,
            reply: patience.min(smtp.reply_timeout),
            beside,
            test: TEST.min(patience),
        }
    }
}

impl WayOut {
    /// The protocol of its next hops.
    pub(crate) fn speaks(&self) -> Speaks {
        self.terms.smtp.speaks
    }

    /// How many connections its connector may have in use at this node now.
    fn limit(&self) -> usize {
        self.shared.slots.share().of(self.connector.max_connections)
    }

    /// How many of them may lie idle.
    fn idle_limit(&self) -> usize {
        self.shared.slots.idle_limit(&self.connector.name, self.connector.max_connections)
    }

    /// Records that a session has reached a host; the queue learns that from its own attempts.
    fn reached(&self) {
        if !self.has_smart_hosts() && self.applicant.client != Client::QUEUE {
            let domain = Some(self.next_hop_domain.clone());
            self.shared.health.is_back(Back { connector: self.connector.name.clone(), domain });
        }
    }

    /// Whether its next hops do not depend on the recipient's domain.
    pub(crate) fn has_smart_hosts(&self) -> bool {
        !self.terms.smtp.smart_hosts.is_empty()
    }
}

impl Outbound {
    /// Without connections.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let observed = metrics.clone();
        let shared = Inner {
            dns: Dns::default(),
            health: Arc::default(),
            pool: Arc::new(Pool::default()),
            slots: Slots::default(),
            hosts: HostLimits::new(move |key, allowed| {
                observed.show_allowed([&key.connector, key.host.as_written()], allowed);
            }),
            silence: Silence::default(),
            alerts: Alerts::default(),
            turns: Turns::default(),
            tries: Tries::default(),
            tls: TlsClients::default(),
            own_listeners: Mutex::new(Arc::new([])),
            metrics,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Waits until next hops answer that were down or unknown; with MX, those that a session has reached. Only one task
    /// may wait.
    pub async fn came_back(&self) -> Vec<Back> {
        self.shared.health.came_back().await
    }

    /// Sets this node's share of the connectors' limits. Connections above it end with their transactions, idle ones at
    /// once.
    pub fn divide(&self, share: Share) {
        for lowered in self.shared.slots.divide(share) {
            self.shared.pool.keep_idle(&lowered.connector, lowered.idle);
        }
    }

    /// This node's share of the connectors' limits.
    #[must_use]
    pub fn share(&self) -> Share {
        self.shared.slots.share()
    }

    /// Sets our own listeners' addresses, which are never used as a next hop.
    pub fn set_own_listeners(&self, listeners: Vec<SocketAddr>) {
        *self.shared.own_listeners.lock() = listeners.into();
    }

    /// The sending side for a branch.
    pub(crate) fn way_out(
        &self,
        terms: Terms,
        connector: &Arc<SendConnector>,
        next_hop_domain: &Domain,
        waits: Waits,
        applicant: Applicant,
    ) -> WayOut {
        WayOut {
            shared: self.shared.clone(),
            terms: Arc::new(terms),
            connector: connector.clone(),
            next_hop_domain: next_hop_domain.clone(),
            waits,
            applicant,
            reach: Reach::Anywhere,
            place: None,
        }
    }
}
