//! Several nodes with one queue in a real PostgreSQL with a synchronous standby.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fingerpost::cluster::ClusterSpool;
use fingerpost::cluster::census::{self, Mail};
use fingerpost::cluster::database::Database;
use fingerpost::cluster::schema::{self, Made};
use fingerpost::config::{Cluster, Standby};
use fingerpost::message::queue_id::QueueId;
use fingerpost::metrics::Metrics;
use fingerpost::smtp::envelope::{Origin, Relay};
use fingerpost::spool::entry::{Change, Entry, RecipientState, Record, Waiting};
use fingerpost::spool::{Draft, Spool};
use fingerpost::time::UnixTime;
use support::postgres::{self, Postgres};
use support::tables::{BASE_TABLES, send_connector};
use support::test_node::TestNode;

use super::spool_store::fixture::{LARGE, accepted, change, changed, content, delivered, message};

mod accepted;
mod contract;
mod damaged;
mod export;
mod formats;
mod import;
mod leaving;
mod limits;
mod loops;
mod queue_commands;
mod rounds;
mod shared;
mod standby_away;
mod upgrades;

/// `[cluster] connections`.
const CONNECTIONS: usize = 10;

/// A primary, its standby, and a database in them.
struct Setup {
    primary: Postgres,
    standby: Postgres,
    nodes: tempfile::TempDir,
    _folder: tempfile::TempDir,
}

impl Setup {
    fn start() -> Self {
        let folder = postgres::folder();
        let primary = Postgres::primary(folder.path());
        let standby = primary.standby(folder.path());
        Self { primary, standby, nodes: tempfile::tempdir().unwrap(), _folder: folder }
    }

    fn cluster(&self, node: &str, standby: Standby) -> Cluster {
        Cluster {
            database: format!("{}?sslmode=disable", postgres::urls(&[&self.primary, &self.standby])),
            password_file: None,
            ca: None,
            node: node.to_owned(),
            connections: CONNECTIONS,
            standby,
        }
    }

    async fn init(&self) -> Made {
        schema::init(&self.database().connect().await.unwrap()).await.unwrap()
    }

    fn database(&self) -> Database {
        Database::new(&self.cluster("a", Standby::Required)).unwrap()
    }

    async fn node(&self, name: &str) -> Arc<ClusterSpool> {
        let opened = self.open(name, Standby::Required).await;
        Arc::new(opened.unwrap())
    }

    async fn open(&self, name: &str, standby: Standby) -> Result<ClusterSpool, String> {
        let folder = self.nodes.path().join(name);
        let opened = ClusterSpool::open(&self.cluster(name, standby), folder, "digest", Metrics::new()).await;
        let opened = opened.map_err(|error| error.to_string())?;
        drop(opened.take_over()); // nobody delivers it
        Ok(opened)
    }

    /// Rows of a table.
    fn rows(&self, table: &str) -> usize {
        self.primary.sql(&format!("SELECT count(*) FROM fingerpost.{table}")).parse().unwrap()
    }
}

/// A client's mail.
fn mail(spool: &dyn Spool, size: u64, recipients: usize) -> (Draft, Entry) {
    let (draft, mut entry) = message(spool, size, recipients);
    entry.origin = Origin { relay: Relay::AcceptedDomains, ..Origin::report() };
    (draft, entry)
}

fn deferred(id: QueueId, recipient: usize) -> Change {
    let waiting = Waiting { attempts: 1, next_attempt: UnixTime(1_900_000_000), ..Waiting::default() };
    change(id, recipient, RecipientState::Waiting(waiting))
}

async fn read(spool: &Arc<ClusterSpool>, id: QueueId) -> Vec<u8> {
    let stored = spool.open(id).unwrap();
    tokio::task::spawn_blocking(move || stored.whole().unwrap()).await.unwrap()
}

async fn entry_of(spool: &Arc<ClusterSpool>, id: QueueId) -> Option<Entry> {
    let spool = spool.clone();
    tokio::task::spawn_blocking(move || spool.entry(id).unwrap()).await.unwrap()
}

/// Asks until it holds.
async fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_in_the_database_is_a_spool() {
    let setup = Setup::start();
    let refused = setup.open("a", Standby::Required).await.err().unwrap();
    assert!(refused.contains("cluster init"), "{refused}");
    assert_eq!((setup.init().await, setup.init().await), (Made::New, Made::AlreadyThere));
    let spool = setup.node("a").await;

    // What is accepted is there, small or large, and is read from memory and from the database.
    let (small, large) = (mail(&*spool, 5_000, 3), mail(&*spool, 3 * LARGE + 17, 1));
    let (first, second) = (small.1.clone(), large.1.clone());
    spool.commit(accepted(vec![small, large])).await.unwrap();
    assert_eq!((spool.live_messages(), spool.ids_after(None, 9)), (2, vec![first.id, second.id]));
    for entry in [&first, &second] {
        assert_eq!(entry_of(&spool, entry.id).await.as_ref(), Some(entry));
        for _ in 0..2 {
            assert!(read(&spool, entry.id).await == content(entry.id, entry.content.size), "{}", entry.id);
        }
    }
    let mut pieces = Vec::new();
    let stored = spool.open(second.id).unwrap();
    let mut each = stored.in_pieces(second.content.size);
    while let Some(piece) = each.next(100_000).await.unwrap() {
        pieces.extend_from_slice(&piece);
    }
    assert!(pieces == content(second.id, second.content.size));

    // Outcomes: some of a message, then all.
    let changes = vec![delivered(first.id, 1), deferred(first.id, 0), delivered(second.id, 0)];
    spool.commit(Record { accepted: Vec::new(), changes: changes.clone() }).await.unwrap();
    let mut expected = first.clone();
    changes.iter().filter(|change| change.id == first.id).for_each(|change| expected.apply(change));
    assert_eq!(entry_of(&spool, first.id).await, Some(expected));
    assert_eq!(spool.open_recipients(first.id), [0, 2]);
    assert_eq!((entry_of(&spool, second.id).await, spool.live_messages()), (None, 1));
    assert_eq!((setup.rows("queue"), setup.rows("body"), setup.rows("upload")), (1, 1, 0));
    let changes = vec![delivered(first.id, 0), delivered(first.id, 2), delivered(first.id, 1)];
    spool.commit(Record { accepted: Vec::new(), changes }).await.unwrap();
    assert_eq!((setup.rows("queue"), setup.rows("body"), spool.live_messages()), (0, 0, 0));

    // Many at once share transactions.
    let before: u64 = commits(&setup);
    let all: Vec<_> = (0..400).map(|_| mail(&*spool, 2_000, 1)).collect();
    let commits_of = all.into_iter().map(|mail| spool.commit(accepted(vec![mail])));
    assert!(futures_util::future::join_all(commits_of).await.iter().all(Result::is_ok));
    assert_eq!(setup.rows("queue"), 400);
    let took = commits(&setup) - before;
    assert!(took < 100, "{took} transactions");

    // What the database says itself, of a right or a lock, holds for all mail: until it is over nothing is taken.
    setup.primary.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'; \
         CREATE TRIGGER no BEFORE INSERT ON fingerpost.body FOR EACH STATEMENT EXECUTE FUNCTION no()",
    );
    let error = spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await.unwrap_err().to_string();
    assert!(error.contains("the database says: no"), "{error}");
    for _ in 0..4 {
        assert!(!spool.condition().takes_records());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    setup.primary.sql("DROP TRIGGER no ON fingerpost.body");
    eventually("it takes mail again", Duration::from_secs(10), || spool.condition().takes_records()).await;

    // Without a standby nothing is accepted, unless that is allowed; it is noticed without mail.
    let idle = setup.node("idle").await;
    setup.primary.set("synchronous_standby_names", "");
    let error = spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await.unwrap_err().to_string();
    assert!(error.contains("synchronous_standby_names"), "{error}");
    eventually("it is noticed", Duration::from_secs(10), || !idle.condition().takes_records()).await;
    let alone = setup.open("alone", Standby::Preferred).await.unwrap();
    alone.commit(accepted(vec![mail(&alone, 9, 1)])).await.unwrap();
    alone.leave().await;
    setup.primary.set("synchronous_standby_names", setup.standby.name());
    spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await.unwrap();
    assert!(spool.condition().takes_records());
}

fn commits(setup: &Setup) -> u64 {
    // Every accepting transaction leaves one key, which the next removes: the newest transaction number counts them.
    setup.primary.sql("SELECT txid_snapshot_xmax(txid_current_snapshot())").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_of_a_node_that_is_gone_is_taken_over_and_nothing_of_it_is_written_any_more() {
    let setup = Setup::start();
    setup.init().await;
    let (first, metrics) = (setup.node("a").await, Metrics::new());
    let (cluster, folder) = (setup.cluster("b", Standby::Required), setup.nodes.path().join("b"));
    let second = Arc::new(ClusterSpool::open(&cluster, folder, "digest", metrics.clone()).await.unwrap());
    let mut adopted = second.take_over().unwrap();
    assert_eq!((second.living().rank, second.living().nodes, second.share().of(3)), (1, 2, 1));
    let (draft, entry) = mail(&*first, 5_000, 2);
    first.commit(accepted(vec![(draft, entry.clone())])).await.unwrap();
    assert_eq!((entry_of(&second, entry.id).await, second.live_messages()), (None, 0), "only its own node has it");

    // Its epoch is ended, as another node does that has not heard of it.
    setup
        .primary
        .sql("DELETE FROM fingerpost.epoch WHERE node = (SELECT number FROM fingerpost.node WHERE name = 'a')");
    let error = first.commit(accepted(vec![mail(&*first, 9, 1)])).await.unwrap_err().to_string();
    assert!(error.contains("taken over"), "{error}");
    assert!(!first.may_send());
    let ended = tokio::time::timeout(Duration::from_secs(1), first.condition().ended()).await.unwrap();
    assert!(ended.contains("taken over"), "{ended}");
    let outlines = tokio::time::timeout(Duration::from_secs(20), adopted.recv()).await.unwrap().unwrap();
    assert_eq!(outlines.map(|outline| outline.id).collect::<Vec<_>>(), [entry.id]);
    assert!(second.may_send());
    // It is alone now: all connections are its own, and it speaks for all.
    let all = &metrics.cluster;
    eventually("it knows", Duration::from_secs(20), || {
        let shown = [&all.nodes, &all.queue_messages].map(|gauge| gauge.with_label_values::<&str>(&[]).get());
        second.share().of(3) == 3 && shown == [1, 1]
    })
    .await;
    assert!(read(&second, entry.id).await == content(entry.id, 5_000));
    let changes = vec![delivered(entry.id, 0), delivered(entry.id, 1)];
    second.commit(Record { accepted: Vec::new(), changes }).await.unwrap();
    assert_eq!(setup.rows("queue"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_delivered_counts_also_after_the_end_of_an_epoch() {
    let setup = Setup::start();
    setup.init().await;
    let first = setup.node("a").await;
    let (draft, entry) = mail(&*first, 100, 2);
    first.commit(accepted(vec![(draft, entry.clone())])).await.unwrap();
    let all = async || census::count(&setup.database().connect().await.unwrap()).await.unwrap();
    let counted = Mail { messages: 1, unowned: 0, oldest: Some(entry.id.made_at()) };
    assert_eq!(all().await, counted);
    setup.primary.sql("DELETE FROM fingerpost.epoch");
    assert_eq!(all().await, Mail { unowned: 1, ..counted });
    let changes = vec![delivered(entry.id, 0), deferred(entry.id, 1)];
    first.commit(Record { accepted: Vec::new(), changes }).await.unwrap(); // it is not to be written again
    let second = setup.node("b").await;
    eventually("it is taken over", Duration::from_secs(20), || second.live_messages() == 1).await;
    assert_eq!(second.open_recipients(entry.id), [1]);
    let entry = entry_of(&second, entry.id).await.unwrap();
    assert_eq!(entry.recipients[1].state.attempts(), 0, "the other outcome does not count");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_is_sent_while_many_deliveries_are_not_durable() {
    let setup = Setup::start();
    setup.init().await;
    let node = setup.node("a").await;
    let (draft, entry) = mail(&*node, 100, 256);
    node.commit(accepted(vec![(draft, entry.clone())])).await.unwrap();
    setup.primary.freeze();
    let write = |recipients: std::ops::Range<usize>| {
        let (node, outcomes) = (node.clone(), recipients.map(|recipient| delivered(entry.id, recipient)).collect());
        tokio::spawn(async move { node.commit(changed(outcomes)).await })
    };
    assert!(node.may_send());
    let (first, last) = (write(0..255), write(255..256));
    eventually("too many would get it again", Duration::from_secs(5), || !node.may_send()).await;
    setup.primary.thaw();
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert!(node.may_send());
}

/// Whatever becomes of the primary, the outcome of a transaction is found out, and no client's mail is both refused and
/// delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_outcome_is_unknown_is_asked_about() {
    let mut setup = Setup::start();
    setup.init().await;
    let spool = setup.node("a").await;
    spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await.unwrap();

    // The wait for the standby is cancelled: PostgreSQL calls that a success.
    setup.standby.freeze();
    let waiting = tokio::spawn({
        let spool = spool.clone();
        async move { spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    eventually("it waits", Duration::from_secs(20), || setup.primary.sql(waits) == "1").await;
    setup.primary.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    setup.standby.thaw();
    assert!(waiting.await.unwrap().is_err());
    assert_eq!((setup.rows("queue"), spool.live_messages()), (1, 1), "its client has it");

    // The primary dies while it waits; the standby, which does not have it, becomes the primary.
    setup.standby.freeze();
    let waiting = tokio::spawn({
        let spool = spool.clone();
        async move { spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await }
    });
    eventually("it waits", Duration::from_secs(20), || setup.primary.sql(waits) == "1").await;
    setup.primary.kill();
    setup.standby.thaw();
    setup.standby.promote();
    std::mem::swap(&mut setup.primary, &mut setup.standby);
    setup.primary.set("synchronous_standby_names", "");
    assert!(waiting.await.unwrap().is_err());
    let next = setup.primary.standby(Path::new(setup._folder.path()));
    setup.standby = next;
    let mut last = Err(String::new());
    for _ in 0..60 {
        last = spool.commit(accepted(vec![mail(&*spool, 9, 1)])).await.map_err(|error| error.to_string());
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    last.unwrap();
    eventually("rows and memory agree", Duration::from_secs(20), || setup.rows("queue") == spool.live_messages()).await;
    assert_eq!(spool.live_messages(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_has_one_node() {
    let setup = Setup::start();
    setup.init().await;
    let _first = setup.node("a").await;
    let other = setup.nodes.path().join("elsewhere");
    let cluster = setup.cluster("a", Standby::Required);
    let error = ClusterSpool::open(&cluster, other.clone(), "digest", Metrics::new()).await.err().unwrap().to_string();
    assert!(error.contains("a name of its own"), "{error}");
}

/// It says at once what it waits for, and ends after a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_does_not_wait_for_ever_for_a_standby() {
    let setup = Setup::start();
    setup.init().await;
    setup.primary.set("synchronous_standby_names", "absent");
    let node = TestNode::prepare();
    let tables = [
        &BASE_TABLES.replace("[server]\n", "[server]\ninstallation = \"contoso\"\n"),
        "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n",
        "[[accepted_domain]]\ndomain = \"contoso.com\"\ntype = \"external-relay\"\n\n",
        &send_connector("primary", "127.0.0.2:9".parse().unwrap(), "address_spaces = [{ domain = \"contoso.com\" }]\n"),
        &format!("[cluster]\ndatabase = \"{}\"\nnode = \"a\"\n", setup.cluster("a", Standby::Required).database),
    ];
    node.write("fingerpost.toml", &tables.concat());
    let ran = tokio::task::spawn_blocking(move || node.run(&["run"])).await.unwrap();
    let told = String::from_utf8_lossy(&ran.stderr).into_owned();
    let missing = "no standby of \"absent\" is connected, and commits wait for one";
    let said: Vec<_> = told.lines().filter(|line| line.contains(missing)).collect();
    assert!(ran.status.code() == Some(2) && said.len() == 2, "{told}");
    assert!(said[0].contains("the start waits for it"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_nodes_that_drain_at_once_one_is_left() {
    use fingerpost::cluster::draining::Alone;
    let setup = Setup::start();
    setup.init().await;
    let nodes = [setup.node("a").await, setup.node("b").await];
    let sessions =
        "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name LIKE '%epoch%'";
    eventually("both have sessions", Duration::from_secs(10), || setup.primary.sql(sessions) == "2").await;
    let drained = tokio::join!(nodes[0].drain(Alone::Never), nodes[1].drain(Alone::Never));
    let left = [drained.0.unwrap(), drained.1.unwrap()].map(|others| others.len());
    assert!(left == [0, 1] || left == [1, 0], "{left:?}");
    let last = &nodes[left.iter().position(|others| *others == 0).unwrap()];
    assert_eq!(last.drain(Alone::Too).await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_goes_to_a_new_name_when_all_are_taken_and_its_node_and_its_mail_are_long_gone() {
    let setup = Setup::start();
    setup.init().await;
    let first = setup.node("pod-a").await;
    let waits = mail(&*first, 100, 1);
    let id = waits.1.id;
    first.commit(accepted(vec![waits])).await.unwrap();
    first.leave().await;
    let second = setup.node("pod-b").await;
    assert_eq!(second.epoch().node, 1);
    setup.primary.sql(
        "INSERT INTO fingerpost.node (number, name, reached) SELECT n, 'pod-' || n, \
         (SELECT max(reached) FROM fingerpost.node) FROM generate_series(2, 1023) n; \
         UPDATE fingerpost.node SET reached = reached - 25 * 3600 * 1000 WHERE number < 2",
    );
    let taken = || second.live_messages() == 1;
    eventually("the mail is taken over", Duration::from_secs(20), taken).await;
    let refused = setup.open("pod-c", Standby::Required).await.err().unwrap();
    assert!(refused.contains("all 1024 numbers are taken"), "its mail is there, the second lives: {refused}");
    second.commit(changed(vec![delivered(id, 0)])).await.unwrap();

    let reached: u64 = setup.primary.sql("SELECT reached FROM fingerpost.node WHERE number = 0").parse().unwrap();
    let third = setup.node("pod-d").await;
    assert_eq!(third.epoch().node, 0);
    let next = third.epoch().ids.next(0).made_at();
    assert!(next.0 > reached / 1000, "not even where the clock goes back: {next:?} {reached}");
    assert!(third.new_id() > id, "an id of before is not given out again");
    assert_eq!(setup.rows("node"), 1024);
}
