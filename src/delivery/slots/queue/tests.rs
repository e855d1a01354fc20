//! Tables for each rule. `model` tests random sequences.

use super::super::applicant::Client;
use super::*;

/// Each letter is a client: from O on one of ours, before that a stranger. Lower case: without evidence for a
/// recipient.
pub(super) fn applicant(letter: char) -> Applicant {
    let name = letter.to_ascii_lowercase();
    Applicant {
        client: Client::at(std::net::Ipv4Addr::from_bits(u32::from(name)).into()),
        class: if name >= 'o' { Class::Ours } else { Class::Stranger },
        vouched: if letter.is_lowercase() { Vouched::No } else { Vouched::Yes },
    }
}

pub(super) const fn kept(vouched: Vouched) -> Held {
    Held { vouched, stays: Stays::Kept }
}

/// Takes a slot, or waits.
pub(super) fn come(queue: &mut Queue<char>, letter: char) -> Option<Ticket> {
    if queue.take(applicant(letter)) { None } else { Some(queue.wait(applicant(letter), letter)) }
}

/// All come at once; then each held slot is freed in the order in which it was given, until none waits. Returns who got
/// a slot, in order; `|` is where the first one ends.
fn order(limit: usize, comers: &str) -> String {
    let mut queue = Queue::new(limit);
    let mut given: String = comers.chars().filter(|letter| come(&mut queue, *letter).is_none()).collect();
    given.push('|');
    let mut at = 0;
    while let Some(ends) = given.chars().filter(|letter| *letter != '|').nth(at) {
        queue.free(kept(applicant(ends).vouched));
        while let Some((letter, vouched)) = queue.next() {
            assert_eq!(vouched, applicant(letter).vouched);
            given.push(letter);
        }
        at += 1;
    }
    assert_eq!((queue.held(), queue.is_empty()), (0, true), "{limit} {comers}");
    given
}

#[test]
fn slots_go_round() {
    for (limit, comers, expected) in [
        // Free slots are given to anyone.
        (4, "AAAA", "AAAA|"),
        (4, "AAAAA", "AAAA|A"),
        // By client.
        (1, "AAAAAB", "A|ABAAA"),
        (2, "AAAAABBC", "AA|ABCABA"),
        (1, "OOOOP", "O|OPOO"),
        // Alternately to both classes, whatever the number of clients.
        (1, "AOBPCQD", "A|OBPCQD"),
        (2, "AAABCDEO", "AA|OABCDE"),
        (1, "OAAAAOOO", "O|AOAOAOA"),
        (3, "AAABCDOOOOO", "AAA|OBOCODOO"),
        // At most half without evidence, whatever waits.
        (4, "aaaa", "aa|aa"),
        (5, "aaaa", "aaa|a"),
        (4, "abcdEF", "abEF|cd"),
        (4, "abcdEFGH", "abEF|cdGH"),
        (4, "oopq", "oo|pq"),
        // With one slot, half of the turns.
        (1, "aaa", "a|aa"),
        (1, "abcdE", "a|Ebcd"),
        (1, "abcdEE", "a|EbEcd"),
        (1, "AbcdEE", "A|bEcEd"),
        (1, "abcoooE", "a|oEoboc"),
    ] {
        assert_eq!(order(limit, comers), expected, "{limit} {comers}");
    }
}

#[test]
fn who_leaves_leaves_nothing() {
    let mut queue = Queue::new(1);
    assert!(come(&mut queue, 'A').is_none());
    let tickets: Vec<Ticket> = "bBoO".chars().map(|letter| come(&mut queue, letter).unwrap()).collect();
    assert!(queue.is_wanted(Vouched::Yes));
    for ticket in tickets {
        queue.leave(ticket);
        queue.leave(ticket);
    }
    assert!(queue.is_empty() && !queue.is_wanted(Vouched::Yes));
    queue.free(kept(Vouched::Yes));
    assert_eq!(queue.next(), None);
    assert!(queue.take(applicant('a')));
}

#[test]
fn a_new_limit_holds_at_once_for_whoever_comes() {
    // From, arrivals, to: who gets a slot by the change, and how many must end before the next one does.
    for (from, comers, to, given, ends) in [
        (2, "ABCDE", 4, "CD", 1),
        (4, "ABCDE", 2, "", 3),
        (4, "ABCDE", 1, "", 4),
        (2, "abcd", 4, "b", 1),
        (2, "abcd", 8, "bcd", 0),
        (1, "ABCDE", 100, "BCDE", 0),
    ] {
        let mut queue = Queue::new(from);
        for letter in comers.chars() {
            come(&mut queue, letter);
        }
        assert_eq!(queue.configure(to), from != to);
        assert!(!queue.configure(to));
        let by_change: String = std::iter::from_fn(|| queue.next()).map(|(letter, _)| letter).collect();
        assert_eq!(by_change, given, "{from} {comers} {to}");
        let mut ended = 0;
        while !queue.is_empty() {
            queue.free(kept(applicant(comers.chars().next().unwrap()).vouched));
            ended += 1;
            if queue.next().is_some() {
                break;
            }
        }
        assert_eq!(ended, ends, "{from} {comers} {to}");
    }
}

#[test]
fn vouching_makes_room_for_another_one() {
    let mut queue = Queue::new(4);
    for letter in "abcd".chars() {
        come(&mut queue, letter);
    }
    assert_eq!(queue.next(), None);
    queue.vouch(Stays::Kept);
    assert_eq!(queue.next(), Some(('c', Vouched::No)));
    queue.returns(Vouched::No);
    queue.vouch(Stays::Returning);
    assert_eq!(queue.next(), Some(('d', Vouched::No)));
    queue.free(Held { vouched: Vouched::Yes, stays: Stays::Returning });
    queue.free(kept(Vouched::Yes));
    queue.free(kept(Vouched::No));
    queue.free(kept(Vouched::No));
    assert_eq!((queue.held(), queue.returning.total()), (0, 0));
}

#[test]
fn slots_are_wanted_that_help_and_no_more_than_that() {
    // Limit, arrivals; how many slots without and with evidence are wanted, asked in this order.
    for (limit, comers, unvouched, vouched) in [
        (2, "AB", 0, 0),
        (2, "ABC", 1, 0),
        (2, "ABCD", 2, 0),
        (4, "ABCDE", 1, 0),
        // The share is full: only slots in it help.
        (4, "abc", 1, 0),
        (4, "abcde", 3, 0),
        (4, "abABc", 1, 0),
        // It is not.
        (4, "aABCb", 1, 0),
        (1, "ab", 1, 0),
        (1, "aB", 1, 0),
    ] {
        let mut queue = Queue::new(limit);
        for letter in comers.chars() {
            come(&mut queue, letter);
        }
        for (kind, wanted) in [(Vouched::No, unvouched), (Vouched::Yes, vouched)] {
            for _ in 0..wanted {
                assert!(queue.is_wanted(kind), "{limit} {comers} {kind:?}");
                queue.returns(kind);
            }
            assert!(!queue.is_wanted(kind), "{limit} {comers} {kind:?}");
        }
        if unvouched > 0 {
            queue.stays(Vouched::No);
            assert!(queue.is_wanted(Vouched::No), "{limit} {comers}: it is not given back after all");
        }
    }
}

#[test]
fn vouched_slots_are_wanted_too_where_they_help() {
    for (limit, comers, wanted) in [
        (4, "ABCDe", 1),
        (4, "ABCDeFG", 3),
        (4, "aABCbcd", 1),
        (4, "abABcd", 0),
        (4, "abABcdE", 1),
        (4, "abcd", 0),
        (1, "Aa", 1),
    ] {
        let mut queue = Queue::new(limit);
        for letter in comers.chars() {
            come(&mut queue, letter);
        }
        for _ in 0..wanted {
            assert!(queue.is_wanted(Vouched::Yes), "{limit} {comers}");
            queue.returns(Vouched::Yes);
        }
        assert!(!queue.is_wanted(Vouched::Yes), "{limit} {comers}");
    }
}

#[test]
fn a_host_that_refuses_one_is_given_fewer_for_a_while() {
    let start = Instant::now();
    let mut queue = Queue::new(20);
    for letter in "ABCDEFGH".chars() {
        come(&mut queue, letter);
    }
    // It accepts five: three are refused, each frees its slot.
    for (others, refused) in [(7, Refused::First), (6, Refused::Again), (5, Refused::Again)] {
        queue.free(kept(Vouched::Yes));
        assert_eq!((queue.held(), queue.refused(others, start)), (others, refused));
    }
    assert_eq!(queue.limit(), 5);
    assert!(!queue.take(applicant('I')));
    come(&mut queue, 'I');
    queue.configure(30);
    assert_eq!((queue.limit(), queue.next()), (5, None), "it is the host that limits");
    let mut due = queue.rises().unwrap();
    assert!(due > start);
    queue.rise(start);
    assert_eq!(queue.limit(), 5);
    queue.rise(due);
    assert_eq!((queue.limit(), queue.next()), (6, Some(('I', Vouched::Yes))));
    queue.configure(3);
    assert_eq!(queue.limit(), 3, "nor does a host have more than the connector");
    queue.configure(8);
    for expected in [7, 8] {
        due = queue.rises().unwrap();
        let next = queue.rise(due);
        assert_eq!((queue.limit(), next.is_some()), (expected, expected < 8));
    }
    queue.configure(20);
    assert_eq!(queue.limit(), 20, "it is forgotten");
}
