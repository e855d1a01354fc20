//! Which connections are closed when slots are short, and when. Pure: [`crowd`](super::crowd) does it.

use std::time::Duration;

use crate::session::turn::{Idle, Stage};
use crate::smtp::envelope::Whose;

/// How long a client may be idle before its first MAIL while [`is_crowded`].
const BEFORE_MAIL: Duration = Duration::from_secs(10);
/// The same after its first MAIL.
const AFTER_MAIL: Duration = Duration::from_secs(30);

/// How far content may be behind one kibibyte a second.
const BEHIND: Duration = Duration::from_secs(10);

/// The order in which connections are closed, the least first: harvesters before all others, then by idle time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    looks_like_a_sender: bool,
    pub(super) since: Duration,
}

impl Order {
    pub(super) fn of(idle: Idle) -> Self {
        Self { looks_like_a_sender: idle.stage != Stage::Harvests, since: idle.since }
    }
}

/// Whether more than four fifths of `most` connections are taken.
pub(super) fn is_crowded(taken: usize, most: usize) -> bool {
    taken.saturating_mul(5) > most.saturating_mul(4)
}

/// Whether it has been idle for longer than is allowed while connections are short.
pub(super) fn is_overdue(idle: Idle, now: Duration) -> bool {
    let limit = match idle.stage {
        Stage::BeforeMail | Stage::Handshake => BEFORE_MAIL,
        Stage::AfterMail => AFTER_MAIL,
        Stage::Content => BEHIND,
        Stage::Harvests => Duration::ZERO,
    };
    now.saturating_sub(idle.since) >= limit
}

/// Whether its slot may be given to another client. A handshake with progress, and content, are left alone.
fn may_be_evicted(idle: Idle, now: Duration) -> bool {
    let moves = matches!(idle.stage, Stage::Handshake | Stage::Content);
    idle.whose == Whose::Stranger && (!moves || is_overdue(idle, now))
}

/// Up to `most` connections whose slots may be given to others; the first to be closed is last. A connection that
/// became idle later and is not in the list comes after all in it that are still idle.
pub(super) fn first_to_go(idle: impl Iterator<Item = (usize, Idle)>, now: Duration, most: usize) -> Vec<(usize, Idle)> {
    let mut found: Vec<(usize, Idle)> = idle.filter(|(_, idle)| may_be_evicted(*idle, now)).collect();
    if found.len() > most && most > 0 {
        found.select_nth_unstable_by_key(most - 1, |(_, idle)| Order::of(*idle));
        found.truncate(most);
    }
    found.sort_unstable_by_key(|(_, idle)| std::cmp::Reverse(Order::of(*idle)));
    found.shrink_to_fit();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle(since: u64, stage: Stage, whose: Whose) -> Idle {
        Idle { since: Duration::from_secs(since), stage, whose }
    }

    #[test]
    fn limits_shrink_above_four_fifths() {
        for (taken, most, crowded) in [
            (0, 1, false),
            (1, 1, true),
            (4, 5, false),
            (5, 5, true),
            (16, 20, false),
            (17, 20, true),
            (4000, 5000, false),
            (4001, 5000, true),
            (usize::MAX, 5000, true),
            (7, usize::MAX, false),
        ] {
            assert_eq!(is_crowded(taken, most), crowded, "{taken} of {most}");
        }
    }

    #[test]
    fn who_is_idle_has_ten_seconds_before_mail_and_thirty_after() {
        for (stage, limit) in
            [(Stage::BeforeMail, 10), (Stage::Handshake, 10), (Stage::Content, 10), (Stage::AfterMail, 30)]
        {
            for whose in [Whose::Known, Whose::Stranger] {
                let idle = idle(100, stage, whose);
                for (now, overdue) in [(0, false), (100 + limit - 1, false), (100 + limit, true)] {
                    assert_eq!(is_overdue(idle, Duration::from_secs(now)), overdue, "{stage:?} at {now}");
                }
            }
        }
    }

    #[test]
    fn the_longest_idle_stranger_goes_first() {
        let all = [
            idle(5, Stage::BeforeMail, Whose::Stranger),
            idle(1, Stage::AfterMail, Whose::Known), // it has places of its own
            idle(3, Stage::AfterMail, Whose::Stranger),
            idle(2, Stage::Handshake, Whose::Stranger), // it moves
            idle(9, Stage::BeforeMail, Whose::Stranger),
            idle(4, Stage::BeforeMail, Whose::Stranger),
            idle(6, Stage::Content, Whose::Stranger), // it comes, or came just now
            idle(1, Stage::Content, Whose::Known),
        ];
        let order = |now, most| {
            let found = first_to_go(all.into_iter().enumerate(), Duration::from_secs(now), most);
            found.into_iter().rev().map(|(at, _)| at).collect::<Vec<_>>()
        };
        assert_eq!(order(11, 10), [2, 5, 0, 4]);
        assert_eq!(order(12, 10), [3, 2, 5, 0, 4], "it has not moved for ten seconds");
        assert_eq!(order(11, 2), [2, 5]);
        assert_eq!(order(11, 1), [2]);
        assert_eq!(order(16, 10), [3, 2, 5, 0, 6, 4], "a message that is ten seconds behind");
        let harvesters = [8, 10].map(|since| idle(since, Stage::Harvests, Whose::Stranger));
        let with_them = all.into_iter().chain(harvesters).enumerate();
        let order = first_to_go(with_them, Duration::from_secs(11), 4).into_iter().rev().map(|(at, _)| at);
        assert_eq!(order.collect::<Vec<_>>(), [8, 9, 2, 5], "harvesters, however short a time they wait");
        assert!(is_overdue(harvesters[1], Duration::from_secs(10)), "and where it is crowded at once");
        assert!(first_to_go(std::iter::empty(), Duration::ZERO, 3).is_empty());
    }
}
