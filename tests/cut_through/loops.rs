//! Loops (DESIGN section 6) where the next hop is part of the conversation: what is looped is taken out before the next
//! hop's DATA, and a next hop that asks us while we ask it is not waited for.

use std::time::{Duration, Instant};

use crate::ground::{STAFF, Two, envelope, letter, say};
use crate::next_hop::NextHop;
use crate::support::senders::Raw;
use crate::support::wait_until;
use crate::town::SOON;

/// Sends a message to the secondary; returns it as the secondary got it, stamps and all, to be sent back.
fn relayed(two: &Two, id: &str, to: &[&str]) -> String {
    let before = two.secondary.contents().len();
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", to);
    say(&mut raw, &format!("{}.", letter(id, 0)), "250");
    let came = two.secondary.contents().remove(before);
    let came = String::from_utf8(came).unwrap();
    assert!(came.contains("Fingerpost-Route: v=1;"), "{came}");
    came
}

/// The commands of the last connection that carried any content or envelope for these words.
fn lines(hop: &NextHop) -> Vec<String> {
    hop.seen().into_iter().flat_map(|seen| seen.lines).collect()
}

/// What the next hop saw since it had so many lines, without greetings and good-byes.
fn since(hop: &NextHop, before: usize) -> Vec<String> {
    let mut lines = lines(hop).split_off(before);
    lines.retain(|line| !line.starts_with("EHLO") && !line.starts_with("QUIT"));
    let beginning = |line: String| line.split('>').next().unwrap_or_default().to_ascii_uppercase();
    lines.into_iter().map(beginning).collect()
}

#[test]
fn all_looped_is_refused_before_the_next_hops_data() {
    let two = Two::start("", "", "");
    let back = relayed(&two, "all", &["s0@c.test", "s1@c.test"]);
    let data = two.secondary.commands("DATA").len();
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "s1@c.test"]);
    say(&mut raw, &format!("{back}."), "554 5.4.6");
    assert_eq!(two.secondary.commands("DATA").len(), data, "its DATA was sent before the header section was looked at");
    assert_eq!(two.secondary.taken().len(), 2);
    assert!(two.town.queue().is_empty() && two.town.senders.all().is_empty());
}

#[test]
fn one_looped_recipient_is_taken_out_and_reported() {
    let two = Two::start("", "", "");
    let back = relayed(&two, "one", &["s0@c.test"]);
    let before = lines(&two.secondary).len();
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "s1@c.test"]);
    say(&mut raw, &format!("{back}."), "250");
    let mut saw = since(&two.secondary, before);
    // A connection that was used before may begin with a RSET of its own.
    if saw[0] == "RSET" {
        saw.remove(0);
    }
    let (mail, data) = ("MAIL FROM:<ANN@OUTSIDE.TEST", "DATA");
    let (s0, s1) = ("RCPT TO:<S0@C.TEST", "RCPT TO:<S1@C.TEST");
    assert_eq!(saw, [mail, s0, s1, "RSET", mail, s1, data]);
    assert_eq!(two.secondary.taken(), ["s0@c.test", "s1@c.test"]);
    wait_until("a report", SOON, || !two.town.reports("ann@outside.test").is_empty() && two.town.queue().is_empty());
    let reports = two.town.reports("ann@outside.test");
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].fields("Final-Recipient"), ["rfc822; s0@c.test"]);
    assert_eq!(reports[0].fields("Status"), ["5.4.6"]);
}

#[test]
fn a_looped_recipient_of_one_branch_does_not_disturb_the_other() {
    let two = Two::start("", "", "");
    let back = relayed(&two, "branch", &["s0@c.test"]);
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "p0@c.test"]);
    say(&mut raw, &format!("{back}."), "250");
    wait_until("a report", SOON, || !two.town.reports("ann@outside.test").is_empty() && two.town.queue().is_empty());
    assert_eq!(two.town.reports("ann@outside.test")[0].fields("Status"), ["5.4.6"]);
    assert_eq!((two.primary.taken(), two.secondary.taken()), (vec!["p0@c.test".into()], vec!["s0@c.test".into()]));
}

/// The recipient was accepted, the envelope is repeated without the looped one, and now it is refused: as if it had
/// been refused after the dot.
#[test]
fn a_repeated_envelope_that_is_refused_now() {
    let two = Two::start("", "", "");
    let back = relayed(&two, "repeated", &["s0@c.test"]);
    let refusal = "rcpt to:<s1 => 550 5.2.1 mailbox disabled";
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "s1@c.test"]);
    two.secondary.follow(refusal);
    let (_, said) = raw.say(&format!("{back}."));
    assert!(said.starts_with('5'), "none accepted, none to be tried again: {said}");
    assert_eq!(two.secondary.taken(), ["s0@c.test"]);
    assert!(two.town.queue().is_empty() && two.town.senders.all().is_empty());

    two.secondary.follow("");
    let mut raw = two.stranger();
    envelope(&mut raw, "bob@outside.test", &["s0@c.test", "s1@c.test", "p0@c.test"]);
    two.secondary.follow(refusal);
    say(&mut raw, &format!("{back}."), "250");
    let told = || {
        let reports = two.town.reports("bob@outside.test");
        let mut told: Vec<(String, String)> = Vec::new();
        for report in &reports {
            let status = report.fields("Status");
            let to = report.fields("Final-Recipient");
            told.extend(to.iter().zip(status).map(|(to, status)| ((*to).to_owned(), status.to_owned())));
        }
        told.sort();
        told
    };
    wait_until("both reports", SOON, || told().len() >= 2 && two.town.queue().is_empty());
    let expected = [("rfc822; s0@c.test", "5.4.6"), ("rfc822; s1@c.test", "5.2.1")];
    assert_eq!(told(), expected.map(|(to, status)| (to.to_owned(), status.to_owned())));
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
}

#[test]
fn a_next_hop_that_asks_us_while_we_ask_it_is_told_so() {
    it_is_told_so(&Two::start("", "rcpt => wait", "cut_through_patience = \"9s\""));
}

/// The client's address is the one that the name last stood for.
#[test]
fn so_is_one_that_is_written_as_a_name() {
    let mut two = Two::start("", "rcpt => wait", "cut_through_patience = \"9s\"");
    let port = two.secondary.address.port();
    two.town.reconfigure(&format!("[127.0.0.1]:{port}"), &format!("localhost:{port}"));
    it_is_told_so(&two);
}

fn it_is_told_so(two: &Two) {
    let server = two.town.node.smtp;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut raw = two.stranger();
            say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
            raw.say("RCPT TO:<s0@c.test>").1
        });
        wait_until("the question", SOON, || !two.secondary.commands("RCPT").is_empty());
        let begun = Instant::now();
        // The next hop's own address; the other senders are not it, or do not send the same.
        let mut again = two.stranger();
        say(&mut again, "MAIL FROM:<ann@outside.test>", "250");
        say(&mut again, "RCPT TO:<s0@c.test>", "550 5.4.6");
        let waited = begun.elapsed(); // two thirds of the patience
        assert!(waited >= Duration::from_millis(5500) && waited < Duration::from_secs(9), "{waited:?}");
        assert_eq!(two.secondary.commands("RCPT").len(), 1, "it was asked while it asked");
        let other = scope.spawn(|| {
            let mut raw = Raw::hello_from(STAFF, server);
            say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
            raw.say("RCPT TO:<s0@c.test>").1
        });
        wait_until("the other's question", SOON, || two.secondary.commands("RCPT").len() == 2);
        two.secondary.follow("");
        assert!(first.join().unwrap().starts_with("250"));
        assert!(other.join().unwrap().starts_with("250"));
    });
}

#[test]
fn two_messages_at_once_are_no_loop() {
    let two = Two::start("", "rcpt => wait", "cut_through_patience = \"30s\"");
    std::thread::scope(|scope| {
        let ask = || {
            let mut raw = two.stranger();
            say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
            raw.say("RCPT TO:<s0@c.test>").1
        };
        let first = scope.spawn(ask);
        wait_until("the first question", SOON, || !two.secondary.commands("RCPT").is_empty());
        let second = scope.spawn(ask);
        // The second one's session is there, and its RCPT on the way or waiting.
        let sessions = "fingerpost_connections{receive_connector=\"internet\"}";
        wait_until("the second session", SOON, || two.town.node.metric(sessions) >= Some(2.0));
        two.secondary.follow("");
        assert!(first.join().unwrap().starts_with("250"));
        assert!(second.join().unwrap().starts_with("250"));
    });
}
