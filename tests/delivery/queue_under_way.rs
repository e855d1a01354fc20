//! What a session hands over while a next hop has not answered its final dot: the queue keeps its hands off it, and
//! settles the answer as that of an attempt of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fingerpost::delivery::outcome::{Class, Outcome};
use fingerpost::message::queue_id::QueueId;
use fingerpost::report::Action;
use fingerpost::smtp::envelope::Notify;
use fingerpost::smtp::reply::{Enhanced, Reply};
use fingerpost::spool::Spool as _;
use fingerpost::spool::condition::Takes;
use fingerpost::spool::entry::{RecipientState, Waiting};
use fingerpost::time::UnixTime;
use support::recording_smtp_server::RecordingSmtpServer;
use support::test_queue::{Answering, Mail, TestQueue, To, connectors, eventually, parse};
use tempfile::TempDir;

const BOB: &str = "bob@contoso.com";
const CAROL: &str = "carol@contoso.com";
const ALICE: &str = "alice@example.net";
/// A first wait of an hour, less its spread.
const RETRY: &str = r#"retry = { first = "1h", max = "4h" }"#;
const FIRST: u64 = 3600 - 360;

const TAKEN: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "taken as 4711");
const BUSY: Reply = Reply::fixed(451, Enhanced(4, 3, 0), "my disk is slow");
const NO: Reply = Reply::fixed(554, Enhanced(5, 6, 0), "we do not like it");
const UNKNOWN: Reply = Reply::fixed(550, Enhanced(5, 1, 1), "no such user");

fn said(class: Class, reply: Reply) -> Outcome {
    Outcome::said(class, reply, &"hub[192.0.2.1]:25".into())
}

fn accepted() -> Outcome {
    said(Class::Accepted, TAKEN)
}

struct QueueSetup {
    queue: TestQueue,
    primary: RecordingSmtpServer,
    secondary: RecordingSmtpServer,
    folder: TempDir,
}

impl QueueSetup {
    async fn start() -> Self {
        let (primary, secondary) =
            (RecordingSmtpServer::start(&["PIPELINING"]).await, RecordingSmtpServer::start(&["PIPELINING"]).await);
        let folder = tempfile::tempdir().expect("a folder");
        let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, RETRY));
        queue.directory.add(BOB, None);
        Self { queue, primary, secondary, folder }
    }

    /// Mail to Bob, which his next hop was sent. Would the queue look at it, it would be tried at once.
    async fn sent_to_bob(&self) -> (QueueId, Answering) {
        let (id, [answering]) = self.queue.enqueue_under_way(Mail::to(BOB, "primary"), ([0], 0)).await;
        (id, answering)
    }

    /// Mail to somebody else comes and has gone; so the queue has looked at what it has.
    async fn others_go_on(&self) {
        let before = self.primary.accepted().len();
        self.queue.enqueue(Mail::to(CAROL, "primary")).await;
        eventually("Carol has her mail", || self.primary.accepted().len() > before).await;
    }

    /// How many messages to Bob each side was given by the queue.
    fn given(&self) -> (usize, usize) {
        let to_bob =
            |hop: &RecordingSmtpServer| hop.accepted().iter().filter(|mail| mail.rcpt[0].contains(BOB)).count();
        (to_bob(&self.primary), to_bob(&self.secondary))
    }

    fn reports(&self) -> Vec<String> {
        self.queue.mailbox(ALICE)
    }

    fn counted(&self, result: &str) -> u64 {
        self.queue.metrics.deliveries.with_label_values(&["primary", result]).get()
    }

    /// As it is after another start.
    async fn restart(self) -> Self {
        self.queue.delivery.stop().await;
        let Self { queue, primary, secondary, folder } = self;
        drop(queue);
        let queue = TestQueue::start(folder.path(), &connectors(primary.address, secondary.address, RETRY));
        queue.directory.add(BOB, None);
        Self { queue, primary, secondary, folder }
    }
}

#[tokio::test]
async fn what_was_accepted_is_over() {
    for notify in [None, Some(Notify::On { success: true, failure: false, delay: false })] {
        let setup = QueueSetup::start().await;
        let to = vec![To(BOB, "primary", notify)];
        let (_, [answering]) = setup.queue.enqueue_under_way(Mail { to, ..Mail::to("", "") }, ([0], 0)).await;
        setup.others_go_on().await;
        answering.send(vec![(0, Outcome { success: Some(Action::Relayed), ..accepted() })]).expect("it is waited for");
        setup.queue.empty().await;
        assert_eq!(setup.given(), (0, 0), "the queue sent it nowhere");
        assert_eq!(setup.reports().len(), usize::from(notify.is_some()), "who asked hears of it");
        assert_eq!((setup.counted("delivered"), setup.counted("deferred")), (2, 0), "Carol's and Bob's");
        assert!(
            setup.queue.recently_good.lock().is_good(&parse(BOB), setup.queue.spool.queue_time()),
            "it is remembered"
        );
    }
}

#[tokio::test]
async fn what_was_not_taken_now_waits_as_after_any_attempt() {
    for (outcome, words) in [
        (said(Class::Deferred, BUSY), "hub[192.0.2.1]:25: 451 4.3.0 my disk is slow"),
        (said(Class::TooManyRecipients, BUSY), "my disk is slow"),
        (said(Class::LeftToQueue, BUSY), "my disk is slow"),
        (Outcome::undone(), "451"),
        (
            Outcome::in_doubt(&"hub[192.0.2.1]:25".into(), "it broke off"),
            "outcome unknown: it may have arrived, and may arrive twice",
        ),
    ] {
        let setup = QueueSetup::start().await;
        let (id, answering) = setup.sent_to_bob().await;
        let began = UnixTime::now();
        answering.send(vec![(0, outcome.clone())]).expect("it is waited for");
        eventually("it waits", || setup.counted("deferred") == 1 && waits(&setup.queue, id, began.0 + FIRST)).await;
        let Some(RecipientState::Waiting(Waiting { attempts, last_error, .. })) = setup.queue.first(id) else {
            panic!("it waits")
        };
        assert_eq!(attempts, 1, "the one that is over now: {outcome:?}");
        assert!(last_error.contains(words), "{last_error}");
        setup.others_go_on().await;
        assert_eq!((setup.given(), setup.reports().len()), ((0, 0), 0));
        assert_eq!(setup.queue.delivery.retry_all(None), 1);
        setup.queue.empty().await;
        assert_eq!(setup.given(), (1, 0), "then the queue goes on");
    }
}

/// Whether a message's first recipient waits until then at least.
fn waits(queue: &TestQueue, id: QueueId, until: u64) -> bool {
    matches!(queue.first(id), Some(RecipientState::Waiting(Waiting { next_attempt, .. })) if next_attempt.0 >= until)
}

#[tokio::test]
async fn what_was_refused_is_reported() {
    let setup = QueueSetup::start().await;
    let (_, answering) = setup.sent_to_bob().await;
    answering.send(vec![(0, said(Class::Refused, NO))]).expect("it is waited for");
    setup.queue.empty().await;
    let [report] = <[String; 1]>::try_from(setup.reports()).expect("one report");
    assert!(
        report.contains("Final-Recipient: rfc822; bob@contoso.com\r\nAction: failed\r\nStatus: 5.6.0\r\n"),
        "{report}"
    );
    assert!(report.contains("we do not like it") && report.contains("\r\nSubject: hello\r\n"), "{report}");
    assert_eq!((setup.given(), setup.counted("failed")), ((0, 0), 1));
}

#[tokio::test]
async fn an_unknown_recipient_is_doubted_or_followed_or_believed() {
    let unknown = || vec![(0, said(Class::UnknownRecipient, UNKNOWN))];

    let doubted = QueueSetup::start().await;
    let (id, answering) = doubted.sent_to_bob().await;
    answering.send(unknown()).expect("it is waited for");
    eventually("it is doubted", || doubted.counted("deferred") == 1).await;
    let shown = doubted.queue.tried(id, 1).await;
    assert!(shown.contains("451 4.3.0") && shown.contains("550 5.1.1 no such user"), "{shown}");
    assert_eq!((doubted.given(), doubted.reports().len()), ((0, 0), 0));

    let moved = QueueSetup::start().await;
    let (_, answering) = moved.sent_to_bob().await;
    moved.queue.directory.live_says(&[false]);
    answering.send(unknown()).expect("it is waited for");
    moved.queue.empty().await;
    assert_eq!((moved.given(), moved.reports().len()), ((0, 1), 0), "the other side has him");

    let gone = QueueSetup::start().await;
    let shared = connectors(gone.primary.address, gone.secondary.address, RETRY);
    let authoritative = format!("[[accepted_domain]]\ndomain = \"x.y\"\ndeliver_to = \"primary\"\n{shared}");
    gone.queue.reconfigure(&authoritative);
    let (_, [answering]) = gone.queue.enqueue_under_way(Mail::to("nobody@x.y", "primary"), ([0], 0)).await;
    answering.send(unknown()).expect("it is waited for");
    gone.queue.empty().await;
    assert_eq!((gone.given(), gone.reports().len()), ((0, 0), 1));
}

#[tokio::test]
async fn each_branch_is_settled_when_it_is_known_and_what_nobody_names_is_in_doubt() {
    let setup = QueueSetup::start().await;
    let to = [BOB, CAROL, "dave@contoso.com"].map(|address| To(address, "primary", None)).into();
    let mail = Mail { to, ..Mail::to("", "") };
    let (id, [bob, carol]) = setup.queue.enqueue_under_way(mail, ([0, 1], 0)).await;
    eventually("Dave has his", || setup.primary.accepted().len() == 1).await;
    assert_eq!(setup.primary.accepted()[0].rcpt.len(), 1, "the others' next hops have it already");
    // What a sender says of whom it has not is not heard.
    carol.send(vec![(0, said(Class::Refused, NO)), (1, accepted())]).expect("it is waited for");
    let is_over = |at: usize| {
        let shown = setup.queue.delivery.show(id).unwrap();
        shown.is_some_and(|entry| matches!(entry.recipients[at].state, RecipientState::Done(_)))
    };
    eventually("Carol's is over", || is_over(1)).await;
    assert!(!is_over(0) && setup.counted("failed") == 0);
    bob.send(vec![(1, said(Class::Refused, NO))]).expect("it is waited for");
    eventually("Bob's is settled", || setup.counted("deferred") == 1).await;
    let shown = setup.queue.tried(id, 1).await;
    assert!(shown.contains("outcome unknown"), "{shown}");
    assert!(setup.reports().is_empty());
}

#[tokio::test]
async fn what_nobody_hears_of_any_more_is_in_doubt() {
    let setup = QueueSetup::start().await;
    let (id, answering) = setup.sent_to_bob().await;
    setup.others_go_on().await;
    drop(answering);
    eventually("it is settled", || setup.counted("deferred") == 1).await;
    let shown = setup.queue.tried(id, 1).await;
    assert!(
        shown.starts_with("451 4.4.2 primary: outcome unknown: it may have arrived, and may arrive twice"),
        "{shown}"
    );
    assert!(waits(&setup.queue, id, UnixTime::now().0 + FIRST - 30));
    setup.others_go_on().await;
    assert_eq!((setup.given(), setup.reports().len()), ((0, 0), 0));
    let setup = setup.restart().await;
    assert!(waits(&setup.queue, id, UnixTime::now().0 + FIRST - 60), "durably");
}

#[tokio::test]
async fn nothing_makes_a_second_attempt_of_what_is_under_way() {
    let setup = QueueSetup::start().await;
    let (id, [answering]) = setup.queue.enqueue_under_way(Mail::to(BOB, "secondary"), ([0], 0)).await;
    assert_eq!(setup.queue.delivery.retry_all(None), 0);
    assert!(!setup.queue.delivery.retry(id));
    setup.others_go_on().await;
    setup.queue.delivery.configuration_changed();
    setup.others_go_on().await;
    // Its connector goes, and comes back.
    let here = connectors(setup.primary.address, setup.secondary.address, RETRY);
    setup.queue.reconfigure(&here.replace("\"secondary\"\norg", "\"another\"\norg"));
    setup.others_go_on().await;
    setup.queue.reconfigure(&here);
    assert_eq!(setup.queue.delivery.retry_all(None), 0);
    setup.others_go_on().await;
    let Some(RecipientState::Waiting(Waiting { last_error, .. })) = setup.queue.first(id) else { panic!("it waits") };
    assert_eq!(last_error, "not answered yet");
    answering.send(vec![(0, accepted())]).expect("it is waited for");
    setup.queue.empty().await;
    assert_eq!((setup.given(), setup.reports().len()), ((0, 0), 0));
}

#[tokio::test]
async fn what_an_operator_dropped_meanwhile_is_over_with_the_answer() {
    for (outcome, delivered) in [
        (Some(accepted()), 1),
        (Some(said(Class::Deferred, BUSY)), 0),
        (Some(said(Class::Refused, NO)), 0),
        (Some(said(Class::UnknownRecipient, UNKNOWN)), 0),
        (None, 0),
    ] {
        let setup = QueueSetup::start().await;
        let (id, answering) = setup.sent_to_bob().await;
        assert_eq!(setup.queue.delivery.drop_message(id).await, Ok(true));
        assert!(setup.queue.delivery.show(id).unwrap().is_some(), "it is under way");
        match outcome {
            Some(outcome) => answering.send(vec![(0, outcome)]).expect("it is waited for"),
            None => drop(answering),
        }
        setup.queue.empty().await;
        assert_eq!(setup.counted("delivered"), delivered, "what a next hop has is not called dropped");
        let setup = setup.restart().await;
        assert!(setup.queue.listed().is_empty());
        assert_eq!((setup.given(), setup.reports().len()), ((0, 0), 0));
    }
}

#[tokio::test]
async fn an_outcome_is_written_until_it_is_durable() {
    let setup = QueueSetup::start().await;
    let (id, answering) = setup.sent_to_bob().await;
    setup.queue.spool.full.store(true, Ordering::SeqCst);
    answering.send(vec![(0, said(Class::Refused, NO))]).expect("it is waited for");
    eventually("it cannot be kept", || setup.queue.spool.failures.load(Ordering::SeqCst) >= 2).await;
    assert!(setup.queue.delivery.show(id).unwrap().is_some() && setup.reports().is_empty());
    assert_eq!(setup.queue.delivery.retry_all(None), 0);
    setup.queue.spool.full.store(false, Ordering::SeqCst);
    setup.queue.empty().await;
    assert_eq!((setup.given(), setup.reports().len()), ((0, 0), 1));
}

/// Another node has its mail from now on, and the program stops for that.
#[tokio::test]
async fn an_outcome_that_waits_to_be_written_is_written_when_the_spool_takes_nothing_more() {
    // Which of the two is seen first would be chance.
    for _ in 0..8 {
        let setup = QueueSetup::start().await;
        let (_, answering) = setup.sent_to_bob().await;
        let spool = &setup.queue.spool;
        spool.full.store(true, Ordering::SeqCst);
        answering.send(vec![(0, accepted())]).expect("it is waited for");
        eventually("it cannot be kept", || spool.failures.load(Ordering::SeqCst) >= 1).await;
        spool.full.store(false, Ordering::SeqCst);
        spool.condition.set_takes(Takes::NothingMore("the epoch has ended".into()), &setup.queue.metrics);
        setup.queue.delivery.stop().await;
        assert_eq!(spool.unfinished(), 0);
    }
}

#[tokio::test]
async fn a_stop_waits_for_the_answer_also_of_what_is_handed_over_as_sessions_end() {
    let setup = QueueSetup::start().await;
    let (_, early) = setup.sent_to_bob().await;
    setup.queue.delivery.begin_no_more();
    let (_, late) = setup.sent_to_bob().await;
    let due = setup.queue.enqueue(Mail::to(BOB, "primary")).await;
    let delivery = setup.queue.delivery.clone();
    let mut stopping = tokio::spawn(async move { delivery.stop().await });
    for answering in [early, late] {
        tokio::time::timeout(Duration::from_millis(20), &mut stopping).await.expect_err("it waits");
        answering.send(vec![(0, accepted())]).expect("it is waited for");
    }
    stopping.await.expect("it ends");
    assert_eq!((setup.given(), setup.queue.spool.unfinished()), ((0, 0), 1));
    let setup = setup.restart().await;
    setup.queue.empty().await;
    assert_eq!(setup.given(), (1, 0), "only what was never tried");
    assert!(setup.queue.delivery.show(due).unwrap().is_none());
}

#[tokio::test]
async fn a_stop_takes_what_was_handed_over_just_before() {
    // Which of the two the queue sees first is chance.
    for _ in 0..8 {
        let setup = QueueSetup::start().await;
        let (_, [answering]) = setup.queue.hand_over(Mail::to(BOB, "primary"), ([0], 0)).await;
        // It is polled at once, before the queue can look into its channel.
        let mut stopping = std::pin::pin!(setup.queue.delivery.stop());
        tokio::time::timeout(Duration::from_millis(20), &mut stopping).await.expect_err("it waits");
        answering.send(vec![(0, accepted())]).expect("it is waited for");
        stopping.await;
        assert_eq!(setup.queue.spool.unfinished(), 0);
    }
}

/// What happens before the process ends.
#[derive(PartialEq)]
enum BeforeCrash {
    Nothing,
    Drop,
}

/// The process ends while the answer is waited for, and with it everything that is under way.
fn crash(before: &BeforeCrash) -> (TempDir, QueueId) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (setup, id, answering) = runtime.block_on(async {
        let setup = QueueSetup::start().await;
        let (id, [answering]) = setup.queue.enqueue_under_way(Mail::to(BOB, "primary"), ([0], 2000)).await;
        if *before == BeforeCrash::Drop {
            assert_eq!(setup.queue.delivery.drop_message(id).await, Ok(true));
        }
        (setup, id, answering)
    });
    drop(runtime);
    let QueueSetup { queue, folder, .. } = setup;
    assert_eq!(Arc::strong_count(&queue.spool), 1 + 2, "only the test, its queue and its memory have the spool");
    drop((queue, answering));
    (folder, id)
}

#[test]
fn after_a_restart_it_waits_for_its_time_and_is_tried_as_any_other() {
    let (folder, id) = crash(&BeforeCrash::Nothing);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
        let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, RETRY));
        queue.directory.add(BOB, None);
        assert!(waits(&queue, id, UnixTime::now().0 + 1900), "{:?}", queue.first(id));
        assert!(matches!(queue.first(id), Some(RecipientState::Waiting(Waiting { attempts: 1, .. }))));
        queue.enqueue(Mail::to(CAROL, "primary")).await;
        eventually("Carol has her mail", || hop.accepted().len() == 1).await;
        assert_eq!(queue.delivery.retry_all(None), 1);
        queue.empty().await;
        assert_eq!(hop.accepted().len(), 2, "twice at worst, never not at all");
    });
}

#[test]
fn after_a_restart_what_was_dropped_is_gone() {
    let (folder, _) = crash(&BeforeCrash::Drop);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let hop = RecordingSmtpServer::start(&["PIPELINING"]).await;
        let queue = TestQueue::start(folder.path(), &connectors(hop.address, hop.address, RETRY));
        queue.empty().await;
        assert!(hop.accepted().is_empty());
    });
}
