//! A send connector as it is used: one way out.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::routing::address_space::AddressSpace;

/// `[[send_connector]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendConnector {
    /// Its name.
    pub name: Arc<str>,
    /// Its organisation; empty: none.
    pub organization: Arc<str>,
    /// How mail leaves, with what that way needs.
    pub protocol: Protocol,
    /// Which domains it serves.
    pub address_spaces: Vec<AddressSpace>,
    /// RCPT TO becomes the entry's target address.
    pub rewrite_target_address: bool,
    /// When and how often to try.
    pub retry: Retry,
    /// How many attempts at once.
    pub max_connections: usize,
}

/// How mail leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// SMTP to smart hosts or an MX.
    Smtp(Box<SmtpOut>),
    /// A Maildir for each recipient below this folder: `PATH/DOMAIN/LOCAL/{tmp,new,cur}`.
    Maildir(PathBuf),
}

/// What sending by SMTP needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpOut {
    /// Next hops, in the order of failover. Empty: the recipient domain's MX.
    pub smart_hosts: Vec<SmartHost>,
    /// Names are looked up as MX, not A/AAAA.
    pub mx: bool,
    /// DNS servers; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// TLS.
    pub tls: SendTls,
    /// AUTH.
    pub auth: Option<SendAuth>,
    /// The local address to send from.
    pub source_address: Option<IpAddr>,
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

/// One next hop as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SmartHost {
    /// A name or an address.
    pub host: Host,
    /// The port; 25 unless written.
    pub port: u16,
}

/// As written, without the default port: `[10.0.0.5]`, `mail.contoso.com:2525`.
impl std::fmt::Display for SmartHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Address(ip) => write!(f, "[{ip}]")?,
            Host::Name(name) => f.write_str(name)?,
        }
        if self.port == 25 { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Written in brackets.
    Address(IpAddr),
    /// Looked up as A/AAAA, or as MX where the connector says so.
    Name(String),
}

/// `tls` of a send connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendTls {
    /// Whether.
    pub mode: SendTlsMode,
    /// Whether the certificate must verify, name included.
    pub verify: bool,
    /// Own CA, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The name to check instead of the smart host's.
    pub server_name: Option<String>,
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
