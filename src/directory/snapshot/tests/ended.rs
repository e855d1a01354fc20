//! Restarts after changes were held.

use super::*;
use crate::directory::expected::Announced;
use crate::smtp::address::Address;

fn moved(number: usize) -> Change {
    let mut known = known(number);
    let meaning = known.meaning.as_mut().unwrap();
    (meaning.kind, meaning.target) = (Kind::MailUser, Some(Address::parse("all@fabrikam.com").unwrap()));
    Change::Put(known)
}

/// The first users whose mail goes elsewhere.
fn elsewhere(snapshot: &Snapshot) -> Vec<usize> {
    let is_moved = |number: &usize| match snapshot.answer(&key(*number), UnixTime::now()) {
        Some(Lookup::Found(recipient)) => recipient.target.is_some(),
        other => panic!("{number}: {other:?}"),
    };
    (0..5).filter(is_moved).collect()
}

/// Three have changed, which the file has; the fourth and fifth exceed the limit.
fn holding(folder: &Path) -> Snapshot {
    let snapshot = following(folder);
    for number in 0..3 {
        assert_eq!(snapshot.changed(vec![moved(number)], at(2)), Outcome::Taken(1));
    }
    assert_eq!(snapshot.changed(vec![moved(3), moved(4)], at(3)), Outcome::Held(5));
    snapshot
}

#[test]
fn the_file_has_what_was_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = holding(folder.path());
    assert_eq!(snapshot.changed((0..5).map(|n| Change::Put(known(n))).collect(), at(4)), Outcome::Taken(0));
    drop(snapshot);
    let again = open(folder.path(), &config(&["OU=Staff"]));
    assert_eq!((elsewhere(&again), again.report().held), (vec![], 0));
    assert_ne!(again.position(), at(4), "what else came while it was held comes again");
}

#[test]
fn the_file_has_what_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = holding(folder.path());
    snapshot.changed((0..2).map(|n| Change::Put(known(n))).collect(), at(4));
    snapshot.accept(&Accept::Yes);
    assert_eq!(elsewhere(&snapshot), [2, 3, 4]);
    drop(snapshot);
    let again = open(folder.path(), &config(&["OU=Staff"]));
    assert_eq!((elsewhere(&again), again.report().held), (vec![2], 0), "the last two come again");
}

#[test]
fn more_than_can_be_kept_is_not_announced() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = following(folder.path());
    let keys = |range: std::ops::Range<usize>| range.map(|n| format!("somebody{n:07}@mail.contoso.com")).collect();
    let hour = Duration::from_hours(1);
    snapshot.announce(Announced::Only(keys(0..90_000)), hour).unwrap();
    let error = snapshot.announce(Announced::Only(keys(80_000..200_000)), hour).unwrap_err();
    assert!(error.starts_with("200000 addresses would be announced") && error.contains("can be kept"), "{error}");
    let count = |snapshot: &Snapshot| snapshot.served().unwrap().expected().keys().count();
    assert_eq!(count(&snapshot), 90_000);
    snapshot.announce(Announced::Only(keys(90_000..90_001)), hour).unwrap();
    drop(snapshot);
    assert_eq!(count(&open(folder.path(), &config(&["OU=Staff"]))), 90_001);
}

/// An operator who deletes a recipient's addresses from the list does not accept its change, so none of its legacy
/// names is left in the list.
#[test]
fn names_of_whoever_is_listed_by_an_address_take_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = open(folder.path(), &config(&["OU=Staff"]));
    let name = |number: usize| format!("/o=contoso/cn=u{number}");
    let named = |number: usize| {
        let mut known = known(number);
        known.claims.push(Claim { key: name(number), strength: Strength::Certain });
        known
    };
    let read = |users: Vec<Known>| {
        let mut writer = snapshot.begin().unwrap();
        snapshot.put(&mut writer, users).unwrap();
        snapshot.read(writer, at(1), None).unwrap()
    };
    read((0..40).map(named).collect());
    // The name stays without its address: it is listed alone.
    let left = (10..39).map(named).chain([known(39)]);
    assert_eq!(read(left.collect()), Outcome::Held(11));
    let mut list: Vec<String> = snapshot.held_list().addresses.into_iter().map(|held| held.address).collect();
    list.retain(|address| (0..5).all(|number| *address != key(number)));
    assert_eq!(snapshot.accept(&Accept::Only(list.clone())), 6);
    let served = snapshot.served().unwrap();
    let is_there = |key: &str| matches!(served.lookup(key), Lookup::Found(_));
    assert!((0..5).all(|number| is_there(&key(number)) && is_there(&name(number))));
    assert!((5..10).all(|number| !is_there(&key(number)) && !is_there(&name(number))));
    assert_eq!((is_there(&key(39)), is_there(&name(39)), served.held()), (true, false, 5));
    assert_eq!(list, [key(5), key(6), key(7), key(8), key(9), name(39)]);
}
