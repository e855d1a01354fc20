//! A next hop's connection is lent only while the client moves (DESIGN section 7): who stops between RCPT and DATA
//! gives it back, and finds it again.

use crate::ground::{Two, envelope, letter, say};
use crate::support::senders::Raw;
use crate::support::wait_until;
use crate::town::SOON;

/// A client that stopped after its RCPTs until its connection was given back.
fn stopped(two: &Two, from: &str, to: &[&str]) -> Raw {
    let mut raw = two.stranger();
    say(&mut raw, &format!("MAIL FROM:<{from}>"), "250");
    to.iter().for_each(|to| drop(say(&mut raw, &format!("RCPT TO:<{to}>"), "250")));
    wait_until("the connection is given back", SOON, || {
        to.iter().all(|to| {
            let hop = if to.starts_with('p') { &two.primary } else { &two.secondary };
            !hop.commands("RSET").is_empty()
        })
    });
    raw
}

/// DATA and a content; the final reply.
fn goes_on(raw: &mut Raw, id: &str) -> String {
    say(raw, "DATA", "354");
    raw.say(&format!("{}.", letter(id, 0))).1
}

#[test]
fn who_goes_on_at_once_keeps_it() {
    let two = Two::start("", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "p1@c.test"]);
    say(&mut raw, &format!("{}.", letter("at-once", 0)), "250");
    assert_eq!(two.primary.commands("MAIL").len(), 1, "{:?}", two.primary.seen());
    assert_eq!(two.primary.commands("RCPT").len(), 2);
}

#[test]
fn who_stops_gives_it_back_and_finds_it_again() {
    let two = Two::start("", "", "");
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    assert!(two.primary.taken().is_empty());
    let said = goes_on(&mut raw, "again");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!((two.primary.taken(), two.secondary.taken()), (vec!["p0@c.test".into()], vec!["s0@c.test".into()]));
    assert_eq!(two.primary.commands("MAIL").len(), 2, "the envelope was repeated");
    assert!(two.town.queue().is_empty() && two.town.senders.all().is_empty());
}

#[test]
fn a_further_recipient_after_a_pause_is_asked_about_too() {
    let two = Two::start("rcpt to:<p1 => 550 5.2.1 mailbox disabled", "", "");
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, "RCPT TO:<p1@c.test>", "550 5.2.1");
    say(&mut raw, "RCPT TO:<p2@c.test>", "250");
    let said = goes_on(&mut raw, "further");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.primary.taken(), ["p0@c.test", "p2@c.test"]);
}

/// What was accepted and is refused when the envelope is repeated counts as refused after the dot.
#[test]
fn what_has_changed_meanwhile_counts_as_said_after_the_dot() {
    for (script, expected) in [
        ("rcpt => 550 5.2.1 mailbox disabled", "550 5.2.1"),
        ("rcpt => 450 4.2.1 mailbox busy", "450 4.2.1"),
        ("mail => 550 5.7.1 sender blocked", "550 5.7.1"),
    ] {
        let two = Two::start("", "", "");
        let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test"]);
        two.primary.follow(script);
        let said = goes_on(&mut raw, "changed");
        assert!(said.starts_with(expected), "{script}: {said}");
        assert!(two.primary.taken().is_empty() && two.town.queue().is_empty(), "{script}");
        assert!(two.town.senders.all().is_empty(), "{script}");
    }
}

#[test]
fn one_of_two_has_changed_meanwhile() {
    let two = Two::start("", "", "");
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test", "p1@c.test"]);
    two.primary.follow("rcpt to:<p1 => 550 5.2.1 mailbox disabled");
    let said = goes_on(&mut raw, "one");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
    wait_until("a report", SOON, || !two.town.reports("ann@outside.test").is_empty() && two.town.queue().is_empty());
    let reports = two.town.reports("ann@outside.test");
    assert_eq!(
        (reports[0].fields("Final-Recipient"), reports[0].fields("Status")),
        (vec!["rfc822; p1@c.test"], vec!["5.2.1"])
    );
}

#[test]
fn the_next_hop_has_gone_meanwhile() {
    let gone = "greeting => 421 4.3.2 away\nmail => 421 4.3.2 away\nrset => 421 4.3.2 away";
    let two = Two::start("", "", "");
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test"]);
    two.primary.follow(gone);
    let said = goes_on(&mut raw, "gone");
    assert!(said.starts_with("250"), "{said}");
    two.town.waits("p0@c.test", "421");

    let mut raw = stopped(&two, "bob@outside.test", &["s0@c.test"]);
    two.secondary.follow(gone);
    let said = goes_on(&mut raw, "gone-too");
    assert!(said.starts_with("451 4.4.1"), "nobody can say that it exists: {said}");
    two.primary.follow("");
    two.town.deliver();
    assert_eq!((two.primary.taken(), two.secondary.taken().len()), (vec!["p0@c.test".into()], 0));
}

/// Twenty that stop after RCPT hold nothing: a connector of two connections serves the next client, and then them all.
#[test]
fn twenty_that_stop_keep_nobody_waiting() {
    let two = Two::start("", "", "max_connections = 2");
    let stop = |number: usize| {
        let mut raw = two.stranger();
        say(&mut raw, &format!("MAIL FROM:<stop{number}@outside.test>"), "250");
        say(&mut raw, &format!("RCPT TO:<p{number}@c.test>"), "250");
        raw
    };
    // Each comes when its predecessors have had their two seconds or a connection is free: all are answered in time.
    let mut all: Vec<Raw> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|number| scope.spawn(move || stop(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p100@c.test"]);
    say(&mut raw, &format!("{}.", letter("passes", 0)), "250");
    assert!(all.iter_mut().all(|raw| raw.say("NOOP").0 == 250));
    for (number, raw) in all.iter_mut().enumerate() {
        let said = goes_on(raw, &format!("stopped-{number}"));
        assert!(said.starts_with("250"), "{number}: {said}");
    }
    two.town.deliver();
    let mut taken = two.primary.taken();
    taken.sort();
    let mut expected: Vec<String> = (0..20).chain([100]).map(|number| format!("p{number}@c.test")).collect();
    expected.sort();
    assert_eq!(taken, expected);
}

/// A client that goes away without a word gives it back as well, and the next hop gets nothing.
#[test]
fn who_goes_away_leaves_nothing() {
    let two = Two::start("", "", "max_connections = 1");
    for number in 0..3 {
        let mut raw = two.stranger();
        say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
        say(&mut raw, &format!("RCPT TO:<p{number}@c.test>"), "250");
        drop(raw);
    }
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p9@c.test"]);
    say(&mut raw, &format!("{}.", letter("next", 0)), "250");
    assert_eq!(two.primary.taken(), ["p9@c.test"]);
    assert!(two.town.queue().is_empty());
}
