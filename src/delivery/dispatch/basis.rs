//! What a route was decided by: the configuration and the directories' versions.

use std::sync::{Arc, Weak};

use crate::in_force::InForce;

/// A configuration and the versions of its directories.
#[derive(Clone)]
pub(super) struct Basis {
    /// Weak, so that queued mail does not keep an old configuration in memory. While it exists, a new one never has the
    /// same address.
    in_force: Weak<InForce>,
    versions: u64,
}

impl Basis {
    /// The basis of a decision that is made now.
    pub(super) fn of(in_force: &Arc<InForce>) -> Self {
        let directories = in_force.resolver.directories();
        let version = |name: &str| directories.get(name).map_or(0, |directory| directory.version());
        let versions = in_force.config.directories.iter().map(|directory| version(&directory.name));
        let mixed = versions.fold(0_u64, |mixed, version| mixed.wrapping_mul(31).wrapping_add(version));
        Self { in_force: Arc::downgrade(in_force), versions: mixed }
    }
}

impl PartialEq for Basis {
    fn eq(&self, other: &Self) -> bool {
        self.in_force.ptr_eq(&other.in_force) && self.versions == other.versions
    }
}
