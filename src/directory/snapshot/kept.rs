//! The state of `hold_changes` that survives a restart: recent changes, whether changes are held, and announcements.
//! Pure; `changes_file` stores it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::window::Undo;
use crate::directory::expected::Expected;
use crate::directory::known::Id;
use crate::time::UnixTime;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotState {
    /// The previous states of entries that changed lately, oldest first.
    pub undos: Vec<Arc<Undo>>,
    /// `None`: no changes are held.
    pub holding: Option<Holding>,
    pub expected: Expected,
}

/// The state while changes are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub began: UnixTime,
    /// Entries that changed lately and keep their new state; all others were taken back.
    pub stayed: Vec<Id>,
    /// Addresses that are new and not used yet, with the send connector that accepted the last mail for each. Separate,
    /// because there may be many.
    #[serde(skip)]
    pub withheld: Vec<(String, Arc<str>)>,
}
