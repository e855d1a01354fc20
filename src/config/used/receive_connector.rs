//! The settings of a receive connector.

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
    pub bind: Vec<SocketAddr>,
    /// Clients that it serves; the most specific network among the connectors of a listener wins.
    pub remote_networks: Vec<Network>,
    /// The organisation of its clients; empty: none, or it cannot be proven.
    pub organization: Arc<str>,
    /// Whether its clients send only mail for addresses that they have not found themselves.
    pub resolves_first: bool,
    /// Which domains its clients may send to.
    pub relay: Relay,
    pub tls: ReceiveTls,
    /// Load balancers whose PROXY header is trusted; the same for all connectors of a listener.
    pub trusted_proxies: Vec<Network>,
    /// Names in a verified client certificate that select it. Empty: the client's network does.
    pub client_names: Vec<ClientName>,
    /// The Exchange Online tenant whose mail is the organisation's, if `client_names` has a name that all tenants
    /// share.
    pub tenant: Option<Tenant>,
    /// Who may authenticate; over TLS only.
    pub auth: Auth,
    /// To whom it offers DSN.
    pub dsn: OfferDsn,
    /// In bytes.
    pub max_message_size: u64,
    /// In bytes.
    pub max_header_size: u64,
    /// For each transaction.
    pub max_recipients: usize,
    pub max_connections: usize,
    pub max_connections_per_ip: usize,
    /// The time between commands.
    pub idle_timeout: Duration,
    /// The longest TCP segment that clients may send, bytes; `None`: chosen by the system. The same for all connectors
    /// of a listener.
    pub max_segment_size: Option<u16>,
    /// Fields that are removed from strangers' messages: names, with a final `*` as the only wildcard.
    pub strip_headers: Vec<String>,
    /// Whether strangers' Authentication-Results fields with our host name are removed.
    pub strip_authentication_results: bool,
    pub limits: Limits,
}

/// How many different unknown recipients of a client are counted; no limit may be higher.
pub const MOST_UNKNOWN: usize = 500;

/// `limits`: when a client counts as harvesting addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A client with this many distinct unknown recipients, if they are more than its accepted ones, is harvesting. 0:
    /// none is.
    pub unknown_recipients: usize,
    /// They are counted over this time; at most an hour.
    pub unknown_within: Duration,
    /// The delay of each further refusal.
    pub unknown_delay: Duration,
    /// With this many, if they are ten times the accepted ones, the client may have one session.
    pub unknown_one_session: usize,
}

impl ReceiveConnector {
    /// Whether its clients may be strangers that connect themselves. False for an organisation, for partners that may
    /// send to any domain, and for narrow networks (longer than /8, IPv6 /16), which belong to filters and partners
    /// that also forward strangers' mail.
    #[must_use]
    pub fn is_for_anybody(&self) -> bool {
        self.organization.is_empty()
            && self.relay_by_address() == Relay::AcceptedDomains
            && !self.is_for_known_networks()
    }

    /// Where a client that has not authenticated may send: where clients can authenticate, an address grants no right
    /// to relay.
    #[must_use]
    pub fn relay_by_address(&self) -> Relay {
        if self.auth == Auth::None { self.relay } else { Relay::AcceptedDomains }
    }

    /// Whether all its networks are narrower than /8 (IPv6: /16): a filter's or a partner's.
    #[must_use]
    pub fn is_for_known_networks(&self) -> bool {
        let narrow = |network: &Network| network.prefix() > if network.is_v6() { 16 } else { 8 };
        self.remote_networks.iter().all(narrow)
    }

    /// Whether a certificate with this name proves the organisation at once. A name that a provider shares proves
    /// nothing, and with `tenant` the header section has to name it.
    #[must_use]
    pub fn vouches_for(&self, name: &str) -> bool {
        self.tenant.is_none() && provider(name).is_none()
    }

    /// The fields that are removed from strangers' messages; `host` is our host name.
    #[must_use]
    pub fn strips<'a>(&'a self, host: &'a Domain) -> Strip<'a> {
        Strip { names: &self.strip_headers, results_of: Some(host).filter(|_| self.strip_authentication_results) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveTls {
    pub mode: ReceiveTlsMode,
    /// Certificate chain and key; `None` only if the mode is `none`.
    pub certificate: Option<CertificateFiles>,
    /// PEM file with the authorities for client certificates; present if there are `client_names`.
    pub client_ca: Option<PathBuf>,
}

/// `auth`: who may authenticate (RFC 4954).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    None,
    /// Users of an LDAP directory in the configuration, with their password there.
    Directory,
    /// Users in this file of `name:hash` lines.
    Users(PathBuf),
}

/// `dsn`: to whom EHLO offers DSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OfferDsn {
    /// To clients with an organization, and those that have authenticated.
    #[default]
    Organizations,
    /// To strangers as well.
    Everybody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveTlsMode {
    None,
    Opportunistic,
    /// STARTTLS is required before MAIL (530 5.7.0).
    Required,
    /// TLS from the first byte.
    Implicit,
}

/// PEM files of a certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}
