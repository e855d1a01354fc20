//! Which next hops a branch can go to, in order: smart hosts, their MX, or the recipient domain's MX (RFC 5321 5.1).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::trouble::{LOOP, NO_DNS, Trouble};
use super::{Attempt, DnsError};
use crate::config::{Host, SmartHost};
use crate::delivery::dns::{Exchanges, before_us};
use crate::delivery::health::{Key, Standing};
use crate::smtp::reply::{Enhanced, Reply};

/// RFC 7505 4.2.
pub(super) const NULL_MX: Reply = Reply::fixed(556, Enhanced(5, 1, 10), "the recipient's domain takes no mail");
/// RFC 5321 5.1: the domain does not exist (RFC 3463 3.2, X.1.2).
pub(super) const NO_SUCH_DOMAIN: Reply = Reply::fixed(550, Enhanced(5, 1, 2), "the recipient's domain does not exist");
/// RFC 5321 5.1: it exists and has neither MX nor address (RFC 3463 3.5, X.4.4).
pub(super) const NO_MAIL_SERVER: Reply =
    Reply::fixed(550, Enhanced(5, 4, 4), "the recipient's domain has no mail server");

/// One next hop: what health and pool know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NextHop {
    /// A name, after MX, or an address.
    pub host: Host,
    /// The port.
    pub port: u16,
    /// Whose `next_hop_up` it is; `None` for a recipient domain's MX.
    pub label: Option<Arc<str>>,
}

/// Why there is no next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoHop {
    /// The recipients' final reply.
    Refused(Reply),
    /// For now.
    Trouble(Trouble),
}

impl NextHop {
    /// For logs: the name, or the address in brackets.
    pub(super) fn name(&self) -> String {
        match &self.host {
            Host::Address(address) => format!("[{address}]:{}", self.port),
            Host::Name(name) => format!("{name}:{}", self.port),
        }
    }

    /// `name[address]:port`, as reports and logs have it.
    pub(super) fn at(&self, address: IpAddr) -> String {
        match &self.host {
            Host::Address(_) => format!("[{address}]:{}", self.port),
            Host::Name(name) => format!("{name}[{address}]:{}", self.port),
        }
    }

    /// What its certificate is checked for.
    pub(super) fn certificate_name(&self) -> String {
        match &self.host {
            Host::Address(address) => address.to_string(),
            Host::Name(name) => name.clone(),
        }
    }

    pub(super) fn key(&self, connector: &Arc<str>) -> Key {
        Key { connector: connector.clone(), host: SmartHost { host: self.host.clone(), port: self.port } }
    }
}

/// All next hops in order: those that failed lately come last.
pub(super) async fn hops(attempt: &Attempt<'_>) -> Result<Vec<NextHop>, NoHop> {
    let mut hops = if attempt.terms.smtp.smart_hosts.is_empty() {
        recipients_mx(attempt).await?
    } else {
        smart_hosts(attempt).await.map_err(NoHop::Trouble)?
    };
    let standing = |hop: &NextHop| attempt.shared.health.standing(&hop.key(&attempt.connector.name));
    hops.sort_by_cached_key(|hop| standing(hop) == Standing::Down);
    Ok(hops)
}

async fn smart_hosts(attempt: &Attempt<'_>) -> Result<Vec<NextHop>, Trouble> {
    let smtp = &attempt.terms.smtp;
    let mut hops = Vec::new();
    let mut last = None;
    for smart_host in &smtp.smart_hosts {
        let label: Arc<str> = smart_host.to_string().into();
        let hop = |host: Host| NextHop { host, port: smart_host.port, label: Some(label.clone()) };
        let name = match &smart_host.host {
            Host::Name(name) if smtp.mx => name,
            host => {
                hops.push(hop(host.clone()));
                continue;
            }
        };
        match attempt.shared.dns.exchanges(&smtp.dns_servers, name).await {
            Ok(Exchanges::Implicit) => hops.push(hop(Host::Name(name.clone()))),
            Ok(Exchanges::Hosts(hosts)) => match ours_removed(attempt, name, &hosts) {
                Ok(names) => hops.extend(names.into_iter().map(|name| hop(Host::Name(name)))),
                Err(trouble) => last = Some(trouble),
            },
            Ok(Exchanges::Null) => {
                let text = format!("smart host {name} takes no mail: its MX says so (RFC 7505)");
                last = Some(Trouble::unreached(NO_DNS, text).alerting());
            }
            Err(error @ DnsError::NotFound(_)) => {
                last = Some(Trouble::unreached(NO_DNS, format!("smart host: {error}")).alerting());
            }
            Err(error) => last = Some(Trouble::unreached(NO_DNS, error.to_string())),
        }
    }
    match last {
        Some(trouble) if hops.is_empty() => Err(trouble),
        _ => Ok(hops),
    }
}

async fn recipients_mx(attempt: &Attempt<'_>) -> Result<Vec<NextHop>, NoHop> {
    let domain = attempt.next_hop_domain;
    let hop = |host| NextHop { host, port: 25, label: None };
    if let Some(address) = domain.as_ip() {
        return Ok(vec![hop(Host::Address(address))]);
    }
    let servers = &attempt.terms.smtp.dns_servers;
    let failed = |error: DnsError| NoHop::Trouble(Trouble::unreached(NO_DNS, error.to_string()));
    match attempt.shared.dns.exchanges(servers, domain.as_str()).await {
        Ok(Exchanges::Hosts(hosts)) => {
            let names = ours_removed(attempt, domain.as_str(), &hosts).map_err(NoHop::Trouble)?;
            Ok(names.into_iter().map(|name| hop(Host::Name(name))).collect())
        }
        Ok(Exchanges::Null) => Err(NoHop::Refused(NULL_MX)),
        Err(DnsError::NotFound(_)) => Err(NoHop::Refused(NO_SUCH_DOMAIN)),
        Err(error) => Err(failed(error)),
        Ok(Exchanges::Implicit) => match attempt.shared.dns.addresses(servers, domain.as_str()).await {
            Ok(_) => Ok(vec![hop(Host::Name(domain.as_str().to_owned()))]),
            Err(DnsError::NotFound(_)) => Err(NoHop::Refused(NO_MAIL_SERVER)),
            Err(error) => Err(failed(error)),
        },
    }
}

/// The exchanges before ourselves; none: mail for the domain would come back to us.
fn ours_removed(attempt: &Attempt<'_>, domain: &str, hosts: &[(u16, String)]) -> Result<Vec<String>, Trouble> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let names = before_us(hosts, attempt.terms.ehlo.as_str(), turn);
    if names.is_empty() {
        let text = format!("the best MX of {domain} is ourselves: mail would come back to us");
        return Err(Trouble::unreached(LOOP, text).alerting());
    }
    Ok(names)
}
