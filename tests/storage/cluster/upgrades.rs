//! The tables are brought to this version's number, beside nodes that die, live, or join in the same moment.

use fingerpost::cluster::schema::SCHEMA;

use super::*;

/// The tables of the number before, and a node of that version that nobody has ended.
fn before(setup: &Setup) {
    setup.primary.sql(&format!(
        "ALTER TABLE fingerpost.epoch DROP COLUMN draining; DROP TABLE fingerpost.directory_read; \
         DROP TABLE fingerpost.returned_message; UPDATE fingerpost.installation SET schema = {}; \
         INSERT INTO fingerpost.node (number, name) VALUES (5, 'mx5'); \
         INSERT INTO fingerpost.epoch (node, version) VALUES (5, '0'); \
         INSERT INTO fingerpost.heartbeat (epoch, configuration) SELECT id, '' FROM fingerpost.epoch",
        SCHEMA - 1
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_ends_nodes_that_have_died_and_is_refused_by_those_that_live() {
    let setup = Setup::start();
    setup.init().await;
    before(&setup);
    let connection = setup.database().connect().await.unwrap();
    let other = setup.database().connect().await.unwrap();
    let beating = async {
        loop {
            other.client().batch_execute("UPDATE fingerpost.heartbeat SET beats = beats + 1").await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refused = tokio::select! {
        made = schema::init(&connection) => made.unwrap_err().to_string(),
        () = beating => unreachable!(),
    };
    assert!(refused.contains("nodes are running: mx5."), "{refused}");
    assert_eq!(setup.rows("epoch"), 1);

    assert_eq!(setup.init().await, Made::Upgraded(SCHEMA - 1));
    assert_eq!((setup.rows("epoch"), setup.rows("returned_message")), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_joins_while_the_tables_are_changed() {
    let setup = Arc::new(Setup::start());
    setup.init().await;
    let changing = setup.database().connect().await.unwrap();
    let lock = "BEGIN; SELECT pg_advisory_xact_lock(hashtext('fingerpost nodes'))";
    changing.client().batch_execute(lock).await.unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";

    // Who makes them waits for who joins, and the other way round.
    let made = tokio::spawn({
        let connection = setup.database().connect().await.unwrap();
        async move { schema::init(&connection).await }
    });
    eventually("init waits", Duration::from_secs(10), || setup.primary.sql(waits) == "1").await;
    let joined = tokio::spawn({
        let setup = setup.clone();
        async move { setup.open("a", Standby::Required).await }
    });
    eventually("the node waits", Duration::from_secs(10), || setup.primary.sql(waits) == "2").await;
    let newer = format!("UPDATE fingerpost.installation SET schema = {}; COMMIT", SCHEMA + 1);
    changing.client().batch_execute(&newer).await.unwrap();
    for refused in [made.await.unwrap().map(drop).unwrap_err().to_string(), joined.await.unwrap().err().unwrap()] {
        assert!(refused.contains("install a newer one"), "{refused}");
    }
    assert_eq!(setup.rows("epoch"), 0);
}
