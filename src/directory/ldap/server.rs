//! The servers of a directory, from its `urls`.

use std::sync::Arc;

use crate::config::LdapConfig;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// Its place in `urls`.
    pub(super) index: usize,
    /// As written.
    pub(super) url: String,
    /// A name or an address, without brackets.
    pub(super) host: String,
    /// 389 or 636 unless written.
    pub(super) port: u16,
    /// Whether and how the connection is encrypted.
    pub(super) security: Security,
}

/// Whether and how a connection is encrypted.
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
}

/// The servers in the order of failover.
///
/// # Errors
/// Every url that is not one.
pub(super) fn parse(config: &LdapConfig) -> Result<Vec<Arc<Server>>, Vec<String>> {
    let plain = if config.start_tls { Security::StartTls } else { Security::Plain };
    let (mut servers, mut problems) = (Vec::new(), Vec::new());
    for (index, url) in config.urls.iter().enumerate() {
        match parts(url, plain) {
            Some((host, port, security)) => {
                servers.push(Arc::new(Server { index, url: url.clone(), host, port, security }));
            }
            None => problems.push(format!("`{url}` is not a server; write ldaps://HOST, ldap://HOST or with :PORT")),
        }
    }
    if config.urls.is_empty() {
        problems.push("there is no server; write urls".to_owned());
    }
    if problems.is_empty() { Ok(servers) } else { Err(problems) }
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
}
