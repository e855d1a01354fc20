//! What is in force now: one configuration and everything that was built from it, swapped as one.
//!
//! A transaction takes it once, at its beginning, and keeps it (DESIGN section 4, "Reload").

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::keys::LoopKeys;
use crate::resolve::Resolver;

/// One configuration and what was built from it.
pub struct InForce {
    /// The configuration.
    pub config: Arc<Config>,
    /// Its decisions.
    pub resolver: Resolver,
    pub keys: Arc<LoopKeys>,
}

/// The one in force; `load_full` takes it.
pub type Current = ArcSwap<InForce>;
