//! The configuration: parsed, checked, with all defaults.
//!
//! `file` reads what is written, `check` turns that into a [`Config`] and reports all errors at once, `reload` watches
//! the files and swaps a whole new configuration in. DESIGN section 4 is the contract.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::routing::table::Table;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

mod common;
mod used;
mod source;
mod parts;
mod units;
mod value_error;
pub mod schema;
mod profile;
mod reader;
pub(crate) mod include;
mod server;
mod receive_connector;
pub(crate) mod accepted_domain;
mod directory;
mod send_connector;
mod smart_host;
mod file;
pub mod check;
pub mod network;
pub mod door;

pub use crate::routing::table::RECIPIENT_MX;
pub use used::{
    AskedServer, Auth, BareLf, CacheConfig, CallAheadConfig, CertificateFiles, ClientAddress, CustomProfile,
    CutThrough, Delivery, DirectoryConfig, DirectoryKind, EightBit, FileDirectoryConfig, HoldChanges, Host, LdapConfig,
    LdapMode, Limits, MOST_UNKNOWN, Mechanism, OfferDsn, Profile, Protocol, ReceiveConnector, ReceiveTls,
    ReceiveTlsMode, Retry, Select, SendAuth, SendConnector, SendTls, SendTlsMode, SmartHost, SmtpOut, SnapshotConfig,
    Speaks, TlsVersion, WhenUnreachable,
};

#[derive(Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[admin]`.
    pub admin: Admin,
    /// In the order of the configuration.
    pub receive_connectors: Vec<Arc<ReceiveConnector>>,
    /// What routing decisions depend on: accepted domains, address spaces, rules of directories and connectors.
    pub routing: Arc<Table>,
    /// In the order in which they are asked.
    pub directories: Vec<Arc<DirectoryConfig>>,
    /// `[[send_connector]]`, then [`RECIPIENT_MX`].
    pub send_connectors: Vec<Arc<SendConnector>>,
    pub reports: Reports,
    pub loops: LoopDetection,
    /// `[spool] min_free`, bytes.
    pub min_free: u64,
    /// `[spool] max_messages`; `None`: limited by memory and disk only.
    pub max_messages: Option<u64>,
    pub trace: Trace,
    /// `[cluster]`; `None`: the queue is this node's own.
    pub cluster: Option<Cluster>,
    /// A digest of all files, in hex: `config_info{hash}`.
    pub hash: String,
    /// Settings that are allowed but questionable; logged at start, shown by `check` and `status`.
    pub warnings: Vec<String>,
    /// Absolute paths: every file that was read, the main one first, and the patterns of `include`.
    pub files: Vec<PathBuf>,
}

/// `[cluster]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The URL, without a password.
    pub database: String,
    pub password_file: Option<PathBuf>,
    /// The CAs for the database's certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// This node's name, which no other has.
    pub node: String,
    /// The most connections to the database.
    pub connections: usize,
    pub standby: Standby,
}

/// Whether mail is accepted while the database names no synchronous standby.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// It is not: 451.
    Required,
    /// It is, with an alert.
    Preferred,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// In EHLO, Received and Reporting-MTA.
    pub hostname: Domain,
    /// The name that all nodes of one installation share: `i=` in stamps.
    pub installation: String,
    /// The folder for the spool, the trace and loop keys.
    pub state_dir: PathBuf,
    /// The user that a process started as root switches to; `None`: it stays root.
    pub user: Option<Arc<str>>,
    /// How long sessions may go on after SIGTERM.
    pub drain_timeout: Duration,
    /// The most memory that it may take, in octets; `None`: what the system allows.
    pub memory_limit: Option<u64>,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// For `/metrics`, `/healthz` and `/readyz`.
    pub metrics_bind: SocketAddr,
    /// For the API and the status page.
    pub bind: SocketAddr,
    /// The file with the token for API requests.
    pub token_file: PathBuf,
}

/// `[reports]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reports {
    pub from: Address,
    /// The connector for reports; `None`: by address space, else to the recipient's MX.
    pub deliver_to: Option<Arc<str>>,
    /// How many reports about strangers' messages are sent in a minute.
    pub per_minute: usize,
    pub allow_private: AllowPrivate,
    pub max_dead_letters: usize,
    pub keep_dead_letters: Duration,
}

/// `[reports] allow_private`: whether a report may be sent by MX to hosts with private addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllowPrivate {
    /// It may not: a stranger chose the sender's domain, and so the host.
    #[default]
    No,
    Yes,
}

/// `[trace]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub days: u32,
    /// In bytes.
    pub max_size: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { days: server::DEFAULT_TRACE_DAYS, max_size: server::DEFAULT_TRACE_SIZE }
    }
}

/// `[loop_detection]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopDetection {
    pub mode: LoopMode,
    /// The most Received fields.
    pub max_received: usize,
    /// The most valid stamps of ours.
    pub max_passes: usize,
    /// The first key signs, all verify.
    pub key_files: Vec<PathBuf>,
}

/// What is done about a loop that is found by stamps or the relay memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopMode {
    Refuse,
    /// It is logged and counted, and the message goes on.
    Report,
}

/// Parses a duration as the configuration has it: `2h`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<std::time::Duration, value_error::ValueError> {
    units::duration(text)
}

impl Config {
    #[must_use]
    pub fn send_connector(&self, name: &str) -> Option<&Arc<SendConnector>> {
        self.send_connectors.iter().find(|connector| &*connector.name == name)
    }
}
