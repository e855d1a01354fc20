//! The part of the configuration that decisions depend on, indexed for them.
//!
//! `crate::config` builds a [`Table`] once for each configuration; it is never changed afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::accepted_domain::AcceptedDomains;
use super::address_space::AddressSpaces;
use crate::fast_map::FastMap;
use crate::smtp::domain::Domain;

/// The name of the send connector that every configuration has without writing it: reports whose
/// recipient no address space covers go to the recipient's MX (`[reports] deliver_to`).
pub const RECIPIENT_MX: &str = "recipient-mx";

/// Everything [`super::decide::decide`] needs to know of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// The accepted domains, and those that were accepted within the last hour.
    pub accepted: AcceptedDomains,
    /// The address spaces of all send connectors.
    pub spaces: AddressSpaces,
    /// The directories, in the order in which they are asked.
    pub directories: Vec<DirectoryRules>,
    /// What decisions need to know of each send connector, by name.
    pub connectors: FastMap<Arc<str>, ConnectorRules>,
}

/// What decisions need to know of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRules {
    pub name: Arc<str>,
    /// Which accepted domains it resolves.
    pub domains: DomainSet,
    /// The send connector for what it finds; `None`: the domain's.
    pub deliver_to: Option<Arc<str>>,
    /// The entry's mail server (lower case) and the send connector for it.
    pub mailbox_servers: HashMap<String, Arc<str>>,
    /// What becomes of `user+tag`.
    pub plus_addressing: PlusAddressing,
    /// What its "found" rests on.
    pub proof: Proof,
}

/// What a directory's "found" rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Proof {
    /// An entry that has the address.
    #[default]
    Entry,
    /// The word of a mail server that would take mail for it (call-ahead), and may mean to pass it on.
    Word,
}

/// Which domains a directory resolves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainSet {
    /// `*`: all accepted domains.
    All,
    /// These; a pattern is a domain, or `*.domain` for its subdomains.
    These(Vec<DomainPattern>),
}

impl DomainSet {
    /// Whether the directory resolves this domain.
    #[must_use]
    pub fn covers(&self, domain: &Domain) -> bool {
        match self {
            Self::All => true,
            Self::These(patterns) => patterns.iter().any(|pattern| pattern.covers(domain)),
        }
    }
}

/// A domain or all its subdomains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `contoso.com`: that domain alone.
    Exact(Domain),
    /// `*.contoso.com`: its subdomains, not itself.
    Subdomains(Domain),
}

impl DomainPattern {
    /// Whether the domain falls under it.
    #[must_use]
    pub fn covers(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(exact) => exact == domain,
            Self::Subdomains(parent) => domain.parents().any(|above| above == parent.as_str()),
        }
    }
}

impl fmt::Display for DomainPattern {
    /// As the configuration writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => f.write_str(domain.as_str()),
            Self::Subdomains(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// `plus_addressing`: what becomes of `user+tag` (DESIGN section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PlusAddressing {
    /// Looked up as written only.
    #[default]
    Off,
    /// Looked up as written, then without the tag; sent as written.
    Keep,
    /// Looked up as written, then without the tag; then sent without it.
    Strip,
}

/// What decisions need to know of a send connector.
#[derive(Debug, Clone)]
pub struct ConnectorRules {
    /// Its organisation; empty: none.
    pub organization: Arc<str>,
    /// Whether RCPT TO becomes the entry's target address.
    pub rewrite_target_address: bool,
    /// The directory asked about unresolved recipients; `None`: not verified.
    pub verify_with: Option<Arc<str>>,
    /// Whether strangers may route mail through its next hop.
    pub source_routes: SourceRoutes,
}

/// `source_routes` of a send connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceRoutes {
    /// Strangers' are refused.
    #[default]
    Refuse,
    /// They are the next hop's business.
    Pass,
}
