//! Counts the connections of each receive connector, in total and of each client (an IPv4 address, or an IPv6 /64), and
//! all connections. If a slot is needed and none is free, the stranger that has been idle longest is disconnected.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::crowd::{Connected, Crowd};
use super::eviction::is_crowded;
use crate::config::ReceiveConnector;
use crate::descriptors::{Room, reserved};
use crate::metrics::Metrics;
use crate::one_client::one_client;
use crate::session::turn::{SlotKind, Stage, Turn, Why};
use crate::smtp::envelope::{Shown, Whose};
use crate::smtp::reply::{self, Reply};

/// How often idle clients are checked where connections are short.
const LOOK: Duration = Duration::from_secs(1);

/// Counts connections. Clones share the counts.
#[derive(Clone)]
pub(super) struct ConnectionSlots {
    taken: Arc<Mutex<Taken>>,
    metrics: Metrics,
    /// Idle times are relative to it.
    start: Instant,
    draining: CancellationToken,
    farewells: Arc<Semaphore>,
}

struct Taken {
    connectors: HashMap<Arc<str>, Crowd>,
    all: usize,
    /// Those of connectors without an organization.
    strangers: usize,
    room: Room,
}

/// Whether a load balancer connected for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    Nobody,
    /// A trusted load balancer, which has limits of its own.
    Balancer,
}

/// How many sessions a client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sessions {
    /// Up to the limit for its address.
    Any,
    /// It harvests addresses.
    One,
}

/// Whether a client can still prove that it is no stranger: by a certificate, or by AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Possible,
    Impossible,
}

/// Why there is no connection slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// `max_connections`.
    Full,
    /// `max_connections_per_ip`.
    FullForAddress,
    /// It harvests addresses, and has a session already.
    OneOnly,
    /// The remaining descriptors are reserved for others.
    NoDescriptors,
}

impl NoSlot {
    /// The metric's label, and the reply to the client.
    pub(super) fn told(self) -> (&'static str, Reply) {
        match self {
            Self::Full => ("max-connections", reply::TOO_MANY_CONNECTIONS),
            Self::FullForAddress => ("max-connections-per-ip", reply::TOO_MANY_FROM_ADDRESS),
            Self::OneOnly => ("unknown-recipients", reply::TOO_MANY_UNKNOWN),
            Self::NoDescriptors => ("descriptors", reply::TOO_MANY_CONNECTIONS),
        }
    }
}

/// A connection's slot; freed when dropped, unless it was given to another connection.
pub(super) struct ConnectionPermit {
    slots: ConnectionSlots,
    connector: Arc<str>,
    at: usize,
    /// The state that its session records.
    pub(super) turn: Turn,
}

impl ConnectionSlots {
    /// Sessions end with `draining`; `farewells` limits how many disconnected ones may wait until their last reply is
    /// read.
    pub(super) fn new(metrics: Metrics, draining: CancellationToken, farewells: Arc<Semaphore>) -> Self {
        let room = Room { all: usize::MAX, strangers: usize::MAX };
        let taken = Taken { connectors: HashMap::new(), all: 0, strangers: 0, room };
        Self { taken: Arc::new(Mutex::new(taken)), metrics, start: Instant::now(), draining, farewells }
    }

    /// Sets the limit for all connections.
    pub(super) fn set_room(&self, room: Room) {
        self.taken.lock().room = room;
    }

    /// Takes a slot. A connector with an organization has no limit for an address: its few hosts send everything. Nor
    /// has a client behind a load balancer (DESIGN section 4). Where clients can prove that they are no strangers, the
    /// last slots are for those who will.
    pub(super) fn take(
        &self,
        connector: &ReceiveConnector,
        address: IpAddr,
        behind: Behind,
        proof: Proof,
        sessions: Sessions,
    ) -> Result<ConnectionPermit, NoSlot> {
        let (client, now) = (one_client(address), self.start.elapsed());
        let whose = Whose::from(Shown { organization: &connector.organization, authenticated: false });
        let mut taken = self.taken.lock();
        let crowd = taken.connectors.entry(connector.name.clone()).or_default();
        crowd.most = connector.max_connections;
        if sessions == Sessions::One && crowd.of(client) > 0 {
            return Err(NoSlot::OneOnly);
        }
        let limited = whose == Whose::Stranger && behind == Behind::Nobody;
        if limited && crowd.of(client) >= connector.max_connections_per_ip {
            return Err(NoSlot::FullForAddress);
        }
        let share = match proof {
            Proof::Possible if whose == Whose::Stranger => crowd.most - reserved(crowd.most),
            _ => crowd.most,
        };
        while taken.has_more_than(&connector.name, share, now) {
            let Some(gone) = taken.evict_from(&connector.name, now) else { break };
            self.count(&connector.name, gone.turn.sent_away());
        }
        if taken.has_more_than(&connector.name, usize::MAX, now) {
            return Err(NoSlot::Full);
        }
        let is_reserved = taken.has_more_than(&connector.name, share, now);
        let place = if is_reserved { SlotKind::Reserved } else { SlotKind::Free };
        while !taken.has_room_for(whose) {
            let (name, gone) = taken.evict(now).ok_or(NoSlot::NoDescriptors)?;
            self.count(&name, gone.turn.sent_away());
        }
        let turn = Turn::new(self.start, self.draining.child_token(), self.farewells.clone(), place);
        // The newest stays: a crowd that comes at once does not keep out clients after it.
        turn.begins(Instant::now(), Stage::BeforeMail, whose);
        let at = taken.add(&connector.name, Connected { turn: turn.clone(), client, whose });
        let name = [&*connector.name];
        self.metrics.connections.with_label_values(&name).inc();
        self.metrics.connections_total.with_label_values(&name).inc();
        Ok(ConnectionPermit { slots: self.clone(), connector: connector.name.clone(), at, turn })
    }

    /// Repeatedly disconnects clients that are idle for too long while connections are short.
    pub(super) async fn keep_clearing(self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let mut taken = self.taken.lock();
            for (name, gone) in taken.send_overdue_away(self.start.elapsed()) {
                self.count(&name, gone.turn.sent_away());
            }
        }
    }

    /// A connection of this connector ended; `why`: it was disconnected.
    fn count(&self, connector: &str, why: Option<Why>) {
        self.metrics.connections.with_label_values(&[connector]).dec();
        let Some(why) = why else { return };
        self.metrics.sessions_sent_away.with_label_values(&[why.as_str()]).inc();
    }
}

impl Taken {
    /// Whether the connector is full, or another stranger would exceed the share of strangers.
    fn has_more_than(&mut self, connector: &str, share: usize, now: Duration) -> bool {
        let Some(crowd) = self.connectors.get_mut(connector) else { return false };
        crowd.all >= crowd.most || (crowd.all >= share && crowd.strangers(now) >= share)
    }

    fn has_room_for(&self, whose: Whose) -> bool {
        self.all < self.room.all && (whose == Whose::Known || self.strangers < self.room.strangers)
    }

    fn add(&mut self, connector: &Arc<str>, connected: Connected) -> usize {
        self.all += 1;
        self.strangers += usize::from(connected.whose == Whose::Stranger);
        self.connectors.entry(connector.clone()).or_default().add(connected)
    }

    fn leave(&mut self, connector: &str, at: usize) {
        if let Some(gone) = self.connectors.get_mut(connector).and_then(|crowd| crowd.leave(at)) {
            self.is_gone(&gone);
        }
    }

    fn is_gone(&mut self, gone: &Connected) {
        self.all = self.all.saturating_sub(1);
        self.strangers = self.strangers.saturating_sub(usize::from(gone.whose == Whose::Stranger));
    }

    /// Disconnects the stranger of this connector that has been idle longest.
    fn evict_from(&mut self, connector: &str, now: Duration) -> Option<Connected> {
        let gone = self.connectors.get_mut(connector)?.evict(now)?;
        self.is_gone(&gone);
        Some(gone)
    }

    /// The same among all strangers.
    fn evict(&mut self, now: Duration) -> Option<(Arc<str>, Connected)> {
        let of = |(name, crowd): (&Arc<str>, &mut Crowd)| Some((crowd.longest_idle(now)?, name.clone()));
        let (_, name) = self.connectors.iter_mut().filter_map(of).min()?;
        let gone = self.evict_from(&name, now)?;
        Some((name, gone))
    }

    /// Disconnects clients that are idle for too long while connections are short.
    fn send_overdue_away(&mut self, now: Duration) -> Vec<(Arc<str>, Connected)> {
        let all_are_many = is_crowded(self.strangers, self.room.strangers);
        let mut gone = Vec::new();
        for (name, crowd) in &mut self.connectors {
            if all_are_many || is_crowded(crowd.all, crowd.most) {
                gone.extend(crowd.send_overdue_away(now).into_iter().map(|connected| (name.clone(), connected)));
            }
        }
        gone.iter().for_each(|(_, connected)| self.is_gone(connected));
        gone
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        // A connection that was disconnected has freed its slot already.
        if self.turn.sent_away().is_none() {
            taken.leave(&self.connector, self.at);
            self.slots.count(&self.connector, None);
        }
    }
}

#[cfg(test)]
mod tests;
