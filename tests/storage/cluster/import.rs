//! A node's own spool is moved into the database: each message once, whatever breaks off.

use fingerpost::cluster::import::import;
use fingerpost::cluster::moving::MoveError;
use fingerpost::spool::Sizes;
use fingerpost::spool::moved::{Moved, State};
use fingerpost::spool::store::LogStore;
use fingerpost::time::QueueTime;
use support::test_node::TestNode;

use super::*;

/// More than one transaction takes.
const MESSAGES: usize = 450;

/// The epoch of an import's messages.
fn epoch_of(number: u64) -> i64 {
    -((number >> 2).cast_signed() | 1)
}

async fn run(setup: &Setup, node: &str, spool: &Path) -> Result<u64, MoveError> {
    let connection = Database::new(&setup.cluster(node, Standby::Required)).unwrap().connect().await.unwrap();
    let own = LogStore::open(spool, Sizes::default(), Metrics::new()).unwrap();
    import(&connection, node, Standby::Required, spool, &own).await.map(|imported| imported.moved)
}

/// A spool with so many messages, one of them large and one half delivered; returns them, with their contents.
async fn filled(spool: &Path, messages: usize) -> Vec<(Entry, Vec<u8>)> {
    std::fs::create_dir_all(spool.parent().unwrap()).unwrap();
    let own = LogStore::open(spool, Sizes::default(), Metrics::new()).unwrap();
    for number in 0..messages {
        let size = if number == 7 { LARGE } else { 300 };
        let (draft, entry) = mail(&own, size, 2);
        let id = entry.id;
        own.commit(accepted(vec![(draft, entry)])).await.unwrap();
        if number == 3 {
            own.commit(changed(vec![delivered(id, 0)])).await.unwrap();
        }
    }
    let mut all = Vec::new();
    for id in own.ids_after(None, messages) {
        all.push((own.entry(id).unwrap().unwrap(), own.open(id).unwrap().whole().unwrap()));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_own_mail_is_moved_once_though_the_move_breaks_off() {
    let setup = Setup::start();
    setup.init().await;
    setup.primary.sql("UPDATE fingerpost.installation SET age = age + 1000000");
    let own = tempfile::tempdir().unwrap();
    let (first, second) = (own.path().join("0/spool"), own.path().join("1/spool"));
    let (kept, own_time) = (filled(&first, MESSAGES).await, QueueTime(UnixTime::now().0));
    let node = setup.node("zero").await;

    // The third transaction fails.
    let last = kept[MESSAGES - 10].0.id.0;
    setup.primary.sql(&format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON fingerpost.queue FOR EACH ROW WHEN (NEW.id = {last}) \
         EXECUTE FUNCTION refuse()"
    ));
    assert!(matches!(run(&setup, "zero", &first).await, Err(MoveError::Database(_))));
    assert_eq!((setup.rows("queue"), Moved::read(&first).unwrap().unwrap().state), (400, State::Importing));
    tokio::time::sleep(fingerpost::cluster::epoch::BEAT + Duration::from_secs(1)).await; // a sweep
    assert_eq!(node.live_messages(), 0, "nobody takes over what is not moved as a whole");
    setup.primary.sql("DROP TRIGGER refuse ON fingerpost.queue");
    // It goes on under another name, and knows what it has moved.
    assert_eq!(run(&setup, "renamed", &first).await.unwrap(), MESSAGES as u64);
    assert_eq!(Moved::read(&first).unwrap().unwrap().state, State::Imported);
    eventually("it is taken over", Duration::from_secs(20), || node.live_messages() == MESSAGES).await;
    for (before, content) in &kept {
        let now = entry_of(&node, before.id).await.unwrap();
        assert_eq!(read(&node, before.id).await, *content);
        assert_eq!((&now.recipients, &now.content), (&before.recipients, &before.content));
        let ages = (node.queue_time().since(now.queued_at), own_time.since(before.queued_at));
        assert!(ages.0.abs_diff(ages.1) < Duration::from_secs(120), "it is as old as it was: {ages:?}");
    }
    // Again: nothing is there any more, and what was delivered since does not come back.
    node.commit(changed(vec![delivered(kept[0].0.id, 0), delivered(kept[0].0.id, 1)])).await.unwrap();
    assert_eq!(run(&setup, "zero", &first).await.unwrap(), 0);
    assert_eq!(setup.rows("queue"), MESSAGES - 1);

    // Another node's spool may have the same ids.
    let copied =
        std::process::Command::new("cp").arg("-r").arg(own.path().join("0")).arg(own.path().join("1")).status();
    assert!(copied.unwrap().success());
    std::fs::remove_file(second.join("moved")).unwrap();
    setup.node("one").await;
    assert_eq!(run(&setup, "one", &second).await.unwrap(), MESSAGES as u64);
    assert_eq!(setup.rows("queue"), 2 * MESSAGES - 1);
}

fn said(node: &TestNode, arguments: &[&str]) -> (Option<i32>, String) {
    let output = node.run(arguments);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_was_moved_is_not_used_again() {
    let setup = Setup::start();
    setup.init().await;
    let mut node = queue_commands::node(&setup, "n", std::net::SocketAddr::from(([127, 0, 0, 2], 25)));
    let text = std::fs::read_to_string(node.path("fingerpost.toml")).unwrap();
    let (alone, _) = text.split_once("[cluster]").unwrap();
    let spool = node.path("state/spool");
    filled(&spool, 3).await;
    let (code, told) = said(&node, &["run"]);
    assert!(code == Some(2) && told.contains("`fingerpost cluster import`"), "{code:?} {told}");
    let (code, told) = said(&node, &["cluster", "import"]);
    assert!(code == Some(0) && told.starts_with("3 messages are in the shared queue now"), "{code:?} {told}");
    let number = Moved::read(&spool).unwrap().unwrap().number;
    node.write("fingerpost.toml", alone);
    let (code, told) = said(&node, &["run"]);
    assert!(code == Some(2) && told.contains("move") && told.contains("start with [cluster]"), "{code:?} {told}");
    let (code, told) = said(&node, &["check"]);
    assert!(code != Some(0) && told.contains("start with [cluster]"), "{code:?} {told}");
    Moved { number: 1, state: State::Importing, node: None }.write(&spool).unwrap();
    node.write("fingerpost.toml", &text);
    let (code, told) = said(&node, &["run"]);
    assert!(code == Some(2) && told.contains("run `fingerpost cluster import` again"), "{code:?} {told}");
    // As if the import had been killed before its last step: a start ends it.
    Moved { number, state: State::Imported, node: None }.write(&spool).unwrap();
    setup.primary.sql(&format!("UPDATE fingerpost.queue SET epoch = {}", epoch_of(number)));
    node.start();
    let left = "SELECT count(*) FROM fingerpost.queue WHERE epoch < 0";
    eventually("it is the nodes'", Duration::from_secs(20), || setup.primary.sql(left) == "0").await;
    node.stop();
    std::fs::remove_dir_all(&spool).unwrap();
    let (code, told) = said(&node, &["cluster", "import"]);
    assert!(code == Some(2) && told.contains("there is no spool"), "{code:?} {told}");
}

/// The files of large contents.
fn large_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match std::fs::metadata(&path).unwrap() {
            metadata if metadata.is_dir() => large_files(&path),
            metadata if metadata.len() == LARGE => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_nodes_own_spool_stops_nothing() {
    let setup = Setup::start();
    setup.init().await;
    let node = queue_commands::node(&setup, "n", std::net::SocketAddr::from(([127, 0, 0, 2], 25)));
    let spool = node.path("state/spool");
    let kept = filled(&spool, 9).await;
    let [large] = &large_files(&spool)[..] else { panic!("one is large") };
    let mut content = std::fs::read(large).unwrap();
    content[9] = 255 - content[9];
    std::fs::write(large, &content).unwrap();
    let (code, told) = said(&node, &["cluster", "import"]);
    assert!(code == Some(1) && told.contains("8 messages are in the shared queue now"), "{code:?} {told}");
    let (id, copy) = (kept[7].0.id, spool.join("aside").join(format!("{}.eml", kept[7].0.id)));
    assert!(told.contains(&format!("message {id} is not moved")), "{told}");
    assert!(told.contains(&copy.display().to_string()), "{told}");
    assert!(std::fs::read(copy).unwrap() == content, "what there is of it");
    assert_eq!((Moved::read(&spool).unwrap().unwrap().state, setup.rows("queue")), (State::Imported, 8));
    let (code, told) = said(&node, &["cluster", "import"]);
    assert!(code == Some(0) && told.starts_with("0 messages"), "{code:?} {told}");
}

/// Mail that comes from a cluster has its number already; an own id may look like that.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_gets_a_nodes_number_once() {
    let setup = Setup::start();
    setup.init().await;
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("state/spool");
    filled(&spool, 1).await;
    for name in ["zero", "one"] {
        setup.node(name).await.leave().await;
    }
    let own = LogStore::open(&spool, Sizes::default(), Metrics::new()).unwrap();
    let plain = own.ids_after(None, 9)[0];
    let ids =
        [plain, QueueId(plain.0 | 1 << 10), QueueId((plain.0 + 7) | 1 << 10), QueueId(plain.0 | 1 << 62 | 5 << 10)];
    for id in &ids[1..] {
        let mut entry = own.entry(plain).unwrap().unwrap();
        (entry.id, entry.content.size) = (*id, 20);
        let draft = own.draft(*id, content(*id, 20)).unwrap();
        own.commit(accepted(vec![(draft, entry)])).await.unwrap();
    }
    drop(own);
    // Nobody is named who would have it as well.
    setup.primary.set("synchronous_standby_names", "");
    let refused = run(&setup, "one", &spool).await.unwrap_err();
    assert!(refused.to_string().contains("synchronous_standby_names is empty"), "{refused}");
    assert_eq!(Moved::read(&spool).unwrap().unwrap().state, State::Importing);
    setup.primary.set("synchronous_standby_names", setup.standby.name());
    assert_eq!(run(&setup, "one", &spool).await.unwrap(), 4);
    let there = setup.primary.sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM fingerpost.queue");
    let expected = [plain.0 | 1 << 10, (plain.0 + 7) | 1 << 10, plain.0 | 2 << 10, ids[3].0].map(|id| id.to_string());
    assert_eq!(there, expected.join(" "));
}
