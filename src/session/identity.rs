//! What a client has shown of itself beside its address: a certificate at the TLS handshake, a password at AUTH; and
//! which receive connector it gets for it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::turn::Whose;
use super::{Client, door};
use crate::config::{Auth, Config, ReceiveConnector};
use crate::message::envelope::{ChosenBy, Origin, Relay, Spoke};
use crate::smtp::server::{AuthState, Hello};
use crate::tls::names;
use crate::tls::serve::ServerTls;

/// Nothing, at first.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// The certificate of the handshake, if somebody believes it.
    pub(super) certificate: Option<Believed>,
    /// The name that it authenticated with.
    pub(super) user: Option<Arc<str>>,
}

/// A client certificate that was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Believed {
    /// Its names.
    pub names: Vec<String>,
    /// The `client_ca` files whose authorities it leads to.
    pub by: Vec<PathBuf>,
}

impl Believed {
    /// Looks at the chain that a client showed in the handshake.
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

    /// The name of this certificate that selects the connector.
    #[must_use]
    pub fn selects(&self, connector: &ReceiveConnector) -> Option<&str> {
        let ca = connector.tls.client_ca.as_ref()?;
        let wanted = |name: &&String| connector.client_names.iter().any(|wanted| wanted.fits(name));
        self.names.iter().find(wanted).filter(|_| self.by.contains(ca)).map(String::as_str)
    }
}

impl Client {
    /// The receive connector that this configuration gives it, and what chose it.
    pub(super) fn door(&self, config: &Config) -> Option<(Arc<ReceiveConnector>, ChosenBy)> {
        let ip = self.address.ip().to_canonical();
        let believed = self.identity.certificate.as_ref();
        let named = believed.and_then(|believed| door::choose_by_certificate(config, self.bind, ip, believed));
        match named {
            Some((connector, name)) => Some((connector.clone(), ChosenBy::Certificate(name.to_owned()))),
            None => Some((door::choose(config, self.bind, ip)?.clone(), ChosenBy::Network)),
        }
    }

    /// Takes note of the certificate that it showed, and of the connector that it gets for it.
    pub(super) fn showed(&mut self, config: &Config, believed: Option<Believed>, tells: impl Fn() -> bool) {
        let Some(believed) = believed else { return };
        let names = believed.names.clone();
        self.identity.certificate = Some(believed);
        match self.door(config) {
            Some((connector, ChosenBy::Certificate(name))) => {
                tracing::info!(name, receive_connector = &*connector.name, "chosen by the client's certificate");
                self.connector = connector;
            }
            Some((_, ChosenBy::Network)) | None if !tells() => {}
            Some((_, ChosenBy::Network)) | None => {
                tracing::info!(?names, "no receive connector has a name of the client's certificate");
            }
        }
    }

    /// Where its mail comes from, as decisions see it.
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

    /// Whether it may be sent away for others.
    pub(super) fn whose(&self) -> Whose {
        let known = !self.connector.organization.is_empty() || self.identity.user.is_some();
        if known { Whose::Known } else { Whose::Stranger }
    }

    /// What the protocol has to know of AUTH.
    pub(super) fn auth_state(&self) -> AuthState {
        match (&self.identity.user, &self.connector.auth) {
            (Some(_), _) => AuthState::Done,
            (None, Auth::None) => AuthState::Unavailable,
            (None, Auth::Directory | Auth::Users(_)) => AuthState::Possible,
        }
    }
}

/// Where a message comes from, now that its header section is there: from the organisation, if it names the connector's
/// tenant behind a certificate that all tenants show. It was a stranger's up to here, and rows 3 and 10 stay with that:
/// `resolves_first` is not given. `None`: nothing changes.
pub(super) fn with_tenant(origin: &Origin, connector: &ReceiveConnector, section: &[u8]) -> Option<Origin> {
    let (Some(tenant), ChosenBy::Certificate(name)) = (&connector.tenant, &origin.chosen_by) else { return None };
    if !tenant.sent(section) {
        tracing::info!(name, "the header section does not name the connector's tenant: a stranger's message");
        return None;
    }
    Some(Origin { organization: connector.organization.clone(), ..origin.clone() })
}
