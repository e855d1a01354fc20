//! Detects loops while a RCPT is in flight (DESIGN section 6, rule 2): a next hop that asks us about the same recipient
//! before it answers our RCPT is waiting for us, and would wait for ever.
//!
//! Cut-through calls [`RcptsInFlight::enter`] before each RCPT that it sends, and drops the guard with the reply.
//! Clients from elsewhere, and transactions that began before the first RCPT was sent, never wait; those that wait are
//! served in turn.

use std::collections::{BTreeMap, HashMap, hash_map::RandomState};
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::config::{Host, LoopMode, Protocol, SendConnector};
use crate::metrics::Metrics;
use crate::routing::loops::{LoopRule, same_organization};
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::Origin;
use crate::smtp::reply::{self, Reply};

/// The most that wait for one address.
const WAITING: usize = 8;

/// Identifies equal RCPTs.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub connector: &'a str,
    /// The recipient as received.
    pub recipient: &'a Address,
    pub reverse_path: &'a ReversePath,
}

/// Who wants to send a RCPT.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    /// When its transaction began.
    pub began: Instant,
    pub from: ComesFrom,
    /// The connector's `cut_through_patience`: how long the RCPT that it may have to wait for waits for its own reply.
    pub patience: Duration,
    /// `[loop_detection] mode`: with `report` it goes on instead of being refused.
    pub mode: LoopMode,
}

impl Asker {
    /// How long it waits for another's reply: two thirds of the other's limit, so that the next hop, when it is told
    /// that it loops, can still answer the first RCPT (DESIGN section 6, rule 2).
    fn waits(&self) -> Duration {
        self.patience * 2 / 3
    }
}

/// Where a client comes from, in relation to a send connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComesFrom {
    /// One of its smart hosts, or its organisation: a loop would come in here.
    NextHop,
    /// Anywhere else: it never waits.
    Elsewhere,
}

impl ComesFrom {
    /// Where this client comes from. `addresses`: the known addresses of the connector's smart hosts' names; those
    /// configured as addresses need not be included.
    #[must_use]
    pub fn of(origin: &Origin, connector: &SendConnector, addresses: &[IpAddr]) -> Self {
        let Some(client) = origin.client.map(|client| client.to_canonical()) else { return Self::Elsewhere };
        let is_client = |address: &IpAddr| address.to_canonical() == client;
        let is_smart_host = match &connector.protocol {
            Protocol::Smtp(smtp) => smtp.smart_hosts.iter().any(|host| match &host.host {
                Host::Address(address) => is_client(address),
                Host::Name(_) | Host::Unix(_) => false,
            }),
            Protocol::Maildir(_) => false,
        };
        let is_its = same_organization(&origin.organization, &connector.organization);
        if is_its || is_smart_host || addresses.iter().any(is_client) { Self::NextHop } else { Self::Elsewhere }
    }
}

/// All RCPTs in flight. Clones share them.
#[derive(Clone)]
pub struct RcptsInFlight(Arc<Inner>);

struct Inner {
    state: Mutex<Waiters>,
    /// Notified when a RCPT was answered for which others wait.
    answered: Notify,
    hashes: RandomState,
    metrics: Metrics,
}

#[derive(Default)]
struct Waiters {
    /// By recipient and ticket.
    under_way: BTreeMap<(u64, u64), Sent>,
    /// How many wait for a recipient; without zeros.
    waiting: HashMap<u64, usize>,
    next_ticket: u64,
}

struct Sent {
    reverse_path: u64,
    at: Instant,
}

/// A hashed key.
#[derive(Clone, Copy)]
struct Hashed {
    /// Connector and address.
    recipient: u64,
    reverse_path: u64,
}

impl RcptsInFlight {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let (state, answered, hashes) = (Mutex::default(), Notify::new(), RandomState::new());
        Self(Arc::new(Inner { state, answered, hashes, metrics }))
    }

    /// Waits for other RCPTs if necessary. Then the RCPT may be sent; it is in flight until the guard is dropped.
    ///
    /// # Errors
    /// The reply to RCPT instead: `550 5.4.6`, the next hop is waiting for us (counted and logged here); `451 4.3.2`,
    /// too many wait already.
    pub async fn enter(&self, key: Key<'_>, asker: Asker) -> Result<RcptInFlight, Reply> {
        let hashed = Hashed {
            recipient: self.0.hashes.hash_one((key.connector, key.recipient.key())),
            reverse_path: self.0.hashes.hash_one(key.reverse_path.key()),
        };
        if let Some(on_the_way) = self.0.enter_unless_blocked(hashed, asker) {
            return Ok(on_the_way);
        }
        match Box::pin(self.0.wait(hashed, asker)).await? {
            Waited::Answered(on_the_way) => Ok(on_the_way),
            Waited::InVain => {
                let rule = LoopRule::InFlight.label();
                self.0.metrics.loops.with_label_values(&[rule]).inc();
                tracing::warn!(rule, recipient = %key.recipient, send_connector = %key.connector, mode = ?asker.mode,
                    "routing loop: the next hop asks us about the recipient that we ask it about");
                match asker.mode {
                    LoopMode::Refuse => Err(reply::ROUTING_LOOP),
                    LoopMode::Report => Ok(self.0.enter(&mut self.0.state.lock(), hashed)),
                }
            }
        }
    }
}

/// The result of waiting.
enum Waited {
    /// All that it waited for were answered.
    Answered(RcptInFlight),
    /// One is still unanswered.
    InVain,
}

impl Inner {
    fn enter_unless_blocked(self: &Arc<Self>, hashed: Hashed, asker: Asker) -> Option<RcptInFlight> {
        let mut state = self.state.lock();
        (!state.blocks(hashed, asker)).then(|| self.enter(&mut state, hashed))
    }

    fn enter(self: &Arc<Self>, state: &mut Waiters, hashed: Hashed) -> RcptInFlight {
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        let sent = Sent { reverse_path: hashed.reverse_path, at: Instant::now() };
        state.under_way.insert((hashed.recipient, ticket), sent);
        RcptInFlight { shared: self.clone(), entry: (hashed.recipient, ticket) }
    }

    async fn wait(self: &Arc<Self>, hashed: Hashed, asker: Asker) -> Result<Waited, Reply> {
        let deadline = Instant::now() + asker.waits();
        let _place = WaitingPermit::take(self, hashed.recipient)?;
        loop {
            let answered = self.answered.notified(); // before the look, so that no answer is missed
            if let Some(on_the_way) = self.enter_unless_blocked(hashed, asker) {
                return Ok(Waited::Answered(on_the_way));
            }
            if timeout_at(deadline, answered).await.is_err() {
                return Ok(self.enter_unless_blocked(hashed, asker).map_or(Waited::InVain, Waited::Answered));
            }
        }
    }
}

impl Waiters {
    /// Whether the asker has to wait. RCPTs that are sent later never block it, so the set it waits for only shrinks.
    fn blocks(&self, hashed: Hashed, asker: Asker) -> bool {
        let blocks = |sent: &Sent| sent.reverse_path == hashed.reverse_path && sent.at < asker.began;
        let to_it = (hashed.recipient, 0)..=(hashed.recipient, u64::MAX);
        asker.from == ComesFrom::NextHop && self.under_way.range(to_it).any(|(_, sent)| blocks(sent))
    }
}

/// A RCPT in flight, until this is dropped.
#[must_use = "the RCPT is on its way for as long as this is kept"]
pub struct RcptInFlight {
    shared: Arc<Inner>,
    entry: (u64, u64),
}

impl Drop for RcptInFlight {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.under_way.remove(&self.entry);
        let awaited = state.waiting.contains_key(&self.entry.0);
        drop(state);
        if awaited {
            self.shared.answered.notify_waiters();
        }
    }
}

/// One of the eight slots for waiting.
struct WaitingPermit<'a> {
    shared: &'a Inner,
    recipient: u64,
}

impl<'a> WaitingPermit<'a> {
    fn take(shared: &'a Inner, recipient: u64) -> Result<Self, Reply> {
        let mut state = shared.state.lock();
        let waiting = state.waiting.entry(recipient).or_default();
        if *waiting >= WAITING {
            return Err(reply::TOO_MANY_WAIT);
        }
        *waiting += 1;
        Ok(Self { shared, recipient })
    }
}

impl Drop for WaitingPermit<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if let Some(waiting) = state.waiting.get_mut(&self.recipient) {
            *waiting -= 1;
            if *waiting == 0 {
                state.waiting.remove(&self.recipient);
            }
        }
    }
}

#[cfg(test)]
mod tests;
