//! Receive connectors that look at more than a client's address: certificate names and authentication.

use std::net::SocketAddr;

use crate::config::file::Written;
use crate::config::source::{Item, Problems};
use crate::config::{Auth, DirectoryKind, ReceiveConnector, ReceiveTlsMode};
use crate::message::envelope::Relay;
use crate::tls::names::ClientName;

use super::element;

/// Domains under which a provider's hosts show one certificate for all its customers.
const PROVIDERS: &[&str] = &[
    "outlook.com",
    "office365.com",
    "google.com",
    "googlemail.com",
    "gmail.com",
    "mimecast.com",
    "mimecast.co.za",
    "pphosted.com",
    "ppe-hosted.com",
    "messagelabs.com",
    "symanteccloud.com",
    "barracudanetworks.com",
    "iphmx.com",
    "mailcontrol.com",
    "forcepoint.net",
    "fireeyecloud.com",
    "trendmicro.com",
    "trendmicro.eu",
    "sophos.com",
    "hornetsecurity.com",
    "antispameurope.com",
    "antispamcloud.com",
    "spamexperts.com",
    "retarus.com",
    "amazonses.com",
    "sendgrid.net",
    "mailgun.org",
    "mailgun.net",
    "mandrillapp.com",
    "mailjet.com",
    "sparkpostmail.com",
    "postmarkapp.com",
    "sendinblue.com",
    "brevo.com",
    "zoho.com",
    "zoho.eu",
    "yahoo.com",
    "yahoodns.net",
    "icloud.com",
    "fastmail.com",
    "messagingengine.com",
    "protonmail.ch",
    "emailsrvr.com",
    "secureserver.net",
    "ovh.net",
    "ionos.com",
    "kundenserver.de",
];

/// Notes everything that is wrong with them.
pub(super) fn check(written: &Written, problems: &mut Problems) {
    for item in &written.receive_connectors {
        certificates(item, problems);
        shared_names(item, problems);
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

/// Names and the authorities that vouch for them belong together.
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

/// Rights for a name that strangers can show as well.
fn shared_names(item: &Item<ReceiveConnector>, problems: &mut Problems) {
    let connector = &item.used;
    let right = match (connector.relay, connector.resolves_first) {
        (Relay::Anywhere, _) => "relay = \"anywhere\"",
        (_, true) => "resolves_first",
        (_, false) => return,
    };
    for (at, name) in connector.client_names.iter().enumerate() {
        if let Some(provider) = provider(name) {
            let message = format!(
                "{right} for `{name}`, which all customers of {provider} share; leave {right} out, or name their networks \
                 and certificates of your own"
            );
            problems.add(item.places.at(&element("client_names", at)), message);
        }
    }
}

fn provider(name: &ClientName) -> Option<&'static str> {
    let below =
        |provider: &str| name.base().strip_suffix(provider).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    PROVIDERS.iter().copied().find(|provider| below(provider))
}

/// Whether clients who come by their address find TLS there.
fn shows_certificate(written: &Written, bind: SocketAddr) -> bool {
    written.receive_connectors.iter().map(|item| &item.used).any(|connector| {
        connector.bind.contains(&bind)
            && connector.client_names.is_empty()
            && connector.tls.mode != ReceiveTlsMode::None
    })
}

fn authentication(item: &Item<ReceiveConnector>, written: &Written, problems: &mut Problems) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_customers_are_known() {
        for (name, shared) in [
            ("*.protection.outlook.com", true),
            ("mail.protection.outlook.com", true),
            ("*.google.com", true),
            ("eu-smtp-1.mimecast.com", true),
            ("mx0a-1.pphosted.com", true),
            ("*.contoso.com", false),
            ("myoutlook.com", false),
            ("outlook.com.contoso.com", false),
        ] {
            assert_eq!(provider(&ClientName::parse(name).unwrap()).is_some(), shared, "{name}");
        }
    }
}
