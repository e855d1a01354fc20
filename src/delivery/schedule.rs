//! When a recipient is tried again, when its delay is reported, and when it is given up (DESIGN section 4, `retry`).
//! Pure: time is an argument.
//!
//! RFC 5321 4.5.4.1 asks for growing waits and four to five days before giving up; here the operator configures them.

use std::time::Duration;

use crate::config::Retry;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Why;
use crate::spool::entry::outline::Waits;
use crate::time::{Moment, QueueTime, UnixTime};

/// A recipient expires only after this many real attempts: mail that was held, or that waited while the program was
/// stopped, does not fail by the first deferral.
const LEAST_ATTEMPTS: u32 = 3;

/// For this long after a start no delay is reported and no recipient given up, because other servers may be starting as
/// well. A recipient that has waited twice as long as the limit is excepted, so that repeated restarts do not postpone
/// it for ever.
const SETTLING: Duration = Duration::from_mins(30);

/// The least wait after an attempt with an unknown outcome, and the factor by which each further one grows. That is 5
/// copies in two days, and one more if `give_up_after` comes before the next is due.
const IN_DOUBT: Duration = Duration::from_mins(10);
const IN_DOUBT_FACTOR: u32 = 4;

/// A recipient's state after a deferred attempt.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The message's id, which spreads the waits of messages that came together.
    pub id: QueueId,
    /// The start of its age.
    pub queued_at: QueueTime,
    /// Including this one.
    pub attempts: u32,
    /// Of these, those that count towards its expiry.
    pub tried: u32,
    /// Whether the delay was reported.
    pub warned: bool,
    /// If this attempt may have delivered it: how many attempts have by now, including this one.
    pub in_doubt: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDeferral {
    Retry(Duration),
    /// Try again after this time, and report the delay now; once.
    Warn(Duration),
    GiveUp,
}

/// The step after an attempt that was deferred at `now`.
#[must_use]
pub fn next(retry: &Retry, standing: &Standing, now: Moment) -> AfterDeferral {
    let age = now.queue.since(standing.queued_at);
    let settled = |limit| settled(limit, age, now.up);
    let (warn_after, give_up_after) = (settled(retry.warn_after), settled(retry.give_up_after));
    let ends = match standing.in_doubt {
        // A next hop accepted a connection, so this was a real attempt even shortly after a start. Among such attempts
        // no other is late enough to be the last.
        Some(_) => age.saturating_add(IN_DOUBT) > retry.give_up_after,
        None => age >= give_up_after,
    };
    if ends && standing.tried >= LEAST_ATTEMPTS {
        return AfterDeferral::GiveUp;
    }
    let planned = wait(retry, standing);
    // The report of a delay and the expiry are on time, not up to `max` later.
    let not_after = |limit: Duration| if limit > age { planned.min(limit - age) } else { planned };
    let wait = match standing.in_doubt {
        Some(_) if ends => planned,
        Some(_) => not_after(retry.give_up_after),
        None if standing.warned || age >= warn_after => not_after(give_up_after),
        None => not_after(warn_after.min(give_up_after)),
    };
    if age >= warn_after && !standing.warned { AfterDeferral::Warn(wait) } else { AfterDeferral::Retry(wait) }
}

/// The age from which `limit` applies to a message of this age, if the program has run for `up`.
fn settled(limit: Duration, age: Duration, up: Duration) -> Duration {
    let later = age.saturating_add(SETTLING.saturating_sub(up));
    if up >= SETTLING { limit } else { limit.max(later.min(limit.saturating_mul(2))) }
}

/// When a waiting recipient is to be tried after a start at `now` by the wall clock. The clock may have been wrong when
/// the time was written: a time later than the schedule allows becomes now. A recipient that may have arrived then
/// waits its full time: another copy is worse than a delay.
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

/// The least wait after attempt number `attempts`, if it was number `in_doubt` of those with an unknown outcome.
#[must_use]
pub fn after_doubt(retry: &Retry, attempts: u32, in_doubt: u32) -> Duration {
    let times = IN_DOUBT_FACTOR.saturating_pow(in_doubt.saturating_sub(1));
    grown(retry, attempts).max(IN_DOUBT.saturating_mul(times))
}

/// `first`, each wait `factor` times the one before, at most `max`; up to a tenth less, by id and attempt, so that
/// messages deferred together are not tried together; up to a tenth more if it may have arrived. At least a second.
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

/// The wait after this many attempts, not spread.
fn grown(retry: &Retry, attempts: u32) -> Duration {
    let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = retry.first.as_secs_f64() * retry.factor.powi(exponent);
    let longest = retry.max.max(retry.first);
    if grown.is_finite() && grown < longest.as_secs_f64() { Duration::from_secs_f64(grown.max(0.0)) } else { longest }
}

/// A byte that depends on id and attempt only (Fibonacci hashing).
fn spread(standing: &Standing) -> u8 {
    let mixed = (standing.id.0 ^ u64::from(standing.attempts)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_be_bytes()[0]
}

#[cfg(test)]
mod tests;
