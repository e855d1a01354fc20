//! Mail that waits is decided again: it goes where it belongs now, and is never refused for it.

use fingerpost::spool::entry::{HeldFor, RecipientState};
use support::recording_smtp_server::RecordingSmtpServer;
use support::test_queue::{Mail, TestQueue, connectors, eventually};

const BOB: &str = "bob@contoso.com";
const BUSY: &str = "450 4.2.1 busy";
const UNKNOWN: &str = "550 5.1.1 no such user";

struct QueueSetup {
    queue: TestQueue,
    primary: RecordingSmtpServer,
    secondary: RecordingSmtpServer,
    _folder: tempfile::TempDir,
}

impl QueueSetup {
    #[expect(clippy::unwrap_used, reason = "without a folder there is no test")]
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (primary, secondary) =
            (RecordingSmtpServer::start(&["PIPELINING"]).await, RecordingSmtpServer::start(&["PIPELINING"]).await);
        let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, ""));
        queue.directory.add(BOB, None);
        Self { queue, primary, secondary, _folder: folder }
    }

    fn connectors(&self) -> String {
        connectors(self.primary.address, self.secondary.address, "")
    }

    /// How many messages each side has.
    fn counts(&self) -> (usize, usize) {
        (self.primary.accepted().len(), self.secondary.accepted().len())
    }

    fn reports(&self) -> usize {
        self.queue.mailbox("alice@example.net").len()
    }
}

#[tokio::test]
async fn a_user_who_moved_gets_waiting_mail_on_the_new_side() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[BUSY]);
    let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.tried(id, 1).await;
    setup.queue.directory.remove(BOB);
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((0, 1), 0));
    assert!(setup.secondary.accepted()[0].data.contains("via=secondary"), "the stamp names the new way");
}

#[tokio::test]
async fn a_change_before_the_first_attempt_counts_too() {
    let setup = QueueSetup::start().await;
    setup.primary.shut();
    let one_at_a_time = connectors(setup.primary.address, setup.secondary.address, "max_connections = 1");
    setup.queue.reconfigure(&one_at_a_time);
    setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    eventually("the first is under way", || setup.primary.at_the_dot() == 1).await;
    setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    let waiting = || setup.queue.delivery.sums().iter().map(|sum| sum.waiting).sum::<usize>();
    eventually("the second waits", || waiting() == 2).await;
    setup.queue.directory.remove(BOB);
    setup.primary.open();
    setup.queue.empty().await;
    assert_eq!(setup.counts(), (1, 1));
}

#[tokio::test]
async fn a_new_way_that_the_message_came_by_is_not_taken() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[BUSY]);
    let id = setup.queue.enqueue(Mail { stamped: Some("secondary"), ..Mail::to(BOB, "primary") }).await;
    setup.queue.tried(id, 1).await;
    setup.queue.directory.remove(BOB);
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((1, 0), 0), "it would circle");
}

#[tokio::test]
async fn a_decision_that_would_refuse_changes_nothing() {
    let setup = QueueSetup::start().await;
    // Authoritative now, and Bob is gone: a new message would be refused.
    let authoritative =
        format!("[[accepted_domain]]\ndomain = \"x.y\"\ndeliver_to = \"primary\"\n{}", setup.connectors());
    setup.primary.say("carol@x.y", &[BUSY, BUSY]);
    setup.queue.reconfigure(&authoritative);
    let id = setup.queue.enqueue(Mail::to("carol@x.y", "primary")).await;
    setup.queue.tried(id, 1).await;
    setup.queue.delivery.retry_all(None);
    let shown = setup.queue.tried(id, 2).await;
    assert!(shown.contains("a decision made now says 550 5.1.1"), "{shown}");
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((1, 0), 0));
}

#[tokio::test]
async fn an_absent_directory_changes_nothing() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[BUSY]);
    let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.tried(id, 1).await;
    setup.queue.directory.go_away();
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((1, 0), 0));
}

#[tokio::test]
async fn mail_of_a_removed_connector_is_held_until_it_is_back() {
    let setup = QueueSetup::start().await;
    setup.queue.directory.go_away(); // nothing else is known of Bob
    let id = setup.queue.enqueue(Mail { tried: (9 * 24 * 3600, 5), ..Mail::to(BOB, "old-and-gone") }).await;
    let held = || matches!(setup.queue.first(id), Some(RecipientState::Held(HeldFor::NoConnector)));
    eventually("it is held", held).await;
    assert_eq!(setup.queue.delivery.retry_all(None), 0, "held mail is not tried");
    setup.queue.delivery.configuration_changed();
    assert!(held());

    let back = connectors(setup.primary.address, setup.secondary.address, "")
        .replace("\"secondary\"\norg", "\"old-and-gone\"\norg");
    setup.queue.reconfigure(&back);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((0, 1), 0));
}

#[tokio::test]
async fn mail_of_a_removed_connector_takes_the_way_that_is_decided_now() {
    let setup = QueueSetup::start().await;
    setup.queue.enqueue(Mail::to(BOB, "old-and-gone")).await;
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((1, 0), 0));
}

#[tokio::test]
async fn held_mail_outlives_a_restart() {
    let setup = QueueSetup::start().await;
    setup.queue.directory.go_away();
    let id = setup.queue.enqueue(Mail::to(BOB, "old-and-gone")).await;
    eventually("it is held", || matches!(setup.queue.first(id), Some(RecipientState::Held(_)))).await;
    setup.queue.delivery.stop().await;
    let connectors = setup.connectors();
    let QueueSetup { queue, primary, secondary, _folder: folder } = setup;
    drop(queue);
    let queue = TestQueue::start(folder.path(), &connectors);
    queue.directory.add(BOB, None);
    queue.delivery.configuration_changed();
    queue.empty().await;
    assert_eq!((primary.accepted().len(), secondary.accepted().len()), (1, 0));
}

#[tokio::test]
async fn an_unknown_recipient_whom_the_directory_has_is_believed_an_hour_after_the_first_refusal() {
    for unknown in [UNKNOWN, "550 5.1.10 not found", "550 5.4.1 access denied", "553 no such user"] {
        let setup = QueueSetup::start().await;
        setup.primary.say(BOB, &[unknown; 9]);
        let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
        for attempts in [1, 2] {
            let shown = setup.queue.tried(id, attempts).await;
            assert!(shown.contains("451 4.3.0") && shown.contains(unknown), "{shown}");
            setup.queue.delivery.retry_all(None);
        }
        setup.queue.tried(id, 3).await;
        assert_eq!(setup.reports(), 0, "{unknown}");

        let setup = QueueSetup::start().await;
        setup.primary.say(BOB, &[unknown; 9]);
        setup.queue.refused(BOB, 3590);
        let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
        setup.queue.tried(id, 1).await;
        assert_eq!(setup.reports(), 0, "{unknown}");

        let setup = QueueSetup::start().await;
        setup.primary.say(BOB, &[unknown; 9]);
        setup.queue.refused(BOB, 3600);
        setup.queue.enqueue(Mail::to(BOB, "primary")).await;
        setup.queue.empty().await;
        assert_eq!((setup.counts(), setup.reports()), ((0, 0), 1), "{unknown}");
        assert!(setup.queue.mailbox("alice@example.net")[0].contains(unknown), "it says what the next hop said");
    }
}

#[tokio::test]
async fn an_unknown_recipient_whom_nobody_vouches_for_is_believed_at_once() {
    let setup = QueueSetup::start().await;
    setup.queue.directory.remove(BOB);
    setup.secondary.say(BOB, &[UNKNOWN]);
    setup.queue.enqueue(Mail::to(BOB, "secondary")).await;
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((0, 0), 1));
}

#[tokio::test]
async fn an_unknown_recipient_who_moved_is_followed() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[UNKNOWN]);
    setup.queue.directory.live_says(&[false]); // what was at hand was stale
    setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((0, 1), 0));
}

#[tokio::test]
async fn a_changed_answer_is_followed_once_not_round_and_round() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[UNKNOWN; 9]);
    setup.secondary.say(BOB, &[UNKNOWN; 9]);
    setup.queue.directory.live_says(&[false, true, false, true]);
    let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    let shown = setup.queue.tried(id, 2).await;
    assert!(shown.contains("451 4.3.0") && shown.contains(UNKNOWN), "the directory has Bob again: {shown}");
    assert_eq!((setup.counts(), setup.reports()), ((0, 0), 0));

    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[UNKNOWN; 9]);
    setup.secondary.say(BOB, &[UNKNOWN; 9]);
    setup.queue.directory.live_says(&[false, true, false, true]);
    setup.queue.refused(BOB, 3600);
    setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((0, 0), 1));
    assert!(setup.queue.mailbox("alice@example.net")[0].contains("The mail system of \"secondary\" refused it:"));
}

#[tokio::test]
async fn a_recently_good_address_is_doubted_and_reaches_its_new_side() {
    let setup = QueueSetup::start().await;
    setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.empty().await; // now it is good
    setup.primary.say(BOB, &[UNKNOWN; 9]);
    let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    for attempts in [1, 2, 3] {
        let shown = setup.queue.tried(id, attempts).await;
        assert!(shown.contains("451 4.3.0") && shown.contains(UNKNOWN), "{shown}");
        setup.queue.delivery.retry_all(None);
    }
    setup.queue.directory.remove(BOB); // the directory has caught up
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((1, 1), 0));
}

#[tokio::test]
async fn a_recently_good_address_is_believed_to_be_gone_an_hour_after_its_first_refusal() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[UNKNOWN; 9]);
    setup.queue.accepted(BOB, "secondary", 7200); // whichever side had it
    setup.queue.refused(BOB, 3590);
    let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.tried(id, 1).await;
    assert_eq!(setup.reports(), 0);
    setup.queue.accepted(BOB, "secondary", 7200);
    setup.queue.refused(BOB, 3600);
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((0, 0), 1));
    assert!(setup.queue.mailbox("alice@example.net")[0].contains(UNKNOWN), "it says what the next hop said");
}

#[tokio::test]
async fn a_recently_good_address_that_no_directory_has_any_more_is_doubted_too() {
    let setup = QueueSetup::start().await;
    let authoritative =
        format!("[[accepted_domain]]\ndomain = \"x.y\"\ndeliver_to = \"primary\"\n{}", setup.connectors());
    setup.queue.reconfigure(&authoritative);
    setup.primary.say("carol@x.y", &[UNKNOWN]);
    setup.primary.say("nobody@x.y", &[UNKNOWN]);
    setup.queue.accepted("carol@x.y", "primary", 0);
    let carol = setup.queue.enqueue(Mail::to("carol@x.y", "primary")).await;
    assert!(setup.queue.tried(carol, 1).await.contains("451 4.3.0"));
    assert_eq!(setup.reports(), 0);
    setup.queue.enqueue(Mail::to("nobody@x.y", "primary")).await;
    eventually("a report about nobody", || setup.reports() == 1).await;
    assert!(setup.queue.first(carol).is_some(), "Carol's mail waits");
}

#[tokio::test]
async fn an_unknown_recipient_waits_for_an_absent_directory() {
    let setup = QueueSetup::start().await;
    setup.primary.say(BOB, &[BUSY, UNKNOWN]);
    let id = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    setup.queue.tried(id, 1).await;
    setup.queue.directory.go_away();
    setup.queue.delivery.retry_all(None);
    let shown = setup.queue.tried(id, 2).await;
    assert!(shown.contains("451 4.4.3") && shown.contains("no such user"), "{shown}");
    assert_eq!(setup.reports(), 0);
    setup.queue.directory.come_back();
    setup.queue.delivery.retry_all(None);
    setup.queue.empty().await;
    assert_eq!((setup.counts(), setup.reports()), ((1, 0), 0));
}
