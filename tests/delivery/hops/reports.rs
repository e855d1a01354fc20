//! Delay warnings, expiry, and reports that nobody takes.

use std::fs;

use support::test_network::{PEOPLE, Report, SOON, TestNetwork, connector, domain};
use support::wait_until;

const IMPATIENT: &str =
    "retry = { first = \"1s\", factor = 1.0, max = \"1s\", warn_after = \"2s\", give_up_after = \"6s\" }";

fn impatient(network: &mut TestNetwork, script: &str) -> support::scripted_smtp_server::ScriptedSmtpServer {
    let hop = network.hop(script);
    network.node.write("people.csv", "address\nann@c.test\nbob@c.test\n");
    let tables = connector("hop", hop.address, IMPATIENT) + &domain("c.test", "authoritative", "hop");
    network.start(&format!("{PEOPLE}{tables}"));
    hop
}

fn actions(reports: &[Report]) -> Vec<&str> {
    let mut actions: Vec<&str> = reports.iter().flat_map(|report| report.fields("Action")).collect();
    actions.sort_unstable();
    actions
}

#[test]
fn one_warning_and_one_failure_to_those_who_want_to_hear_them() {
    let mut network = TestNetwork::prepare();
    let hop = impatient(&mut network, "rcpt => 450 4.2.1 [10.1.2.3] is busy");
    let cases = [
        ("plain@outside.test", "", vec!["delayed", "failed"]),
        ("never@outside.test", " NOTIFY=NEVER", vec![]),
        ("failure@outside.test", " NOTIFY=FAILURE", vec!["failed"]),
        ("delay@outside.test", " NOTIFY=DELAY", vec!["delayed"]),
        ("success@outside.test", " NOTIFY=SUCCESS", vec![]),
        ("both@outside.test", " NOTIFY=DELAY,FAILURE", vec!["delayed", "failed"]),
    ];
    for (sender, notify, _) in &cases {
        network.send_with(&format!("<{sender}> ENVID=E-1"), &[&format!("<ann@c.test>{notify}")]);
    }
    network.send("", &["ann@c.test"]);
    network.send("two@outside.test", &["ann@c.test", "bob@c.test"]);
    network.quiet();
    for (sender, _, expected) in &cases {
        assert_eq!(actions(&network.reports(sender)), *expected, "{sender}");
    }
    let two = network.reports("two@outside.test");
    assert_eq!(two.len(), 2, "both recipients in one warning and one failure");
    assert_eq!(actions(&two), ["delayed", "delayed", "failed", "failed"]);
    assert!(network.reports("").is_empty() && network.senders.all().len() == 8, "something else was sent");
    assert!(hop.taken().is_empty());

    let reports = network.reports("plain@outside.test");
    let [delayed, failed] = reports.as_slice() else { panic!("{reports:?}") };
    assert_eq!(delayed.fields("Status"), ["4.2.1"]);
    assert_eq!(delayed.fields("Will-Retry-Until").len(), 1);
    assert_eq!(failed.fields("Status"), ["5.4.7"]);
    let said = failed.fields("Diagnostic-Code");
    assert!(
        said[0].starts_with("X-Fingerpost; 554 5.4.7 delivery time expired") && said[0].contains("450 4.2.1"),
        "{said:?}"
    );
    for report in &reports {
        assert_eq!(report.fields("Original-Envelope-Id"), ["E-1"]);
        assert!(!report.has("10.1.2.3") && !report.has("127.0.0.1]:"), "an internal host is shown: {report:?}");
    }
    for (action, count) in [("delayed", 4.0), ("failed", 4.0)] {
        assert_eq!(
            network.node.metric(&format!("fingerpost_dsn_total{{action=\"{action}\"}}")),
            Some(count),
            "{action}"
        );
    }
}

#[test]
fn a_next_hop_that_is_down_until_the_end_is_reported_once_without_internal_names() {
    let mut network = TestNetwork::prepare();
    let _hop = impatient(&mut network, "greeting => drop");
    network.send("s@outside.test", &["ann@c.test"]);
    network.quiet();
    let reports = network.reports("s@outside.test");
    assert_eq!(actions(&reports), ["delayed", "failed"]);
    for report in &reports {
        assert!(!report.has("127.0.0.1]:"), "an internal host is shown: {report:?}");
    }
}

#[test]
fn a_report_that_nobody_takes_is_kept_and_counted() {
    let mut network = TestNetwork::prepare();
    let nobody = network.hop("rcpt => 550 5.1.1 no such sender");
    let hop = network.hop("rcpt => 550 5.2.1 mailbox disabled");
    network.node.write("people.csv", "address\nann@c.test\n");
    let tables = connector("hop", hop.address, "")
        + &connector("nobody", nobody.address, "")
        + &domain("c.test", "authoritative", "hop");
    network.start(&format!("{PEOPLE}{tables}"));
    network.reconfigure("deliver_to = \"senders\"", "deliver_to = \"nobody\"");
    assert_eq!(network.node.metric("fingerpost_dead_letters"), Some(0.0));
    network.send("s@outside.test", &["ann@c.test"]);
    wait_until("a dead letter", SOON, || network.node.metric("fingerpost_dead_letters") == Some(1.0));
    network.quiet();
    assert_eq!(nobody.commands("MAIL").len(), 1, "no report about the report");
    assert!(nobody.commands("MAIL")[0].starts_with("MAIL FROM:<>"));
    let mut letters: Vec<_> =
        fs::read_dir(network.node.path("state/dead-letters")).unwrap().map(|file| file.unwrap().path()).collect();
    letters.sort();
    assert_eq!(
        letters.iter().map(|path| path.extension().unwrap().to_str().unwrap()).collect::<Vec<_>>(),
        ["eml", "json"]
    );
    let letter = fs::read_to_string(&letters[0]).unwrap();
    assert!(letter.contains("Final-Recipient: rfc822; ann@c.test") && letter.contains("550 5.2.1 mailbox disabled"));
    let envelope: serde_json::Value = serde_json::from_slice(&fs::read(&letters[1]).unwrap()).unwrap();
    assert_eq!(envelope["recipients"][0]["rcpt"]["address"], "s@outside.test");

    network.node.stop();
    network.node.start();
    // Counted beside the start.
    wait_until("it is still there", SOON, || network.node.metric("fingerpost_dead_letters") == Some(1.0));
}
