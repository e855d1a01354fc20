//! Reports about strangers' messages: how many are sent, when, and after what.

use super::bench::Bench;
use super::*;
use crate::delivery::dispatch::sample::{entry, report};

const TO: &str = "alice@example.net";

fn rules(limit: usize, reports_per_minute: Option<usize>) -> Rules {
    Rules { limit, grouping: Grouping::Together, reports_per_minute }
}

/// Begins and ends attempts until nothing more is due at `now`, as delivery without delay would. Returns the ids in
/// order.
fn goes(bench: &mut Bench, rules: Rules, now: u64) -> Vec<u64> {
    let mut gone = Vec::new();
    loop {
        let begun = bench.pick(|_| rules, now);
        if begun.is_empty() {
            return gone;
        }
        for begun in begun {
            gone.push(begun.turn.id.0);
            bench.delivers(begun);
        }
    }
}

#[test]
fn of_a_storm_sixty_leave_in_a_minute_the_oldest_first_and_other_mail_before_them() {
    let mut bench = Bench::default();
    for id in 0..1000 {
        // Two connectors, which share the pace.
        let connector = if id % 2 == 0 { "recipient-mx" } else { "secondary" };
        bench.insert(report(id, "", &[(TO, connector, RecipientState::due(UnixTime(10_000)))]));
    }
    bench.insert(entry(2000, &[(TO, "recipient-mx", RecipientState::due(UnixTime(10_005)))]));
    bench.insert(report(2001, "primary", &[(TO, "secondary", RecipientState::due(UnixTime(10_006)))]));
    let waiting = |bench: &Bench| bench.queue.shown().map(|lane| lane.waiting_reports).sum::<usize>();
    assert_eq!(waiting(&bench), 1000, "those that our own mail caused do not count");

    let first = goes(&mut bench, rules(20, Some(60)), 10_010);
    assert_eq!(first.len(), 62);
    let mut ahead = first[..2].to_vec();
    ahead.sort_unstable();
    assert_eq!(ahead, [2000, 2001], "mail that came later, and a report of an organisation's");
    let mut then = first[2..].to_vec();
    then.sort_unstable();
    assert_eq!(then, (0..60).collect::<Vec<u64>>());
    assert_eq!(waiting(&bench), 940);
    assert_eq!(
        bench.queue.next_due(|_| rules(20, Some(60))),
        Some(UnixTime(10_070)),
        "until then there is nothing to do"
    );

    // Another pass in the same minute changes nothing; other mail is sent all the same.
    bench.insert(entry(2002, &[(TO, "secondary", RecipientState::due(UnixTime(10_030)))]));
    bench.queue.retry_all(|_| true, Due::RETRY);
    assert_eq!(goes(&mut bench, rules(20, Some(60)), 10_069), [2002]);
    let mut second = goes(&mut bench, rules(20, Some(60)), 10_070);
    second.sort_unstable();
    assert_eq!(second, (60..120).collect::<Vec<u64>>());
    let minutes = (0..).find(|minute| {
        goes(&mut bench, rules(20, Some(60)), 10_130 + 60 * minute);
        waiting(&bench) == 0
    });
    assert_eq!(minutes, Some(14), "none is dropped: 880 more in 15 minutes");
}

#[test]
fn another_attempt_waits_for_its_turn_too() {
    let mut bench = Bench::default();
    bench.insert(report(1, "", &[(TO, "a", RecipientState::due(UnixTime(100)))]));
    bench.insert(report(2, "", &[(TO, "a", RecipientState::due(UnixTime(101)))]));
    let picked = bench.pick(|_| rules(20, Some(1)), 200).remove(0);
    assert_eq!(picked.turn.id, QueueId(1));
    bench.ends(picked, &RecipientState::due(UnixTime(230))); // deferred
    assert_eq!(goes(&mut bench, rules(20, Some(1)), 259).len(), 0);
    assert_eq!(goes(&mut bench, rules(20, Some(1)), 260), [2], "who has waited longer");
    assert_eq!(goes(&mut bench, rules(20, Some(1)), 320), [1]);
}

#[test]
fn they_have_half_of_a_connectors_places() {
    for (limit, places) in [(20, 10), (3, 1), (2, 1), (1, 1)] {
        let mut bench = Bench::default();
        for id in 0..100 {
            bench.insert(report(id, "", &[(TO, "a", RecipientState::due(UnixTime(100)))]));
        }
        let rules = rules(limit, Some(60));
        let mut reports = bench.pick(|_| rules, 200);
        assert_eq!(reports.len(), places, "of {limit}");
        assert_eq!(bench.queue.next_due(|_| rules), None, "an attempt that ends wakes us");
        for id in 100..200 {
            bench.insert(entry(id, &[(TO, "a", RecipientState::due(UnixTime(150)))]));
        }
        assert_eq!(bench.pick(|_| rules, 200).len(), limit - places, "of {limit}");
        bench.delivers(reports.remove(0));
        assert!(bench.pick(|_| rules, 200).iter().all(|begun| begun.turn.kind == Kind::Mail));
    }
}

#[test]
fn what_a_full_domain_holds_back_is_not_forgotten_nor_counted() {
    let mut bench = Bench::default();
    let rules = Rules { grouping: Grouping::ByDomain, ..rules(4, Some(60)) };
    for id in 0..10 {
        bench.insert(report(id, "", &[("a@tarpit.example", "a", RecipientState::due(UnixTime(100)))]));
    }
    bench.insert(report(10, "", &[("a@fabrikam.example", "a", RecipientState::due(UnixTime(101)))]));
    let begun = bench.pick(|_| rules, 200);
    assert_eq!(begun.len(), 2, "half of the places");
    let mut gone = 0;
    for begun in begun {
        bench.delivers(begun);
        gone += 1;
    }
    gone += goes(&mut bench, rules, 201).len();
    assert_eq!(gone, 11);
}

#[test]
fn where_nothing_leaves_nothing_is_counted() {
    let mut bench = Bench::default();
    for id in 0..100 {
        bench.insert(report(id, "", &[(TO, "", RecipientState::due(UnixTime(100)))]));
    }
    // They are routed as fast as the directory can.
    assert_eq!(goes(&mut bench, rules(4, None), 200).len(), 100);
}
