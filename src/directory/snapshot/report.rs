//! The state of a snapshot, for `fingerpost status` and `fingerpost directory stats`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Its size and freshness. `Display` is for operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// `None`: none have been read yet.
    pub recipients: Option<usize>,
    /// Seconds since it was last confirmed.
    pub age_seconds: Option<u64>,
    /// How many recipients' destinations would change if held changes were accepted.
    pub held: usize,
    /// How many addresses have an announced change.
    #[serde(default)]
    pub expected_addresses: usize,
    /// How many recipients, whichever they are, may change by an announcement.
    #[serde(default)]
    pub expected_recipients: usize,
    /// Entries so far of a first read.
    pub reading: Option<usize>,
    /// Why the directory cannot be followed; `None`: it can.
    pub problem: Option<String>,
}

/// The last whole read of a directory, for other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeRead {
    pub directory: String,
    /// The time since it began.
    pub ago: Duration,
    /// How often an entry was found gone between whole reads, since the configuration is in force.
    pub found_gone: u64,
}

impl fmt::Display for SnapshotReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.recipients, self.age_seconds, self.reading) {
            (Some(recipients), Some(age), _) => write!(f, "{recipients} recipients, confirmed {age} s ago")?,
            (_, _, Some(entries)) if entries > 0 => write!(f, "reading, {entries} entries so far")?,
            _ => f.write_str("not read yet")?,
        }
        if self.held > 0 {
            write!(f, "; {} changes held", self.held)?;
        }
        match (self.expected_addresses, self.expected_recipients) {
            (0, 0) => {}
            (addresses, 0) => write!(f, "; changes of {addresses} addresses announced")?,
            (0, recipients) => write!(f, "; changes of {recipients} recipients announced")?,
            (addresses, any) => write!(f, "; changes of {addresses} addresses and of {any} recipients announced")?,
        }
        match &self.problem {
            Some(problem) => write!(f, "; {problem}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_matters() {
        let none = SnapshotReport {
            recipients: None,
            age_seconds: None,
            held: 0,
            expected_addresses: 0,
            expected_recipients: 0,
            reading: None,
            problem: None,
        };
        let read = SnapshotReport { recipients: Some(120), age_seconds: Some(3), ..none.clone() };
        for (report, said) in [
            (none.clone(), "not read yet"),
            (SnapshotReport { reading: Some(7), ..none }, "reading, 7 entries so far"),
            (read.clone(), "120 recipients, confirmed 3 s ago"),
            (SnapshotReport { held: 60, ..read.clone() }, "120 recipients, confirmed 3 s ago; 60 changes held"),
            (
                SnapshotReport { expected_addresses: 100, ..read.clone() },
                "120 recipients, confirmed 3 s ago; changes of 100 addresses announced",
            ),
            (
                SnapshotReport { expected_addresses: 2, expected_recipients: 300, ..read.clone() },
                "120 recipients, confirmed 3 s ago; changes of 2 addresses and of 300 recipients announced",
            ),
            (
                SnapshotReport { problem: Some("ldap://dc1: busy".to_owned()), ..read },
                "120 recipients, confirmed 3 s ago; ldap://dc1: busy",
            ),
        ] {
            assert_eq!(report.to_string(), said);
        }
    }
}
