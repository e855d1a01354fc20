//! The configuration in force and everything that was built from it, replaced as a whole.
//!
//! A transaction takes it once, at its beginning, and keeps it (DESIGN section 4, "Reload").

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::keys::LoopKeys;
use crate::resolve::Resolver;

pub struct InForce {
    pub config: Arc<Config>,
    pub resolver: Resolver,
    pub keys: Arc<LoopKeys>,
}

/// The current one; `load_full` returns it.
pub type Current = ArcSwap<InForce>;
