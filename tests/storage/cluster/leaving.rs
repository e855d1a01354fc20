//! Nodes that drain, or stop.

use fingerpost::cluster::draining::Alone;

use super::*;

/// How long a beat or a sweep may take.
const SOON: Duration = Duration::from_secs(20);

fn draining(setup: &Setup, node: &Arc<ClusterSpool>) -> String {
    setup.primary.sql(&format!("SELECT draining FROM fingerpost.epoch WHERE id = {}", node.epoch().id))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_counts_on_a_node_that_stops_and_it_takes_over_nothing_more() {
    let setup = Setup::start();
    setup.init().await;
    let (first, second) = (setup.node("a").await, setup.node("b").await);
    let (draft, entry) = mail(&*first, 100, 1);
    first.commit(accepted(vec![(draft, entry.clone())])).await.unwrap();
    second.begin_to_stop().await;
    assert_eq!(draining(&setup, &second), "t");
    assert_eq!(first.drain(Alone::Never).await.unwrap().len(), 0, "it would be the last one");
    assert_eq!(draining(&setup, &first), "f");

    // Two sweeps later the mail is still there for another one.
    first.leave().await;
    let beats = || -> i64 {
        let statement = format!("SELECT beats FROM fingerpost.heartbeat WHERE epoch = {}", second.epoch().id);
        setup.primary.sql(&statement).parse().unwrap()
    };
    let before = beats();
    eventually("it beats on", SOON, || beats() >= before + 3).await;
    assert_eq!((second.live_messages(), &*draining(&setup, &second)), (0, "t"));
    let third = setup.node("c").await;
    eventually("the mail is taken over", SOON, || third.live_messages() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_about_a_drain_that_is_not_true_is_put_right() {
    let setup = Setup::start();
    setup.init().await;
    let nodes = [setup.node("a").await, setup.node("b").await];
    // As after a drain whose answer was lost, and after a primary that has forgotten one.
    let drained = async {
        // The other one opens its sessions when it has joined.
        while nodes[0].drain(Alone::Never).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, drained).await.unwrap();
    setup.primary.sql("UPDATE fingerpost.epoch SET draining = NOT draining");
    let told = || nodes.each_ref().map(|node| draining(&setup, node));
    eventually("both tell it as it is", SOON, || told() == ["t", "f"]).await;
}
