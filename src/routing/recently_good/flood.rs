//! Strangers who have mail accepted for any number of made-up recipients, and what they displace.

use std::net::IpAddr;

use super::shares::SHARE;
use super::*;
use crate::time::{Moment, UnixTime};

const DAY: u64 = 24 * 3600;
const T: u64 = 11_574 * DAY;

/// Format 3 does not use it.
fn moment() -> Moment {
    Moment { day: UnixTime(T + 2 * DAY), queue: QueueTime(T + 2 * DAY), up: Duration::ZERO }
}

fn at(seconds: u64) -> QueueTime {
    QueueTime(T + seconds)
}

fn address(kind: &str, number: usize) -> Address {
    Address::parse(&format!("{kind}{number}@contoso.com")).unwrap()
}

/// An address that the stranger of this number brought.
fn by(stranger: u32) -> Brought {
    Brought { stranger: Some(IpAddr::V4(stranger.into())), is_known: false }
}

fn count(good: &RecentlyGood, kind: &str, many: usize, now: QueueTime) -> usize {
    (0..many).filter(|number| good.is_good(&address(kind, *number), now)).count()
}

/// 500 strangers, each of which brought mail for one address.
fn with_honest() -> RecentlyGood {
    let mut good = RecentlyGood::new(*b"0123456789abcdef");
    (0..500).for_each(|number| good.accepted_from(&address("once", number), "x", by(number as u32), at(0)));
    good
}

#[test]
fn one_client_pushes_nobody_out_however_much_it_brings() {
    for (to_begin_with, days) in [(500, 2), (ENTRIES, 1)] {
        let mut good = with_honest();
        (500..to_begin_with).for_each(|number| good.accepted(&address("other", number), "x", at(1)));
        for round in 0..days {
            for number in 0..ENTRIES + 4000 {
                good.accepted_from(&address("made-up", number), "x", by(9999), at(60 + round * DAY));
            }
            assert_eq!(good.order.len(), ENTRIES);
            let lost = 500 - count(&good, "once", 500, at(100));
            assert!(to_begin_with == ENTRIES || lost == 0, "{lost} are lost");
            let surplus = good.order.len_of(Rank::Surplus);
            // In a full table it gets its share.
            assert!(to_begin_with == 500 || surplus <= SHARE as usize, "{surplus}");
        }
        // Others that come now replace the items beyond its share.
        let surplus = good.order.len_of(Rank::Surplus);
        (0..1000).for_each(|number| good.accepted_from(&address("new", number), "x", by(number as u32), at(DAY + 90)));
        assert_eq!(count(&good, "new", 1000, at(DAY + 100)), 1000);
        assert_eq!(good.order.len_of(Rank::Surplus), surplus.saturating_sub(1000));
        let read = RecentlyGood::from_bytes(&good.to_bytes(), moment()).unwrap();
        assert_eq!(read.order.len(), ENTRIES - good.order.len_of(Rank::Surplus), "beyond the share nothing is saved");
        assert_eq!(count(&read, "new", 1000, at(DAY + 100)), 1000);
    }
}

#[test]
fn any_number_of_clients_push_out_only_who_was_seen_once() {
    let mut good = with_honest();
    for number in 0..500 {
        good.accepted_from(&address("twice", number), "x", by(number as u32), at(0));
        good.accepted_from(&address("twice", number), "x", by(number as u32), at(DAY));
        let known = Brought { is_known: true, ..by(number as u32) };
        good.accepted_from(&address("known", number), "x", known, at(0));
    }
    for number in 0..2 * ENTRIES {
        good.accepted_from(&address("made-up", number), "x", by(10_000 + number as u32 / 100), at(DAY + 60));
    }
    let left = |good: &RecentlyGood| ["once", "twice", "known"].map(|kind| count(good, kind, 500, at(DAY + 60)));
    assert_eq!(left(&good), [0, 500, 500]);
    let mut read = RecentlyGood::from_bytes(&good.to_bytes(), moment()).unwrap();
    for number in 0..ENTRIES {
        read.accepted_from(&address("more", number), "x", by(50_000 + number as u32 / 100), at(DAY + 90));
    }
    assert_eq!(left(&read)[1], 500, "a restart changes nothing for them");
}

#[test]
fn who_is_good_no_more_goes_first_whatever_the_rank() {
    let mut good = RecentlyGood::new(*b"0123456789abcdef");
    for number in 0..ENTRIES {
        good.accepted(&address("old", number), "x", at(0));
        good.accepted(&address("old", number), "x", at(DAY));
    }
    assert_eq!(good.order.len_of(Rank::Proven), ENTRIES);
    good.accepted(&address("early", 0), "x", at(3 * DAY));
    assert_eq!(good.order.len_of(Rank::Proven), ENTRIES - 1, "newcomers have places of their own");
    (0..100_000).for_each(|number| good.accepted(&address("new", number), "x", at(9 * DAY)));
    assert_eq!(count(&good, "new", 100_000, at(9 * DAY)), 100_000);
    assert_eq!(good.order.len_of(Rank::Newcomer), 100_001);
}
