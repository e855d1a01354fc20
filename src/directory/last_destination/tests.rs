//! What is held where a directory is asked for each recipient, and for how long that is remembered.

use super::*;
use crate::lookup::Recipient;
use crate::smtp::address::Address;

fn found(target: Option<&str>) -> Lookup {
    Lookup::Found(Arc::new(Recipient {
        kind: if target.is_some() { Kind::MailUser } else { Kind::Mailbox },
        target: target.map(|target| Address::parse(target).unwrap()),
        mail_server: None,
        send_connector: None,
        entry: "e".into(),
        rule: "r".into(),
    }))
}

fn is_held(remembered: &mut Remembered, key: &str, lookup: &Lookup, now: UnixTime) -> bool {
    let with = Circumstances { now, day: now, at: QueueTime(now.0), served_by: &|| None };
    remembered.is_held(key, lookup, with)
}

fn with_ten() -> Remembered {
    let limits = HoldChanges { share_millionths: 0, at_least: 3, within: Duration::from_hours(1) };
    let mut remembered = Remembered::new(limits, HashMap::new(), Saved::nobody([7; 16]));
    for number in 0..10 {
        assert!(!is_held(&mut remembered, &format!("u{number}@a.b"), &found(None), UnixTime(1_000)));
    }
    remembered
}

fn ask(remembered: &mut Remembered, numbers: std::ops::Range<u32>, lookup: &Lookup, at: u64) -> Vec<bool> {
    numbers.map(|number| is_held(remembered, &format!("u{number}@a.b"), lookup, UnixTime(at))).collect()
}

#[test]
fn beyond_the_limit_whose_way_changed_waits() {
    for changed in [Lookup::NotFound, found(Some("x@y.z"))] {
        let mut remembered = with_ten();
        let said = ask(&mut remembered, 0..6, &changed, 2_000);
        assert_eq!(said, [false, false, false, true, true, true], "{changed:?}");
        assert_eq!(remembered.held(), 3);
        // Asked again it still waits, and accepted changes stay; an unchanged address is not affected.
        assert_eq!(ask(&mut remembered, 2..5, &changed, 2_001), [false, true, true]);
        assert_eq!(ask(&mut remembered, 6..10, &found(None), 2_002), [false; 4]);
        assert_eq!(remembered.held(), 3);
    }
}

#[test]
fn put_right_or_accepted_nothing_waits() {
    let mut remembered = with_ten();
    ask(&mut remembered, 0..6, &Lookup::NotFound, 2_000);
    assert_eq!(ask(&mut remembered, 3..6, &found(None), 2_001), [false; 3]);
    assert_eq!(remembered.held(), 0);
    ask(&mut remembered, 3..6, &Lookup::NotFound, 2_002);
    assert_eq!(remembered.accept(UnixTime(2_002)), 3);
    assert_eq!(ask(&mut remembered, 3..10, &Lookup::NotFound, 2_003), [false; 7]);
}

#[test]
fn no_clean_answer_counts() {
    let mut remembered = with_ten();
    assert_eq!(ask(&mut remembered, 0..10, &Lookup::Unavailable("down".into()), 2_000), [false; 10]);
    assert_eq!(ask(&mut remembered, 0..3, &Lookup::NotFound, 2_001), [false; 3]);
}

#[test]
fn who_is_not_asked_about_any_more_does_not_wait() {
    let mut remembered = with_ten();
    ask(&mut remembered, 0..6, &Lookup::NotFound, 2_000);
    ask(&mut remembered, 5..6, &Lookup::NotFound, 2_600);
    assert_eq!(remembered.held(), 3);
    ask(&mut remembered, 4..5, &Lookup::Unavailable("down".into()), 2_700);
    remembered.forget_held(UnixTime(2_000 + 3_600));
    assert_eq!(remembered.held(), 2);
}

#[test]
fn once_accepted_what_shows_later_is_taken_too_and_counts_again_afterwards() {
    let mut remembered = with_ten();
    remembered.accept(UnixTime(1_500)); // nobody waits, so nothing was said
    let said = ask(&mut remembered, 0..5, &Lookup::NotFound, 2_000);
    assert_eq!(said, [false, false, false, true, true]);
    remembered.accept(UnixTime(2_100));
    assert_eq!(ask(&mut remembered, 3..5, &Lookup::NotFound, 2_101), [false; 2]);
    assert_eq!(ask(&mut remembered, 5..10, &found(Some("x@y.z")), 2_102), [false; 5]);
    // Those are known with their new state.
    let later = 2_100 + 3_600;
    assert_eq!(ask(&mut remembered, 5..10, &Lookup::NotFound, later), [false, false, false, true, true]);
}

#[test]
fn other_names_for_mail_servers_hold_nobody_and_other_servers_do() {
    let limits = HoldChanges { share_millionths: 0, at_least: 0, within: Duration::from_hours(1) };
    let servers = |connector: &str| HashMap::from([("ex1".to_owned(), connector.into())]);
    let on = |server: &str| match found(None) {
        Lookup::Found(recipient) => {
            let mail_server = Some(server.into());
            Lookup::Found(Arc::new(Recipient { mail_server, ..Recipient::clone(&recipient) }))
        }
        other => other,
    };
    let mut remembered = Remembered::new(limits, servers("old"), Saved::nobody([7; 16]));
    assert!(!is_held(&mut remembered, "a@b.c", &on("ex1"), UnixTime(1_000)));
    let saved = remembered.saved();
    let mut same = Remembered::new(limits, servers("old"), saved.clone());
    assert!(is_held(&mut same, "a@b.c", &on("ex2"), UnixTime(1_001)));
    let mut renamed = Remembered::new(limits, servers("new"), saved);
    assert!(!is_held(&mut renamed, "a@b.c", &on("ex1"), UnixTime(1_001)));
    assert!(is_held(&mut renamed, "a@b.c", &on("ex2"), UnixTime(1_002)));
    assert!(is_held(&mut renamed, "a@b.c", &Lookup::NotFound, UnixTime(1_003)));
}

#[test]
fn it_comes_back_as_it_was_saved_and_forgets_after_a_week() {
    let limits = HoldChanges { share_millionths: 0, at_least: 0, within: Duration::from_hours(1) };
    let mut again = Remembered::new(limits, HashMap::new(), with_ten().saved());
    assert_eq!(ask(&mut again, 0..1, &Lookup::NotFound, 2_000), [true]);
    assert_eq!(ask(&mut again, 1..2, &Lookup::NotFound, 1_000 + COUNTS.as_secs()), [false]);
}

/// A restart or a reload does not circumvent the limit, and does not forget counted changes.
#[test]
fn what_counts_together_counts_over_a_restart() {
    let limits = HoldChanges { share_millionths: 0, at_least: 3, within: Duration::from_hours(1) };
    let restarted = |remembered: &Remembered| Remembered::new(limits, HashMap::new(), remembered.saved());
    let mut before = with_ten();
    assert_eq!(ask(&mut before, 0..5, &Lookup::NotFound, 2_000), [false, false, false, true, true]);
    let mut after = restarted(&before);
    assert_eq!(ask(&mut after, 3..8, &Lookup::NotFound, 2_001), [true; 5]);
    // A return to the state before is a correction, even if mail went to the other organisation meanwhile.
    let mut back = restarted(&before);
    let (now, day, at) = (UnixTime(2_001), UnixTime(2_001), QueueTime(2_001));
    let with = Circumstances { now, day, at, served_by: &|| Some("notes".into()) };
    assert!((0..6).all(|number| !back.is_held(&format!("u{number}@a.b"), &found(None), with)));
    // So is the operator's acceptance.
    let changes = before.changes();
    before.accept(UnixTime(2_002));
    assert!(before.changes() > changes, "there is something to save");
    assert_eq!(ask(&mut restarted(&before), 3..10, &Lookup::NotFound, 2_003), [false; 7]);
    // An hour later nothing of it counts.
    assert_eq!(ask(&mut after, 5..10, &Lookup::NotFound, 2_001 + 3_600), [false, false, false, true, true]);
}

#[test]
fn a_clock_that_was_put_back_makes_nothing_count_for_longer() {
    let limits = HoldChanges { share_millionths: 0, at_least: 3, within: Duration::from_hours(1) };
    let mut before = with_ten();
    ask(&mut before, 0..3, &Lookup::NotFound, 500_000);
    let mut after = Remembered::new(limits, HashMap::new(), before.saved().by(UnixTime(2_000)));
    assert_eq!(ask(&mut after, 3..5, &Lookup::NotFound, 2_001), [true; 2]);
    assert_eq!(ask(&mut after, 3..7, &Lookup::NotFound, 2_000 + 3_600), [false, false, false, true]);
}

#[test]
fn it_is_bounded() {
    let limits = HoldChanges { share_millionths: 0, at_least: 0, within: Duration::from_hours(1) };
    let mut remembered = Remembered::new(limits, HashMap::new(), Saved::nobody([7; 16]));
    for number in 0..=ENTRIES as u64 {
        is_held(&mut remembered, &format!("u{number}@a.b"), &found(None), UnixTime(number));
    }
    assert!(remembered.len() <= ENTRIES / 2 + 1);
    assert!(remembered.known.contains_key(&remembered.hash(&format!("u{ENTRIES}@a.b"))));
}

#[test]
fn half_of_those_who_were_seen_at_once_stay() {
    let mut remembered = with_ten();
    for number in 10..=ENTRIES as u64 {
        is_held(&mut remembered, &format!("u{number}@a.b"), &found(None), UnixTime(1_000));
    }
    assert_eq!(remembered.len(), ENTRIES / 2);
}

#[test]
fn who_is_new_here_counts_where_another_organisation_served_him() {
    let mut remembered = with_ten();
    let new = |remembered: &mut Remembered, number: u32, served_by: Option<&str>| {
        let (now, day, at) = (UnixTime(2_000), UnixTime(3_000), QueueTime(2_000));
        let with = Circumstances { now, day, at, served_by: &|| served_by.map(Arc::from) };
        remembered.is_held(&format!("new{number}@a.b"), &found(None), with)
    };
    let said: Vec<bool> = (0..6).map(|number| new(&mut remembered, number, Some("notes"))).collect();
    assert_eq!(said, [false, false, false, true, true, true]);
    assert!(!new(&mut remembered, 9, None), "nobody served him");
    let list = remembered.held_list();
    let last = list.addresses.last().unwrap();
    assert_eq!((list.recipients, &*last.address, &*last.from, &*last.to), (3, "new5@a.b", "nobody", "mailbox"));
    assert_eq!((&*last.why, last.since), ("new here; the last mail for it was accepted by notes", UnixTime(3_000)));
    assert_eq!(remembered.accept_only(vec!["new5@a.b".into(), "u1@a.b".into()], QueueTime(2_100)), 1);
    assert!(!new(&mut remembered, 5, Some("notes")) && new(&mut remembered, 4, Some("notes")));
}

#[test]
fn what_was_taken_and_is_put_right_does_not_wait() {
    let mut remembered = with_ten();
    let said = ask(&mut remembered, 0..6, &Lookup::NotFound, 2_000);
    assert_eq!(said, [false, false, false, true, true, true]);
    // Mail for them went to the other organisation meanwhile.
    let (now, day, at) = (UnixTime(2_001), UnixTime(2_001), QueueTime(2_001));
    let with = Circumstances { now, day, at, served_by: &|| Some("notes".into()) };
    assert!((0..6).all(|number| !remembered.is_held(&format!("u{number}@a.b"), &found(None), with)));
    assert_eq!(remembered.held(), 0);
}

#[test]
fn what_is_announced_neither_counts_nor_waits() {
    let mut remembered = with_ten();
    remembered.expected_mut().announce(Announced::Only(vec!["u0@a.b".into(), "u9@a.b".into()]), QueueTime(9_000));
    remembered.expected_mut().announce(Announced::Any(2), QueueTime(9_000));
    let said = ask(&mut remembered, 0..10, &Lookup::NotFound, 2_000);
    assert_eq!(said, [false, false, false, false, false, false, true, true, true, false]);
}

#[test]
fn names_that_are_no_addresses_stand_behind_them() {
    let mut remembered = with_ten();
    let name = "/o=contoso/cn=recipients/cn=u4";
    assert!(!is_held(&mut remembered, name, &found(None), UnixTime(1_000)));
    ask(&mut remembered, 0..3, &Lookup::NotFound, 2_000);
    assert!(is_held(&mut remembered, name, &Lookup::NotFound, UnixTime(2_000)));
    ask(&mut remembered, 4..6, &Lookup::NotFound, 2_000);
    let listed: Vec<String> = remembered.held_list().addresses.into_iter().map(|held| held.address).collect();
    assert_eq!(listed, ["u4@a.b", "u5@a.b", name]);
    assert_eq!(remembered.accept_only(listed, QueueTime(3_000)), 3);
}
