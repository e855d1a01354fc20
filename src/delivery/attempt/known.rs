//! Which addresses a connector's next hops have, as far as is known without asking DNS.
//!
//! A session asks at each RCPT whether its client is one of them (DESIGN section 6, rule 2).

use std::net::IpAddr;

use super::Outbound;
use crate::config::{Host, SmtpOut};
use crate::delivery::dns::Exchanges;

impl Outbound {
    /// The addresses that the names of these smart hosts, or of their MX, stood for when they were last looked up.
    /// Smart hosts that are written as addresses are not among them.
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
