//! A send connector as it is used: one way out.

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
    /// Its organisation; empty: none.
    pub organization: Arc<str>,
    /// How mail leaves, with what that way needs.
    pub protocol: Protocol,
    /// Which domains it serves.
    pub address_spaces: Vec<AddressSpace>,
    /// `verify_with`: the directory that is asked about unresolved recipients before they are accepted.
    pub verify_with: Option<Arc<str>>,
    /// `source_routes`: whether strangers may route mail through its next hop.
    pub source_routes: SourceRoutes,
    /// RCPT TO becomes the entry's target address.
    pub rewrite_target_address: bool,
    /// When and how often to try.
    pub retry: Retry,
    /// How many connections at once.
    pub max_connections: usize,
    /// Whether the next hop is part of the client's conversation.
    pub delivery: Delivery,
}

/// `delivery` of a send connector; a Maildir always queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Durable, then 250, then delivered.
    Queue,
    /// The next hop's answer is the client's.
    CutThrough(CutThrough),
}

/// What cut-through needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutThrough {
    /// `cut_through_patience`: how long a next hop may take to connect and greet, and over each reply up to its 354.
    pub patience: Duration,
    /// What becomes of mail that it cannot take now.
    pub when_unreachable: WhenUnreachable,
}

/// How mail leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP or LMTP to smart hosts, or SMTP to an MX.
    Smtp(Arc<SmtpOut>),
    /// A Maildir for each recipient below this folder: `PATH/DOMAIN/LOCAL/{tmp,new,cur}`.
    Maildir(PathBuf),
}

/// What sending by SMTP or LMTP needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpOut {
    /// Which of the two.
    pub speaks: Speaks,
    /// Next hops, in the order of failover. Empty: the recipient domain's MX.
    pub smart_hosts: Vec<SmartHost>,
    /// Which of them is tried first.
    pub select: Select,
    /// Names are looked up as MX, not A/AAAA.
    pub mx: bool,
    /// DNS servers; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    pub tls: SendTls,
    pub auth: Option<SendAuth>,
    /// The local address to send from.
    pub source_address: Option<IpAddr>,
    /// Whether segments carry the DF bit, so that routers tell what they cannot forward (RFC 1191).
    pub path_mtu_discovery: bool,
    /// The longest TCP segment, bytes; `None`: what the network says.
    pub max_segment_size: Option<u16>,
    /// What the next hop learns of the original client.
    pub client_address: ClientAddress,
    /// What BDAT mail with bare LF becomes for a next hop without CHUNKING.
    pub bare_lf: BareLf,
    /// What becomes of 8-bit mail for a next hop without 8BITMIME.
    pub eight_bit: EightBit,
    /// Addresses and internal names in what the next hop said become `[hidden]`.
    pub hide_internal_hosts: bool,
    /// TCP connect.
    pub connect_timeout: Duration,
    /// Each reply but the one to the final dot, which has 10 minutes.
    pub reply_timeout: Duration,
}

/// The protocol that a next hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// RFC 5321.
    Smtp,
    /// RFC 2033: LHLO, and an answer for each recipient after the dot.
    Lmtp,
}

impl Speaks {
    /// Its name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
        }
    }

    /// The command that begins its sessions.
    #[must_use]
    pub fn hello(self) -> &'static str {
        match self {
            Self::Smtp => "EHLO",
            Self::Lmtp => "LHLO", // RFC 2033 4.1
        }
    }
}

/// Which smart host is tried first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The first one that is up.
    Failover,
    /// All that are up in turn.
    RoundRobin,
}

impl SmtpOut {
    /// The names of its smart hosts.
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

/// One next hop as written.
#[derive(Debug, Clone, Eq)]
pub struct SmartHost {
    /// A name, an address or a socket.
    pub host: Host,
    /// The port; 25 unless written; 0 for a socket, which has none.
    pub port: u16,
    written: Arc<str>,
}

impl SmartHost {
    /// Puts the two together.
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

    /// As written, without the default port: `[10.0.0.5]`, `mail.contoso.com:2525`, `unix:/run/dovecot/lmtp`.
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

/// As written.
impl std::fmt::Display for SmartHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}

/// Where a next hop is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Written in brackets.
    Address(IpAddr),
    /// Looked up as A/AAAA, or as MX where the connector says so.
    Name(String),
    /// A Unix socket, for LMTP; absolute where the configuration's path is.
    Unix(PathBuf),
}

/// `tls` of a send connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendTls {
    pub mode: SendTlsMode,
    /// Whether the certificate must verify, name included.
    pub verify: bool,
    /// Own CA, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The name to check instead of the smart host's.
    pub server_name: Option<String>,
    /// Our client certificate: chain and key, PEM.
    pub certificate: Option<CertificateFiles>,
    /// The oldest version that will do.
    pub min_version: TlsVersion,
}

impl SendTls {
    /// What it is where nothing is written.
    pub const DEFAULT: Self = Self {
        mode: SendTlsMode::Opportunistic,
        verify: false,
        ca: None,
        server_name: None,
        certificate: None,
        min_version: TlsVersion::Tls12,
    };
}

/// A version of TLS; older ones are not spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// Whether a send connector speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendTlsMode {
    /// Never.
    None,
    /// Where it is offered.
    Opportunistic,
    /// Or not at all: 4.7.x, never in clear.
    Required,
}

/// `auth` of a send connector; only over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendAuth {
    /// PLAIN or LOGIN.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The file with the password.
    pub password_file: PathBuf,
}

/// SASL mechanisms that we use towards next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old one, as Exchange has it.
    Login,
}

/// `client_address`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAddress {
    /// Nothing beside our Received field.
    None,
    /// XFORWARD, where the next hop offers it.
    Xforward,
}

/// `bare_lf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareLf {
    /// The branch fails with 554 5.6.1.
    Refuse,
    /// Each becomes CRLF.
    Crlf,
}

/// `eight_bit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EightBit {
    /// Sent as it is.
    Send,
    /// The branch fails.
    Refuse,
}

/// `when_unreachable`: what becomes of recipients whose next hop cannot be reached, or is too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnreachable {
    /// Strangers' recipients that nobody vouches for are deferred, the others queued.
    #[default]
    Auto,
    /// All are queued.
    Queue,
    /// All are deferred.
    Defer,
}

/// `retry`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Before the second attempt.
    pub first: Duration,
    /// Each wait is this much longer than the one before.
    pub factor: f64,
    /// The longest wait.
    pub max: Duration,
    /// Age at which the sender is told of the delay.
    pub warn_after: Duration,
    /// Age at which the message fails.
    pub give_up_after: Duration,
}

impl Eq for Retry {}

impl Retry {
    /// What it is where nothing is written, and what mail without a connector yet goes by.
    pub const DEFAULT: Self = Self {
        first: Duration::from_secs(60),
        factor: 2.0,
        max: Duration::from_secs(30 * 60),
        warn_after: Duration::from_secs(4 * 3600),
        give_up_after: Duration::from_secs(2 * 86_400),
    };
}
