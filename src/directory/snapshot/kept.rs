//! What `hold_changes` keeps over a restart, beside a snapshot: what changed lately, whether changes are held, and what is
//! announced. Pure; `changes_file` has it on disk.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::window::Undo;
use crate::directory::expected::Expected;
use crate::directory::known::Id;
use crate::time::UnixTime;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotState {
    /// How entries that changed lately were before, oldest first.
    pub undos: Vec<Arc<Undo>>,
    /// Changes are held.
    pub holding: Option<Holding>,
    /// What is announced.
    pub expected: Expected,
}

/// Changes are held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub began: UnixTime,
    /// The entries that changed lately and stay as they are; all others went back.
    pub stayed: Vec<Id>,
    /// Addresses that are new and not used yet, each with the send connector that accepted the last mail for it. There may
    /// be many of them: the file has them apart.
    #[serde(skip)]
    pub withheld: Vec<(String, Arc<str>)>,
}
