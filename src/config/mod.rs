//! The configuration as it is used: parsed, checked, with every default filled in.
//!
//! `file` has it as written, `check` turns the one into the other and reports all errors at once,
//! `reload` watches the files and swaps a whole new configuration in. DESIGN section 4 is the contract.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::routing::table::Table;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

mod used;
mod source;
mod parts;
mod units;
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

/// One whole configuration.
#[derive(Debug)]
pub struct Config {
    /// `[server]`.
    pub server: Server,
    /// `[admin]`.
    pub admin: Admin,
    /// `[[receive_connector]]`, in the order in which they were written.
    pub receive_connectors: Vec<Arc<ReceiveConnector>>,
    /// What decisions depend on: accepted domains, address spaces, directories' and connectors' rules.
    pub routing: Arc<Table>,
    /// `[[directory]]`, in the order in which they are asked.
    pub directories: Vec<Arc<DirectoryConfig>>,
    /// `[[send_connector]]`, then [`RECIPIENT_MX`].
    pub send_connectors: Vec<Arc<SendConnector>>,
    /// `[reports]`.
    pub reports: Reports,
    /// `[loop_detection]`.
    pub loops: LoopDetection,
    /// `[spool] min_free`, bytes.
    pub min_free: u64,
    /// `[spool] max_messages`; `None`: as many as memory and disk hold.
    pub max_messages: Option<u64>,
    /// `[trace] days`.
    pub trace: Trace,
    /// Hex digest over all files read: `config_info{hash}`.
    pub hash: String,
    /// What is allowed but worth a word; logged at start, shown by `check` and `status`.
    pub warnings: Vec<String>,
    /// Every file that was read, the main one first, and the patterns of `include`, made absolute.
    pub files: Vec<PathBuf>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// EHLO, Received, Reporting-MTA.
    pub hostname: Domain,
    /// What all nodes of one installation share: the `i=` of stamps.
    pub installation: String,
    /// Spool, trace, loop keys.
    pub state_dir: PathBuf,
    /// Whom a start as root becomes; `None`: it stays root.
    pub user: Option<Arc<str>>,
    /// How long sessions may finish after SIGTERM.
    pub drain_timeout: Duration,
    /// Octets of memory that it may take where the system allows more.
    pub memory_limit: Option<u64>,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// `/metrics`, `/healthz`, `/readyz`.
    pub metrics_bind: SocketAddr,
    /// API and status page.
    pub bind: SocketAddr,
    /// The token that every API request carries.
    pub token_file: PathBuf,
}

/// `[reports]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reports {
    /// The From of reports.
    pub from: Address,
    /// The connector for reports; `None`: by address space, else the recipient's MX.
    pub deliver_to: Option<Arc<str>>,
    /// How many reports that strangers caused leave in a minute.
    pub per_minute: usize,
    /// Whether a report goes by MX to hosts that have private addresses.
    pub allow_private: AllowPrivate,
    /// How many dead letters are kept.
    pub max_dead_letters: usize,
    /// How long a dead letter is kept.
    pub keep_dead_letters: Duration,
}

/// Whether a report goes by MX to hosts that have private addresses: `[reports] allow_private`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllowPrivate {
    /// It does not: the domain, and so the host, is whatever a stranger claimed to be.
    #[default]
    No,
    Yes,
}

/// `[trace]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// For how many days it is kept.
    pub days: u32,
    /// Bytes that it may take.
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
    /// Refuse, or only log and count.
    pub mode: LoopMode,
    /// Received headers.
    pub max_received: usize,
    /// Valid stamps of ours.
    pub max_passes: usize,
    /// The first signs, all verify.
    pub key_files: Vec<PathBuf>,
}

/// What is done about a loop that the stamps or the relay memory show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopMode {
    /// It is refused.
    Refuse,
    /// It is logged and counted, and goes on.
    Report,
}

/// Reads a duration as the configuration has it: `2h`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    units::duration(text)
}

impl Config {
    /// The send connector of that name.
    #[must_use]
    pub fn send_connector(&self, name: &str) -> Option<&Arc<SendConnector>> {
        self.send_connectors.iter().find(|connector| &*connector.name == name)
    }

    /// The receive connector of that name.
    #[must_use]
    pub fn receive_connector(&self, name: &str) -> Option<&Arc<ReceiveConnector>> {
        self.receive_connectors.iter().find(|connector| &*connector.name == name)
    }
}
