//! A directory as it is used: whom to ask, and how.

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
    /// What decisions need to know of it (also in [`Config::routing`]).
    pub rules: DirectoryRules,
    /// Its kind, with what that kind needs.
    pub kind: DirectoryKind,
}

/// The kinds of directory that are built.
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
    /// As `kind` has it.
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
    /// `path`: a `.toml`, `.csv` or `.txt` file.
    pub path: PathBuf,
    /// `default_domain`: of addresses that are written without one.
    pub default_domain: Option<Domain>,
}

/// An LDAP directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapConfig {
    /// `ldap://host:port` or `ldaps://host:port`, in the order of failover.
    pub urls: Vec<String>,
    /// Which attributes and rules.
    pub profile: Profile,
    /// Search bases.
    pub base: Vec<String>,
    /// Empty: anonymous.
    pub bind_dn: String,
    /// The file with its password.
    pub password_file: Option<PathBuf>,
    /// STARTTLS on `ldap://`.
    pub start_tls: bool,
    /// Own CA, PEM; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Our client certificate; without `bind_dn` it is what we bind with (SASL EXTERNAL).
    pub certificate: Option<CertificateFiles>,
    /// One question over all urls.
    pub timeout: Duration,
    /// An address that must be found; `None`: written as `"none"`.
    pub probe: Option<Address>,
    /// How long answers are kept.
    pub cache: CacheConfig,
    /// Disabled accounts are as good as not found.
    pub refuse_disabled: bool,
    /// Whether it is asked for each recipient, or kept in memory.
    pub mode: LdapMode,
    /// How many recipients may change their way before somebody has to accept it.
    pub hold_changes: HoldChanges,
    /// `mailbox_servers`, in lower case: which mail servers mean different ways.
    pub mailbox_servers: HashMap<String, Arc<str>>,
}

impl LdapConfig {
    /// Whether its recipients are kept in memory.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        matches!(self.mode, LdapMode::Snapshot(_))
    }
}

/// `mode` of an LDAP directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LdapMode {
    /// One question a recipient, cached.
    Lookup,
    /// All recipients in memory, kept fresh.
    Snapshot(SnapshotConfig),
}

/// How a snapshot is kept fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// How often changes are asked for where they are not streamed, and contact is made sure of where they are.
    pub poll: Duration,
    /// How often the whole is read anew.
    pub full_read: Duration,
    /// How long recipients are served that nobody has confirmed.
    pub max_stale: Duration,
}

/// `hold_changes` of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldChanges {
    /// Of all recipients, in millionths.
    pub share_millionths: usize,
    /// Fewer than so many are never held.
    pub at_least: usize,
    /// Changes count together that long.
    pub within: Duration,
}

/// A directory that is a mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallAheadConfig {
    /// `send_connector`: whose smart hosts are asked.
    pub send_connector: Arc<str>,
    /// The same as it is used; `None` only in a configuration that is refused.
    pub server: Option<AskedServer>,
    /// One question, with all that it waits for.
    pub timeout: Duration,
    /// How long answers are kept.
    pub cache: CacheConfig,
    /// `probes_per_second`: at most so many addresses are asked about.
    pub probes_per_second: u32,
}

/// A mail server that is asked about addresses, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedServer {
    /// How it is reached: smart hosts, TLS, authentication.
    pub connector: Arc<SendConnector>,
    /// What we say in EHLO.
    pub ehlo: Domain,
}

/// `cache` of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// How long a found entry is kept.
    pub found: Duration,
    /// How long a not-found is kept.
    pub not_found: Duration,
    /// How many answers are kept.
    pub entries: usize,
}

impl CacheConfig {
    /// The same, and nothing is kept for longer than that.
    #[must_use]
    pub fn at_most(self, limit: Duration) -> Self {
        Self { found: self.found.min(limit), not_found: self.not_found.min(limit), ..self }
    }
}

/// LDAP profiles.
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
    /// The same, where no entry has the address among `addresses`.
    pub fallback: Vec<String>,
    /// What values of both may begin with besides, such as `smtp:`.
    pub prefix: Option<String>,
    /// The attribute with the address that mail goes to instead.
    pub target: Option<String>,
    /// The attribute with the mail server that `mailbox_servers` matches.
    pub mail_server: Option<String>,
    /// Attributes with what somebody logs in with.
    pub login: Vec<String>,
    /// Object classes of groups.
    pub groups: Vec<String>,
    /// What every search is narrowed by: one whole filter (RFC 4515).
    pub filter: Option<String>,
}
