//! How many connections each receive connector has, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::ReceiveConnector;
use crate::metrics::Metrics;

/// Counts connections. Cloning shares the counts.
#[derive(Clone)]
pub(super) struct Seats {
    taken: Arc<Mutex<HashMap<Arc<str>, Taken>>>,
    metrics: Metrics,
}

/// One connector's connections.
#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// `max_connections`.
    Full,
    /// `max_connections_per_ip`.
    FullForAddress,
}

/// One connection's seat; free again when dropped.
pub(super) struct Seat {
    seats: Seats,
    connector: Arc<str>,
    address: IpAddr,
}

impl Seats {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { taken: Arc::default(), metrics }
    }

    /// Takes a seat. A connector with an organization has no limit for an address: its few hosts send everything.
    pub(super) fn take(&self, connector: &ReceiveConnector, address: IpAddr) -> Result<Seat, NoSeat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of = taken.entry(connector.name.clone()).or_default();
        if of.all >= connector.max_connections {
            return Err(NoSeat::Full);
        }
        let here = of.by_address.get(&address).copied().unwrap_or_default();
        if connector.organization.is_empty() && here >= connector.max_connections_per_ip {
            return Err(NoSeat::FullForAddress);
        }
        of.all += 1;
        of.by_address.insert(address, here + 1);
        let name = [&*connector.name];
        self.metrics.connections.with_label_values(&name).inc();
        self.metrics.connections_total.with_label_values(&name).inc();
        Ok(Seat { seats: self.clone(), connector: connector.name.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = taken.get_mut(&self.connector) {
            of.all = of.all.saturating_sub(1);
            if let Some(here) = of.by_address.get_mut(&self.address) {
                *here = here.saturating_sub(1);
                if *here == 0 {
                    of.by_address.remove(&self.address);
                }
            }
        }
        self.seats.metrics.connections.with_label_values(&[&*self.connector]).dec();
    }
}
