//! The mail in the database is moved into a node's own spool: each message once, whatever breaks off.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fingerpost::cluster::batch::delivered_after_all;
use fingerpost::cluster::export::{Exported, export};
use fingerpost::cluster::ids::to_sql;
use fingerpost::cluster::moving::MoveError;
use fingerpost::cluster::stopped;
use fingerpost::spool::Sizes;
use fingerpost::spool::moved::{Moved, State};
use fingerpost::spool::store::LogStore;
use support::senders::Raw;
use support::sink::Sink;
use support::test_node::TestNode;
use support::two_systems::{self, message as letter};
use support::{free_port, wait_until};

use super::*;

/// More than two transactions take.
const MESSAGES: usize = 450;
/// How long anything may take that is not meant to wait.
const SOON: Duration = Duration::from_secs(20);
/// A node that was killed is watched for half a minute.
const WATCHED: Duration = Duration::from_secs(60);

fn own(spool: &Path) -> LogStore {
    std::fs::create_dir_all(spool.parent().unwrap()).unwrap();
    LogStore::open(spool, Sizes::default(), Metrics::new()).unwrap()
}

async fn run(setup: &Setup, spool: &Path) -> Result<Exported, MoveError> {
    export(&setup.database(), spool, &own(spool)).await
}

/// The mail that a node has left behind, and a spool's folder that is not there yet.
struct Left {
    setup: Setup,
    kept: Vec<(Entry, Vec<u8>)>,
    spool: PathBuf,
    folder: tempfile::TempDir,
}

impl Left {
    async fn behind(messages: usize) -> Self {
        let setup = Setup::start();
        setup.init().await;
        let folder = tempfile::tempdir().unwrap();
        let node = setup.node("zero").await;
        let kept = filled(&node, messages).await;
        node.leave().await;
        Self { setup, kept, spool: folder.path().join("state/spool"), folder }
    }
}

/// So many messages in the database, one of them large and one half delivered; with their contents.
async fn filled(node: &Arc<ClusterSpool>, messages: usize) -> Vec<(Entry, Vec<u8>)> {
    let new: Vec<_> = (0..messages)
        .map(|number| mail(&**node, if number == 7 { LARGE } else { 300 }, 2))
        .map(|(draft, entry)| (draft, Entry { queued_at: node.queue_time(), ..entry }))
        .collect();
    let mut entries: Vec<Entry> = new.iter().map(|(_, entry)| entry.clone()).collect();
    let commits = new.into_iter().map(|new| node.commit(accepted(vec![new])));
    assert!(futures_util::future::join_all(commits).await.iter().all(Result::is_ok));
    let half = delivered(entries[3].id, 0);
    entries[3].apply(&half);
    node.commit(changed(vec![half])).await.unwrap();
    entries.into_iter().map(|entry| (content(entry.id, entry.content.size), entry)).map(|(c, e)| (e, c)).collect()
}

/// Operations on this message's row fail.
fn refuse(setup: &Setup, operation: &str, id: QueueId) {
    setup.primary.sql(&format!(
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
         CREATE TRIGGER refuse BEFORE {operation} ON fingerpost.queue FOR EACH ROW WHEN (OLD.id = {}) \
         EXECUTE FUNCTION refuse()",
        to_sql(id)
    ));
}

fn refuse_no_more(setup: &Setup) {
    setup.primary.sql("DROP TRIGGER refuse ON fingerpost.queue");
}

fn state(spool: &Path) -> Option<State> {
    Moved::read(spool).unwrap().map(|moved| moved.state)
}

/// Nobody takes it over: longer than a sweep takes.
async fn nobody_takes_it(setup: &Setup, name: &str) {
    let node = setup.node(name).await;
    tokio::time::sleep(fingerpost::cluster::epoch::BEAT + Duration::from_secs(1)).await;
    assert_eq!(node.live_messages(), 0, "it is being moved");
    node.leave().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_mail_is_moved_once_though_the_move_breaks_off() {
    let setup = Setup::start();
    setup.init().await;
    setup.primary.sql("UPDATE fingerpost.installation SET age = age - 1000000");
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("state/spool");
    let node = setup.node("zero").await;
    let kept = filled(&node, MESSAGES).await;
    let refused = run(&setup, &spool).await.unwrap_err();
    assert!(matches!(refused, MoveError::Refused(_)), "{refused}");
    node.leave().await;
    setup.primary.sql("UPDATE fingerpost.installation SET age = age + 5000");

    // It breaks off before anything is its own: a node takes the mail over as ever.
    let (first, last) = (kept[0].0.id, kept[MESSAGES - 1].0.id);
    refuse(&setup, "UPDATE", last);
    assert!(matches!(run(&setup, &spool).await, Err(MoveError::Database(_))));
    refuse_no_more(&setup);
    assert_eq!((state(&spool), own(&spool).live_messages()), (Some(State::Exporting), 0));
    let other = setup.node("one").await;
    eventually("it is taken over", SOON, || other.live_messages() == MESSAGES).await;
    assert!(matches!(run(&setup, &spool).await, Err(MoveError::Refused(_))), "a node lives");
    other.leave().await;

    // It breaks off when the spool has messages that the database has as well.
    refuse(&setup, "DELETE", last);
    assert!(matches!(run(&setup, &spool).await, Err(MoveError::Database(_))));
    refuse_no_more(&setup);
    assert_eq!(
        (state(&spool), own(&spool).live_messages(), setup.rows("queue")),
        (Some(State::Exporting), MESSAGES, 50)
    );
    nobody_takes_it(&setup, "two").await;
    let connection = setup.database().connect().await.unwrap();
    delivered_after_all(&connection, &[delivered(last, 1)]).await.unwrap();

    let exported = run(&setup, &spool).await.unwrap();
    assert_eq!((exported.moved, exported.damaged.len(), exported.of_other_moves, exported.later), (50, 0, 0, 0));
    assert_eq!((state(&spool), setup.rows("queue"), setup.rows("body")), (None, 0, 0));
    let own = own(&spool);
    assert_eq!(own.ids_after(None, MESSAGES + 1), kept.iter().map(|(entry, _)| entry.id).collect::<Vec<_>>());
    for (before, content) in &kept {
        let now = own.entry(before.id).unwrap().unwrap();
        assert_eq!(own.open(before.id).unwrap().whole().unwrap(), *content);
        let mut before = before.clone();
        if before.id == last {
            before.apply(&delivered(last, 1)); // it counts, though its node had ended
        }
        assert_eq!((&now.recipients, &now.content, &now.origin), (&before.recipients, &before.content, &before.origin));
        let age = own.queue_time().since(now.queued_at).as_secs();
        assert!((5000..5120).contains(&age), "it is as old as it was: {age}");
    }
    // Again: nothing is there, and what was delivered since does not come back. Ids are the spool's own.
    own.commit(changed(vec![delivered(first, 0), delivered(first, 1)])).await.unwrap();
    assert!(first.is_clustered() && !own.new_id().is_clustered());
    drop(own);
    // Once more, as if it had been killed before its last step, and after it.
    Moved { number: 7, state: State::Exporting, node: None }.write(&spool).unwrap();
    for _ in 0..2 {
        assert_eq!(run(&setup, &spool).await.unwrap().moved, 0);
        assert_eq!(state(&spool), None);
    }
    assert_eq!((state(&spool), self::own(&spool).live_messages()), (None, MESSAGES - 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_stays_in_the_database_and_stops_nothing() {
    let Left { setup, kept, spool, folder: _folder } = Left::behind(8).await;
    let ids: Vec<i64> = kept.iter().map(|(entry, _)| to_sql(entry.id)).collect();
    setup.primary.sql(&format!(
        "UPDATE fingerpost.body SET content = set_byte(content, 9, 255 - get_byte(content, 9)) WHERE id = {}; \
         DELETE FROM fingerpost.body WHERE id = {} OR id = {} AND piece = 1; \
         UPDATE fingerpost.queue SET format = 99 WHERE id = {}; \
         UPDATE fingerpost.queue SET epoch = -4 WHERE id = {}",
        ids[0], ids[1], ids[7], ids[2], ids[4]
    ));
    let exported = run(&setup, &spool).await.unwrap();
    assert_eq!((exported.moved, exported.of_other_moves, exported.later), (3, 1, 0));
    let damaged: Vec<_> = exported.damaged.iter().map(|damaged| (damaged.id, &*damaged.why)).collect();
    let expected = [(0, "its sum differs"), (1, "is missing"), (2, "in format 99"), (7, "is missing")];
    assert_eq!(damaged.len(), expected.len(), "{damaged:?}");
    for ((id, why), (at, words)) in damaged.iter().zip(expected) {
        assert!(*id == kept[at].0.id && why.contains(words), "{id} {why}");
    }
    assert_eq!((state(&spool), own(&spool).live_messages()), (None, 3), "the spool can be used");
    let left = setup.primary.sql("SELECT count(*) FROM fingerpost.queue WHERE epoch = 0");
    assert_eq!((left.as_str(), setup.rows("queue")), ("4", 5), "a node would have them");

    // One can be read again, and another has an id that the spool has for another message.
    let other = own(&spool);
    let (draft, mut entry) = (other.draft(kept[1].0.id, content(kept[1].0.id, 20)).unwrap(), kept[1].0.clone());
    entry.content.size = 20;
    other.commit(accepted(vec![(draft, entry)])).await.unwrap();
    drop(other);
    setup.primary.sql(&format!("UPDATE fingerpost.queue SET format = 4, epoch = -4 WHERE id = {}", ids[2]));
    setup.primary.sql("UPDATE fingerpost.queue SET epoch = 0 WHERE epoch = -4");
    let exported = run(&setup, &spool).await.unwrap();
    assert_eq!((exported.moved, exported.damaged.len()), (2, 3));
    assert!(exported.damaged[1].why.contains("another message with this id"), "{:?}", exported.damaged);
}

/// What nodes that were cut off write of rows that were read already: one is delivered by half, one as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_while_it_is_moved_is_moved_as_it_is_then() {
    let Left { setup, kept, spool, folder: _folder } = Left::behind(4).await;
    let kept: Vec<Entry> = kept.into_iter().map(|(entry, _)| entry).collect();
    setup.primary.sql(&format!("DELETE FROM fingerpost.queue WHERE id <= {}", to_sql(kept[1].id)));
    let number = 0x1234_5678;
    own(&spool);
    Moved { number, state: State::Exporting, node: None }.write(&spool).unwrap();
    setup.primary.sql(&format!("UPDATE fingerpost.queue SET epoch = {}", -((number >> 2).cast_signed() | 1)));

    let mut half = kept[2].clone();
    half.apply(&delivered(half.id, 1));
    let late = setup.database().connect().await.unwrap();
    let client = late.client();
    client.batch_execute("BEGIN").await.unwrap();
    let statement = "UPDATE fingerpost.queue SET entry = $1 WHERE id = $2";
    client.execute(statement, &[&half.to_bytes().unwrap(), &to_sql(half.id)]).await.unwrap();
    client.execute("DELETE FROM fingerpost.queue WHERE id = $1", &[&to_sql(kept[3].id)]).await.unwrap();
    let (database, folder) = (setup.database(), spool.clone());
    let exported = tokio::spawn(async move { export(&database, &folder, &own(&folder)).await });
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted";
    eventually("it has read them, and deletes", SOON, || setup.primary.sql(waits) == "t").await;
    client.batch_execute("COMMIT").await.unwrap();
    let exported = exported.await.unwrap().unwrap();
    assert_eq!((exported.moved, exported.damaged.len(), exported.later), (1, 0, 0));
    assert_eq!((state(&spool), setup.rows("queue")), (None, 0));
    let own = own(&spool);
    assert_eq!(own.ids_after(None, 9), [half.id]);
    assert_eq!(own.entry(half.id).unwrap().unwrap().recipients, half.recipients);
}

/// As PostgreSQL says it of a page whose checksum is wrong, or of a value of which a part is missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_cannot_read_stops_nothing() {
    let Left { setup, kept, spool, folder: _folder } = Left::behind(8).await;
    let (row, content) = (kept[2].0.id, kept[7].0.id);
    setup.primary.sql(&format!(
        "CREATE FUNCTION broken(bigint) RETURNS bytea LANGUAGE plpgsql STABLE AS \
         $$ BEGIN RAISE 'missing chunk number 0' USING ERRCODE = 'XX001'; END $$; \
         ALTER TABLE fingerpost.queue RENAME TO queue_; \
         CREATE VIEW fingerpost.queue AS SELECT id, epoch, format, sum, \
             CASE WHEN id = {} THEN broken(id) ELSE entry END AS entry FROM fingerpost.queue_; \
         ALTER TABLE fingerpost.body RENAME TO body_; \
         CREATE VIEW fingerpost.body AS SELECT id, piece, \
             CASE WHEN id = {} THEN broken(id) ELSE content END AS content FROM fingerpost.body_",
        to_sql(row),
        to_sql(content)
    ));
    let exported = run(&setup, &spool).await.unwrap();
    assert_eq!((exported.moved, exported.of_other_moves, exported.later), (6, 0, 0));
    let mut damaged = exported.damaged;
    damaged.sort_by_key(|damaged| damaged.id);
    assert_eq!(damaged.iter().map(|damaged| damaged.id).collect::<Vec<_>>(), [row, content]);
    assert!(damaged.iter().all(|damaged| damaged.why.contains("missing chunk number 0")), "{damaged:?}");
    assert_eq!((state(&spool), own(&spool).live_messages()), (None, 6));
    assert_eq!(setup.primary.sql("SELECT count(*) FROM fingerpost.queue WHERE epoch = 0"), "2");
}

/// Heartbeats tell: the session of a node may not be seen, and that of a machine that lost its power stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_lives_that_beats_and_not_one_that_has_a_session() {
    let setup = Setup::start();
    setup.init().await;
    drop(setup.node("cut off").await);
    drop(setup.node("also cut off").await);
    let connection = setup.database().connect().await.unwrap();
    let unended = || stopped::unended(&connection, None, "n");
    let found = unended().await.unwrap();
    assert_eq!(found.iter().map(|node| &*node.name).collect::<Vec<_>>(), ["also cut off", "cut off"]);
    setup.primary.sql("UPDATE fingerpost.heartbeat SET beats = beats + 1");
    let refused = stopped::end(&connection, &found).await.unwrap_err();
    assert!(refused.to_string().contains("nodes are running: also cut off, cut off."), "{refused}");
    assert_eq!(setup.rows("epoch"), 2);
    // Its state folder knows that its process has ended, if it is its own.
    let of = "SELECT e.id FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node WHERE n.name = 'cut off'";
    let mine: i64 = setup.primary.sql(of).parse().unwrap();
    assert_eq!(stopped::unended(&connection, Some(mine), "n").await.unwrap().len(), 2);
    assert_eq!(stopped::unended(&connection, Some(mine), "cut off").await.unwrap().len(), 1);
    let other: i64 = setup.primary.sql("SELECT id FROM fingerpost.epoch").parse().unwrap();
    let session = setup.database().of_epoch(other).connect().await.unwrap();
    stopped::end(&connection, &unended().await.unwrap()).await.unwrap();
    assert_eq!((setup.rows("epoch"), setup.rows("heartbeat")), (0, 0));
    eventually("its session is ended", SOON, || session.is_closed()).await;
}

/// The mail that a spool still has after it was imported is the cluster's: it goes before anything comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_imported_before_is_dropped_though_that_breaks_off() {
    let Left { setup, kept, spool, folder: _folder } = Left::behind(8).await;
    let old = own(&spool);
    for _ in 0..5 {
        let (draft, entry) = mail(&old, 300, 2);
        old.commit(accepted(vec![(draft, entry)])).await.unwrap();
    }
    let last = old.ids_after(None, 9)[4];
    drop(old);
    // It broke off while it was being emptied, or the import did in its last step.
    Moved { number: 8, state: State::Emptying, node: None }.write(&spool).unwrap();
    assert_eq!((run(&setup, &spool).await.unwrap().moved, own(&spool).live_messages()), (8, 8));
    let own = own(&spool);
    assert!(own.ids_after(None, 9).iter().all(|id| kept.iter().any(|(entry, _)| entry.id == *id)));
    assert!(own.new_id() > last, "its ids go on");
    drop(own);
    let connection = setup.database().connect().await.unwrap();
    let import = fingerpost::cluster::import::import;
    assert_eq!(import(&connection, "zero", Standby::Required, &spool, &self::own(&spool)).await.unwrap().moved, 8);
    let epoch = -((Moved::read(&spool).unwrap().unwrap().number >> 2).cast_signed() | 1);
    setup.primary.sql(&format!("UPDATE fingerpost.queue SET epoch = {epoch}"));
    let exported = run(&setup, &spool).await.unwrap();
    assert_eq!((exported.moved, exported.of_other_moves, self::own(&spool).live_messages()), (8, 0, 8));
    assert_eq!((state(&spool), setup.rows("queue"), setup.rows("body")), (None, 0, 0));
}

/// What a command said, with its exit code.
fn said(node: &TestNode, arguments: &[&str]) -> (i32, String) {
    let output = node.run(arguments);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().expect("it ended by itself"), text)
}

fn begin(node: &TestNode, arguments: &[&str]) -> Child {
    let mut command = Command::new(support::program());
    command.args(arguments).arg("--config").arg(node.path("fingerpost.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills an export with this operation under way.
fn killed_at(setup: &Setup, node: &TestNode, operation: &str) {
    setup.primary.sql(&format!(
        "CREATE OR REPLACE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$; \
         CREATE TRIGGER wait BEFORE {operation} ON fingerpost.queue FOR EACH STATEMENT EXECUTE FUNCTION wait()"
    ));
    let mut command = begin(node, &["cluster", "export"]);
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_until("it is there", WATCHED, || setup.primary.sql(waits) == "1");
    command.kill().unwrap();
    command.wait().unwrap();
    setup.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    wait_until("its session ends", SOON, || setup.primary.sql(waits) == "0");
    setup.primary.sql("DROP TRIGGER wait ON fingerpost.queue");
}

fn send(node: &TestNode, token: &str) {
    let mut raw = Raw::hello(node.smtp);
    assert!(two_systems::accepted(&mut raw, "known@contoso.test", &letter(token, 2_000)), "{token}");
}

#[test]
fn the_way_back_to_one_node_delivers_everything_once() {
    let setup = Setup::start();
    tokio::runtime::Runtime::new().unwrap().block_on(setup.init());
    let hop = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), free_port(Ipv4Addr::new(127, 0, 0, 2))));
    let (mut a, mut b) = (queue_commands::node(&setup, "a", hop), queue_commands::node(&setup, "b", hop));
    std::fs::create_dir_all(b.path("state")).unwrap();
    a.start();
    ["1", "2", "3"].iter().for_each(|token| send(&a, token));
    let (code, told) = said(&b, &["cluster", "export"]);
    assert!(code == 2 && told.contains("nodes are running: a. Stop all nodes first"), "{code} {told}");
    assert_eq!(state(&b.path("state/spool")), None);

    // A node that was killed is watched and ended. The export is killed as well, twice.
    a.kill();
    setup.primary.sql("UPDATE fingerpost.installation SET age = age + 7200");
    killed_at(&setup, &b, "UPDATE");
    killed_at(&setup, &b, "DELETE");
    assert_eq!((setup.rows("queue"), own(&b.path("state/spool")).live_messages()), (3, 3));
    let with_cluster = std::fs::read_to_string(b.path("fingerpost.toml")).unwrap();
    let (alone, _) = with_cluster.split_once("[cluster]").unwrap();
    for configuration in [alone, &with_cluster] {
        b.write("fingerpost.toml", configuration);
        for command in ["run", "check"] {
            let (code, told) = said(&b, &[command]);
            assert!(code != 0 && told.contains("run `fingerpost cluster export` again"), "{code} {told}");
        }
    }
    let (code, told) = said(&b, &["cluster", "import"]);
    assert!(code == 2 && told.contains("first run `fingerpost cluster export`"), "{code} {told}");
    // Meanwhile another node starts, takes nothing of that, and accepts something.
    a.start();
    send(&a, "4");
    assert_eq!(setup.primary.sql("SELECT count(*) FROM fingerpost.queue WHERE epoch < 0"), "3");
    let (code, told) = said(&b, &["cluster", "export"]);
    assert!(code == 2 && told.contains("nodes are running: a."), "{code} {told}");
    a.stop();
    let (code, told) = said(&b, &["cluster", "export"]);
    assert!(
        code == 0 && told.starts_with("4 messages were moved; 4 wait in this node's own spool now"),
        "{code} {told}"
    );
    assert_eq!((setup.rows("queue"), setup.rows("body")), (0, 0));

    // There and back again: the spool that was moved is emptied first.
    let (code, told) = said(&b, &["cluster", "import"]);
    assert!(code == 0 && told.starts_with("4 messages are in the shared queue now"), "{code} {told}");
    let (code, told) = said(&b, &["cluster", "export"]);
    assert!(code == 0 && told.starts_with("4 messages were moved; 4 wait"), "{code} {told}");
    let spool = own(&b.path("state/spool"));
    let ids = spool.ids_after(None, 9);
    let ages = ids.iter().map(|id| spool.queue_time().since(spool.entry(*id).unwrap().unwrap().queued_at).as_secs());
    let ages: Vec<u64> = ages.collect();
    assert!(ages.len() == 4 && ages[..3].iter().all(|age| (7200..7400).contains(age)) && ages[3] < 200, "{ages:?}");
    drop(spool);

    b.write("fingerpost.toml", alone);
    one_node_goes_on(&mut b, hop, &ids);
}

/// Without the database.
fn one_node_goes_on(b: &mut TestNode, hop: SocketAddr, ids: &[QueueId]) {
    b.start();
    for id in ids {
        let (code, told) = said(b, &["queue", "show", &id.to_string()]);
        assert!(code == 0 && id.is_clustered(), "{code} {told}");
    }
    let sink = Sink::start_at(hop, Arc::new(|_| {}));
    wait_until("all is sent", SOON, || {
        b.run(&["queue", "retry", "--all"]);
        sink.all().len() >= 4
    });
    send(b, "5");
    wait_until("that too", SOON, || {
        b.run(&["queue", "retry", "--all"]);
        sink.all().len() >= 5
    });
    wait_until("their ends are in the trace", SOON, || {
        let told = said(b, &["trace", "--recipient", "known@contoso.test"]).1;
        ids.iter().all(|id| told.contains(&id.to_string()))
    });
    b.stop();
    assert_eq!(own(&b.path("state/spool")).live_messages(), 0);
    let mut sent: Vec<_> = sink.all().iter().map(two_systems::token).collect();
    sent.sort();
    assert_eq!(sent, ["1", "2", "3", "4", "5"], "each once");
}

/// Kills land wherever it is when so many rows are left, or the mark is there.
#[test]
fn an_export_that_is_killed_again_and_again_moves_each_message_once() {
    let setup = Setup::start();
    let node = queue_commands::node(&setup, "n", SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 25)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = runtime.block_on(async {
        setup.init().await;
        let node = setup.node("other").await;
        let kept = filled(&node, MESSAGES).await;
        node.leave().await;
        kept
    });
    let spool = node.path("state/spool");
    std::fs::create_dir(node.path("state")).unwrap();
    let mut kills = 0;
    for left in [MESSAGES, MESSAGES, MESSAGES - 1, MESSAGES - 200, MESSAGES - 201, MESSAGES - 400] {
        let mut command = begin(&node, &["cluster", "export"]);
        let mut has_ended = false;
        wait_until("it is so far", SOON, || {
            has_ended = command.try_wait().unwrap().is_some();
            has_ended || spool.join("moved").exists() && setup.rows("queue") <= left
        });
        command.kill().unwrap();
        command.wait().unwrap();
        kills += usize::from(!has_ended);
    }
    println!("killed {kills} times");
    assert!(kills > 2);
    let (code, told) = said(&node, &["cluster", "export"]);
    assert!(code == 0 && told.contains(&format!("; {MESSAGES} wait in")), "{code} {told}");
    assert_eq!((state(&spool), setup.rows("queue"), setup.rows("body")), (None, 0, 0));
    let own = own(&spool);
    assert_eq!(own.ids_after(None, MESSAGES + 1), kept.iter().map(|(entry, _)| entry.id).collect::<Vec<_>>());
    for (before, content) in &kept {
        assert_eq!(own.entry(before.id).unwrap().unwrap().recipients, before.recipients);
        assert_eq!(own.open(before.id).unwrap().whole().unwrap(), *content);
    }
}

/// Administrators run commands as root; the server runs as the user who has `state_dir`.
#[test]
fn what_root_moves_belongs_to_the_servers_user() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return println!("not run: it needs root");
    }
    let setup = Setup::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hop = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 25));
    let node = queue_commands::node(&setup, "n", hop);
    runtime.block_on(async {
        setup.init().await;
        let node = setup.node("other").await;
        filled(&node, 8).await;
        node.leave().await;
    });
    let (state, nobody) = (node.path("state"), 65_534);
    std::fs::create_dir(&state).unwrap();
    std::fs::set_permissions(node.folder(), std::fs::Permissions::from_mode(0o711)).unwrap();
    std::os::unix::fs::chown(&state, Some(nobody), Some(nobody)).unwrap();
    for command in ["export", "import"] {
        let (code, told) = said(&node, &["cluster", command]);
        assert!(code == 0 && told.starts_with("8 messages "), "{code} {told}");
        let mut left = vec![state.clone()];
        while let Some(path) = left.pop() {
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.uid(), nobody, "{command}: {}", path.display());
            if metadata.is_dir() {
                left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }
}
