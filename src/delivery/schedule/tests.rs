//! The schedule as tables, and properties for any configuration of `retry`.

use proptest::prelude::*;

use super::*;

const SOON: Retry = Retry {
    first: Duration::from_secs(100),
    factor: 3.0,
    max: Duration::from_secs(1000),
    warn_after: Duration::from_secs(2000),
    give_up_after: Duration::from_secs(5000),
};

const NEW: Standing =
    Standing { id: QueueId(7), queued_at: QueueTime(0), attempts: 1, tried: 1, warned: false, in_doubt: None };
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// At this queue time, long after the start.
fn at(queue: u64) -> Moment {
    Moment { day: UnixTime(queue), queue: QueueTime(queue), up: SETTLING }
}

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
    for factor in [f64::INFINITY, f64::NAN, -3.0] {
        let odd = Retry { factor, ..SOON };
        let wait = wait(&odd, &Standing { attempts: 5, ..NEW });
        assert!(wait <= SOON.max && wait >= Duration::from_secs(1), "{factor}: {wait:?}");
    }
}

#[test]
fn warning_and_end_come_when_they_are_due() {
    let s = Duration::from_secs;
    let wait_4 = wait(&SOON, &Standing { attempts: 4, ..NEW }).as_secs();
    for (attempts, warned, now, expected) in [
        (4, false, 500, AfterDeferral::Retry(s(wait_4))),
        (4, false, 1900, AfterDeferral::Retry(s(100))), // no later than the warning
        (4, false, 2000, AfterDeferral::Warn(s(wait_4))),
        (4, true, 2000, AfterDeferral::Retry(s(wait_4))), // once
        (4, true, 4900, AfterDeferral::Retry(s(100))),    // no later than the end
        (4, false, 4900, AfterDeferral::Warn(s(100))),
        (4, true, 5000, AfterDeferral::GiveUp),
        (4, false, 9000, AfterDeferral::GiveUp),
        (3, true, 9000, AfterDeferral::GiveUp),
    ] {
        assert_eq!(
            next(&SOON, &Standing { attempts, tried: attempts, warned, ..NEW }, at(now)),
            expected,
            "{attempts} {warned} {now}"
        );
    }
}

#[test]
fn age_alone_does_not_end_what_was_hardly_tried() {
    // Attempts, those that count, and whether it expires.
    for (attempts, tried, ends) in [(1, 1, false), (2, 2, false), (3, 3, true), (900, 2, false), (900, 3, true)] {
        let standing = Standing { attempts, tried, warned: true, ..NEW };
        assert_eq!(next(&SOON, &standing, at(9000)) == AfterDeferral::GiveUp, ends, "{attempts} {tried}");
    }
}

#[test]
fn shortly_after_a_start_nothing_ends_and_nobody_is_warned() {
    let retry =
        Retry { warn_after: Duration::from_secs(4 * HOUR), give_up_after: Duration::from_secs(2 * DAY), ..SOON };
    let minutes = |minutes| Duration::from_secs(minutes * MINUTE);
    // Age, whether the delay was reported, time since the start; the next step.
    for (age, warned, up, expected) in [
        (3 * DAY, true, 0, "retry"),
        (3 * DAY, true, 29, "retry"),
        (3 * DAY, true, 30, "end"),
        (4 * DAY, true, 0, "end"), // twice as old: restarts put nothing off for ever
        (4 * DAY - 1, true, 0, "retry"),
        (4 * HOUR, false, 29, "retry"),
        (4 * HOUR, false, 30, "warn"),
        (8 * HOUR, false, 1, "warn"),
        (3 * DAY, false, 29, "warn"),
    ] {
        let standing = Standing { attempts: 9, tried: 9, warned, ..NEW };
        let then = next(&retry, &standing, Moment { up: minutes(up), ..at(age) });
        let name = match then {
            AfterDeferral::Retry(_) => "retry",
            AfterDeferral::Warn(_) => "warn",
            AfterDeferral::GiveUp => "end",
        };
        assert_eq!(name, expected, "{age} {warned} {up}");
    }
    // What is postponed comes as soon as it may.
    let slow = Retry { first: minutes(600), max: minutes(600), ..retry };
    let standing = Standing { attempts: 9, tried: 9, warned: true, ..NEW };
    assert_eq!(next(&slow, &standing, Moment { up: minutes(12), ..at(3 * DAY) }), AfterDeferral::Retry(minutes(18)));
    assert_eq!(
        next(&slow, &standing, Moment { up: minutes(12), ..at(4 * DAY - 60) }),
        AfterDeferral::Retry(minutes(1))
    );
}

#[test]
fn after_a_start_what_is_too_far_ahead_is_now() {
    let now = UnixTime(1_000_000);
    let waiting = |attempts, ahead: u64| Waits { attempts, due: UnixTime(now.0 + ahead), ..Waits::default() };
    for (attempts, ahead, left) in [
        (0, 0, 0),
        (0, 5, 0), // never tried: its time was when it came
        (1, 100, 100),
        (1, 101, 0),
        (2, 300, 300),
        (2, 301, 0),
        (40, 1000, 1000),
        (40, 1001, 0),
        (40, 365 * DAY, 0),
    ] {
        assert_eq!(after_start(&SOON, &waiting(attempts, ahead), now).0 - now.0, left, "{attempts} {ahead}");
    }
    let past = Waits { due: UnixTime(5), attempts: 3, ..Waits::default() };
    assert_eq!(after_start(&SOON, &past, now), UnixTime(5), "due long ago: it comes first");
    // A recipient that may have arrived has a longer wait, and the full wait if the time is uncertain.
    for (in_doubt, ahead, left) in [
        (1, 600, 600),
        (1, 1099, 1099),
        (1, 1101, 1100),
        (1, 365 * DAY, 1100),
        (3, 160 * MINUTE, 160 * MINUTE),
        (3, 365 * DAY, 176 * MINUTE),
    ] {
        let waiting = Waits { why: Why::InDoubt, in_doubt, ..waiting(9, ahead) };
        assert_eq!(after_start(&SOON, &waiting, now).0 - now.0, left, "{in_doubt} {ahead}");
    }
}

#[test]
fn what_may_have_arrived_is_tried_far_apart() {
    let quick = Retry { first: Duration::from_secs(1), factor: 1.0, max: Duration::from_secs(1), ..Retry::DEFAULT };
    for (in_doubt, minutes) in [(1, 10), (2, 40), (3, 160), (4, 640), (5, 2560)] {
        for id in 0..200 {
            let standing = Standing { id: QueueId(id), in_doubt: Some(in_doubt), attempts: in_doubt, tried: 1, ..NEW };
            let AfterDeferral::Retry(wait) = next(&quick, &standing, at(60)) else { panic!("{in_doubt}") };
            let (seconds, least) = (wait.as_secs(), minutes * MINUTE);
            let longest = (least * 11 / 10).min(2 * DAY - 60); // the end is not put off
            assert!((least..=longest).contains(&seconds), "{in_doubt}: {seconds}");
        }
    }
    let ends = |age, tried, up| {
        let standing = Standing { in_doubt: Some(tried), attempts: 9, tried, warned: true, ..NEW };
        let moment = Moment { up: Duration::from_secs(up), ..at(age) };
        next(&quick, &standing, moment) == AfterDeferral::GiveUp
    };
    assert!(ends(2 * DAY, 5, HOUR) && ends(2 * DAY, 5, 0), "a next hop had it, shortly after our start too");
    assert!(ends(2 * DAY - 9 * MINUTE, 5, HOUR), "the next copy would come too soon, or too late");
    assert!(!ends(2 * DAY - 10 * MINUTE, 5, HOUR) && !ends(2 * DAY, 2, HOUR));
}

#[derive(Debug, Clone, Copy)]
enum FailedAttempt {
    Deferred,
    Remembered,
    InDoubt,
}

/// When it may have arrived, by the queue's time, until it is given up or ten days are over; `starts`: restarts after
/// this many attempts, a while later.
fn copies(retry: &Retry, id: u64, ended: &[FailedAttempt], starts: usize) -> Vec<u64> {
    let (mut now, mut up, mut copies) = (0, 0, Vec::new());
    let (mut tried, mut warned) = (0, false);
    let mut waiting = Waits::default();
    for (at, ended) in ended.iter().cycle().enumerate().take(5000) {
        waiting.attempts += 1;
        tried += u32::from(!matches!(ended, FailedAttempt::Remembered));
        let in_doubt = matches!(ended, FailedAttempt::InDoubt);
        if in_doubt {
            waiting.in_doubt += 1;
            copies.push(now);
        }
        let standing = Standing {
            id: QueueId(id),
            queued_at: QueueTime(0),
            attempts: waiting.attempts,
            tried,
            warned,
            in_doubt: in_doubt.then_some(waiting.in_doubt),
        };
        let moment = Moment { day: UnixTime(now), queue: QueueTime(now), up: Duration::from_secs(up) };
        let wait = match next(retry, &standing, moment) {
            AfterDeferral::Retry(wait) => wait,
            AfterDeferral::Warn(wait) => {
                assert!(!std::mem::replace(&mut warned, true), "warned twice");
                wait
            }
            AfterDeferral::GiveUp => return copies,
        };
        assert!(wait >= Duration::from_secs(1));
        waiting.due = UnixTime(now).plus(wait);
        waiting.why = if in_doubt { Why::InDoubt } else { Why::Unreachable };
        if starts > 0 && at % starts == 0 {
            waiting.due = after_start(retry, &waiting, UnixTime(now));
            up = 0;
        }
        let then = waiting.due.0.max(now + 1);
        (now, up) = (then, up + then - now);
        if now > 10 * DAY {
            return copies;
        }
    }
    copies
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// With any outcomes, settings and restarts there are at most 6 copies in two days, at least 10 minutes apart.
    #[test]
    fn copies_are_few_and_far_apart(
        (first, max) in (1_u64..2 * HOUR, 1_u64..2 * DAY),
        factor in 0.0_f64..20.0,
        (warn, give_up) in (1_u64..4 * DAY, 1_u64..7 * DAY),
        id in any::<u64>(),
        ended in proptest::collection::vec(
            prop_oneof![Just(FailedAttempt::InDoubt), Just(FailedAttempt::Deferred), Just(FailedAttempt::Remembered)], 1..12),
        starts in 0_usize..4,
    ) {
        let s = Duration::from_secs;
        let retry = Retry { first: s(first), factor, max: s(max), warn_after: s(warn), give_up_after: s(give_up) };
        let copies = copies(&retry, id, &ended, starts);
        for (at, copy) in copies.iter().enumerate() {
            let within = copies[at..].iter().filter(|other| **other - copy < 2 * DAY).count();
            prop_assert!(within <= 6, "{:?}", copies);
            if let Some(next) = copies.get(at + 1) {
                prop_assert!(next - copy >= 10 * MINUTE, "{:?}", copies);
            }
        }
    }
}

#[test]
fn a_next_hop_that_always_breaks_off_gets_five_copies_in_two_days() {
    let quick = Retry { first: Duration::from_secs(1), factor: 1.0, max: Duration::from_secs(1), ..Retry::DEFAULT };
    for id in 0..100 {
        let copies = copies(&quick, id, &[FailedAttempt::InDoubt], 0);
        assert_eq!(copies.len(), 6, "the last one ends it: {copies:?}");
        assert_eq!(copies.iter().filter(|at| **at < 2 * DAY).count(), 5, "{copies:?}");
        assert_eq!(copies.last(), Some(&(2 * DAY)), "give_up_after ends it");
    }
}

#[test]
fn restarts_every_29_minutes_put_off_a_warning_and_an_end_and_not_for_ever() {
    let s = Duration::from_secs;
    let retry = Retry { first: s(5), factor: 1.5, max: s(600), warn_after: s(HOUR), give_up_after: s(6 * HOUR) };
    // Time between restarts, in minutes; when the delay is reported and when it expires at the latest.
    for (every, warned_by, over_by) in [(29, 2 * HOUR, 12 * HOUR), (31, 2 * HOUR, 7 * HOUR), (100_000, HOUR, 6 * HOUR)]
    {
        for id in 0..50 {
            // Time since the last start: one of these is in progress when the message comes.
            let (mut now, mut warned_at, mut attempts) = (0, None, 0);
            let ended = loop {
                attempts += 1;
                let standing =
                    Standing { id: QueueId(id), attempts, tried: attempts, warned: warned_at.is_some(), ..NEW };
                let up = s((now + 31 * MINUTE) % (every * MINUTE));
                match next(&retry, &standing, Moment { up, ..at(now) }) {
                    AfterDeferral::Retry(wait) => now += wait.as_secs(),
                    AfterDeferral::Warn(wait) => {
                        assert_eq!(warned_at.replace(now), None);
                        now += wait.as_secs();
                    }
                    AfterDeferral::GiveUp => break now,
                }
            };
            let warned_at = warned_at.unwrap();
            assert!((HOUR..=warned_by).contains(&warned_at), "{every}: warned at {warned_at}");
            assert!((6 * HOUR..=over_by).contains(&ended), "{every}: over at {ended}");
        }
    }
}
