//! Clocks that jump, and what may have arrived: the real program with a time of day of our own (libfaketime). Its
//! monotonic clock is the system's.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use fingerpost::time::UnixTime;
use support::postfix::{Postfix, Setup};
use support::senders::Raw;
use support::test_network::{PEOPLE, SOON, TestNetwork, connector, domain};
use support::{free_port, wait_until};

const DAY: u64 = 24 * 3600;
/// Each second, and the usual times of warnings and of the end.
const EACH_SECOND: &str = "retry = { first = \"1s\", factor = 1.0, max = \"1s\" }";
const EACH_HOUR: &str = "retry = { first = \"1h\", factor = 1.0, max = \"1h\" }";

/// Has the program see this time of day, as an offset to the system's; it may change while it runs.
fn clock(network: &mut TestNetwork, offset: &str) {
    network.node.write("time-of-day", offset);
    let file = network.node.path("time-of-day");
    network.node.clear_environment();
    for (name, value) in [
        ("LD_PRELOAD", support::faketime::library().display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", file.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("NO_FAKE_STAT", "1".to_owned()),
    ] {
        network.node.set_environment(name, &value);
    }
}

/// The clock of a program that runs is put to another time.
fn jump(network: &TestNetwork, offset: &str, jumps: f64) {
    network.node.write("time-of-day", offset);
    wait_until("the jump is counted", SOON, || network.node.metric("fingerpost_clock_jumps_total") == Some(jumps));
}

/// People of one domain by one connector whose host is down.
fn out_of_reach(network: &mut TestNetwork, people: usize, retry: &str) -> SocketAddr {
    let hop = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
    let listed: Vec<String> = (0..people).map(|number| format!("p{number}@c.test\n")).collect();
    network.node.write("people.csv", &format!("address\n{}", listed.concat()));
    let tables = connector("hop", hop, retry) + &domain("c.test", "authoritative", "hop");
    network.start(&format!("{PEOPLE}{tables}"));
    hop
}

fn attempts(network: &TestNetwork) -> Vec<u64> {
    network.queue().iter().map(|recipient| recipient["attempts"].as_u64().unwrap()).collect()
}

/// Seconds from the system's time of day until the next attempt as the queue shows it.
fn next_attempt(network: &TestNetwork, address: &str) -> u64 {
    let at = network.standing(address).unwrap()["next_attempt"].as_u64().unwrap();
    at.saturating_sub(UnixTime::now().0)
}

/// Q1: 20 queued and tried, the power off over a weekend, the next hop back a few attempts after us.
#[test]
fn a_power_cut_over_a_weekend_bounces_nothing() {
    let mut network = TestNetwork::prepare();
    clock(&mut network, "+0");
    let hop = out_of_reach(&mut network, 20, EACH_SECOND);
    (0..20).for_each(|number| network.send("ann@outside.test", &[&format!("p{number}@c.test")]));
    wait_until("three attempts each", SOON, || attempts(&network).iter().all(|attempts| *attempts >= 3));
    network.node.kill();

    clock(&mut network, "+3d");
    network.node.start();
    let before = attempts(&network);
    assert_eq!(before.len(), 20);
    let least = *before.iter().min().unwrap();
    wait_until("three more attempts each", SOON, || attempts(&network).iter().all(|attempts| *attempts >= least + 3));
    assert_eq!(attempts(&network).len(), 20, "something was given up");
    let hop = network.hop_on(TcpListener::bind(hop).unwrap(), "");
    network.quiet();
    assert_eq!(hop.taken().len(), 20);
    assert!(network.senders.all().is_empty(), "a report went out: {:?}", network.reports("ann@outside.test"));
}

/// Who had mail before a power cut of ten days is recently good after it, for whoever asks.
#[test]
fn a_power_cut_makes_nobody_old() {
    let mut network = TestNetwork::prepare();
    clock(&mut network, "+0");
    let (primary, secondary) = (network.hop(""), network.hop(""));
    network.node.write("people.csv", "address\nann@c.test\n");
    let way = |name, to| connector(name, to, "").replace("delivery = \"queue\"", "delivery = \"cut-through\"");
    let relays =
        way("secondary", secondary.address).trim_end().to_owned() + "\naddress_spaces = [{ domain = \"c.test\" }]\n\n";
    let shared = domain("c.test", "internal-relay", "primary");
    network.start(&format!("{PEOPLE}{}{relays}{shared}", way("primary", primary.address)));
    // No directory has him.
    network.send("joe@outside.test", &["sam@c.test"]);
    assert_eq!(secondary.taken(), ["sam@c.test"]);
    network.node.stop();

    clock(&mut network, "+10d");
    secondary.follow("greeting => drop");
    network.node.start();
    // Its next hop is away: strangers' mail is queued for those who had some lately, and for nobody else.
    assert!(network.rcpt("nobody@c.test").contains("451 4.4.1"), "{}", network.rcpt("nobody@c.test"));
    network.send("joe@outside.test", &["sam@c.test"]);
    secondary.follow("");
    network.deliver();
    assert_eq!(secondary.taken().len(), 2);
}

/// Q2: the clock jumps 3 days on while we run, and back.
#[test]
fn a_clock_that_jumps_moves_nothing() {
    let mut network = TestNetwork::prepare();
    clock(&mut network, "+0");
    let hop = out_of_reach(&mut network, 3, EACH_HOUR);
    network.send("ann@outside.test", &["p0@c.test"]);
    network.waits("p0@c.test", "cannot connect");
    let hour = 3240..=3601; // less its spread
    assert!(hour.contains(&next_attempt(&network, "p0@c.test")));

    jump(&network, "+3d", 1.0);
    let log = network.node.logged(&["the time of day has jumped"]);
    let line = log.lines().find(|line| line.contains("the time of day has jumped")).unwrap();
    assert!(line.contains("from=") && line.contains("to=") && line.contains("WARN"), "{line}");
    // When it will be: by the clock that people see.
    let ahead = next_attempt(&network, "p0@c.test");
    assert!((3 * DAY + 3200..=3 * DAY + 3602).contains(&ahead), "{ahead}");
    // New mail is due at once, and waits an hour as the other does.
    network.send("ann@outside.test", &["p1@c.test"]);
    network.waits("p1@c.test", "cannot connect");
    assert!((3 * DAY + 3200..=3 * DAY + 3602).contains(&next_attempt(&network, "p1@c.test")));
    assert_eq!(attempts(&network), [1, 1], "nothing was hastened");

    jump(&network, "-1d", 2.0);
    network.send("ann@outside.test", &["p2@c.test"]);
    network.waits("p2@c.test", "cannot connect");
    assert_eq!(attempts(&network), [1, 1, 1], "nothing was hastened, and nothing waits for the clock");
    // Later by so much: what was written before the last jump, and after it. All is due again within the hour.
    network.node.stop();
    network.node.write("time-of-day", "+3d");
    let hop = network.hop_on(TcpListener::bind(hop).unwrap(), "");
    network.node.start();
    network.quiet();
    assert_eq!(hop.taken().len(), 3);
    assert!(network.senders.all().is_empty(), "a report went out");
}

/// Q2: the clock was a year ahead, and is put right while we run, or while we do not.
#[test]
fn a_clock_that_was_a_year_ahead_holds_nothing_up() {
    let mut network = TestNetwork::prepare();
    clock(&mut network, "+365d");
    let hop = out_of_reach(&mut network, 2, EACH_SECOND);
    network.send("ann@outside.test", &["p0@c.test"]);
    network.waits("p0@c.test", "cannot connect");
    jump(&network, "+0", 1.0);
    let before = attempts(&network)[0];
    wait_until("further attempts", SOON, || attempts(&network)[0] > before + 1);
    assert!(next_attempt(&network, "p0@c.test") < 5, "shown as it will be");

    network.reconfigure(EACH_SECOND, EACH_HOUR);
    network.node.stop();
    clock(&mut network, "+365d");
    network.node.start();
    network.send("ann@outside.test", &["p1@c.test"]);
    network.waits("p1@c.test", "cannot connect");
    network.node.stop();
    clock(&mut network, "+0");
    let hop = network.hop_on(TcpListener::bind(hop).unwrap(), "");
    network.node.start();
    network.quiet();
    assert_eq!(hop.taken().len(), 2, "what is a year ahead is now");
    assert!(network.senders.all().is_empty(), "a report went out");
}

/// Q10: the next hop stores each message and drops the connection after the dot.
#[test]
fn what_may_have_arrived_is_not_sent_again_and_again() {
    let mut network = TestNetwork::prepare();
    let hop = network.hop("dot => drop");
    network.node.write("people.csv", "address\np0@c.test\n");
    let tables = connector("hop", hop.address, EACH_SECOND) + &domain("c.test", "authoritative", "hop");
    network.start(&format!("{PEOPLE}{tables}"));
    let stands = |network: &TestNetwork, copies: u64, minutes: u64| {
        wait_until(&format!("{copies} copies"), SOON, || hop.contents().len() as u64 == copies);
        wait_until("it waits", SOON, || {
            network.standing("p0@c.test").is_some_and(|shown| shown["may_have_arrived"].as_u64() == Some(copies))
        });
        let next = next_attempt(network, "p0@c.test");
        assert!((minutes * 60 - 5..=minutes * 66 + 1).contains(&next), "{copies} copies: {next} s");
        assert_eq!(hop.contents().len() as u64, copies);
    };
    network.send("ann@outside.test", &["p0@c.test"]);
    stands(&network, 1, 10);
    let id = network.queue()[0]["id"].as_str().unwrap().to_owned();
    let shown = network.node.run(&["queue", "show", &id]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("tried 1 times (it may have arrived with 1 of them)"), "{shown}");
    wait_until("the trace says so", SOON, || {
        let trace = network.node.run(&["trace", "--recipient", "p0@c.test"]);
        String::from_utf8_lossy(&trace.stdout).contains("may have arrived")
    });
    // Neither other mail, nor another configuration, nor a start makes it earlier.
    hop.follow("");
    network.send("ann@outside.test", &["p0@c.test"]);
    wait_until("the other one", SOON, || hop.taken().len() == 1);
    hop.follow("dot => drop");
    network.reconfigure("factor = 1.0", "factor = 1.5");
    network.node.stop();
    network.node.start();
    std::thread::sleep(Duration::from_secs(2)); // it would be tried at once
    stands_beside(&network, &hop, 2);
    // An operator may.
    network.node.run(&["queue", "retry", "--all"]);
    wait_until("one more", SOON, || hop.contents().len() == 3);
    wait_until("it waits", SOON, || network.standing("p0@c.test").is_some_and(|shown| shown["may_have_arrived"] == 2));
    assert!((40 * 60 - 5..=40 * 66).contains(&next_attempt(&network, "p0@c.test")));
}

fn stands_beside(network: &TestNetwork, hop: &support::scripted_smtp_server::ScriptedSmtpServer, copies: usize) {
    assert_eq!(hop.contents().len(), copies, "it was sent again");
    assert_eq!(network.standing("p0@c.test").unwrap()["may_have_arrived"], 1);
}

/// Q10, for a branch of a cut-through transaction that had to be queued.
#[test]
fn what_cut_through_queued_after_the_dot_waits_as_long() {
    let mut network = TestNetwork::prepare();
    let (good, bad) = (network.hop(""), network.hop("dot => drop"));
    network.node.write("people.csv", "address\nann@a.test\nbob@b.test\n");
    let cut_through =
        |name, to| connector(name, to, EACH_SECOND).replace("delivery = \"queue\"", "delivery = \"cut-through\"");
    let tables = cut_through("good", good.address)
        + &cut_through("bad", bad.address)
        + &domain("a.test", "authoritative", "good")
        + &domain("b.test", "authoritative", "bad");
    network.start(&format!("{PEOPLE}{tables}"));
    network.send("ann@outside.test", &["ann@a.test", "bob@b.test"]);
    assert_eq!(good.taken(), ["ann@a.test"]);
    let shown = network.waits("bob@b.test", "may have arrived");
    assert_eq!(shown["may_have_arrived"], 1);
    assert!(next_attempt(&network, "bob@b.test") >= 595);
    assert_eq!(bad.contents().len(), 1);
}

/// What cut-through adds to Q10: the client hears 451 and comes again, and each time is another copy. A Postfix with its
/// times as they are by default, a hundred times as fast: two days in half an hour.
///
/// `cargo test --test storage clock:: -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of half an hour"]
fn in_cut_through_the_senders_own_retries_make_the_copies() {
    let mut network = TestNetwork::prepare();
    let hop = network.hop("dot => drop");
    network.node.write("people.csv", "address\np0@c.test\n");
    let tables =
        connector("hop", hop.address, EACH_SECOND).replace("delivery = \"queue\"", "delivery = \"cut-through\"");
    network.start(&format!("{PEOPLE}{tables}{}", domain("c.test", "authoritative", "hop")));
    let postfix = Postfix::start(&Setup {
        name: "sender.test",
        ip: Ipv4Addr::new(127, 0, 0, 2),
        domains: &["c.test"],
        known: &[],
        unknown_to: network.node.smtp,
        others_to: network.senders.address(),
        extra: "minimal_backoff_time = 3s\nmaximal_backoff_time = 40s\nqueue_run_delay = 3s\nmaximal_queue_lifetime = 4320s",
    });
    let mut raw = Raw::hello(postfix.address());
    for line in ["MAIL FROM:<ann@outside.test>", "RCPT TO:<p0@c.test>", "DATA"] {
        raw.say(line);
    }
    let begun = Instant::now();
    assert_eq!(raw.say("Subject: hello\r\nMessage-ID: <1@outside.test>\r\n\r\nHello.\r\n.").0, 250);
    for (what, hours) in [("an hour", 1), ("4 hours", 4), ("12 hours", 12), ("a day", 24), ("two days", 48)] {
        std::thread::sleep(Duration::from_secs(36 * hours).saturating_sub(begun.elapsed()));
        println!("after {what}: {} copies, {} queued here", hop.contents().len(), network.queue().len());
    }
}
