//! What the nodes of a cluster share besides mail: the loop key, and what they know of addresses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterSpool;
use crate::config::Config;
use crate::keys;
use crate::routing::recently_good::RecentlyGood;
use crate::spool::Spool as _;

/// How often news are written.
const EVERY: Duration = Duration::from_secs(1);
/// The most of them in one transaction.
const AT_ONCE: usize = 5_000;
/// How often what is too old is removed.
const FORGET: Duration = Duration::from_hours(1);
/// The last news at a stop are given up after this time.
const LAST: Duration = Duration::from_secs(2);

/// The names of the keys in the database.
const LOOP: &str = "loop";
const ADDRESSES: &str = "addresses";

/// The loop key of all nodes. `None`: `key_files` is written in the configuration, and names the keys of each.
pub(super) async fn loop_key(cluster: &ClusterSpool, config: &Config) -> Result<Option<[u8; 32]>, String> {
    let file = config.server.state_dir.join("loop.key");
    if config.loops.key_files != [file.clone()] {
        return Ok(None);
    }
    let told = |error: crate::spool::SpoolError| error.to_string();
    if let Some(key) = cluster.shared_key(LOOP).await.map_err(told)? {
        keys::keep(&file, &key)?;
        return Ok(Some(key));
    }
    let ours = keys::load(&[PathBuf::from(&file)], None)?;
    cluster.share_key(LOOP, *ours.signing().octets()).await.map(Some).map_err(told)
}

/// Makes the memory of addresses one that other nodes can read.
pub(super) async fn addresses(cluster: &ClusterSpool, table: &Mutex<RecentlyGood>) -> Result<(), String> {
    let ours = table.lock().key();
    let key = cluster.share_key(ADDRESSES, ours).await.map_err(|error| error.to_string())?;
    let mut table = table.lock();
    if key != ours {
        *table = RecentlyGood::new(key);
    }
    table.share(cluster.queue_time());
    Ok(())
}

/// Tells the other nodes what is learned, until `stop` and once more.
pub(super) async fn keep_telling(cluster: Arc<ClusterSpool>, table: Arc<Mutex<RecentlyGood>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut forget_at = tokio::time::Instant::now();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        tell(&cluster, &table).await;
        if forget_at <= tokio::time::Instant::now() {
            forget_at += FORGET;
            if let Err(error) = cluster.addresses().forget(cluster.queue_time()).await {
                tracing::debug!(%error, "old addresses stay in the database for another hour");
            }
        }
    }
    let _ = tokio::time::timeout(LAST, tell(&cluster, &table)).await; // or others learn it by themselves
}

async fn tell(cluster: &ClusterSpool, table: &Mutex<RecentlyGood>) {
    let mut news = table.lock().news();
    while !news.is_empty() {
        let rest = news.split_off(news.len().min(AT_ONCE));
        if let Err(error) = cluster.addresses().write(&news).await {
            tracing::debug!(%error, "what was learned of addresses is told to other nodes later");
            news.extend(rest);
            return table.lock().untold(news);
        }
        news = rest;
    }
}
