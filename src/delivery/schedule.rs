//! When a recipient is tried again, when its sender hears of a delay, and when it is given up (DESIGN section 4,
//! `retry`). Pure: `dispatch` brings the time.
//!
//! RFC 5321 4.5.4.1 asks for growing waits and four to five days before giving up; the operator decides here.

use std::time::Duration;

use crate::config::Retry;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Why;
use crate::spool::entry::outline::Waits;
use crate::time::{Moment, QueueTime, UnixTime};

/// A recipient is really tried this often before its age alone ends it: mail that was held, or that waited while we were
/// stopped, is not failed by the first attempt that happens to be deferred.
const LEAST_ATTEMPTS: u32 = 3;

/// After a start nobody is told of a delay, or given up, for so long: what we depend on may be starting too. Who has
/// waited twice as long as that would take is told all the same, so that restarts put off nothing for ever.
const SETTLING: Duration = Duration::from_mins(30);

/// The least wait after an attempt of which nobody knows whether the message has arrived, and how much longer each is
/// than the one before. That is 5 copies in two days, and one more where `give_up_after` comes before the next is due.
const IN_DOUBT: Duration = Duration::from_mins(10);
const IN_DOUBT_FACTOR: u32 = 4;

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
    /// Where this attempt may have delivered it: how many have done so by now, this one included.
    pub in_doubt: Option<u32>,
}

/// What follows a deferred attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDeferral {
    /// It is tried again after so long.
    Retry(Duration),
    /// It is tried again after so long, and the sender is told of the delay now, once.
    Warn(Duration),
    /// It has waited too long.
    GiveUp,
}

/// What follows an attempt that was deferred at `now`.
#[must_use]
pub fn next(retry: &Retry, standing: &Standing, now: Moment) -> AfterDeferral {
    let age = now.queue.since(standing.queued_at);
    let settled = |limit| settled(limit, age, now.up);
    let (warn_after, give_up_after) = (settled(retry.warn_after), settled(retry.give_up_after));
    let ends = match standing.in_doubt {
        // A next hop had it: a real attempt, however shortly after a start. No other one is early enough and far enough.
        Some(_) => age.saturating_add(IN_DOUBT) > retry.give_up_after,
        None => age >= give_up_after,
    };
    if ends && standing.tried >= LEAST_ATTEMPTS {
        return AfterDeferral::GiveUp;
    }
    let planned = wait(retry, standing);
    // A warning and the end come when they are due, not up to `max` later.
    let not_after = |limit: Duration| if limit > age { planned.min(limit - age) } else { planned };
    let wait = match standing.in_doubt {
        Some(_) if ends => planned,
        Some(_) => not_after(retry.give_up_after),
        None if standing.warned || age >= warn_after => not_after(give_up_after),
        None => not_after(warn_after.min(give_up_after)),
    };
    if age >= warn_after && !standing.warned { AfterDeferral::Warn(wait) } else { AfterDeferral::Retry(wait) }
}

/// The age from which `limit` is in force for a message of this age, where we have run for `up`.
fn settled(limit: Duration, age: Duration, up: Duration) -> Duration {
    let later = age.saturating_add(SETTLING.saturating_sub(up));
    if up >= SETTLING { limit } else { limit.max(later.min(limit.saturating_mul(2))) }
}

/// When one that waits is to be tried where we start at `now` by the time of day. The clock may have been another one
/// when that was written: what lies further ahead than the schedule allows is now. What may have arrived waits all of its
/// time then: another copy is worse than a delay.
#[must_use]
pub fn after_start(retry: &Retry, waiting: &Waits, now: UnixTime) -> UnixTime {
    let left = waiting.due.since(now);
    if waiting.why == Why::InDoubt {
        let longest = spread_out(after_doubt(retry, waiting.attempts, waiting.in_doubt), f64::from(u8::MAX));
        return if left > longest { now.plus(longest) } else { waiting.due };
    }
    let longest = if waiting.attempts == 0 { Duration::ZERO } else { grown(retry, waiting.attempts) };
    if left > longest { now } else { waiting.due }
}

/// The least wait after the attempt number `attempts`, where that was the number `in_doubt` of those that may have
/// delivered the message.
#[must_use]
pub fn after_doubt(retry: &Retry, attempts: u32, in_doubt: u32) -> Duration {
    let times = IN_DOUBT_FACTOR.saturating_pow(in_doubt.saturating_sub(1));
    grown(retry, attempts).max(IN_DOUBT.saturating_mul(times))
}

/// `first`, each wait `factor` times the one before, at most `max`; up to a tenth less, by id and attempt, so that
/// messages that were deferred together do not come back together; where it may have arrived up to a tenth more. Never
/// less than a second.
fn wait(retry: &Retry, standing: &Standing) -> Duration {
    let spread = f64::from(spread(standing));
    match standing.in_doubt {
        Some(in_doubt) => spread_out(after_doubt(retry, standing.attempts, in_doubt), spread),
        None => {
            let less = spread / f64::from(u8::MAX) / 10.0;
            Duration::from_secs_f64((grown(retry, standing.attempts).as_secs_f64() * (1.0 - less)).round().max(1.0))
        }
    }
}

/// Up to a tenth more.
fn spread_out(wait: Duration, spread: f64) -> Duration {
    let more = spread / f64::from(u8::MAX) / 10.0;
    wait.saturating_add(Duration::from_secs((wait.as_secs_f64() * more) as u64))
}

/// The wait after so many attempts, not spread.
fn grown(retry: &Retry, attempts: u32) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = retry.first.as_secs_f64() * retry.factor.powi(exponent);
    let longest = retry.max.max(retry.first);
    if grown.is_finite() && grown < longest.as_secs_f64() { Duration::from_secs_f64(grown.max(0.0)) } else { longest }
}

/// Some byte that depends on id and attempt alone (Fibonacci hashing).
fn spread(standing: &Standing) -> u8 {
    let mixed = (standing.id.0 ^ u64::from(standing.attempts)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

#[cfg(test)]
mod tests;
