//! Entries whose addresses may not be read any more, and more of them than changes are kept: their addresses do not
//! become unknown.

use super::*;
use crate::directory::odd;

const MANY: usize = 12_000;

fn alias(number: usize) -> String {
    format!("alias{number}@contoso.com")
}

fn entry(number: usize) -> Known {
    let mut known = known(number);
    known.claims.push(Claim { key: alias(number), strength: Strength::Certain });
    known
}

/// It is found by the address in `mail`.
fn unread(number: usize) -> Known {
    let claims = vec![Claim { key: key(number), strength: Strength::Fallback }];
    Known { claims, meaning: Err(odd::lacks("of type UserMailbox", "proxyAddresses")), ..known(number) }
}

/// As `ldap` reads, page by page.
fn read_pages(snapshot: &Snapshot, entries: Vec<Known>) -> Outcome {
    let mut writer = snapshot.begin().unwrap();
    for page in entries.chunks(1_000) {
        snapshot.put(&mut writer, page.to_vec()).unwrap();
    }
    snapshot.read(writer, at(1), None).unwrap()
}

fn are_no_answers(snapshot: &Snapshot) {
    let served = snapshot.served().unwrap();
    for number in 0..MANY {
        for key in [key(number), alias(number)] {
            assert!(matches!(served.lookup(&key), Lookup::Unavailable(_)), "{key}");
            assert!(served.latest().lacks(&key), "{key}");
        }
    }
}

#[test]
fn addresses_of_many_that_may_not_be_read_any_more_are_not_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let unlimited = HoldChanges { share_millionths: 1_000_000, ..config(&[]).hold_changes };
    let config = LdapConfig { hold_changes: unlimited, ..config(&["OU=Staff"]) };
    let snapshot = open(folder.path(), &config);
    read_pages(&snapshot, (0..MANY).map(entry).collect());
    for _ in 0..2 {
        read_pages(&snapshot, (0..MANY).map(unread).collect());
        are_no_answers(&snapshot);
        assert!(!snapshot.wants_whole_read(), "it would bring the same");
    }
    // The file has it, and so has a snapshot that continues from it.
    let snapshot = open(folder.path(), &config);
    are_no_answers(&snapshot);
    read_pages(&snapshot, (0..MANY).map(unread).collect());
    are_no_answers(&snapshot);
    // When the right to read is restored, the entries' content counts.
    read_pages(&snapshot, (0..MANY).map(known).collect());
    assert_eq!(snapshot.served().unwrap().lookup(&alias(7)), Lookup::NotFound);
    assert!(matches!(snapshot.served().unwrap().lookup(&key(7)), Lookup::Found(_)));
}

/// Held changes include them as well: accepting leads to no answers instead of wrong ones.
#[test]
fn who_accepts_that_many_may_not_be_read_makes_nobody_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = open(folder.path(), &config(&["OU=Staff"]));
    read_pages(&snapshot, (0..MANY).map(entry).collect());
    assert_eq!(read_pages(&snapshot, (0..MANY).map(unread).collect()), Outcome::Held(MANY));
    let served = snapshot.served().unwrap();
    assert!((0..MANY).all(|number| matches!(served.lookup(&alias(number)), Lookup::Found(_))));
    assert!((0..MANY).all(|number| served.latest().lacks(&alias(number))));
    snapshot.accept(&Accept::Yes);
    are_no_answers(&snapshot);
}

/// By an address that may not be read, the directory finds no entry, or another one that has it as well.
#[test]
fn nobody_is_unknown_for_what_the_directory_does_not_find_by_it_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let unlimited = HoldChanges { share_millionths: 1_000_000, ..config(&[]).hold_changes };
    let snapshot = open(folder.path(), &LdapConfig { hold_changes: unlimited, ..config(&["OU=Staff"]) });
    let leaver = |number: usize| {
        let mut known = Known { claims: entry(0).claims, ..known(number) };
        known.meaning = known.meaning.map(|meaning| Meaning { kind: Kind::NoMailbox, ..meaning });
        known
    };
    let of_both = |mut known: Known| {
        known.claims.push(Claim { key: "both@contoso.com".to_owned(), strength: Strength::Certain });
        known
    };
    read_pages(&snapshot, vec![entry(0), of_both(entry(1)), of_both(entry(2)), known(3), leaver(9)]);
    read_pages(&snapshot, vec![unread(0), unread(1), unread(2), known(3), leaver(9)]);
    let served = snapshot.served().unwrap();
    let said = |key: &str, live: &Lookup| served.unless_unread(key, live.clone());
    // One known owner, or two: neither "not found" nor the other entry is an answer.
    assert!(matches!(said(&alias(1), &Lookup::NotFound), Lookup::Unavailable(_)));
    assert!(matches!(said("both@contoso.com", &Lookup::NotFound), Lookup::Ambiguous(_)));
    // An entry without mail has it as well, and can be read.
    let (left, lives) = (leaver(9).answer(), known(3).answer());
    assert!(matches!(said(&alias(0), &left), Lookup::Unavailable(_)));
    // An entry with mail is an answer, and so is the owner's own new state.
    assert_eq!(said(&alias(0), &lives), lives);
    let same = Known { dn: unread(0).dn, ..leaver(9) }.answer();
    assert_eq!(said(&alias(0), &same), same);
    // Other addresses are not in doubt.
    assert_eq!(said("nobody@contoso.com", &Lookup::NotFound), Lookup::NotFound);
    assert_eq!((said(&key(3), &Lookup::NotFound), said(&key(3), &left)), (Lookup::NotFound, left.clone()));
}
