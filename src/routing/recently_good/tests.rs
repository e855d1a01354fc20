//! Which addresses are good for how long, what is doubted, and saving and reading.

use super::doubt::{Believed, Followed};
use super::*;
use crate::routing::verdict::Verdict;
use crate::smtp::reply::{self, Reply};
use crate::time::{Moment, UnixTime};

mod saved;
mod shared;

const KEY: [u8; 16] = *b"0123456789abcdef";
/// The result of a refusal, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    Temporary,
    Believe,
}

impl RecentlyGood {
    /// Refuses by our own decision, without a directory's answer; returns the reply that is given instead.
    fn refused_in_row(&mut self, row: u8, address: &Address, refusal: &Reply, now: QueueTime) -> Option<Reply> {
        let refused = Refused::ByUs { row: Some(row), reply: refusal };
        let doubt = self.doubt(address, KnownBy::Nobody, &refused, now);
        (doubt == doubt::Doubt::Temporary).then_some(reply::UNKNOWN_JUST_NOW)
    }

    fn refused(&mut self, address: &Address, now: QueueTime) -> Doubt {
        match self.refused_in_row(9, address, &reply::USER_UNKNOWN, now) {
            Some(_) => Doubt::Temporary,
            None => Doubt::Believe,
        }
    }
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// The tests' start time, seconds since 1970.
const T: u64 = 1_000_000_000;

fn at(seconds: u64) -> QueueTime {
    QueueTime(T + seconds)
}

/// The time at which a file is read.
fn moment(queue: QueueTime) -> Moment {
    Moment { day: UnixTime(queue.0), queue, up: Duration::ZERO }
}

/// Saved, and read at a time after all that the tests do.
fn saved_and_read(good: &RecentlyGood) -> RecentlyGood {
    RecentlyGood::from_bytes(&good.to_bytes(), moment(at(100 * DAY))).unwrap()
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A memory in which Bob had mail at the beginning.
fn bob() -> (RecentlyGood, Address) {
    let (mut good, bob) = (RecentlyGood::new(KEY), address("bob@contoso.com"));
    good.accepted(&bob, "secondary", at(0));
    (good, bob)
}

#[test]
fn an_address_is_good_for_a_week_whatever_its_case_and_its_connector() {
    let (mut good, bob) = bob();
    assert_eq!(good.last_success(&bob, at(0)), Some((&"secondary".into(), at(0))));
    for (text, now, is_good) in [
        ("bob@contoso.com", 0, true),
        ("\"BOB\"@Contoso.COM", 7 * DAY - 1, true),
        ("bob@contoso.com", 7 * DAY, false),
        ("rob@contoso.com", 0, false),
        ("bob@contoso.net", 0, false),
    ] {
        assert_eq!(good.is_good(&address(text), at(now)), is_good, "{text} after {now} s");
    }
    good.accepted(&bob, "primary", at(6 * DAY));
    assert_eq!(good.last_success(&bob, at(12 * DAY)), Some((&"primary".into(), at(6 * DAY))));
    assert!(!RecentlyGood::new(KEY).is_good(&bob, at(0)));
}

/// What happens to Bob's address.
#[derive(Debug)]
enum Step {
    Accepted,
    Refused(Doubt),
}

#[test]
fn a_good_address_is_doubted_for_an_hour_after_its_first_refusal() {
    use Doubt::{Believe, Temporary};
    use Step::{Accepted, Refused};
    let cases: [(&str, &[(u64, Step)]); 4] = [
        (
            "the hour begins with the first",
            &[(DAY, Refused(Temporary)), (DAY + HOUR - 1, Refused(Temporary)), (DAY + HOUR, Refused(Believe))],
        ),
        ("a success begins anew", &[(60, Refused(Temporary)), (HOUR, Accepted), (2 * HOUR, Refused(Temporary))]),
        ("not good any more", &[(7 * DAY, Refused(Believe))]),
        (
            "believed until the next success",
            &[
                (0, Refused(Temporary)),
                (HOUR, Refused(Believe)),
                (DAY, Refused(Believe)),
                (DAY, Accepted),
                (DAY, Refused(Temporary)),
            ],
        ),
    ];
    for (name, steps) in cases {
        let (mut good, bob) = bob();
        for (seconds, step) in steps {
            match step {
                Refused(doubt) => assert_eq!(good.refused(&bob, at(*seconds)), *doubt, "{name}: after {seconds} s"),
                Accepted => good.accepted(&bob, "primary", at(*seconds)),
            }
        }
    }
}

#[test]
fn what_is_believed_is_not_good_and_strangers_never_are() {
    let (mut good, bob) = bob();
    assert_eq!(good.refused(&address("nobody@contoso.com"), at(0)), Doubt::Believe);
    good.refused(&bob, at(0));
    assert!(good.is_good(&bob, at(HOUR)));
    good.refused(&bob, at(HOUR));
    assert!(!good.is_good(&bob, at(HOUR)));
}

#[test]
fn only_our_own_unknown_user_is_doubted() {
    for (refusal, doubted) in [
        (reply::USER_UNKNOWN, Some(reply::UNKNOWN_JUST_NOW)),
        (reply::ROUTING_LOOP, None),
        (reply::RELAYING_DENIED, None),
        (reply::DIRECTORY_UNAVAILABLE, None),
    ] {
        let (mut good, bob) = bob();
        assert_eq!(good.refused_in_row(9, &bob, &refusal, at(1)), doubted, "{refusal}");
        assert_eq!(
            good.refused_in_row(9, &bob, &refusal, at(HOUR)),
            doubted,
            "the hour begins with the first: {refusal}"
        );
        assert_eq!(good.refused_in_row(9, &bob, &refusal, at(1 + HOUR)), None, "{refusal}");
    }
}

#[test]
fn since_when_an_address_is_good_outlives_a_restart() {
    let (mut good, bob) = bob();
    good.accepted(&bob, "secondary", at(DAY));
    let mut read = saved_and_read(&good);
    assert_eq!(read.known(&bob, KnownBy::Nobody, at(DAY)).good_since, Some(at(0)));
    let sent_back = |good: &mut RecentlyGood| good.refused_in_row(10, &bob, &reply::USER_UNKNOWN, at(DAY + 1));
    assert_eq!(sent_back(&mut read), Some(reply::UNKNOWN_JUST_NOW), "he is no typing error");
    assert_eq!(sent_back(&mut good), Some(reply::UNKNOWN_JUST_NOW));
}

#[test]
fn whom_a_directory_has_is_doubted_for_an_hour_however_long_ago_the_mail() {
    let mut good = RecentlyGood::new(KEY);
    let (new, route) = (address("new@contoso.com"), route("primary", RouteKind::Resolved));
    let live = Verdict::Accept(route.clone());
    let refused = Refused::ByHop { route: &route, followed: Followed::NotYet, live: &live };
    let believed = doubt::Doubt::Believe(Believed::NextHop);
    for (seconds, by, expected) in [
        (0, KnownBy::Nobody, &believed), // a guess is not remembered
        (0, KnownBy::Directory, &doubt::Doubt::Temporary),
        (HOUR - 1, KnownBy::VerifyWith, &doubt::Doubt::Temporary),
        (HOUR, KnownBy::Directory, &believed),
        (7 * DAY, KnownBy::Directory, &believed),
        (14 * DAY, KnownBy::Directory, &doubt::Doubt::Temporary), // after 7 quiet days
    ] {
        let told = good.doubt(&new, by, &refused, at(seconds));
        assert_eq!(told, *expected, "after {seconds} s, by {by:?}");
        good = saved_and_read(&good);
    }
    good.accepted(&new, "primary", at(15 * DAY));
    assert_eq!(good.refused.len(), 0, "mail that is accepted clears it");
}

#[test]
fn what_was_refused_while_nobody_had_it_says_nothing_about_an_entry_made_since() {
    let (mut good, bob) = bob();
    good.refused(&bob, at(0));
    assert_eq!(good.refused(&bob, at(HOUR)), Doubt::Believe);
    let looped = Refused::ByUs { row: Some(8), reply: &reply::ROUTING_LOOP };
    assert_eq!(good.doubt(&bob, KnownBy::Directory, &looped, at(DAY)), doubt::Doubt::Temporary);
}

#[test]
fn all_tags_of_an_entry_are_one_and_the_plain_address_another() {
    let mut good = RecentlyGood::new(KEY);
    let first = |good: &RecentlyGood, who: &str, by| good.known(&address(who), by, at(2)).first_refused;
    let (plain, tags) = (KnownBy::Directory, KnownBy::DirectoryWithoutTag);
    let known = good.known(&address("Bob+1@contoso.com"), tags, at(1));
    for tag in 1..50 {
        let who = address(&format!("bob+{tag}@contoso.com"));
        good.note_doubt(&who, &known, &doubt::Doubt::Temporary, at(1));
    }
    assert_eq!(good.refused.len(), 1);
    for (who, by, expected) in [
        ("bob+new@Contoso.com", tags, Some(at(1))),
        ("BOB+a+b@contoso.com", tags, Some(at(1))),
        ("bob@contoso.com", plain, None),
        ("rob+1@contoso.com", tags, None),
        ("bob+1@contoso.net", tags, None),
    ] {
        assert_eq!(first(&good, who, by), expected, "{who}");
    }
    good.accepted(&address("bob@contoso.com"), "x", at(2));
    assert_eq!(first(&good, "bob+1@contoso.com", tags), Some(at(1)), "the plain address says nothing about tags");
    good.accepted(&address("bob+other@contoso.com"), "x", at(2));
    assert_eq!(first(&good, "bob+1@contoso.com", tags), None);
}

#[test]
fn only_what_is_about_who_exists_and_vouched_for_is_noted() {
    let other = route("secondary", RouteKind::Relayed);
    let noted = |doubt: &doubt::Doubt, by| {
        let (mut good, bob) = bob();
        let known = good.known(&bob, by, at(1));
        let known = Known { good_since: None, ..known };
        good.note_doubt(&bob, &known, doubt, at(1));
        (good.refused.len(), good.is_good(&bob, at(1)))
    };
    for (doubt, by, expected) in [
        (doubt::Doubt::Temporary, KnownBy::Directory, (1, true)),
        (doubt::Doubt::Believe(Believed::NextHop), KnownBy::Directory, (1, false)),
        (doubt::Doubt::Believe(Believed::NextHop), KnownBy::Nobody, (0, true)),
        (doubt::Doubt::Follow(other), KnownBy::Directory, (0, true)),
        (doubt::Doubt::Defer(reply::TRY_AGAIN), KnownBy::Directory, (0, true)),
        (doubt::Doubt::Stands, KnownBy::Directory, (0, true)),
    ] {
        assert_eq!(noted(&doubt, by), expected, "{doubt:?} {by:?}");
    }
}

fn route(connector: &str, way: RouteKind) -> Route {
    let rcpt_to = address("bob@contoso.com");
    Route { connector: connector.into(), next_hop_domain: rcpt_to.domain().clone(), rcpt_to, way }
}

#[test]
fn unresolved_addresses_refused_at_the_dot_are_refused_at_rcpt_for_ten_minutes() {
    let guess = address("guess@contoso.com");
    let minutes = |minutes: u64| at(60 * minutes);
    for way in [
        RouteKind::Relayed,
        RouteKind::External,
        RouteKind::Resolved,
        RouteKind::RelayedVerified,
        RouteKind::Redirected,
    ] {
        let unresolved = matches!(way, RouteKind::Relayed | RouteKind::External);
        let mut good = RecentlyGood::new(KEY);
        good.refused_at_dot(&guess, &route("secondary", way), at(0));
        for (who, connector, now, expected) in [
            ("guess@contoso.com", "secondary", minutes(0), unresolved),
            ("GUESS@contoso.com", "secondary", QueueTime(minutes(10).0 - 1), unresolved),
            ("guess@contoso.com", "secondary", minutes(10), false),
            ("guess@contoso.com", "primary", minutes(0), false),
            ("guess2@contoso.com", "secondary", minutes(0), false),
        ] {
            let told = good.is_refused_at_dot(&address(who), &route(connector, way), now);
            assert_eq!(told, expected, "{way:?}: {who} by {connector} at {now:?}");
        }
        // A recipient that a directory has by now is not affected, nor one for which mail has been accepted since.
        assert!(!good.is_refused_at_dot(&guess, &route("secondary", RouteKind::Resolved), at(1)));
        good.accepted(&guess, "secondary", at(1));
        assert!(!good.is_refused_at_dot(&guess, &route("secondary", way), at(1)), "{way:?}");
        assert_eq!(good.refused_at_dot.len(), 0);
    }
}

#[test]
fn refused_addresses_are_bounded_and_the_oldest_go() {
    let mut good = RecentlyGood::new(KEY);
    let known = good.known(&numbered(0), KnownBy::Directory, at(0));
    let relayed = route("secondary", RouteKind::Relayed);
    for n in 0..=REFUSED {
        good.note_doubt(&numbered(n), &known, &doubt::Doubt::Temporary, at(n as u64 / 100));
    }
    for n in 0..=REFUSED_AT_DOT {
        good.refused_at_dot(&numbered(n), &relayed, at(0));
    }
    let first = |good: &RecentlyGood, n| good.known(&numbered(n), KnownBy::Directory, at(1000)).first_refused.is_some();
    let read = saved_and_read(&good);
    for good in [&good, &read] {
        assert_eq!(good.refused.len(), REFUSED);
        assert_eq!([0, 1, REFUSED].map(|n| first(good, n)), [false, true, true]);
    }
    assert_eq!(good.refused_at_dot.len(), REFUSED_AT_DOT);
    let at_dot = [0, 1, REFUSED_AT_DOT].map(|n| good.is_refused_at_dot(&numbered(n), &relayed, at(0)));
    assert_eq!(at_dot, [false, true, true]);
}

fn numbered(n: usize) -> Address {
    address(&format!("user{n}@contoso.com"))
}

#[test]
fn it_is_bounded_and_the_oldest_go() {
    let mut good = RecentlyGood::new(KEY);
    for n in 0..ENTRIES {
        good.accepted(&numbered(n), "secondary", at(n as u64 / 100));
    }
    good.accepted(&numbered(0), "secondary", at(3000));
    good.refused(&numbered(1), at(3000)); // being refused does not keep an address
    for n in [ENTRIES, ENTRIES + 1] {
        good.accepted(&numbered(n), "secondary", at(3000));
    }
    let known = |good: &RecentlyGood| [0, 1, 2, 3, ENTRIES, ENTRIES + 1].map(|n| good.is_good(&numbered(n), at(3000)));
    assert_eq!((good.order.len(), good.known.len()), (ENTRIES, ENTRIES));
    assert_eq!(known(&good), [true, false, false, true, true, true]);
    let mut read = saved_and_read(&good);
    assert_eq!(known(&read), known(&good));
    read.accepted(&numbered(1), "secondary", at(3001));
    assert_eq!(known(&read), [true, true, false, false, true, true]);
}
