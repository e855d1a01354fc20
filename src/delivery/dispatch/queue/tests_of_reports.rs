//! Reports that strangers caused: how many go, when, and after what.

use super::*;
use crate::delivery::dispatch::sample::{entry, report, route};
use crate::spool::entry::Outcome;

const TO: &str = "alice@example.net";

fn rules(limit: usize, reports_per_minute: Option<usize>) -> Rules {
    Rules { limit, grouping: Grouping::Together, reports_per_minute }
}

/// As delivery without delay would: picks and ends attempts until nothing more goes at `now`. The ids, as they went.
fn goes(queue: &mut Queue, rules: Rules, now: u64) -> Vec<u64> {
    let mut gone = Vec::new();
    loop {
        let picked = queue.pick(|_| rules, UnixTime(now));
        if picked.is_empty() {
            return gone;
        }
        for Picked { entry, connector, rank, domain, .. } in picked {
            gone.push(entry.id.0);
            queue.finished(&connector, rank, domain.as_ref());
            let state = State::Done(Outcome::Dropped);
            queue.update(
                entry.id,
                vec![Update { recipient: 0, state, route: route(TO, &connector), known: Known::default() }],
            );
        }
    }
}

#[test]
fn of_a_storm_sixty_leave_in_a_minute_the_oldest_first_and_other_mail_before_them() {
    let mut queue = Queue::default();
    for id in 0..1000 {
        // On two connectors: they share the pace.
        let connector = if id % 2 == 0 { "recipient-mx" } else { "secondary" };
        queue.insert(report(id, "", &[(TO, connector, State::due(UnixTime(10_000)))]), None);
    }
    queue.insert(entry(2000, &[(TO, "recipient-mx", State::due(UnixTime(10_005)))]), None);
    queue.insert(report(2001, "primary", &[(TO, "secondary", State::due(UnixTime(10_006)))]), None);
    let waiting = |queue: &Queue| queue.shown().map(|lane| lane.waiting_reports).sum::<usize>();
    assert_eq!(waiting(&queue), 1000, "those that our own mail caused do not count");

    let first = goes(&mut queue, rules(20, Some(60)), 10_010);
    assert_eq!(first.len(), 62);
    let mut ahead = first[..2].to_vec();
    ahead.sort_unstable();
    assert_eq!(ahead, [2000, 2001], "mail that came later, and a report of an organisation's");
    let mut then = first[2..].to_vec();
    then.sort_unstable();
    assert_eq!(then, (0..60).collect::<Vec<u64>>());
    assert_eq!(waiting(&queue), 940);
    assert_eq!(queue.next_due(|_| rules(20, Some(60))), Some(UnixTime(10_070)), "until then there is nothing to do");

    // A second pass at any time in the same minute changes nothing; other mail goes all the same.
    queue.insert(entry(2002, &[(TO, "secondary", State::due(UnixTime(10_030)))]), None);
    queue.retry(None, UnixTime(10_030));
    assert_eq!(goes(&mut queue, rules(20, Some(60)), 10_069), [2002]);
    let mut second = goes(&mut queue, rules(20, Some(60)), 10_070);
    second.sort_unstable();
    assert_eq!(second, (60..120).collect::<Vec<u64>>());
    let minutes = (0..).find(|minute| {
        goes(&mut queue, rules(20, Some(60)), 10_130 + 60 * minute);
        waiting(&queue) == 0
    });
    assert_eq!(minutes, Some(14), "none is dropped: 880 more in 15 minutes");
}

#[test]
fn another_attempt_waits_for_its_turn_too() {
    let mut queue = Queue::default();
    queue.insert(report(1, "", &[(TO, "a", State::due(UnixTime(100)))]), None);
    queue.insert(report(2, "", &[(TO, "a", State::due(UnixTime(101)))]), None);
    let picked = queue.pick(|_| rules(20, Some(1)), UnixTime(200)).remove(0);
    assert_eq!(picked.entry.id, QueueId(1));
    queue.finished("a", picked.rank, None);
    queue.release(QueueId(1), picked.ticket, UnixTime(230)); // deferred
    assert_eq!(goes(&mut queue, rules(20, Some(1)), 259).len(), 0);
    assert_eq!(goes(&mut queue, rules(20, Some(1)), 260), [2], "who has waited longer");
    assert_eq!(goes(&mut queue, rules(20, Some(1)), 320), [1]);
}

#[test]
fn they_have_half_of_a_connectors_places() {
    for (limit, places) in [(20, 10), (3, 1), (2, 1), (1, 1)] {
        let mut queue = Queue::default();
        for id in 0..100 {
            queue.insert(report(id, "", &[(TO, "a", State::due(UnixTime(100)))]), None);
        }
        let rules = rules(limit, Some(60));
        assert_eq!(queue.pick(|_| rules, UnixTime(200)).len(), places, "of {limit}");
        assert_eq!(queue.next_due(|_| rules), None, "an attempt that ends wakes us");
        for id in 100..200 {
            queue.insert(entry(id, &[(TO, "a", State::due(UnixTime(150)))]), None);
        }
        assert_eq!(queue.pick(|_| rules, UnixTime(200)).len(), limit - places, "of {limit}");
        queue.finished("a", Rank::StrangersReport, None);
        assert!(queue.pick(|_| rules, UnixTime(200)).iter().all(|picked| picked.rank == Rank::Mail));
    }
}

#[test]
fn what_a_full_domain_holds_back_is_not_forgotten_nor_counted() {
    let mut queue = Queue::default();
    let rules = Rules { grouping: Grouping::ByDomain, ..rules(4, Some(60)) };
    for id in 0..10 {
        queue.insert(report(id, "", &[("a@tarpit.example", "a", State::due(UnixTime(100)))]), None);
    }
    queue.insert(report(10, "", &[("a@fabrikam.example", "a", State::due(UnixTime(101)))]), None);
    let held: Vec<_> = queue.pick(|_| rules, UnixTime(200)).into_iter().map(|picked| picked.entry.id.0).collect();
    assert_eq!(held, [0, 1], "two places, and a domain may have two of four");
    let domain = Domain::parse("tarpit.example").unwrap();
    let mut gone = 0;
    for id in held {
        queue.finished("a", Rank::StrangersReport, Some(&domain));
        let state = State::Done(Outcome::Dropped);
        queue.update(QueueId(id), vec![Update { recipient: 0, state, route: route(TO, "a"), known: Known::default() }]);
        gone += 1;
    }
    gone += goes(&mut queue, rules, 201).len();
    assert_eq!(gone, 11);
}

#[test]
fn where_nothing_leaves_nothing_is_counted() {
    let mut queue = Queue::default();
    for id in 0..100 {
        queue.insert(report(id, "", &[(TO, "", State::due(UnixTime(100)))]), None);
    }
    // Their way is asked for as fast as the directory can.
    assert_eq!(goes(&mut queue, rules(4, None), 200).len(), 100);
}
