//! Content that is damaged in the database is not sent, and a copy is kept for operators.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_damaged_content_is_kept_beside_the_node() {
    let setup = Setup::start();
    setup.init().await;
    let metrics = Metrics::new();
    let (cluster, folder) = (setup.cluster("a", Standby::Required), setup.nodes.path().join("a"));
    let first = setup.node("first").await;
    let (small, large, cut) = (mail(&*first, 500, 1), mail(&*first, LARGE, 1), mail(&*first, 2 * LARGE, 1));
    let (entries, short) = ([small.1.clone(), large.1.clone()], cut.1.clone());
    first.commit(accepted(vec![small, large, cut])).await.unwrap();
    first.leave().await;
    setup
        .primary
        .sql("UPDATE fingerpost.body SET content = set_byte(content, 9, 255 - get_byte(content, 9)) WHERE piece = 0");
    let node = ClusterSpool::open(&cluster, folder.clone(), "digest", metrics.clone()).await.unwrap();
    let node = Arc::new(node);
    let _adopted = node.take_over();
    eventually("it is taken over", Duration::from_secs(20), || node.live_messages() == 3).await;
    let found = || metrics.spool_damaged_contents.with_label_values::<&str>(&[]).get();
    for (entry, count) in entries.iter().zip(1..) {
        let stored = node.open(entry.id).unwrap();
        assert!(stored.verify().await.is_err() && stored.is_damaged());
        for _ in 0..2 {
            let (node, entry, stored) = (node.clone(), entry.clone(), stored.clone());
            tokio::task::spawn_blocking(move || node.keep_damaged(&entry, &stored)).await.unwrap();
            assert_eq!(found(), count, "each is told once");
        }
        assert!(node.open(entry.id).unwrap().is_damaged(), "it is looked at again before anything is sent");
        let mut kept = std::fs::read(folder.join("aside").join(format!("{}.eml", entry.id))).unwrap();
        kept[9] = 255 - kept[9];
        assert!(kept == content(entry.id, entry.content.size), "what there is of it");
        let envelope = std::fs::read(folder.join("aside").join(format!("{}.json", entry.id))).unwrap();
        assert_eq!(serde_json::from_slice::<Entry>(&envelope).unwrap(), *entry);
    }
    // It is whole again: it can be sent.
    setup
        .primary
        .sql("UPDATE fingerpost.body SET content = set_byte(content, 9, 255 - get_byte(content, 9)) WHERE piece = 0");
    node.open(entries[0].id).unwrap().verify().await.unwrap();

    // A part of it is missing.
    setup.primary.sql(&format!("DELETE FROM fingerpost.body WHERE id = {} AND piece = 1", short.id.0));
    let stored = node.open(short.id).unwrap();
    assert!(stored.verify().await.is_err() && stored.is_damaged());
    // Its node of before has delivered it after all: that is no damage.
    setup.primary.sql(&format!("DELETE FROM fingerpost.queue WHERE id = {}", short.id.0));
    let (kept, before) = (node.clone(), found());
    tokio::task::spawn_blocking(move || kept.keep_damaged(&short, &stored)).await.unwrap();
    assert_eq!((found(), node.live_messages()), (before, 2));
}
