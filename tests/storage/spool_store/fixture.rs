//! Stores, messages and processes for the tests beside this file.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use fingerpost::message::header::Identity;
use fingerpost::message::queue_id::QueueId;
use fingerpost::metrics::Metrics;
use fingerpost::routing::verdict::{Route, RouteKind};
use fingerpost::smtp::address::{Address, ReversePath};
use fingerpost::smtp::domain::Domain;
use fingerpost::smtp::envelope::{Body, Origin, RcptTo, Sender};
use fingerpost::smtp::reply::{Enhanced, Reply};
use fingerpost::spool::entry::outline::Outline;
use fingerpost::spool::entry::{Change, Content, Entry, Outcome, Queued, RecipientState, Record};
use fingerpost::spool::store::LogStore;
use fingerpost::spool::{Draft, IN_RECORD, Sizes, Spool, SpoolError};
use fingerpost::time::{QueueTime, UnixTime};

/// Opens a store below a folder.
pub(crate) type Open = fn(&Path) -> Result<Arc<dyn Spool>, SpoolError>;

/// Every store on a disk that there is: the log as it is used, and one whose segments are so short that it is compacted all the time.
pub(crate) const STORES: &[(&str, Open)] =
    &[("log", |folder| open(folder, Sizes { reserve: 256 << 10, ..Sizes::default() })), ("short", short)];

/// Segments of 32 KiB.
fn short(folder: &Path) -> Result<Arc<dyn Spool>, SpoolError> {
    open(folder, Sizes { segment: 32 << 10, slack: 64 << 10, reserve: 16 << 10 })
}

/// The log with these sizes.
pub(crate) fn open(folder: &Path, sizes: Sizes) -> Result<Arc<dyn Spool>, SpoolError> {
    Ok(Arc::new(LogStore::open(folder, sizes, Metrics::new())?))
}

/// A content that is too large for a record, bytes.
pub(crate) const LARGE: u64 = IN_RECORD as u64 + 1;

/// What a message is made of: looks random, is known by id and length. Cut out of one block, for thousands are made.
pub(crate) fn content(id: QueueId, size: u64) -> Vec<u8> {
    const BLOCK: usize = 1 << 16;
    static RANDOM: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut numbers = support::power_loss::Numbers(0xb10c);
        (0..BLOCK).map(|_| numbers.below(256) as u8).collect()
    });
    let size = usize::try_from(size).unwrap();
    let from = support::power_loss::Numbers(id.0 | 1).below(BLOCK);
    let mut content = id.0.to_le_bytes().to_vec();
    content.extend_from_slice(&RANDOM[from..]);
    while content.len() < size {
        content.extend_from_slice(&RANDOM);
    }
    content.truncate(size);
    content
}

/// An envelope.
pub(crate) fn entry(id: QueueId, size: u64, recipients: usize) -> Entry {
    let address = |n| Address::parse(&format!("user{n}@contoso.com")).unwrap();
    let queued = |n| Queued {
        rcpt: RcptTo { address: address(n), notify: None, orcpt: None },
        route: Route {
            connector: "exchange".into(),
            rcpt_to: address(n),
            next_hop_domain: Domain::parse("contoso.com").unwrap(),
            way: RouteKind::Resolved,
        },
        state: RecipientState::due(UnixTime(1_800_000_000)),
    };
    Entry {
        id,
        received_at: UnixTime(1_800_000_000),
        queued_at: QueueTime(1_700_000_000),
        origin: Origin::report(),
        sender: Sender {
            reverse_path: ReversePath::Null,
            size: None,
            body: Body::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        },
        content: Content {
            size,
            header_size: 0,
            ascii_header: true,
            eight_bit: true,
            bare_lf: true,
            identity: Identity { message_id: false, date: false, from: false, digest: [1; 16], id_and_date: [2; 16] },
            message_id: String::new(),
        },
        stamps: Vec::new(),
        recipients: (0..recipients).map(queued).collect(),
    }
}

/// A message ready to be committed.
pub(crate) fn message(spool: &dyn Spool, size: u64, recipients: usize) -> (Draft, Entry) {
    let id = spool.new_id();
    let draft = spool.draft(id, content(id, size)).unwrap();
    let entry = entry(id, size, recipients);
    (draft, entry)
}

/// A delivered recipient.
pub(crate) fn delivered(id: QueueId, recipient: usize) -> Change {
    let reply = Reply::fixed(250, Enhanced(2, 0, 0), "taken");
    change(id, recipient, RecipientState::Done(Outcome::Delivered { next_hop: "127.0.0.2:25".into(), reply }))
}

/// A recipient's new state.
pub(crate) fn change(id: QueueId, recipient: usize, state: RecipientState) -> Change {
    Change { id, recipient, state, route: None }
}

/// A record of new messages only.
pub(crate) fn accepted(accepted: Vec<(Draft, Entry)>) -> Record {
    Record { accepted, changes: Vec::new() }
}

/// A record of changes only.
pub(crate) fn changed(changes: Vec<Change>) -> Record {
    Record { accepted: Vec::new(), changes }
}

/// Commits and waits, in the runtime that was entered, or in one of its own.
pub(crate) fn commit(spool: &dyn Spool, record: Record) -> Result<(), SpoolError> {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> =
            RefCell::new(tokio::runtime::Builder::new_current_thread().build().unwrap());
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.block_on(spool.commit(record)),
        Err(_) => RUNTIME.with_borrow(|runtime| runtime.block_on(spool.commit(record))),
    }
}

/// Accepts one message and returns its envelope.
pub(crate) fn accept(spool: &dyn Spool, size: u64, recipients: usize) -> Entry {
    let (draft, entry) = message(spool, size, recipients);
    commit(spool, accepted(vec![(draft, entry.clone())])).unwrap();
    entry
}

/// Whether a message's content is what it was.
pub(crate) fn is_whole(spool: &dyn Spool, entry: &Entry) -> bool {
    let read = spool.open(entry.id).map(|stored| stored.whole());
    matches!(read, Ok(Ok(bytes)) if bytes == content(entry.id, entry.content.size))
}

/// This test program again, to run only the test `name`, which is ignored otherwise.
pub(crate) fn again(name: &str, store: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("spool_store::{name}"), "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("SPOOL_STORE", store).env("SPOOL_FOLDER", folder);
    command
}

/// In such a program: the store and the folder it was given. `None`: somebody runs all ignored tests.
pub(crate) fn given() -> Option<(Open, std::path::PathBuf)> {
    let store = std::env::var("SPOOL_STORE").ok()?;
    let (_, open) = STORES.iter().find(|(name, _)| *name == store)?;
    Some((*open, std::env::var_os("SPOOL_FOLDER")?.into()))
}

/// What is live in a spool, by age: what it says of it at start fits what it has.
pub(crate) fn found(spool: &dyn Spool) -> Vec<Entry> {
    let entry = |id| spool.entry(id).unwrap().unwrap();
    let entries: Vec<Entry> = spool.ids_after(None, usize::MAX).into_iter().map(entry).collect();
    let outlines: Vec<Outline> = spool.recovered().collect();
    let of_entries: Vec<Outline> = entries.iter().map(Outline::of).collect();
    assert!(outlines.is_empty() || outlines == of_entries, "{outlines:#?} {of_entries:#?}");
    assert_eq!(entries.len(), spool.live_messages());
    entries
}
