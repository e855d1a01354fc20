//! Remembers by domain how a mail server treats addresses that do not exist: it is believed about others only if it
//! refuses those.
//!
//! Time is an argument. `call_ahead` asks about [`address`] and records the result here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::config::CacheConfig;
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

/// The most domains that are remembered; beyond that all are dropped and asked about again.
const REMEMBERED: usize = 1000;

/// A domain is renewed ahead of time only if it was needed within this time.
const WANTED: Duration = Duration::from_secs(24 * 3600);

/// How long the last result is used while there is no newer one.
const LAST: Duration = Duration::from_secs(24 * 3600);

/// How the server treats addresses that do not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// It refuses them, as it should.
    Refused,
    /// It accepts them like any other.
    Accepted,
}

/// The results by domain.
#[derive(Debug)]
pub(super) struct Strangers {
    /// How long a server that refuses them is trusted.
    trusted: Duration,
    /// After this time a server that accepts them is asked again.
    distrusted: Duration,
    noted: HashMap<Domain, Noted>,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    manner: Manner,
    at: Instant,
    /// When it was last needed.
    wanted: Instant,
    /// When a renewal was last requested.
    renewed: Option<Instant>,
}

impl Strangers {
    /// "Refused" is believed as long as an address that was found, "accepted" as long as one that was not.
    pub(super) fn new(cache: CacheConfig) -> Self {
        Self { trusted: cache.found, distrusted: cache.not_found, noted: HashMap::new() }
    }

    /// The result for a domain, while it is valid; marks the domain as needed.
    pub(super) fn manner(&mut self, domain: &Domain, now: Instant) -> Option<Manner> {
        let noted = self.noted.get_mut(domain)?;
        noted.wanted = now;
        let holds = match noted.manner {
            Manner::Refused => self.trusted,
            Manner::Accepted => self.distrusted,
        };
        (now.saturating_duration_since(noted.at) < holds).then_some(noted.manner)
    }

    /// The last result for a domain within a day, for callers that would have to wait for a newer one.
    pub(super) fn last(&self, domain: &Domain, now: Instant) -> Option<Manner> {
        let noted = self.noted.get(domain).filter(|noted| now.saturating_duration_since(noted.at) < LAST)?;
        Some(noted.manner)
    }

    /// Whether it should be renewed: the result is in the last fifth of its lifetime, or past it. Returns true once in
    /// a while only, because the question may fail.
    pub(super) fn wants_renewal(&mut self, domain: &Domain, now: Instant) -> bool {
        let pause = self.trusted / 50;
        let wants = self.noted.get(domain).is_some_and(|noted| {
            let rests = noted.renewed.is_some_and(|at| now.saturating_duration_since(at) < pause);
            !rests && self.ages(noted, now)
        });
        if let Some(noted) = self.noted.get_mut(domain).filter(|_| wants) {
            noted.renewed = Some(now);
        }
        wants
    }

    /// The same for a renewal without a caller: only if the domain was needed within a day.
    pub(super) fn is_to_be_renewed(&self, domain: &Domain, now: Instant) -> bool {
        let wanted = |noted: &Noted| now.saturating_duration_since(noted.wanted) < WANTED;
        self.noted.get(domain).is_some_and(|noted| self.ages(noted, now) && wanted(noted))
    }

    fn ages(&self, noted: &Noted, now: Instant) -> bool {
        noted.manner == Manner::Refused && now.saturating_duration_since(noted.at) >= self.trusted / 5 * 4
    }

    /// Records a result; returns the previous one.
    pub(super) fn note(&mut self, domain: &Domain, manner: Manner, now: Instant) -> Option<Manner> {
        if self.noted.len() >= REMEMBERED && !self.noted.contains_key(domain) {
            self.noted.clear();
        }
        let before = self.noted.get(domain).copied();
        let wanted = before.map_or(now, |before| before.wanted);
        self.noted.insert(domain.clone(), Noted { manner, at: now, wanted, renewed: None });
        before.map(|before| before.manner)
    }

    /// Whether the last result of any domain is "accepted".
    pub(super) fn any_accepted(&self) -> bool {
        self.noted.values().any(|noted| noted.manner == Manner::Accepted)
    }
}

/// The prefix of such addresses.
const NOBODY: &str = "fingerpost-nobody-";

/// An address that does not exist and cannot be guessed; an administrator who finds it in a log can tell where it comes
/// from.
///
/// # Errors
/// The system has no random numbers.
pub(super) fn address(domain: &Domain) -> Result<Address, String> {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gives no randomness".to_owned())?;
    let number = random.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    Address::parse(&format!("{NOBODY}{number:024x}@{domain}")).map_err(|error| error.to_string())
}

/// Whether an address is one of these: a server that is asked about one may ask us about it.
pub(super) fn is_like(address: &Address) -> bool {
    address.key().starts_with(NOBODY)
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
            let [day, later] = [24 * 3600 - 1, 24 * 3600].map(|age| t + Duration::from_secs(age));
            let last = [now, day, later].map(|now| strangers.last(&domain("a.example"), now));
            assert_eq!(last, [Some(noted), Some(noted), None]);
            assert_eq!(strangers.manner(&domain("b.example"), t), None);
        }
    }

    #[test]
    fn trust_is_renewed_in_the_last_fifth_of_its_time_and_only_while_somebody_wants_it() {
        let (t, second, day) = (Instant::now(), Duration::from_secs, 24 * 3600);
        for (noted, age, wanted, ageing, renewed) in [
            (Manner::Refused, 466, 0, false, false),
            (Manner::Refused, 480, 0, true, true),
            (Manner::Refused, 600, 0, true, true),
            (Manner::Refused, day - 1, 0, true, true),
            (Manner::Refused, day, 0, true, false),
            (Manner::Refused, day, 1, true, true),
            (Manner::Accepted, 48, 0, false, false),
            (Manner::Accepted, 600, 0, false, false),
        ] {
            let mut strangers = strangers();
            let domain = domain("a.example");
            strangers.note(&domain, noted, t);
            strangers.manner(&domain, t + second(wanted));
            let now = t + second(age);
            let said = (strangers.wants_renewal(&domain, now), strangers.is_to_be_renewed(&domain, now));
            assert_eq!(said, (ageing, renewed), "{noted:?} after {age} s, wanted at {wanted} s");
            let again = [11, 13].map(|later| strangers.wants_renewal(&domain, now + second(later)));
            assert_eq!(again, [false, ageing], "said again after a fiftieth");
            // Recording a result does not mark the domain as needed.
            strangers.note(&domain, noted, now);
            assert_eq!(strangers.noted[&domain].wanted, t + second(wanted));
        }
        assert!(!strangers().wants_renewal(&domain("b.example"), t));
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
        assert_eq!(one.local().len(), NOBODY.len() + 24);
        assert!(is_like(&one) && !is_like(&Address::parse("ann@a.b").unwrap()));
    }
}
