//! A directory as it is used: whom to ask, and how.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::routing::table::DirectoryRules;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// `[[directory]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// Its name.
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
}

impl DirectoryKind {
    /// As `kind` has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Ldap(_) => "ldap",
        }
    }
}

/// A file directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDirectoryConfig {
    /// `path`: a `.toml`, `.csv` or `.txt` file.
    pub path: PathBuf,
    /// `default_domain`: of addresses that are written without one.
    pub default_domain: Option<Domain>,
}

/// An LDAP directory in `lookup` mode.
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
    /// One question over all urls.
    pub timeout: Duration,
    /// An address that must be found; `None`: written as `"none"`.
    pub probe: Option<Address>,
    /// How long answers are kept.
    pub cache: CacheConfig,
    /// Disabled accounts are as good as not found.
    pub refuse_disabled: bool,
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

/// LDAP profiles that are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Active Directory with Exchange's attributes.
    ActiveDirectory,
    /// `mail`, `mailAlternateAddress`, `mailLocalAddress`, `mailRoutingAddress`, `mailHost`.
    Openldap,
}
