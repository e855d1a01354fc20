//! Connections are short: who is let in, who has to go, and what never runs out. The real program, real sockets.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use support::senders::{Raw, SmtpReply};
use support::sink::Sink;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;
use support::wait_until;

const SOON: Duration = Duration::from_secs(30);
/// The organization's client.
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const SINK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 4);
const SENT_AWAY: &str = "fingerpost_sessions_sent_away_total{reason=\"place-wanted\"}";

const IDLE: &str = "fingerpost_sessions_sent_away_total{reason=\"idle\"}";

/// A node with these lines at the internet's door: `alice@contoso.test` at once to the sink, `alice@queued.test` by the
/// queue.
fn configure(node: &TestNode, sink: SocketAddr, door: &str) {
    let tables = [
        BASE_TABLES,
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\nmax_connections_per_ip = 5000\n",
        door,
        "\n[[receive_connector]]\nname = \"inside\"\nbind = [\"{smtp}\"]\nremote_networks = [\"127.0.0.77\"]\n\
         organization = \"primary\"\nmax_connections = 50\n\n",
        PEOPLE,
        &accepted_domain("contoso.test", "exchange"),
        &accepted_domain("queued.test", "queue"),
        &send_connector("exchange", sink, "organization = \"primary\""),
        &send_connector("queue", sink, "organization = \"queue\"\ndelivery = \"queue\""),
    ];
    node.write("fingerpost.toml", &tables.concat());
    node.write("people.csv", "address\nalice@contoso.test\nalice@queued.test\n");
}

fn start(sink: &Sink, door: &str) -> TestNode {
    let mut node = TestNode::prepare();
    configure(&node, sink.address(), door);
    node.start();
    node
}

/// A transaction up to 354.
fn envelope(raw: &mut Raw, to: &str) {
    for (line, code) in [("MAIL FROM:<bob@fabrikam.test>", 250), (&format!("RCPT TO:<{to}>"), 250), ("DATA", 354)] {
        let said = raw.say(line);
        assert_eq!(said.0, code, "{line}: {said:?}");
    }
}

/// An honest client's message; its last reply.
fn sends(raw: &mut Raw, to: &str) -> SmtpReply {
    envelope(raw, to);
    raw.say("Subject: honest\r\n\r\nbody\r\n.")
}

#[test]
fn an_honest_client_gets_the_place_of_the_longest_idle_stranger() {
    let sink = Sink::start(SINK);
    let node = start(&sink, "max_connections = 20");
    let mut strangers: Vec<Raw> = (0..20).map(|_| Raw::hello(node.smtp)).collect();
    let mut honest = Raw::hello(node.smtp);
    assert_eq!(sends(&mut honest, "alice@contoso.test").0, 250);
    wait_until("the mail is there", SOON, || sink.for_address("alice@contoso.test").len() == 1);
    let (code, text) = strangers[0].reply();
    assert!(code == 421 && text.contains("4.3.2"), "{code} {text}");
    assert_eq!(strangers[0].reply().0, 0, "closed");
    for (at, stranger) in strangers.iter_mut().enumerate().skip(1) {
        assert_eq!(stranger.say("NOOP").0, 250, "stranger {at}");
    }
    assert_eq!(node.metric(SENT_AWAY), Some(1.0));
    assert_eq!(node.metric("fingerpost_connections{receive_connector=\"internet\"}"), Some(20.0));
    // NOOP is no reason to stay.
    assert_eq!(sends(&mut Raw::hello(node.smtp), "alice@contoso.test").0, 250);
    assert_eq!(strangers[1].reply().0, 421);
}

#[test]
fn who_waits_for_us_is_never_taken_nor_who_has_just_sent_content() {
    let answers = Arc::new(AtomicBool::new(false));
    let gate = answers.clone();
    let on_message = move |_: &support::sink::Sunk| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let sink = Sink::start_at(SocketAddr::from((SINK, 0)), Arc::new(on_message));
    let node = start(&sink, "max_connections = 4");
    let mut asks = Raw::hello(node.smtp);
    envelope(&mut asks, "alice@contoso.test");
    asks.send(b"Subject: slow\r\n\r\nbody\r\n.\r\n");
    let mut content = Raw::hello(node.smtp);
    envelope(&mut content, "alice@queued.test");
    content.send(b"Subject: half\r\n\r\nbo");
    let mut chunks = Raw::hello(node.smtp);
    for line in ["MAIL FROM:<bob@fabrikam.test>", "RCPT TO:<alice@queued.test>", "BDAT 12\r\nSubject: x"] {
        assert_eq!(chunks.say(line).0, 250, "{line}");
    }
    // The last place goes from newcomer to newcomer.
    let mut last = Raw::hello(node.smtp);
    for _ in 0..20 {
        let next = Raw::hello(node.smtp);
        assert_eq!(last.reply().0, 421);
        last = next;
    }
    envelope(&mut last, "alice@queued.test");
    last.send(b"x");
    wait_until("nobody is idle", SOON, || {
        let (code, text) = Raw::connect(node.smtp).reply();
        code == 421 && text.contains("4.3.2 too many connections")
    });
    answers.store(true, Ordering::SeqCst);
    assert_eq!(asks.reply().0, 250);
    assert_eq!(content.say("dy\r\n.").0, 250);
    assert_eq!(chunks.say("BDAT 0 LAST").0, 250);
    assert_eq!(last.say("\r\n.").0, 250);
}

#[test]
fn an_organizations_client_gets_in_while_a_thousand_strangers_hold_all() {
    let sink = Sink::start(SINK);
    let mut node = TestNode::prepare();
    node.limit_descriptors(2000, 2000);
    configure(&node, sink.address(), "max_connections = 2000");
    node.start();
    // In the middle of their content: for ten seconds nobody may send them away.
    let begin = |_: usize| {
        let mut stream = TcpStream::connect(node.smtp).unwrap();
        let lines = "EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@queued.test>\r\nDATA\r\nx";
        let _ = stream.write_all(lines.as_bytes()); // who is turned away may be so at once
        stream
    };
    let _strangers: Vec<TcpStream> = (0..1000).map(begin).collect();
    let refused = "fingerpost_sessions_refused_total{reason=\"descriptors\"}";
    let in_all = || {
        let inside = node.metric("fingerpost_connections{receive_connector=\"internet\"}")?;
        Some(inside + node.metric(refused)? + node.metric(SENT_AWAY)? + node.metric(IDLE)?)
    };
    wait_until("a thousand strangers came", SOON, || in_all() == Some(1000.0));
    assert!(node.metric(refused) > Some(100.0), "{:?} were refused", node.metric(refused));
    for _ in 0..10 {
        assert_eq!(sends(&mut Raw::hello_from(INSIDE, node.smtp), "alice@contoso.test").0, 250);
    }
    assert_eq!(sends(&mut Raw::hello_from(INSIDE, node.smtp), "alice@queued.test").0, 250);
    wait_until("the mail is there", SOON, || sink.all().len() == 11);
    node.stop();
}

#[test]
fn a_flood_beyond_the_descriptors_stops_neither_mail_nor_queue() {
    let sink = Sink::start(SINK);
    let mut node = TestNode::prepare();
    node.limit_descriptors(256, 256);
    configure(&node, sink.address(), "");
    node.start();
    let connect = |_: usize| TcpStream::connect(node.smtp).unwrap();
    let flood: Vec<TcpStream> = (0..400).map(connect).collect();
    for number in 1..=10 {
        let mut honest = Raw::hello(node.smtp);
        for to in ["alice@contoso.test", "alice@queued.test"] {
            assert_eq!(sends(&mut honest, to).0, 250, "{number}");
        }
        let large = format!("Subject: large\r\n\r\n{}.", "0123456789abcdef\r\n".repeat(20_000));
        envelope(&mut honest, "alice@queued.test");
        assert_eq!(honest.say(&large).0, 250, "{number}");
    }
    wait_until("all mail is there", SOON, || sink.all().len() == 30);
    assert_eq!(node.get("/healthz").map(|(status, _)| status), Some(200));
    let log = node.log();
    assert!(!log.contains("Too many open files") && !log.contains("cannot accept"), "{log}");
    assert!(log.contains("LimitNOFILE="), "a warning at the start: {log}");
    let places = node.metric("fingerpost_connections{receive_connector=\"internet\"}").unwrap();
    assert!(places < 64.0, "{places} connections");
    drop(flood);
    node.stop();
}

#[test]
fn the_limit_of_descriptors_is_raised_and_what_does_not_fit_is_told() {
    let sink = Sink::start(SINK);
    let mut node = TestNode::prepare();
    node.limit_descriptors(256, 4096);
    configure(&node, sink.address(), "max_connections = 1000");
    let check = |node: &TestNode| {
        let checked = node.run(&["check"]);
        assert!(checked.status.success(), "it is no error");
        String::from_utf8(checked.stdout).unwrap()
    };
    assert!(!check(&node).contains("LimitNOFILE"), "{}", check(&node));
    node.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.process_id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().filter(|word| *word == "4096").count(), 2, "{files}");
    assert!(!node.log().contains("LimitNOFILE"));
    node.stop();

    configure(&node, sink.address(), "max_connections = 3000");
    let told = check(&node);
    assert!(told.contains("warning max_connections of all receive connectors is 3050 together"), "{told}");
    node.start();
    let log = node.logged(&["LimitNOFILE="]);
    assert!(log.contains("3050 together"), "{log}");
}

/// How many of the silent ones were sent away as idle: as many as make it no crowd, and those who were due at the same
/// moment; nobody else.
fn sent_away(node: &TestNode, silent: &mut [Raw], at_least: usize) -> usize {
    let mut gone = 0;
    wait_until("it is no crowd any more, and who is gone knows it", SOON, || {
        gone = silent.iter().filter(|raw| raw.hears()).count();
        gone >= at_least && node.metric(IDLE) == Some(gone as f64)
    });
    for raw in silent.iter_mut().filter(|raw| raw.hears()) {
        let (code, text) = raw.reply();
        assert!(code == 421 && text.contains("4.4.2"), "{code} {text}");
    }
    gone
}

#[test]
fn who_is_idle_in_a_crowd_is_sent_away_by_himself() {
    let sink = Sink::start(SINK);
    let node = start(&sink, "max_connections = 10");
    let greeted = |_: usize| {
        let mut raw = Raw::connect(node.smtp);
        assert_eq!(raw.reply().0, 220);
        raw
    };
    let mut silent: Vec<Raw> = (0..8).map(greeted).collect();
    let mut begun = Raw::hello(node.smtp);
    assert_eq!(begun.say("MAIL FROM:<>").0, 250);
    let mut inside = Raw::hello_from(INSIDE, node.smtp);
    let gone = sent_away(&node, &mut silent, 1);
    let away = "idle session sent away: connections are short";
    let log = node.logged(&[away, "reason=\"idle\""]);
    let told = |line: &&str| line.contains(away) && line.contains("client=127.0.0.1");
    assert!(log.lines().filter(told).count() >= gone, "{log}");
    assert_eq!((begun.say("NOOP").0, inside.say("NOOP").0), (250, 250));
}

#[test]
fn content_that_is_ten_seconds_behind_gives_way_where_connections_are_short() {
    let sink = Sink::start(SINK);
    let node = start(&sink, "max_connections = 20");
    let begin = |mut raw: Raw| {
        envelope(&mut raw, "alice@queued.test");
        raw.send(b"Subject: slow\r\n\r\n");
        raw
    };
    let mut silent: Vec<Raw> = (0..19).map(|_| begin(Raw::hello(node.smtp))).collect();
    let (mut goes_on, mut inside) = (begin(Raw::hello(node.smtp)), begin(Raw::hello_from(INSIDE, node.smtp)));
    assert_eq!(Raw::connect(node.smtp).reply().0, 421, "they have all just begun");
    let line = format!("{}\r\n", "x".repeat(900)).repeat(10);
    wait_until("silent ones give way", SOON, || {
        goes_on.send(line.as_bytes());
        node.metric(IDLE) >= Some(4.0)
    });
    sent_away(&node, &mut silent, 4);
    assert_eq!(sends(&mut Raw::hello(node.smtp), "alice@contoso.test").0, 250);
    assert_eq!((goes_on.say("\r\n.").0, inside.say("\r\n.").0), (250, 250));
}

/// A client that has named 20 unknown recipients, and so many more at once: it is told of each of those a second later.
fn harvests(node: &TestNode, more: usize) -> Raw {
    let mut raw = Raw::hello(node.smtp);
    assert_eq!(raw.say("MAIL FROM:<bob@fabrikam.test>").0, 250);
    let rcpt = |number: usize| format!("RCPT TO:<x{number}@queued.test>\r\n");
    raw.send((0..19 + more).map(rcpt).collect::<String>().as_bytes());
    (0..19).for_each(|number| assert_eq!(raw.reply().0, 550, "{number}"));
    let delayed = "fingerpost_unknown_recipients_delayed_total{receive_connector=\"internet\"}";
    wait_until("its refusals are held back", SOON, || node.metric(delayed) >= Some(1.0));
    raw
}

/// Codes of the refusals that it had still, and the last reply.
fn last_words(harvester: &mut Raw) -> (usize, SmtpReply) {
    let mut refused = 0;
    loop {
        match harvester.reply() {
            (550, _) => refused += 1,
            last => return (refused, last),
        }
    }
}

#[test]
fn the_place_of_who_looks_for_addresses_goes_first() {
    let sink = Sink::start(SINK);
    let node = start(&sink, "max_connections = 5\nlimits = { unknown_delay = \"1h\" }");
    let mut older = Raw::hello(node.smtp);
    // It has MAIL behind it, and is the youngest; a refusal is owed to it for an hour.
    let mut harvester = harvests(&node, 50);
    let mut calm: Vec<Raw> = (0..2).map(|_| Raw::hello(node.smtp)).collect();
    assert_eq!((older.say("NOOP").0, calm[0].say("NOOP").0), (250, 250));
    std::thread::sleep(Duration::from_millis(1500));
    let reason = |reason: &str| node.metric(&format!("fingerpost_sessions_sent_away_total{{reason=\"{reason}\"}}"));
    assert_eq!(reason("unknown-recipients"), Some(0.0), "four of five are no crowd");
    calm.push(Raw::hello(node.smtp));
    let (refused, (code, text)) = last_words(&mut harvester);
    assert!(refused == 0 && code == 421 && text.contains("4.7.0"), "{refused} {code} {text}");
    assert_eq!(harvester.reply().0, 0, "closed");
    assert_eq!(reason("unknown-recipients"), Some(1.0));
    assert!(calm.iter_mut().chain([&mut older]).all(|raw| raw.say("NOOP").0 == 250), "they are idle for longer");
    assert_eq!((reason("place-wanted"), reason("idle")), (Some(0.0), Some(0.0)));
}

/// Many at once, and an honest client that owes nobody anything: each newcomer has the place of a harvester.
#[test]
fn honest_mail_takes_the_places_of_harvesters() {
    let sink = Sink::start(SINK);
    let node = start(&sink, "max_connections = 20\nlimits = { unknown_delay = \"1h\" }");
    let mut honest = Raw::hello(node.smtp);
    let mut harvesters = vec![harvests(&node, 50)];
    for _ in 1..19 {
        let mut raw = Raw::hello(node.smtp);
        assert_eq!(raw.say("MAIL FROM:<bob@fabrikam.test>").0, 250);
        raw.send("RCPT TO:<y@queued.test>\r\n".repeat(60).as_bytes()); // of one address all
        harvesters.push(raw);
    }
    let mut others: Vec<Raw> = (0..15).map(|_| Raw::hello(node.smtp)).collect();
    for raw in others.iter_mut().chain([&mut honest]) {
        assert_eq!(sends(raw, "alice@queued.test").0, 250);
    }
    let gone = harvesters.iter_mut().filter_map(|raw| (last_words(raw).1.0 == 421).then_some(())).count();
    assert_eq!(gone, 19);
    wait_until("all mail", SOON, || sink.for_address("alice@queued.test").len() == 16);
}
