//! Counts how often a connector's next hops were really tried: connected to, or their lookup failed. An attempt that
//! ends at once because they are known to be down brings no message closer to its expiry.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Outbound, WayOut};

/// Counts by connector, plus a random number, so that a count from before a restart is not equal to a new one.
#[derive(Debug)]
pub(super) struct Tries {
    of: Mutex<HashMap<Arc<str>, u32>>,
    base: u32,
}

impl Default for Tries {
    fn default() -> Self {
        let mut base = [0; 4];
        let _ = aws_lc_rs::rand::fill(&mut base); // without it two runs count alike
        Self { of: Mutex::default(), base: u32::from_le_bytes(base) }
    }
}

impl Tries {
    fn one_more(&self, connector: &Arc<str>) {
        let mut tries = self.of.lock();
        if let Some(number) = tries.get_mut(connector) {
            *number = number.wrapping_add(1).max(1);
            return;
        }
        tries.insert(connector.clone(), self.base.max(1));
    }

    fn of(&self, connector: &str) -> u32 {
        self.of.lock().get(connector).copied().unwrap_or_default()
    }
}

impl Outbound {
    /// A number that changes each time a next hop of this connector was really tried. Zero: none has been since the
    /// start.
    #[must_use]
    pub fn tries(&self, connector: &str) -> u32 {
        self.shared.tries.of(connector)
    }
}

impl WayOut {
    /// A next hop was really tried, or its lookup failed.
    pub(super) fn tried(&self) {
        self.shared.tries.one_more(&self.connector.name);
    }
}
