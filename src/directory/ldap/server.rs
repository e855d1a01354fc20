//! The servers of a directory, from its `urls`.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use crate::config::LdapConfig;

/// The most addresses of one name that are tried; a domain's own name has those of all its controllers.
const MOST_ADDRESSES: usize = 10;

/// The longest time for a DNS lookup; at most half of a server's time.
const LOOK_UP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Server {
    /// Index in `urls`.
    pub(super) index: usize,
    pub(super) url: String,
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// 389 or 636 by default.
    pub(super) port: u16,
    pub(super) security: Security,
    look_up: Duration,
    known: Mutex<Known>,
}

/// What is known of the addresses of a name.
#[derive(Debug, Default)]
struct Known {
    /// The last result of the lookup.
    addresses: Vec<SocketAddr>,
    /// The last one to which a connection succeeded.
    good: Option<SocketAddr>,
    /// The last one that accepted a connection and then did not answer.
    bad: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Security {
    /// `ldap://`.
    Plain,
    /// `ldap://` with `start_tls` (RFC 4513 3).
    StartTls,
    /// `ldaps://`.
    Tls,
}

impl Server {
    pub(super) fn is_encrypted(&self) -> bool {
        self.security != Security::Plain
    }

    /// Its addresses, in the order in which they are tried.
    ///
    /// # Errors
    /// The name has no address.
    pub(super) async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let asked = timeout(self.look_up, tokio::net::lookup_host((self.host.as_str(), self.port))).await;
        let found = asked.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        let mut known = self.known.lock();
        match found {
            Ok(found) => known.addresses = found.collect(),
            // If the DNS fails, the last result is used.
            Err(error) if known.addresses.is_empty() => {
                return Err(format!("`{}` cannot be looked up: {error}", self.host));
            }
            Err(error) => tracing::debug!(server = self.url, "looked up in vain, the last answer is used: {error}"),
        }
        if known.addresses.is_empty() {
            return Err(format!("`{}` has no address", self.host));
        }
        Ok(in_order(&known))
    }

    /// A connection to this address succeeded.
    pub(super) fn connected(&self, address: SocketAddr) {
        self.known.lock().good = Some(address);
    }

    /// The connected address did not answer: next time another one is tried first.
    pub(super) fn fell_silent(&self) {
        let mut known = self.known.lock();
        if let Some(good) = known.good.take() {
            known.bad = Some(good);
        }
    }
}

/// The good one first, the bad one last, others in the order of the DNS.
fn in_order(known: &Known) -> Vec<SocketAddr> {
    let mut addresses = known.addresses.clone();
    addresses.sort_by_key(|address| match Some(*address) {
        good if good == known.good => 0,
        bad if bad == known.bad => 2,
        _ => 1,
    });
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

/// The servers in the order of failover.
///
/// # Errors
/// All malformed urls.
pub(super) fn parse(config: &LdapConfig) -> Result<Vec<Arc<Server>>, Vec<String>> {
    let plain = if config.start_tls { Security::StartTls } else { Security::Plain };
    let look_up = look_up(config.timeout);
    let (mut servers, mut problems) = (Vec::new(), Vec::new());
    for (index, url) in config.urls.iter().enumerate() {
        match parts(url, plain) {
            Some((host, port, security)) => {
                let (url, known) = (url.clone(), Mutex::default());
                servers.push(Arc::new(Server { index, url, host, port, security, look_up, known }));
            }
            None => problems.push(format!("`{url}` is not a server; write ldaps://HOST, ldap://HOST or with :PORT")),
        }
    }
    if config.urls.is_empty() {
        problems.push("there is no server; write urls".to_owned());
    }
    if problems.is_empty() { Ok(servers) } else { Err(problems) }
}

/// The time for a DNS lookup: a server has a third of a question's time.
fn look_up(timeout: Duration) -> Duration {
    LOOK_UP.min(timeout / 6)
}

fn parts(url: &str, plain: Security) -> Option<(String, u16, Security)> {
    let (scheme, rest) = url.split_once("://")?;
    let (port, security) = match scheme.to_ascii_lowercase().as_str() {
        "ldap" => (389, plain),
        "ldaps" => (636, Security::Tls),
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, written) = match rest.strip_prefix('[') {
        Some(six) => {
            let (host, after) = six.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let valid = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b));
    let port = written.map_or(Some(port), |written| written.parse().ok().filter(|port| *port != 0))?;
    valid.then(|| (host.to_owned(), port, security))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        for (url, expected) in [
            ("ldap://dc1.contoso.com", Some(("dc1.contoso.com", 389, Security::Plain))),
            ("LDAPS://dc1.contoso.com/", Some(("dc1.contoso.com", 636, Security::Tls))),
            ("ldap://10.0.0.1:3268", Some(("10.0.0.1", 3268, Security::Plain))),
            ("ldap://[2001:db8::1]:10389", Some(("2001:db8::1", 10389, Security::Plain))),
            ("ldap://[2001:db8::1]", Some(("2001:db8::1", 389, Security::Plain))),
            ("http://dc1", None),
            ("dc1", None),
            ("ldap://", None),
            ("ldap://dc1:0", None),
            ("ldap://dc1:x", None),
            ("ldap://[dc1]", None),
            ("ldap://dc1/dc=contoso", None),
            ("ldap://user@dc1", None),
        ] {
            let expected = expected.map(|(host, port, security)| (host.to_owned(), port, security));
            assert_eq!(parts(url, Security::Plain), expected, "{url}");
        }
    }

    #[test]
    fn looking_a_name_up_takes_half_of_what_a_server_has_at_most() {
        for (seconds, milliseconds) in [(1, 166), (3, 500), (5, 833), (6, 1_000), (60, 1_000)] {
            assert_eq!(look_up(Duration::from_secs(seconds)).as_millis(), milliseconds, "{seconds} s");
        }
    }

    #[test]
    fn the_address_that_answered_comes_first_and_the_one_that_fell_silent_last() {
        let [a, b, c] = [1, 2, 3].map(|last| SocketAddr::from(([10, 0, 0, last], 389)));
        for (good, bad, expected) in [
            (None, None, [a, b, c]),
            (Some(b), None, [b, a, c]),
            (None, Some(a), [b, c, a]),
            (Some(c), Some(a), [c, b, a]),
            // It is good again.
            (Some(a), Some(a), [a, b, c]),
        ] {
            assert_eq!(in_order(&Known { addresses: vec![a, b, c], good, bad }), expected);
        }
        let addresses = (0..40).map(|last| SocketAddr::from(([10, 0, 0, last], 389))).collect();
        assert_eq!(in_order(&Known { addresses, ..Known::default() }).len(), MOST_ADDRESSES);
    }

    #[tokio::test]
    async fn where_dns_fails_its_last_answer_stands_in() {
        let last = SocketAddr::from(([10, 0, 0, 1], 389));
        for (addresses, expected) in [(vec![last], Some(vec![last])), (Vec::new(), None)] {
            // RFC 6761 6.4: this name never exists.
            let (url, host) = ("ldap://dc1.invalid:389".to_owned(), "dc1.invalid".to_owned());
            let known = Mutex::new(Known { addresses, ..Known::default() });
            let (security, look_up) = (Security::Plain, LOOK_UP);
            let server = Server { index: 0, url, host, port: 389, security, look_up, known };
            let found = server.addresses().await;
            assert!(found.as_ref().is_ok() || found.as_ref().is_err_and(|why| why.contains("`dc1.invalid` cannot be")));
            assert_eq!(found.ok(), expected);
        }
    }
}
