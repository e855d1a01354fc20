//! Whose turn it is in a session, at each of its stages: who waits for us is never sent away.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::session::turn::{Idle, SlotKind, Stage, Turn, Why};
use fingerpost::smtp::envelope::Whose;
use support::sessions::{CONFIG, Commits, SessionSetup};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A client whose session's turn can be seen.
struct Talk {
    socket: DuplexStream,
    session: JoinHandle<()>,
    turn: Turn,
}

impl Talk {
    /// Connects; `room` is what the connection holds of what nobody reads.
    fn begin(setup: &SessionSetup, client: &str, room: usize) -> Self {
        Self::begin_in(SlotKind::Free, setup, client, room)
    }

    /// The same in such a place.
    fn begin_in(place: SlotKind, setup: &SessionSetup, client: &str, room: usize) -> Self {
        let (socket, server) = tokio::io::duplex(room);
        let turn = Turn::new(Instant::now(), CancellationToken::new(), Arc::new(Semaphore::new(1)), place);
        let services = Arc::new(setup.services.clone());
        let serve = fingerpost::session::serve(services, setup.client(client), server, turn.clone());
        Self { socket, session: tokio::spawn(serve), turn }
    }

    async fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).await.unwrap();
        settle().await;
    }

    /// What was said until now.
    async fn heard(&mut self) -> String {
        let mut said = Vec::new();
        while let Ok(octet) = tokio::time::timeout(Duration::from_millis(1), self.socket.read_u8()).await {
            let Ok(octet) = octet else { break };
            said.push(octet);
        }
        String::from_utf8(said).unwrap()
    }

    /// Sends the lines and looks at the last reply.
    async fn say(&mut self, lines: &str, expected: &str) {
        self.send(&format!("{lines}\r\n")).await;
        let heard = self.heard().await;
        let last = heard.lines().last().unwrap_or_default();
        assert!(last.starts_with(expected), "{lines:?}: {heard:?}, expected {expected:?}");
    }

    fn stage(&self) -> Option<Stage> {
        self.turn.idle().map(|idle| idle.stage)
    }
}

/// Lets the session do all that it can.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

const ENVELOPE: &str = "MAIL FROM:<a@fabrikam.example>\r\nRCPT TO:<alice@contoso.com>";

#[tokio::test(start_paused = true)]
async fn it_is_the_clients_turn_between_commands_and_nowhere_else() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1", 1 << 16);
    settle().await;
    assert_eq!(talk.stage(), Some(Stage::BeforeMail), "after the greeting");
    for (lines, reply, stage) in [
        ("EHLO c", "250 ", Some(Stage::BeforeMail)),
        ("NOOP", "250 ", Some(Stage::BeforeMail)),
        (ENVELOPE, "250 ", Some(Stage::AfterMail)),
        ("DATA", "354 ", Some(Stage::Content)),
        ("Subject: x", "", Some(Stage::Content)),
        ("\r\nbody", "", Some(Stage::Content)),
        (".", "250 ", Some(Stage::AfterMail)),
        (ENVELOPE, "250 ", Some(Stage::AfterMail)),
        ("BDAT 7\r\nab", "", Some(Stage::Content)),
        ("c", "250 ", Some(Stage::Content)), // between its chunks
        ("BDAT 0 LAST", "250 ", Some(Stage::AfterMail)),
        ("BDAT 11\r\nabc", "", Some(Stage::Content)), // a chunk that nobody wants
        ("defg", "503 ", Some(Stage::AfterMail)),
        ("MAIL FROM:<>\r\nDATA", "503 ", Some(Stage::AfterMail)),
    ] {
        talk.say(lines, reply).await;
        assert_eq!(talk.stage(), stage, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_ours_while_we_owe_a_reply() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1", 1 << 16);
    talk.say("EHLO c", "250 ").await;
    // Before somebody is unknown the directory itself is asked, which takes its time.
    talk.send("MAIL FROM:<a@fabrikam.example>\r\nRCPT TO:<newslow@example.net>\r\n").await;
    assert_eq!(talk.stage(), None, "a directory is asked: {}", talk.heard().await);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(talk.stage().is_some(), "it has answered");
    talk.heard().await;
    *setup.spool.commits.lock() = Commits::Hang;
    talk.say(&format!("RSET\r\n{ENVELOPE}\r\nDATA"), "354 ").await;
    talk.send("x\r\n.\r\n").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(talk.stage(), None, "the dot is pending");
}

#[tokio::test(start_paused = true)]
async fn what_drips_in_or_leads_nowhere_is_idle() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1", 1 << 16);
    talk.say("EHLO c", "250 ").await;
    let since = talk.turn.idle().unwrap().since;
    for line in ["N", "O", "OP\r\n", "RSET\r\n", "EHLO c\r\n", "VRFY <a>\r\n", "XYZZY\r\n", "MAIL"] {
        tokio::time::sleep(Duration::from_secs(3)).await;
        talk.send(line).await;
        assert_eq!(talk.turn.idle().unwrap().since, since, "{line:?}");
    }
    talk.send(" FROM:<a@fabrikam.example>\r\n").await;
    let mail = talk.turn.idle().unwrap().since;
    assert!(mail > since);
    talk.send("RSET\r\nMAIL FROM:<a@fabrikam.example>\r\n").await;
    assert_eq!(talk.turn.idle().unwrap().since, mail, "MAIL again");
    talk.send("RCPT TO:<alice@contoso.com>\r\n").await;
    assert!(talk.turn.idle().unwrap().since > mail);
}

#[tokio::test(start_paused = true)]
async fn content_is_as_far_behind_as_a_kibibyte_a_second_leaves_it() {
    let setup = SessionSetup::with(&CONFIG.replace("4KiB", "4MiB"));
    let mut talk = Talk::begin(&setup, "192.0.2.1", 1 << 20);
    talk.say(&format!("EHLO c\r\n{ENVELOPE}\r\nDATA"), "354 ").await;
    let begun = Instant::now();
    let behind = |talk: &Talk, begun: Instant| begun.elapsed().saturating_sub(talk.turn.idle().unwrap().since);
    talk.send("Subject: x\r\n\r\n").await;
    for (every, octets, expected) in [(1, 1024, 0), (1, 512, 10), (5, 50_000, 0), (2, 0, 40)] {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(every)).await;
            if octets > 0 {
                talk.send(&format!("{}\r\n", "x".repeat(octets - 2))).await;
            }
        }
        let seconds = behind(&talk, begun).as_secs_f64();
        assert!((seconds - f64::from(expected)).abs() < 1.0, "{octets} every {every} s: {seconds} of {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_sent_away_hears_why() {
    for (why, reply) in [(Why::Wanted, "421 4.3.2 idle while others wait"), (Why::Idle, "421 4.4.2 timeout")] {
        let envelope = format!("EHLO c\r\n{ENVELOPE}");
        for lines in ["", "EHLO c", "EHLO c\r\nMAIL FROM:<>", &envelope, &format!("{envelope}\r\nDATA\r\nx")] {
            let setup = SessionSetup::new();
            let mut talk = Talk::begin(&setup, "192.0.2.1", 1 << 16);
            talk.send(&format!("{lines}\r\n")).await;
            talk.heard().await;
            assert!(talk.turn.send_away(talk.turn.idle().unwrap(), why));
            settle().await;
            assert!(talk.heard().await.starts_with(reply), "{lines:?}");
            drop(talk.socket);
            talk.session.await.unwrap();
            assert_eq!(talk.turn.sent_away(), Some(why));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_nothing_is_idle_and_ends_at_once_when_sent_away() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1", 256);
    settle().await;
    for _ in 0..200 {
        let noop = tokio::time::timeout(Duration::from_millis(1), talk.socket.write_all(b"NOOP\r\n")).await;
        if noop.is_err() {
            break;
        }
    }
    let idle = talk.turn.idle().expect("it is the client's turn to read");
    assert!(talk.turn.send_away(idle, Why::Wanted));
    let before = Instant::now();
    talk.session.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_organizations_client_is_no_stranger() {
    let setup = SessionSetup::new();
    for (client, whose) in [("192.0.2.1", Whose::Stranger), ("192.0.2.77", Whose::Known)] {
        let talk = Talk::begin(&setup, client, 1 << 16);
        settle().await;
        let expected = Idle { since: Duration::ZERO, stage: Stage::BeforeMail, whose };
        assert_eq!(talk.turn.idle(), Some(expected), "{client}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_has_no_transaction_in_a_place_that_is_not_for_strangers() {
    let setup = SessionSetup::new();
    for (client, place, reply) in [
        ("192.0.2.1", SlotKind::Free, "250 "),
        ("192.0.2.77", SlotKind::Reserved, "250 "),
        ("192.0.2.1", SlotKind::Reserved, "421 4.3.2 too many connections"),
    ] {
        let mut talk = Talk::begin_in(place, &setup, client, 1 << 16);
        talk.say("EHLO c", "250 ").await;
        talk.say("MAIL FROM:<>", reply).await;
    }
}
