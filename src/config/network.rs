//! IP networks in CIDR form, as `remote_networks` has them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// An address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

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
        self.0.prefix_len()
    }

    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.0.addr().is_ipv6()
    }

    /// Whether the network has the address. IPv4-mapped IPv6 addresses count as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.0.addr()) || other.contains(self.0.addr())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Not by [`IpNet`]'s own reader, which takes no bare address and forgives bits behind the prefix.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || NetworkError::Form(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| form())?;
        let written = match bits {
            Some(bits) => IpNet::new(address, bits.parse().map_err(|_| form())?).map_err(|_| form())?,
            None => address.into(),
        };
        let network = written.trunc();
        if network != written {
            return Err(NetworkError::HostBits(text.to_owned(), network.to_string()));
        }
        Ok(Self(network))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
            ("::ffff:192.0.2.0/120", "192.0.2.1", false),
        ] {
            let network: Network = network.parse().unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
    }

    #[test]
    fn wrong_networks_say_why() {
        for form in ["10.0.0.0/33", "10.0.0.0/256", "10.0.0.0/", "/8", "10.0.0/8", "10.0.0.0/8/8", " 10.0.0.0/8", "ten"]
        {
            assert!(matches!(form.parse::<Network>(), Err(NetworkError::Form(_))), "{form}");
        }
        let error = "10.0.0.1/8".parse::<Network>().unwrap_err();
        assert_eq!(error.to_string(), "`10.0.0.1/8` has bits set behind its prefix; did you mean `10.0.0.0/8`?");
    }
}
