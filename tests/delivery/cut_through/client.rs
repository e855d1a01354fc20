//! What a client breaks is the client's: the next hop sees no final dot, takes nothing, and is not held responsible.

use std::net::SocketAddr;

use crate::cut_through::fixture::{TwoHops, envelope, letter, say};
use support::senders::Raw;
use support::test_network::SOON;
use support::wait_until;

/// How a client breaks a transaction, and how the reply begins that it gets, if it waits for one.
type Break = (&'static str, fn(&mut Raw, usize), &'static str);

const BREAKS: [Break; 8] = [
    ("goes away in the middle of a line", |raw, size| raw.send(letter("gone", size).trim_end().as_bytes()), ""),
    ("goes away before the dot", |raw, size| raw.send(letter("gone", size).as_bytes()), ""),
    ("goes away in the header section", |raw, _| raw.send(b"From: <ann@outside.test>\r\nSubj"), ""),
    ("bare LF", |raw, size| raw.send(format!("{}one\ntwo\r\n.\r\n", letter("lf", size)).as_bytes()), "554 5.6.11"),
    ("bare CR", |raw, size| raw.send(format!("{}one\rtwo\r\n.\r\n", letter("cr", size)).as_bytes()), "554 5.6.11"),
    (
        "a smuggled dot",
        |raw, size| raw.send(format!("{}\n.\r\n\r\n.\r\n", letter("dot", size)).as_bytes()),
        "554 5.6.11",
    ),
    ("too large", |raw, _| raw.send(format!("{}.\r\n", letter("large", 3 << 20)).as_bytes()), "552 5.3.4"),
    ("a header section too large", |raw, _| raw.send(&header_too_large()), "552 5.3.4"),
];

fn header_too_large() -> Vec<u8> {
    let fields: String = (0..6000).map(|number| format!("X-Field-{number}: {}\r\n", "x".repeat(60))).collect();
    format!("{fields}\r\nHello.\r\n.\r\n").into_bytes()
}

/// Both next hops, with a door that takes two MiB.
fn start() -> TwoHops {
    let mut two = TwoHops::start("", "", "");
    two.network
        .reconfigure("max_connections_per_ip = 1000\n", "max_connections_per_ip = 1000\nmax_message_size = \"2MiB\"\n");
    two
}

fn breaks(server: SocketAddr, to: &[&str], how: &Break, size: usize) {
    let (name, act, expected) = how;
    let mut raw = Raw::hello(server);
    envelope(&mut raw, "ann@outside.test", to);
    act(&mut raw, size);
    if !expected.is_empty() {
        let (_, said) = raw.reply();
        assert!(said.starts_with(expected), "{name}: {said}");
    }
}

#[test]
fn the_next_hop_neither_gets_it_nor_pays_for_it() {
    let two = start();
    let server = two.network.node.smtp;
    let mut good = 0;
    for how in &BREAKS {
        for size in [0, 1 << 20] {
            for to in [&["p0@c.test"][..], &["p0@c.test", "s0@c.test"]] {
                // More than a breaker would bear of a next hop.
                for _ in 0..6 {
                    breaks(server, to, how, size);
                }
                let mut raw = two.stranger();
                envelope(&mut raw, "bob@outside.test", &["p1@c.test", "s1@c.test"]);
                say(&mut raw, &format!("{}.", letter(&format!("good-{good}"), 0)), "250");
                good += 1;
                assert_eq!(two.primary.taken(), vec!["p1@c.test"; good], "{}, {size}, {to:?}", how.0);
                assert_eq!(two.secondary.taken(), vec!["s1@c.test"; good], "{}, {size}, {to:?}", how.0);
            }
        }
    }
    for (hop, name) in [(&two.primary, "primary"), (&two.secondary, "secondary")] {
        assert_eq!(hop.contents().len(), good, "a dot for what was broken");
        assert_eq!(two.up(name), Some(1.0), "{name} is marked down");
        assert_eq!(two.network.alerts(&format!("send_connector={name} ")), 0);
    }
    wait_until("an empty queue", SOON, || two.network.queue().is_empty());
    assert!(two.network.senders.all().is_empty());
}

#[test]
fn rset_and_quit_end_what_was_begun() {
    let two = start();
    let mut raw = two.stranger();
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    say(&mut raw, "RCPT TO:<p0@c.test>", "250");
    say(&mut raw, "RSET", "250");
    envelope(&mut raw, "ann@outside.test", &["p1@c.test"]);
    say(&mut raw, &format!("{}.", letter("after-rset", 0)), "250");
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    say(&mut raw, "RCPT TO:<p2@c.test>", "250");
    say(&mut raw, "QUIT", "221");
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p3@c.test"]);
    say(&mut raw, &format!("{}.", letter("after-quit", 0)), "250");
    let mut taken = two.primary.taken(); // by connection; which one is taken is not said
    taken.sort();
    assert_eq!(taken, ["p1@c.test", "p3@c.test"]);
}

/// Several transactions in one session use what connections there are again.
#[test]
fn a_session_of_many_messages_uses_a_connection_again() {
    let two = start();
    let mut raw = two.stranger();
    for number in 0..50 {
        envelope(&mut raw, "ann@outside.test", &["p0@c.test", "s0@c.test"]);
        say(&mut raw, &format!("{}.", letter(&format!("many-{number}"), 0)), "250");
    }
    assert_eq!((two.primary.taken().len(), two.secondary.taken().len()), (50, 50));
    assert!(
        two.primary.seen().len() <= 3,
        "{} connections for 50 messages one after another",
        two.primary.seen().len()
    );
}
