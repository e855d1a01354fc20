//! The way out by SMTP: which next hops a branch has, a connection ready for MAIL, and what is said over it (DESIGN
//! section 7).
//!
//! [`walk`] goes from next hop to next hop until a connection is ready for MAIL ([`checkout`]); `delivery::branch` speaks
//! over it. [`next_hops`] says where to go, [`open`] makes a connection, [`conversation`] is one transaction; `pool`, `health`
//! and `dns` are shared by all.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
use crate::smtp::domain::Domain;
use crate::tls::connect::TlsClients;

/// A second smart host is begun beside one that has not greeted for so long, where they take turns.
const BESIDE: Duration = Duration::from_secs(2);
/// Once TCP stands, so long may a greeting take where the client would otherwise be told to come again: Kerio Connect and
/// Postfix's postscreen let unknown clients wait.
const SLOW_GREETING: Duration = Duration::from_secs(45);
/// Where every next hop is down, so long a client waits for a test of one.
const TEST: Duration = Duration::from_secs(2);
/// No wait of the queue's is cut short by us.
const ENDLESS: Duration = Duration::from_hours(24);

/// The way out by SMTP: pools, health of next hops, DNS. Cloning shares it.
#[derive(Clone)]
pub struct Outbound {
    shared: Arc<Inner>,
}

/// What all attempts share.
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
        self.own_listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One branch's way out. Cloning shares it.
#[derive(Clone)]
pub(crate) struct WayOut {
    shared: Arc<Inner>,
    /// What connections are made with.
    terms: Arc<Terms>,
    pub(crate) connector: Arc<SendConnector>,
    /// The domain whose MX is asked where there are no smart hosts.
    pub(crate) next_hop_domain: Domain,
    /// How long next hops are waited for.
    pub(crate) waits: Waits,
    /// Who wants the connections.
    pub(crate) applicant: Applicant,
    /// Which hosts it may go to.
    reach: Reach,
    /// Gives back its place in the queue, where it has one.
    place: Option<Arc<GivesPlace>>,
}

/// Gives back an attempt's place in the queue before the attempt is over.
pub type GivesPlace = dyn Fn() + Send + Sync;

/// How long next hops are waited for, each wait by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// For one of the connector's connections.
    slot: Duration,
    /// For a host to connect and greet, its addresses together.
    connect: Duration,
    /// For a greeting at least, once TCP stands.
    greeting: Duration,
    /// For each reply from EHLO to the 354.
    pub(crate) reply: Duration,
    /// Until a second host is begun beside the first.
    beside: Duration,
    /// For a test, where all hosts are down.
    test: Duration,
}

impl Waits {
    /// Nobody waits for us.
    pub(crate) fn of_queue(smtp: &SmtpOut) -> Self {
        let (connect, reply) = (smtp.connect_timeout, smtp.reply_timeout);
        let beside = match smtp.select {
            Select::RoundRobin => BESIDE,
            Select::Failover => connect / 2,
        };
        Self { slot: ENDLESS, connect, greeting: reply, reply, beside, test: connect + reply }
    }

    /// A client waits, who is told to come again where no next hop can be used, or whose mail is queued then.
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
    /// What its next hops speak.
    pub(crate) fn speaks(&self) -> Speaks {
        self.terms.smtp.speaks
    }

    /// A session has reached a host. The queue hears by its own attempts what it reaches.
    fn reached(&self) {
        if !self.has_smart_hosts() && self.applicant.client != Client::QUEUE {
            let domain = Some(self.next_hop_domain.clone());
            self.shared.health.is_back(Back { connector: self.connector.name.clone(), domain });
        }
    }

    /// Whether its next hops are the connector's own, whatever the recipient's domain.
    pub(crate) fn has_smart_hosts(&self) -> bool {
        !self.terms.smtp.smart_hosts.is_empty()
    }
}

impl Outbound {
    /// A way out without connections yet.
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

    /// Waits until next hops answer that were down, or not known; by MX, those that a session has reached. One may wait.
    pub async fn came_back(&self) -> Vec<Back> {
        self.shared.health.came_back().await
    }

    /// Tells it our own listeners, which are never a next hop.
    pub fn set_own_listeners(&self, listeners: Vec<SocketAddr>) {
        *self.shared.own_listeners.lock().unwrap_or_else(PoisonError::into_inner) = listeners.into();
    }

    /// The way out for a branch. `ehlo` is our host name.
    pub(crate) fn way_out(
        &self,
        ehlo: &Domain,
        (connector, smtp): (&Arc<SendConnector>, &Arc<SmtpOut>),
        next_hop_domain: &Domain,
        (waits, applicant): (Waits, Applicant),
    ) -> WayOut {
        let terms = Arc::new(Terms { ehlo: ehlo.clone(), smtp: smtp.clone() });
        let (connector, next_hop_domain) = (connector.clone(), next_hop_domain.clone());
        WayOut {
            shared: self.shared.clone(),
            terms,
            connector,
            next_hop_domain,
            waits,
            applicant,
            reach: Reach::Anywhere,
            place: None,
        }
    }
}
