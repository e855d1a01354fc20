//! The circuit breaker of a directory: while it does not answer, questions fail at once.
//!
//! A pure state machine; `ldap::supervisor` reports time-outs and tests, `ldap` answers (DESIGN section 5, "doubt is
//! temporary", and the LDAP rules of section 4). Time is an argument.

use std::time::{Duration, Instant};

/// This many consecutive time-outs open it.
pub const TIMEOUTS: u32 = 3;

/// While it is open, one question is let through as a test after each such pause.
pub const TEST_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Closed: questions are asked.
    Closed {
        /// Consecutive time-outs; fewer than [`TIMEOUTS`].
        in_a_row: u32,
    },
    /// Open: questions are answered `Unavailable` at once, except for tests.
    Open { next_test: Instant },
}

impl Breaker {
    /// A question, or a test, was not answered in time.
    pub fn timed_out(&mut self, now: Instant) {
        *self = match *self {
            Self::Closed { in_a_row } if in_a_row + 1 < TIMEOUTS => Self::Closed { in_a_row: in_a_row + 1 },
            Self::Closed { .. } | Self::Open { .. } => Self::Open { next_test: now + TEST_EVERY },
        };
    }

    /// A question was answered in time. A late answer does not close an open breaker; only a test does.
    pub fn answered(&mut self) {
        if let Self::Closed { in_a_row } = self {
            *in_a_row = 0;
        }
    }

    /// The test was answered: questions are asked again, but the next time-out opens the breaker at once.
    pub fn passed_test(&mut self) {
        if let Self::Open { .. } = self {
            *self = Self::Closed { in_a_row: TIMEOUTS - 1 };
        }
    }

    /// Whether the last question was answered in time.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        matches!(self, Self::Closed { in_a_row: 0 })
    }

    /// The time until the next test; `None` while closed.
    #[must_use]
    pub fn until_test(&self, now: Instant) -> Option<Duration> {
        match self {
            Self::Closed { .. } => None,
            Self::Open { next_test } => Some(next_test.saturating_duration_since(now)),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { in_a_row: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Event {
        TimedOut,
        Answered,
        PassedTest,
    }
    use Event::{Answered, PassedTest, TimedOut};

    #[test]
    fn three_time_outs_in_a_row_open_it_and_a_test_closes_it() {
        let t = Instant::now();
        let open = Breaker::Open { next_test: t + TEST_EVERY };
        for (events, expected) in [
            (&[][..], Breaker::Closed { in_a_row: 0 }),
            (&[TimedOut, TimedOut], Breaker::Closed { in_a_row: 2 }),
            (&[TimedOut, TimedOut, TimedOut], open),
            (&[TimedOut, TimedOut, Answered, TimedOut], Breaker::Closed { in_a_row: 1 }),
            (&[TimedOut, TimedOut, TimedOut, Answered], open),
            (&[TimedOut, TimedOut, TimedOut, TimedOut], open),
            (&[TimedOut, TimedOut, TimedOut, PassedTest], Breaker::Closed { in_a_row: 2 }),
            (&[TimedOut, TimedOut, TimedOut, PassedTest, TimedOut], open),
            (&[TimedOut, TimedOut, TimedOut, PassedTest, Answered, TimedOut], Breaker::Closed { in_a_row: 1 }),
            (&[TimedOut, PassedTest], Breaker::Closed { in_a_row: 1 }),
        ] {
            let mut breaker = Breaker::default();
            for event in events {
                match event {
                    TimedOut => breaker.timed_out(t),
                    Answered => breaker.answered(),
                    PassedTest => breaker.passed_test(),
                }
            }
            assert_eq!(breaker, expected, "{events:?}");
        }
    }

    #[test]
    fn the_test_is_due_every_five_seconds() {
        let t = Instant::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.until_test(t), None);
        (0..TIMEOUTS).for_each(|_| breaker.timed_out(t));
        assert_eq!(breaker.until_test(t), Some(TEST_EVERY));
        assert_eq!(breaker.until_test(t + Duration::from_secs(3)), Some(Duration::from_secs(2)));
        assert_eq!(breaker.until_test(t + Duration::from_secs(9)), Some(Duration::ZERO));
        breaker.timed_out(t + Duration::from_secs(9));
        assert_eq!(breaker.until_test(t + Duration::from_secs(9)), Some(TEST_EVERY));
    }
}
