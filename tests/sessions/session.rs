//! Sessions as their surroundings see them: when a message is accepted, what comes of loops, of a configuration that
//! changes, of a disk that is full or broken, of a client that goes away.

use std::sync::Arc;
use std::time::Duration;

use fingerpost::message::header::examine;
use fingerpost::message::stamp::{Key, NewStamp, sign};
use fingerpost::pressure::held::{FOR_ALL, FOR_ONE};
use fingerpost::pressure::weigh::{Bounds, Figures};
use fingerpost::smtp::address::Address;
use fingerpost::time::UnixTime;
use support::sessions::talk::Talk;
use support::sessions::{CONFIG, Commits, KEY, SessionSetup, config, in_force};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

const FIELDS: &str =
    "Message-ID: <1@fabrikam.example>\r\nDate: Sat, 21 Nov 2026 04:39:00 +0000\r\nFrom: a@fabrikam.example\r\n";

/// A message that was stamped for these recipients when it took `via`.
fn stamped(via: &str, recipients: &[&str]) -> String {
    let addresses: Vec<Address> = recipients.iter().map(|text| Address::parse(text).unwrap()).collect();
    let stamp = NewStamp {
        installation: "mx.contoso.com",
        via,
        time: UnixTime::now(),
        recipients: &addresses.iter().collect::<Vec<_>>(),
        identity: &examine(FIELDS.as_bytes()).identity,
    };
    format!("{}{FIELDS}\r\nbody\r\n.", sign(&Key::new(KEY), &stamp))
}

#[tokio::test(start_paused = true)]
async fn a_message_is_accepted_only_after_it_is_durable() {
    for (commits, reply) in [(Commits::Succeed, "250 2.0.0 queued as "), (Commits::Fail, "451 4.3.0")] {
        let mut setup = SessionSetup::new();
        *setup.spool.commits.lock() = commits;
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.envelope(&["alice@contoso.com"]).await;
        talk.say("Subject: x\r\n\r\nbody\r\n.", reply).await;
        assert_eq!(setup.accepted.try_recv().is_ok(), commits == Commits::Succeed);
        talk.say("NOOP", "250").await;
    }
    let setup = SessionSetup::new();
    *setup.spool.commits.lock() = Commits::Hang;
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&["alice@contoso.com"]).await;
    talk.socket.write_all(b"body\r\n.\r\n").await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(3000), talk.socket.read_u8()).await;
    assert!(waited.is_err(), "a reply without a commit");
}

#[tokio::test(start_paused = true)]
async fn what_becomes_durable_reaches_the_queue_even_if_the_session_ends_meanwhile() {
    let mut setup = SessionSetup::new();
    *setup.spool.commits.lock() = Commits::Slow;
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&["alice@contoso.com"]).await;
    talk.socket.write_all(b"Subject: x\r\n\r\nbody\r\n.\r\n").await.unwrap();
    let none = tokio::time::timeout(Duration::from_secs(5), setup.accepted.recv()).await;
    assert!(none.is_err(), "it is being committed");
    talk.session.abort();
    let handover = tokio::time::timeout(Duration::from_secs(60), setup.accepted.recv()).await.expect("nobody has it");
    assert_eq!(handover.map(|handover| handover.entry.id), Some(setup.spool.committed.lock()[0].0.id));
}

#[tokio::test(start_paused = true)]
async fn large_messages_are_written_in_pieces_and_come_out_whole() {
    let setup = SessionSetup::with(&CONFIG.replace("4KiB", "4MiB"));
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&["alice@contoso.com"]).await;
    let body = "0123456789abcdef\u{e9}\r\n".repeat(100_000);
    talk.say(&format!("Subject: x\r\n\r\n{body}."), "250 2.0.0").await;
    let entry = setup.spool.committed.lock()[0].0.clone();
    let content = setup.take_committed().remove(0).1;
    let start = usize::try_from(entry.content.header_size).unwrap();
    assert!(content[..start].ends_with(b"\r\nSubject: x\r\n"));
    assert!(content[start..] == *format!("\r\n{body}").as_bytes(), "the body is not what was sent");
    assert!(entry.content.eight_bit && entry.content.ascii_header && !entry.content.bare_lf);
}

#[tokio::test(start_paused = true)]
async fn looped_recipients_are_refused_or_reported() {
    for (recipients, looped, reply, durable) in [
        (&["unknown1@contoso.com"][..], &["unknown1@contoso.com"][..], "554 5.4.6", &[][..]),
        (&["unknown1@contoso.com"], &["unknown2@contoso.com"], "250", &["unknown1@contoso.com via kerio"]),
        // Recipients are asked about live first: this one has moved meanwhile, and this one was made.
        (&["moved@contoso.com"], &["moved@contoso.com"], "250", &["moved@contoso.com via kerio"]),
        (&["new@contoso.com"], &["new@contoso.com"], "250", &["new@contoso.com via exchange"]),
        (&["alice@contoso.com"], &["alice@contoso.com"], "554 5.4.6", &[]),
        (
            &["unknown1@contoso.com", "alice@contoso.com"],
            &["unknown1@contoso.com"],
            "250",
            &["unknown1@contoso.com via kerio (failed), alice@contoso.com via exchange", "report"],
        ),
    ] {
        let setup = SessionSetup::new();
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.envelope(recipients).await;
        let relayed = looped[0].starts_with("unknown") || looped[0].starts_with("new");
        let via = if relayed { "kerio" } else { "exchange" };
        talk.say(&stamped(via, looped), reply).await;
        let committed = setup.take_committed();
        assert_eq!(committed.len(), durable.len(), "{recipients:?}: {committed:?}");
        for ((summary, _), expected) in committed.iter().zip(durable) {
            match *expected {
                "report" => assert!(summary.starts_with("<> -> a@fabrikam.example"), "{summary}"),
                expected => assert_eq!(*summary, format!("<a@fabrikam.example> -> {expected}")),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn loops_are_only_counted_in_report_mode() {
    let text = format!("{CONFIG}\n[loop_detection]\nmode = \"report\"\n");
    let setup = SessionSetup::with(&text);
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&["unknown1@contoso.com"]).await;
    talk.say(&stamped("kerio", &["unknown1@contoso.com"]), "250").await;
    assert_eq!(setup.services.metrics.loops.with_label_values(&["stamp"]).get(), 1);
    talk.envelope(&["alice@contoso.com"]).await;
    talk.say(&format!("{}\r\n.", "Received: x\r\n".repeat(51)), "554 5.4.6").await;
}

#[tokio::test(start_paused = true)]
async fn a_forged_stamp_is_counted_and_nothing_else() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&["unknown1@contoso.com"]).await;
    let message = stamped("kerio", &["unknown1@contoso.com"]).replace("<1@", "<2@");
    talk.say(&message, "250").await;
    let ignored: u64 = ["mac", "identity", "form", "installation"]
        .iter()
        .map(|reason| setup.services.metrics.stamps_ignored.with_label_values(&[reason]).get())
        .sum();
    assert_eq!(ignored, 1);
}

#[tokio::test(start_paused = true)]
async fn a_transaction_keeps_the_configuration_it_began_with() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.say("MAIL FROM:<a@fabrikam.example>", "250").await;
    let without = CONFIG.replace("example.net", "example.org");
    setup.services.current.store(Arc::new(in_force(config(&without, setup.folder()))));
    talk.say("RCPT TO:<alice@example.net>", "250").await;
    talk.say("RSET", "250").await;
    talk.say("MAIL FROM:<a@fabrikam.example>", "250").await;
    talk.say("RCPT TO:<alice@example.net>", "550 5.7.1").await;
    talk.say("RCPT TO:<alice@example.org>", "250").await;
    // The door is chosen anew with each transaction, too.
    talk.say("RSET", "250").await;
    let closed = CONFIG.replace("127.0.0.1:2525", "127.0.0.1:2526");
    setup.services.current.store(Arc::new(in_force(config(&closed, setup.folder()))));
    talk.say("MAIL FROM:<a@fabrikam.example>", "421 4.3.2").await;
}

/// A look: so much is free, and 100 has to be.
fn free(setup: &SessionSetup, free: u64) {
    let bounds = Bounds { min_free: 100, max_messages: None };
    setup.services.pressure.look(&Figures { free, ..Figures::default() }, bounds);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_turns_mail_away_and_lets_it_in_again() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    free(&setup, 0);
    talk.say("MAIL FROM:<a@fabrikam.example>", "452 4.3.1").await;
    free(&setup, 1000);
    talk.envelope(&["alice@contoso.com"]).await;
    free(&setup, 0);
    talk.say("x\r\n.", "452 4.3.1").await;
    assert_eq!(setup.take_committed(), []);
}

/// Strangers first: at MAIL, and after the dot where a transaction had begun that would be queued.
#[tokio::test(start_paused = true)]
async fn where_too_much_waits_organisations_are_turned_away_later() {
    const TURNED_AWAY: &str = "452 4.3.1";
    for (messages, of_a_stranger, of_ours) in
        [(99, "250", "250"), (100, TURNED_AWAY, "250"), (112, TURNED_AWAY, TURNED_AWAY)]
    {
        for (client, reply) in [("192.0.2.1", of_a_stranger), ("192.0.2.77", of_ours)] {
            let setup = SessionSetup::new();
            let (mut begun, mut new) = (Talk::begin(&setup, client).await, Talk::begin(&setup, client).await);
            begun.envelope(&["alice@contoso.com"]).await;
            let bounds = Bounds { min_free: 0, max_messages: Some(100) };
            setup.services.pressure.look(&Figures { messages, ..Figures::default() }, bounds);
            begun.say("x\r\n.", reply).await;
            new.say("MAIL FROM:<a@fabrikam.example>", reply).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn draining_lets_a_transaction_end() {
    let setup = SessionSetup::new();
    let mut idle = Talk::begin(&setup, "192.0.2.1").await;
    let mut busy = Talk::begin(&setup, "192.0.2.1").await;
    busy.envelope(&["alice@contoso.com"]).await;
    idle.draining.cancel();
    busy.draining.cancel();
    assert!(idle.reply().await.starts_with("421 4.3.2"));
    busy.say("x\r\n.", "250 2.0.0 queued").await;
    assert!(busy.reply().await.starts_with("421 4.3.2"));
    drop((idle.socket, busy.socket));
    idle.session.await.unwrap();
    busy.session.await.unwrap();
    assert_eq!(setup.take_committed().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_nothing() {
    let setup = SessionSetup::new();
    let mut talk = Talk::begin(&setup, "192.0.2.1").await;
    talk.envelope(&["alice@contoso.com"]).await;
    talk.socket.write_all(b"Subject: x\r\n\r\nhalf a mess").await.unwrap();
    drop(talk.socket);
    talk.session.await.unwrap();
    assert_eq!(setup.take_committed(), []);
    let left: Vec<_> = walk(setup.folder()).into_iter().filter(|path| path.contains("incoming/")).collect();
    assert_eq!(left, [""; 0]);
}

/// Writes a line every ten seconds, `lines` of them; for how many the session took them.
async fn drip(talk: &mut Talk, line: &str, lines: usize) -> usize {
    for sent in 0..lines {
        if talk.socket.write_all(line.as_bytes()).await.is_err() || talk.session.is_finished() {
            return sent;
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    lines
}

#[tokio::test(start_paused = true)]
async fn content_that_drips_is_cut_and_leaves_nothing() {
    let many = format!("Subject: x\r\n\r\n{}", "0123456789abcdef\r\n".repeat(60_000));
    for (begin, beginning, line, cut) in [
        ("DATA", "Subject: x\r\n\r\n".to_owned(), "x".repeat(1000) + "\r\n", true),
        // What came fast before does not help for long.
        ("DATA", many.clone(), "x".repeat(1000) + "\r\n", true),
        ("DATA", many, "x".repeat(20_000) + "\r\n", false),
        // Chunks with a pause between them, each of which is taken at once.
        ("", String::new(), "BDAT 5\r\nA: b\n".to_owned(), true),
    ] {
        let setup = SessionSetup::with(&CONFIG.replace("4KiB", "4MiB").replace("\"1KiB\"", "\"64KiB\""));
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.say("MAIL FROM:<a@fabrikam.example>", "250").await;
        talk.say("RCPT TO:<alice@contoso.com>", "250").await;
        if !begin.is_empty() {
            talk.say(begin, "354").await;
        }
        talk.socket.write_all(beginning.as_bytes()).await.unwrap();
        let lines = drip(&mut talk, &line, 60).await;
        let told = format!("{} octets each 10 s after {}", line.len(), beginning.len());
        if cut {
            assert!((10..16).contains(&lines), "{told}: {lines}");
            let mut said = String::new();
            talk.socket.read_to_string(&mut said).await.unwrap();
            assert!(said.ends_with("421 4.4.2 timeout, closing connection\r\n"), "{told}: {said}");
        } else {
            assert_eq!(lines, 60, "{told}");
            talk.say(".", "250 2.0.0").await;
            assert_eq!(setup.take_committed().len(), 1, "{told}");
        }
        assert_eq!(setup.take_committed(), [], "{told}");
        let left = walk(setup.folder()).into_iter().filter(|path| path.contains("incoming/"));
        assert_eq!(left.collect::<Vec<_>>(), [""; 0], "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_content_a_command_has_its_own_time_again() {
    let setup = SessionSetup::new();
    for (content, reply) in [("x\r\n.", "250 2.0.0"), (&*format!("{}\r\n.", "x\r\n".repeat(4000)), "552 5.3.4")] {
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.envelope(&["alice@contoso.com"]).await;
        let (beginning, end) = content.split_at(content.len() / 2);
        talk.socket.write_all(beginning.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        talk.say(end, reply).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        talk.say("NOOP", "250 2.0.0").await;
    }
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test]
async fn postmaster_alone_is_accepted_where_only_patterns_are() {
    for hostname in ["mx.contoso.com", "mx.fabrikam.example"] {
        let text = CONFIG.replace("hostname = \"mx.contoso.com\"", &format!("hostname = \"{hostname}\""));
        let text = text.replace("{ domain = ", "{ subdomains = true, domain = ");
        let text = text.replace("\ndomain = \"", "\ndomain = \"*.");
        let setup = SessionSetup::with(&text);
        let (socket, server) = tokio::io::duplex(1 << 16);
        let session = fingerpost::session::serve(
            Arc::new(setup.services.clone()),
            setup.client("192.0.2.1"),
            server,
            CancellationToken::new(),
        );
        let mut talk = Talk { socket, session: tokio::spawn(session), draining: CancellationToken::new() };
        talk.reply().await;
        talk.say("EHLO client.example", "250 CHUNKING").await;
        talk.say("MAIL FROM:<>", "250 2.1.0 sender ok").await;
        talk.say("RCPT TO:<postmaster>", "250 2.1.5 recipient ok").await;
    }
}

/// Memory of sessions, all together: beyond it a stranger has his share, and mail of a usual size goes on.
#[tokio::test(start_paused = true)]
async fn where_sessions_hold_much_a_stranger_gets_no_more_than_his_share() {
    let text = CONFIG.replace("4KiB", "4MiB").replace("1KiB", "256KiB").replace("recipients = 3", "recipients = 500");
    let setup = SessionSetup::with(&text);
    let pressure = setup.services.pressure.clone();
    let header = format!("X-Long: {}\r\n", "x".repeat(900)).repeat(120);
    let body = format!("{}\r\n", "y".repeat(900)).repeat(400);
    for (short, taken, to_header) in [(true, FOR_ONE / (512 + 4 * 22), "452 4.3.1"), (false, 200, "250 ")] {
        let mut others = pressure.hold();
        others.recipient(if short { FOR_ALL } else { 0 });
        let mut talk = Talk::begin(&setup, "192.0.2.1").await;
        talk.say("MAIL FROM:<a@fabrikam.example>", "250 ").await;
        for number in 100..300 {
            let reply = if number - 100 < taken { "250 " } else { "452 4.3.1" };
            talk.say(&format!("RCPT TO:<unknown{number}@contoso.com>"), reply).await;
        }
        talk.say("RSET", "250 ").await;
        for (content, reply) in [(&header, to_header), (&body, "250 ")] {
            talk.envelope(&["alice@contoso.com"]).await;
            let empty = if content == &body { "Subject: large\r\n\r\n" } else { "" };
            talk.say(&format!("{empty}{content}."), reply).await;
        }
        drop((talk, others));
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!pressure.is_short_of_memory(FOR_ALL), "all of it is given back");
    }
}
