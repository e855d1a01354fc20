//! What sessions need around them, as data behind the real traits: a directory that answers from the address, and a
//! spool that remembers what was committed.

pub mod talk;

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fingerpost::config::Config;
use fingerpost::config::check::load_text;
use fingerpost::delivery::dispatch::Handover;
use fingerpost::delivery::memory::Memory;
use fingerpost::directory::{AnswerFuture, Directories, Directory};
use fingerpost::in_force::InForce;
use fingerpost::keys::LoopKeys;
use fingerpost::lookup::{Answer, Fresh, Kind, Lookup, Question, Recipient};
use fingerpost::message::queue_id::QueueId;
use fingerpost::metrics::Metrics;
use fingerpost::resolve::Resolver;
use fingerpost::routing::recently_good::RecentlyGood;
use fingerpost::session::{Client, Identity, Services};
use fingerpost::spool::entry::outline::Outlines;
use fingerpost::spool::entry::{Entry, Record};
use fingerpost::spool::store::LogStore;
use fingerpost::spool::{BlobDraft, Committed, Sizes, Spool, SpoolError, Stored};
use fingerpost::time::QueueTime;
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedReceiver;

/// The key that signs and verifies stamps here.
pub const KEY: [u8; 32] = [7; 32];

/// Answers from the local part: `unknown...` is not found, `down...` unavailable, `moved...` a mailbox until it is asked
/// live, `new...` not found until then; everybody else is a mailbox. Asked live, `...slow...` takes ten seconds, and
/// `...stuck...` is never answered.
struct ByName;

impl Directory for ByName {
    fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a> {
        let name = question.address.local_key().to_owned();
        let live = question.freshness == fingerpost::lookup::Freshness::Live;
        let gone = name.starts_with(if live { "moved" } else { "new" });
        let lookup = if name.starts_with("unknown") || gone {
            Lookup::NotFound
        } else if name.starts_with("down") {
            Lookup::Unavailable("it is down".into())
        } else {
            Lookup::Found(Arc::new(Recipient {
                kind: Kind::Mailbox,
                target: None,
                mail_server: None,
                send_connector: None,
                entry: name.as_str().into(),
                rule: "it is a test".into(),
            }))
        };
        let fresh = if live || name.starts_with("unknown") { Fresh::Live } else { Fresh::Cached };
        Box::pin(async move {
            match name {
                name if live && name.contains("slow") => tokio::time::sleep(std::time::Duration::from_secs(10)).await,
                name if live && name.contains("stuck") => std::future::pending().await,
                _ => {}
            }
            Answer { lookup, fresh }
        })
    }
}

/// What becomes of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// It is remembered.
    Succeed,
    /// The disk is broken.
    Fail,
    /// It takes ten seconds.
    Slow,
    /// It never ends.
    Hang,
}

/// A spool that remembers what was committed.
pub struct RecordingSpool {
    drafts: LogStore,
    pub commits: Mutex<Commits>,
    pub committed: Mutex<Vec<(Entry, Vec<u8>)>>,
}

impl Spool for RecordingSpool {
    fn new_id(&self) -> QueueId {
        self.drafts.new_id()
    }

    fn queue_time(&self) -> QueueTime {
        self.drafts.queue_time()
    }

    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        self.drafts.create_as(id)
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        Box::pin(async move {
            let commits = *self.commits.lock();
            match commits {
                Commits::Succeed => {}
                Commits::Fail => return Err(SpoolError::Io("the disk is broken".into())),
                Commits::Slow => tokio::time::sleep(std::time::Duration::from_secs(10)).await,
                Commits::Hang => std::future::pending().await,
            }
            for (draft, entry) in record.accepted {
                let content = draft.stored().whole().unwrap();
                assert_eq!(content.len() as u64, entry.content.size, "the size is that of the content");
                self.committed.lock().push((entry, content));
            }
            Ok(())
        })
    }

    fn open(&self, id: QueueId) -> Result<Stored, SpoolError> {
        self.drafts.open(id)
    }

    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        self.drafts.entry(id)
    }

    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        self.drafts.ids_after(id, most)
    }

    fn open_recipients(&self, id: QueueId) -> Vec<usize> {
        self.drafts.open_recipients(id)
    }

    fn live_messages(&self) -> usize {
        self.drafts.live_messages()
    }

    fn recovered(&self) -> Outlines {
        Outlines::default()
    }
}

/// Everything around a session.
pub struct SessionSetup {
    pub services: Services,
    pub spool: Arc<RecordingSpool>,
    pub accepted: UnboundedReceiver<Handover>,
    folder: tempfile::TempDir,
}

/// A configuration: the internet's door, and the other organisation's.
pub const CONFIG: &str = r#"
[server]
hostname = "mx.contoso.com"
state_dir = "state"
[[receive_connector]]
name = "internet"
bind = ["127.0.0.1:2525"]
max_message_size = "4KiB"
max_header_size = "1KiB"
max_recipients = 3
[[receive_connector]]
name = "secondary"
bind = ["127.0.0.1:2525"]
remote_networks = ["192.0.2.77/32"]
organization = "secondary"
[[accepted_domain]]
domain = "contoso.com"
type = "internal-relay"
deliver_to = "exchange"
[[accepted_domain]]
domain = "example.net"
type = "authoritative"
deliver_to = "exchange"
[[directory]]
name = "ad"
kind = "file"
path = "ad.toml"
[[send_connector]]
name = "exchange"
organization = "primary"
smart_hosts = ["[127.0.0.2]"]
delivery = "queue"
[[send_connector]]
name = "kerio"
organization = "secondary"
smart_hosts = ["[127.0.0.3]"]
delivery = "queue"
address_spaces = [{ domain = "contoso.com" }]
"#;

/// Reads a configuration; relative paths are below `folder`.
pub fn config(text: &str, folder: &Path) -> Config {
    std::fs::write(folder.join("ad.toml"), "").unwrap();
    load_text(text, &folder.join("fingerpost.toml")).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// What is in force with this configuration.
pub fn in_force(config: Config) -> InForce {
    let directory: Arc<dyn Directory> = Arc::new(ByName);
    let directories = Arc::new(Directories::new([("ad".into(), directory)]));
    let resolver = Resolver::new(config.routing.clone(), directories);
    InForce { config: Arc::new(config), resolver, keys: Arc::new(LoopKeys::new(KEY, [])) }
}

impl Default for SessionSetup {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionSetup {
    pub fn new() -> Self {
        Self::with(CONFIG)
    }

    pub fn with(text: &str) -> Self {
        Self::with_files(text, tempfile::tempdir().unwrap())
    }

    /// With files that the configuration names.
    pub fn with_files(text: &str, folder: tempfile::TempDir) -> Self {
        let metrics = Metrics::new();
        let spool = Arc::new(RecordingSpool {
            drafts: LogStore::open(&folder.path().join("spool"), Sizes::default(), metrics.clone()).unwrap(),
            commits: Mutex::new(Commits::Succeed),
            committed: Mutex::default(),
        });
        let (sender, accepted) = tokio::sync::mpsc::unbounded_channel();
        let services = Services {
            current: Arc::new(ArcSwap::from_pointee(in_force(config(text, folder.path())))),
            spool: spool.clone(),
            accepted: sender,
            outbound: fingerpost::delivery::attempt::Outbound::new(metrics.clone()),
            rcpts_in_flight: fingerpost::delivery::rcpt_in_flight::RcptsInFlight::new(metrics.clone()),
            memory: Memory::new(Arc::default(), Arc::new(Mutex::new(RecentlyGood::new([1; 16]))), spool.clone()),
            strangers: fingerpost::strangers::Strangers::new(metrics.clone(), Default::default()),
            metrics,
            trace: fingerpost::trace::Trace::default(),
            pressure: Arc::default(),
            guesses: Arc::new(Mutex::new(fingerpost::guesses::Guesses::new([1; 16]))),
            answered: Arc::default(),
            hashing: Arc::default(),
        };
        Self { services, spool, accepted, folder }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A client with this address at the first door that serves it.
    pub fn client(&self, address: &str) -> Client {
        let bind = "127.0.0.1:2525".parse().unwrap();
        let address = format!("{address}:40000").parse::<std::net::SocketAddr>().unwrap();
        let config = self.services.current.load().config.clone();
        let connector =
            fingerpost::config::door::choose(&config, Some(bind), address.ip()).expect("a connector").clone();
        Client { id: "test".into(), address, bind, connector, tls: None, identity: Identity::default() }
    }

    /// Takes what was committed: each message as `sender -> recipient via connector, ...`, and its bytes.
    pub fn take_committed(&self) -> Vec<(String, Vec<u8>)> {
        let committed = std::mem::take(&mut *self.spool.committed.lock());
        committed.into_iter().map(|(entry, content)| (summary(&entry), content)).collect()
    }
}

fn summary(entry: &Entry) -> String {
    use fingerpost::spool::entry::RecipientState;
    let recipient = |queued: &fingerpost::spool::entry::Queued| {
        let failed = if matches!(queued.state, RecipientState::Done(_)) { " (failed)" } else { "" };
        format!("{} via {}{failed}", queued.route.rcpt_to, queued.route.connector)
    };
    let recipients: Vec<String> = entry.recipients.iter().map(recipient).collect();
    format!("{} -> {}", entry.sender.reverse_path, recipients.join(", "))
}
