//! The settings of a directory.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{CertificateFiles, SendConnector};
use crate::routing::table::DirectoryRules;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// `[[directory]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryConfig {
    pub name: Arc<str>,
    /// What routing decisions need (also in `Config::routing`).
    pub rules: DirectoryRules,
    /// Its kind, with the settings of that kind.
    pub kind: DirectoryKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryKind {
    /// `kind = "file"`: TOML or CSV, by the file's extension.
    File(FileDirectoryConfig),
    /// `kind = "ldap"`.
    Ldap(Box<LdapConfig>),
    /// `kind = "call-ahead"`.
    CallAhead(CallAheadConfig),
}

impl DirectoryKind {
    /// The value of `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Ldap(_) => "ldap",
            Self::CallAhead(_) => "call-ahead",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDirectoryConfig {
    /// A `.toml`, `.csv` or `.txt` file.
    pub path: PathBuf,
    /// The domain of addresses that are written without one.
    pub default_domain: Option<Domain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapConfig {
    /// In the order of failover.
    pub urls: Vec<String>,
    pub profile: Profile,
    pub base: Vec<String>,
    /// Empty: anonymous.
    pub bind_dn: String,
    pub password_file: Option<PathBuf>,
    /// Whether STARTTLS is used with `ldap://`.
    pub start_tls: bool,
    /// PEM file of a private CA; `None`: the system's CAs.
    pub ca: Option<PathBuf>,
    /// Our client certificate; without `bind_dn` it authenticates us (SASL EXTERNAL).
    pub certificate: Option<CertificateFiles>,
    /// For one question, over all urls.
    pub timeout: Duration,
    /// An address that must be found; `None`: written as `"none"`.
    pub probe: Option<Address>,
    pub cache: CacheConfig,
    /// Whether disabled accounts count as not found.
    pub refuse_disabled: bool,
    pub mode: LdapMode,
    /// How many recipients' routes may change before an operator has to accept the changes.
    pub hold_changes: HoldChanges,
    /// The send connector by the entry's mail server, in lower case.
    pub mailbox_servers: HashMap<String, Arc<str>>,
}

impl LdapConfig {
    /// Whether its recipients are kept in memory.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        matches!(self.mode, LdapMode::Snapshot(_))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdapMode {
    /// The directory is asked for each recipient; answers are cached.
    Lookup,
    /// All recipients are kept in memory and updated.
    Snapshot(SnapshotConfig),
}

/// How a snapshot is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// How often changes are polled; where they are streamed, how often the connection is tested.
    pub poll: Duration,
    /// How often everything is read again.
    pub full_read: Duration,
    /// How long recipients are used without confirmation.
    pub max_stale: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldChanges {
    /// A share of all recipients, in millionths.
    pub share_millionths: usize,
    /// Fewer changes are never held.
    pub at_least: usize,
    /// Changes within this time count together.
    pub within: Duration,
}

/// A mail server that is asked with RCPT (call-ahead).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallAheadConfig {
    /// The send connector whose smart hosts are asked.
    pub send_connector: Arc<str>,
    /// Its settings; `None` only in a configuration that is refused.
    pub server: Option<AskedServer>,
    /// For one question, including all waiting.
    pub timeout: Duration,
    pub cache: CacheConfig,
    /// The most addresses that are asked about in a second.
    pub probes_per_second: u32,
}

/// A mail server that is asked about addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedServer {
    /// The connector with smart hosts, TLS and authentication.
    pub connector: Arc<SendConnector>,
    /// Our name in EHLO.
    pub ehlo: Domain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// How long "found" is kept.
    pub found: Duration,
    /// How long "not found" is kept.
    pub not_found: Duration,
    /// The most answers that are kept.
    pub entries: usize,
}

impl CacheConfig {
    /// The same with no time longer than `limit`.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self { found: self.found.min(limit), not_found: self.not_found.min(limit), ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// Active Directory with Exchange's attributes.
    ActiveDirectory,
    /// Active Directory without Exchange, synchronized to Exchange Online or Google.
    ActiveDirectorySynced,
    /// `mail`, `mailAlternateAddress`, `mailLocalAddress`, `mailRoutingAddress`, `mailHost`.
    Openldap,
    /// eDirectory with GroupWise's users.
    GroupWise,
    /// Kerio Connect's extension of Active Directory or Open Directory.
    Kerio,
    /// Apple's Open Directory.
    OpenDirectory,
    /// HCL Domino's directory.
    Domino,
    /// Zimbra Collaboration's directory.
    Zimbra,
    /// The operator's own attributes.
    Custom(Arc<CustomProfile>),
}

/// `attributes` and `filter` of `profile = "custom"`. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomProfile {
    /// Attributes whose values are addresses of the entry.
    pub addresses: Vec<String>,
    /// The same, used if no entry has the address in `addresses`.
    pub fallback: Vec<String>,
    /// A prefix that values of both may have, such as `smtp:`.
    pub prefix: Option<String>,
    /// The attribute with the target address.
    pub target: Option<String>,
    /// The attribute with the mail server, which `mailbox_servers` refers to.
    pub mail_server: Option<String>,
    /// Attributes with login names.
    pub login: Vec<String>,
    pub groups: Vec<String>,
    /// A complete filter (RFC 4515) that restricts every search.
    pub filter: Option<String>,
}
