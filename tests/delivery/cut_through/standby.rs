//! A connector with several smart hosts: what shows only at DATA, in the content or at the dot that the first cannot,
//! brings one more, and no third; then `when_unreachable` decides. The client's session goes on.

use crate::cut_through::fixture::{STAFF, TwoHops, envelope, letter, say};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::test_network::TestNetwork;

/// `primary` has two more smart hosts behind the first.
struct ThreeSmartHosts {
    two: TwoHops,
    second: ScriptedSmtpServer,
    third: ScriptedSmtpServer,
}

impl ThreeSmartHosts {
    fn start(first: &str, second: &str) -> Self {
        let mut two = TwoHops::start(first, "", "select = \"failover\"");
        let (second, third) = (two.network.hop(second), two.network.hop(""));
        add(&mut two.network, &two.primary, &[&second, &third]);
        Self { two, second, third }
    }

    fn taken(&self) -> [Vec<String>; 3] {
        [self.two.primary.taken(), self.second.taken(), self.third.taken()]
    }
}

fn smart_host(hop: &ScriptedSmtpServer) -> String {
    format!("\"[{}]:{}\"", hop.address.ip(), hop.address.port())
}

/// More smart hosts behind that one.
fn add(network: &mut TestNetwork, first: &ScriptedSmtpServer, more: &[&ScriptedSmtpServer]) {
    let before = format!("smart_hosts = [{}]", smart_host(first));
    let all: Vec<String> = [first].iter().chain(more).map(|hop| smart_host(hop)).collect();
    network.reconfigure(&before, &format!("smart_hosts = [{}]", all.join(", ")));
}

/// What a hop says that shows itself unreachable, and KiB of content.
const CANNOT: [(&str, usize); 7] = [
    ("data => 421 4.3.2 shutting down", 0),
    ("data => drop", 0),
    ("data => 421 5.7.1 you are not welcome", 0),
    ("dot => 421 4.3.2 shutting down", 0),
    ("dot => 421 4.3.2 shutting down", 1024),
    ("content => 421 4.3.2 shutting down", 4096),
    ("content => drop", 4096),
];

#[test]
fn one_more_takes_what_the_first_could_not() {
    for (script, size) in CANNOT {
        let three = ThreeSmartHosts::start(script, "");
        let mut raw = three.two.stranger();
        envelope(&mut raw, "ann@outside.test", &["p0@c.test", "p1@c.test"]);
        say(&mut raw, &format!("{}.", letter("standby", size * 1024)), "250");
        say(&mut raw, "NOOP", "250");
        let [first, second, third] = three.taken();
        assert!(first.is_empty() && third.is_empty(), "{script}: {first:?}, {third:?}");
        assert_eq!(second, ["p0@c.test", "p1@c.test"], "{script}");
        assert!(three.two.network.queue().is_empty() && three.two.network.senders.all().is_empty(), "{script}");
    }
}

#[test]
fn a_third_is_not_tried_while_the_sender_waits() {
    for (script, size) in CANNOT {
        let three = ThreeSmartHosts::start(script, script);
        let mut raw = three.two.stranger();
        envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
        say(&mut raw, &format!("{}.", letter("both", size * 1024)), "250 2.0.0 queued");
        assert!(three.third.commands("DATA").is_empty(), "{script}");
        let waits = three.two.network.standing("p0@c.test").unwrap();
        let after_the_dot = waits["last_error"].as_str().unwrap().contains("after the final dot");
        assert_eq!(after_the_dot, script.starts_with("dot"), "{script}: {waits}");
        // The queue may go to any.
        three.two.network.deliver();
        assert_eq!(three.taken().concat(), ["p0@c.test"], "{script}");
        assert!(three.two.network.senders.all().is_empty(), "{script}");
    }
}

/// An answer is not asked for twice, and an unknown outcome neither.
#[test]
fn nobody_else_is_asked_about_an_answer() {
    for (script, expected) in [
        ("data => 452 4.3.1 disk full", "452 4.3.1"),
        ("dot => 451 4.7.1 scanner is busy", "451 4.7.1"),
        ("dot => 554 5.7.1 Relay access denied", "554 5.7.1"),
        ("dot => drop", "451 4.4.2"),
    ] {
        let three = ThreeSmartHosts::start(script, "");
        let mut raw = Raw::hello_from(STAFF, three.two.network.node.smtp);
        envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
        say(&mut raw, &format!("{}.", letter("answer", 0)), expected);
        say(&mut raw, "NOOP", "250");
        assert!(three.second.commands("DATA").is_empty(), "{script}");
        assert!(three.two.network.queue().is_empty(), "{script}");
    }
}
