//! At-least-once: what happens when an outcome cannot be made durable, and when we end between a delivery and its record.

use std::sync::atomic::Ordering;

use support::recording_smtp_server::RecordingSmtpServer;
use support::test_queue::{Mail, TestQueue, connectors, eventually};

const BOB: &str = "bob@contoso.com";

#[tokio::test]
async fn an_outcome_is_written_until_it_is_durable_and_nothing_is_sent_twice_meanwhile() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    hop.shut();
    let id = queue.enqueue(Mail::to(BOB, "primary")).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    queue.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || queue.spool.failures.load(Ordering::SeqCst) >= 2).await;
    assert!(queue.delivery.show(id).unwrap().is_some());
    queue.delivery.retry_all(None);
    queue.spool.full.store(false, Ordering::SeqCst);
    queue.empty().await;
    assert_eq!(hop.accepted().len(), 1);
}

#[tokio::test]
async fn a_failure_and_its_report_are_durable_together_or_not_at_all() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    hop.shut();
    hop.say(".", &["554 5.6.0 no", "554 5.6.0 no"]);
    queue.enqueue(Mail::to(BOB, "primary")).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    queue.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || queue.spool.failures.load(Ordering::SeqCst) >= 1).await;
    queue.delivery.stop().await;
    assert!(queue.mailbox("alice@example.net").is_empty());
    drop(queue);

    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    queue.empty().await;
    assert_eq!(queue.mailbox("alice@example.net").len(), 1, "one report, though it failed twice");
    assert!(hop.accepted().is_empty());
}

#[tokio::test]
async fn a_drop_holds_though_the_end_of_the_attempt_under_way_was_never_written() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    hop.shut();
    hop.say(".", &["451 4.3.0 later"]);
    let id = queue.enqueue(Mail::to(BOB, "primary")).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    assert_eq!(queue.delivery.drop_message(id).await, Ok(true));
    queue.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || queue.spool.failures.load(Ordering::SeqCst) >= 1).await;
    queue.delivery.stop().await;
    drop(queue);

    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    queue.empty().await;
    assert!(hop.accepted().is_empty(), "an operator dropped it");
}

#[tokio::test]
async fn an_end_between_delivery_and_record_costs_a_duplicate_and_no_mail() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    hop.shut();
    queue.enqueue(Mail::to(BOB, "primary")).await;
    queue.enqueue(Mail::to("erin@example.net", "senders")).await;
    eventually("the mailbox has its copy", || queue.mailbox("erin@example.net").len() == 1).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    queue.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || queue.spool.failures.load(Ordering::SeqCst) >= 1).await;
    queue.delivery.stop().await;
    drop(queue);

    let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, ""));
    queue.directory.add(BOB, None);
    queue.empty().await;
    assert_eq!(hop.accepted().len(), 2, "twice, never not at all");
    assert_eq!(queue.mailbox("erin@example.net").len(), 1, "a Maildir takes the same file again");
}
