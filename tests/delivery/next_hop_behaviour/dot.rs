//! The end of data, whatever a next hop does: unknown recipients among others, and a server that closes.

use std::fmt::Write as _;

use crate::cut_through::fixture::{
    RESOLVED, TwoHops, address_space, connector_to, envelope, letter, say, shared_domain,
};
use crate::next_hop_behaviour::fixture::{Heard, is_up, nothing_is_left, sends, sends_much};
use support::senders::Raw;
use support::test_network::{PEOPLE, SOON, TestNetwork};
use support::wait_until;

const SENDER: &str = "ann@outside.test";

/// As Exchange says it where its recipient filter runs on mailbox servers only.
const FILTER: &str = "550 5.1.1 RESOLVER.ADR.ExRecipNotFound; not found";

/// How a recipient's copies stand.
fn copies(two: &TwoHops, address: &str) -> usize {
    let taken = [two.primary.taken(), two.secondary.taken()].concat();
    taken.iter().filter(|to| *to == address).count()
}

fn dot_of(heard: &Heard, expected: &str) {
    assert!(heard.rcpt.iter().all(|said| said.0 == 250) && heard.dot().starts_with(expected), "{expected}: {heard:?}");
}

/// M9: one of three is unknown, in the first, the middle and the last place, in a message that is read first and in one
/// that streams, whether or not the hop knows CHUNKING.
#[test]
fn one_unknown_among_three_is_refused_and_the_others_arrive() {
    let offers = ["", "\nehlo => 250-next.hop\\n250-PIPELINING\\n250 CHUNKING"];
    for (round, offers) in offers.into_iter().enumerate() {
        let two = TwoHops::start("", &format!("with x: dot => {FILTER}{offers}"), "");
        for (number, size) in [0, 0, 700_000].into_iter().enumerate() {
            let mut to = [format!("s{number}0@c.test"), format!("s{number}1@c.test"), String::new()];
            to[2] = format!("x{number}@c.test");
            to.rotate_right(number);
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            let mut raw = two.stranger();
            let heard = sends_much(&mut raw, &format!("m9-{round}-{number}"), &to, size);
            dot_of(&heard, "250 2.0.0 queued as");
            say(&mut raw, "NOOP", "250");
            for to in &to {
                assert_eq!(copies(&two, to), usize::from(!to.starts_with('x')), "{to}");
            }
            // A mix is 250 and a report.
            wait_until("the report", SOON, || two.network.reports(SENDER).len() == number + 1);
            let unknown = format!("rfc822; x{number}@c.test");
            let reports = two.network.reports(SENDER);
            let about =
                |report: &&support::test_network::Report| report.fields("Final-Recipient") == [unknown.as_str()];
            let report = reports.iter().find(about).unwrap_or_else(|| panic!("{reports:?}"));
            assert_eq!(report.fields("Status"), ["5.1.1"]);
            // Unresolved and refused so: at RCPT from now on, and nobody asks the hop.
            let asked = two.secondary.commands("RCPT TO:<x").len();
            let heard = sends(two.network.node.smtp, "again", &[&format!("x{number}@c.test")]);
            assert!(heard.codes() == [550] && heard.last().starts_with("550 5.1.1"), "{heard:?}");
            assert_eq!(two.secondary.commands("RCPT TO:<x").len(), asked);
        }
        two.network.quiet();
        is_up(&two.network, "secondary", two.secondary.address);
    }
}

/// M9: nobody is there: that is the sender's answer, and nobody gets a report.
#[test]
fn if_all_are_unknown_the_message_is_refused() {
    let two = TwoHops::start("", &format!("dot => {FILTER}"), "");
    let heard = sends(two.network.node.smtp, "all", &["x0@c.test", "x1@c.test", "x2@c.test"]);
    dot_of(&heard, "550 5.1.1 secondary said:");
    let heard = sends(two.network.node.smtp, "alone", &["x3@c.test"]);
    dot_of(&heard, "550 5.1.1 secondary said:");
    nothing_is_left(&two.network);
}

/// M9: more than go again while the sender waits: the others are queued, and arrive from there, once.
#[test]
fn of_many_recipients_all_that_exist_have_one_copy_in_the_end() {
    let two = TwoHops::start("", &format!("with x: dot => {FILTER}"), "");
    let mut to: Vec<String> = (0..40).map(|number| format!("s{number}@c.test")).collect();
    to.insert(7, "x0@c.test".to_owned());
    let heard = sends(two.network.node.smtp, "many", &to.iter().map(String::as_str).collect::<Vec<_>>());
    dot_of(&heard, "250 2.0.0 queued as");
    two.network.deliver();
    for to in &to {
        assert_eq!(copies(&two, to), usize::from(!to.starts_with('x')), "{to}");
    }
    wait_until("the report", SOON, || two.network.reports(SENDER).len() == 1);
    assert_eq!(two.network.reports(SENDER)[0].fields("Final-Recipient"), ["rfc822; x0@c.test"]);
}

/// M8: whom the directory has, or who had mail lately, is doubted at the dot as at RCPT: 451 alone, queued among others.
#[test]
fn who_exists_is_doubted_at_the_dot_too() {
    let two = TwoHops::start("", "", "");
    let door = two.network.node.smtp;
    sends(door, "good", &["s0@c.test"]).is_delivered();
    for unknown in [FILTER, "550 5.4.1 Recipient address rejected: Access denied", "550 5.1.10 RecipientNotFound"] {
        two.primary.follow(&format!("with p0: dot => {unknown}"));
        two.secondary.follow(&format!("with s0: dot => {unknown}"));
        for doubted in ["p0@c.test", "s0@c.test"] {
            dot_of(&sends(door, "alone", &[doubted]), "451 4.3.0");
        }
    }
    nothing_is_left(&two.network);
    dot_of(&sends(door, "among", &["p0@c.test", "p1@c.test", "s0@c.test", "s1@c.test"]), "250 2.0.0 queued as");
    for doubted in ["p0@c.test", "s0@c.test"] {
        two.network.waits(doubted, "");
        assert_eq!(copies(&two, doubted.replace('0', "1").as_str()), 1, "{doubted}");
    }
    two.primary.follow("");
    two.secondary.follow("");
    two.network.deliver();
    assert_eq!((copies(&two, "p0@c.test"), copies(&two, "s0@c.test")), (1, 2));
    assert!(two.network.senders.all().is_empty());
}

/// M10: a network with so many smart hosts, of which the first closes at some point.
fn closing(step: &str, count: usize) -> (TestNetwork, [support::scripted_smtp_server::ScriptedSmtpServer; 2]) {
    let mut network = TestNetwork::prepare();
    let hops = [
        network.hop(&format!("{step} => 421 4.3.2 Service not available, closing transmission channel")),
        network.hop(""),
    ];
    let mut people = "address\n".to_owned();
    (0..RESOLVED).for_each(|number| writeln!(people, "p{number}@c.test").unwrap());
    network.node.write("people.csv", &people);
    let to_all = |table: String| {
        let all = hops.each_ref().map(|hop| format!("\"[{}]:{}\"", hop.address.ip(), hop.address.port()));
        table.replace(&format!("[{}]", all[0]), &format!("[{}]", all[..count].join(", ")))
    };
    let tables = connector_to("primary", hops[0].address, "select = \"failover\"")
        + &connector_to("secondary", hops[0].address, &format!("{}\nselect = \"failover\"", address_space("c.test")));
    network.start(&format!("{PEOPLE}{}{}", to_all(tables), shared_domain("c.test", "primary")));
    (network, hops)
}

/// M10: the next smart host is tried, and the client hears nothing of it.
#[test]
fn a_421_at_any_step_goes_to_the_standby() {
    for step in ["mail", "rcpt", "data", "dot"] {
        let (network, hops) = closing(step, 2);
        let mut raw = Raw::hello(network.node.smtp);
        for (number, to) in ["s0@c.test", "p0@c.test"].into_iter().enumerate() {
            let heard = sends_much(&mut raw, &format!("standby-{number}"), &[to], 0);
            assert!(heard.last().starts_with("250 2.0.0 delivered"), "{step}: {heard:?}");
            let heard = sends_much(&mut raw, &format!("large-{number}"), &[to], 700_000);
            assert!(heard.last().starts_with("250 2.0.0"), "{step}: {heard:?}");
        }
        network.deliver();
        assert!(hops[0].taken().is_empty() && hops[1].taken().len() == 4, "{step}: {:?}", hops[1].taken());
        assert!(network.senders.all().is_empty());
    }
}

/// M10: without one it is unreachable, and the client's session goes on.
#[test]
fn a_421_at_any_step_ends_nobodys_session() {
    for step in ["mail", "rcpt", "data", "dot"] {
        let (network, hops) = closing(step, 1);
        let mut raw = Raw::hello(network.node.smtp);
        for size in [0, 700_000] {
            let heard = sends_much(&mut raw, "unresolved", &["s0@c.test"], size);
            let last = heard.last().to_owned();
            assert!(last.starts_with("451 4.4."), "{step}, {size}: {heard:?}");
            say(&mut raw, "NOOP", "250");
        }
        let heard = sends_much(&mut raw, "resolved", &["p0@c.test"], 0);
        assert!(heard.last().starts_with("250 2.0.0 queued"), "{step}: {heard:?}");
        say(&mut raw, "NOOP", "250");
        network.waits("p0@c.test", "421 4.3.2");
        hops[0].follow("");
        network.deliver();
        assert_eq!(hops[0].taken(), ["p0@c.test"], "{step}");
        assert!(network.senders.all().is_empty());
    }
}

/// M12: a pooled connection from before the hop was restarted is dead, and what it offered is not what is offered now.
#[test]
fn what_a_dead_connection_offered_refuses_nothing() {
    let extension = [("8BITMIME", " BODY=8BITMIME", "Gr\u{fc}\u{df}e"), ("SIZE 60000", "", "long")];
    for (number, (offers, parameters, word)) in extension.into_iter().enumerate() {
        for delivery in ["queue", "cut-through"] {
            let before = if number == 0 {
                "ehlo => 250-next.hop\\n250 PIPELINING"
            } else {
                "ehlo => 250-next.hop\\n250 SIZE 5000"
            };
            let lines = format!("delivery = \"{delivery}\"\neight_bit = \"refuse\"");
            let two = TwoHops::start(before, "", &lines);
            let mut raw = two.stranger();
            // A connection for the pool.
            let heard = sends_much(&mut raw, "before", &["p0@c.test"], 0);
            assert!(heard.last().starts_with("250"), "{heard:?}");
            wait_until("the first message", SOON, || copies(&two, "p0@c.test") == 1);
            // It is dead: whatever is said on it.
            let dead = ["mail", "rset", "noop", "rcpt"].map(|verb| format!("again: {verb} => drop\n")).concat();
            two.primary.follow(&format!("{dead}ehlo => 250-next.hop\\n250 {offers}"));
            let body = if number == 0 { word.to_owned() } else { letter("much", 20_000) };
            say(&mut raw, &format!("MAIL FROM:<{SENDER}>{parameters}"), "250");
            say(&mut raw, "RCPT TO:<p1@c.test>", "250");
            say(&mut raw, "DATA", "354");
            let message = letter(&format!("after-{delivery}"), 0);
            let said = say(&mut raw, &format!("{message}{body}\r\n."), "250 2.0.0");
            two.network.deliver();
            wait_until("the second message", SOON, || copies(&two, "p1@c.test") == 1);
            assert!(two.network.senders.all().is_empty(), "{offers}, {delivery}: bounced; {said}");
        }
    }
}

/// M13: what we find wrong with a message is not in the next hop's mouth.
#[test]
fn a_refusal_of_ours_is_ours() {
    let two = TwoHops::start("ehlo => 250-next.hop\\n250 SIZE 1000000", "", "eight_bit = \"refuse\"");
    let mut raw = two.stranger();
    say(&mut raw, &format!("MAIL FROM:<{SENDER}> BODY=8BITMIME"), "250");
    let (code, at_rcpt) = raw.say("RCPT TO:<p0@c.test>");
    let said = if code == 250 {
        say(&mut raw, "DATA", "354");
        raw.say(&format!("{}Gr\u{fc}\u{df}e\r\n.", letter("eight", 0))).1
    } else {
        at_rcpt
    };
    assert!(said.starts_with("554 5.6.3 ") && !said.contains("said"), "{said}");
    say(&mut raw, "RSET", "250");
    envelope(&mut raw, SENDER, &["p0@c.test"]);
    let (_, said) = raw.say(&format!("{}.", letter("size", 1_100_000)));
    assert!(said.starts_with("552 5.3.4 ") && !said.contains("said"), "{said}");
    nothing_is_left(&two.network);
}

/// Whose outcome nobody knows waits for `retry.first`, an hour here, from the attempt on, not from when the message began
/// to come.
#[test]
fn the_wait_for_an_unknown_outcome_begins_with_it() {
    let two = TwoHops::start("", "dot => drop", "");
    let mut raw = two.stranger();
    envelope(&mut raw, SENDER, &["p0@c.test", "s0@c.test"]);
    let text = letter("late", 0);
    raw.send(text.as_bytes());
    std::thread::sleep(std::time::Duration::from_secs(3)); // the sender's own time
    let before = fingerpost::time::UnixTime::now();
    say(&mut raw, ".", "250 2.0.0 queued as");
    let standing = two.network.waits("s0@c.test", "");
    let next = standing["next_attempt"].as_u64().unwrap_or_else(|| panic!("{standing}"));
    assert!(next >= before.0 + 3600, "{next}, {before}");
}
