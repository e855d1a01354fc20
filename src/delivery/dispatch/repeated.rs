//! Decides which deferrals the trace records: an outage with thousands of messages and attempts must not fill it. Pure.
//!
//! A deferral for the same reason as the one before is recorded if the attempt's number is a power of two; the records
//! have the number. Attempts are counted in the spool, so this is correct over restarts.

use crate::spool::entry::{Queued, RecipientState, Waiting, Why};

/// Up to this attempt another text of a next hop counts as another reason; it could vary for ever.
const WORDS_COUNT: u32 = 16;

/// Whether the trace records a deferral.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recorded {
    /// It is the first, or has another reason.
    New,
    /// It is one of many for the same reason.
    Again,
    /// It does not: the next record counts it.
    No,
}

/// For a recipient's state before and after.
pub(super) fn recorded(before: &Queued, after: &Queued) -> Recorded {
    let (RecipientState::Waiting(was), RecipientState::Waiting(is)) = (&before.state, &after.state) else {
        return Recorded::New;
    };
    if was.attempts == 0 || before.route.connector != after.route.connector || !is_same(was, is) {
        Recorded::New
    } else if is.attempts.is_power_of_two() {
        Recorded::Again
    } else {
        Recorded::No
    }
}

fn is_same(was: &Waiting, is: &Waiting) -> bool {
    was.why == is.why
        && was.followed == is.followed
        && match is.why {
            // The details of an unreachable next hop vary between attempts.
            Why::Unreachable | Why::Undecided => true,
            // Each may be another copy.
            Why::InDoubt => false,
            Why::New | Why::Deferred => is.attempts > WORDS_COUNT || words(&was.last_error).eq(words(&is.last_error)),
        }
}

/// What is left of a text without its numbers: a greylisting server counts seconds.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::dispatch::sample;

    fn queued(connector: &str, why: Why, attempts: u32, last_error: &str) -> Queued {
        let waiting = Waiting { attempts, why, last_error: last_error.into(), ..Waiting::default() };
        sample::entry(1, &[("bob@contoso.com", connector, RecipientState::Waiting(waiting))]).recipients.remove(0)
    }

    #[test]
    fn what_is_the_same_is_recorded_at_powers_of_two() {
        use Recorded::{Again, New, No};
        let greylisted = |seconds: u32| format!("hub[192.0.2.1]:25: 451 4.7.1 come back in {seconds} s");
        let (soon, later) = (greylisted(9), greylisted(300));
        for ((was, before), (is, attempts, after), expected) in [
            ((Why::New, ""), (Why::Unreachable, 1, "451 4.4.1 refused"), New),
            ((Why::Unreachable, "refused"), (Why::Unreachable, 2, "no answer"), Again),
            ((Why::Unreachable, "refused"), (Why::Unreachable, 3, "no answer"), No),
            ((Why::Unreachable, "refused"), (Why::Unreachable, 64, "refused"), Again),
            ((Why::Unreachable, "refused"), (Why::Deferred, 99, "refused"), New),
            ((Why::Undecided, "ad"), (Why::Undecided, 5, "ad and ldap"), No),
            ((Why::InDoubt, "lost"), (Why::InDoubt, 3, "lost"), New),
            ((Why::Deferred, &later), (Why::Deferred, 3, &soon), No),
            ((Why::Deferred, &later), (Why::Deferred, 4, &soon), Again),
            ((Why::Deferred, &later), (Why::Deferred, 3, "452 4.2.2 full"), New),
            ((Why::Deferred, &later), (Why::Deferred, 17, "452 4.2.2 full"), No),
        ] {
            let (was, is) = (queued("hub", was, attempts - 1, before), queued("hub", is, attempts, after));
            assert_eq!(recorded(&was, &is), expected, "{was:?} {is:?}");
        }
        let was = queued("hub", Why::Unreachable, 2, "");
        assert_eq!(recorded(&was, &queued("other", Why::Unreachable, 3, "")), New);
        let held = Queued { state: RecipientState::Held(crate::spool::entry::HeldFor::NoConnector), ..was };
        assert_eq!(recorded(&held, &queued("hub", Why::Unreachable, 1, "")), New);
    }

    #[test]
    fn an_outage_of_days_is_a_few_records_a_message() {
        let records = |words: fn(u32) -> String, why: Why| {
            let at = |attempts| queued("hub", if attempts == 0 { Why::New } else { why }, attempts, &words(attempts));
            (1..=2880).filter(|attempts| recorded(&at(attempts - 1), &at(*attempts)) != Recorded::No).count()
        };
        assert_eq!(records(|_| "451 4.4.1 refused".into(), Why::Unreachable), 12, "a minute each, for two days");
        assert_eq!(records(|n| format!("451 4.7.1 come back in {} s", 300 - n % 300), Why::Deferred), 12);
        let nasty = |n| format!("451 4.7.1 {}", "x".repeat(n as usize % 7));
        assert_eq!(records(nasty, Why::Deferred), 16 + 7, "whatever it says");
    }
}
