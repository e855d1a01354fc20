//! The part of the configuration that decisions depend on, indexed.
//!
//! `crate::config` builds a [`Table`] once for each configuration; it is never changed afterwards.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::accepted_domain::AcceptedDomains;
use super::address_space::AddressSpaces;
use crate::fast_map::FastMap;
use crate::smtp::domain::Domain;

/// The name of the send connector that exists in every configuration: it sends reports to the recipient's MX where no
/// address space covers the domain (`[reports] deliver_to`).
pub const RECIPIENT_MX: &str = "recipient-mx";

/// The part of the configuration that [`super::decide::decide`] uses.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Includes domains that were accepted within the last hour.
    pub accepted: AcceptedDomains,
    /// The address spaces of all send connectors.
    pub spaces: AddressSpaces,
    /// In the order in which they are asked.
    pub directories: Vec<DirectoryRules>,
    /// By name.
    pub connectors: FastMap<Arc<str>, ConnectorRules>,
}

/// The part of a directory's configuration that decisions use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryRules {
    pub name: Arc<str>,
    /// Which accepted domains it resolves.
    pub domains: DomainSet,
    /// The send connector for recipients found here; `None`: the domain's.
    pub deliver_to: Option<Arc<str>>,
    /// The send connector by the entry's mail server (in lower case).
    pub mailbox_servers: HashMap<String, Arc<str>>,
    /// How `user+tag` is treated.
    pub plus_addressing: PlusAddressing,
    pub proof: Proof,
}

/// What it means that a directory has "found" an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Proof {
    /// There is an entry with the address.
    #[default]
    Entry,
    /// A mail server would accept mail for it (call-ahead), and may relay it elsewhere.
    Word,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainSet {
    /// `*`: all accepted domains.
    All,
    /// Domains, and `*.domain` for subdomains.
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

/// A domain, or all its subdomains.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DomainPattern {
    /// `contoso.com`: this domain only.
    Exact(Domain),
    /// `*.contoso.com`: its subdomains without itself.
    Subdomains(Domain),
}

impl DomainPattern {
    #[must_use]
    pub fn covers(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(exact) => exact == domain,
            Self::Subdomains(parent) => domain.parents().any(|above| above == parent.as_str()),
        }
    }
}

impl fmt::Display for DomainPattern {
    /// As in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => f.write_str(domain.as_str()),
            Self::Subdomains(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// `plus_addressing`: how `user+tag` is treated (DESIGN section 4).
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

/// The part of a send connector's configuration that decisions use.
#[derive(Debug, Clone)]
pub struct ConnectorRules {
    /// Empty: none.
    pub organization: Arc<str>,
    /// Whether RCPT TO carries the entry's target address.
    pub rewrite_target_address: bool,
    /// The directory that is asked about unresolved recipients; `None`: they are not verified.
    pub verify_with: Option<Arc<str>>,
    /// Whether strangers' source routes may go to its next hop.
    pub source_routes: SourceRoutes,
}

/// `source_routes` of a send connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SourceRoutes {
    /// Strangers' source routes are refused.
    #[default]
    Refuse,
    /// They are left to the next hop.
    Pass,
}
