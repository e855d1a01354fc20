//! What the queue gives out, and when.

use super::bench::{Begun, Bench};
use super::loading::RECENT;
use super::*;
use crate::delivery::dispatch::sample::{entry, route};
use crate::spool::entry::{Outcome, Waiting};

const NOW: u64 = 20_000;
const BOB: &str = "bob@contoso.com";

fn due(at: u64) -> RecipientState {
    RecipientState::Waiting(Waiting { attempts: 1, next_attempt: UnixTime(at), ..Waiting::default() })
}

fn out_of_reach(at: u64) -> RecipientState {
    RecipientState::Waiting(Waiting {
        attempts: 1,
        next_attempt: UnixTime(at),
        why: Why::Unreachable,
        ..Waiting::default()
    })
}

fn three(_: &str) -> Rules {
    Rules { limit: 3, grouping: Grouping::Together, reports_per_minute: Some(60) }
}

/// What begins at `now`: connector, message, positions.
fn picked(bench: &mut Bench, now: u64) -> Vec<(String, u64, Vec<usize>)> {
    let mut picked: Vec<_> = bench.pick(three, now).iter().map(Begun::what).collect();
    picked.sort();
    picked
}

fn done(recipient: usize) -> Update {
    let state = RecipientState::Done(Outcome::Dropped);
    Update { recipient, state, route: route(BOB, "a"), known: Known::default() }
}

fn one(connector: &str, id: u64, positions: &[usize]) -> (String, u64, Vec<usize>) {
    (connector.to_owned(), id, positions.to_vec())
}

#[test]
fn each_connector_gets_what_is_due_up_to_its_limit_oldest_first() {
    for restored in [false, true] {
        let mut bench = Bench::default();
        for id in 1..=5 {
            let entry = entry(id, &[(BOB, "a", due(100 - id)), (BOB, "b", due(500))]);
            if restored { bench.restore(entry) } else { bench.insert(entry) }
        }
        assert_eq!(bench.queue.next_due(three), Some(UnixTime(95)));
        assert_eq!(picked(&mut bench, 94), []);
        let mut begun = bench.pick(three, 200);
        let mut what: Vec<_> = begun.iter().map(Begun::what).collect();
        what.sort();
        assert_eq!(what, [one("a", 3, &[0]), one("a", 4, &[0]), one("a", 5, &[0])]);
        assert_eq!(picked(&mut bench, 200), [], "a has no place, b is not due");
        assert_eq!(bench.queue.next_due(three), Some(UnixTime(500)), "a wakes us when it has a place");
        bench.delivers(begun.remove(0));
        assert_eq!(picked(&mut bench, 200), [one("a", 2, &[0])]);
    }
}

#[test]
fn what_is_under_way_is_not_picked_again_until_it_is_free() {
    let mut bench = Bench::default();
    bench.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "a", due(900))]));
    let first = bench.pick(three, 1).remove(0);
    assert!(bench.queue.retry(QueueId(1)), "the other one");
    assert_eq!(picked(&mut bench, NOW), [one("a", 1, &[1])]);
    bench.queue.release(QueueId(1), first.turn.ticket, UnixTime(NOW + 60));
    assert_eq!(picked(&mut bench, NOW), []);
    assert_eq!(picked(&mut bench, NOW + 60), [one("a", 1, &[0])]);
}

#[test]
fn a_late_release_frees_nothing_of_anothers() {
    let mut bench = Bench::default();
    bench.insert(entry(1, &[(BOB, "a", due(1))]));
    let first = bench.pick(three, NOW).remove(0);
    let again = Update { recipient: 0, state: due(2), route: route(BOB, "b"), known: Known::default() };
    bench.update(1, vec![again]);
    assert_eq!(picked(&mut bench, NOW), [one("b", 1, &[0])]);
    bench.queue.release(QueueId(1), first.turn.ticket, UnixTime(3));
    assert_eq!(picked(&mut bench, NOW), []);
}

#[test]
fn what_is_under_way_elsewhere_is_held_if_it_waits_and_is_free() {
    let mut bench = Bench::default();
    let over = RecipientState::Done(Outcome::Dropped);
    bench.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "a", due(1)), (BOB, "a", over), (BOB, "b", due(1))]));
    let held = bench.queue.hold(QueueId(1), &[0, 2, 3, 7]);
    assert_eq!(held.recipients.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 3]);
    assert!(bench.queue.hold(QueueId(1), &[0]).recipients.is_empty(), "somebody has it");
    assert!(bench.queue.hold(QueueId(2), &[0]).recipients.is_empty());
    assert_eq!(picked(&mut bench, NOW), [one("a", 1, &[1])]);
    bench.queue.release(QueueId(1), held.ticket, UnixTime(NOW));
    assert_eq!(picked(&mut bench, NOW), [one("a", 1, &[0]), one("b", 1, &[3])]);
}

#[test]
fn a_message_leaves_with_its_last_recipient() {
    let mut bench = Bench::default();
    bench.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "a", due(1))]));
    let waiting = |bench: &Bench| bench.queue.shown().map(|lane| lane.waiting).sum::<usize>();
    bench.queue.begins(QueueId(1));
    bench.update(1, vec![done(0)]);
    assert_eq!(waiting(&bench), 1);
    bench.update(1, vec![done(1)]);
    bench.queue.ends(QueueId(1));
    assert_eq!((waiting(&bench), bench.left(), bench.queue.is_loaded(QueueId(1))), (0, 0, false));
    assert_eq!(picked(&mut bench, NOW), []);
}

#[test]
fn held_mail_is_looked_at_only_when_its_connector_was_gone() {
    let mut bench = Bench::default();
    let [gone, dropped] = [HeldFor::NoConnector, HeldFor::Drop].map(RecipientState::Held);
    bench.insert(entry(1, &[(BOB, "a", gone), (BOB, "a", dropped)]));
    assert_eq!(picked(&mut bench, NOW), []);
    assert_eq!(bench.queue.retry_all(|_| true, Due::RETRY), 0);
    bench.queue.look_at_held();
    assert_eq!(picked(&mut bench, NOW), [one("a", 1, &[0])]);
    let held: Vec<_> = bench.queue.shown().map(|lane| (lane.held, lane.waiting, lane.oldest)).collect();
    assert_eq!(held, [(1, 0, Some(QueueId(1)))]);
}

#[test]
fn a_dropped_message_is_dropped_as_its_recipients_come_free() {
    let mut bench = Bench::default();
    bench.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "b", due(900))]));
    let under_way = bench.pick(three, 1).remove(0);
    let dropping = bench.queue.begin_drop(QueueId(1)).unwrap();
    assert_eq!(dropping.recipients, [1]);
    bench.queue.dropped(&dropping);
    bench.queue.release(QueueId(1), under_way.turn.ticket, UnixTime(2));
    assert_eq!(picked(&mut bench, NOW), [], "it is not tried again");
    let rest = bench.queue.rest_of_dropped(QueueId(1)).unwrap();
    assert_eq!(rest.recipients, [0]);
    bench.queue.undo_drop(&rest, UnixTime(3));
    assert_eq!(picked(&mut bench, NOW), [one("a", 1, &[0])], "a drop that failed leaves it in the queue");
}

fn six_by_domain(_: &str) -> Rules {
    Rules { limit: 6, grouping: Grouping::ByDomain, reports_per_minute: Some(60) }
}

/// Message number and domain of each.
fn by_domain(begun: &[Begun]) -> Vec<(u64, String)> {
    let mut all: Vec<_> = begun.iter().map(|begun| (begun.turn.id.0, begun.domain())).collect();
    all.sort();
    all
}

#[test]
fn one_domain_does_not_take_every_place() {
    let mut bench = Bench::default();
    for id in 1..=20 {
        bench.insert(entry(id, &[("a@tarpit.example", "a", due(id))]));
    }
    bench.insert(entry(21, &[("a@fabrikam.example", "a", due(21)), ("b@tarpit.example", "a", due(21))]));
    let domain = |id, name: &str| (id, name.to_owned());
    let begun = bench.pick(six_by_domain, NOW);
    let its = |name: &str| begun.iter().filter(|begun| begun.domain() == name).count();
    assert!(its("fabrikam.example") == 1 && its("tarpit.example") <= 3, "{:?}", by_domain(&begun));
    // A slot is left for a third domain; what comes for the second waits for its own.
    bench.insert(entry(23, &[("c@contoso.com", "a", due(23))]));
    assert_eq!(by_domain(&bench.pick(six_by_domain, NOW)), [domain(23, "contoso.com")]);
}

#[test]
fn what_had_no_room_is_not_forgotten() {
    let mut bench = Bench::default();
    let to = ["a@one.example", "a@two.example", "b@one.example"].map(|to| (to, "a", due(1)));
    (1..=30).for_each(|id| bench.insert(entry(id, &to)));
    let mut under_way: Vec<Begun> = Vec::new();
    let mut branches = 0;
    loop {
        under_way.extend(bench.pick(six_by_domain, NOW));
        let Some(next) = under_way.pop() else { break };
        branches += 1;
        bench.delivers(next);
    }
    assert_eq!((branches, bench.left()), (60, 0), "two domains each");
}

#[test]
fn a_hundred_thousand_are_not_searched() {
    let mut bench = Bench::default();
    for id in 0..100_000 {
        bench.restore(entry(id, &[(BOB, "a", due(100_000 + id))]));
    }
    // With a search through all messages at each step this would take minutes.
    for id in 0..50_000 {
        let mut begun = bench.pick(three, 100_000 + id);
        assert_eq!(begun.len(), 1);
        let begun = begun.remove(0);
        assert_eq!(begun.what(), one("a", id, &[0]));
        bench.delivers(begun);
    }
    assert_eq!(bench.left(), 50_000);
}

#[test]
fn new_mail_is_in_memory_until_it_was_tried_and_a_flood_of_it_is_not() {
    let mut bench = Bench::default();
    for id in 0..3 * RECENT as u64 {
        bench.insert(entry(id, &[(BOB, "a", due(1))]));
    }
    assert_eq!(bench.queue.live.len(), RECENT);
    let mut tried = 0;
    loop {
        let begun = bench.pick(three, NOW);
        if begun.is_empty() {
            break;
        }
        tried += begun.len();
        begun.into_iter().for_each(|begun| bench.ends(begun, &due(NOW + 600)));
    }
    assert_eq!((tried, bench.queue.live.len()), (3 * RECENT, 0), "what waits stands in the spool alone");
    assert_eq!(bench.pick(three, NOW + 600).len(), 3);
}

/// A turn that waits for the disk sees the result of an attempt on another connector meanwhile.
#[test]
fn a_turn_sees_no_old_state() {
    let mut bench = Bench::default();
    bench.restore(entry(1, &[(BOB, "a", due(1)), (BOB, "b", due(1))]));
    let turns = bench.queue.pick(three, UnixTime(NOW));
    assert_eq!(turns.len(), 2);
    let old = entry(1, &[(BOB, "a", due(1)), (BOB, "b", due(1))]);
    bench.queue.load(old.clone());
    let picked = bench.queue.take(&turns[0], three(""), UnixTime(NOW)).unwrap();
    let at = picked.recipients[0].0;
    let over = Update { route: picked.entry.recipients[at].route.clone(), ..done(at) };
    bench.update(1, vec![over]);
    bench.queue.finished(&turns[0]);
    bench.queue.load(old); // read before
    let picked = bench.queue.take(&turns[1], three(""), UnixTime(NOW)).unwrap();
    assert!(matches!(picked.entry.recipients[at].state, RecipientState::Done(_)));
}

#[test]
fn a_retry_that_breaks_off_forgets_nothing() {
    let mut bench = Bench::default();
    bench.restore(entry(1, &[(BOB, "a", due(NOW + 900))]));
    assert_eq!(bench.queue.retry_all(|connector| connector == "b", Due::RETRY), 0);
    assert_eq!(bench.queue.retry_all(|connector| connector == "a", Due::RETRY), 1);
    let begun = bench.pick(three, NOW).remove(0);
    bench.queue.release(QueueId(1), begun.turn.ticket, UnixTime(NOW + 60));
    bench.queue.finished(&begun.turn);
    assert_eq!(picked(&mut bench, NOW + 60), [], "the spool knows no other time");
    assert_eq!(picked(&mut bench, NOW + 900), [one("a", 1, &[0])]);
}

#[test]
fn what_may_have_arrived_is_hastened_by_an_operator_alone() {
    let in_doubt = || {
        let waiting =
            Waiting { attempts: 1, next_attempt: UnixTime(NOW + 600), why: Why::InDoubt, ..Waiting::default() };
        entry(1, &[(BOB, "a", RecipientState::Waiting(waiting))])
    };
    for (what, hastens, goes) in [
        (
            "its next hop",
            (|queue| queue.heard(&route(BOB, "a"), Heard::Answer, three(""), UnixTime(NOW))) as fn(&mut Queue),
            0,
        ),
        ("its connector is gone", |queue| _ = queue.retry_all(|_| true, Due::GONE), 0),
        ("held mail", Queue::look_at_held, 0),
        ("an operator", |queue| _ = queue.retry_all(|_| true, Due::RETRY), 1),
    ] {
        let mut bench = Bench::default();
        bench.restore(in_doubt());
        hastens(&mut bench.queue);
        assert_eq!(bench.pick(three, NOW).len(), goes, "{what}");
        assert_eq!(bench.pick(three, NOW + 600).len(), 1 - goes, "{what}");
    }
}

/// How many are tried concurrently in each of these rounds, if all are answered or all fail.
fn rounds(bench: &mut Bench, heard: Heard, number: usize) -> Vec<usize> {
    let limit = |_: &str| Rules { limit: 8, ..three("") };
    let mut rounds = Vec::new();
    for _ in 0..number {
        let begun = bench.pick(limit, NOW);
        rounds.push(begun.len());
        for begun in begun {
            bench.queue.heard(&route(BOB, "a"), heard, limit(""), UnixTime(NOW));
            if heard == Heard::Answer { bench.delivers(begun) } else { bench.ends(begun, &out_of_reach(NOW + 900)) }
        }
    }
    rounds
}

#[test]
fn when_the_next_hop_is_back_what_waited_for_it_goes_gently() {
    for restored in [false, true] {
        let mut bench = Bench::default();
        for id in 0..100 {
            let entry = entry(id, &[(BOB, "a", out_of_reach(NOW + 600 + id))]);
            if restored { bench.restore(entry) } else { bench.insert(entry) }
        }
        bench.insert(entry(200, &[(BOB, "a", due(NOW + 700))])); // greylisted
        assert_eq!(rounds(&mut bench, Heard::Answer, 2), [0, 0]);
        bench.queue.heard(&route(BOB, "a"), Heard::Answer, three(""), UnixTime(NOW));
        assert_eq!(rounds(&mut bench, Heard::Answer, 5), [1, 2, 4, 8, 8]);
        assert_eq!(rounds(&mut bench, Heard::Answer, 12).iter().sum::<usize>(), 77);
        assert_eq!(bench.left(), 1, "what was told to come later comes later");
    }
}

#[test]
fn when_it_is_gone_again_the_rest_waits_for_its_time() {
    let mut bench = Bench::default();
    (0..100).for_each(|id| bench.restore(entry(id, &[(BOB, "a", out_of_reach(NOW + 600))])));
    bench.queue.heard(&route(BOB, "a"), Heard::Answer, three(""), UnixTime(NOW));
    assert_eq!(rounds(&mut bench, Heard::Answer, 2), [1, 2]);
    let in_vain = rounds(&mut bench, Heard::Nothing, 5);
    assert!(in_vain.iter().sum::<usize>() <= 8 && in_vain[4] == 0, "{in_vain:?}");
    // A short failure is no outage: nothing is hastened when it ends.
    bench.queue.heard(&route(BOB, "a"), Heard::Answer, three(""), UnixTime(NOW + 5));
    assert_eq!(rounds(&mut bench, Heard::Answer, 2), [0, 0]);
    bench.queue.heard(&route(BOB, "a"), Heard::Nothing, three(""), UnixTime(NOW + 6));
    bench.queue.heard(&route(BOB, "a"), Heard::Answer, three(""), UnixTime(NOW + 100));
    assert!(rounds(&mut bench, Heard::Answer, 40).iter().sum::<usize>() > 90);
    assert_eq!(bench.left(), 0);
}

/// With MX a session's answer concerns one domain: its mail is tried a few at a time, others are unaffected.
#[test]
fn a_domain_that_a_session_has_reached_is_back() {
    let by_mx = |_: &str| Rules { limit: 8, grouping: Grouping::ByDomain, reports_per_minute: Some(60) };
    let back = |domain: Option<&str>| Back {
        connector: "a".into(),
        domain: domain.map(|domain| crate::smtp::domain::Domain::parse(domain).unwrap()),
    };
    for restored in [false, true] {
        let mut bench = Bench::default();
        for id in 0..60 {
            let to = if id < 30 { BOB } else { "dave@fabrikam.com" };
            let entry = entry(id, &[(to, "a", out_of_reach(NOW + 600 + id))]);
            if restored { bench.restore(entry) } else { bench.insert(entry) }
        }
        bench.insert(entry(100, &[(BOB, "a", due(NOW + 600))])); // greylisted
        for nobody in [None, Some("elsewhere.com")] {
            bench.queue.hop_is_back(&back(nobody), by_mx(""), UnixTime(NOW));
            assert_eq!(bench.pick(by_mx, NOW).len(), 0, "{nobody:?}");
        }
        for id in 200..220 {
            bench.insert(entry(id, &[(&format!("u@d{id}.com"), "a", RecipientState::due(UnixTime(NOW)))]));
        }
        bench.queue.hop_is_back(&back(Some("contoso.com")), by_mx(""), UnixTime(NOW));
        let mut rounds = Vec::new();
        for _ in 0..20 {
            let begun = bench.pick(by_mx, NOW);
            rounds.push(begun.iter().filter(|begun| begun.domain() == "contoso.com").count());
            for begun in begun {
                let to = format!("u@{}", begun.domain());
                bench.queue.heard(&route(&to, "a"), Heard::Answer, by_mx(""), UnixTime(NOW));
                bench.delivers(begun);
            }
        }
        assert_eq!(rounds.iter().sum::<usize>(), 30);
        rounds.retain(|begun| *begun > 0);
        assert_eq!(rounds[..4], [1, 2, 4, 4], "gently, and never more than half of the places");
        assert_eq!(bench.left(), 31, "the other domain's, and what was told to come later");
    }
}

#[test]
fn one_senders_thousand_do_not_hold_up_another() {
    let mut bench = Bench::default();
    for id in 0..1000 {
        bench.restore(entry(id, &[(BOB, "a", due(10))]));
    }
    let from = |id, sender: &str| {
        let mut entry = entry(id, &[(BOB, "a", due(20))]);
        entry.sender.reverse_path =
            crate::smtp::address::ReversePath::Address(crate::smtp::address::Address::parse(sender).unwrap());
        entry
    };
    bench.restore(from(2000, "bob@example.net"));
    bench.restore(from(2001, "carol@example.net"));
    let mut first: Vec<_> = bench.pick(three, NOW).iter().map(|begun| begun.turn.id.0).collect();
    first.sort_unstable();
    assert_eq!(first, [0, 2000, 2001]);
}
