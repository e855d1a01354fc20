//! What the queue hands out, and when.

use super::*;
use crate::delivery::dispatch::sample::{entry, route};
use crate::spool::entry::{HeldFor, Outcome, Waiting};

const NOW: UnixTime = UnixTime(20_000);
const BOB: &str = "bob@contoso.com";

fn due(at: u64) -> State {
    State::Waiting(Waiting { attempts: 1, next_attempt: UnixTime(at), ..Waiting::default() })
}

fn three(_: &str) -> Rules {
    Rules { limit: 3, grouping: Grouping::Together, reports_per_minute: Some(60) }
}

/// What is picked at `now`: connector, message, positions.
fn picked(queue: &mut Queue, now: u64) -> Vec<(String, u64, Vec<usize>)> {
    let mut picked: Vec<_> = queue.pick(three, UnixTime(now)).into_iter().map(shown).collect();
    picked.sort();
    picked
}

fn shown(picked: Picked) -> (String, u64, Vec<usize>) {
    let positions = picked.recipients.iter().map(|(at, _)| *at).collect();
    (picked.connector.to_string(), picked.entry.id.0, positions)
}

fn done(recipient: usize) -> Update {
    let state = State::Done(Outcome::Dropped);
    Update { recipient, state, route: route(BOB, "a"), known: Known::default() }
}

fn one(connector: &str, id: u64, positions: &[usize]) -> (String, u64, Vec<usize>) {
    (connector.to_owned(), id, positions.to_vec())
}

#[test]
fn each_connector_gets_what_is_due_up_to_its_limit_oldest_first() {
    let mut queue = Queue::default();
    for id in 1..=5 {
        queue.insert(entry(id, &[(BOB, "a", due(100 - id)), (BOB, "b", due(500))]), None);
    }
    assert_eq!(queue.next_due(three), Some(UnixTime(95)));
    assert_eq!(picked(&mut queue, 94), []);
    assert_eq!(picked(&mut queue, 200), [one("a", 3, &[0]), one("a", 4, &[0]), one("a", 5, &[0])]);
    assert_eq!(picked(&mut queue, 200), [], "a has no place, b is not due");
    assert_eq!(queue.next_due(three), Some(UnixTime(500)), "a wakes us when it has a place");
    queue.finished("a", Rank::Mail, None);
    assert_eq!(picked(&mut queue, 200), [one("a", 2, &[0])]);
}

#[test]
fn what_is_under_way_is_not_picked_again_until_it_is_free() {
    let mut queue = Queue::default();
    queue.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "a", due(900))]), None);
    let first = queue.pick(three, UnixTime(1)).remove(0);
    assert_eq!(queue.retry(None, NOW), 1, "the other one");
    assert_eq!(picked(&mut queue, NOW.0), [one("a", 1, &[1])]);
    queue.release(QueueId(1), first.ticket, UnixTime(NOW.0 + 60));
    assert_eq!(picked(&mut queue, NOW.0), []);
    assert_eq!(picked(&mut queue, NOW.0 + 60), [one("a", 1, &[0])]);
}

#[test]
fn a_late_release_frees_nothing_of_anothers() {
    let mut queue = Queue::default();
    queue.insert(entry(1, &[(BOB, "a", due(1))]), None);
    let first = queue.pick(three, NOW).remove(0);
    let again = Update { recipient: 0, state: due(2), route: route(BOB, "b"), known: Known::default() };
    queue.update(QueueId(1), vec![again]);
    assert_eq!(picked(&mut queue, NOW.0), [one("b", 1, &[0])]);
    queue.release(QueueId(1), first.ticket, UnixTime(3));
    assert_eq!(picked(&mut queue, NOW.0), []);
}

#[test]
fn what_is_under_way_elsewhere_is_held_if_it_waits_and_is_free() {
    let mut queue = Queue::default();
    let over = State::Done(Outcome::Dropped);
    queue.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "a", due(1)), (BOB, "a", over), (BOB, "b", due(1))]), None);
    let held = queue.hold(QueueId(1), &[0, 2, 3, 7]);
    assert_eq!(held.recipients.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 3]);
    assert!(queue.hold(QueueId(1), &[0]).recipients.is_empty(), "somebody has it");
    assert!(queue.hold(QueueId(2), &[0]).recipients.is_empty());
    assert_eq!(picked(&mut queue, NOW.0), [one("a", 1, &[1])]);
    queue.release(QueueId(1), held.ticket, NOW);
    assert_eq!(picked(&mut queue, NOW.0), [one("a", 1, &[0]), one("b", 1, &[3])]);
}

#[test]
fn a_message_leaves_with_its_last_recipient() {
    let mut queue = Queue::default();
    queue.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "a", due(1))]), None);
    queue.update(QueueId(1), vec![done(0)]);
    assert_eq!(queue.all().len(), 1);
    assert_eq!(queue.shown().map(|lane| lane.waiting).sum::<usize>(), 1);
    queue.update(QueueId(1), vec![done(1)]);
    assert!(queue.all().is_empty());
    assert_eq!(queue.shown().map(|lane| lane.waiting).sum::<usize>(), 0);
    assert_eq!(picked(&mut queue, NOW.0), []);
}

#[test]
fn held_mail_is_looked_at_only_when_its_connector_was_gone() {
    let mut queue = Queue::default();
    let [gone, dropped] = [HeldFor::NoConnector, HeldFor::Drop].map(State::Held);
    queue.insert(entry(1, &[(BOB, "a", gone), (BOB, "a", dropped)]), None);
    assert_eq!(picked(&mut queue, NOW.0), []);
    assert_eq!(queue.retry(None, NOW), 0);
    queue.look_at_held(NOW);
    assert_eq!(picked(&mut queue, NOW.0), [one("a", 1, &[0])]);
    let held: Vec<_> = queue.shown().map(|lane| (lane.held, lane.waiting, lane.oldest)).collect();
    assert_eq!(held, [(1, 0, Some(UnixTime(10_000)))]);
}

#[test]
fn a_dropped_message_is_dropped_as_its_recipients_come_free() {
    let mut queue = Queue::default();
    queue.insert(entry(1, &[(BOB, "a", due(1)), (BOB, "b", due(900))]), None);
    let under_way = queue.pick(three, UnixTime(1)).remove(0);
    let dropping = queue.begin_drop(QueueId(1)).unwrap();
    assert_eq!(dropping.recipients, [1]);
    queue.dropped(&dropping);
    queue.release(QueueId(1), under_way.ticket, UnixTime(2));
    assert_eq!(picked(&mut queue, NOW.0), [], "it is not tried again");
    let rest = queue.rest_of_dropped(QueueId(1)).unwrap();
    assert_eq!(rest.recipients, [0]);
    queue.undo_drop(&rest, UnixTime(3));
    assert_eq!(picked(&mut queue, NOW.0), [one("a", 1, &[0])], "a drop that failed leaves it in the queue");
}

fn six_by_domain(_: &str) -> Rules {
    Rules { limit: 6, grouping: Grouping::ByDomain, reports_per_minute: Some(60) }
}

/// Picks; each with its message's number and its domain.
fn picked_by_domain(queue: &mut Queue) -> Vec<(u64, String)> {
    let domain = |picked: &Picked| picked.domain.as_ref().map(ToString::to_string).unwrap_or_default();
    queue.pick(six_by_domain, NOW).iter().map(|picked| (picked.entry.id.0, domain(picked))).collect()
}

#[test]
fn one_domain_does_not_take_every_place() {
    let mut queue = Queue::default();
    for id in 1..=20 {
        queue.insert(entry(id, &[("a@tarpit.example", "a", due(id))]), None);
    }
    queue.insert(entry(21, &[("a@fabrikam.example", "a", due(21)), ("b@tarpit.example", "a", due(21))]), None);
    let tarpit = |id| (id, "tarpit.example".to_owned());
    let fabrikam = |id| (id, "fabrikam.example".to_owned());
    assert_eq!(picked_by_domain(&mut queue), [tarpit(1), tarpit(2), tarpit(3), fabrikam(21)]);
    // One place and no more is left for a third domain; what comes for the second waits for its own.
    queue.insert(entry(22, &[("c@fabrikam.example", "a", due(22))]), None);
    queue.insert(entry(23, &[("c@contoso.com", "a", due(23))]), None);
    assert_eq!(picked_by_domain(&mut queue), [(23, "contoso.com".to_owned())]);
    assert_eq!(picked_by_domain(&mut queue), []);
    let over = |queue: &mut Queue, id, domain: &str| {
        queue.finished("a", Rank::Mail, Some(&Domain::parse(domain).unwrap()));
        queue.update(QueueId(id), vec![done(0)]);
    };
    over(&mut queue, 21, "fabrikam.example");
    assert_eq!(picked_by_domain(&mut queue), [fabrikam(22)]);
    over(&mut queue, 23, "contoso.com");
    over(&mut queue, 22, "fabrikam.example");
    over(&mut queue, 1, "tarpit.example");
    assert_eq!(picked_by_domain(&mut queue), [tarpit(4)], "the oldest first");
}

#[test]
fn what_was_parked_is_not_forgotten() {
    let mut queue = Queue::default();
    let to = ["a@one.example", "a@two.example", "b@one.example"].map(|to| (to, "a", due(1)));
    (1..=30).for_each(|id| queue.insert(entry(id, &to), None));
    let mut under_way: Vec<Picked> = Vec::new();
    let mut branches = 0;
    loop {
        under_way.extend(queue.pick(six_by_domain, NOW));
        let Some(next) = under_way.pop() else { break };
        branches += 1;
        queue.finished("a", Rank::Mail, next.domain.as_ref());
        let over = |(at, _): &(usize, Known)| Update { route: next.entry.recipients[*at].route.clone(), ..done(*at) };
        queue.update(next.entry.id, next.recipients.iter().map(over).collect());
    }
    assert_eq!(branches, 60, "two domains each");
    assert!(queue.all().is_empty());
}

#[test]
fn a_hundred_thousand_are_not_searched() {
    let mut queue = Queue::default();
    for id in 0..100_000 {
        queue.insert(entry(id, &[(BOB, "a", due(100_000 + id))]), None);
    }
    // A search through all at each step would take minutes.
    for id in 0..50_000 {
        assert_eq!(picked(&mut queue, 100_000 + id), [one("a", id, &[0])]);
        queue.finished("a", Rank::Mail, None);
        queue.update(QueueId(id), vec![done(0)]);
    }
    assert_eq!(queue.all().len(), 50_000);
}
