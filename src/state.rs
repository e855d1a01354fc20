//! State that survives a restart, besides the spool, the trace and the keys: accepted domains, and those that ceased to
//! be accepted lately, so that row 0 of the decision table applies for its hour over a restart as well.
//! `reload` reads it at start and writes it whenever the accepted domains change. [`saved_table`] has further files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::accepted_domain::pattern;
use crate::config::check::Removed;
use crate::keyed_hash::HashKey;
use crate::private;
use crate::routing::accepted_domain::AcceptedDomains;
use crate::time::UnixTime;

pub mod saved_table;

/// How long mail for a domain that ceased to be accepted is refused temporarily only.
pub const KEPT: Duration = Duration::from_secs(3600);

const FILE: &str = "accepted-domains.json";

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domains {
    accepted: BTreeSet<String>,
    /// Domains that ceased to be accepted, and when.
    removed: BTreeMap<String, UnixTime>,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("{0}: {1}; check the owner and the free space of state_dir")]
    Io(PathBuf, std::io::Error),
    #[error("{0}: {1}; remove it: domains that were removed lately will be refused at once")]
    Form(PathBuf, serde_json::Error),
}

impl Domains {
    /// The state to store for a configuration in force.
    #[must_use]
    pub fn of(accepted: &AcceptedDomains) -> Self {
        Self {
            accepted: accepted.iter().map(|domain| domain.pattern.to_string()).collect(),
            removed: accepted.removed.iter().map(|(pattern, at)| (pattern.to_string(), *at)).collect(),
        }
    }

    /// Reads the file; if there is none, no domain was ever accepted.
    ///
    /// # Errors
    /// A [`StateError`] if the file cannot be read or parsed.
    pub fn read(state_dir: &Path) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| StateError::Form(path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(StateError::Io(path, error)),
        }
    }

    /// Writes the file durably and atomically; creates the folder if it is missing.
    ///
    /// # Errors
    /// [`StateError::Io`]; the earlier file stays.
    pub fn write(&self, state_dir: &Path) -> Result<(), StateError> {
        let path = state_dir.join(FILE);
        let replace = || {
            private::folder(state_dir)?;
            let new = path.with_extension("json.new");
            let mut file = private::create(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(state_dir)?.sync_all()
        };
        replace().map_err(|error| StateError::Io(path.clone(), error))
    }

    /// Domains that were accepted within the hour before `now` and are not in the new configuration. For those that
    /// were accepted last the hour begins now.
    #[must_use]
    pub fn removed_by(&self, accepted: &AcceptedDomains, now: UnixTime) -> Removed {
        let earlier = self.removed.iter().map(|(domain, at)| (domain, *at));
        let last = self.accepted.iter().map(|domain| (domain, now));
        let removed = earlier.chain(last).filter_map(|(domain, at)| Some((pattern(domain).ok()?, at)));
        removed.filter(|(domain, at)| now.since(*at) < KEPT && !accepted.has(domain)).collect()
    }
}

/// A random key for the hashes of this installation.
///
/// # Errors
/// The system has no random numbers.
pub fn random_key() -> Result<HashKey, String> {
    let mut key = HashKey::default();
    aws_lc_rs::rand::fill(&mut key).map_err(|_| "the system has no randomness".to_owned())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Format;
    use crate::routing::accepted_domain::{AcceptedDomain, DomainType};

    fn accepted(domains: &[&str], removed: &[(&str, u64)]) -> AcceptedDomains {
        let domain = |text: &&str| AcceptedDomain {
            pattern: pattern(text).unwrap(),
            kind: DomainType::Authoritative,
            deliver_to: None,
        };
        let removed = removed.iter().map(|(text, at)| (pattern(text).unwrap(), UnixTime(*at))).collect();
        AcceptedDomains::new(domains.iter().map(domain), removed)
    }

    #[test]
    fn it_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        assert_eq!(Domains::read(&state_dir).unwrap(), Domains::default());
        let domains = Domains::of(&accepted(&["a.b", "*.c.d"], &[("e.f", 7)]));
        domains.write(&state_dir).unwrap();
        assert_eq!(Domains::read(&state_dir).unwrap(), domains);
        fs::write(state_dir.join(FILE), "{").unwrap();
        assert!(matches!(Domains::read(&state_dir), Err(StateError::Form(..))));
    }

    #[test]
    fn its_format() {
        let domains = Domains::of(&accepted(&["a.b", "*.c.d"], &[("e.f", 7)]));
        let format = Format { name: "accepted-domains", extension: "json", oldest: 1, current: 1 };
        format.check(&serde_json::to_vec_pretty(&domains).unwrap(), |_, bytes| {
            assert_eq!(serde_json::from_slice::<Domains>(bytes).unwrap(), domains);
        });
    }

    #[test]
    fn domains_are_remembered_for_an_hour() {
        let before =
            Domains::of(&accepted(&["stays.b", "goes.b"], &[("old.b", 1000), ("recent.b", 1001), ("back.b", 4000)]));
        let removed = before.removed_by(&accepted(&["stays.b", "back.b"], &[]), UnixTime(4600));
        let expected = [("recent.b", 1001), ("goes.b", 4600)].map(|(text, at)| (pattern(text).unwrap(), UnixTime(at)));
        assert_eq!(removed, Removed::from(expected));
    }
}
