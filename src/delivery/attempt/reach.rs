//! Limits the hosts to which a report may be sent by MX: its domain comes from a message's sender address, so strangers
//! choose its MX and addresses.
//!
//! `next_hops` leaves out hosts without an allowed address; the address of each connection, new or from the pool, is
//! checked again, because DNS may answer differently each time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::connection::Connection;
use super::open::is_own;
use super::{GivesPlace, WayOut};
use crate::config::{AllowPrivate, Reports};
use crate::delivery::health::Key;
use crate::smtp::envelope::{Origin, Relay};

/// Which hosts a branch may connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reach {
    /// Any: a client sent mail there.
    #[default]
    Anywhere,
    /// By MX any except ourselves; no address literal.
    NotUs,
    /// By MX those with public addresses, except ourselves; no address literal.
    Public,
}

impl Reach {
    /// For mail with this origin.
    #[must_use]
    pub fn of(origin: &Origin, reports: &Reports) -> Self {
        match (origin.relay, reports.allow_private) {
            (Relay::Report, AllowPrivate::No) => Self::Public,
            (Relay::Report, AllowPrivate::Yes) => Self::NotUs,
            (Relay::AcceptedDomains | Relay::Anywhere, _) => Self::Anywhere,
        }
    }
}

impl WayOut {
    /// The same with limited hosts.
    pub(crate) fn within(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    /// The same for an attempt that has a slot in the queue.
    pub(crate) fn in_place(self, place: Option<Arc<GivesPlace>>) -> Self {
        Self { place, ..self }
    }

    /// Whether it may connect to this address. Smart hosts, and their MX, are always allowed: the operator configured
    /// them.
    pub(super) fn may_reach(&self, address: SocketAddr) -> bool {
        if self.reach == Reach::Anywhere || self.has_smart_hosts() {
            return true;
        }
        let allowed = self.reach == Reach::NotUs || is_public(address.ip());
        allowed && !is_own(&self.shared.own_listeners(), address)
    }

    /// A connection from the pool that it may use; other mail may have gone to hosts that are not allowed here.
    pub(super) fn take_pooled(&self, key: &Key) -> Option<Connection> {
        let connection = self.shared.pool.take(key, &self.terms)?;
        if self.reach == Reach::Anywhere || connection.peer().is_some_and(|peer| self.may_reach(peer)) {
            self.tried();
            return Some(connection);
        }
        self.shared.pool.put(key.clone(), connection, self.idle_limit());
        None
    }
}

/// Whether an address is public: not loopback, private, link-local, multicast, unspecified, shared (CGNAT), or reserved
/// (RFC 6890); also checks IPv4 addresses within IPv6 ones.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => hidden_v4(address).map_or_else(|| is_public_v6(address), is_public_v4),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let set_apart = a == 0                              // RFC 1122 3.2.1.3, this network; the unspecified address
        || address.is_loopback()
        || address.is_private()                         // RFC 1918
        || address.is_link_local()
        || (a == 100 && b & 0b1100_0000 == 64)          // RFC 6598, carriers' NAT
        || (a, b, c) == (192, 0, 0)                     // RFC 6890, protocol assignments
        || (a == 198 && b & 0b1111_1110 == 18)          // RFC 2544, benchmarks
        || a >= 224; // multicast, reserved, broadcast
    !set_apart
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    let set_apart = address.is_unspecified()
        || address.is_loopback()
        || first & 0xfe00 == 0xfc00                     // RFC 4193
        || first & 0xff80 == 0xfe80                     // link-local, and site-local (RFC 3879)
        || first & 0xff00 == 0xff00                     // multicast
        || address.segments()[..4] == [0x100, 0, 0, 0]  // RFC 6666, discard only
        || address.segments()[..3] == [0x64, 0xff9b, 1]; // RFC 8215, local translation
    !set_apart
}

/// The IPv4 address that packets to this one reach: mapped, compatible (RFC 4291 2.5.5), translated (RFC 6052), 6to4
/// (RFC 3056) and Teredo (RFC 4380).
fn hidden_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let at = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => Some(at(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if (high, low) > (0, 1) => Some(at(high, low)), // not `::` and `::1`
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(at(high, low)),
        [0x2002, high, low, ..] => Some(at(high, low)),
        [0x2001, 0, .., high, low] => Some(at(!high, !low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_internets_addresses_are_public() {
        for (addresses, public) in [
            ("8.8.8.8 192.0.2.1 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 223.255.255.255 198.17.0.1", true),
            ("2001:db8::1 2a00:1450:4001::1a ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1", true),
            ("0.0.0.0 0.1.2.3 127.0.0.1 127.255.255.255 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1", false),
            ("169.254.169.254 100.64.0.1 100.127.255.255 224.0.0.1 239.1.2.3 240.0.0.1 255.255.255.255", false),
            ("192.0.0.8 198.18.0.1 198.19.255.255", false),
            (":: ::1 fc00::1 fdff::1 fe80::1 febf::1 fec0::1 ff02::1 100::1 64:ff9b:1::1", false),
            ("::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:100.64.0.1 ::ffff:0.0.0.0 ::127.0.0.1 ::10.0.0.1", false),
            ("64:ff9b::10.0.0.1 2002:7f00:1::1 2002:c0a8:1::1 2001:0:1::f5ff:fffe", false),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
            }
        }
    }
}
