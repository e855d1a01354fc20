//! Checks receive connectors that depend on more than a client's address: certificate names and authentication.

use std::net::SocketAddr;

use crate::config::file::ConfigTables;
use crate::config::source::{Item, Problems};
use crate::config::{Auth, DirectoryKind, ReceiveConnector, ReceiveTlsMode};
use crate::smtp::envelope::Relay;
use crate::smtp::providers::provider;

use super::element;

/// Reports everything that is wrong with them.
pub(super) fn check(written: &ConfigTables, problems: &mut Problems) {
    for item in &written.receive_connectors {
        certificates(item, problems);
        shared_names(item, problems);
        tenant(item, problems);
        for (at, bind) in item.used.bind.iter().enumerate() {
            if !item.used.client_names.is_empty() && !shows_certificate(written, *bind) {
                let message = format!(
                    "{bind}: nobody could show a certificate there; let another connector without client_names offer TLS \
                     at it"
                );
                problems.add(item.places.at(&element("bind", at)), message);
            }
        }
        authentication(item, written, problems);
    }
}

/// `client_names` and `client_ca` need each other.
fn certificates(item: &Item<ReceiveConnector>, problems: &mut Problems) {
    let connector = &item.used;
    match (connector.client_names.is_empty(), &connector.tls.client_ca) {
        (false, None) => {
            let message =
                "`client_names`: anybody can write a name; write tls client_ca, whose certificates are believed";
            problems.add(item.places.at("client_names"), message.to_owned());
        }
        (true, Some(_)) => {
            let message = "`tls.client_ca`: selects nobody; write the names that clients must have as `client_names`";
            problems.add(item.places.at("tls.client_ca"), message.to_owned());
        }
        (false, Some(_)) | (true, None) => {}
    }
}

/// Rights must not be granted to a name that strangers can present as well.
fn shared_names(item: &Item<ReceiveConnector>, problems: &mut Problems) {
    let connector = &item.used;
    let right = match (connector.relay, connector.resolves_first) {
        (Relay::Anywhere, _) => "relay = \"anywhere\"",
        (_, true) => "resolves_first",
        (_, false) => return,
    };
    for (at, name) in connector.client_names.iter().enumerate() {
        if let Some(provider) = provider(name.as_str()) {
            let message = format!(
                "{right} for `{name}`, which all customers of {provider} share; leave {right} out, or name their networks \
                 and certificates of your own"
            );
            problems.add(item.places.at(&element("client_names", at)), message);
        }
    }
}

/// `tenant` needs a verified certificate, and applies only when the header section is complete.
fn tenant(item: &Item<ReceiveConnector>, problems: &mut Problems) {
    let connector = &item.used;
    if connector.tenant.is_none() {
        return;
    }
    if connector.client_names.is_empty() {
        let message =
            "`tenant`: anybody can write a header; write the provider's names as `client_names`, and tls client_ca";
        problems.add(item.places.at("tenant"), message.to_owned());
    }
    let right = match (connector.relay, connector.resolves_first) {
        (Relay::Anywhere, _) => "relay = \"anywhere\"",
        (_, true) => "resolves_first",
        (_, false) => return,
    };
    if !connector.client_names.iter().any(|name| provider(name.as_str()).is_some()) {
        let message =
            format!("`tenant`: a message names it after its recipients, too late for {right}; leave {right} out");
        problems.add(item.places.at("tenant"), message);
    }
}

/// Removes the organisation from connectors whose clients can never be identified as its own: mail that comes in there
/// is no sign of a loop, and the status must not say otherwise.
pub(super) fn leave_out_organizations(written: &mut ConfigTables) {
    for item in &mut written.receive_connectors {
        let connector = &mut item.used;
        let nobody = !connector.client_names.is_empty()
            && connector.tenant.is_none()
            && connector.client_names.iter().all(|name| !connector.vouches_for(name.as_str()));
        if nobody {
            connector.organization = "".into();
        }
    }
}

/// Whether clients that are served by their address find TLS on this listener.
fn shows_certificate(written: &ConfigTables, bind: SocketAddr) -> bool {
    written.receive_connectors.iter().map(|item| &item.used).any(|connector| {
        connector.bind.contains(&bind)
            && connector.client_names.is_empty()
            && connector.tls.mode != ReceiveTlsMode::None
    })
}

fn authentication(item: &Item<ReceiveConnector>, written: &ConfigTables, problems: &mut Problems) {
    let connector = &item.used;
    let by_network = connector.client_names.is_empty();
    if connector.auth != Auth::None && connector.tls.mode == ReceiveTlsMode::None && by_network {
        let message =
            "`auth`: a password comes only over TLS; write tls = { mode = \"required\", ... } or \"opportunistic\"";
        problems.add(item.places.at("auth"), message.to_owned());
    }
    let ldap = written.directories.iter().any(|item| matches!(item.used.kind, DirectoryKind::Ldap(_)));
    if connector.auth == Auth::Directory && !ldap {
        let message = "`auth`: there is no directory of kind \"ldap\" to ask for passwords; write \"users:FILE\"";
        problems.add(item.places.at("auth"), message.to_owned());
    }
}
