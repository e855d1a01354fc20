//! Next hops and clients that are slow but healthy take nothing from anybody else: no message to a healthy recipient hears
//! anything but 2xx, and each arrives once. `benches/slow-but-healthy` measures the same, and the time it takes; here
//! everything is smaller, and only counted.
//!
//! Everywhere a primary and a secondary share contoso.test. `pN` are in the directory and on the primary; `sN` are not,
//! and on the secondary; nobody had mail before.

mod fixture;
mod strangers;

use std::collections::BTreeSet;
use std::time::Duration;

use fixture::HealthySystems;
use strangers::{ContentCommand, Strangers, UPLOAD};
use support::senders::Raw;
use support::test_network::SOON;
use support::{tables, wait_until};

/// How long strangers may take over what they do.
const LONG: Duration = Duration::from_secs(60);

/// Users whom a hop has are taken, all others meet a tarpit of two seconds, longer than `cut_through_patience` if that is
/// one second. Whatever the harvesters hear, nobody else hears of it.
fn harvesters(patience: &str) -> BTreeSet<u16> {
    let script = "RCPT TO:<s => 250 2.1.5 ok\nRCPT => after 2000 550 5.1.1 User unknown";
    let systems = HealthySystems::start(["", script], patience);
    let harvesters = Strangers::harvest(&systems, 4);
    for answers in 1..=4 {
        wait_until("the harvesters' answers", LONG, || harvesters.fewest_heard() >= answers);
        systems.load(2);
    }
    systems.all_arrived();
    harvesters.end().into_iter().map(|(code, _)| code).collect()
}

#[test]
fn a_tarpit_longer_than_the_patience_delays_harvesters_only() {
    assert_eq!(harvesters("cut_through_patience = \"1s\""), BTreeSet::from([451]));
}

#[test]
fn a_tarpit_within_the_patience_refuses_harvesters() {
    assert_eq!(harvesters(""), BTreeSet::from([550]));
}

/// 30 recipients, pipelined, at 100 ms each: three times the patience in all.
#[test]
fn many_recipients_each_within_the_patience_are_one_message() {
    let script = "RCPT => after 100 250 2.1.5 ok";
    let systems = HealthySystems::start([script; 2], "cut_through_patience = \"1s\"");
    for (side, hop) in ["p", "s"].iter().zip(&systems.hops) {
        let mut raw = Raw::hello_from(fixture::client(0), systems.node().smtp);
        let recipients: String = (0..30).map(|n| format!("RCPT TO:<{side}{n}@contoso.test>\r\n")).collect();
        raw.send(format!("MAIL FROM:<ann@outside.test>\r\n{recipients}").as_bytes());
        let codes: Vec<u16> = (0..31).map(|_| raw.reply().0).collect();
        assert_eq!(codes, [250; 31], "{side}");
        assert_eq!(raw.say("DATA").0, 354);
        let said = raw.say("Message-ID: <1@outside.test>\r\n\r\nHello.\r\n.");
        assert!(said.1.starts_with("250 2.0.0 delivered"), "{said:?}");
        assert_eq!((hop.contents().len(), hop.taken().len()), (1, 30), "{side}");
    }
}

/// Five sessions on each side for four connections.
#[test]
fn sessions_that_talk_without_sending_keep_nobody_out() {
    let systems = HealthySystems::start(["", ""], "max_connections = 4");
    let talkers = Strangers::talk(&systems, 10);
    wait_until("all connections are held", SOON, || systems.hops.iter().all(|hop| hop.commands("RCPT").len() >= 4));
    systems.load(1);
    systems.all_arrived();
    talkers.end();
}

/// Two uploads on each side, at 60 KB a second, for one connection; larger than what is kept in memory.
#[test]
fn slow_uploads_keep_nobody_out() {
    for how in [ContentCommand::Data, ContentCommand::Bdat] {
        let systems = HealthySystems::start(["", ""], "max_connections = 1");
        let uploads = Strangers::upload(&systems, 4, how);
        wait_until("the connections are held", SOON, || {
            systems.hops.iter().all(|hop| !hop.commands("RCPT").is_empty())
        });
        systems.load(1);
        let heard = uploads.finish(LONG);
        assert!(heard.iter().all(|(code, _)| [250, 354].contains(code)), "{how:?}: {heard:?}");
        systems.all_arrived_beside(4);
        let large = systems.hops.iter().flat_map(|hop| hop.contents()).filter(|content| content.len() > UPLOAD - 100);
        assert_eq!(large.count(), 4, "{how:?}: whole");
    }
}

/// Ten clients at once, two connections; a third is greeted with 421.
#[test]
fn a_hop_that_takes_few_connections_gets_all() {
    let script = "over 2: greeting => 421 4.3.2 The maximum number of concurrent connections has exceeded a limit\n\
                  dot => after 200 250 2.6.0 Queued mail for delivery";
    let systems = HealthySystems::start([script; 2], "");
    systems.load(3);
    systems.all_arrived();
}

#[test]
fn another_connectors_frozen_hop_delays_nobody_else() {
    let mut systems = HealthySystems::prepare(["", ""]);
    let frozen = systems.network.hop("greeting => wait");
    let space = "address_spaces = [{ domain = \"branch.test\" }]\nmax_connections = 4";
    let branch = tables::send_connector("branch", frozen.address, space);
    let domain = "[[accepted_domain]]\ndomain = \"branch.test\"\ntype = \"external-relay\"\n\n";
    systems.go(&format!("{branch}{domain}"), "");
    let strangers = Strangers::ask(&systems, 10, "b@branch.test");
    wait_until("its hop is asked", SOON, || !frozen.seen().is_empty());
    systems.load(3);
    systems.all_arrived();
    strangers.end();
}

#[test]
fn one_frozen_smart_host_of_two_refuses_nobody() {
    for select in ["round-robin", "failover"] {
        let mut systems = HealthySystems::prepare(["", ""]);
        let frozen = systems.network.hop("greeting => wait");
        systems.beside = Some(frozen.address);
        systems.go("", &format!("select = \"{select}\""));
        systems.load(3);
        systems.all_arrived();
        assert!(!frozen.seen().is_empty(), "{select}: nobody tried it");
    }
}

/// The load counts what it is there for: refusals, and what does not arrive.
#[test]
#[should_panic(expected = "451")]
fn a_refusal_is_seen() {
    let systems = HealthySystems::start(["", "RCPT => 451 4.2.1 not now"], "");
    systems.load(1);
}

#[test]
fn each_side_has_its_own() {
    let systems = HealthySystems::start(["", ""], "");
    systems.load(2);
    systems.all_arrived();
    for (side, hop) in ["p", "s"].iter().zip(&systems.hops) {
        assert_eq!(hop.taken().iter().filter(|to| to.starts_with(side)).count(), 20, "{side}");
    }
}
