//! A receive connector as it is used: one listening door.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::network::Network;
use crate::message::header::Strip;
use crate::message::tenant::Tenant;
use crate::smtp::domain::Domain;
use crate::smtp::envelope::Relay;
use crate::smtp::names::ClientName;
use crate::smtp::providers::provider;

/// `[[receive_connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveConnector {
    pub name: Arc<str>,
    /// Addresses it listens on.
    pub bind: Vec<SocketAddr>,
    /// Clients it serves; the most specific network among the connectors of a bind wins.
    pub remote_networks: Vec<Network>,
    /// These hosts' organisation; empty: none, or none that could be told.
    pub organization: Arc<str>,
    /// These hosts send us only what they did not find themselves.
    pub resolves_first: bool,
    /// For which domains they may send.
    pub relay: Relay,
    /// TLS of this door.
    pub tls: ReceiveTls,
    /// Balancers that say in a PROXY header who the client is; the same for all connectors of a bind.
    pub trusted_proxies: Vec<Network>,
    /// Names in a verified client certificate that select it. Empty: clients' networks do.
    pub client_names: Vec<ClientName>,
    /// The tenant of Exchange Online whose mail alone is the organisation's, behind `client_names` that all tenants show.
    pub tenant: Option<Tenant>,
    /// Whom it lets authenticate; only over TLS.
    pub auth: Auth,
    /// Whom it offers DSN.
    pub dsn: OfferDsn,
    /// Bytes of a message.
    pub max_message_size: u64,
    /// Bytes of a header section.
    pub max_header_size: u64,
    /// Recipients of a transaction.
    pub max_recipients: usize,
    pub max_connections: usize,
    /// Connections of one client address.
    pub max_connections_per_ip: usize,
    /// Silence between commands.
    pub idle_timeout: Duration,
    /// The longest segment that clients may send, bytes; `None`: what the network says. The same for all connectors of a
    /// bind.
    pub max_segment_size: Option<u16>,
    /// Header field names, with a final `*` as the only wildcard, that strangers may not assert.
    pub strip_headers: Vec<String>,
    /// Whether strangers' Authentication-Results in our name are taken out.
    pub strip_authentication_results: bool,
    /// `limits`.
    pub limits: Limits,
}

/// How many different unknown recipients of a client are counted: no limit is higher.
pub const MOST_UNKNOWN: usize = 500;

/// `limits` of a receive connector: when a client looks for addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// So many distinct unknown recipients, if they are more than were accepted, show it. 0: nobody does.
    pub unknown_recipients: usize,
    /// Within this time; at most an hour.
    pub unknown_within: Duration,
    /// How much later each further refusal is told.
    pub unknown_delay: Duration,
    /// So many, if they are ten times those accepted, leave the client one session.
    pub unknown_one_session: usize,
}

impl ReceiveConnector {
    /// Whether its clients are strangers who come themselves: no organisation, no partner whose mail goes anywhere, and
    /// no few networks (narrower than /8, IPv6 /16), which are filters and partners by whom strangers' mail comes too.
    #[must_use]
    pub fn is_for_anybody(&self) -> bool {
        self.organization.is_empty()
            && self.relay_by_address() == Relay::AcceptedDomains
            && !self.is_for_known_networks()
    }

    /// To where a client may send that has nothing but its address to show: where clients can authenticate, an address
    /// gives no right to relay.
    #[must_use]
    pub fn relay_by_address(&self) -> Relay {
        if self.auth == Auth::None { self.relay } else { Relay::AcceptedDomains }
    }

    /// Whether it takes clients of networks narrower than /8 (v6: /16) only: a filter's, a partner's.
    #[must_use]
    pub fn is_for_known_networks(&self) -> bool {
        let narrow = |network: &Network| network.prefix() > if network.is_v6() { 16 } else { 8 };
        self.remote_networks.iter().all(narrow)
    }

    /// Whether whoever shows this name in a certificate is of the organisation at once. A name that a provider shares says
    /// nothing, and where a tenant is wanted the header section has to name it.
    #[must_use]
    pub fn vouches_for(&self, name: &str) -> bool {
        self.tenant.is_none() && provider(name).is_none()
    }

    /// What strangers may not assert here; `host` is our host name.
    #[must_use]
    pub fn strips<'a>(&'a self, host: &'a Domain) -> Strip<'a> {
        Strip { names: &self.strip_headers, results_of: Some(host).filter(|_| self.strip_authentication_results) }
    }
}

/// `tls` of a receive connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveTls {
    pub mode: ReceiveTlsMode,
    /// PEM files: certificate chain and key. Present unless the mode is `none`.
    pub certificate: Option<CertificateFiles>,
    /// PEM file of the authorities whose client certificates are believed; present where there are `client_names`.
    pub client_ca: Option<PathBuf>,
}

/// `auth`: who may say who they are (RFC 4954).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Nobody.
    None,
    /// Who is in an LDAP directory of the configuration, with the password there.
    Directory,
    /// Who is in this file of `name:hash` lines.
    Users(PathBuf),
}

/// `dsn`: whom EHLO offers to ask for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OfferDsn {
    /// Clients with an organization, and those that have authenticated.
    #[default]
    Organizations,
    /// Strangers too.
    Everybody,
}

/// Whether and how a receive connector speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveTlsMode {
    /// No STARTTLS.
    None,
    /// STARTTLS offered.
    Opportunistic,
    /// STARTTLS demanded before MAIL (530 5.7.0).
    Required,
    /// TLS from the first byte.
    Implicit,
}

/// A certificate chain and its private key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    pub key: PathBuf,
}
