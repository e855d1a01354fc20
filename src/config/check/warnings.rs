//! Finds settings that are allowed but questionable; logged at start, shown by `check` and `status`.

use std::net::IpAddr;

use crate::config::file::ConfigTables;
use crate::config::source::Item;
use crate::config::{
    Auth, Delivery, DirectoryConfig, DirectoryKind, Host, Protocol, ReceiveConnector, SendConnector, SendTlsMode,
    SmtpOut,
};
use crate::message::header;
use crate::smtp::envelope::Relay;
use crate::smtp::providers::provider;

use super::domains::relays;
use super::{element, warning};

/// All warnings, each beginning with its place.
pub(super) fn find(written: &ConfigTables) -> Vec<String> {
    let mut found = written.warnings.clone();
    for item in &written.receive_connectors {
        if item.used.resolves_first && item.used.organization.is_empty() {
            found.push(warning(&item.places, "resolves_first", "resolves_first does nothing without an organization"));
        }
        idle_limits(item, &mut found);
        shared_names(item, &mut found);
        signed_headers(item, &mut found);
    }
    let logins = written.receive_connectors.iter().any(|item| item.used.auth == Auth::Directory);
    for item in &written.directories {
        directory(item, &mut found);
        if logins {
            passwords_in_clear(item, &mut found);
        }
    }
    written.send_connectors.iter().for_each(|item| send_connector(item, &mut found));
    let relays = relays(written);
    let carries = |item: &&Item<SendConnector>| relays.contains(&item.used.name);
    written.send_connectors.iter().filter(carries).for_each(|item| unverified(item, &mut found));
    found
}

/// Limits that are written but never apply, since they are for connectors that anybody may use.
fn idle_limits(item: &Item<ReceiveConnector>, found: &mut Vec<String>) {
    let connector = &item.used;
    if !item.places.has("limits") {
        return;
    }
    let why = if !connector.organization.is_empty() {
        "with an organization"
    } else if connector.relay_by_address() == Relay::Anywhere {
        "with relay = \"anywhere\""
    } else if connector.is_for_known_networks() {
        "for remote_networks that all are narrower than /8 (IPv6 /16)"
    } else if connector.limits.unknown_recipients == 0 {
        let others = ["unknown_within", "unknown_delay", "unknown_one_session"];
        for key in others.iter().filter(|key| item.places.has(&format!("limits.{key}"))) {
            let message = format!("{key} does nothing while unknown_recipients is 0");
            found.push(warning(&item.places, &format!("limits.{key}"), &message));
        }
        return;
    } else {
        return;
    };
    let message = format!("limits do nothing {why}: strangers who look for addresses do not come by there themselves");
    found.push(warning(&item.places, "limits", &message));
}

/// An organisation that a certificate cannot prove, or a tenant without an organisation.
fn shared_names(item: &Item<ReceiveConnector>, found: &mut Vec<String>) {
    let connector = &item.used;
    let organization = &connector.organization;
    match (&connector.tenant, organization.is_empty()) {
        (Some(_), true) => {
            found.push(warning(&item.places, "tenant", "tenant does nothing without an organization"));
        }
        (None, false) => {
            for (at, name) in connector.client_names.iter().enumerate() {
                let Some(provider) = provider(name.as_str()) else { continue };
                let cure = match provider {
                    "outlook.com" => "write tenant = \"ID\" of yours",
                    _ => "use a certificate or networks of your own",
                };
                let message = format!(
                    "client_names: all customers of {provider} show `{name}`, so who does is a stranger, not of \
                     `{organization}`; {cure}, or leave organization out"
                );
                found.push(warning(&item.places, &element("client_names", at), &message));
            }
        }
        (Some(_), false) | (None, true) => {}
    }
}

/// Header fields that Exchange Online signs (`h=` of its DKIM and ARC signatures).
const SIGNED: [&str; 2] = ["X-MS-Exchange-SenderADCheck", "X-MS-Exchange-AntiSpam-MessageData-0"];

/// A pattern of the operator that would break signatures.
fn signed_headers(item: &Item<ReceiveConnector>, found: &mut Vec<String>) {
    for (at, pattern) in item.used.strip_headers.iter().enumerate() {
        if let Some(signed) = SIGNED.iter().find(|name| header::matches(pattern, name.as_bytes())) {
            let message = format!(
                "strip_headers: `{pattern}` takes {signed} out, which Exchange Online signs: its DKIM signatures break"
            );
            found.push(warning(&item.places, &element("strip_headers", at), &message));
        }
    }
}

fn directory(item: &Item<DirectoryConfig>, found: &mut Vec<String>) {
    let DirectoryKind::Ldap(ldap) = &item.used.kind else { return };
    let name = &item.used.name;
    if ldap.probe.is_none() {
        let message = format!("directory `{name}` has no probe: should it go blind, every recipient will be unknown");
        found.push(warning(&item.places, "probe", &message));
    }
    let clear = |url: &&String| url.starts_with("ldap:") && !is_loopback_url(url);
    if let Some(url) = ldap.urls.iter().find(clear).filter(|_| !ldap.start_tls && !ldap.bind_dn.is_empty()) {
        let message =
            format!("directory `{name}` sends its password to {url} in clear text; use ldaps:// or start_tls");
        found.push(warning(&item.places, "urls", &message));
    }
}

/// Passwords of logins that would be sent to the directory unencrypted.
fn passwords_in_clear(item: &Item<DirectoryConfig>, found: &mut Vec<String>) {
    let DirectoryKind::Ldap(ldap) = &item.used.kind else { return };
    let clear = |url: &&String| url.starts_with("ldap:") && !is_loopback_url(url);
    if let Some(url) = ldap.urls.iter().find(clear).filter(|_| !ldap.start_tls && ldap.bind_dn.is_empty()) {
        let name = &item.used.name;
        let message = format!(
            "directory `{name}` is sent the passwords of those who log in, to {url} in clear text; use ldaps:// or start_tls"
        );
        found.push(warning(&item.places, "urls", &message));
    }
}

fn is_loopback_url(url: &str) -> bool {
    let host = url.trim_start_matches("ldap://").rsplit_once(':').map_or("", |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn send_connector(item: &Item<SendConnector>, found: &mut Vec<String>) {
    let Protocol::Smtp(smtp) = &item.used.protocol else { return };
    let name = &item.used.name;
    if smtp.auth.is_some() && !smtp.tls.verify {
        let message = format!("send connector `{name}` gives its password to whoever answers; write tls verify = true");
        found.push(warning(&item.places, "auth", &message));
    }
    if smtp.tls.mode == SendTlsMode::None {
        clear_text(item, smtp, found);
    }
}

/// A connector that queues learns too late that a recipient does not exist.
fn unverified(item: &Item<SendConnector>, found: &mut Vec<String>) {
    let SendConnector { name, delivery, protocol, verify_with, .. } = &item.used;
    if *delivery == Delivery::Queue && matches!(protocol, Protocol::Smtp(_)) && verify_with.is_none() {
        let message = format!(
            "send connector `{name}` queues mail for unresolved recipients: what its next hop refuses is reported to \
             senders who may be forged; write verify_with, or delivery = \"cut-through\""
        );
        found.push(warning(&item.places, "delivery", &message));
    }
}

fn clear_text(item: &Item<SendConnector>, smtp: &SmtpOut, found: &mut Vec<String>) {
    let name = &item.used.name;
    if smtp.smart_hosts.is_empty() {
        let message = format!("send connector `{name}` sends to the recipient domain's MX in clear text");
        found.push(warning(&item.places, "tls", &message));
    }
    for (at, smart_host) in smtp.smart_hosts.iter().enumerate() {
        let (host, where_it_is) = match &smart_host.host {
            Host::Address(address) if is_private(*address) => continue,
            Host::Name(host) if host == "localhost" => continue,
            Host::Unix(_) => continue,
            Host::Address(address) => (address.to_string(), "outside the loopback and private ranges"),
            Host::Name(host) => (host.clone(), "which may lie outside the loopback and private ranges"),
        };
        let message = format!("send connector `{name}` sends in clear text to {host}, {where_it_is}");
        found.push(warning(&item.places, &element("smart_hosts", at), &message));
    }
}

/// Loopback, RFC 1918, RFC 4193 and link-local addresses.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
