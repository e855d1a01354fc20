//! Caches a directory's answers by address.
//!
//! `ldap` and `call_ahead` look here first. Only clean answers are cached: "found" for `cache.found`, "not found" (and
//! `no-mailbox`, which counts as that) for `cache.not_found`; never `Unavailable` or `Ambiguous`. Time is an argument.
//!
//! A cached "not found" leads to relaying or refusal, so it is used only while the directory is well; the caller passes
//! its condition.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::CacheConfig;
use crate::lookup::{Answer, Fresh, Freshness, Kind, Lookup};

/// An answer this young is live (DESIGN section 3).
pub const LIVE: Duration = Duration::from_secs(5);

/// The answers of one directory; safe to share. When it is full, the least used entries are dropped.
pub struct Cache {
    config: CacheConfig,
    /// The age up to which an answer counts as live.
    live: Duration,
    kept: quick_cache::sync::Cache<Arc<str>, CacheEntry>,
}

/// Whether the directory is answering well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Its last question got a clean answer.
    Well,
    /// Anything else: "not found" may be the result of a fault.
    InDoubt,
}

#[derive(Clone)]
struct CacheEntry {
    lookup: Lookup,
    asked: Instant,
}

impl Cache {
    #[must_use]
    pub fn new(config: CacheConfig) -> Self {
        Self::live_for(LIVE, config)
    }

    /// An empty cache whose answers count as live for this time.
    #[must_use]
    pub fn live_for(live: Duration, config: CacheConfig) -> Self {
        Self { config, live, kept: quick_cache::sync::Cache::new(config.entries) }
    }

    /// The cached answer for an address's key, if it is fresh enough.
    #[must_use]
    pub fn get(&self, key: &str, wanted: Freshness, condition: Condition, now: Instant) -> Option<Answer> {
        let kept = self.kept.get(key)?;
        if condition == Condition::InDoubt && !is_known(&kept.lookup) {
            return None;
        }
        let age = now.saturating_duration_since(kept.asked);
        let fresh = if age <= self.live { Fresh::Live } else { Fresh::Cached };
        let good = age < self.kept_for(&kept.lookup)? && (wanted == Freshness::Any || fresh == Fresh::Live);
        good.then_some(Answer { lookup: kept.lookup, fresh })
    }

    /// Whether the answer is in the last fifth of its lifetime, so that it should be refreshed.
    #[must_use]
    pub fn is_ageing(&self, key: &str, now: Instant) -> bool {
        let Some(kept) = self.kept.get(key) else { return false };
        let age = now.saturating_duration_since(kept.asked);
        self.kept_for(&kept.lookup).is_some_and(|time| age >= time / 5 * 4)
    }

    pub fn forget(&self) {
        self.kept.clear();
    }

    /// Caches the answer to a question that was asked at `asked`.
    pub fn put(&self, key: Arc<str>, lookup: &Lookup, asked: Instant) {
        match self.kept_for(lookup) {
            Some(_) => self.kept.insert(key, CacheEntry { lookup: lookup.clone(), asked }),
            // A known address has become ambiguous.
            None if matches!(lookup, Lookup::Ambiguous(_)) => drop(self.kept.remove(&key)),
            None => {}
        }
    }

    /// How long to cache such an answer; `None`: not at all.
    fn kept_for(&self, lookup: &Lookup) -> Option<Duration> {
        match lookup {
            Lookup::Found(_) if is_known(lookup) => Some(self.config.found),
            Lookup::Found(_) | Lookup::NotFound => Some(self.config.not_found),
            Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) | Lookup::Unavailable(_) => None,
        }
    }
}

/// Whether the answer has a recipient for mail.
pub(super) fn is_known(lookup: &Lookup) -> bool {
    matches!(lookup, Lookup::Found(recipient) if recipient.kind != Kind::NoMailbox)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lookup::Recipient;

    fn cache() -> Cache {
        Cache::new(CacheConfig { found: Duration::from_secs(600), not_found: Duration::from_secs(60), entries: 100 })
    }

    fn found(kind: Kind) -> Lookup {
        Lookup::Found(Arc::new(Recipient {
            kind,
            target: None,
            mail_server: None,
            send_connector: None,
            entry: "CN=a".into(),
            rule: "test".into(),
        }))
    }

    #[test]
    fn answers_are_kept_as_long_as_their_kind_says() {
        let t = Instant::now();
        let (any, live) = (Freshness::Any, Freshness::Live);
        for (lookup, age, wanted, expected) in [
            (found(Kind::Mailbox), 0, any, Some(Fresh::Live)),
            (found(Kind::Mailbox), 5, live, Some(Fresh::Live)),
            (found(Kind::Mailbox), 6, live, None),
            (found(Kind::Mailbox), 6, any, Some(Fresh::Cached)),
            (found(Kind::Mailbox), 599, any, Some(Fresh::Cached)),
            (found(Kind::Mailbox), 600, any, None),
            (found(Kind::NoMailbox), 59, any, Some(Fresh::Cached)),
            (found(Kind::NoMailbox), 60, any, None),
            (Lookup::NotFound, 5, live, Some(Fresh::Live)),
            (Lookup::NotFound, 59, any, Some(Fresh::Cached)),
            (Lookup::NotFound, 60, any, None),
            (Lookup::Unavailable("x".into()), 0, any, None),
            (Lookup::AcceptsEverything("x".into()), 0, any, None),
            (Lookup::Ambiguous(["a".to_owned()].into()), 0, any, None),
        ] {
            let cache = cache();
            cache.put("a@b.c".into(), &lookup, t);
            let answer = cache.get("a@b.c", wanted, Condition::Well, t + Duration::from_secs(age));
            assert_eq!(answer.map(|a| a.fresh), expected, "{lookup:?} after {age} s, {wanted:?}");
        }
    }

    #[test]
    fn answers_age_in_the_last_fifth_of_their_time() {
        let t = Instant::now();
        for (lookup, age, ageing) in [
            (found(Kind::Mailbox), 479, false),
            (found(Kind::Mailbox), 480, true),
            (Lookup::NotFound, 47, false),
            (Lookup::NotFound, 48, true),
        ] {
            let cache = cache();
            cache.put("a@b.c".into(), &lookup, t);
            assert_eq!(cache.is_ageing("a@b.c", t + Duration::from_secs(age)), ageing, "{lookup:?} after {age} s");
            assert!(!cache.is_ageing("b@b.c", t));
        }
    }

    #[test]
    fn how_long_an_answer_is_live_may_be_said() {
        let t = Instant::now();
        let cache = Cache::live_for(cache().config.not_found, cache().config);
        cache.put("a@b.c".into(), &found(Kind::Mailbox), t);
        for (age, live) in [(59, true), (60, true), (61, false)] {
            let answer = cache.get("a@b.c", Freshness::Live, Condition::Well, t + Duration::from_secs(age));
            assert_eq!(answer.is_some(), live, "after {age} s");
        }
        cache.forget();
        assert_eq!(cache.get("a@b.c", Freshness::Any, Condition::Well, t), None);
    }

    #[test]
    fn in_doubt_only_what_is_known_is_served() {
        let t = Instant::now();
        for (lookup, served) in [
            (found(Kind::Mailbox), true),
            (found(Kind::Group), true),
            (found(Kind::MailUser), true),
            (found(Kind::NoMailbox), false),
            (Lookup::NotFound, false),
        ] {
            let cache = cache();
            cache.put("a@b.c".into(), &lookup, t);
            let get = |condition| cache.get("a@b.c", Freshness::Any, condition, t).map(|answer| answer.lookup);
            assert_eq!(get(Condition::InDoubt), served.then(|| lookup.clone()), "{lookup:?}");
            assert_eq!(get(Condition::Well), Some(lookup), "doubt forgets nothing");
        }
    }

    #[test]
    fn a_later_answer_replaces_an_earlier_one_but_an_outage_does_not() {
        let t = Instant::now();
        let cache = cache();
        let get = |cache: &Cache| cache.get("a@b.c", Freshness::Any, Condition::Well, t).map(|answer| answer.lookup);
        cache.put("a@b.c".into(), &Lookup::NotFound, t);
        cache.put("a@b.c".into(), &found(Kind::Group), t);
        cache.put("a@b.c".into(), &Lookup::Unavailable("down".into()), t);
        assert_eq!(get(&cache), Some(found(Kind::Group)));
        cache.put("a@b.c".into(), &Lookup::Ambiguous(["x".to_owned(), "y".to_owned()].into()), t);
        assert_eq!(get(&cache), None);
    }

    #[test]
    fn it_is_bounded_and_may_be_off() {
        let t = Instant::now();
        let cache = cache();
        (0..10_000).for_each(|n| cache.put(format!("{n}@b.c").into(), &Lookup::NotFound, t));
        assert!(cache.kept.len() <= 100);
        let zero = Duration::ZERO;
        let off = Cache::new(CacheConfig { found: zero, not_found: zero, entries: 0 });
        off.put("a@b.c".into(), &Lookup::NotFound, t);
        assert_eq!(off.get("a@b.c", Freshness::Any, Condition::Well, t), None);
    }
}
