//! At-least-once: what happens when an outcome cannot be made durable, and when we end between a delivery and its record.

use std::sync::atomic::Ordering;

use support::house::{House, Mail, connectors, eventually};
use support::recording_smtp_server::RecordingSmtpServer;

const BOB: &str = "bob@contoso.com";

#[tokio::test]
async fn an_outcome_is_written_until_it_is_durable_and_nothing_is_sent_twice_meanwhile() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    hop.shut();
    let id = house.queue(Mail::to(BOB, "primary")).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    house.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || house.spool.failures.load(Ordering::SeqCst) >= 2).await;
    assert!(house.delivery.show(id).unwrap().is_some());
    house.delivery.retry_all(None);
    house.spool.full.store(false, Ordering::SeqCst);
    house.empty().await;
    assert_eq!(hop.accepted().len(), 1);
}

#[tokio::test]
async fn a_failure_and_its_report_are_durable_together_or_not_at_all() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    hop.shut();
    hop.say(".", &["554 5.6.0 no", "554 5.6.0 no"]);
    house.queue(Mail::to(BOB, "primary")).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    house.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || house.spool.failures.load(Ordering::SeqCst) >= 1).await;
    house.delivery.stop().await;
    assert!(house.mailbox("alice@example.net").is_empty());
    drop(house);

    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    house.empty().await;
    assert_eq!(house.mailbox("alice@example.net").len(), 1, "one report, though it failed twice");
    assert!(hop.accepted().is_empty());
}

#[tokio::test]
async fn a_drop_holds_though_the_end_of_the_attempt_under_way_was_never_written() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    hop.shut();
    hop.say(".", &["451 4.3.0 later"]);
    let id = house.queue(Mail::to(BOB, "primary")).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    assert_eq!(house.delivery.drop_message(id).await, Ok(true));
    house.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || house.spool.failures.load(Ordering::SeqCst) >= 1).await;
    house.delivery.stop().await;
    drop(house);

    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    house.empty().await;
    assert!(hop.accepted().is_empty(), "an operator dropped it");
}

#[tokio::test]
async fn an_end_between_delivery_and_record_costs_a_duplicate_and_no_mail() {
    let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
    let folder = tempfile::tempdir().unwrap();
    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    hop.shut();
    house.queue(Mail::to(BOB, "primary")).await;
    house.queue(Mail::to("erin@example.net", "senders")).await;
    eventually("the mailbox has its copy", || house.mailbox("erin@example.net").len() == 1).await;
    eventually("it is under way", || hop.at_the_dot() == 1).await;
    house.spool.full.store(true, Ordering::SeqCst);
    hop.open();
    eventually("the outcome cannot be kept", || house.spool.failures.load(Ordering::SeqCst) >= 1).await;
    house.delivery.stop().await;
    drop(house);

    let house = House::start(folder.path(), &connectors(hop.address, hop.address, ""));
    house.people.add(BOB, None);
    house.empty().await;
    assert_eq!(hop.accepted().len(), 2, "twice, never not at all");
    assert_eq!(house.mailbox("erin@example.net").len(), 1, "a Maildir takes the same file again");
}
