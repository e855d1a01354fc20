//! Reading files of every version.

use super::*;

#[test]
fn it_comes_back_as_it_was_saved() {
    let (mut good, bob) = bob();
    let (ann, carol) = (address("ann@contoso.com"), address("carol@contoso.com"));
    good.accepted(&ann, "primary", at(10));
    good.accepted(&carol, "secondary", at(5));
    good.refused(&ann, at(20));
    let saved = good.to_bytes();
    let mut read = saved_and_read(&good);
    for who in [&ann, &bob, &carol] {
        assert_eq!(read.last_success(who, at(30)), good.last_success(who, at(30)));
    }
    assert_eq!(read.changes(), 0);
    assert_eq!(read.refused(&ann, at(20 + HOUR)), Doubt::Believe);
    assert_eq!(read.refused(&bob, at(20 + HOUR)), Doubt::Temporary);
    assert!(!RecentlyGood::new([0; 16]).to_bytes().is_empty());
    assert_eq!(saved.len(), 27 + 16 + 4 + (2 + 9) + (2 + 7) + 4 + 3 * 28 + 4 + 24 + 4);
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
        assert_eq!(RecentlyGood::from_bytes(bytes, moment(at(0))).unwrap_err(), error, "{bytes:?}");
    }
}

/// Written by version 1: Bob had mail at the beginning, Ann 10 s later; 10 s after that she was refused.
const VERSION_1: &str = "66696e676572706f737420726563656e746c7920676f6f6420310a\
    303132333435363738396162636465660200000009007365636f6e6461727907007072696d6172790200000011fac19e6b03d5e500000000\
    00ca9a3b000000000000000000000000c074c68726ea0124010000000aca9a3b0000000014ca9a3b00000000b964d920";
/// The same by version 2.
const VERSION_2: &str = "66696e676572706f737420726563656e746c7920676f6f6420320a303132333435363738396162636465660200000009007365636f6e64\
    61727907007072696d6172790200000011fac19e6b03d5e50000000000ca9a3b0000000000ca9a3b00000000c074c68726ea0124010000\
    000aca9a3b000000000aca9a3b0000000001000000c074c68726ea012414ca9a3b0000000014ca9a3b0000000008099245";
/// The same by version 3, in the queue's time.
const VERSION_3: &str = "66696e676572706f737420726563656e746c7920676f6f6420330a303132333435363738396162636465660200000009007365636f6e64\
    61727907007072696d6172790200000011fac19e6b03d5e50000000000ca9a3b0000000000ca9a3b00000000c074c68726ea0124010000\
    000aca9a3b000000000aca9a3b0000000001000000c074c68726ea012414ca9a3b0000000014ca9a3b000000006cd06a89";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn files_of_every_version_are_read() {
    let (ann, bob) = (address("ann@contoso.com"), address("bob@contoso.com"));
    // The first two versions had wall-clock times: 20 s ago then is 20 s ago in the queue's time.
    let day = UnixTime(T + 20);
    for (version, hex, later) in [(1, VERSION_1, 4980), (2, VERSION_2, 4980), (3, VERSION_3, 0)] {
        let at = |seconds| at(seconds + later);
        let mut read = RecentlyGood::from_bytes(&bytes(hex), Moment { day, ..moment(at(20)) }).unwrap();
        assert_eq!(read.last_success(&ann, at(20)), Some((&"primary".into(), at(10))), "version {version}");
        assert_eq!(read.last_success(&bob, at(20)), Some((&"secondary".into(), at(0))), "version {version}");
        let known = |read: &RecentlyGood, who| read.known(who, KnownBy::Nobody, at(30));
        assert_eq!(known(&read, &ann).first_refused, Some(at(20)), "version {version}");
        assert_eq!(known(&read, &bob).first_refused, None, "version {version}");
        assert_eq!(read.refused(&ann, at(20 + HOUR)), Doubt::Believe, "version {version}");
        assert_eq!(read.refused(&bob, at(20 + HOUR)), Doubt::Temporary, "version {version}");
    }
    let mut good = bob_and_ann();
    good.refused(&ann, at(20));
    assert_eq!(good.to_bytes(), bytes(VERSION_3), "{:02x?}", good.to_bytes());
}

#[test]
fn three_days_without_power_neither_end_an_hour_nor_make_anybody_old() {
    let mut good = bob_and_ann();
    let ann = address("ann@contoso.com");
    good.refused(&ann, at(20));
    // The wall clock is three days ahead, or a year behind: the queue's time is unaffected.
    for day in [UnixTime(T + 20 + 3 * DAY), UnixTime(T - 365 * DAY)] {
        let mut read = RecentlyGood::from_bytes(&good.to_bytes(), Moment { day, ..moment(at(21)) }).unwrap();
        assert_eq!(read.refused(&ann, at(19 + HOUR)), Doubt::Temporary, "{day}");
        assert_eq!(read.refused(&ann, at(20 + HOUR)), Doubt::Believe, "{day}");
        assert!(read.is_good(&address("bob@contoso.com"), at(7 * DAY - 1)), "{day}");
    }
    // A new spool begins with a new queue time: no time is in the future.
    let mut read = RecentlyGood::from_bytes(&good.to_bytes(), moment(at(5))).unwrap();
    assert_eq!(read.refused(&ann, at(5 + HOUR)), Doubt::Believe);
    assert!(!read.is_good(&address("bob@contoso.com"), at(7 * DAY + 5)));
}

fn bob_and_ann() -> RecentlyGood {
    let (mut good, _) = bob();
    good.accepted(&address("ann@contoso.com"), "primary", at(10));
    good
}
