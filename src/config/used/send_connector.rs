//! The settings of a send connector.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::CertificateFiles;
use crate::routing::address_space::AddressSpace;
use crate::routing::table::SourceRoutes;

/// `[[send_connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendConnector {
    pub name: Arc<str>,
    /// Empty: none.
    pub organization: Arc<str>,
    /// The protocol and its settings.
    pub protocol: Protocol,
    pub address_spaces: Vec<AddressSpace>,
    /// The directory that is asked about unresolved recipients before they are accepted.
    pub verify_with: Option<Arc<str>>,
    /// Whether strangers' source routes may go to its next hop.
    pub source_routes: SourceRoutes,
    /// Whether RCPT TO carries the entry's target address.
    pub rewrite_target_address: bool,
    pub retry: Retry,
    /// The most concurrent connections.
    pub max_connections: usize,
    pub delivery: Delivery,
}

/// `delivery`: whether the next hop is part of the client's conversation. A Maildir always queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The message is made durable, accepted, and delivered later.
    Queue,
    /// The client gets the next hop's reply.
    CutThrough(CutThrough),
}

/// The settings of cut-through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutThrough {
    /// `cut_through_patience`: the time for connecting and the greeting, and for each reply up to 354.
    pub patience: Duration,
    pub when_unreachable: WhenUnreachable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP or LMTP to smart hosts, or SMTP to an MX.
    Smtp(Arc<SmtpOut>),
    /// A Maildir for each recipient below this folder: `PATH/DOMAIN/LOCAL/{tmp,new,cur}`.
    Maildir(PathBuf),
}

/// The settings of SMTP and LMTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpOut {
    pub speaks: Speaks,
    /// In the order of failover. Empty: the recipient domain's MX.
    pub smart_hosts: Vec<SmartHost>,
    pub select: Select,
    /// Whether names are looked up as MX instead of A/AAAA.
    pub mx: bool,
    /// Empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    pub tls: SendTls,
    pub auth: Option<SendAuth>,
    /// The local address of connections; `None`: chosen by the system.
    pub source_address: Option<IpAddr>,
    /// Whether segments have the DF bit, so that routers report those that are too large (RFC 1191).
    pub path_mtu_discovery: bool,
    /// In bytes; `None`: chosen by the system.
    pub max_segment_size: Option<u16>,
    pub client_address: ClientAddress,
    /// What is done with bare LF in BDAT mail for a next hop without CHUNKING.
    pub bare_lf: BareLf,
    /// What is done with 8-bit mail for a next hop without 8BITMIME.
    pub eight_bit: EightBit,
    /// Whether addresses and internal names in the next hop's replies become `[hidden]`.
    pub hide_internal_hosts: bool,
    pub connect_timeout: Duration,
    /// For each reply but the one to the end of data, which has 10 minutes.
    pub reply_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// RFC 5321.
    Smtp,
    /// RFC 2033: LHLO, and a reply for each recipient after the end of data.
    Lmtp,
}

impl Speaks {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
        }
    }

    /// The first command of a session.
    #[must_use]
    pub fn hello(self) -> &'static str {
        match self {
            Self::Smtp => "EHLO",
            Self::Lmtp => "LHLO", // RFC 2033 4.1
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The first one that is up.
    Failover,
    /// All that are up in turn.
    RoundRobin,
}

impl SmtpOut {
    #[must_use]
    pub fn smart_host_names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for smart_host in &self.smart_hosts {
            if let Host::Name(name) = &smart_host.host {
                names.push(name.as_str());
            }
        }
        names
    }
}

/// A next hop as configured.
#[derive(Debug, Clone, Eq)]
pub struct SmartHost {
    pub host: Host,
    /// 25 by default; 0 for a Unix socket.
    pub port: u16,
    written: Arc<str>,
}

impl SmartHost {
    #[must_use]
    pub fn new(host: Host, port: u16) -> Self {
        let behind = if port == 25 { String::new() } else { format!(":{port}") };
        let written = match &host {
            Host::Address(ip) => format!("[{ip}]{behind}"),
            Host::Name(name) => format!("{name}{behind}"),
            Host::Unix(path) => format!("unix:{}", path.display()),
        };
        Self { host, port, written: written.into() }
    }

    /// As in the configuration, without the default port: `[10.0.0.5]`, `mail.contoso.com:2525`,
    /// `unix:/run/dovecot/lmtp`.
    #[must_use]
    pub fn as_written(&self) -> &Arc<str> {
        &self.written
    }
}

impl PartialEq for SmartHost {
    fn eq(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

impl std::hash::Hash for SmartHost {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.host, self.port).hash(state);
    }
}

/// As in the configuration.
impl std::fmt::Display for SmartHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address, which is written in brackets.
    Address(IpAddr),
    /// A name: looked up as A/AAAA, or as MX if the connector says so.
    Name(String),
    /// A Unix socket, for LMTP.
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendTls {
    pub mode: SendTlsMode,
    /// Whether the certificate must be valid for the name.
    pub verify: bool,
    /// PEM file of a private CA; `None`: the system's CAs.
    pub ca: Option<PathBuf>,
    /// The name in the certificate; `None`: the smart host's.
    pub server_name: Option<String>,
    pub certificate: Option<CertificateFiles>,
    pub min_version: TlsVersion,
}

impl SendTls {
    /// The default.
    pub const DEFAULT: Self = Self {
        mode: SendTlsMode::Opportunistic,
        verify: false,
        ca: None,
        server_name: None,
        certificate: None,
        min_version: TlsVersion::Tls12,
    };
}

/// Older versions are never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Whether TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendTlsMode {
    None,
    /// If it is offered.
    Opportunistic,
    /// Always; without it delivery is deferred (4.7.x).
    Required,
}

/// `auth`; over TLS only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendAuth {
    pub mechanism: Mechanism,
    pub username: String,
    pub password_file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// AUTH LOGIN, which has no RFC; Exchange offers it.
    Login,
}

/// What the next hop learns of the original client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// Only our Received field.
    None,
    /// XFORWARD, if the next hop offers it.
    Xforward,
}

/// `bare_lf`: for a next hop without CHUNKING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareLf {
    /// Delivery fails with 554 5.6.1.
    Refuse,
    /// It becomes CRLF.
    Crlf,
}

/// `eight_bit`: for a next hop without 8BITMIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EightBit {
    /// It is sent unchanged.
    Send,
    /// Delivery fails.
    Refuse,
}

/// `when_unreachable`: what is done with recipients whose next hop cannot be reached, or is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnreachable {
    /// Strangers' recipients without evidence that they exist are deferred, the others queued.
    #[default]
    Auto,
    /// All are queued.
    Queue,
    /// All are deferred.
    Defer,
}

/// `retry`: the waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Before the second attempt.
    pub first: Duration,
    /// Each wait is this many times the one before.
    pub factor: f64,
    pub max: Duration,
    /// The age at which the sender gets a report of the delay.
    pub warn_after: Duration,
    /// The age at which the message fails.
    pub give_up_after: Duration,
}

impl Eq for Retry {}

impl Retry {
    /// The default; also used for mail without a connector.
    pub const DEFAULT: Self = Self {
        first: Duration::from_secs(60),
        factor: 2.0,
        max: Duration::from_secs(30 * 60),
        warn_after: Duration::from_secs(4 * 3600),
        give_up_after: Duration::from_secs(2 * 86_400),
    };
}
