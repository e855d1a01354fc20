//! Decides which accepted domains have series of their own (`recipients_total{domain}`): each has five, which would be
//! too many with a hundred thousand domains.
//!
//! `prepare` sets the number of domains; `session` gets the label to count under.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

/// Up to this many domains, all have their series from the start. Of more, each gets them with its first mail.
pub(crate) const IN_ADVANCE: usize = 1_000;

/// The most domains that have series then.
const MOST: usize = 10_000;

/// The label of further domains.
pub(crate) const MORE: &str = "more";

/// The label of recipients in no accepted domain.
pub(crate) const OTHER: &str = "other";

/// The domains with series of their own. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct CountedDomains(Arc<Mutex<Option<HashSet<Box<str>>>>>);

impl CountedDomains {
    #[must_use]
    pub fn label<'a>(&self, domain: &'a str) -> &'a str {
        let mut counted = self.0.lock();
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

    /// Adapts to a configuration with this many domains: domains that are not accepted any more are dropped.
    pub(crate) fn prepare(&self, domains: usize, is_accepted: impl Fn(&str) -> bool) {
        let mut counted = self.0.lock();
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
