//! A client keeps its next hop's connection while nobody else wants one; who makes it wait while somebody does gives it
//! back, and finds it again at DATA (DESIGN section 7). Only RCPT and content are progress.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cut_through::fixture::{TwoHops, envelope, letter, say};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::test_network::SOON;
use support::wait_until;

/// One connection for each connector.
const ONE: &str = "max_connections = 1";

/// Another client, who needs a connection to where that recipient is, has it, and leaves.
fn somebody_asks(two: &TwoHops, to: &str) {
    let mut raw = two.stranger();
    say(&mut raw, "MAIL FROM:<other@outside.test>", "250");
    say(&mut raw, &format!("RCPT TO:<{to}>"), "250");
    say(&mut raw, "QUIT", "221");
}

/// The same with a whole message.
fn somebody_sends(two: &TwoHops, id: &str, to: &str) {
    let mut raw = two.stranger();
    envelope(&mut raw, "other@outside.test", &[to]);
    say(&mut raw, &format!("{}.", letter(id, 0)), "250");
}

/// A client that named its recipients and then nothing more.
fn silent(two: &TwoHops, from: &str, to: &[&str]) -> Raw {
    let mut raw = two.stranger();
    say(&mut raw, &format!("MAIL FROM:<{from}>"), "250");
    to.iter().for_each(|to| drop(say(&mut raw, &format!("RCPT TO:<{to}>"), "250")));
    raw
}

/// The same, whose connections others have had since. There is one for each next hop.
fn stopped(two: &TwoHops, from: &str, to: &[&str]) -> Raw {
    let raw = silent(two, from, to);
    if to.iter().any(|to| to.starts_with('p')) {
        somebody_asks(two, "p200@c.test");
    }
    if to.iter().any(|to| to.starts_with('s')) {
        somebody_asks(two, "s200@c.test");
    }
    raw
}

/// DATA and a content; the final reply.
fn goes_on(raw: &mut Raw, id: &str) -> String {
    say(raw, "DATA", "354");
    raw.say(&format!("{}.", letter(id, 0))).1
}

/// Commands about the envelope in a next hop's only connection, without their parameters; the recipients of others are
/// not told.
fn envelopes(hop: &ScriptedSmtpServer) -> Vec<String> {
    let seen = hop.seen();
    let lines = seen.iter().flat_map(|seen| &seen.lines);
    let verbs = lines.map(|line| line.split(['>', '@']).next().unwrap().to_owned());
    verbs.filter(|line| ["MAIL", "RCPT", "DATA"].iter().any(|verb| line.starts_with(verb))).collect()
}

#[test]
fn who_goes_on_at_once_keeps_it() {
    let two = TwoHops::start("", "", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "p1@c.test"]);
    say(&mut raw, &format!("{}.", letter("at-once", 0)), "250");
    assert_eq!(two.primary.commands("MAIL").len(), 1, "{:?}", two.primary.seen());
    assert_eq!(two.primary.commands("RCPT").len(), 2);
}

/// However long it is silent: nobody wants it. Another's recipient takes its time meanwhile.
#[test]
fn who_stops_keeps_what_nobody_wants() {
    let two = TwoHops::start("", "rcpt => after 3000 250 2.1.5 ok", ONE);
    let mut raw = silent(&two, "ann@outside.test", &["p0@c.test"]);
    let began = Instant::now();
    somebody_asks(&two, "s0@c.test");
    assert!(began.elapsed() >= Duration::from_secs(3), "it was not silent for long");
    let said = goes_on(&mut raw, "kept");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(envelopes(&two.primary), ["MAIL FROM:<ann", "RCPT TO:<p0", "DATA"]);
    assert!(two.primary.commands("RSET").is_empty());
}

#[test]
fn who_stops_gives_it_back_and_finds_it_again() {
    let two = TwoHops::start("", "", ONE);
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    assert!(two.primary.taken().is_empty());
    let said = goes_on(&mut raw, "again");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!((two.primary.taken(), two.secondary.taken()), (vec!["p0@c.test".into()], vec!["s0@c.test".into()]));
    for (hop, name) in [(&two.primary, 'p'), (&two.secondary, 's')] {
        let (mine, others) = (format!("RCPT TO:<{name}0"), format!("RCPT TO:<{name}200"));
        let expected = ["MAIL FROM:<ann", &mine, "MAIL FROM:<other", &others, "MAIL FROM:<ann", &mine, "DATA"];
        assert_eq!(envelopes(hop), expected, "the envelope is said once more, at DATA");
    }
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());
}

/// What is said without getting on is silence: it is not the ten seconds of an envelope that end it.
#[test]
fn noop_is_no_progress() {
    let two = TwoHops::start("", "", ONE);
    let mut raw = silent(&two, "ann@outside.test", &["p0@c.test"]);
    let (over, took) = (AtomicBool::new(false), std::sync::OnceLock::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            somebody_sends(&two, "passes", "p1@c.test");
            took.set(began.elapsed()).unwrap();
            over.store(true, Ordering::SeqCst);
        });
        while !over.load(Ordering::SeqCst) {
            say(&mut raw, "NOOP", "250");
            raw.pause();
        }
    });
    let took = took.into_inner().unwrap();
    assert!(took < Duration::from_secs(6), "it took {took:?}");
    let said = goes_on(&mut raw, "noop");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.primary.taken(), ["p1@c.test", "p0@c.test"]);
}

/// Who names one recipient after another gets on, and keeps it, but not for longer than ten seconds of its own time.
#[test]
fn recipients_are_progress_for_a_while() {
    let two = TwoHops::start("", "", ONE);
    let mut raw = silent(&two, "ann@outside.test", &["p0@c.test"]);
    let (over, took) = (AtomicBool::new(false), std::sync::OnceLock::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let began = Instant::now();
            somebody_sends(&two, "passes", "p249@c.test");
            took.set(began.elapsed()).unwrap();
            over.store(true, Ordering::SeqCst);
        });
        let mut named = 1;
        while !over.load(Ordering::SeqCst) && named < 90 {
            (0..40).for_each(|_| raw.pause());
            say(&mut raw, &format!("RCPT TO:<p{named}@c.test>"), "250");
            named += 1;
        }
    });
    let took = took.into_inner().unwrap();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(15), "it took {took:?}");
    let said = goes_on(&mut raw, "named");
    assert!(said.starts_with("250"), "{said}");
}

#[test]
fn a_further_recipient_is_asked_about_alone() {
    let two = TwoHops::start("rcpt to:<p1 => 550 5.2.1 mailbox disabled", "", ONE);
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, "RCPT TO:<p1@c.test>", "550 5.2.1");
    say(&mut raw, "RCPT TO:<p2@c.test>", "250");
    let said = goes_on(&mut raw, "further");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.primary.taken(), ["p0@c.test", "p2@c.test"]);
    let all = envelopes(&two.primary);
    let (asked, last) = all[4..].split_at(all[4..].len() - 4);
    assert!(!asked.contains(&"RCPT TO:<p0".to_owned()), "it is named again only at DATA: {all:?}");
    assert_eq!(last, ["MAIL FROM:<ann", "RCPT TO:<p0", "RCPT TO:<p2", "DATA"], "{all:?}");
}

/// A transaction without an accepted recipient keeps no connection, whether or not somebody waits.
#[test]
fn who_has_no_recipient_has_no_connection() {
    let two = TwoHops::start("rcpt to:<p0 => 550 5.2.1 mailbox disabled", "", ONE);
    let mut raw = two.stranger();
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    say(&mut raw, "RCPT TO:<p0@c.test>", "550 5.2.1");
    wait_until("the connection is given back", SOON, || !two.primary.commands("RSET").is_empty());
    somebody_sends(&two, "at-once", "p1@c.test");
    say(&mut raw, "RCPT TO:<p2@c.test>", "250");
    let said = goes_on(&mut raw, "second");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.primary.taken(), ["p1@c.test", "p2@c.test"]);
    assert_eq!(two.primary.seen().len(), 1, "one connection served them all");
}

/// What was accepted and is refused when the envelope is repeated counts as refused after the dot.
#[test]
fn what_has_changed_meanwhile_counts_as_said_after_the_dot() {
    for (script, expected) in [
        ("rcpt => 550 5.2.1 mailbox disabled", "550 5.2.1"),
        ("rcpt => 550 5.1.1 no such user", "451 4.3.0"),
        ("rcpt => 450 4.2.1 mailbox busy", "450 4.2.1"),
        ("mail => 550 5.7.1 sender blocked", "550 5.7.1"),
    ] {
        let two = TwoHops::start("", "", ONE);
        let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test"]);
        two.primary.follow(script);
        let said = goes_on(&mut raw, "changed");
        assert!(said.starts_with(expected), "{script}: {said}");
        assert!(two.primary.taken().is_empty() && two.network.queue().is_empty(), "{script}");
        assert!(two.network.senders.all().is_empty(), "{script}");
    }
}

#[test]
fn one_of_two_has_changed_meanwhile() {
    let two = TwoHops::start("", "", ONE);
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test", "p1@c.test"]);
    two.primary.follow("rcpt to:<p1 => 550 5.2.1 mailbox disabled");
    let said = goes_on(&mut raw, "one");
    assert!(said.starts_with("250"), "{said}");
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
    wait_until("a report", SOON, || {
        !two.network.reports("ann@outside.test").is_empty() && two.network.queue().is_empty()
    });
    let reports = two.network.reports("ann@outside.test");
    assert_eq!(
        (reports[0].fields("Final-Recipient"), reports[0].fields("Status")),
        (vec!["rfc822; p1@c.test"], vec!["5.2.1"])
    );
}

#[test]
fn the_next_hop_has_gone_meanwhile() {
    let gone = "greeting => 421 4.3.2 away\nmail => 421 4.3.2 away\nrset => 421 4.3.2 away";
    let two = TwoHops::start("", "", ONE);
    let mut raw = stopped(&two, "ann@outside.test", &["p0@c.test"]);
    two.primary.follow(gone);
    let said = goes_on(&mut raw, "gone");
    assert!(said.starts_with("250"), "{said}");
    two.network.waits("p0@c.test", "421");

    let mut raw = stopped(&two, "bob@outside.test", &["s0@c.test"]);
    two.secondary.follow(gone);
    let said = goes_on(&mut raw, "gone-too");
    assert!(said.starts_with("451 4.4.1"), "nobody can say that it exists: {said}");
    say(&mut raw, "NOOP", "250");
    two.primary.follow("");
    two.network.deliver();
    assert_eq!((two.primary.taken(), two.secondary.taken().len()), (vec!["p0@c.test".into()], 0));
}

/// A client that sends content piece by piece, and waits between them, until `until` says that it is enough. Returns
/// how many octets it sent.
fn slowly(raw: &mut Raw, until: &AtomicBool) -> usize {
    let piece = letter("", 16 * 1024);
    let piece = piece.split_once("\r\n\r\n").unwrap().1;
    let mut sent = 0;
    while !until.load(Ordering::SeqCst) {
        raw.send(piece.as_bytes());
        sent += piece.len();
        (0..15).for_each(|_| raw.pause());
    }
    sent
}

/// A stream whose client is slow gives its connection back when somebody waits, once a message, and goes from the file
/// when it is complete. What the next hop got of it before is no message.
#[test]
fn a_slow_stream_is_given_back_once() {
    let two = TwoHops::start("", "", ONE);
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    raw.send(letter("slow", 1 << 20).as_bytes());
    wait_until("it streams", SOON, || two.primary.commands("DATA").len() == 1);
    let over = AtomicBool::new(false);
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| slowly(&mut raw, &over));
        for (number, to) in ["p1@c.test", "p2@c.test", "p3@c.test"].iter().enumerate() {
            somebody_sends(&two, &format!("passes-{number}"), to);
        }
        over.store(true, Ordering::SeqCst);
        slow.join().unwrap()
    });
    let others = ["p1@c.test", "p2@c.test", "p3@c.test"];
    assert_eq!(taken_sorted(&two), others, "they passed it");
    say(&mut raw, ".", "250");
    assert_eq!(taken_sorted(&two), ["p0@c.test", "p1@c.test", "p2@c.test", "p3@c.test"]);
    let broken: Vec<usize> = two.primary.seen().iter().map(|seen| seen.partial).filter(|size| *size > 0).collect();
    assert_eq!(broken.len(), 1, "given back once: {broken:?}");
    let whole = two.primary.contents().iter().map(Vec::len).max().unwrap();
    assert!(whole >= (1 << 20) + slow, "{whole} octets of {} arrived", (1 << 20) + slow);
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());
}

fn taken_sorted(two: &TwoHops) -> Vec<String> {
    let mut taken = two.primary.taken();
    taken.sort();
    taken
}

/// Where nobody waits the same stream is left alone.
#[test]
fn a_slow_stream_that_nobody_waits_for_goes_on() {
    let two = TwoHops::start("", "rcpt => after 3000 250 2.1.5 ok", ONE);
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    raw.send(letter("slow", 1 << 20).as_bytes());
    wait_until("it streams", SOON, || two.primary.commands("DATA").len() == 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| slowly(&mut raw, &over));
        somebody_asks(&two, "s0@c.test"); // for three seconds, of another next hop
        over.store(true, Ordering::SeqCst);
    });
    say(&mut raw, ".", "250");
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
    assert_eq!((two.primary.seen().len(), two.primary.commands("DATA").len()), (1, 1));
}

/// A body by BDAT that does not move, or only so, is read without a next hop: others pass it, whatever came of it
/// already.
#[test]
fn a_body_by_bdat_holds_nothing() {
    for first in [0, 10_000, 300_000] {
        let two = TwoHops::start("", "", ONE);
        let mut raw = silent(&two, "ann@outside.test", &["p0@c.test"]);
        let content = letter("bdat", 1 << 20);
        let (begins, ends) = content.split_at(first);
        raw.send(format!("BDAT {} LAST\r\n{begins}", content.len()).as_bytes());
        somebody_sends(&two, "passes", "p1@c.test");
        somebody_sends(&two, "passes-too", "p2@c.test");
        assert_eq!(two.primary.taken(), ["p1@c.test", "p2@c.test"], "{first}");
        raw.send(ends.as_bytes());
        let (_, said) = raw.reply();
        assert!(said.starts_with("250"), "{first}: {said}");
        assert_eq!(two.primary.taken(), ["p1@c.test", "p2@c.test", "p0@c.test"], "{first}");
        let partial: usize = two.primary.seen().iter().map(|seen| seen.partial).sum();
        assert_eq!((partial, two.primary.contents().len()), (0, 3), "{first}: it was begun too early");
        assert!(two.network.queue().is_empty(), "{first}");
    }
}

/// Twenty that stop after RCPT hold nothing: a connector of few connections serves the next client, and then them all.
#[test]
fn twenty_that_stop_keep_nobody_waiting() {
    for connections in [1, 2] {
        twenty_that_stop(connections);
    }
}

fn twenty_that_stop(connections: usize) {
    let two = TwoHops::start("", "", &format!("max_connections = {connections}"));
    let stop = |number: usize| silent(&two, &format!("stop{number}@outside.test"), &[&format!("p{number}@c.test")]);
    // Each has its connection when a predecessor has been silent for half a second: all are answered in time.
    let mut all: Vec<Raw> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20).map(|number| scope.spawn(move || stop(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    somebody_sends(&two, "passes", "p100@c.test");
    assert!(all.iter_mut().all(|raw| raw.say("NOOP").0 == 250));
    for (number, raw) in all.iter_mut().enumerate() {
        let said = goes_on(raw, &format!("stopped-{number}"));
        assert!(said.starts_with("250"), "{number}: {said}");
    }
    two.network.deliver();
    let mut expected: Vec<String> = (0..20).chain([100]).map(|number| format!("p{number}@c.test")).collect();
    expected.sort();
    assert_eq!(taken_sorted(&two), expected, "{connections}");
}

/// Where more wait than there are connections who is silent keeps its own no longer than asking took: a hundred clients that
/// stop after RCPT would hold the only one for 50 s.
#[test]
fn a_hundred_that_stop_are_passed_soon() {
    let two = TwoHops::start("", "", ONE);
    let mut all: Vec<Raw> = (0..100).map(|_| two.stranger()).collect();
    for (number, raw) in all.iter_mut().enumerate() {
        raw.send(format!("MAIL FROM:<stop{number}@outside.test>\r\nRCPT TO:<p{number}@c.test>\r\n").as_bytes());
    }
    let began = Instant::now();
    somebody_sends(&two, "passes", "p100@c.test");
    let asked = two.primary.commands("RCPT TO:").len();
    for (number, raw) in all.iter_mut().enumerate() {
        assert_eq!((raw.reply().0, raw.reply().0), (250, 250), "{number}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
    println!("all were asked about within {took:?}, and {asked} before the message was there");
    for (number, raw) in all.iter_mut().enumerate() {
        let said = goes_on(raw, &format!("stopped-{number}"));
        assert!(said.starts_with("250"), "{number}: {said}");
    }
    assert_eq!(two.primary.taken().len(), 101, "whoever goes on gets through");
}

/// A client that goes away without a word gives it back as well, and the next hop gets nothing.
#[test]
fn who_goes_away_leaves_nothing() {
    let two = TwoHops::start("", "", ONE);
    for number in 0..3 {
        drop(silent(&two, "ann@outside.test", &[&format!("p{number}@c.test")]));
    }
    somebody_sends(&two, "next", "p9@c.test");
    assert_eq!(two.primary.taken(), ["p9@c.test"]);
    assert!(two.network.queue().is_empty());
}
