//! Messages with a next hop that has not answered yet: what the queue gets and the spool contains.

use std::path::Path;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use super::*;
use crate::config::check::load_text;
use crate::delivery::attempt::Outbound;
use crate::delivery::dispatch::UnderWay;
use crate::delivery::memory::Memory;
use crate::delivery::outcome::{Class, Outcome as Answer};
use crate::delivery::rcpt_in_flight::RcptsInFlight;
use crate::directory::Directories;
use crate::in_force::InForce;
use crate::keys::LoopKeys;
use crate::lookup::Standing;
use crate::message::header::Identity;
use crate::message::received::With;
use crate::metrics::Metrics;
use crate::pressure::Pressure;
use crate::resolve::Resolver;
use crate::routing::recently_good::RecentlyGood;
use crate::routing::verdict::{Reason, Route};
use crate::session::Client;
use crate::session::transaction::Accepted;
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::{Body, RcptTo, Sender};
use crate::spool::Sizes;
use crate::spool::entry::outline::{Outline, Outlines};
use crate::spool::store::LogStore;
use crate::trace::Trace;

const CONFIG: &str = r#"
[server]
hostname = "mx.contoso.com"
state_dir = "state"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:2525"]
[[accepted_domain]]
domain = "contoso.com"
deliver_to = "exchange"
[[directory]]
name = "ad"
kind = "file"
path = "ad.toml"
[[send_connector]]
name = "exchange"
smart_hosts = ["[127.0.0.2]"]
"#;
const AGAIN: UnixTime = UnixTime(4_000_000_000);

/// The services of sessions, with their spool in this folder; and the receiver of what `delivery` gets.
pub(in crate::session) fn services(folder: &Path) -> (Arc<Services>, tokio::sync::mpsc::UnboundedReceiver<Handover>) {
    std::fs::write(folder.join("ad.toml"), "").unwrap();
    let config = load_text(CONFIG, &folder.join("fingerpost.toml")).unwrap();
    let resolver = Resolver::new(config.routing.clone(), Arc::new(Directories::new([])));
    let in_force = InForce { config: Arc::new(config), resolver, keys: Arc::new(LoopKeys::new([7; 32], [])) };
    let metrics = Metrics::new();
    let (accepted, committed) = unbounded_channel();
    let recently_good = Arc::new(parking_lot::Mutex::new(RecentlyGood::new([1; 16])));
    let spool = Arc::new(LogStore::open(&folder.join("spool"), Sizes::default(), metrics.clone()).unwrap());
    let services = Services {
        current: Arc::new(ArcSwap::from_pointee(in_force)),
        spool: spool.clone(),
        accepted,
        outbound: Outbound::new(metrics.clone()),
        rcpts_in_flight: RcptsInFlight::new(metrics.clone()),
        memory: Memory::new(Arc::default(), recently_good, spool),
        strangers: crate::strangers::Strangers::new(metrics.clone(), Default::default()),
        metrics,
        trace: Trace::default(),
        pressure: Arc::new(Pressure::default()),
        guesses: Arc::new(parking_lot::Mutex::new(crate::guesses::Guesses::new([1; 16]))),
        answered: Arc::default(),
        hashing: Arc::default(),
    };
    (Arc::new(services), committed)
}

/// A transaction with these recipients.
pub(in crate::session) fn transaction(services: &Services, recipients: &[&str]) -> Box<Transaction> {
    let config = services.current.load().config.clone();
    let connector = config.receive_connectors[0].clone();
    let (address, bind) = ("192.0.2.1:40000".parse().unwrap(), "127.0.0.1:2525".parse().unwrap());
    let mut client = Client { id: "test".into(), address, bind, connector, tls: None, identity: Default::default() };
    let reverse_path = ReversePath::Address(Address::parse("alice@example.net").unwrap());
    let sender = Sender { reverse_path, size: None, body: Body::SevenBit, smtputf8: false, ret: None, envid: None };
    let mut transaction = Transaction::begin(services, &mut client, sender, None).unwrap_or_else(|_| panic!("no door"));
    transaction.recipients.extend(recipients.iter().enumerate().map(|(number, address)| {
        let address = Address::parse(address).unwrap();
        let route = Route {
            connector: "exchange".into(),
            rcpt_to: address.clone(),
            next_hop_domain: address.domain().clone(),
            way: RouteKind::Resolved,
        };
        Accepted {
            number,
            rcpt: RcptTo { address, notify: None, orcpt: None },
            route,
            reasons: vec![Reason::Note("it is a test".into())],
        }
    }));
    transaction
}

/// A buffer for its content, which is still to come.
fn begun(services: &Services, transaction: &Transaction) -> Writing {
    Writing::new(
        services.spool.clone(),
        &transaction.origin,
        With::Esmtp,
        &services.current.load_full(),
        services.pressure.share(1 << 20),
    )
}

fn kept(writing: &Writing, fates: Vec<Fate>) -> AcceptedMessage {
    let identity = Identity { message_id: true, date: true, from: true, digest: [0; 16], id_and_date: [0; 16] };
    let content = Content {
        size: writing.size,
        header_size: writing.received_size,
        ascii_header: true,
        eight_bit: false,
        bare_lf: false,
        identity,
        message_id: String::new(),
    };
    let reported = fates.iter().enumerate().filter_map(|(at, fate)| fate.reported(at)).collect();
    AcceptedMessage {
        content,
        stamps: Vec::new(),
        id: writing.id,
        at: writing.at,
        fates,
        reported,
        until: Instant::now() + PATIENCE,
    }
}

/// How long the client waits.
const PATIENCE: Duration = Duration::from_secs(400);

/// A spool whose disk is full when a record is committed.
struct Full(LogStore);

impl Spool for Full {
    fn new_id(&self) -> QueueId {
        self.0.new_id()
    }

    fn queue_time(&self) -> QueueTime {
        self.0.queue_time()
    }

    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        self.0.create_as(id)
    }

    fn commit(&self, _: Record) -> Committed<'_> {
        Box::pin(std::future::ready(Err(SpoolError::Io("no space left on device".into()))))
    }

    fn open(&self, id: QueueId) -> Result<Stored, SpoolError> {
        self.0.open(id)
    }

    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        self.0.entry(id)
    }

    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        self.0.ids_after(id, most)
    }

    fn open_recipients(&self, id: QueueId) -> Vec<usize> {
        self.0.open_recipients(id)
    }

    fn live_messages(&self) -> usize {
        self.0.live_messages()
    }

    fn recovered(&self) -> Outlines {
        Outlines::default()
    }
}

/// If the message were refused it would come again, to next hops that have it or will have it in a moment.
#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_kept_the_next_hops_answer_is_waited_for() {
    let yes = || Answer::ours(Class::Accepted, reply::OK);
    let no = || Answer::ours(Class::Deferred, reply::TRY_AGAIN);
    let delivered = || Fate::delivered(yes());
    for (first, second, answer, after, expected) in [
        (delivered(), Fate::under_way(AGAIN), vec![(1, yes())], 100, 250),
        (Fate::under_way(AGAIN), Fate::under_way(AGAIN), vec![(0, yes()), (1, yes())], 399, 250),
        (delivered(), Fate::under_way(AGAIN), vec![(1, no())], 100, 451),
        (delivered(), Fate::under_way(AGAIN), vec![], 100, 451),
        (Fate::waiting(&reply::TRY_AGAIN, AGAIN), Fate::under_way(AGAIN), vec![(1, yes())], 100, 451),
        (delivered(), Fate::under_way(AGAIN), vec![(1, yes())], 500, 451),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (services, mut committed) = services(folder.path());
        let mut services = Arc::into_inner(services).unwrap();
        let store = LogStore::open(&folder.path().join("full"), Sizes::default(), Metrics::new()).unwrap();
        services.spool = Arc::new(Full(store));
        let mut transaction = transaction(&services, &["bob@contoso.com", "carol@contoso.com"]);
        let mut writing = begun(&services, &transaction);
        writing.append(b"\r\nbody\r\n").await;
        let (answering, outcomes) = oneshot::channel();
        transaction.under_way.push(UnderWay { recipients: vec![1], outcomes });
        let kept = kept(&writing, vec![first, second]);
        let begun = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(after)).await;
            let _ = answering.send(answer);
        });
        let said = commit(Arc::new(services), "test".into(), transaction, kept, writing).await;
        assert_eq!(said.unwrap_or_else(|refused| refused).code, expected, "{after}");
        assert!(begun.elapsed() <= PATIENCE + Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(committed.try_recv().is_err(), "nothing of it is in the queue");
    }
}

#[tokio::test]
async fn who_is_under_way_is_durable_and_the_queue_hears_of_him() {
    let folder = tempfile::tempdir().unwrap();
    let (services, mut committed) = services(folder.path());
    let mut transaction = transaction(&services, &["bob@contoso.com", "carol@contoso.com", "dave@contoso.com"]);
    let mut writing = begun(&services, &transaction);
    writing.append(b"\r\nbody\r\n").await;
    let (answering, outcomes) = oneshot::channel();
    transaction.under_way.push(UnderWay { recipients: vec![0], outcomes });
    let refused = Reply::fixed(550, crate::smtp::reply::Enhanced(5, 7, 1), "no");
    let fates = vec![Fate::under_way(AGAIN), Fate::waiting(&reply::TRY_AGAIN, AGAIN), Fate::failed(refused, "".into())];
    let kept = kept(&writing, fates);
    assert!(kept.needs_the_spool(&transaction));
    let id = kept.id;
    let said = commit(services.clone(), "test".into(), transaction, kept, writing).await;
    assert_eq!(said.map(|reply| reply.code), Ok(250));

    let Handover { entry, mut under_way } = committed.try_recv().unwrap();
    assert_eq!(entry.id, id);
    let waits = |entry: &Entry, at: usize| match &entry.recipients[at].state {
        RecipientState::Waiting(Waiting { attempts, next_attempt, .. }) => Some((*attempts, *next_attempt)),
        RecipientState::Held(_) | RecipientState::Done(_) => None,
    };
    assert_eq!([0, 1, 2].map(|at| waits(&entry, at)), [Some((1, AGAIN)), Some((1, AGAIN)), None]);
    let report = committed.try_recv().unwrap();
    assert!(report.entry.id != id && report.under_way.is_empty(), "nothing of the report is under way");
    let counted = |result| services.metrics.deliveries.with_label_values(&["exchange", result]).get();
    assert_eq!(["delivered", "deferred", "failed"].map(counted), [0, 1, 1], "Bob's is not known yet");

    let answer = vec![(0, Answer::ours(Class::Deferred, reply::TRY_AGAIN))];
    answering.send(answer.clone()).unwrap();
    assert_eq!(under_way.len(), 1);
    let UnderWay { recipients, outcomes } = under_way.remove(0);
    assert_eq!((recipients, outcomes.await), (vec![0], Ok(answer)));

    drop(services);
    let again = LogStore::open(&folder.path().join("spool"), Sizes::default(), Metrics::new()).unwrap();
    let recovered = again.entry(id).unwrap().unwrap();
    assert_eq!(waits(&recovered, 0), Some((1, AGAIN)), "tried again should we end before the answer");
}

/// The report about a message of 200 KiB, header section only, that is to be returned in full; its recipient is refused
/// at the end of data.
async fn reported(services: &Arc<Services>, committed: &mut Handovers) -> (Entry, String) {
    let mut transaction = transaction(services, &["bob@contoso.com", "carol@contoso.com"]);
    transaction.sender.ret = Some(crate::smtp::envelope::Ret::Full);
    let mut writing = begun(services, &transaction);
    writing.append("X-Long: 0123456789012345678901234567890123456789\r\n".repeat(4096).as_bytes()).await;
    let refused = Reply::fixed(550, crate::smtp::reply::Enhanced(5, 7, 1), "no");
    let delivered = Fate::delivered(Answer::ours(Class::Accepted, reply::OK));
    let mut kept = kept(&writing, vec![delivered, Fate::failed(refused, "".into())]);
    kept.content.header_size = kept.content.size;
    let said = commit(services.clone(), "test".into(), transaction, kept, writing).await;
    assert_eq!(said.map(|reply| reply.code), Ok(250));
    let entry = committed.try_recv().unwrap().entry;
    assert!(entry.origin.is_strangers_report());
    let text = services.spool.open(entry.id).unwrap().whole().unwrap();
    (entry, String::from_utf8(text).unwrap())
}

type Handovers = tokio::sync::mpsc::UnboundedReceiver<Handover>;

#[tokio::test]
async fn the_more_reports_of_strangers_wait_the_smaller_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (services, mut committed) = services(folder.path());
    let waiting = services.memory.reports.clone();
    let mut counted = Vec::new();
    for (octets, smallest, largest, parts) in [
        // Octets that wait already; the report's size and its number of parts.
        (0, 200 << 10, 210 << 10, 3),
        (16 << 20, 16 << 10, 19 << 10, 3),
        (31 << 20, 16 << 10, 19 << 10, 3),
        (32 << 20, 1 << 10, 3 << 10, 2),
        (128 << 20, 1 << 10, 3 << 10, 2),
    ] {
        let (mut one, _) = reported(&services, &mut committed).await;
        one.content.size = octets;
        counted.clear();
        counted.extend(waiting.count(&Outline::of(&one)));
        let (entry, text) = reported(&services, &mut committed).await;
        assert!((smallest..=largest).contains(&entry.content.size), "{octets}: {}", entry.content.size);
        // The whole report has the encoding, as each part has.
        assert_eq!(text.matches("\r\nContent-Transfer-Encoding:").count(), 1 + parts, "{octets}");
        for line in ["Final-Recipient: rfc822; carol@contoso.com", "Status: 5.7.1"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(waiting.are_many(), octets >= 128 << 20);
    }
    // Reports that have been sent free their space.
    counted.clear();
    assert!(reported(&services, &mut committed).await.0.content.size > 200 << 10);
}

#[tokio::test]
async fn whose_mail_was_taken_goes_before_those_who_never_sent_any() {
    let folder = tempfile::tempdir().unwrap();
    let (services, mut committed) = services(folder.path());
    assert_eq!(transaction(&services, &[]).standing, Standing::Stranger);
    reported(&services, &mut committed).await;
    assert_eq!(transaction(&services, &[]).standing, Standing::Network);
}
