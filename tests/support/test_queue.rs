//! A queue over a real spool, with a directory, a configuration and messages of the test's making.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fingerpost::config::{Config, check};
use fingerpost::delivery::attempt::Outbound;
use fingerpost::delivery::dispatch::{Delivery, Handover, Parts, UnderWay};
use fingerpost::delivery::memory::Memory;
use fingerpost::delivery::outcome::Outcome;
use fingerpost::directory::{Directories, Directory};
use fingerpost::in_force::InForce;
use fingerpost::keys::LoopKeys;
use fingerpost::message::header;
use fingerpost::message::queue_id::QueueId;
use fingerpost::message::stamp::{self, NewStamp, Stamp};
use fingerpost::metrics::Metrics;
use fingerpost::resolve::Resolver;
use fingerpost::routing::doubt::{KnownBy, Refused};
use fingerpost::routing::recently_good::RecentlyGood;
use fingerpost::routing::relay_memory::RelayMemory;
use fingerpost::routing::verdict::{Route, RouteKind};
use fingerpost::smtp::address::{Address, ReversePath};
use fingerpost::smtp::envelope::{Body, Notify, Origin, RcptTo, Relay, Ret, Sender};
use fingerpost::smtp::reply::USER_UNKNOWN;
use fingerpost::spool::entry::{Content, Entry, Queued, RecipientState, Record, Waiting};
use fingerpost::spool::{Draft, Spool};
use fingerpost::time::{QueueTime, UnixTime};
use fingerpost::trace::Trace;
use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::faulty_spool::FaultySpool;
use crate::test_directory::TestDirectory;

/// The key that signs.
pub const KEY: [u8; 32] = [7; 32];

/// Everything that a queue needs, and the queue.
pub struct TestQueue {
    /// Below it is everything on disk.
    pub folder: PathBuf,
    /// The queue.
    pub delivery: Arc<Delivery>,
    /// The configuration in force.
    pub current: Arc<ArcSwap<InForce>>,
    /// The directory.
    pub directory: Arc<TestDirectory>,
    /// The spool.
    pub spool: Arc<FaultySpool>,
    /// The counters.
    pub metrics: Metrics,
    /// What next hops accepted.
    pub memory: Arc<Mutex<RelayMemory>>,
    /// Whose mail they accepted lately.
    pub recently_good: Arc<Mutex<RecentlyGood>>,
    accepted: UnboundedSender<Handover>,
}

/// Says what became of recipients that are under way.
pub type Answering = oneshot::Sender<Vec<(usize, Outcome)>>;

/// One recipient of a message to be queued: address, connector and what RCPT said besides.
pub struct To<'a>(pub &'a str, pub &'a str, pub Option<Notify>);

/// A message to be queued.
pub struct Mail<'a> {
    /// The reverse-path; empty: null.
    pub from: &'a str,
    /// The recipients.
    pub to: Vec<To<'a>>,
    /// How many seconds ago it came, and how often each recipient was tried since.
    pub tried: (u64, u32),
    /// RET.
    pub ret: Option<Ret>,
    /// The connector that a stamp on it names for its first recipient.
    pub stamped: Option<&'a str>,
}

impl<'a> Mail<'a> {
    /// From Alice, new, nothing special.
    pub fn to(to: &'a str, connector: &'a str) -> Self {
        Self { from: "alice@example.net", to: vec![To(to, connector, None)], tried: (0, 0), ret: None, stamped: None }
    }
}

/// What is in the message that `TestQueue::enqueue` makes.
pub const CONTENT: &str = "Received: from client\r\nMessage-ID: <1@example.net>\r\nDate: Sat, 21 Nov 2026 04:39:00 +0000\r\n\
                           From: alice@example.net\r\nSubject: hello\r\n\r\n.dot\r\nbody\r\n";

impl TestQueue {
    /// Opens the spool below `folder` and starts a queue with these send connectors.
    pub fn start(folder: &Path, connectors: &str) -> Self {
        std::fs::create_dir_all(folder.join("state")).unwrap();
        let metrics = Metrics::new();
        let spool = Arc::new(FaultySpool::open_store(&folder.join("state/spool"), metrics.clone()));
        let directory = Arc::new(TestDirectory::default());
        let current = Arc::new(ArcSwap::from(in_force(folder, connectors, &directory)));
        let memory = Arc::new(Mutex::new(RelayMemory::default()));
        let recently_good = Arc::new(Mutex::new(RecentlyGood::new([1; 16])));
        let (accepted, handovers) = unbounded_channel();
        let parts = Parts {
            current: current.clone(),
            spool: spool.clone(),
            outbound: Outbound::new(metrics.clone()),
            memory: Memory::new(memory.clone(), recently_good.clone(), spool.clone()),
            metrics: metrics.clone(),
            trace: Trace::default(),
        };
        let delivery = Delivery::start(parts, handovers);
        Self {
            folder: folder.to_owned(),
            delivery,
            current,
            directory,
            spool,
            metrics,
            memory,
            recently_good,
            accepted,
        }
    }

    /// Puts another configuration in force.
    pub fn reconfigure(&self, connectors: &str) {
        self.current.store(in_force(&self.folder, connectors, &self.directory));
        self.delivery.configuration_changed();
    }

    /// Queues a message as a session does: committed, then sent to the queue.
    pub async fn enqueue(&self, mail: Mail<'_>) -> QueueId {
        let (draft, entry) = self.make(mail);
        let id = entry.id;
        self.spool.commit(Record { accepted: vec![(draft, entry.clone())], changes: Vec::new() }).await.unwrap();
        self.accepted.send(entry.into()).unwrap();
        id
    }

    /// The same for a message from there.
    pub async fn enqueue_from(&self, mail: Mail<'_>, origin: Origin) -> QueueId {
        let (draft, entry) = self.make(mail);
        let (id, entry) = (entry.id, Entry { origin, ..entry });
        self.spool.commit(Record { accepted: vec![(draft, entry.clone())], changes: Vec::new() }).await.unwrap();
        self.accepted.send(entry.into()).unwrap();
        id
    }

    /// The same for a message of which these recipients, each a branch, are under way: whoever has a sender says what
    /// became of his. Were they not, they would be due `again` seconds from now.
    pub async fn hand_over<const N: usize>(
        &self,
        mail: Mail<'_>,
        (branches, again): ([usize; N], u64),
    ) -> (QueueId, [Answering; N]) {
        let (draft, mut entry) = self.make(mail);
        let id = entry.id;
        for at in branches {
            let next_attempt = UnixTime(UnixTime::now().0 + again);
            let last_error = "not answered yet".to_owned();
            entry.recipients[at].state = RecipientState::Waiting(Waiting {
                attempts: 1,
                tried: 1,
                next_attempt,
                last_error,
                ..Waiting::default()
            });
        }
        self.spool.commit(Record { accepted: vec![(draft, entry.clone())], changes: Vec::new() }).await.unwrap();
        let mut under_way = Vec::new();
        let answering = branches.map(|at| {
            let (sender, outcomes) = oneshot::channel();
            under_way.push(UnderWay { recipients: vec![at], outcomes });
            sender
        });
        self.accepted.send(Handover { entry, under_way }).unwrap();
        (id, answering)
    }

    /// The same, and the queue has it.
    pub async fn enqueue_under_way<const N: usize>(
        &self,
        mail: Mail<'_>,
        under_way: ([usize; N], u64),
    ) -> (QueueId, [Answering; N]) {
        let (id, answering) = self.hand_over(mail, under_way).await;
        eventually("the queue has it", || self.delivery.show(id).unwrap().is_some()).await;
        (id, answering)
    }

    fn make(&self, mail: Mail<'_>) -> (Draft, Entry) {
        let draft = self.spool.draft(self.spool.new_id(), CONTENT.into()).unwrap();
        let header_size = CONTENT.find("\r\n\r\n").unwrap() + 2;
        let now = UnixTime::now();
        let (age, attempts) = mail.tried;
        let state = match attempts {
            0 => RecipientState::due(now),
            _ => {
                RecipientState::Waiting(Waiting { attempts, tried: attempts, next_attempt: now, ..Waiting::default() })
            }
        };
        let queued = |To(address, connector, notify): &To<'_>| {
            let address = parse(address);
            let route = Route {
                connector: (*connector).into(),
                next_hop_domain: address.domain().clone(),
                rcpt_to: address.clone(),
                way: RouteKind::Resolved,
            };
            Queued { rcpt: RcptTo { address, notify: *notify, orcpt: None }, route, state: state.clone() }
        };
        let reverse_path =
            if mail.from.is_empty() { ReversePath::Null } else { ReversePath::Address(parse(mail.from)) };
        let entry = Entry {
            id: draft.id(),
            received_at: UnixTime(now.0 - age),
            queued_at: QueueTime(self.spool.queue_time().0 - age),
            origin: Origin { receive_connector: "internet".into(), relay: Relay::AcceptedDomains, ..Origin::report() },
            sender: Sender {
                reverse_path,
                size: None,
                body: Body::SevenBit,
                smtputf8: false,
                ret: mail.ret,
                envid: None,
            },
            content: Content {
                size: CONTENT.len() as u64,
                header_size: header_size as u64,
                ascii_header: true,
                eight_bit: false,
                bare_lf: false,
                identity: header::examine(&CONTENT.as_bytes()[..header_size]).identity,
                message_id: "<1@example.net>".to_owned(),
            },
            stamps: mail.stamped.map(|via| stamp(via, mail.to[0].0, now)).into_iter().collect(),
            recipients: mail.to.iter().map(queued).collect(),
        };
        (draft, entry)
    }

    /// All queued messages, by age.
    pub fn listed(&self) -> Vec<Entry> {
        self.delivery.list(None, usize::MAX).unwrap().1
    }

    /// What the queue shows of a message's first recipient.
    pub fn first(&self, id: QueueId) -> Option<RecipientState> {
        self.delivery.show(id).unwrap().map(|entry| entry.recipients[0].state.clone())
    }

    /// Mail for this address was accepted so many seconds ago.
    pub fn accepted(&self, address: &str, connector: &str, ago: u64) {
        let at = QueueTime(self.spool.queue_time().0 - ago);
        self.recently_good.lock().accepted(&parse(address), connector, at);
    }

    /// This address was refused so many seconds ago.
    pub fn refused(&self, address: &str, ago: u64) {
        let at = QueueTime(self.spool.queue_time().0 - ago);
        let refused = Refused::ByUs { row: Some(9), reply: &USER_UNKNOWN };
        self.recently_good.lock().doubt(&parse(address), KnownBy::Directory, &refused, at);
    }

    /// Waits until nothing is queued, neither durably nor in memory.
    pub async fn empty(&self) {
        let done = || self.spool.unfinished() == 0 && self.delivery.total() == 0;
        eventually("the queue is empty", done).await;
    }

    /// Waits until a message's first recipient was tried so often and waits again; the queue's words about it.
    pub async fn tried(&self, id: QueueId, times: u32) -> String {
        let seen = |state| match state {
            Some(RecipientState::Waiting(Waiting { attempts, last_error, .. })) if attempts >= times => {
                Some(last_error)
            }
            _ => None,
        };
        eventually("it was tried", || seen(self.first(id)).is_some()).await;
        seen(self.first(id)).unwrap()
    }

    /// What lies in a mailbox of the Maildirs below `mail`, as texts.
    pub fn mailbox(&self, address: &str) -> Vec<String> {
        let (local, domain) = address.split_once('@').unwrap();
        read_all(&self.folder.join("mail").join(domain).join(local).join("new"))
    }

    /// The dead letters, `.eml` only.
    pub fn dead_letters(&self) -> Vec<String> {
        read_all(&self.folder.join("state/dead-letters"))
    }
}

fn stamp(via: &str, recipient: &str, time: UnixTime) -> Stamp {
    let facts = header::examine(CONTENT.split_inclusive("\r\n\r\n").next().unwrap().as_bytes());
    let (recipient, installation) = (parse(recipient), "mx.contoso.com");
    let new = NewStamp { installation, via, time, recipients: &[&recipient], identity: &facts.identity };
    let field = stamp::sign(&stamp::Key::new(KEY), &new).replace("\r\n", "");
    let value = field.split_once(':').unwrap().1;
    stamp::verify(&[stamp::Key::new(KEY)], installation, &facts.values, value).unwrap()
}

fn read_all(folder: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = files.map(|file| file.unwrap().path());
    let letters = paths.filter(|path| path.extension().is_none_or(|extension| extension != "json"));
    letters.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Parses an address that the test wrote.
pub fn parse(address: &str) -> Address {
    Address::parse(address).unwrap()
}

/// Waits for a condition; it fails the test after 20 s.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Send connectors that the tests share: the primary and the secondary organisation, and the senders' Maildirs.
pub fn connectors(primary: std::net::SocketAddr, secondary: std::net::SocketAddr, more: &str) -> String {
    format!(
        r#"
[[send_connector]]
name = "primary"
organization = "primary"
smart_hosts = ["[{}]:{}"]
delivery = "queue"
tls = {{ mode = "none" }}
{more}

[[send_connector]]
name = "secondary"
organization = "secondary"
smart_hosts = ["[{}]:{}"]
delivery = "queue"
tls = {{ mode = "none" }}
address_spaces = [{{ domain = "contoso.com" }}]

[[send_connector]]
name = "senders"
protocol = "maildir"
path = "mail"
address_spaces = [{{ domain = "example.net" }}]
"#,
        primary.ip(),
        primary.port(),
        secondary.ip(),
        secondary.port()
    )
}

fn in_force(folder: &Path, connectors: &str, directory: &Arc<TestDirectory>) -> Arc<InForce> {
    let config = Arc::new(load(folder, connectors));
    let named: [(Arc<str>, Arc<dyn Directory>); 1] = [("people".into(), directory.clone())];
    let resolver = Resolver::new(config.routing.clone(), Arc::new(Directories::new(named)));
    Arc::new(InForce { config, resolver, keys: Arc::new(LoopKeys::new(KEY, [])) })
}

fn load(folder: &Path, connectors: &str) -> Config {
    let text = format!(
        r#"
[server]
hostname = "mx.contoso.com"
state_dir = "state"

[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:1"]

[[accepted_domain]]
domain = "contoso.com"
type = "internal-relay"
deliver_to = "primary"

[[directory]]
name = "people"
kind = "file"
path = "people.csv"
{connectors}"#
    );
    check::load_text(&text, &folder.join("fingerpost.toml")).unwrap_or_else(|problems| panic!("{problems:#?}"))
}
