//! How many connections each receive connector has, in all and from each client: an IPv4 address, or an IPv6 /64.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::ReceiveConnector;
use crate::metrics::Metrics;
use crate::one_client::one_client;

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
    by_client: HashMap<IpAddr, usize>,
}

/// Who connected for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// It came itself.
    Nobody,
    /// A trusted balancer, which has limits of its own.
    Balancer,
}

/// How many sessions a client may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sessions {
    /// As many as its address.
    Any,
    /// It looks for addresses.
    One,
}

/// Why there is no seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// `max_connections`.
    Full,
    /// `max_connections_per_ip`.
    FullForAddress,
    /// It looks for addresses, and has a session.
    OneOnly,
}

/// One connection's seat; free again when dropped.
pub(super) struct Seat {
    seats: Seats,
    connector: Arc<str>,
    client: IpAddr,
}

impl Seats {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { taken: Arc::default(), metrics }
    }

    /// Takes a seat. A connector with an organization has no limit for an address: its few hosts send everything. Nor
    /// has a client behind a balancer (DESIGN section 4).
    pub(super) fn take(
        &self,
        connector: &ReceiveConnector,
        (address, behind): (IpAddr, Behind),
        sessions: Sessions,
    ) -> Result<Seat, NoSeat> {
        let client = one_client(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of = taken.entry(connector.name.clone()).or_default();
        if of.all >= connector.max_connections {
            return Err(NoSeat::Full);
        }
        let here = of.by_client.get(&client).copied().unwrap_or_default();
        if sessions == Sessions::One && here > 0 {
            return Err(NoSeat::OneOnly);
        }
        let limited = connector.organization.is_empty() && behind == Behind::Nobody;
        if limited && here >= connector.max_connections_per_ip {
            return Err(NoSeat::FullForAddress);
        }
        of.all += 1;
        of.by_client.insert(client, here + 1);
        let name = [&*connector.name];
        self.metrics.connections.with_label_values(&name).inc();
        self.metrics.connections_total.with_label_values(&name).inc();
        Ok(Seat { seats: self.clone(), connector: connector.name.clone(), client })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of) = taken.get_mut(&self.connector) {
            of.all = of.all.saturating_sub(1);
            if let Some(here) = of.by_client.get_mut(&self.client) {
                *here = here.saturating_sub(1);
                if *here == 0 {
                    of.by_client.remove(&self.client);
                }
            }
        }
        self.seats.metrics.connections.with_label_values(&[&*self.connector]).dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check::load_text;

    const CONFIG: &str = r#"
[server]
hostname = "mx.contoso.com"
[[receive_connector]]
name = "internet"
max_connections_per_ip = 2
[[accepted_domain]]
domain = "contoso.com"
type = "authoritative"
deliver_to = "exchange"
[[directory]]
name = "users"
kind = "file"
path = "users.csv"
[[send_connector]]
name = "exchange"
smart_hosts = ["[10.0.0.5]"]
"#;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        let config = load_text(CONFIG, std::path::Path::new("fingerpost.toml")).unwrap();
        let connector = &config.receive_connectors[0];
        for (first, second, third, room) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2", true),
            ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", false),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::3", false),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:2::1", true),
        ] {
            let seats = Seats::new(Metrics::new());
            let take = |address: &str| seats.take(connector, (address.parse().unwrap(), Behind::Nobody), Sessions::Any);
            let (_first, second) = (take(first).ok().unwrap(), take(second).ok().unwrap());
            assert_eq!(take(third).err(), (!room).then_some(NoSeat::FullForAddress), "{third}");
            drop(second);
            assert!(take(third).is_ok(), "{third}: a seat is free again");
        }
    }
}
