//! The last good answers of DNS, for when it fails (RFC 8767, "serve stale"). `dns` uses it; time is an argument.
//!
//! It is used only while DNS fails; otherwise the TTL determines how long an answer is valid.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// The greatest age of an answer that is used: RFC 8767 5 recommends one to three days.
const STALE: Duration = Duration::from_secs(86_400);
/// After a failure DNS is not asked for this long (RFC 8767 5, failure recheck timer).
const RECHECK: Duration = Duration::from_secs(30);

/// Answers by name.
#[derive(Debug)]
pub(super) struct LastGood<T> {
    answers: HashMap<String, Answer<T>>,
    /// The most that are kept.
    limit: usize,
}

#[derive(Debug)]
struct Answer<T> {
    value: T,
    at: Instant,
    /// Since when DNS has failed, and its last failure.
    failing: Option<(Instant, Instant)>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known<T> {
    /// No answer that could be used.
    Nothing,
    /// An answer that could be used; DNS is to be asked first.
    Spare(T),
    /// DNS has just failed: this answer is used.
    StandsIn(T),
}

/// Whether DNS's state has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It began to fail, or answers again: to be logged.
    News,
    Same,
}

impl<T: Clone> LastGood<T> {
    /// With room for this many names.
    pub(super) fn new(limit: usize) -> Self {
        Self { answers: HashMap::new(), limit }
    }

    /// What is known of a name at `now`.
    pub(super) fn known(&self, name: &str, now: Instant) -> Known<T> {
        match self.answers.get(name).filter(|answer| now - answer.at < STALE) {
            None => Known::Nothing,
            Some(Answer { value, failing: Some((_, last)), .. }) if now - *last < RECHECK => {
                Known::StandsIn(value.clone())
            }
            Some(answer) => Known::Spare(answer.value.clone()),
        }
    }

    /// DNS gave this answer.
    pub(super) fn answered(&mut self, name: &str, value: &T, now: Instant) -> Change {
        if self.answers.len() >= self.limit && !self.answers.contains_key(name) {
            self.make_room(now);
        }
        let answer = Answer { value: value.clone(), at: now, failing: None };
        let before = self.answers.insert(name.to_owned(), answer);
        if before.is_some_and(|before| before.failing.is_some()) { Change::News } else { Change::Same }
    }

    /// DNS says that there is none: the last answer is dropped.
    pub(super) fn forget(&mut self, name: &str) {
        self.answers.remove(name);
    }

    /// DNS failed. Returns the answer that is used instead, its age, and whether it was used already.
    pub(super) fn failed(&mut self, name: &str, now: Instant) -> Option<(T, Duration, Change)> {
        let answer = self.answers.get_mut(name).filter(|answer| now - answer.at < STALE)?;
        let change = if answer.failing.is_some() { Change::Same } else { Change::News };
        let since = answer.failing.map_or(now, |(since, _)| since);
        answer.failing = Some((since, now));
        Some((answer.value.clone(), now - answer.at, change))
    }

    /// Drops the older half.
    fn make_room(&mut self, now: Instant) {
        let mut ages: Vec<_> = self.answers.values().map(|answer| now - answer.at).collect();
        let middle = ages.len() / 2;
        let (_, median, _) = ages.select_nth_unstable(middle);
        let oldest_kept = (*median).min(STALE);
        self.answers.retain(|_, answer| now - answer.at < oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_stands_in_while_dns_fails_for_a_day() {
        let start = Instant::now();
        let mut kept = LastGood::new(10);
        assert_eq!(kept.known("a", start), Known::Nothing);
        assert_eq!(kept.failed("a", start), None);
        assert_eq!(kept.answered("a", &1, start), Change::Same);
        assert_eq!(kept.known("a", after(start, 60)), Known::Spare(1));
        assert_eq!(kept.failed("a", after(start, 60)), Some((1, Duration::from_secs(60), Change::News)));
        assert_eq!(kept.known("a", after(start, 89)), Known::StandsIn(1));
        assert_eq!(kept.known("a", after(start, 90)), Known::Spare(1), "DNS is asked again");
        assert_eq!(kept.failed("a", after(start, 90)), Some((1, Duration::from_secs(90), Change::Same)));
        assert_eq!(kept.known("a", after(start, 86_399)), Known::Spare(1));
        assert_eq!(kept.known("a", after(start, 86_400)), Known::Nothing);
        assert_eq!(kept.failed("a", after(start, 86_400)), None);
    }

    #[test]
    fn a_new_answer_replaces_it_and_none_takes_it_away() {
        let start = Instant::now();
        let mut kept = LastGood::new(10);
        kept.answered("a", &1, start);
        kept.failed("a", start);
        assert_eq!(kept.answered("a", &2, after(start, 1)), Change::News);
        assert_eq!(kept.known("a", after(start, 2)), Known::Spare(2));
        kept.forget("a");
        assert_eq!(kept.failed("a", after(start, 3)), None);
    }

    #[test]
    fn the_oldest_are_forgotten_when_there_are_too_many() {
        let start = Instant::now();
        let mut kept = LastGood::new(10);
        for number in 0..100_u64 {
            kept.answered(&number.to_string(), &number, after(start, number));
            assert!(kept.answers.len() <= 10);
        }
        assert_eq!(kept.known("99", after(start, 99)), Known::Spare(99));
        assert_eq!(kept.known("80", after(start, 99)), Known::Nothing);
        // All at the same time.
        let mut kept = LastGood::new(10);
        for number in 0..100_u64 {
            kept.answered(&number.to_string(), &number, start);
            assert!(kept.answers.len() <= 10);
        }
    }
}
