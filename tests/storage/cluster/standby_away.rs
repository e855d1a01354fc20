//! The standby is away for longer than anybody waits: what then hangs in commits at the primary is found again, leaves
//! nothing behind, and does not take all of its sessions.

use std::time::Duration;

use fingerpost::cluster::epoch;
use fingerpost::spool::Spool;
use rustix::process::{Pid, Signal, kill_process};

use super::{CONNECTIONS, Setup, accepted, eventually, mail};
use crate::spool_store::fixture::LARGE;

/// Longer than any of our waits, and all of what follows it.
const AWAY: Duration = Duration::from_secs(80);
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_hangs_in_commits_is_found_again_and_leaves_nothing_behind() {
    let setup = Setup::start();
    setup.init().await;
    let (first, second) = (setup.node("a").await, setup.node("b").await);
    let mut waiting = Vec::new();
    for _ in 0..700 {
        waiting.push(mail(&*first, 100, 1));
    }
    first.commit(accepted(waiting)).await.unwrap();
    let sessions = |state: &str| {
        let of = format!("fingerpost epoch {}", second.epoch().id);
        let text = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{of}' {state}");
        setup.primary.sql(&text).parse::<usize>().unwrap()
    };

    // The standby goes; the first node's epoch ends, as nothing waits for a standby that is done so, and the second takes
    // over what it cannot commit. Clients send it large mail meanwhile.
    setup.standby.freeze();
    setup.primary.sql(
        "SET synchronous_commit = off; DELETE FROM fingerpost.epoch WHERE id = (SELECT min(id) FROM fingerpost.epoch)",
    );
    let sends = (0..6).map(|_| {
        let spool = second.clone();
        tokio::spawn(async move { spool.commit(accepted(vec![mail(&*spool, 3 * LARGE, 1)])).await })
    });
    let sends: Vec<_> = sends.collect();
    // Uploads hang in INSERT, and the committer waits for them.
    let hangs = "AND wait_event = 'SyncRep' AND query = 'COMMIT'";
    eventually("the takeover hangs", Duration::from_secs(20), || sessions(hangs) == 1).await;
    let mut most = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < AWAY {
        most = most.max(sessions(""));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(most <= CONNECTIONS, "{most} sessions");
    for send in sends {
        assert!(send.await.unwrap().is_err(), "its client keeps it");
    }

    setup.standby.thaw();
    eventually("all of it is the second node's", LIMIT, || second.live_messages() == 700).await;
    eventually("and nothing else is left", LIMIT, || {
        ["queue", "body", "upload"].map(|table| setup.rows(table)) == [700, 700, 0]
    })
    .await;
    eventually("it takes mail again", LIMIT, || second.condition().takes_records()).await;
    second.commit(accepted(vec![mail(&*second, 100, 1)])).await.unwrap();
}

/// A primary that nobody has fenced goes on after the standby was promoted: its standby confirms what it writes. The node
/// shows that it lives where the others look.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_go_to_the_primary_that_is_believed() {
    let setup = Setup::start();
    setup.init().await;
    let node = setup.node("a").await;
    setup.primary.set("synchronous_standby_names", ""); // it commits alone, as with another standby
    setup.standby.promote();
    let id = node.epoch().id;
    let beats = |postgres: &support::postgres::Postgres| {
        postgres.sql(&format!("SELECT beats FROM fingerpost.heartbeat WHERE epoch = {id}")).parse::<i64>().unwrap()
    };
    let begun = beats(&setup.standby);
    // Somebody sees the new primary: more at once than there are open connections, which opens a new one.
    let asking = tokio::spawn(async move {
        loop {
            futures_util::future::join_all((0..4).map(|_| node.others())).await;
        }
    });
    eventually("it beats there", 6 * epoch::BEAT, || beats(&setup.standby) > begun).await;
    asking.abort();
}

/// Their own heartbeats are not acknowledged either: nobody is dead, and nobody is taken for it.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_do_not_end_each_other_while_the_database_stands_still() {
    let setup = Setup::start();
    setup.init().await;
    let nodes = [setup.node("a").await, setup.node("b").await];
    tokio::time::sleep(epoch::BEAT + Duration::from_secs(1)).await; // both have been seen
    for which in [&setup.primary, &setup.standby] {
        which.freeze();
        tokio::time::sleep(epoch::SILENT + 2 * epoch::BEAT).await;
        which.thaw();
        for node in &nodes {
            eventually("it takes mail again", LIMIT, || node.condition().takes_records()).await;
            node.commit(accepted(vec![mail(&**node, 100, 1)])).await.unwrap();
        }
        tokio::time::sleep(epoch::BEAT + Duration::from_secs(1)).await;
        assert_eq!((setup.rows("epoch"), nodes.each_ref().map(|node| node.has_ended())), (2, [false; 2]));
    }
}

/// One backend does not answer any more, while all others do.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stands_still_is_left_and_the_node_goes_on() {
    let setup = Setup::start();
    setup.init().await;
    let node = setup.node("a").await;
    node.commit(accepted(vec![mail(&*node, 100, 1)])).await.unwrap();
    // The last statement of each of its transactions.
    let commits = "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT current_setting(''synchronous_standby_names'')' \
         AND application_name LIKE 'fingerpost epoch%' AND state = 'idle' ORDER BY backend_start LIMIT 1";
    let pid = Pid::from_raw(setup.primary.sql(commits).parse().unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let refused = node.commit(accepted(vec![mail(&*node, 100, 1)])).await.unwrap_err();
    assert!(refused.to_string().contains("did not answer within 30s"), "{refused}");
    eventually("it takes mail again", LIMIT, || node.condition().takes_records()).await;
    node.commit(accepted(vec![mail(&*node, 100, 1)])).await.unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!((setup.rows("queue"), node.live_messages()), (2, 2));
}
