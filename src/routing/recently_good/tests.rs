//! Who is good for how long, what is doubted, and the file.

use super::*;

const KEY: [u8; 16] = *b"0123456789abcdef";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// When the tests begin.
const T: u64 = 1_000_000_000;

fn at(seconds: u64) -> UnixTime {
    UnixTime(T + seconds)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Bob had mail at the beginning.
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

/// What happens to Bob.
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
        assert_eq!(good.doubted(&bob, &refusal, at(1)), doubted, "{refusal}");
        assert_eq!(good.doubted(&bob, &refusal, at(HOUR)), doubted, "the hour begins with the first: {refusal}");
        assert_eq!(good.doubted(&bob, &refusal, at(1 + HOUR)), None, "{refusal}");
    }
}

#[test]
fn it_comes_back_as_it_was_saved() {
    let (mut good, bob) = bob();
    let (ann, carol) = (address("ann@contoso.com"), address("carol@contoso.com"));
    good.accepted(&ann, "primary", at(10));
    good.accepted(&carol, "secondary", at(5));
    good.refused(&ann, at(20));
    let saved = good.to_bytes();
    let mut read = RecentlyGood::from_bytes(&saved).unwrap();
    for who in [&ann, &bob, &carol] {
        assert_eq!(read.last_success(who, at(30)), good.last_success(who, at(30)));
    }
    assert_eq!(read.changes(), 0);
    assert_eq!(read.refused(&ann, at(20 + HOUR)), Doubt::Believe);
    assert_eq!(read.refused(&bob, at(20 + HOUR)), Doubt::Temporary);
    assert!(!RecentlyGood::new([0; 16]).to_bytes().is_empty());
    assert_eq!(saved.len(), 27 + 16 + 4 + (2 + 9) + (2 + 7) + 4 + 3 * 28 + 4);
}

#[test]
fn what_was_not_saved_by_it_is_told_apart() {
    let saved = bob().0.to_bytes();
    let (head, rest) = (&saved[..27], &saved[27..]);
    let changed = [head, &[0], &rest[1..]].concat();
    let cut = &saved[..saved.len() - 1];
    let mut longer = [&saved[..saved.len() - 4], b"more"].concat();
    longer.extend_from_slice(&crc32c::crc32c(&longer).to_le_bytes());
    let wrong: [(&[u8], Malformed); 6] = [
        (b"", Malformed::Kind),
        (b"{}", Malformed::Kind),
        (head, Malformed::Checksum),
        (&changed, Malformed::Checksum),
        (cut, Malformed::Checksum),
        (&longer, Malformed::Form),
    ];
    for (bytes, error) in wrong {
        assert_eq!(RecentlyGood::from_bytes(bytes).unwrap_err(), error, "{bytes:?}");
    }
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
    let mut read = RecentlyGood::from_bytes(&good.to_bytes()).unwrap();
    assert_eq!(known(&read), known(&good));
    read.accepted(&numbered(1), "secondary", at(3001));
    assert_eq!(known(&read), [true, true, false, false, true, true]);
}
