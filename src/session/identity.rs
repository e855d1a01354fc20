//! How a client has identified itself beside its address: a certificate in the TLS handshake, a password in AUTH; and
//! the receive connector that it gets for that.

use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::{Client, certificate_door};
use crate::config::{Auth, Config, ReceiveConnector};
use crate::smtp::envelope::{ChosenBy, Origin, Relay, Shown, Spoke, Whose};
use crate::smtp::names;
use crate::smtp::server::{AuthState, Hello};
use crate::strangers::Strangers;
use crate::strangers::sums::About;
use crate::tls::serve::ServerTls;

/// The client's proofs; none at first.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The certificate of the handshake, if it was verified.
    pub(super) certificate: Option<Believed>,
    /// The name with which it authenticated.
    pub(super) user: Option<Arc<str>>,
}

/// A client certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    pub names: Vec<String>,
    /// The `client_ca` files whose authorities the certificate chains to.
    pub by: Vec<PathBuf>,
}

impl Believed {
    /// Verifies the chain that a client presented in the handshake.
    pub(super) fn of(
        tls: &ServerTls,
        chain: Option<&[CertificateDer<'_>]>,
        tells: impl FnOnce() -> bool,
    ) -> Option<Self> {
        let chain = chain?;
        let names = chain.first().map(|own| names::of(own)).unwrap_or_default();
        let by = tls.believers(chain);
        if by.is_empty() {
            if tells() {
                tracing::info!(?names, "the client showed a certificate that no client_ca vouches for, or not today");
            }
            return None;
        }
        Some(Self { names, by })
    }

    /// The name in this certificate that selects the connector, if there is one.
    #[must_use]
    pub fn selects(&self, connector: &ReceiveConnector) -> Option<&str> {
        let ca = connector.tls.client_ca.as_ref()?;
        let wanted = |name: &&String| connector.client_names.iter().any(|wanted| wanted.fits(name));
        self.names.iter().find(wanted).filter(|_| self.by.contains(ca)).map(String::as_str)
    }
}

impl Client {
    /// The receive connector in this configuration, and how it was chosen.
    pub(super) fn door(&self, config: &Config) -> Option<(Arc<ReceiveConnector>, ChosenBy)> {
        let ip = self.address.ip().to_canonical();
        let believed = self.identity.certificate.as_ref();
        let named =
            believed.and_then(|believed| certificate_door::choose_by_certificate(config, self.bind, ip, believed));
        match named {
            Some((connector, name)) => Some((connector.clone(), ChosenBy::Certificate(name.to_owned()))),
            None => Some((crate::config::door::choose(config, Some(self.bind), ip)?.clone(), ChosenBy::Network)),
        }
    }

    /// Records the certificate that the client presented, and the connector that it gets for it.
    pub(super) fn showed(&mut self, config: &Config, believed: Option<Believed>, tells: impl Fn() -> bool) {
        let Some(believed) = believed else { return };
        let names = believed.names.clone();
        self.identity.certificate = Some(believed);
        match self.door(config) {
            Some((connector, ChosenBy::Certificate(name))) => {
                let receive_connector = connector.name.clone();
                self.connector = connector;
                if !self.is_stranger() || tells() {
                    tracing::info!(name, receive_connector = &*receive_connector, "chosen by the client's certificate");
                }
            }
            Some((_, ChosenBy::Network)) | None if !tells() => {}
            Some((_, ChosenBy::Network)) | None => {
                tracing::info!(?names, "no receive connector has a name of the client's certificate");
            }
        }
    }

    /// The origin of its mail for routing decisions.
    pub(super) fn origin(&self, chosen_by: ChosenBy, hello: Option<&Hello>) -> Origin {
        let connector = &self.connector;
        let authenticated = self.identity.user.is_some();
        let (vouched, proven) = match &chosen_by {
            ChosenBy::Network => (true, authenticated),
            ChosenBy::Certificate(name) => {
                let vouched = connector.vouches_for(name);
                (vouched, vouched || authenticated)
            }
        };
        Origin {
            receive_connector: connector.name.clone(),
            organization: if vouched { connector.organization.clone() } else { "".into() },
            resolves_first: connector.resolves_first && vouched,
            relay: match (proven, vouched) {
                (true, _) => connector.relay,
                (false, true) => connector.relay_by_address(),
                (false, false) => Relay::AcceptedDomains,
            },
            client: Some(self.address.ip().to_canonical()),
            helo: hello.map(|hello| hello.name().to_owned()).unwrap_or_default(),
            authenticated,
            chosen_by,
            client_port: Some(self.address.port()),
            spoke: hello.map(|hello| match hello {
                Hello::Helo(_) => Spoke::Smtp,
                Hello::Ehlo(_) => Spoke::Esmtp,
            }),
        }
    }

    /// Whether it is a [stranger](Shown::is_stranger) by its proofs so far.
    pub(super) fn is_stranger(&self) -> bool {
        self.shown().is_stranger()
    }

    /// Whether an event of this client is logged individually, not as part of a summary.
    pub(super) fn tells(&self, strangers: &Strangers, about: &About<'_>) -> bool {
        !self.is_stranger() || strangers.tells(about)
    }

    /// Whether the connection counts as a stranger's, which may be closed in favour of others. A connector with
    /// `tenant` counts as its organisation's although its clients are strangers: only the header section tells which of
    /// its messages are the organisation's.
    pub(super) fn whose(&self) -> Whose {
        let connector = &self.connector;
        let organization = if connector.tenant.is_some() { &connector.organization } else { self.shown().organization };
        Whose::from(Shown { organization, ..self.shown() })
    }

    fn shown(&self) -> Shown<'_> {
        let connector = &self.connector;
        let name = self.identity.certificate.as_ref().and_then(|believed| believed.selects(connector));
        let vouched = name.is_none_or(|name| connector.vouches_for(name));
        let organization = if vouched { &*connector.organization } else { "" };
        Shown { organization, authenticated: self.identity.user.is_some() }
    }

    /// The state of AUTH for the protocol machine.
    pub(super) fn auth_state(&self) -> AuthState {
        match (&self.identity.user, &self.connector.auth) {
            (Some(_), _) => AuthState::Done,
            (None, Auth::None) => AuthState::Unavailable,
            (None, Auth::Directory | Auth::Users(_)) => AuthState::Possible,
        }
    }
}

/// The origin of a message whose header section is complete: the organisation, if the message names the connector's
/// tenant and the client has the certificate that all tenants share. Before that it was a stranger's, and
/// `resolves_first` stays unset, which keeps rows 3 and 10 as they were decided. `None`: the origin does not change.
pub(super) fn with_tenant(
    origin: &Origin,
    connector: &ReceiveConnector,
    section: &[u8],
    tells: impl FnOnce() -> bool,
) -> Option<Origin> {
    let (Some(tenant), ChosenBy::Certificate(name)) = (&connector.tenant, &origin.chosen_by) else { return None };
    if !tenant.sent(section) {
        if tells() {
            tracing::info!(name, "the header section does not name the connector's tenant: a stranger's message");
        }
        return None;
    }
    Some(Origin { organization: connector.organization.clone(), ..origin.clone() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::check::load_text;

    const CONFIG: &str = r#"
[server]
hostname = "mx.contoso.com"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:2525"]
auth = "users:users"
tls = { mode = "opportunistic", certificate = "c", key = "k" }
[[receive_connector]]
name = "inside"
bind = ["127.0.0.1:2525"]
remote_networks = ["10.0.0.0/24"]
organization = "primary"
[[receive_connector]]
name = "partner"
bind = ["127.0.0.1:2525"]
client_names = ["mx.partner.test"]
tls = { client_ca = "ca" }
[[receive_connector]]
name = "branch"
bind = ["127.0.0.1:2525"]
organization = "primary"
client_names = ["mx.contoso.com", "customers.mimecast.com"]
tls = { client_ca = "ca" }
[[receive_connector]]
name = "cloud"
bind = ["127.0.0.1:2525"]
organization = "primary"
client_names = ["mail.protection.outlook.com"]
tenant = "6f1d7a4e-0c5e-4a3a-9d55-0f7c5b6b1e11"
tls = { client_ca = "ca" }
[[accepted_domain]]
domain = "contoso.com"
deliver_to = "exchange"
[[directory]]
name = "people"
kind = "file"
path = "people.csv"
[[send_connector]]
name = "exchange"
organization = "primary"
smart_hosts = ["[10.0.0.5]"]
"#;

    /// Whether it is a stranger: by its mail's origin, by itself, and for its connection slot. All follow one rule,
    /// with one difference.
    #[test]
    fn who_is_a_stranger() {
        let config = load_text(CONFIG, Path::new("fingerpost.toml")).unwrap();
        let (internet, organization) = ("192.0.2.1:40000", "10.0.0.1:40000");
        for (address, certificate, user, connector, stranger, whose) in [
            (internet, None, None, "internet", true, Whose::Stranger),
            (internet, None, Some("ann"), "internet", false, Whose::Known),
            (internet, Some("mx.other.test"), None, "internet", true, Whose::Stranger),
            (organization, None, None, "inside", false, Whose::Known),
            (internet, Some("mx.partner.test"), None, "partner", true, Whose::Stranger),
            (internet, Some("mx.contoso.com"), None, "branch", false, Whose::Known),
            (internet, Some("customers.mimecast.com"), None, "branch", true, Whose::Stranger),
            (internet, Some("customers.mimecast.com"), Some("ann"), "branch", false, Whose::Known),
            // Its connection may bring the organisation's messages; the header section tells.
            (internet, Some("mail.protection.outlook.com"), None, "cloud", true, Whose::Known),
            (internet, Some("mail.protection.outlook.com"), Some("ann"), "cloud", false, Whose::Known),
        ] {
            let (address, bind) = (address.parse().unwrap(), "127.0.0.1:2525".parse().unwrap());
            let first = config.receive_connectors[0].clone();
            let by = || config.receive_connectors[2].tls.client_ca.iter().cloned().collect();
            let believed = |name: &str| Believed { names: vec![name.to_owned()], by: by() };
            let identity = Identity { certificate: certificate.map(believed), user: user.map(Arc::from) };
            let mut client = Client { id: "test".into(), address, bind, connector: first, tls: None, identity };
            let (chosen, by) = client.door(&config).unwrap();
            client.connector = chosen;
            let case = format!("{address} {certificate:?} {user:?}");
            assert_eq!(&*client.connector.name, connector, "{case}");
            assert_eq!(client.is_stranger(), stranger, "{case}");
            assert_eq!(client.origin(by, None).is_stranger(), stranger, "{case}");
            assert_eq!(client.whose(), whose, "{case}");
        }
    }

    /// A report belongs to no client; the origin of the message that it is about is kept.
    #[test]
    fn our_own_reports_are_no_strangers() {
        let stranger =
            Origin { receive_connector: "internet".into(), relay: Relay::AcceptedDomains, ..Origin::report() };
        let known = Origin { organization: "primary".into(), ..stranger.clone() };
        for (about, strangers) in [(&stranger, true), (&known, false)] {
            let report = Origin::report_about(about);
            assert_eq!((report.is_stranger(), report.is_strangers_report()), (false, strangers));
        }
    }
}
