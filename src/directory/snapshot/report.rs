//! A snapshot, for who asks about it: `fingerpost status`, `fingerpost directory stats`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much there is, and how fresh it is. `Display` is what an operator reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotReport {
    /// Recipients; `None`: none were read yet.
    pub recipients: Option<usize>,
    /// How long ago it was last confirmed, seconds.
    pub age_seconds: Option<u64>,
    /// So many recipients' mail would take another way, or none, if what is held were accepted.
    pub held: usize,
    /// So many addresses may change unheld, by a list that was announced.
    #[serde(default)]
    pub expected_addresses: usize,
    /// So many recipients may, whoever they are.
    #[serde(default)]
    pub expected_recipients: usize,
    /// How many entries a first read has so far.
    pub reading: Option<usize>,
    /// Why it cannot follow the directory; `None` where it can.
    pub problem: Option<String>,
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
