//! How far a directory has been followed. Pure.

use serde::{Deserialize, Serialize};

/// Where to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Position {
    /// Nowhere: the directory has to be read as a whole.
    #[default]
    Unknown,
    /// Active Directory: changes of this controller up to this number are known (MS-ADTS 3.1.1.1.9).
    Usn {
        /// The controller's `invocationId`, which is another one after it was restored from a backup.
        invocation: Vec<u8>,
        /// `highestCommittedUSN`, read before the changes were.
        usn: u64,
    },
}
