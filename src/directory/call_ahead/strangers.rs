//! How a mail server treats addresses that nobody has, by domain: only one that refuses them is believed about others.
//!
//! Time is an argument. `call_ahead` asks about [`address`] and notes here what became of it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::config::CacheConfig;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// Domains that are remembered; beyond it all are forgotten and asked about anew.
const REMEMBERED: usize = 1000;

/// What becomes of an address that nobody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It is refused, as it should be.
    Refused,
    /// It is accepted like any other.
    Accepted,
}

/// What was noted.
#[derive(Debug)]
pub(super) struct Strangers {
    /// For so long a server that refuses them is trusted.
    trusted: Duration,
    /// After so long one that accepts them is given another chance.
    distrusted: Duration,
    noted: HashMap<Domain, (Manner, Instant)>,
}

impl Strangers {
    /// Nothing is known. One that refuses is believed as long as one that is found, and the other way round.
    pub(super) fn new(cache: CacheConfig) -> Self {
        Self { trusted: cache.found, distrusted: cache.not_found, noted: HashMap::new() }
    }

    /// What was noted of a domain, while it holds.
    pub(super) fn manner(&self, domain: &Domain, now: Instant) -> Option<Manner> {
        let (manner, at) = *self.noted.get(domain)?;
        let holds = match manner {
            Manner::Refused => self.trusted,
            Manner::Accepted => self.distrusted,
        };
        (now.saturating_duration_since(at) < holds).then_some(manner)
    }

    /// Notes what became of one; returns what had been noted before.
    pub(super) fn note(&mut self, domain: &Domain, manner: Manner, now: Instant) -> Option<Manner> {
        if self.noted.len() >= REMEMBERED && !self.noted.contains_key(domain) {
            self.noted.clear();
        }
        self.noted.insert(domain.clone(), (manner, now)).map(|(before, _)| before)
    }

    /// Whether any domain's were accepted when it was asked about last.
    pub(super) fn any_accepted(&self) -> bool {
        self.noted.values().any(|(manner, _)| *manner == Manner::Accepted)
    }
}

/// An address that nobody has, nor can guess; an administrator who meets it in a log knows whose it is.
///
/// # Errors
/// The system gives no randomness.
pub(super) fn address(domain: &Domain) -> Result<Address, String> {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
    let number = random.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Address::parse(&format!("fingerpost-nobody-{number:024x}@{domain}")).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strangers() -> Strangers {
        let second = Duration::from_secs;
        Strangers::new(CacheConfig { found: second(600), not_found: second(60), entries: 10 })
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn what_is_noted_holds_for_its_time_and_for_its_domain() {
        let t = Instant::now();
        for (noted, age, known) in [
            (Manner::Refused, 599, Some(Manner::Refused)),
            (Manner::Refused, 600, None),
            (Manner::Accepted, 59, Some(Manner::Accepted)),
            (Manner::Accepted, 60, None),
        ] {
            let mut strangers = strangers();
            strangers.note(&domain("a.example"), noted, t);
            let now = t + Duration::from_secs(age);
            assert_eq!(strangers.manner(&domain("a.example"), now), known, "{noted:?} after {age} s");
            assert_eq!(strangers.manner(&domain("b.example"), t), None);
        }
    }

    #[test]
    fn one_domain_that_accepts_is_enough_and_the_last_word_counts() {
        let t = Instant::now();
        let mut strangers = strangers();
        for (name, manner, before, any) in [
            ("a.example", Manner::Refused, None, false),
            ("b.example", Manner::Accepted, None, true),
            ("a.example", Manner::Refused, Some(Manner::Refused), true),
            ("b.example", Manner::Refused, Some(Manner::Accepted), false),
        ] {
            assert_eq!(strangers.note(&domain(name), manner, t), before, "{name} {manner:?}");
            assert_eq!(strangers.any_accepted(), any, "{name} {manner:?}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut strangers = strangers();
        for number in 0..REMEMBERED * 2 {
            strangers.note(&domain(&format!("{number}.example")), Manner::Refused, Instant::now());
            assert!(strangers.noted.len() <= REMEMBERED);
        }
    }

    #[test]
    fn nobody_has_the_address_twice() {
        let [one, other] = [(); 2].map(|()| address(&domain("a.example")).unwrap());
        assert_ne!(one, other);
        assert_eq!(one.domain(), &domain("a.example"));
        assert_eq!(one.local().len(), "fingerpost-nobody-".len() + 24);
    }
}
