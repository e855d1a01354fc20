//! The known addresses of a connector's next hops, without a DNS lookup.
//!
//! A session checks at each RCPT whether its client is one of them (DESIGN section 6, rule 2).

use std::net::IpAddr;

use super::Outbound;
use crate::config::{Host, SmtpOut};
use crate::delivery::dns::Exchanges;

impl Outbound {
    /// The addresses of these smart hosts' names, or of their MX, by the last lookup. Smart hosts that are configured
    /// as addresses are not included.
    #[must_use]
    pub fn known_addresses(&self, smtp: &SmtpOut) -> Vec<IpAddr> {
        let (dns, servers) = (&self.shared.dns, &smtp.dns_servers[..]);
        let mut addresses = Vec::new();
        for smart_host in &smtp.smart_hosts {
            let Host::Name(name) = &smart_host.host else { continue };
            match smtp.mx.then(|| dns.last_exchanges(servers, name)).flatten() {
                Some(Exchanges::Hosts(hosts)) => {
                    addresses.extend(hosts.iter().flat_map(|(_, name)| dns.last_addresses(servers, name)));
                }
                Some(Exchanges::Implicit | Exchanges::Null) | None => {
                    addresses.extend(dns.last_addresses(servers, name));
                }
            }
        }
        addresses
    }
}
