//! Loops (DESIGN section 6) where the next hop is part of the conversation: what is looped is taken out before the next
//! hop's DATA, and a next hop that asks us while we ask it is not waited for.

use std::time::{Duration, Instant};

use crate::cut_through::fixture::{STAFF, TwoHops, envelope, letter, say};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::test_network::SOON;
use support::wait_until;

/// Sends a message to the secondary; returns it as the secondary got it, stamps and all, to be sent back.
fn relayed(two: &TwoHops, id: &str, to: &[&str]) -> String {
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
fn lines(hop: &ScriptedSmtpServer) -> Vec<String> {
    hop.seen().into_iter().flat_map(|seen| seen.lines).collect()
}

/// What the next hop saw since it had so many lines, without greetings and good-byes.
fn since(hop: &ScriptedSmtpServer, before: usize) -> Vec<String> {
    let mut lines = lines(hop).split_off(before);
    lines.retain(|line| !line.starts_with("EHLO") && !line.starts_with("QUIT"));
    let beginning = |line: String| line.split('>').next().unwrap_or_default().to_ascii_uppercase();
    lines.into_iter().map(beginning).collect()
}

#[test]
fn all_looped_is_refused_before_the_next_hops_data() {
    let two = TwoHops::start("", "", "");
    let back = relayed(&two, "all", &["s0@c.test", "s1@c.test"]);
    let data = two.secondary.commands("DATA").len();
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "s1@c.test"]);
    say(&mut raw, &format!("{back}."), "554 5.4.6");
    assert_eq!(two.secondary.commands("DATA").len(), data, "its DATA was sent before the header section was looked at");
    assert_eq!(two.secondary.taken().len(), 2);
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());
}

#[test]
fn one_looped_recipient_is_taken_out_and_reported() {
    let two = TwoHops::start("", "", "");
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
    wait_until("a report", SOON, || {
        !two.network.reports("ann@outside.test").is_empty() && two.network.queue().is_empty()
    });
    let reports = two.network.reports("ann@outside.test");
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].fields("Final-Recipient"), ["rfc822; s0@c.test"]);
    assert_eq!(reports[0].fields("Status"), ["5.4.6"]);
}

#[test]
fn a_looped_recipient_of_one_branch_does_not_disturb_the_other() {
    let two = TwoHops::start("", "", "");
    let back = relayed(&two, "branch", &["s0@c.test"]);
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "p0@c.test"]);
    say(&mut raw, &format!("{back}."), "250");
    wait_until("a report", SOON, || {
        !two.network.reports("ann@outside.test").is_empty() && two.network.queue().is_empty()
    });
    assert_eq!(two.network.reports("ann@outside.test")[0].fields("Status"), ["5.4.6"]);
    assert_eq!((two.primary.taken(), two.secondary.taken()), (vec!["p0@c.test".into()], vec!["s0@c.test".into()]));
}

/// The recipient was accepted, the envelope is repeated without the looped one, and now it is refused: as if it had
/// been refused after the dot.
#[test]
fn a_repeated_envelope_that_is_refused_now() {
    let two = TwoHops::start("", "", "");
    let back = relayed(&two, "repeated", &["s0@c.test"]);
    let refusal = "rcpt to:<s1 => 550 5.2.1 mailbox disabled";
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "s1@c.test"]);
    two.secondary.follow(refusal);
    let (_, said) = raw.say(&format!("{back}."));
    assert!(said.starts_with('5'), "none accepted, none to be tried again: {said}");
    assert_eq!(two.secondary.taken(), ["s0@c.test"]);
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());

    two.secondary.follow("");
    let mut raw = two.stranger();
    envelope(&mut raw, "bob@outside.test", &["s0@c.test", "s1@c.test", "p0@c.test"]);
    two.secondary.follow(refusal);
    say(&mut raw, &format!("{back}."), "250");
    let told = || {
        let reports = two.network.reports("bob@outside.test");
        let mut told: Vec<(String, String)> = Vec::new();
        for report in &reports {
            let status = report.fields("Status");
            let to = report.fields("Final-Recipient");
            told.extend(to.iter().zip(status).map(|(to, status)| ((*to).to_owned(), status.to_owned())));
        }
        told.sort();
        told
    };
    wait_until("both reports", SOON, || told().len() >= 2 && two.network.queue().is_empty());
    let expected = [("rfc822; s0@c.test", "5.4.6"), ("rfc822; s1@c.test", "5.2.1")];
    assert_eq!(told(), expected.map(|(to, status)| (to.to_owned(), status.to_owned())));
    assert_eq!(two.primary.taken(), ["p0@c.test"]);
}

#[test]
fn a_next_hop_that_asks_us_while_we_ask_it_is_told_so() {
    it_is_told_so(&TwoHops::start("", "rcpt => wait", "cut_through_patience = \"9s\""));
}

/// The client's address is the one that the name last stood for.
#[test]
fn so_is_one_that_is_written_as_a_name() {
    let mut two = TwoHops::start("", "rcpt => wait", "cut_through_patience = \"9s\"");
    let port = two.secondary.address.port();
    two.network.reconfigure(&format!("[127.0.0.1]:{port}"), &format!("localhost:{port}"));
    it_is_told_so(&two);
}

fn it_is_told_so(two: &TwoHops) {
    let server = two.network.node.smtp;
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
    let two = TwoHops::start("", "rcpt => wait", "cut_through_patience = \"30s\"");
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
        wait_until("the second session", SOON, || two.network.node.metric(sessions) >= Some(2.0));
        two.secondary.follow("");
        assert!(first.join().unwrap().starts_with("250"));
        assert!(second.join().unwrap().starts_with("250"));
    });
}

/// How a message is handed in.
#[derive(Debug, Clone, Copy)]
enum ContentCommand {
    Data,
    Bdat,
}

/// Hands in a message with a Message-ID of its own; returns the last reply.
fn hand_in(raw: &mut Raw, to: &[&str], message: &str, by: ContentCommand) -> String {
    say(raw, "MAIL FROM:<ann@outside.test>", "250");
    to.iter().for_each(|to| drop(say(raw, &format!("RCPT TO:<{to}>"), "250")));
    match by {
        ContentCommand::Data => {
            say(raw, "DATA", "354");
            raw.say(&format!("{message}.")).1
        }
        ContentCommand::Bdat => {
            raw.send(format!("BDAT {} LAST\r\n", message.len()).as_bytes());
            raw.send(message.as_bytes());
            raw.reply().1
        }
    }
}

/// What a system makes of a message that strips every trace of us and writes a Message-ID of its own.
fn anew(message: &str, number: usize) -> String {
    let (before, after) = message.split_once("Message-ID: <").unwrap();
    format!("{before}X-Spam-Score: {number}\r\nMessage-ID: <{number}-{after}")
}

/// The sizes are those of a body that is read first and of one that streams; the clients are the next hop's address.
#[test]
fn content_that_comes_back_eight_times_is_refused_before_anything_is_sent() {
    for (size, by) in [
        (0, ContentCommand::Data),
        (60_000, ContentCommand::Data),
        (300_000, ContentCommand::Data),
        (0, ContentCommand::Bdat),
        (300_000, ContentCommand::Bdat),
    ] {
        let two = TwoHops::start("", "", "");
        let message = letter("content", size);
        let mut raw = two.stranger();
        for pass in 0..8 {
            let said = hand_in(&mut raw, &["s0@c.test"], &anew(&message, pass), by);
            assert!(said.starts_with("250"), "{size} {by:?} {pass}: {said}");
        }
        let data = two.secondary.commands("DATA").len();
        for pass in 8..10 {
            let said = hand_in(&mut raw, &["s0@c.test"], &anew(&message, pass), by);
            assert!(said.starts_with("554 5.4.6"), "{size} {by:?} {pass}: {said}");
        }
        assert_eq!(two.secondary.commands("DATA").len(), data, "{size} {by:?}: something of it was sent");
        assert_eq!(two.network.node.metric("fingerpost_loops_total{rule=\"relay-memory\"}"), Some(2.0));
        // The connections are of use still, and others go on.
        let said = hand_in(&mut raw, &["s1@c.test"], &anew(&message, 10), by);
        assert!(said.starts_with("250"), "{size} {by:?}: {said}");
        assert_eq!(two.secondary.taken().len(), 9, "{size} {by:?}");
        assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());

        let said = hand_in(&mut raw, &["s0@c.test", "s2@c.test"], &anew(&message, 11), by);
        assert!(said.starts_with("250"), "{size} {by:?}: {said}");
        let taken = two.secondary.taken();
        let copies =
            ["s0@c.test", "s1@c.test", "s2@c.test"].map(|to| taken.iter().filter(|taken| *taken == to).count());
        assert_eq!(copies, [8, 1, 1], "{size} {by:?}");
        wait_until("a report", SOON, || {
            !two.network.reports("ann@outside.test").is_empty() && two.network.queue().is_empty()
        });
        let reports = two.network.reports("ann@outside.test");
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].fields("Final-Recipient"), ["rfc822; s0@c.test"]);
        assert_eq!(reports[0].fields("Status"), ["5.4.6"]);
    }
}

/// A client, and what it makes of the message each time.
type Alike = (&'static str, fn(&TwoHops) -> Raw, fn(&str, usize) -> String);

#[test]
fn content_that_is_alike_and_no_loop_passes() {
    let two = TwoHops::start("", "", "");
    let smart_host: fn(&TwoHops) -> Raw = TwoHops::stranger;
    let staff: fn(&TwoHops) -> Raw = |two| Raw::hello_from(STAFF, two.network.node.smtp);
    let alike: [Alike; 5] = [
        ("from elsewhere", staff, anew),
        ("without Date", smart_host, |mail, n| anew(&mail.replace("Date: Sat, 21 Nov 2026 04:39:00 +0000\r\n", ""), n)),
        ("another Date", smart_host, |mail, n| anew(&mail.replace("04:39:00", &format!("04:39:{n:02}")), n)),
        ("another subject", smart_host, |mail, n| anew(&mail.replace("Subject: ", &format!("Subject: {n} ")), n)),
        ("another body", smart_host, |mail, n| anew(&mail.replace("Hello.", &format!("Hello {n}.")), n)),
    ];
    for (number, (name, client, made)) in alike.into_iter().enumerate() {
        let message = letter(&format!("alike-{number}"), 1000);
        let mut raw = client(&two);
        for pass in 0..12 {
            let said = hand_in(&mut raw, &["s0@c.test"], &made(&message, pass), ContentCommand::Data);
            assert!(said.starts_with("250"), "{name} {pass}: {said}");
        }
    }
    assert_eq!(two.secondary.taken().len(), 60);
    // One that would be refused: all that is counted by is the same.
    let mut raw = two.stranger();
    let said: Vec<String> = (0..9)
        .map(|pass| hand_in(&mut raw, &["s0@c.test"], &anew(&letter("none", 1000), pass), ContentCommand::Data))
        .collect();
    assert!(said[7].starts_with("250") && said[8].starts_with("554 5.4.6"), "{said:?}");
}

#[test]
fn in_report_mode_content_that_comes_back_is_counted_and_passes() {
    let mut two = TwoHops::start("", "", "");
    two.network.reconfigure("[[accepted_domain]]", "[loop_detection]\nmode = \"report\"\n\n[[accepted_domain]]");
    let mut raw = two.stranger();
    for size in [0, 300_000] {
        for pass in 0..10 {
            let message = anew(&letter(&format!("report-{size}"), size), pass);
            let said = hand_in(&mut raw, &["s0@c.test"], &message, ContentCommand::Data);
            assert!(said.starts_with("250"), "{size} {pass}: {said}");
        }
    }
    assert_eq!(two.network.node.metric("fingerpost_loops_total{rule=\"relay-memory\"}"), Some(4.0));
}
