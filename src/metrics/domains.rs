//! Which accepted domains have series of their own (`recipients_total{domain}`): five series each, which a server of a
//! hundred thousand domains, and whoever scrapes it, would have no memory for.
//!
//! `prepare` says how many domains there are; `session` asks for the label that it counts under.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Up to so many domains have all their series from the start. Of more, each has one from its first mail on.
pub(crate) const IN_ADVANCE: usize = 1_000;

/// So many have them then, at most.
const MOST: usize = 10_000;

/// The rest of them.
pub(crate) const MORE: &str = "more";

/// Recipients in no accepted domain.
pub(crate) const OTHER: &str = "other";

/// The domains that are counted one by one; cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct CountedDomains(Arc<Mutex<Option<HashSet<Box<str>>>>>);

impl CountedDomains {
    /// The label for a domain.
    #[must_use]
    pub fn label<'a>(&self, domain: &'a str) -> &'a str {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(counted) = counted.as_mut() else { return domain };
        if domain == OTHER || counted.contains(domain) {
            return domain;
        }
        if counted.len() >= MOST {
            return MORE;
        }
        counted.insert(domain.into());
        domain
    }

    /// A configuration with so many domains: those that are counted one by one and not accepted any more make room.
    pub(crate) fn prepare(&self, domains: usize, is_accepted: impl Fn(&str) -> bool) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if domains <= IN_ADVANCE {
            *counted = None;
        } else {
            counted.get_or_insert_default().retain(|domain| is_accepted(domain));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_thousand_of_many_have_series() {
        let counted = CountedDomains::default();
        counted.prepare(IN_ADVANCE, |_| true);
        let names: Vec<String> = (0..=MOST).map(|number| format!("d{number}.example")).collect();
        assert!(names.iter().all(|name| counted.label(name) == name), "few are counted one by one");
        counted.prepare(100_000, |_| true);
        assert!(names[..MOST].iter().all(|name| counted.label(name) == name));
        assert_eq!(counted.label(&names[MOST]), MORE);
        assert_eq!([counted.label(&names[0]), counted.label(OTHER)], [names[0].as_str(), OTHER]);
        counted.prepare(100_000, |domain| domain != "d7.example");
        assert_eq!(counted.label(&names[MOST]), names[MOST], "one made room");
    }
}
