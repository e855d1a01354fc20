//! The queue delivers: when it is due, in branches, stamped, without one connector waiting for another.

use std::task::Poll;
use std::time::Duration;

use fingerpost::message::{header, stamp};
use fingerpost::routing::loops::Relayed;
use fingerpost::smtp::address::ReversePath;
use fingerpost::spool::entry::{RecipientState, Waiting};
use fingerpost::time::UnixTime;
use support::recording_smtp_server::RecordingSmtpServer;
use support::test_queue::{CONTENT, KEY, Mail, TestQueue, To, connectors, eventually, parse};

async fn two() -> (RecordingSmtpServer, RecordingSmtpServer) {
    (RecordingSmtpServer::start(&["PIPELINING"]).await, RecordingSmtpServer::start(&["PIPELINING"]).await)
}

#[tokio::test]
async fn what_is_deferred_is_delivered_later() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    queue.directory.add("bob@contoso.com", None);
    primary.say("bob@contoso.com", &["450 4.2.1 mailbox busy"]);
    let id = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;

    let said = queue.tried(id, 1).await;
    assert!(said.contains("450 4.2.1") && said.contains("mailbox busy"), "{said}");
    assert!(primary.accepted().is_empty());
    assert_eq!(queue.delivery.retry_all(None), 1);
    queue.empty().await;

    let accepted = primary.accepted();
    assert_eq!(accepted.len(), 1);
    assert!(accepted[0].data.starts_with("Fingerpost-Route: v=1;"), "{}", accepted[0].data);
    assert!(accepted[0].data.ends_with(CONTENT), "the content is not changed");
    let facts = header::examine(CONTENT.split("\r\n\r\n").next().unwrap_or_default().as_bytes());
    let relayed = Relayed {
        connector: "primary",
        recipient: &parse("bob@contoso.com"),
        reverse_path: &ReversePath::Address(parse("alice@example.net")),
        facts: &facts.identity,
        now: UnixTime::now(),
    };
    assert_eq!(queue.memory.lock().count(&relayed), 1, "once a message, not an attempt");
    for (result, count) in [("deferred", 1), ("delivered", 1), ("failed", 0)] {
        assert_eq!(queue.metrics.deliveries.with_label_values(&["primary", result]).get(), count, "{result}");
    }
}

#[tokio::test]
async fn a_due_time_comes_by_itself() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let soon = r#"retry = { first = "1s" }"#;
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, soon));
    queue.directory.add("bob@contoso.com", None);
    primary.say("bob@contoso.com", &["450 4.2.1 busy", "450 4.2.1 busy"]);
    queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    queue.empty().await;
    assert_eq!(primary.accepted().len(), 1);
}

#[tokio::test]
async fn one_message_becomes_one_branch_a_connector() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    let to = vec![
        To("bob@contoso.com", "primary", None),
        To("carol@contoso.com", "secondary", None),
        To("dave@contoso.com", "primary", None),
        To("erin@example.net", "senders", None),
        To("frank@example.net", "senders", None),
    ];
    queue.enqueue(Mail { to, ..Mail::to("", "") }).await;
    queue.empty().await;
    let (primary, secondary) = (primary.accepted(), secondary.accepted());
    assert_eq!((primary.len(), secondary.len()), (1, 1));
    assert_eq!(primary[0].rcpt.len(), 2);
    assert_eq!(secondary[0].rcpt.len(), 1);
    for mailbox in ["erin@example.net", "frank@example.net"] {
        assert_eq!(queue.mailbox(mailbox), [format!("Return-Path: <alice@example.net>\r\n{CONTENT}")]);
    }
}

#[tokio::test]
async fn a_stamp_names_the_recipients_of_its_transaction() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    let addresses: Vec<String> = (0..130).map(|n| format!("u{n}@contoso.com")).collect();
    let to = addresses.iter().map(|address| To(address, "secondary", None)).collect();
    queue.enqueue(Mail { to, ..Mail::to("", "") }).await;
    queue.empty().await;
    let accepted = secondary.accepted();
    assert_eq!(accepted.iter().map(|message| message.rcpt.len()).sum::<usize>(), 130);
    assert_eq!(accepted.len(), 2);
    for message in accepted {
        let section = message.data.split_inclusive("\r\n").take_while(|line| *line != "\r\n").collect::<String>();
        let facts = header::examine(section.as_bytes());
        let [value] = facts.stamps.as_slice() else { panic!("one stamp, not {:?}", facts.stamps) };
        let stamp = stamp::verify(&[stamp::Key::new(KEY)], "mx.contoso.com", &facts.values, value).unwrap();
        assert_eq!(stamp.via, "secondary");
        for address in &addresses {
            let sent = message.rcpt.iter().any(|rcpt| rcpt.contains(&format!("<{address}>")));
            assert_eq!(stamp.names(&[stamp::Key::new(KEY)], &parse(address)), sent, "{address}");
        }
    }
}

#[tokio::test]
async fn no_connector_waits_for_another_and_none_takes_more_than_its_share() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let few = "max_connections = 3";
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, few));
    primary.shut();
    for n in 0..12 {
        queue.enqueue(Mail::to(&format!("u{n}@contoso.com"), "primary")).await;
    }
    eventually("three wait", || primary.at_the_dot() == 3).await;
    queue.enqueue(Mail::to("carol@contoso.com", "secondary")).await;
    eventually("the other side has its message", || secondary.accepted().len() == 1).await;
    assert_eq!(primary.accepted().len(), 0);
    primary.open();
    queue.empty().await;
    assert_eq!(primary.accepted().len(), 12);
    assert_eq!(primary.most_at_the_dot(), 3);
}

#[tokio::test]
async fn a_next_hop_that_is_down_is_not_hammered() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(gone, secondary.address, ""));
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(queue.enqueue(Mail::to(&format!("u{n}@contoso.com"), "primary")).await);
    }
    queue.enqueue(Mail::to("carol@contoso.com", "secondary")).await;
    for id in &ids {
        queue.tried(*id, 1).await;
    }
    eventually("the other side has its message", || secondary.accepted().len() == 1).await;
    assert_eq!(queue.metrics.deliveries.with_label_values(&["primary", "deferred"]).get(), 100, "once each");
    drop(primary);
}

#[tokio::test]
async fn an_operator_drops_and_retries() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    queue.directory.add("bob@contoso.com", None);
    primary.say("bob@contoso.com", &["450 4.2.1 busy"; 9]);
    let id = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    let other = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    queue.tried(id, 1).await;
    queue.tried(other, 1).await;
    assert_eq!(queue.listed().iter().map(|entry| entry.id).collect::<Vec<_>>(), [id, other]);
    assert!(queue.delivery.retry(id));
    queue.tried(id, 2).await;
    assert_eq!(queue.delivery.drop_message(id).await, Ok(true));
    assert_eq!(queue.delivery.drop_message(id).await, Ok(false));
    assert!(!queue.delivery.retry(id));
    assert!(queue.delivery.show(id).unwrap().is_none());
    assert_eq!(queue.listed().len(), 1);
    assert!(queue.mailbox("alice@example.net").is_empty(), "a drop is not reported");
}

#[tokio::test]
async fn a_drop_goes_on_when_the_operator_who_asked_is_gone() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    queue.directory.add("bob@contoso.com", None);
    primary.say("bob@contoso.com", &["450 4.2.1 busy"]);
    let id = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    queue.tried(id, 1).await;
    {
        let mut asked = std::pin::pin!(queue.delivery.drop_message(id));
        let polled = std::future::poll_fn(|context| Poll::Ready(asked.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "begun, and given up at its first wait");
    }
    queue.empty().await;
    assert!(queue.delivery.show(id).unwrap().is_none());
}

#[tokio::test]
async fn a_message_dropped_under_way_does_not_come_back() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    primary.shut();
    primary.say(".", &["451 4.3.0 later"]);
    let id = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    eventually("it is under way", || primary.at_the_dot() == 1).await;
    assert_eq!(queue.delivery.drop_message(id).await, Ok(true));
    primary.open();
    queue.empty().await;
    queue.delivery.stop().await;
    drop(queue);
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
    assert!(queue.listed().is_empty());
    assert!(primary.accepted().is_empty());
}

#[tokio::test]
async fn stopping_waits_for_what_is_under_way_and_begins_nothing() {
    let (primary, secondary) = two().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, "max_connections = 1"));
    primary.shut();
    let first = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    let second = queue.enqueue(Mail::to("bob@contoso.com", "primary")).await;
    eventually("one is under way", || primary.at_the_dot() == 1).await;
    let delivery = queue.delivery.clone();
    let stopping = tokio::spawn(async move { delivery.stop().await });
    tokio::time::timeout(Duration::from_millis(50), async {
        while !stopping.is_finished() {
            tokio::task::yield_now().await
        }
    })
    .await
    .expect_err("it waits for the one under way");
    primary.open();
    stopping.await.unwrap();
    assert!(queue.delivery.show(first).unwrap().is_none());
    assert!(matches!(queue.first(second), Some(RecipientState::Waiting(Waiting { attempts: 0, .. }))));
    assert_eq!(primary.accepted().len(), 1);
}

#[tokio::test]
async fn an_attempt_counts_where_the_next_hop_was_really_tried() {
    let greets_nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = greets_nobody.local_addr().unwrap();
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        while let Ok(closed) = greets_nobody.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(closed);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(address, address, ""));
    queue.directory.add("bob@contoso.com", None);
    // So old that the third attempt ends it; and an operator who is in a hurry.
    let id = queue.enqueue(Mail { tried: (5 * 24 * 3600, 0), ..Mail::to("bob@contoso.com", "primary") }).await;
    queue.tried(id, 1).await;
    let mut remembered = 0;
    for times in 1.. {
        let seen = || match queue.first(id) {
            Some(RecipientState::Waiting(waiting)) if waiting.attempts < times => None,
            Some(RecipientState::Waiting(waiting)) => Some(Some(waiting)),
            _ => Some(None), // it is over
        };
        eventually("an attempt", || seen().is_some()).await;
        let Some(Waiting { tried, .. }) = seen().flatten() else { break };
        let real = connections.load(std::sync::atomic::Ordering::SeqCst);
        assert!(tried <= real, "{tried} counted of {times}, {real} connections");
        remembered = times - tried;
        queue.delivery.retry(id);
    }
    assert!(remembered > 3, "answered from what is remembered: {remembered}");
    assert!(connections.load(std::sync::atomic::Ordering::SeqCst) >= 3);
    queue.empty().await;
    assert_eq!(queue.metrics.dsn.with_label_values(&["failed"]).get(), 1);
}
