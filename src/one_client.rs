//! Which addresses count as one client. Pure.

use std::net::{IpAddr, Ipv6Addr};

/// The IPv4 address (also for an IPv4-mapped one), or the IPv6 /64: a host with one address of a /64 usually has all of
/// it (RFC 7934 3).
#[must_use]
pub fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

/// A client for display: an address or a network.
#[must_use]
pub fn shown(client: IpAddr) -> String {
    match client {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(network) => format!("{network}/64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_or_an_ipv6_network() {
        for (address, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
            ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::"),
            ("2001:db8:0:2::1", "2001:db8:0:2::"),
        ] {
            assert_eq!(one_client(address.parse().unwrap()), client.parse::<IpAddr>().unwrap(), "{address}");
        }
        for (address, network) in [("192.0.2.1", "192.0.2.1"), ("2001:db8:0:1::1", "2001:db8:0:1::/64")] {
            assert_eq!(shown(one_client(address.parse().unwrap())), network);
        }
    }
}
