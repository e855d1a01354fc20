//! The last results of lookups, for callers that cannot wait.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;

use super::last_good::{Known, LastGood};
use super::{Dns, Exchanges, Resolver, lock};

impl Dns {
    /// The addresses of a name by its last lookup; empty: unknown.
    #[must_use]
    pub fn last_addresses(&self, servers: &[SocketAddr], name: &str) -> Vec<IpAddr> {
        let Some(resolver) = self.known_resolver(servers) else { return Vec::new() };
        let in_hosts = resolver.in_hosts(name);
        in_hosts.or_else(|| last(&lock(&resolver.last_good.addresses), name)).unwrap_or_default()
    }

    /// A domain's mail exchanges by the last lookup.
    #[must_use]
    pub fn last_exchanges(&self, servers: &[SocketAddr], domain: &str) -> Option<Exchanges> {
        let resolver = self.known_resolver(servers)?;
        last(&lock(&resolver.last_good.exchanges), domain)
    }

    /// The resolver that was used last, even if the system's files have changed since.
    fn known_resolver(&self, servers: &[SocketAddr]) -> Option<Arc<Resolver>> {
        self.resolvers.lock().get(servers).cloned()
    }
}

fn last<T: Clone>(kept: &LastGood<T>, name: &str) -> Option<T> {
    match kept.known(name, Instant::now()) {
        Known::Spare(last) | Known::StandsIn(last) => Some(last),
        Known::Nothing => None,
    }
}
