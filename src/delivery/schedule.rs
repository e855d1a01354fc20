//! When a recipient is tried again, when its sender hears of a delay, and when it is given up (DESIGN section 4,
//! `retry`). Pure: `dispatch` brings the time.
//!
//! RFC 5321 4.5.4.1 asks for growing waits and four to five days before giving up; the operator decides here.

use std::time::Duration;

use crate::config::Retry;
use crate::message::queue_id::QueueId;
use crate::time::QueueTime;

/// A recipient is tried this often before its age alone ends it: mail that was held, or that waited while we were
/// stopped, is not failed by the first attempt that happens to be deferred.
const LEAST_ATTEMPTS: u32 = 3;

/// How a recipient stands after an attempt that was deferred.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The message's id: it spreads the waits of messages that came together.
    pub id: QueueId,
    /// From when its age counts.
    pub queued_at: QueueTime,
    /// Attempts so far, this one included.
    pub attempts: u32,
    /// Of these, those that count towards its end.
    pub tried: u32,
    /// Whether the sender was told of the delay.
    pub warned: bool,
}

/// What follows a deferred attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is tried again after so long.
    Retry(Duration),
    /// It is tried again after so long, and the sender is told of the delay now, once.
    Warn(Duration),
    /// It has waited too long.
    GiveUp,
}

/// What follows an attempt that was deferred at `now`.
#[must_use]
pub fn next(retry: &Retry, standing: &Standing, now: QueueTime) -> Next {
    let age = now.since(standing.queued_at);
    if age >= retry.give_up_after && standing.tried >= LEAST_ATTEMPTS {
        return Next::GiveUp;
    }
    let planned = wait(retry, standing);
    // A warning and the end come when they are due, not up to `max` later.
    let not_after = |limit: Duration| if limit > age { planned.min(limit - age) } else { planned };
    if standing.warned {
        return Next::Retry(not_after(retry.give_up_after));
    }
    if age >= retry.warn_after {
        return Next::Warn(not_after(retry.give_up_after));
    }
    Next::Retry(not_after(retry.warn_after.min(retry.give_up_after)))
}

/// `first`, each wait `factor` times the one before, at most `max`; up to a tenth less, by id and attempt, so that
/// messages that were deferred together do not come back together. Never less than a second.
fn wait(retry: &Retry, standing: &Standing) -> Duration {
    let exponent = i32::try_from(standing.attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = retry.first.as_secs_f64() * retry.factor.powi(exponent);
    let longest = retry.max.max(retry.first).as_secs_f64();
    let seconds = if grown.is_finite() { grown.min(longest) } else { longest };
    let less = f64::from(spread(standing)) / f64::from(u8::MAX) / 10.0;
    Duration::from_secs_f64((seconds * (1.0 - less)).round().max(1.0))
}

/// Some byte that depends on id and attempt alone (Fibonacci hashing).
fn spread(standing: &Standing) -> u8 {
    let mixed = (standing.id.0 ^ u64::from(standing.attempts)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Retry = Retry {
        first: Duration::from_secs(100),
        factor: 3.0,
        max: Duration::from_secs(1000),
        warn_after: Duration::from_secs(2000),
        give_up_after: Duration::from_secs(5000),
    };

    const NEW: Standing = Standing { id: QueueId(7), queued_at: QueueTime(0), attempts: 1, tried: 1, warned: false };

    #[test]
    fn waits_grow_to_the_longest_and_spread_by_a_tenth() {
        for (attempts, longest) in [(1, 100), (2, 300), (3, 900), (4, 1000), (40, 1000), (u32::MAX, 1000)] {
            for id in 0..200 {
                let seconds = wait(&SOON, &Standing { id: QueueId(id), attempts, ..NEW }).as_secs();
                assert!((longest * 9 / 10..=longest).contains(&seconds), "{attempts} attempts: {seconds} s");
            }
        }
        let several: std::collections::HashSet<_> =
            (0..200).map(|id| wait(&SOON, &Standing { id: QueueId(id), attempts: 4, ..NEW })).collect();
        assert!(several.len() > 20);
    }

    #[test]
    fn odd_settings_do_not_make_a_hot_loop() {
        let hot = Retry { first: Duration::ZERO, factor: 0.0, ..SOON };
        assert_eq!(wait(&hot, &Standing { attempts: 5, ..NEW }), Duration::from_secs(1));
        let huge = Retry { factor: f64::INFINITY, ..SOON };
        assert!(wait(&huge, &Standing { attempts: 5, ..NEW }) <= SOON.max);
    }

    #[test]
    fn warning_and_end_come_when_they_are_due() {
        let s = Duration::from_secs;
        let wait_4 = wait(&SOON, &Standing { attempts: 4, ..NEW }).as_secs();
        for (attempts, warned, now, expected) in [
            (4, false, 500, Next::Retry(s(wait_4))),
            (4, false, 1900, Next::Retry(s(100))), // no later than the warning
            (4, false, 2000, Next::Warn(s(wait_4))),
            (4, true, 2000, Next::Retry(s(wait_4))), // once
            (4, true, 4900, Next::Retry(s(100))),    // no later than the end
            (4, false, 4900, Next::Warn(s(100))),
            (4, true, 5000, Next::GiveUp),
            (4, false, 9000, Next::GiveUp),
            (3, true, 9000, Next::GiveUp),
        ] {
            assert_eq!(
                next(&SOON, &Standing { attempts, tried: attempts, warned, ..NEW }, QueueTime(now)),
                expected,
                "{attempts} {warned} {now}"
            );
        }
    }

    #[test]
    fn age_alone_does_not_end_what_was_hardly_tried() {
        for attempts in [1, 2] {
            assert!(matches!(
                next(&SOON, &Standing { attempts, tried: attempts, warned: true, ..NEW }, QueueTime(9000)),
                Next::Retry(_)
            ));
        }
    }
}
