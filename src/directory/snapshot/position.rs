//! How far a directory has been followed. Pure.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Position {
    /// The directory has to be read completely.
    #[default]
    Unknown,
    /// Active Directory: this controller's changes up to this number are known (MS-ADTS 3.1.1.1.9).
    Usn {
        /// The controller's `invocationId`, which changes when it is restored from a backup.
        invocation: Vec<u8>,
        /// `highestCommittedUSN`, read before the changes.
        usn: u64,
    },
}
