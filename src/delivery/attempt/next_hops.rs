//! Lists a branch's next hops in order: smart hosts, their MX, or the recipient domain's MX (RFC 5321 5.1).
//!
//! Smart hosts come in the order of the configuration, or in turn (`select`). Those that are down by `health` come
//! last.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::next_hop_error::{LOOP, NO_DNS, NextHopError};
use super::{DnsError, Reach, WayOut};
use crate::config::{Host, Select, SmartHost};
use crate::delivery::dns::{Exchanges, before_us};
use crate::delivery::health::{Key, Standing};
use crate::report::not_sent::{NOT_TO_LITERALS, NOT_TO_PRIVATE};
use crate::smtp::reply::{NO_MAIL_SERVER, NO_SUCH_DOMAIN, NULL_MX, Reply};

/// The most mail servers of a domain that are considered for a report.
const MOST_FOR_A_REPORT: usize = 10;

/// One next hop, as health and pool identify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextHop {
    /// A name, after the MX lookup, or an address.
    pub at: SmartHost,
    /// The label of its `next_hop_up`; `None` for a recipient domain's MX.
    pub label: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(super) enum NoHop {
    /// The refusal of the recipients.
    Refused(Reply),
    /// Temporarily.
    NextHopError(NextHopError),
}

impl NextHop {
    /// For logs: the name, or the address in brackets.
    pub(super) fn name(&self) -> String {
        match &self.at.host {
            Host::Address(address) => format!("[{address}]:{}", self.at.port),
            Host::Name(name) => format!("{name}:{}", self.at.port),
            Host::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// `name[address]:port`, as in reports and logs.
    pub(super) fn at(&self, address: IpAddr) -> String {
        match &self.at.host {
            Host::Address(_) | Host::Unix(_) => format!("[{address}]:{}", self.at.port),
            Host::Name(name) => format!("{name}[{address}]:{}", self.at.port),
        }
    }

    /// The name that its certificate must have.
    pub(super) fn certificate_name(&self) -> String {
        match &self.at.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
            Host::Unix(_) => String::new(),
        }
    }

    pub(super) fn key(&self, connector: &Arc<str>) -> Key {
        Key { connector: connector.clone(), host: self.at.clone() }
    }
}

/// Counters for taking turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    connectors: Mutex<HashMap<Arc<str>, usize>>,
    exchanges: AtomicUsize,
}

impl Turns {
    /// The next number for this connector's smart hosts.
    fn smart_hosts(&self, connector: &Arc<str>) -> usize {
        let mut turns = self.connectors.lock();
        if let Some(turn) = turns.get_mut(connector) {
            *turn = turn.wrapping_add(1);
            return *turn;
        }
        turns.insert(connector.clone(), 0);
        0
    }

    /// The next number for equal MX records.
    fn exchanges(&self) -> usize {
        self.exchanges.fetch_add(1, Ordering::Relaxed)
    }
}

/// All next hops in order; those that failed lately come last.
pub(super) async fn hops(out: &WayOut) -> Result<Vec<NextHop>, NoHop> {
    let smtp = &out.terms.smtp;
    if out.reach != Reach::Anywhere && out.next_hop_domain.as_ip().is_some() {
        return Err(NoHop::Refused(NOT_TO_LITERALS));
    }
    let hops = if smtp.smart_hosts.is_empty() {
        recipients_mx(out).await?
    } else {
        smart_hosts(out).await.map_err(NoHop::NextHopError)?
    };
    if hops.len() < 2 {
        return Ok(hops);
    }
    let connector = &out.connector.name;
    let turn = match smtp.select {
        Select::Failover => 0,
        Select::RoundRobin => out.shared.turns.smart_hosts(connector),
    };
    Ok(in_order(hops, turn, |hop| matches!(out.shared.health.standing(&hop.key(connector)), Standing::Down(_))))
}

/// Puts those that are down last. With `turn`, smart hosts with an available next hop take turns, so that they share
/// the load of one that is down evenly; the next hops of one smart host (its MX records) keep their order.
fn in_order(hops: Vec<NextHop>, turn: usize, is_down: impl Fn(&NextHop) -> bool) -> Vec<NextHop> {
    let (down, up): (Vec<_>, Vec<_>) = hops.into_iter().partition(is_down);
    let mut smart_hosts: Vec<Vec<NextHop>> = Vec::new();
    for hop in up {
        match smart_hosts.last_mut() {
            Some(same) if same.first().is_some_and(|first| first.label == hop.label) => same.push(hop),
            _ => smart_hosts.push(vec![hop]),
        }
    }
    if !smart_hosts.is_empty() {
        let first = turn % smart_hosts.len();
        smart_hosts.rotate_left(first);
    }
    smart_hosts.into_iter().flatten().chain(down).collect()
}

/// The next hops of the connector's smart hosts.
pub(super) async fn smart_hosts(out: &WayOut) -> Result<Vec<NextHop>, NextHopError> {
    let smtp = &out.terms.smtp;
    let mut hops = Vec::new();
    let mut last = None;
    for smart_host in &smtp.smart_hosts {
        let label = Some(smart_host.as_written());
        let hop = |host: Host| NextHop { at: SmartHost::new(host, smart_host.port), label: label.cloned() };
        let name = match &smart_host.host {
            Host::Name(name) if smtp.mx => name,
            _ => {
                hops.push(NextHop { at: smart_host.clone(), label: label.cloned() });
                continue;
            }
        };
        match out.shared.dns.exchanges(&smtp.dns_servers, name).await {
            Ok(Exchanges::Implicit) => hops.push(hop(Host::Name(name.clone()))),
            Ok(Exchanges::Hosts(hosts)) => match ours_removed(out, name, &hosts) {
                Ok(names) => hops.extend(names.into_iter().map(|name| hop(Host::Name(name)))),
                Err(error) => last = Some(error),
            },
            Ok(Exchanges::Null) => {
                let text = format!("smart host {name} takes no mail: its MX says so (RFC 7505)");
                last = Some(NextHopError::unreached(NO_DNS, text).alerting());
            }
            Err(error @ DnsError::NotFound(_)) => {
                last = Some(NextHopError::unreached(NO_DNS, format!("smart host: {error}")).alerting());
            }
            Err(error) => last = Some(NextHopError::unreached(NO_DNS, error.to_string())),
        }
    }
    match last {
        Some(error) if hops.is_empty() => Err(error),
        _ => Ok(hops),
    }
}

async fn recipients_mx(out: &WayOut) -> Result<Vec<NextHop>, NoHop> {
    let domain = &out.next_hop_domain;
    let hop = |host| NextHop { at: SmartHost::new(host, 25), label: None };
    if let Some(address) = domain.as_ip() {
        return Ok(vec![hop(Host::Address(address))]);
    }
    let servers = &out.terms.smtp.dns_servers;
    let failed = |error: DnsError| NoHop::NextHopError(NextHopError::unreached(NO_DNS, error.to_string()));
    match out.shared.dns.exchanges(servers, domain.as_str()).await {
        Ok(Exchanges::Hosts(hosts)) => {
            let names = ours_removed(out, domain.as_str(), &hosts).map_err(|error| match out.reach {
                Reach::Anywhere => NoHop::NextHopError(error),
                Reach::NotUs | Reach::Public => NoHop::Refused(NOT_TO_PRIVATE),
            })?;
            reachable(out, names.into_iter().map(|name| hop(Host::Name(name))).collect()).await
        }
        Ok(Exchanges::Null) => Err(NoHop::Refused(NULL_MX)),
        Err(DnsError::NotFound(_)) => Err(NoHop::Refused(NO_SUCH_DOMAIN)),
        Err(error) => Err(failed(error)),
        Ok(Exchanges::Implicit) => match out.shared.dns.addresses(servers, domain.as_str()).await {
            Ok(_) => reachable(out, vec![hop(Host::Name(domain.as_str().to_owned()))]).await,
            Err(DnsError::NotFound(_)) => Err(NoHop::Refused(NO_MAIL_SERVER)),
            Err(error) => Err(failed(error)),
        },
    }
}

/// Those with an address that the branch may connect to, by a DNS lookup; empty: there is none.
async fn reachable(out: &WayOut, mut hops: Vec<NextHop>) -> Result<Vec<NextHop>, NoHop> {
    if out.reach == Reach::Anywhere {
        return Ok(hops);
    }
    hops.truncate(MOST_FOR_A_REPORT);
    let mut reachable = Vec::with_capacity(hops.len());
    for hop in hops {
        let Host::Name(name) = &hop.at.host else { continue };
        let known = out.shared.dns.addresses(&out.terms.smtp.dns_servers, name).await;
        let may = |ip: &IpAddr| out.may_reach(SocketAddr::new(*ip, hop.at.port));
        // If the lookup fails, the attempt will decide.
        if known.is_ok_and(|addresses| !addresses.iter().any(may)) {
            tracing::info!(host = name, "a mail server that no report may go to: its address is private, or ours");
        } else {
            reachable.push(hop);
        }
    }
    if reachable.is_empty() { Err(NoHop::Refused(NOT_TO_PRIVATE)) } else { Ok(reachable) }
}

/// The exchanges that are preferred to ourselves; an error if there is none, because mail for the domain would come
/// back to us.
fn ours_removed(out: &WayOut, domain: &str, hosts: &[(u16, String)]) -> Result<Vec<String>, NextHopError> {
    let names = before_us(hosts, out.terms.ehlo.as_str(), out.shared.turns.exchanges());
    if names.is_empty() {
        let text = format!("the best MX of {domain} is ourselves: mail would come back to us");
        return Err(NextHopError::unreached(LOOP, text).alerting());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a1 a2 b1`: the smart host's letter and its MX record's number.
    fn hop(name: &str) -> NextHop {
        NextHop { at: SmartHost::new(Host::Name(name.to_owned()), 25), label: Some(name[..1].into()) }
    }

    #[test]
    fn smart_hosts_take_turns_and_those_that_are_down_come_last() {
        for (hops, turn, down, expected) in [
            ("a b c", 0, "", "a b c"),
            ("a b c", 1, "", "b c a"),
            ("a b c", 5, "", "c a b"),
            // The two that are left share evenly.
            ("a b c", 0, "b", "a c b"),
            ("a b c", 1, "b", "c a b"),
            ("a b c", 2, "b", "a c b"),
            ("a b c", 1, "a b c", "a b c"),
            ("a1 a2 b1 c1 c2", 1, "", "b1 c1 c2 a1 a2"),
            ("a1 a2 b1 c1 c2", 2, "a1 c2", "c1 a2 b1 a1 c2"),
            ("", 3, "", ""),
        ] {
            let all = hops.split_whitespace().map(hop).collect();
            let is_down =
                |hop: &NextHop| matches!(&hop.at.host, Host::Name(name) if down.split(' ').any(|d| d == name));
            let ordered = in_order(all, turn, is_down);
            let names: Vec<_> = ordered.iter().map(|hop| hop.name().replace(":25", "")).collect();
            assert_eq!(names.join(" "), expected, "{hops} {turn} {down}");
        }
    }

    #[test]
    fn each_connector_has_turns_of_its_own() {
        let turns = Turns::default();
        let next = |connector: &str| turns.smart_hosts(&connector.into());
        assert_eq!([next("a"), next("b"), next("a"), next("b"), next("a")], [0, 0, 1, 1, 2]);
    }
}
