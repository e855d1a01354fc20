//! DNS lookups for next hops: addresses (A, AAAA) and mail exchanges (RFC 5321 5.1, RFC 7505).
//!
//! `attempt` uses it. `/etc/hosts` comes before DNS; answers are cached for their TTL, and while DNS fails the last
//! good one is used (`last_good`). A name that does not exist is an answer, not a failure.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{IntoName as _, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

mod last_good;
mod last_known;

use last_good::{Change, Known, LastGood};

/// How often the system's files are checked for changes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The most last good answers that are kept, of each kind.
const KEPT: usize = 10_000;
/// How long to wait for DNS if there is a last good answer (RFC 8767 5, client response timer).
const PATIENCE: Duration = Duration::from_millis(1800);
const SYSTEM_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// The result of an MX lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchanges {
    /// MX records: preference and name, the lowest first.
    Hosts(Vec<(u16, String)>),
    /// There is no MX record: the domain itself is used, if it has an address (RFC 5321 5.1).
    Implicit,
    /// The domain accepts no mail (RFC 7505).
    Null,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name does not exist, or has no address.
    #[error("`{0}` has no address in DNS")]
    NotFound(String),
    /// DNS did not answer, and there is no last good answer.
    #[error("DNS: {name}: {why}")]
    Failed { name: String, why: String },
}

/// Looks names up, with one resolver for each set of DNS servers.
#[derive(Default)]
pub struct Dns {
    resolvers: Mutex<HashMap<Vec<SocketAddr>, Arc<Resolver>>>,
}

/// One set of DNS servers, and their last good answers.
struct Resolver {
    resolver: TokioResolver,
    hosts: Hosts,
    /// The modification times of the system's files, and when they were checked.
    files: [Option<SystemTime>; 2],
    looked: Mutex<Instant>,
    last_good: Spare,
}

/// The last good answers.
#[derive(Clone)]
struct Spare {
    exchanges: Arc<Mutex<LastGood<Exchanges>>>,
    addresses: Arc<Mutex<LastGood<Vec<IpAddr>>>>,
}

impl Default for Spare {
    fn default() -> Self {
        Self {
            exchanges: Arc::new(Mutex::new(LastGood::new(KEPT))),
            addresses: Arc::new(Mutex::new(LastGood::new(KEPT))),
        }
    }
}

impl Dns {
    /// The addresses of a name, IPv4 first; never empty.
    ///
    /// # Errors
    /// [`DnsError`].
    pub async fn addresses(&self, servers: &[SocketAddr], name: &str) -> Result<Vec<IpAddr>, DnsError> {
        let resolver = self.resolver(servers, name)?;
        if let Some(found) = resolver.in_hosts(name) {
            return Ok(found);
        }
        let asked = (resolver.resolver.clone(), name.to_owned());
        // Boxed: it is large, rarely needed, and part of every future that may deliver.
        let lookup = Box::pin(async move {
            let (resolver, name) = asked;
            match resolver.lookup_ip(&name).await {
                Ok(found) => Ok(found.iter().collect::<Vec<_>>()),
                // Of two errors A's is returned: if AAAA failed, the absence of A records proves nothing.
                Err(error) if error.is_no_records_found() => match resolver.ipv6_lookup(&name).await {
                    Err(failed) if !failed.is_no_records_found() => Err(failed),
                    Ok(_) | Err(_) => Err(error),
                },
                Err(error) => Err(error),
            }
        });
        match ask(&resolver.last_good.addresses, name, lookup).await? {
            Some(found) if !found.is_empty() => Ok(found),
            _ => Err(DnsError::NotFound(name.to_owned())),
        }
    }

    /// A domain's mail exchanges.
    ///
    /// # Errors
    /// [`DnsError::NotFound`]: the domain does not exist.
    pub async fn exchanges(&self, servers: &[SocketAddr], domain: &str) -> Result<Exchanges, DnsError> {
        let resolver = self.resolver(servers, domain)?;
        // With the final dot no search list is applied.
        let asked = (resolver.resolver.clone(), format!("{}.", domain.trim_end_matches('.')));
        let lookup = Box::pin(async move {
            let (resolver, name) = asked;
            match resolver.mx_lookup(name).await {
                Ok(found) => Ok(read_exchanges(found.answers().iter().filter_map(|record| match &record.data {
                    RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                    _ => None,
                }))),
                Err(error) if error.is_no_records_found() && !error.is_nx_domain() => Ok(Exchanges::Implicit),
                Err(error) => Err(error),
            }
        });
        match ask(&resolver.last_good.exchanges, domain, lookup).await? {
            Some(found) => Ok(found),
            None if resolver.in_hosts(domain).is_some() => Ok(Exchanges::Implicit),
            None => Err(DnsError::NotFound(domain.to_owned())),
        }
    }

    fn resolver(&self, servers: &[SocketAddr], name: &str) -> Result<Arc<Resolver>, DnsError> {
        let mut resolvers = self.resolvers.lock();
        let known = resolvers.get(servers);
        if let Some(known) = known.filter(|known| known.is_current()) {
            return Ok(known.clone());
        }
        let last_good = known.map(|known| known.last_good.clone()).unwrap_or_default();
        let made = Resolver::new(servers, last_good)
            .map_err(|error| DnsError::Failed { name: name.to_owned(), why: error.to_string() })?;
        let made = Arc::new(made);
        resolvers.insert(servers.to_vec(), made.clone());
        Ok(made)
    }
}

impl Resolver {
    fn new(servers: &[SocketAddr], last_good: Spare) -> Result<Self, NetError> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(ResolverOpts::default())
        };
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // The file is read here instead: a name with only an A record in it must not wait for an AAAA lookup.
        options.use_hosts_file = ResolveHosts::Never;
        let files = changed();
        let hosts = Hosts::from_system().unwrap_or_default();
        Ok(Self { resolver: builder.build()?, hosts, files, looked: Mutex::new(Instant::now()), last_good })
    }

    /// Whether the system's files are unchanged.
    fn is_current(&self) -> bool {
        let mut looked = self.looked.lock();
        if looked.elapsed() < LOOK_AGAIN {
            return true;
        }
        *looked = Instant::now();
        changed() == self.files
    }

    fn in_hosts(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = name.into_name().ok()?.to_lowercase();
        let of = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let lookups = [of(RecordType::A), of(RecordType::AAAA)];
        let records = lookups.iter().flatten().flat_map(|lookup| lookup.answers());
        let found: Vec<_> = records.filter_map(|record| record.data.ip_addr()).collect();
        if found.is_empty() { None } else { Some(found) }
    }
}

/// Asks DNS. If it fails or is slow and answered lately, the last good answer is used. `None`: the name does not exist.
async fn ask<T: Clone + Send + 'static>(
    kept: &Arc<Mutex<LastGood<T>>>,
    name: &str,
    lookup: impl Future<Output = Result<T, NetError>> + Send + 'static,
) -> Result<Option<T>, DnsError> {
    let known = lock(kept).known(name, Instant::now());
    match known {
        Known::Nothing => settle(kept, name, lookup.await),
        Known::StandsIn(last) => Ok(Some(last)),
        Known::Spare(_) => {
            // In a task of its own, so that a late answer is kept as well.
            let (keep, asked) = (kept.clone(), name.to_owned());
            let asking = tokio::spawn(async move { settle(&keep, &asked, lookup.await) });
            match timeout(PATIENCE, asking).await {
                Ok(Ok(settled)) => settled,
                Ok(Err(error)) => failed(kept, name, &error.to_string()),
                Err(_) => failed(kept, name, &format!("no answer within {PATIENCE:?}")),
            }
        }
    }
}

fn settle<T: Clone>(kept: &Mutex<LastGood<T>>, name: &str, found: Result<T, NetError>) -> Result<Option<T>, DnsError> {
    match found {
        Ok(found) => {
            if lock(kept).answered(name, &found, Instant::now()) == Change::News {
                tracing::info!(name, "DNS answers again");
            }
            Ok(Some(found))
        }
        Err(error) if error.is_no_records_found() => {
            lock(kept).forget(name);
            Ok(None)
        }
        Err(error) => failed(kept, name, &error.to_string()),
    }
}

fn failed<T: Clone>(kept: &Mutex<LastGood<T>>, name: &str, why: &str) -> Result<Option<T>, DnsError> {
    let stands_in = lock(kept).failed(name, Instant::now());
    let Some((last, age, change)) = stands_in else {
        return Err(DnsError::Failed { name: name.to_owned(), why: why.to_owned() });
    };
    if change == Change::News {
        let minutes = age.as_secs() / 60;
        tracing::warn!(name, why, "DNS fails; its last good answer, {minutes} minutes old, is used for up to a day");
    }
    Ok(Some(last))
}

fn lock<T>(kept: &Mutex<LastGood<T>>) -> MutexGuard<'_, LastGood<T>> {
    kept.lock()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    server.connections.iter_mut().for_each(|connection| connection.port = address.port());
    server
}

fn changed() -> [Option<SystemTime>; 2] {
    SYSTEM_FILES.map(|path| std::fs::metadata(path).and_then(|data| data.modified()).ok())
}

/// Sorts MX records; RFC 7505 3: a single one for the root means that the domain accepts no mail.
fn read_exchanges(records: impl Iterator<Item = (u16, String)>) -> Exchanges {
    let mut hosts: Vec<_> =
        records.map(|(preference, name)| (preference, name.trim_end_matches('.').to_owned())).collect();
    if hosts.is_empty() {
        return Exchanges::Implicit;
    }
    if hosts.iter().all(|(_, name)| name.is_empty()) {
        return Exchanges::Null;
    }
    hosts.retain(|(_, name)| !name.is_empty());
    hosts.sort_by_key(|(preference, _)| *preference);
    Exchanges::Hosts(hosts)
}

/// The exchanges that are preferred to ourselves: RFC 5321 5.1 removes ourselves and everything less preferred. Equal
/// preferences take turns by `turn`, a growing number.
#[must_use]
pub fn before_us(hosts: &[(u16, String)], us: &str, turn: usize) -> Vec<String> {
    let ours = hosts.iter().filter(|(_, name)| name.eq_ignore_ascii_case(us)).map(|(preference, _)| *preference).min();
    let before: Vec<_> = hosts.iter().filter(|(preference, _)| ours.is_none_or(|ours| *preference < ours)).collect();
    before
        .chunk_by(|a, b| a.0 == b.0)
        .flat_map(|equal| (0..equal.len()).map(move |n| equal[(n + turn) % equal.len()].1.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mx_records_are_sorted_and_a_null_mx_is_seen() {
        let read = |records: &[(u16, &str)]| read_exchanges(records.iter().map(|(p, name)| (*p, (*name).to_owned())));
        assert_eq!(read(&[]), Exchanges::Implicit);
        assert_eq!(read(&[(0, ".")]), Exchanges::Null);
        let sorted = Exchanges::Hosts(vec![(5, "a.b".to_owned()), (10, "c.d".to_owned())]);
        assert_eq!(read(&[(10, "c.d."), (5, "a.b."), (0, ".")]), sorted);
    }

    #[test]
    fn nobody_behind_us_is_asked_and_equals_take_turns() {
        let hosts: Vec<_> = [(5, "a"), (10, "b"), (10, "c"), (20, "us"), (20, "d"), (30, "e")]
            .map(|(preference, name)| (preference, name.to_owned()))
            .to_vec();
        for (us, turn, left) in [
            ("US", 0, vec!["a", "b", "c"]),
            ("us", 1, vec!["a", "c", "b"]),
            ("b", 0, vec!["a"]),
            ("a", 0, vec![]),
            ("other", 2, vec!["a", "b", "c", "us", "d", "e"]),
        ] {
            assert_eq!(before_us(&hosts, us, turn), left, "{us} {turn}");
        }
    }
}
