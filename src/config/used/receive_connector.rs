//! A receive connector as it is used: one listening door.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::network::Network;
use crate::message::envelope::Relay;

/// `[[receive_connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveConnector {
    /// Its name.
    pub name: Arc<str>,
    /// Addresses it listens on.
    pub bind: Vec<SocketAddr>,
    /// Clients it serves; the most specific network among the connectors of a bind wins.
    pub remote_networks: Vec<Network>,
    /// These hosts' organisation; empty: none.
    pub organization: Arc<str>,
    /// These hosts send us only what they did not find themselves.
    pub resolves_first: bool,
    /// For which domains they may send.
    pub relay: Relay,
    /// TLS of this door.
    pub tls: ReceiveTls,
    /// Bytes of a message.
    pub max_message_size: u64,
    /// Bytes of a header section.
    pub max_header_size: u64,
    /// Recipients of a transaction.
    pub max_recipients: usize,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections of one client address.
    pub max_connections_per_ip: usize,
    /// Silence between commands.
    pub idle_timeout: Duration,
    /// Header field names, with a final `*` as the only wildcard, that strangers may not assert.
    pub strip_headers: Vec<String>,
}

/// `tls` of a receive connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveTls {
    /// Whether and how.
    pub mode: ReceiveTlsMode,
    /// PEM files: certificate chain and key. Present unless the mode is `none`.
    pub certificate: Option<CertificateFiles>,
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
    /// The key.
    pub key: PathBuf,
}
