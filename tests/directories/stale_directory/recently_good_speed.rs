//! What a call of the table costs when it is full: at most 300 ns each.
//!
//! `cargo test --release --test directories stale_directory:: -- --ignored --nocapture`

use std::time::Instant;

use fingerpost::routing::doubt::{Doubt, KnownBy, Refused};
use fingerpost::routing::recently_good::RecentlyGood;
use fingerpost::smtp::address::Address;
use fingerpost::smtp::reply::USER_UNKNOWN;
use fingerpost::time::{Moment, QueueTime};

/// How many addresses the table holds.
const FULL: usize = 200_000;

#[test]
#[ignore = "a measurement, of a release build"]
fn a_call_costs_little_at_full_size() {
    let address = |n| Address::parse(&format!("user{n}@contoso.com")).unwrap();
    let everybody: Vec<Address> = (0..2 * FULL).map(address).collect();
    let mut good = RecentlyGood::new([7; 16]);
    let mut measure = |what: &str, who: &[Address], call: &mut dyn FnMut(&mut RecentlyGood, &Address)| {
        let mut at = 0;
        let mut thousand = || {
            let began = Instant::now();
            for _ in 0..1000 {
                at = (at + 7_919) % who.len(); // a prime: everybody, in no order
                call(&mut good, &who[at]);
            }
            began.elapsed().as_nanos() / 1000
        };
        let mut thousands: Vec<u128> = (0..who.len() / 1000).map(|_| thousand()).collect();
        thousands.sort_unstable();
        let each = thousands[thousands.len() / 2]; // whatever else the machine does
        println!("{what}: {each} ns");
        assert!(each <= 300, "{what}: {each} ns");
    };
    let (early, late) = (QueueTime(1_000_000_000), QueueTime(1_000_000_001));
    let [mut are_good, mut are_doubted] = [0, 0];
    let refused = Refused::ByUs { row: Some(9), reply: &USER_UNKNOWN };
    let half = &everybody[..FULL];
    measure("accepted, until it is full", half, &mut |good, who| good.accepted(who, "primary", early));
    measure("accepted, by those who are there", half, &mut |good, who| good.accepted(who, "primary", late));
    measure("is_good, of half of them", &everybody, &mut |good, who| are_good += usize::from(good.is_good(who, late)));
    measure("refused, half of them good", &everybody, &mut |good, who| {
        are_doubted += usize::from(good.doubt(who, KnownBy::Nobody, &refused, late) == Doubt::Temporary);
    });
    assert_eq!((are_good, are_doubted), (FULL, FULL));
    measure("accepted, each pushes one out", &everybody[FULL..], &mut |good, who| good.accepted(who, "primary", late));
    let began = Instant::now();
    let saved = good.to_bytes();
    println!("to_bytes: {:?} for {} bytes", began.elapsed(), saved.len());
    let began = Instant::now();
    RecentlyGood::from_bytes(&saved, Moment::now(late)).unwrap();
    println!("from_bytes: {:?}", began.elapsed());
}
