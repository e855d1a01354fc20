//! What senders hear, and what becomes of a report that cannot be delivered.

use std::sync::atomic::Ordering;

use fingerpost::smtp::envelope::{Notify, Origin, Relay, Ret};
use fingerpost::spool::entry::{RecipientState, Waiting};
use fingerpost::time::UnixTime;
use support::recording_smtp_server::RecordingSmtpServer;
use support::test_queue::{Mail, TestQueue, To, connectors};

const ALICE: &str = "alice@example.net";
const DAYS: u64 = 24 * 3600;

/// A queue where the primary side knows DSN or not, and Bob is the primary's.
async fn start_queue(
    folder: &tempfile::TempDir,
    offers: &[&'static str],
) -> (TestQueue, RecordingSmtpServer, RecordingSmtpServer) {
    let (primary, secondary) =
        (RecordingSmtpServer::start(offers).await, RecordingSmtpServer::start(&["PIPELINING", "DSN"]).await);
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    queue.directory.add("bob@contoso.com", None);
    (queue, primary, secondary)
}

fn dsn(queue: &TestQueue, action: &str) -> u64 {
    queue.metrics.dsn.with_label_values(&[action]).get()
}

#[tokio::test]
async fn a_refusal_is_reported_with_the_organisation_and_its_words() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
    primary.say("bob@contoso.com", &["554 5.2.0 we do not like you, says ex01.contoso.local [10.1.2.3]"]);
    queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    queue.empty().await;
    let [report] = <[String; 1]>::try_from(queue.mailbox(ALICE)).unwrap();
    for part in [
        "Return-Path: <>\r\nFrom: Mail Delivery System <postmaster@contoso.com>\r\nTo: <alice@example.net>\r\n",
        "Auto-Submitted: auto-replied\r\n",
        "References: <1@example.net>\r\n",
        "The mail system of \"primary\" refused it:",
        "Reporting-MTA: dns; mx.contoso.com\r\n",
        "Final-Recipient: rfc822; bob@contoso.com\r\nAction: failed\r\nStatus: 5.2.0\r\n",
        "we do not like you, says [hidden] [hidden]",
        "Content-Type: text/rfc822-headers\r\n",
        "\r\nSubject: hello\r\n",
    ] {
        assert!(report.contains(part), "{part:?} is not in {report}");
    }
    assert!(!report.contains("127.0.0.1"), "hosts are hidden: {report}");
    assert!(!report.contains(".dot"), "only the header section comes back");
    assert_eq!(dsn(&queue, "failed"), 1);
}

#[tokio::test]
async fn what_is_about_us_is_not_the_senders_to_hear() {
    for words in
        ["554 5.7.1 we do not like 192.0.2.1", "550 [198.51.100.7] is not welcome", "550 5.7.1 mx.contoso.com?"]
    {
        let folder = tempfile::tempdir().unwrap();
        let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
        primary.say("bob@contoso.com", &[words]);
        let id = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
        let shown = queue.tried(id, 1).await;
        assert!(shown.contains("451 4.") && shown.contains(words), "{shown}");
        queue.delivery.retry_all(None);
        queue.empty().await;
        assert_eq!((queue.mailbox(ALICE).len(), primary.accepted().len()), (0, 1), "{words}");
    }
}

#[tokio::test]
async fn the_whole_message_comes_back_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
    primary.say("bob@contoso.com", &["554 5.7.1 no"]);
    queue.enqueue(Mail { ret: Some(Ret::Full), ..Mail::to("bob@contoso.com", "primary") }).await;
    queue.empty().await;
    let report = queue.mailbox(ALICE).remove(0);
    assert!(report.contains("Content-Type: message/rfc822\r\n") && report.contains("\r\n.dot\r\nbody\r\n"), "{report}");
}

#[tokio::test]
async fn nobody_is_told_who_must_not_be() {
    for (from, notify) in [
        ("", None),
        (ALICE, Some(Notify::Never)),
        (ALICE, Some(Notify::On { success: true, failure: false, delay: true })),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
        primary.say("bob@contoso.com", &["554 5.7.1 no"]);
        let to = vec![To("bob@contoso.com", "primary", notify)];
        queue.enqueue(Mail { from, to, ..Mail::to("", "") }).await;
        queue.empty().await;
        assert!(queue.mailbox(ALICE).is_empty(), "{from} {notify:?}");
        assert!(queue.dead_letters().is_empty());
        assert_eq!(queue.metrics.deliveries.with_label_values(&["primary", "failed"]).get(), 1);
    }
}

#[tokio::test]
async fn success_is_told_where_nobody_else_tells_it() {
    let success = Some(Notify::On { success: true, failure: true, delay: false });
    for (offers, to, connector, action) in [
        (vec!["PIPELINING"], "bob@contoso.com", "primary", Some("relayed")),
        (vec!["PIPELINING", "DSN"], "bob@contoso.com", "primary", None),
        (vec![], "erin@example.net", "senders", Some("delivered")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (queue, _primary, _secondary) = start_queue(&folder, &offers).await;
        queue.enqueue(Mail { to: vec![To(to, connector, success)], ..Mail::to("", "") }).await;
        queue.empty().await;
        let reports = queue.mailbox(ALICE);
        let Some(action) = action else {
            assert!(reports.is_empty());
            continue;
        };
        assert_eq!(reports.len(), 1);
        assert!(reports[0].contains(&format!("Action: {action}\r\nStatus: 2.")), "{}", reports[0]);
        assert_eq!(dsn(&queue, action), 1);
    }
}

#[tokio::test]
async fn a_delay_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
    primary.say("bob@contoso.com", &["450 4.2.1 busy"; 3]);
    let id = queue.enqueue(Mail { tried: (9 * 3600, 9), ..Mail::to("bob@contoso.com", "primary") }).await;
    for times in [10, 11, 12] {
        queue.tried(id, times).await;
        queue.delivery.retry(id);
    }
    queue.empty().await;
    let reports = queue.mailbox(ALICE);
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert!(reports[0].contains("Action: delayed\r\nStatus: 4.2.1\r\n"), "{}", reports[0]);
    // What is left of two days, of which nine hours have run.
    let until = |ago| UnixTime(UnixTime::now().0 + 2 * DAYS - 9 * 3600 - ago).rfc5322();
    assert!((0..60).any(|ago| reports[0].contains(&format!("Will-Retry-Until: {}\r\n", until(ago)))), "{}", reports[0]);
    assert_eq!((dsn(&queue, "delayed"), primary.accepted().len()), (1, 1));
}

#[tokio::test]
async fn what_has_waited_too_long_is_reported_and_over() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
    primary.say("bob@contoso.com", &["450 4.2.1 still busy"]);
    queue.enqueue(Mail { tried: (5 * DAYS, 50), ..Mail::to("bob@contoso.com", "primary") }).await;
    queue.empty().await;
    let reports = queue.mailbox(ALICE);
    assert_eq!(reports.len(), 1);
    assert!(
        reports[0].contains("Action: failed\r\nStatus: 5.4.7\r\n") && reports[0].contains("still busy"),
        "{}",
        reports[0]
    );
    assert!(primary.accepted().is_empty());
}

#[tokio::test]
async fn a_report_that_fails_becomes_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, secondary) = start_queue(&folder, &["PIPELINING"]).await;
    queue.reconfigure(&format!(
        "[reports]\ndeliver_to = \"secondary\"\n{}",
        connectors(primary.address, secondary.address, "")
    ));
    primary.say("bob@contoso.com", &["554 5.7.1 no"]);
    secondary.say(ALICE, &["550 5.7.1 nor you"]);
    queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    queue.empty().await;
    let letters = queue.dead_letters();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].starts_with("From: Mail Delivery System") && letters[0].contains("bob@contoso.com"));
    assert!(queue.mailbox(ALICE).is_empty(), "nothing is reported about a report");
    let none: [&str; 0] = [];
    assert_eq!(queue.metrics.dead_letters.with_label_values(&none).get(), 1);
}

#[tokio::test]
async fn the_oldest_dead_letters_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, secondary) = start_queue(&folder, &["PIPELINING"]).await;
    let connectors = connectors(primary.address, secondary.address, "");
    queue.reconfigure(&format!("[reports]\ndeliver_to = \"secondary\"\nmax_dead_letters = 2\n{connectors}"));
    primary.say("bob@contoso.com", &["550 5.2.1 disabled"; 3]);
    secondary.say(ALICE, &["550 5.2.1 so are you"; 3]);
    for _ in 0..3 {
        queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    }
    let removed = || queue.metrics.dead_letters_removed.with_label_values(&["number"]).get();
    support::test_queue::eventually("one has made room", || removed() == 1).await;
    queue.empty().await;
    assert_eq!((queue.dead_letters().len(), removed()), (2, 1));
}

#[tokio::test]
async fn a_report_that_fails_and_cannot_be_read_is_over_too() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, secondary) = start_queue(&folder, &["PIPELINING"]).await;
    queue.reconfigure(&format!(
        "[reports]\ndeliver_to = \"primary\"\n{}",
        connectors(primary.address, secondary.address, "max_connections = 1")
    ));
    primary.say("bob@contoso.com", &["554 5.7.1 no"]);
    primary.say(".", &["554 5.7.1 nor the report"]);
    primary.shut();
    queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    support::test_queue::eventually("the report is at the dot", || primary.at_the_dot() == 1).await;
    queue.spool.unreadable.store(true, Ordering::SeqCst);
    primary.open();
    support::test_queue::eventually("it is a dead letter", || queue.dead_letters().len() == 1).await;
    queue.spool.unreadable.store(false, Ordering::SeqCst);
    queue.enqueue(Mail::to("bob@contoso.com", "primary")).await; // the one place on the connector is free
    queue.empty().await;
    assert_eq!(primary.accepted().len(), 1);
    let letter = queue.dead_letters().remove(0);
    assert!(letter.contains("could not be read") && letter.contains("the disk is worn out"), "{letter}");
}

#[tokio::test]
async fn a_report_to_nobody_becomes_a_dead_letter_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, secondary) = start_queue(&folder, &["PIPELINING"]).await;
    let authoritative = "[[accepted_domain]]\ndomain = \"fabrikam.com\"\ndeliver_to = \"primary\"\n";
    queue.reconfigure(&format!("{authoritative}{}", connectors(primary.address, secondary.address, "")));
    primary.say("bob@contoso.com", &["554 5.7.1 no"]);
    queue.enqueue(Mail { from: "nobody@fabrikam.com", ..Mail::to("bob@contoso.com", "primary") }).await;
    queue.empty().await;
    assert_eq!(queue.dead_letters().len(), 1);
}

#[tokio::test]
async fn a_report_waits_for_the_directory_when_it_must() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, _secondary) = start_queue(&folder, &["PIPELINING"]).await;
    queue.directory.add("carol@contoso.com", None);
    primary.shut();
    primary.say(".", &["554 5.6.0 no"]);
    queue.enqueue(Mail { from: "carol@contoso.com", ..Mail::to("bob@contoso.com", "primary") }).await;
    support::test_queue::eventually("it is under way", || primary.at_the_dot() == 1).await;
    queue.directory.go_away();
    primary.open();
    let report = || {
        queue
            .listed()
            .into_iter()
            .find(|entry| entry.origin.client.is_none() && entry.sender.reverse_path.address().is_none())
    };
    let waits = |state: &RecipientState| matches!(state, RecipientState::Waiting(Waiting { attempts: 1, last_error, .. }) if last_error.contains("4.4.3"));
    support::test_queue::eventually("the report waits", || {
        report().is_some_and(|entry| waits(&entry.recipients[0].state))
    })
    .await;
    assert_eq!(&*report().unwrap().recipients[0].route.connector, "");

    queue.directory.come_back();
    queue.delivery.retry_all(None);
    queue.empty().await;
    let accepted = primary.accepted();
    assert_eq!(accepted.len(), 1);
    assert_eq!((accepted[0].rcpt.len(), accepted[0].mail.contains("<>")), (1, true));
    assert!(accepted[0].rcpt[0].contains("carol@contoso.com"));
    assert!(queue.dead_letters().is_empty());
}

/// A client of the Internet, or one of an organisation's.
fn client(organization: &str) -> Origin {
    let relay = Relay::AcceptedDomains;
    Origin { receive_connector: "internet".into(), organization: organization.into(), relay, ..Origin::report() }
}

/// So many of a minute, and the primary refuses mail for Bob.
async fn paced(folder: &tempfile::TempDir, per_minute: usize) -> (TestQueue, RecordingSmtpServer, String) {
    let (queue, primary, secondary) = start_queue(folder, &["PIPELINING"]).await;
    let connectors = connectors(primary.address, secondary.address, "");
    queue.reconfigure(&format!("[reports]\nper_minute = {per_minute}\n{connectors}"));
    (queue, primary, connectors)
}

#[tokio::test]
async fn reports_that_strangers_caused_wait_for_their_turn_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, connectors) = paced(&folder, 1).await;
    primary.say("bob@contoso.com", &["550 5.2.1 disabled"; 4]);
    for organization in ["", "", "", "secondary"] {
        queue.enqueue_from(Mail::to("bob@contoso.com", "primary"), client(organization)).await;
    }
    support::test_queue::eventually("two are there", || queue.mailbox(ALICE).len() == 2).await;
    support::test_queue::eventually("two reports wait", || queue.listed().len() == 2).await;
    let waiting = queue.listed();
    assert!(waiting.iter().all(|report| report.origin.is_strangers_report()), "{waiting:#?}");
    let waiting_now = || {
        queue.delivery.show_gauges();
        queue.metrics.reports_waiting.with_label_values::<&str>(&[]).get()
    };
    support::test_queue::eventually("so says the gauge", || waiting_now() == 2).await;
    let shown = fingerpost::admin::queue::Message::of(&waiting[0]).recipients[0].standing.line();
    assert!(shown.contains("its turn") && shown.contains("per_minute"), "{shown}");

    queue.reconfigure(&format!("[reports]\nper_minute = 60\n{connectors}"));
    queue.empty().await;
    assert_eq!((queue.mailbox(ALICE).len(), dsn(&queue, "failed")), (4, 4));
}

#[tokio::test]
async fn of_a_storm_of_a_thousand_sixty_leave_and_the_rest_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, primary, connectors) = paced(&folder, 60).await;
    let report = Origin::report_about(&client(""));
    for _ in 0..1000 {
        queue.enqueue_from(Mail { from: "", ..Mail::to(ALICE, "senders") }, report.clone()).await;
    }
    queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    support::test_queue::eventually("mail that came behind them goes", || primary.accepted().len() == 1).await;
    support::test_queue::eventually("sixty are gone", || queue.listed().len() == 940).await;
    // Bob's leaves the list before its outcome is durable.
    support::test_queue::eventually("the disk says so too", || queue.spool.unfinished() == 940).await;
    assert_eq!(queue.mailbox(ALICE).len(), 60);
    queue.delivery.stop().await;
    assert_eq!(queue.mailbox(ALICE).len(), 60, "within the minute no other went");
    let left: Vec<_> = queue.listed().iter().map(|entry| entry.id).collect();
    drop(queue);

    let queue = TestQueue::start(folder.path(), &connectors);
    support::test_queue::eventually("sixty more are gone", || queue.listed().len() == 880).await;
    assert_eq!(queue.mailbox(ALICE).len(), 120);
    let still: Vec<_> = queue.listed().iter().map(|entry| entry.id).collect();
    assert_eq!(still, left[60..], "the oldest went, and none was dropped");
    assert!(queue.dead_letters().is_empty());
}

/// A DNS server that says of every name that it does not exist.
async fn nowhere() -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (read, client) = socket.recv_from(&mut buffer).await.unwrap();
            let mut reply = buffer[..read].to_vec();
            (reply[2], reply[3]) = (0x81, 0x83); // a response, NXDOMAIN (RFC 1035 4.1.1)
            socket.send_to(&reply, client).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_report_that_may_or_can_go_nowhere_is_a_count_and_no_dead_letter() {
    for (from, reason) in [
        ("x@[192.0.2.1]", "address-literal"),
        ("x@[IPv6:::1]", "address-literal"),
        ("x@forged.example", "no-such-domain"),
        ("x@localhost", "private-address"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (queue, primary, connectors) = paced(&folder, 60).await;
        let mx = "[[send_connector]]\nname = \"mx\"\ndelivery = \"queue\"\nmx = true";
        let dns = nowhere().await;
        queue.reconfigure(&format!("[reports]\ndeliver_to = \"mx\"\n{connectors}\n{mx}\ndns_servers = [\"{dns}\"]\n"));
        primary.say("bob@contoso.com", &["550 5.2.1 disabled"]);
        queue.enqueue_from(Mail { from, ..Mail::to("bob@contoso.com", "primary") }, client("")).await;
        let counted = || queue.metrics.reports_not_sent.with_label_values(&[reason]).get();
        support::test_queue::eventually("it is counted", || counted() == 1).await;
        queue.empty().await;
        assert_eq!((counted(), queue.dead_letters().len()), (1, 0), "{from}");
    }
}
