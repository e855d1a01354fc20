//! P8, P9: how fast next hops take a message that comes by BDAT (RFC 3030), and how long a client waits for that, and for
//! a directory after it. Minutes pass at once: the clock is paused.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::cut_through::fixture::{TwoHops, letter, say};
use crate::next_hop_behaviour::fixture::nothing_is_left;
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::SmtpReply;
use support::sessions::talk::Talk;
use support::sessions::{CONFIG, SessionSetup};

/// P8: a message that the client has in one chunk.
const SIZE: usize = 6 << 20;

/// Both sides take four KiB about every millisecond, the one a little faster than the other.
const STEADY: [&str; 2] = ["content => after 1 go", "content => after 2 go"];

/// Sends it to one of each side; the last reply.
fn sends_a_chunk(two: &TwoHops, id: &str) -> SmtpReply {
    let mut raw = two.stranger();
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    for to in ["p0@c.test", "s0@c.test"] {
        say(&mut raw, &format!("RCPT TO:<{to}>"), "250");
    }
    let text = letter(id, SIZE);
    raw.send(format!("BDAT {} LAST\r\n", text.len()).as_bytes());
    raw.send(text.as_bytes());
    raw.reply()
}

#[test]
fn two_hops_that_take_a_chunk_at_a_steady_pace_both_have_it() {
    let two = TwoHops::start(STEADY[0], STEADY[1], "");
    let (_, said) = sends_a_chunk(&two, "steady");
    assert!(said.starts_with("250 2.0.0 delivered"), "{said}");
    for hop in [&two.primary, &two.secondary] {
        assert_eq!((hop.taken().len(), hop.seen().iter().map(|seen| seen.partial).sum::<usize>()), (1, 0));
        assert!(hop.contents().iter().all(|content| content.len() > SIZE - 1000));
    }
    nothing_is_left(&two.network);
}

#[test]
fn two_hops_that_both_refuse_a_chunk_are_a_refusal() {
    let [primary, secondary] = STEADY.map(|pace| format!("{pace}\ndot => 554 5.7.1 Message rejected as spam"));
    let two = TwoHops::start(&primary, &secondary, "");
    let (_, said) = sends_a_chunk(&two, "both");
    assert!(said.starts_with("554 5.7.1 ") && said.contains("rejected as spam"), "{said}");
    nothing_is_left(&two.network);
}

/// A session in which the next hop has the place of one that would be queued for.
fn takes_part(instead_of: &str, hop: &ScriptedSmtpServer) -> SessionSetup {
    let queues = format!("smart_hosts = [\"[{instead_of}]\"]\ndelivery = \"queue\"");
    let takes_part = format!("smart_hosts = [\"[127.0.0.1]:{}\"]", hop.address.port());
    let larger = CONFIG.replace("4KiB", "64MiB").replace("max_recipients = 3", "max_recipients = 100");
    SessionSetup::with(&larger.replace(&queues, &takes_part))
}

const MINUTE: Duration = Duration::from_secs(60);

/// P9: more than fits into six minutes at 14 KB a second and what the sockets hold.
const MUCH: usize = 24 << 20;

/// The client has sent everything at once; the next hop takes its time. No dot goes out with less than two of the eight
/// minutes left: the branch is closed before it, the message is durable, and 250 is said.
#[tokio::test]
async fn a_hop_too_slow_for_the_clients_patience_is_left_before_the_dot() {
    let hop = ScriptedSmtpServer::start("content => after 290 go", None).await;
    let setup = takes_part("127.0.0.2", &hop);
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.say("MAIL FROM:<a@fabrikam.example>", "250").await;
    talk.say("RCPT TO:<alice@contoso.com>", "250").await;
    let text = letter("slow", MUCH);
    tokio::time::pause();
    talk.socket.write_all(format!("BDAT {} LAST\r\n", text.len()).as_bytes()).await.unwrap();
    talk.socket.write_all(text.as_bytes()).await.unwrap();
    let (begun, real) = (tokio::time::Instant::now(), Instant::now());
    let reply = talk.reply().await;
    let waited = begun.elapsed();
    println!("{reply} after {waited:?}, in truth {:?}", real.elapsed());
    assert!(reply.starts_with("250 2.0.0 queued as"), "{reply} after {waited:?}");
    assert!(waited <= 8 * MINUTE, "{waited:?}");
    assert!(waited >= 5 * MINUTE, "there was time left: {waited:?}");
    assert_eq!((hop.contents().len(), hop.taken().len()), (0, 0), "it has no dot");
    let committed = setup.take_committed();
    assert_eq!((committed.len(), committed[0].1.len() >= text.len()), (1, true), "whole and durable");
}

/// The next hop knows nobody of many, at the dot: the directory is asked about ten at once, and where it does not answer
/// the client hears 451 while it still waits.
#[tokio::test]
async fn a_slow_directory_after_the_dot_is_asked_side_by_side() {
    let hop = ScriptedSmtpServer::start("dot => 550 5.1.1 no such user", None).await;
    let setup = takes_part("127.0.0.3", &hop);
    for (kind, expected, longest) in [("slow", "550 5.1.1 ", 60), ("stuck", "451 4.3.0 ", 481)] {
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.say("MAIL FROM:<a@fabrikam.example>", "250").await;
        for number in 0..50 {
            talk.say(&format!("RCPT TO:<unknown-{kind}-{number}@contoso.com>"), "250").await;
        }
        talk.say("DATA", "354").await;
        tokio::time::pause();
        let begun = tokio::time::Instant::now();
        talk.socket.write_all(format!("{}.\r\n", letter(kind, 0)).as_bytes()).await.unwrap();
        let reply = talk.reply().await;
        let waited = begun.elapsed();
        tokio::time::resume();
        assert!(reply.starts_with(expected), "{kind}: {reply} after {waited:?}");
        assert!(waited <= Duration::from_secs(longest), "{kind}: {waited:?}");
        assert!(setup.take_committed().is_empty() && hop.taken().is_empty());
    }
}
