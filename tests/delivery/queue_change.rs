//! Mail that waits is decided again: it goes where it belongs now, and is never refused for it.

use fingerpost::spool::entry::{HeldFor, RecipientState};
use support::recording_smtp_server::RecordingSmtpServer;
use support::test_queue::{Mail, TestQueue, connectors, eventually};

const BOB: &str = "bob@contoso.com";
const BUSY: &str = "450 4.2.1 busy";
const UNKNOWN: &str = "550 5.1.1 no such user";

struct Town {
    queue: TestQueue,
    primary: RecordingSmtpServer,
    secondary: RecordingSmtpServer,
    _folder: tempfile::TempDir,
}

impl Town {
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
    let town = Town::start().await;
    town.primary.say(BOB, &[BUSY]);
    let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.tried(id, 1).await;
    town.queue.directory.remove(BOB);
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((0, 1), 0));
    assert!(town.secondary.accepted()[0].data.contains("via=secondary"), "the stamp names the new way");
}

#[tokio::test]
async fn a_change_before_the_first_attempt_counts_too() {
    let town = Town::start().await;
    town.primary.shut();
    let one_at_a_time = connectors(town.primary.address, town.secondary.address, "max_connections = 1");
    town.queue.reconfigure(&one_at_a_time);
    town.queue.enqueue(Mail::to(BOB, "primary")).await;
    eventually("the first is under way", || town.primary.at_the_dot() == 1).await;
    town.queue.enqueue(Mail::to(BOB, "primary")).await;
    let waiting = || town.queue.delivery.sums().iter().map(|sum| sum.waiting).sum::<usize>();
    eventually("the second waits", || waiting() == 2).await;
    town.queue.directory.remove(BOB);
    town.primary.open();
    town.queue.empty().await;
    assert_eq!(town.counts(), (1, 1));
}

#[tokio::test]
async fn a_new_way_that_the_message_came_by_is_not_taken() {
    let town = Town::start().await;
    town.primary.say(BOB, &[BUSY]);
    let id = town.queue.enqueue(Mail { stamped: Some("secondary"), ..Mail::to(BOB, "primary") }).await;
    town.queue.tried(id, 1).await;
    town.queue.directory.remove(BOB);
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((1, 0), 0), "it would circle");
}

#[tokio::test]
async fn a_decision_that_would_refuse_changes_nothing() {
    let town = Town::start().await;
    // Authoritative now, and Bob is gone: a new message would be refused.
    let authoritative =
        format!("[[accepted_domain]]\ndomain = \"x.y\"\ndeliver_to = \"primary\"\n{}", town.connectors());
    town.primary.say("carol@x.y", &[BUSY, BUSY]);
    town.queue.reconfigure(&authoritative);
    let id = town.queue.enqueue(Mail::to("carol@x.y", "primary")).await;
    town.queue.tried(id, 1).await;
    town.queue.delivery.retry_all(None);
    let shown = town.queue.tried(id, 2).await;
    assert!(shown.contains("a decision made now says 550 5.1.1"), "{shown}");
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((1, 0), 0));
}

#[tokio::test]
async fn an_absent_directory_changes_nothing() {
    let town = Town::start().await;
    town.primary.say(BOB, &[BUSY]);
    let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.tried(id, 1).await;
    town.queue.directory.go_away();
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((1, 0), 0));
}

#[tokio::test]
async fn mail_of_a_removed_connector_is_held_until_it_is_back() {
    let town = Town::start().await;
    town.queue.directory.go_away(); // nothing else is known of Bob
    let id = town.queue.enqueue(Mail { tried: (9 * 24 * 3600, 5), ..Mail::to(BOB, "old-and-gone") }).await;
    let held = || matches!(town.queue.first(id), Some(RecipientState::Held(HeldFor::NoConnector)));
    eventually("it is held", held).await;
    assert_eq!(town.queue.delivery.retry_all(None), 0, "held mail is not tried");
    town.queue.delivery.configuration_changed();
    assert!(held());

    let back = connectors(town.primary.address, town.secondary.address, "")
        .replace("\"secondary\"\norg", "\"old-and-gone\"\norg");
    town.queue.reconfigure(&back);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((0, 1), 0));
}

#[tokio::test]
async fn mail_of_a_removed_connector_takes_the_way_that_is_decided_now() {
    let town = Town::start().await;
    town.queue.enqueue(Mail::to(BOB, "old-and-gone")).await;
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((1, 0), 0));
}

#[tokio::test]
async fn held_mail_outlives_a_restart() {
    let town = Town::start().await;
    town.queue.directory.go_away();
    let id = town.queue.enqueue(Mail::to(BOB, "old-and-gone")).await;
    eventually("it is held", || matches!(town.queue.first(id), Some(RecipientState::Held(_)))).await;
    town.queue.delivery.stop().await;
    let connectors = town.connectors();
    let Town { queue, primary, secondary, _folder: folder } = town;
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
        let town = Town::start().await;
        town.primary.say(BOB, &[unknown; 9]);
        let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
        for attempts in [1, 2] {
            let shown = town.queue.tried(id, attempts).await;
            assert!(shown.contains("451 4.3.0") && shown.contains(unknown), "{shown}");
            town.queue.delivery.retry_all(None);
        }
        town.queue.tried(id, 3).await;
        assert_eq!(town.reports(), 0, "{unknown}");

        let town = Town::start().await;
        town.primary.say(BOB, &[unknown; 9]);
        town.queue.refused(BOB, 3590);
        let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
        town.queue.tried(id, 1).await;
        assert_eq!(town.reports(), 0, "{unknown}");

        let town = Town::start().await;
        town.primary.say(BOB, &[unknown; 9]);
        town.queue.refused(BOB, 3600);
        town.queue.enqueue(Mail::to(BOB, "primary")).await;
        town.queue.empty().await;
        assert_eq!((town.counts(), town.reports()), ((0, 0), 1), "{unknown}");
        assert!(town.queue.mailbox("alice@example.net")[0].contains(unknown), "it says what the next hop said");
    }
}

#[tokio::test]
async fn an_unknown_recipient_whom_nobody_vouches_for_is_believed_at_once() {
    let town = Town::start().await;
    town.queue.directory.remove(BOB);
    town.secondary.say(BOB, &[UNKNOWN]);
    town.queue.enqueue(Mail::to(BOB, "secondary")).await;
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((0, 0), 1));
}

#[tokio::test]
async fn an_unknown_recipient_who_moved_is_followed() {
    let town = Town::start().await;
    town.primary.say(BOB, &[UNKNOWN]);
    town.queue.directory.live_says(&[false]); // what was at hand was stale
    town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((0, 1), 0));
}

#[tokio::test]
async fn a_changed_answer_is_followed_once_not_round_and_round() {
    let town = Town::start().await;
    town.primary.say(BOB, &[UNKNOWN; 9]);
    town.secondary.say(BOB, &[UNKNOWN; 9]);
    town.queue.directory.live_says(&[false, true, false, true]);
    let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
    let shown = town.queue.tried(id, 2).await;
    assert!(shown.contains("451 4.3.0") && shown.contains(UNKNOWN), "the directory has Bob again: {shown}");
    assert_eq!((town.counts(), town.reports()), ((0, 0), 0));

    let town = Town::start().await;
    town.primary.say(BOB, &[UNKNOWN; 9]);
    town.secondary.say(BOB, &[UNKNOWN; 9]);
    town.queue.directory.live_says(&[false, true, false, true]);
    town.queue.refused(BOB, 3600);
    town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((0, 0), 1));
    assert!(town.queue.mailbox("alice@example.net")[0].contains("The mail system of \"secondary\" refused it:"));
}

#[tokio::test]
async fn a_recently_good_address_is_doubted_and_reaches_its_new_side() {
    let town = Town::start().await;
    town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.empty().await; // now it is good
    town.primary.say(BOB, &[UNKNOWN; 9]);
    let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
    for attempts in [1, 2, 3] {
        let shown = town.queue.tried(id, attempts).await;
        assert!(shown.contains("451 4.3.0") && shown.contains(UNKNOWN), "{shown}");
        town.queue.delivery.retry_all(None);
    }
    town.queue.directory.remove(BOB); // the directory has caught up
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((1, 1), 0));
}

#[tokio::test]
async fn a_recently_good_address_is_believed_to_be_gone_an_hour_after_its_first_refusal() {
    let town = Town::start().await;
    town.primary.say(BOB, &[UNKNOWN; 9]);
    town.queue.accepted(BOB, "secondary", 7200); // whichever side had it
    town.queue.refused(BOB, 3590);
    let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.tried(id, 1).await;
    assert_eq!(town.reports(), 0);
    town.queue.accepted(BOB, "secondary", 7200);
    town.queue.refused(BOB, 3600);
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((0, 0), 1));
    assert!(town.queue.mailbox("alice@example.net")[0].contains(UNKNOWN), "it says what the next hop said");
}

#[tokio::test]
async fn a_recently_good_address_that_no_directory_has_any_more_is_doubted_too() {
    let town = Town::start().await;
    let authoritative =
        format!("[[accepted_domain]]\ndomain = \"x.y\"\ndeliver_to = \"primary\"\n{}", town.connectors());
    town.queue.reconfigure(&authoritative);
    town.primary.say("carol@x.y", &[UNKNOWN]);
    town.primary.say("nobody@x.y", &[UNKNOWN]);
    town.queue.accepted("carol@x.y", "primary", 0);
    let carol = town.queue.enqueue(Mail::to("carol@x.y", "primary")).await;
    assert!(town.queue.tried(carol, 1).await.contains("451 4.3.0"));
    assert_eq!(town.reports(), 0);
    town.queue.enqueue(Mail::to("nobody@x.y", "primary")).await;
    eventually("a report about nobody", || town.reports() == 1).await;
    assert!(town.queue.first(carol).is_some(), "Carol's mail waits");
}

#[tokio::test]
async fn an_unknown_recipient_waits_for_an_absent_directory() {
    let town = Town::start().await;
    town.primary.say(BOB, &[BUSY, UNKNOWN]);
    let id = town.queue.enqueue(Mail::to(BOB, "primary")).await;
    town.queue.tried(id, 1).await;
    town.queue.directory.go_away();
    town.queue.delivery.retry_all(None);
    let shown = town.queue.tried(id, 2).await;
    assert!(shown.contains("451 4.4.3") && shown.contains("no such user"), "{shown}");
    assert_eq!(town.reports(), 0);
    town.queue.directory.come_back();
    town.queue.delivery.retry_all(None);
    town.queue.empty().await;
    assert_eq!((town.counts(), town.reports()), ((1, 0), 0));
}
