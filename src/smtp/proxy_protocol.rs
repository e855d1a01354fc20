//! The PROXY header that a load balancer sends first on a connection: the client's address (HAProxy's "The PROXY
//! protocol", versions 1 and 2).
//!
//! `listener` reads it from trusted load balancers only. Some headers have no client address: v1 UNKNOWN, v2 LOCAL (the
//! balancer's own health checks) and v2 of another address family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Section 2.1: the longest line of version 1, in octets with its CRLF.
const LONGEST_LINE: usize = 107;
/// Section 2.2: what version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Length of version 2's fixed part: signature, version and command, family, length.
const FIXED: usize = 16;
/// The longest header of version 2 that is read: addresses, and optional values such as a name or a certificate's.
pub const LONGEST: usize = 4096;

/// The result of parsing the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// The header is not complete.
    Incomplete,
    Whole {
        /// The header's length, bytes; the client's own bytes follow.
        length: usize,
        /// The client; `None`: the header has no address.
        client: Option<SocketAddr>,
    },
}

/// Why bytes are not a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// They begin with neither version's signature.
    #[error("it does not begin with a PROXY header")]
    Start,
    /// Version 1: not `PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT`, nor `PROXY UNKNOWN ...`.
    #[error("the PROXY line is malformed")]
    Line,
    /// Version 2: an unknown version, command or family.
    #[error("the PROXY header is malformed: version and command {0:#04x}, family {1:#04x}")]
    Binary(u8, u8),
    /// Version 2: the length is too small for the addresses.
    #[error("the PROXY header has {0} bytes of addresses, which is too few")]
    Short(usize),
    /// The header is longer than the limit.
    #[error("the PROXY header is longer than {0} bytes")]
    Long(usize),
}

/// Parses a header at the beginning of `bytes`.
///
/// # Errors
/// [`ProxyError`], as soon as no further bytes could make it valid.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    match bytes.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') => line(bytes),
        Some(_) => binary(bytes),
    }
}

/// Version 1, section 2.1.
fn line(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let known = bytes.len().min(6);
    if bytes[..known] != b"PROXY "[..known] {
        return Err(ProxyError::Start);
    }
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LONGEST_LINE)]) else {
        return if bytes.len() < LONGEST_LINE { Ok(Parsed::Incomplete) } else { Err(ProxyError::Long(LONGEST_LINE)) };
    };
    let text = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| text.strip_suffix('\r'));
    let words: Vec<&str> = text.ok_or(ProxyError::Line)?.split(' ').skip(1).collect();
    let client = match words.as_slice() {
        ["UNKNOWN", ..] => None,
        ["TCP4", source, destination, from, to] => Some(ends::<Ipv4Addr>([source, destination], [from, to])?),
        ["TCP6", source, destination, from, to] => Some(ends::<Ipv6Addr>([source, destination], [from, to])?),
        _ => return Err(ProxyError::Line),
    };
    Ok(Parsed::Whole { length: end + 1, client })
}

/// The source of the connection, if both ends are well formed.
fn ends<A: std::str::FromStr + Into<IpAddr>>(addresses: [&str; 2], ports: [&str; 2]) -> Result<SocketAddr, ProxyError> {
    let address = |text: &str| text.parse::<A>().map_err(|_| ProxyError::Line);
    let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
    let port = |text: &str| Some(text).filter(digits).and_then(|text| text.parse::<u16>().ok()).ok_or(ProxyError::Line);
    let (source, from) = (address(addresses[0])?, port(ports[0])?);
    let (_, _) = (address(addresses[1])?, port(ports[1])?);
    Ok(SocketAddr::new(source.into(), from))
}

/// Version 2, section 2.2.
fn binary(bytes: &[u8]) -> Result<Parsed, ProxyError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(ProxyError::Start);
    }
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else { return Ok(Parsed::Incomplete) };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LONGEST {
        return Err(ProxyError::Long(LONGEST));
    }
    let names_a_client = match command {
        0x20 => false, // LOCAL: whatever follows is ignored
        0x21 => true,
        _ => return Err(ProxyError::Binary(command, family)),
    };
    let Some(addresses) = rest.get(..length) else { return Ok(Parsed::Incomplete) };
    let short = || ProxyError::Short(length);
    let client = match family {
        _ if !names_a_client => None,
        0x11 => Some(SocketAddr::from(v4(addresses).ok_or_else(short)?)),
        0x21 => Some(SocketAddr::from(v6(addresses).ok_or_else(short)?)),
        0x00 | 0x31 => None, // unspecified; over a Unix socket
        _ => return Err(ProxyError::Binary(command, family)),
    };
    Ok(Parsed::Whole { length: FIXED + length, client })
}

/// Source and destination address, source and destination port.
fn v4(addresses: &[u8]) -> Option<(Ipv4Addr, u16)> {
    let (source, rest) = addresses.split_first_chunk::<4>()?;
    let (port, _) = rest.get(4..8)?.split_first_chunk::<2>()?;
    Some((Ipv4Addr::from(*source), u16::from_be_bytes(*port)))
}

fn v6(addresses: &[u8]) -> Option<(Ipv6Addr, u16)> {
    let (source, rest) = addresses.split_first_chunk::<16>()?;
    let (port, _) = rest.get(16..20)?.split_first_chunk::<2>()?;
    Some((Ipv6Addr::from(*source), u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn whole(bytes: &[u8], client: Option<&str>) -> Result<Parsed, ProxyError> {
        Ok(Parsed::Whole { length: bytes.len(), client: client.map(|client| client.parse().unwrap()) })
    }

    #[test]
    fn lines_of_version_1() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.2 40000 25\r\n", Some("192.0.2.1:40000")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 65535 25\r\n", Some("[2001:db8::1]:65535")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            assert_eq!(parse(line.as_bytes()), whole(line.as_bytes(), client), "{line}");
            assert_eq!(parse(format!("{line}EHLO x\r\n").as_bytes()), whole(line.as_bytes(), client), "{line}");
        }
        for (line, error) in [
            ("EHLO x\r\n", ProxyError::Start),
            ("PROXX", ProxyError::Start),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 40000 25\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 40000\r\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 40000 25 1\r\n", ProxyError::Line),
            ("PROXY TCP4  192.0.2.1 198.51.100.2 40000 25\r\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.256 198.51.100.2 40000 25\r\n", ProxyError::Line),
            ("PROXY TCP4 2001:db8::1 2001:db8::2 40000 25\r\n", ProxyError::Line),
            ("PROXY TCP6 192.0.2.1 198.51.100.2 40000 25\r\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n", ProxyError::Line),
            ("PROXY TCP4 192.0.2.1 198.51.100.2 +4 25\r\n", ProxyError::Line),
            ("PROXY UDP4 192.0.2.1 198.51.100.2 40000 25\r\n", ProxyError::Line),
            ("PROXY \r\n", ProxyError::Line),
        ] {
            assert_eq!(parse(line.as_bytes()), Err(error), "{line}");
        }
        assert_eq!(parse(&[b"PROXY UNKNOWN".as_slice(), &[b' '; 200]].concat()), Err(ProxyError::Long(LONGEST_LINE)));
    }

    #[test]
    fn headers_of_version_2() {
        let four = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0, 25];
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        six[15] = 1;
        six[32..34].copy_from_slice(&40_000_u16.to_be_bytes());
        let with_values = [&four[..], &[0x03, 0, 4, 1, 2, 3, 4]].concat();
        for (header, client) in [
            (v2(0x21, 0x11, &four), Some("192.0.2.1:40000")),
            (v2(0x21, 0x11, &with_values), Some("192.0.2.1:40000")),
            (v2(0x21, 0x21, &six), Some("[2001:db8::1]:40000")),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &four), None),
            (v2(0x20, 0x77, &[1, 2, 3]), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            assert_eq!(parse(&header), whole(&header, client), "{header:?}");
        }
        for (header, error) in [
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), ProxyError::Start),
            (v2(0x11, 0x11, &four), ProxyError::Binary(0x11, 0x11)),
            (v2(0x22, 0x11, &four), ProxyError::Binary(0x22, 0x11)),
            (v2(0x21, 0x12, &four), ProxyError::Binary(0x21, 0x12)),
            (v2(0x21, 0x11, &four[..11]), ProxyError::Short(11)),
            (v2(0x21, 0x21, &six[..35]), ProxyError::Short(35)),
            (v2(0x21, 0x11, &[0; LONGEST]), ProxyError::Long(LONGEST)),
        ] {
            assert_eq!(parse(&header), Err(error), "{header:?}");
        }
    }

    fn encoded(client: SocketAddr, values: &[u8]) -> [Vec<u8>; 2] {
        let (family, word, address) = match client.ip() {
            IpAddr::V4(ip) => (0x11, "TCP4", ip.octets().to_vec()),
            IpAddr::V6(ip) => (0x21, "TCP6", ip.octets().to_vec()),
        };
        let ports = [client.port().to_be_bytes(), 25_u16.to_be_bytes()].concat();
        let rest = [&address[..], &address, &ports, values].concat();
        let line = format!("PROXY {word} {ip} {ip} {} 25\r\n", client.port(), ip = client.ip());
        [line.into_bytes(), v2(0x21, family, &rest)]
    }

    proptest! {
        #[test]
        fn a_header_is_read_however_it_is_cut_and_whatever_follows(
            ip: IpAddr, port: u16, values in prop::collection::vec(any::<u8>(), 0..300), after: Vec<u8>
        ) {
            let client = SocketAddr::new(ip, port);
            for header in encoded(client, &values) {
                for cut in 0..header.len() {
                    prop_assert_eq!(parse(&header[..cut]), Ok(Parsed::Incomplete));
                }
                let all = [&header[..], &after].concat();
                prop_assert_eq!(parse(&all), Ok(Parsed::Whole { length: header.len(), client: Some(client) }));
            }
        }

        #[test]
        fn whatever_comes_is_decided_within_the_longest_header(
            start in prop_oneof![Just(&b"PROXY TCP4 "[..]), Just(&SIGNATURE[..]), Just(&b""[..])],
            rest in prop::collection::vec(any::<u8>(), 0..LONGEST + 100),
        ) {
            let bytes = [start, &rest].concat();
            match parse(&bytes) {
                Ok(Parsed::Incomplete) => prop_assert!(bytes.len() < LONGEST),
                Ok(Parsed::Whole { length, .. }) => prop_assert!(length <= bytes.len().min(LONGEST)),
                Err(_) => {}
            }
        }
    }
}
