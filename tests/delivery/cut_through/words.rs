//! Whose words the sender reads: a refusal is passed on as it was said, without internal names; a fault between us and
//! the next hop never becomes the recipient's.

use crate::cut_through::fixture::{STAFF, TwoHops, envelope, letter, say};
use support::senders::Raw;
use support::test_network::SOON;
use support::wait_until;

/// Refusals that are the recipient's own, whatever names and addresses stand in them: the enhanced code, and the words
/// that must come through. A policy's refusal without a row that has an address is about us; these have rows, or codes
/// that are about nobody else.
const INNER: [(&str, &str, &str); 3] = [
    ("550 5.7.133", "ex1.contoso.local [10.1.2.3] says RESOLVER.RST.SenderNotAuthenticatedForGroup", "SenderNotAuth"),
    ("550 5.2.1", "ex1.contoso.local [10.1.2.3] wants no mail for this mailbox", "wants no mail for this mailbox"),
    (
        "550 5.7.1",
        "Delivery not authorized, message refused by ex1.contoso.local [10.1.2.3]",
        "Delivery not authorized",
    ),
];

/// A refusal's code, organisation and words are there.
fn is_passed_on(said: &str, (code, _, words): (&str, &str, &str)) {
    assert!(said.starts_with(&format!("{code} ")), "{said}");
    assert!(said.contains("primary"), "the organisation's name is missing: {said}");
    assert!(said.contains(words), "its words are missing: {said}");
}

#[test]
fn strangers_do_not_learn_internal_names() {
    for inner in INNER {
        let (code, text, _) = inner;
        let two = TwoHops::start(&format!("rcpt to:<p0 => {code} {text}\ndot => {code} {text}"), "", "");
        let mut stranger = two.stranger();
        say(&mut stranger, "MAIL FROM:<ann@outside.test>", "250");
        let at_rcpt = say(&mut stranger, "RCPT TO:<p0@c.test>", code);
        say(&mut stranger, "RSET", "250");
        envelope(&mut stranger, "ann@outside.test", &["p1@c.test"]);
        let at_dot = say(&mut stranger, &format!("{}.", letter("hidden", 0)), code);
        for said in [&at_rcpt, &at_dot] {
            is_passed_on(said, inner);
            assert!(said.contains("[hidden]"), "{said}");
            assert!(!said.contains("10.1.2.3") && !said.contains("ex1.contoso.local"), "{said}");
        }

        let mut staff = Raw::hello_from(STAFF, two.network.node.smtp);
        say(&mut staff, "MAIL FROM:<ann@outside.test>", "250");
        let said = say(&mut staff, "RCPT TO:<p0@c.test>", code);
        is_passed_on(&said, inner);
        assert!(said.contains("ex1.contoso.local [10.1.2.3]"), "no stranger: {said}");
        assert!(two.network.queue().is_empty());
        assert!(two.network.senders.all().is_empty(), "who was told while connected gets no report");
        assert_eq!(two.network.alerts(""), 0, "nothing of it is about us: {code} {text}");
    }
}

#[test]
fn nothing_is_hidden_where_it_need_not_be() {
    for inner in INNER {
        let (code, text, _) = inner;
        let two = TwoHops::start(&format!("rcpt to:<p0 => {code} {text}"), "", "hide_internal_hosts = false");
        let mut stranger = two.stranger();
        say(&mut stranger, "MAIL FROM:<ann@outside.test>", "250");
        let said = say(&mut stranger, "RCPT TO:<p0@c.test>", code);
        is_passed_on(&said, inner);
        assert!(said.contains("ex1.contoso.local [10.1.2.3]"), "{said}");
    }
}

/// Each line of a reply of several lines has the code; none has internal names.
#[test]
fn a_reply_of_several_lines_stays_one_reply() {
    let lines = "550-5.7.1 blocked by gw.contoso.local\\n550-5.7.1 ask the postmaster\\n550 5.7.1 or nobody";
    let two = TwoHops::start(&format!("rcpt => {lines}"), "", "");
    let mut stranger = two.stranger();
    say(&mut stranger, "MAIL FROM:<ann@outside.test>", "250");
    let said = say(&mut stranger, "RCPT TO:<p0@c.test>", "550");
    assert!(said.lines().all(|line| line.starts_with("550")), "{said}");
    assert!(said.contains("ask the postmaster") && said.contains("or nobody"), "{said}");
    assert!(!said.contains("gw.contoso.local"), "{said}");
    say(&mut stranger, "NOOP", "250");
}

/// By code at every step; by words at MAIL and RCPT only. Each with the row that log and alert name.
const BETWEEN_US: [(&str, &str); 19] = [
    ("rcpt => 550 5.7.64 TenantAttribution; Relay Access Denied", "exchange-attribution"),
    ("rcpt => 554 5.7.1 <p0@c.test>: Relay access denied", "relay-denied"),
    ("rcpt => 454 4.7.1 <p0@c.test>: Relay access denied", "relay-denied"),
    ("rcpt => 550 relay not permitted", "relay-denied"),
    ("rcpt => 550 5.7.54 SMTP; Unable to relay recipient in non-accepted domain", "exchange-relay-denied"),
    ("rcpt => 554 5.7.1 <mx.c.test[203.0.113.7]>: Client host rejected: Access denied", "postfix-client-rejected"),
    (
        "rcpt => 554 5.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.list.test",
        "postfix-block-list",
    ),
    ("rcpt => 550 5.7.1 ex1.contoso.local [10.1.2.3] wants no mail for this list", "host-refused"),
    ("rcpt => 550 5.7.25 no PTR record", "no-ptr"),
    ("rcpt => 530 5.7.0 Authentication required", "authentication"),
    ("mail => 530 5.7.57 Client not authenticated to send mail", "exchange-anonymous"),
    ("mail => 535 5.7.3 Authentication unsuccessful", "authentication"),
    ("mail => 550 5.7.606 Access denied, banned sending IP [203.0.113.7]", "exchange-banned-ip"),
    ("mail => 550 5.7.51 TenantInboundAttribution; partner connector", "exchange-attribution"),
    ("data => 530 5.7.0 must authenticate first", "authentication"),
    ("data => 550 5.7.60 SMTP; Client does not have permissions to send as this sender", "exchange-send-as"),
    ("dot => 550 5.7.64 TenantAttribution", "exchange-attribution"),
    ("dot => 550 5.7.25 no PTR record", "no-ptr"),
    ("dot => 550 5.7.606 Access denied, banned sending IP [203.0.113.7]", "exchange-banned-ip"),
];

#[test]
fn a_fault_between_us_is_never_the_recipients() {
    for (script, row) in BETWEEN_US {
        let two = TwoHops::start(script, script, "");
        let mut stranger = two.stranger();
        envelope(&mut stranger, "ann@outside.test", &["p0@c.test"]);
        let said = say(&mut stranger, &format!("{}.", letter("fault", 0)), "250 2.0.0");
        assert!(!said.to_lowercase().contains("relay"), "{script}: {said}");
        two.network.waits("p0@c.test", script.split_once(" => ").unwrap().1);
        assert!(two.network.alerts(&format!("row=\"{row}\"")) > 0, "{script}: nobody is told of {row}");
        assert!(two.network.alerts("send_connector=primary ") > 0, "{script}: nobody is told");

        // A stranger's unresolved recipient: nothing can be promised, and nothing is anybody's fault.
        say(&mut stranger, "MAIL FROM:<ann@outside.test>", "250");
        let (code, at_rcpt) = stranger.say("RCPT TO:<s0@c.test>");
        let at_rcpt = if code == 250 {
            say(&mut stranger, "DATA", "354");
            stranger.say(&format!("{}.", letter("fault-2", 0))).1
        } else {
            at_rcpt
        };
        assert!(at_rcpt.starts_with("451 4.4.1"), "{script}: {at_rcpt}");
        assert!(!at_rcpt.to_lowercase().contains("relay"), "{script}: {at_rcpt}");
        if !script.starts_with("mail") {
            // What a test of the next hop does not meet says nothing of its health.
            assert_eq!(two.up("primary"), Some(1.0), "{script}");
        }
        two.primary.follow("");
        two.network.deliver();
        assert_eq!(two.primary.taken(), ["p0@c.test"], "{script}");
        assert!(two.secondary.taken().is_empty() && two.network.senders.all().is_empty(), "{script}");
    }
}

/// However much mail meets it, an operator hears of it once (an hour).
#[test]
fn one_alert_for_each_hop_and_row() {
    let two = TwoHops::start("rcpt to:<p1 => 550 5.7.64 TenantAttribution\nrcpt => 550 5.7.25 no PTR record", "", "");
    for number in [0, 1, 0, 1, 2] {
        let mut stranger = two.stranger();
        envelope(&mut stranger, "ann@outside.test", &[&format!("p{number}@c.test")]);
        say(&mut stranger, &format!("{}.", letter(&format!("alert-{number}"), 0)), "250");
    }
    for row in ["no-ptr", "exchange-attribution"] {
        assert_eq!(two.network.alerts(&format!("row=\"{row}\" look_at=")), 1, "{row}");
    }
    assert_eq!(two.network.alerts("send_connector=primary "), 2);
}

/// What is denied for one domain, or one group, is not denied for all, however often it is.
#[test]
fn what_one_recipient_is_refused_for_is_nobody_elses() {
    for (script, expected) in [
        ("rcpt to:<p0 => 550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", "550 5.7.133"),
        ("rcpt to:<p0 => 550 5.1.1 no such user", "451 4.3.0"),
        ("rcpt to:<p0 => 550 5.7.1 not for you", "550 5.7.1"),
    ] {
        let two = TwoHops::start(script, "", "");
        for number in 0..25 {
            let mut stranger = two.stranger();
            say(&mut stranger, &format!("MAIL FROM:<ann@outside{number}.test>"), "250");
            say(&mut stranger, "RCPT TO:<p0@c.test>", expected);
            say(&mut stranger, "QUIT", "221");
        }
        let mut stranger = two.stranger();
        envelope(&mut stranger, "ann@outside.test", &["p1@c.test"]);
        say(&mut stranger, &format!("{}.", letter("others", 0)), "250");
        assert_eq!(two.primary.taken(), ["p1@c.test"], "{script}");
        assert_eq!((two.up("primary"), two.network.alerts("")), (Some(1.0), 0), "{script}");
    }
}

#[test]
fn what_was_refused_while_connected_leaves_nothing_behind() {
    let two = TwoHops::start("dot => 554 5.7.1 looks like spam", "rcpt => 550 5.1.1 no such user", "");
    let mut stranger = two.stranger();
    for number in 0..5 {
        say(&mut stranger, "MAIL FROM:<ann@outside.test>", "250");
        say(&mut stranger, "RCPT TO:<s0@c.test>", "550 5.1.1");
        say(&mut stranger, "RCPT TO:<p0@c.test>", "250");
        say(&mut stranger, "DATA", "354");
        say(&mut stranger, &format!("{}.", letter(&format!("spam-{number}"), 0)), "554 5.7.1");
    }
    wait_until("an empty queue", SOON, || two.network.queue().is_empty());
    assert!(two.network.senders.all().is_empty(), "backscatter");
    for action in ["failed", "delayed", "relayed"] {
        let count = two.network.node.metric(&format!("fingerpost_dsn_total{{action=\"{action}\"}}"));
        assert_eq!(count, Some(0.0), "{action}");
    }
}

/// What a next hop took at once, what the queue delivered later and the report about the rest are told in the same
/// words.
#[test]
fn one_grep_tells_a_messages_whole_story() {
    let two = TwoHops::start("", "dot => 452 4.3.1 out of disk", "");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
    let said = say(&mut raw, &format!("{}.", letter("story", 0)), "250 2.0.0 queued as ");
    let id = said.trim_end().rsplit(' ').next().unwrap();
    two.secondary.follow("dot => 554 5.7.1 of no interest");
    two.network.deliver();
    wait_until("the report", SOON, || two.network.reports("ann@outside.test").len() == 1);

    let log = two.network.node.log();
    let story: Vec<&str> = log.lines().filter(|line| line.contains(&format!("queue_id={id}"))).collect();
    let mut at = 0;
    for (what, words) in [
        ("message accepted", "sender=<ann@outside.test>"),
        ("delivered", "to=p0@c.test send_connector=primary"),
        ("deferred", "to=s0@c.test send_connector=secondary"),
        ("failed", "send_connector=secondary"),
        ("report made", "report="),
    ] {
        let is_it = |line: &&str| line.contains(&format!("{what} queue_id=")) && line.contains(words);
        let found = story[at..].iter().position(is_it);
        at += found.unwrap_or_else(|| panic!("no {what:?} with {words:?} in\n{}", story[at..].join("\n")));
    }
    let other: Vec<_> =
        log.lines().filter(|line| line.contains(id) && !line.contains(&format!("queue_id={id}"))).collect();
    assert!(other.is_empty(), "{other:?}");
}
