//! How long a sender is kept waiting for a next hop that takes part (DESIGN section 7, "After the dot" and the pace of
//! the content). Minutes pass at once: the clock is paused when the next hop falls silent.

use std::time::Duration;

use fingerpost::delivery::dispatch::{Handover, UnderWay};
use fingerpost::delivery::outcome::Class;
use fingerpost::spool::entry::{RecipientState, Waiting};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::sessions::talk::Talk;
use support::sessions::{CONFIG, SessionSetup};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// What a next hop's clock and ours may be apart.
const TICK: Duration = Duration::from_secs(10);
const TO: [&str; 3] = ["alice@contoso.com", "bob@contoso.com", "carol@contoso.com"];
const MESSAGE: &str = "Message-ID: <1@fabrikam.example>\r\n\r\nbody\r\n.\r\n";

/// A session whose resolved recipients this next hop takes by cut-through; `lines` are further lines of its connector.
fn session_setup(hop: &ScriptedSmtpServer, lines: &str) -> SessionSetup {
    let queues = "smart_hosts = [\"[127.0.0.2]\"]\ndelivery = \"queue\"";
    assert!(CONFIG.contains(queues));
    let takes_part = format!("smart_hosts = [\"[127.0.0.1]:{}\"]\n{lines}", hop.address.port());
    SessionSetup::with(&CONFIG.replace(queues, &takes_part).replace("4KiB", "64MiB"))
}

/// Waits, by the real clock, until a next hop has come so far.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A limit may have begun a moment before the clock was paused.
fn about(expected: Duration, waited: Duration) {
    let moment = Duration::from_secs(1);
    assert!(waited + moment >= expected && waited < expected + TICK, "{waited:?}, expected {expected:?}");
}

#[tokio::test]
async fn a_reply_to_the_dot_is_waited_for_for_eight_minutes() {
    let hop = ScriptedSmtpServer::start("dot => stall", None).await;
    let setup = session_setup(&hop, "");
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&TO[..1]).await;
    let begun = Instant::now();
    talk.socket.write_all(MESSAGE.as_bytes()).await.unwrap();
    let reply = talk.reply().await;
    let waited = begun.elapsed();
    assert!(reply.starts_with("451 "), "{reply}");
    about(8 * MINUTE, waited);
    assert_eq!(hop.contents().len(), 1);
    assert!(setup.take_committed().is_empty(), "the sender has it, and so has the queue");
    talk.say("NOOP", "250").await;
}

/// One of ours hears that its message is kept, and the queue how that ended: nobody sends it again meanwhile.
#[tokio::test]
async fn one_of_ours_waits_for_ninety_seconds_and_the_queue_for_the_rest() {
    let hop = ScriptedSmtpServer::start("dot => wait", None).await;
    let mut setup = session_setup(&hop, "");
    let mut talk = Talk::begin(&setup, "192.0.2.77").await;
    talk.envelope(&TO[..1]).await;
    talk.socket.write_all(MESSAGE.as_bytes()).await.unwrap();
    until("the content is there", || !hop.contents().is_empty()).await;
    tokio::time::pause();
    let begun = Instant::now();
    let reply = talk.reply().await;
    let waited = begun.elapsed();
    tokio::time::resume();
    assert!(reply.starts_with("250 2.0.0 queued as"), "{reply}");
    about(Duration::from_secs(90), waited);
    let Handover { entry, mut under_way } = setup.accepted.try_recv().unwrap();
    assert!(matches!(entry.recipients[0].state, RecipientState::Waiting(Waiting { attempts: 1, .. })), "{entry:?}");
    let UnderWay { recipients, outcomes } = under_way.remove(0);
    assert_eq!(recipients, [0]);
    hop.follow("dot => 250 2.0.0 mine");
    let outcomes = outcomes.await.unwrap();
    assert!(matches!(&outcomes[..], [(0, outcome)] if outcome.class == Class::Accepted), "{outcomes:?}");
    assert_eq!(hop.contents().len(), 1);
    talk.say("NOOP", "250").await;
}

/// A store that delivers to one after another (RFC 2033) is waited for eight minutes, not eight for each.
#[tokio::test]
async fn all_replies_together_are_waited_for_for_eight_minutes() {
    let hop = ScriptedSmtpServer::start("dot => wait", None).await;
    let setup = session_setup(&hop, "protocol = \"lmtp\"");
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&TO).await;
    talk.socket.write_all(MESSAGE.as_bytes()).await.unwrap();
    until("the content is there", || !hop.contents().is_empty()).await;
    tokio::time::pause();
    let begun = Instant::now();
    // A byte a second: five minutes each.
    hop.follow(&format!("dot => drip 250 2.0.0 {}", "x".repeat(290)));
    let reply = talk.reply().await;
    let waited = begun.elapsed();
    assert!(reply.starts_with("250 2.0.0 queued as"), "{reply} after {waited:?}");
    about(8 * MINUTE, waited);
    let committed = setup.spool.committed.lock()[0].0.clone();
    let waits = |at: usize| !matches!(committed.recipients[at].state, RecipientState::Done(_));
    assert_eq!([waits(0), waits(1), waits(2)], [false, true, true]);
}

/// More than sockets hold on the way to a next hop that does not read.
const MUCH: usize = 20 << 20;

/// Sends a message, and the end of it.
async fn send_much(mut socket: WriteHalf<DuplexStream>) {
    let line = "A line of a message as people write them: not long, not short.\r\n";
    let piece = line.repeat(1000);
    socket.write_all(b"Message-ID: <2@fabrikam.example>\r\n\r\n").await.unwrap();
    for _ in 0..MUCH / piece.len() {
        socket.write_all(piece.as_bytes()).await.unwrap();
    }
    socket.write_all(b".\r\n").await.unwrap();
}

/// A single branch slows the client down to its own pace, but not below 1 KiB a second for two minutes.
#[tokio::test]
async fn a_next_hop_that_takes_next_to_nothing_is_given_up_after_two_minutes() {
    // It freezes at the content's first octets, or takes one a second from there on.
    for pace in ["wait", "trickle"] {
        let hop = ScriptedSmtpServer::start("content => wait", None).await;
        let setup = session_setup(&hop, "");
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.envelope(&TO[..1]).await;
        let (mut reading, writing) = tokio::io::split(talk.socket);
        let sender = tokio::spawn(send_much(writing));
        until("the next hop's DATA", || !hop.commands("DATA").is_empty()).await;
        tokio::time::pause();
        let begun = Instant::now();
        hop.follow(&format!("content => {pace}"));
        let mut reply = [0; 4];
        reading.read_exact(&mut reply).await.unwrap();
        about(2 * MINUTE, begun.elapsed());
        tokio::time::resume();
        assert_eq!(&reply, b"451 ", "{pace}");
        sender.await.unwrap();
        assert!(setup.take_committed().is_empty() && hop.contents().is_empty(), "{pace}");
    }
}

/// What BDAT brought is sent when it is complete, and that takes no longer than six of the eight minutes: with less than two
/// left the dot would come too late to be waited for. The queue goes on, and nothing has arrived.
#[tokio::test]
async fn no_dot_is_sent_with_less_than_two_minutes_left() {
    let hop = ScriptedSmtpServer::start("content => wait", None).await;
    let setup = session_setup(&hop, "");
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.say("MAIL FROM:<a@fabrikam.example>", "250").await;
    talk.say("RCPT TO:<alice@contoso.com>", "250").await;
    let content = format!("Message-ID: <3@fabrikam.example>\r\n\r\n{}", "A line.\r\n".repeat(MUCH / 9));
    talk.socket.write_all(format!("BDAT {} LAST\r\n", content.len()).as_bytes()).await.unwrap();
    talk.socket.write_all(content.as_bytes()).await.unwrap();
    until("the next hop's DATA", || !hop.commands("DATA").is_empty()).await;
    tokio::time::pause();
    let begun = Instant::now();
    hop.follow("content => every 1000");
    let reply = talk.reply().await;
    about(6 * MINUTE, begun.elapsed());
    assert!(reply.starts_with("250 2.0.0 queued as"), "{reply}");
    let committed = setup.spool.committed.lock()[0].0.clone();
    assert!(!matches!(committed.recipients[0].state, RecipientState::Done(_)), "{:?}", committed.recipients[0].state);
    assert!(hop.contents().is_empty(), "a dot");
    tokio::time::resume();
    talk.say("NOOP", "250").await;
}
