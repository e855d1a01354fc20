//! What an operator does and reads while a next hop is slow or busy.

use support::test_network::{BY_HAND, PEOPLE, SOON, TestNetwork, connector, domain};
use support::wait_until;

const SENDER: &str = "s@outside.test";

/// Ann and Bob have their mail at one next hop.
fn start_network(script: &str) -> (TestNetwork, support::scripted_smtp_server::ScriptedSmtpServer) {
    let mut network = TestNetwork::prepare();
    let hop = network.hop(script);
    network.node.write("people.csv", "address\nann@c.test\nbob@c.test\n");
    let tables = connector("hop", hop.address, BY_HAND) + &domain("c.test", "authoritative", "hop");
    network.start(&format!("{PEOPLE}{tables}"));
    (network, hop)
}

#[test]
fn what_is_dropped_while_it_is_tried_is_not_reported() {
    for (then, delivered) in [
        ("rcpt => 550 5.2.1 mailbox disabled", 0),
        ("rcpt => 550 5.1.1 no such user", 0),
        ("rcpt => 450 4.2.1 busy", 0),
        ("rcpt to:<ann@ => 550 5.2.1 mailbox disabled", 1),
        ("", 2),
    ] {
        let (network, hop) = start_network("rcpt => wait");
        network.send(SENDER, &["ann@c.test", "bob@c.test"]);
        wait_until("the attempt", SOON, || !hop.commands("RCPT").is_empty());
        let shown = network.standing("ann@c.test").unwrap();
        let dropped = network.node.run(&["queue", "drop", shown["id"].as_str().unwrap()]);
        assert!(dropped.status.success(), "{dropped:?}");
        hop.follow(then);
        network.quiet();
        assert_eq!(hop.taken().len(), delivered, "{then}");
        for action in ["failed", "delayed"] {
            let made = network.node.metric(&format!("fingerpost_dsn_total{{action=\"{action}\"}}"));
            assert_eq!(made, Some(0.0), "{then}");
        }
        assert!(network.senders.all().is_empty(), "{then}: somebody was told");
    }
}

#[test]
fn one_grep_tells_a_messages_whole_story() {
    let (network, hop) = start_network("rcpt to:<ann@ => 450 4.2.1 busy\nrcpt to:<bob@ => 550 5.2.1 mailbox disabled");
    network.send(SENDER, &["ann@c.test", "bob@c.test"]);
    let id = network.waits("ann@c.test", "busy")["id"].as_str().unwrap().to_owned();
    hop.follow("");
    network.deliver();
    let story = ["message accepted", "deferred", "failed", "delivered"];
    let log = network.node.logged(&story);
    for (name, word) in [("queue id", id.as_str()), ("Message-ID", "<0@outside.test>")] {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(word)).collect();
        for event in story {
            assert!(lines.iter().any(|line| line.contains(event)), "{event} is not told by {name}: {lines:?}");
        }
    }
    let events = ["received", "resolved", "deferred", "failed", "dsn", "delivered"];
    wait_until("the whole story in the trace", SOON, || {
        let trace = network.node.run(&["trace", "--message-id", "0@outside.test"]);
        let trace = String::from_utf8_lossy(&trace.stdout).into_owned();
        events.iter().all(|what| trace.lines().any(|line| line.contains(&format!(" {what} ")) && line.contains(&id)))
    });
}
