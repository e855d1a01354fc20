//! A scripted Exchange: its tarpit, its throttling, its back pressure, its limits of connections, and what follows for
//! everybody else, which is nothing.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fingerpost::routing::recently_good::RecentlyGood;
use fingerpost::smtp::address::Address;
use fingerpost::time::{Moment, QueueTime, UnixTime};

use crate::cut_through::fixture::{STAFF, TwoHops, address_space, connector_to, letter, say, shared_domain};
use crate::next_hop_behaviour::fixture::{allowed, is_up, nothing_is_left, sends};
use support::senders::Raw;
use support::test_network::{PEOPLE, SOON, TestNetwork};
use support::{wait_until, within};

/// Exchange's default for whoever asks for an unknown recipient (TarpitInterval).
const TARPIT: Duration = Duration::from_secs(5);

/// P1: whoever asks hears 550 after the wait; nobody else waits, and the hop stays up.
#[test]
fn a_tarpit_keeps_those_waiting_who_ask_for_nobody() {
    let script = "rcpt to:<x => after 5000 550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found";
    let two = TwoHops::start("", script, "");
    let over = AtomicBool::new(false);
    let heard = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for harvester in 0..4 {
            let (two, over, heard) = (&two, &over, &heard);
            scope.spawn(move || {
                let mut raw = two.stranger();
                say(&mut raw, &format!("MAIL FROM:<harvester{harvester}@outside.test>"), "250");
                let begun = Instant::now();
                let (_, said) = raw.say(&format!("RCPT TO:<x{harvester}@c.test>"));
                heard.lock().unwrap().push((said, begun.elapsed()));
                over.store(true, Ordering::SeqCst);
            });
        }
        wait_until("the harvesters' questions", SOON, || two.secondary.commands("RCPT TO:<x").len() == 4);
        let mut number = 0;
        while !over.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let (resolved, unresolved) = (format!("p{}@c.test", number % 100), format!("s{}@c.test", number % 100));
            sends(two.network.node.smtp, &format!("well-{number}"), &[&resolved, &unresolved]).is_delivered();
            assert!(begun.elapsed() < TARPIT, "somebody else waited {:?}", begun.elapsed());
            number += 1;
        }
        assert!(number > 1, "{number} messages meanwhile");
    });
    for (said, waited) in heard.into_inner().unwrap() {
        assert!(said.starts_with("550 5.1.1 secondary said:") && waited >= TARPIT, "{said} after {waited:?}");
    }
    is_up(&two.network, "secondary", two.secondary.address);
    assert_eq!(two.network.alerts("send_connector="), 0);
    nothing_is_left(&two.network);
}

/// P1: a tarpit beyond the patience has nothing against the hop either: whoever asks comes again.
#[test]
fn a_tarpit_beyond_the_patience_is_no_outage() {
    let two = TwoHops::start("", "rcpt to:<x => after 3000 550 5.1.1 User unknown", "cut_through_patience = \"1s\"");
    for number in 0..3 {
        let heard = sends(two.network.node.smtp, "harvest", &[&format!("x{number}@c.test")]);
        assert!(heard.last().starts_with("451 4.4.1"), "{heard:?}");
        sends(two.network.node.smtp, &format!("well-{number}"), &["s0@c.test"]).is_delivered();
        is_up(&two.network, "secondary", two.secondary.address);
    }
    nothing_is_left(&two.network);
}

/// P6: what is said to the first recipient is his alone.
#[test]
fn back_pressure_for_the_first_recipient_is_his_alone() {
    for says in [
        "452 4.3.1 Insufficient system resources (UsedDiskSpace)",
        "451 4.3.0 Temporary server error",
        "451 4.2.1 not now",
    ] {
        let two = TwoHops::start(&format!("rcpt to:<p0 => {says}"), &format!("rcpt to:<s0 => {says}"), "");
        let heard = sends(two.network.node.smtp, "first", &["s0@c.test", "s1@c.test", "s2@c.test"]);
        assert_eq!(heard.codes(), [451, 250, 250], "{says}: {heard:?}");
        assert!(heard.dot().starts_with("250 2.0.0 delivered"), "{says}: {heard:?}");
        // Where the hop is to blame, whom the directory has is queued for.
        let heard = sends(two.network.node.smtp, "resolved", &["p0@c.test", "p1@c.test"]);
        let queued = !says.contains("4.2.1");
        assert_eq!(heard.codes(), [if queued { 250 } else { 451 }, 250], "{says}: {heard:?}");
        assert!(heard.dot().starts_with(if queued { "250 2.0.0 queued" } else { "250 2.0.0 delivered" }), "{heard:?}");
        is_up(&two.network, "secondary", two.secondary.address);
        two.primary.follow("");
        two.network.deliver();
        assert_eq!(two.primary.taken().iter().filter(|to| *to == "p0@c.test").count(), usize::from(queued), "{says}");
        assert_eq!((two.secondary.taken().len(), two.network.senders.all().len()), (2, 0));
    }
}

/// M4, P5: throttled, at any step: the brake and no outage. Strangers' unresolved recipients come again, others' mail is
/// queued.
#[test]
fn throttling_is_a_brake_and_no_outage() {
    let says = "451 4.7.500 Server busy. Please try again later from [127.0.0.1]. (S77719)";
    for step in ["mail", "rcpt", "data", "dot"] {
        let rule = format!("{step} => {says}");
        let two = TwoHops::start(&rule, &rule, "max_connections = 20");
        let host = two.secondary.address;
        let heard = sends(two.network.node.smtp, "unresolved", &["s0@c.test"]);
        assert!(heard.last().starts_with("451 4.4.1"), "{step}: {heard:?}");
        let heard = sends(two.network.node.smtp, "resolved", &["p0@c.test"]);
        assert!(heard.last().starts_with("250 2.0.0 queued"), "{step}: {heard:?}");
        two.network.waits("p0@c.test", "4.7.500");
        if step != "mail" {
            is_up(&two.network, "secondary", host);
        }
        assert!(within(SOON, || allowed(&two.network, "secondary", host) < 20.0), "{step}: no brake");
        two.primary.follow("");
        two.secondary.follow("");
        two.network.deliver();
        assert_eq!(two.primary.taken(), ["p0@c.test"], "{step}");
        assert!(within(SOON, || sends(two.network.node.smtp, "well", &["s1@c.test"]).last().starts_with("250")));
        assert!(two.network.senders.all().is_empty());
    }
}

/// P5: `MaxInboundConnectionPerSource` and its like: a few connections are served, one more is told off at once.
#[test]
fn a_421_at_the_greeting_while_others_live_means_fewer_connections() {
    let script =
        "over 3: greeting => 421 4.3.2 Service not available\ndot => after 300 250 2.6.0 Queued mail for delivery";
    let two = TwoHops::start("", script, "max_connections = 20");
    std::thread::scope(|scope| {
        for client in 0..12 {
            let two = &two;
            scope.spawn(move || {
                for message in 0..3 {
                    let id = format!("few-{client}-{message}");
                    sends(two.network.node.smtp, &id, &[&format!("s{client}@c.test")]).is_delivered();
                }
            });
        }
    });
    assert_eq!(two.secondary.taken().len(), 36);
    let allowed = allowed(&two.network, "secondary", two.secondary.address);
    assert!((1.0..20.0).contains(&allowed), "{allowed} connections of 20");
    is_up(&two.network, "secondary", two.secondary.address);
    nothing_is_left(&two.network);
}

/// M4b: a group that takes mail of its own people only is no outage, however many strangers write to it.
#[test]
fn a_restricted_group_concerns_itself_only() {
    let says = "550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required";
    let two = TwoHops::start(&format!("rcpt to:<p0 => {says}"), "", "");
    for client in 0..25 {
        let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 0, 100 + client), two.network.node.smtp);
        say(&mut raw, &format!("MAIL FROM:<ann@from{client}.test>"), "250");
        say(&mut raw, "RCPT TO:<p0@c.test>", "550 5.7.133 primary said:");
    }
    sends(two.network.node.smtp, "well", &["p1@c.test", "s1@c.test"]).is_delivered();
    is_up(&two.network, "primary", two.primary.address);
    assert_eq!(two.network.alerts("send_connector="), 0);
    nothing_is_left(&two.network);
}

/// M4: a policy that nobody knows and that meets everybody is an outage, by cut-through as from the queue, until somebody
/// is accepted.
#[test]
fn an_unknown_policy_that_refuses_everybody_is_an_outage() {
    for lines in ["", "delivery = \"queue\""] {
        let two = TwoHops::start("", "", lines);
        two.primary.follow("rcpt => 550 5.7.970 Not today");
        for number in 0..25 {
            let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 0, 100 + number % 6), two.network.node.smtp);
            say(&mut raw, &format!("MAIL FROM:<ann@from{}.test>", number % 6), "250");
            let (code, said) = raw.say(&format!("RCPT TO:<p{number}@c.test>"));
            if code == 250 {
                say(&mut raw, "DATA", "354");
                say(&mut raw, &format!("{}.", letter(&format!("all-{number}"), 0)), "250 2.0.0 queued");
            }
            assert!(code == 250 || number < 20, "{number}: {said}");
        }
        wait_until("all have been tried", SOON, || !two.primary.commands("RCPT TO:<p24@").is_empty());
        two.network.waits("p24@c.test", "5.7.970 Not today");
        // Of the queue's the first were believed.
        let told = if lines.is_empty() { 0 } else { 19 };
        wait_until("their reports", SOON, || two.network.senders.all().len() == told);
        assert!(two.network.alerts("5.7.970 Not today") > 0, "nobody is told");
        two.primary.follow("");
        two.network.deliver();
        assert!(two.primary.taken().contains(&"p24@c.test".to_owned()));
        assert_eq!(two.network.senders.all().len(), told, "a report about who had his mail");
    }
}

/// P4: both smart hosts greet after 2.6 s, longer than a second one is begun beside the first.
#[test]
fn two_smart_hosts_that_greet_late_are_no_worse_than_one() {
    std::thread::scope(|scope| {
        for select in ["round-robin", "failover"] {
            scope.spawn(move || both_greet_late(select));
        }
    });
}

fn both_greet_late(select: &str) {
    let mut network = TestNetwork::prepare();
    let hops = [0, 1].map(|_| network.hop("greeting => after 2600 220 next.hop ESMTP"));
    network.node.write("people.csv", "address\np0@c.test\n");
    let written = hops.each_ref().map(|hop| format!("\"[{}]:{}\"", hop.address.ip(), hop.address.port()));
    let both = |table: String| table.replace(&format!("[{}]", written[0]), &format!("[{}]", written.join(", ")));
    let select = format!("select = \"{select}\"");
    network.start(&format!(
        "{PEOPLE}{}{}{}",
        both(connector_to("primary", hops[0].address, &select)),
        both(connector_to("secondary", hops[0].address, &format!("{}\n{select}", address_space("c.test")))),
        shared_domain("c.test", "primary")
    ));
    for (number, to) in ["s0@c.test", "p0@c.test", "s1@c.test"].into_iter().enumerate() {
        sends(network.node.smtp, &format!("late-{number}"), &[to]).is_delivered();
    }
    assert_eq!(hops.iter().map(|hop| hop.taken().len()).sum::<usize>(), 3);
    nothing_is_left(&network);
}

/// P3: a greeting that comes later than the patience, as a spam filter delays it (Kerio: 25 s): whoever would be told to
/// come again waits for it, others' mail is queued meanwhile.
#[test]
fn a_greeting_beyond_the_patience_is_waited_for() {
    let late = "greeting => after 2500 220 mail.contoso.test ESMTP ready";
    let two = TwoHops::start(late, late, "cut_through_patience = \"1s\"");
    let heard = sends(two.network.node.smtp, "resolved", &["p0@c.test"]);
    assert!(heard.last().starts_with("250 2.0.0 queued"), "{heard:?}");
    sends(two.network.node.smtp, "unresolved", &["s0@c.test"]).is_delivered();
    two.network.deliver();
    assert_eq!((two.primary.taken(), two.secondary.taken().len()), (vec!["p0@c.test".to_owned()], 1));
    is_up(&two.network, "secondary", two.secondary.address);
    nothing_is_left(&two.network);
}

/// M7: made or moved a minute ago, and the other system does not know it yet. Whom nobody vouches for is not doubted.
#[test]
fn whom_the_directory_has_is_doubted_though_there_was_never_mail() {
    for says in
        ["550 5.1.1 User unknown", "550 5.4.1 Recipient address rejected: Access denied", "550 5.1.10 not found"]
    {
        let rule = format!("rcpt => {says}");
        let two = TwoHops::start(&rule, &rule, "");
        for _ in 0..3 {
            let heard = sends(two.network.node.smtp, "new", &["p0@c.test", "s0@c.test"]);
            assert_eq!(heard.codes(), [451, 550], "{says}: {heard:?}");
            assert!(heard.rcpt[0].1.starts_with("451 4.3.0"), "{says}: {heard:?}");
        }
        two.primary.follow("");
        sends(two.network.node.smtp, "there", &["p0@c.test"]).is_delivered();
        is_up(&two.network, "primary", two.primary.address);
        nothing_is_left(&two.network);
    }
}

/// M11: somebody who had mail lately is sent back by the side that has him: whichever of our rules refuses that, both
/// sides may be about to change. Nobody who never had mail is so doubted.
#[test]
fn who_was_there_lately_and_is_sent_back_may_come_again() {
    let mut network = TestNetwork::prepare();
    let (primary, secondary) = (network.hop(""), network.hop(""));
    network.node.write("people.csv", "address\np0@c.test\n");
    let door = "[[receive_connector]]\nname = \"back\"\nbind = [\"{smtp}\"]\nremote_networks = [\"127.0.0.9/32\"]\n\
                organization = \"secondary\"\nresolves_first = true\n\n";
    network.start(&format!(
        "{PEOPLE}{door}{}{}{}",
        connector_to("primary", primary.address, ""),
        connector_to("secondary", secondary.address, &address_space("c.test")),
        shared_domain("c.test", "primary")
    ));
    sends(network.node.smtp, "new", &["s1@c.test"]).is_delivered();
    // Whose first mail was a moment ago, and is sent straight back, never had any: his was ten minutes ago.
    network.node.stop();
    let file = network.node.path("state/recently-good");
    let now = QueueTime(UnixTime::now().0);
    let mut good = RecentlyGood::from_bytes(&std::fs::read(&file).unwrap(), Moment::now(now)).unwrap();
    good.accepted(&Address::parse("s0@c.test").unwrap(), "secondary", QueueTime(now.0 - 600));
    std::fs::write(&file, good.to_bytes()).unwrap();
    network.node.start();
    let mut raw = Raw::hello_from(STAFF, network.node.smtp);
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    for (to, expected) in [("s0", "451 4.3.0"), ("s1", "550 5.1.1"), ("s2", "550 5.1.1")] {
        say(&mut raw, &format!("RCPT TO:<{to}@c.test>"), expected);
    }
}
