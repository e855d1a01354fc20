//! IP networks in CIDR form, as `remote_networks` has them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// An address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not `address` or `address/bits`.
    #[error("`{0}` is not a network; write an address or ADDRESS/BITS, such as 10.1.0.0/16 or 2001:db8::/32")]
    Form(String),
    /// Bits after the prefix are set.
    #[error("`{0}` has bits set behind its prefix; did you mean `{1}`?")]
    HostBits(String, String),
}

impl Network {
    /// The length of the prefix in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether the network has the address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                masked(net.to_bits().into(), 32, self.prefix) == masked(ip.to_bits().into(), 32, self.prefix)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                masked(net.to_bits(), 128, self.prefix) == masked(ip.to_bits(), 128, self.prefix)
            }
            _ => false,
        }
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

/// The leading `prefix` bits of a number of `width` bits.
fn masked(bits: u128, width: u8, prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { bits >> (width - prefix) }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || NetworkError::Form(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = bits.map_or(Ok(width), |bits| bits.parse().map_err(|_| form()))?;
        if prefix > width {
            return Err(form());
        }
        let base = match address {
            IpAddr::V4(ip) => {
                IpAddr::V4(u32::try_from(shifted(ip.to_bits().into(), 32, prefix)).unwrap_or_default().into())
            }
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(shifted(ip.to_bits(), 128, prefix))),
        };
        if base != address {
            return Err(NetworkError::HostBits(text.to_owned(), format!("{base}/{prefix}")));
        }
        Ok(Self { address, prefix })
    }
}

/// The number with all bits after the first `prefix` cleared.
fn shifted(bits: u128, width: u8, prefix: u8) -> u128 {
    if prefix == 0 { 0 } else { masked(bits, width, prefix) << (width - prefix) }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_should() {
        for (network, address, inside) in [
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::ffff:192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("10.1.0.0/16", "10.1.255.1", true),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("127.0.0.2", "127.0.0.2", true),
            ("127.0.0.2", "127.0.0.3", false),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
    }

    #[test]
    fn wrong_networks_say_why() {
        assert!(matches!("10.0.0.0/33".parse::<Network>(), Err(NetworkError::Form(_))));
        assert!(matches!("ten".parse::<Network>(), Err(NetworkError::Form(_))));
        let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "`10.0.0.1/8` has bits set behind its prefix; did you mean `10.0.0.0/8`?");
    }
}
