//! What the nodes of a cluster share besides mail: the loop key, and what they know of addresses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterSpool;
use crate::cluster::database::DatabaseError;
use crate::config::Config;
use crate::keys;
use crate::routing::recently_good::RecentlyGood;
use crate::spool::{Spool as _, SpoolError};

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
    if !has_usual_key_file(config) {
        return Ok(None);
    }
    let file = usual_key_file(config);
    let told = |error: SpoolError| error.to_string();
    if let Some(key) = cluster.key(LOOP).await.map_err(told)? {
        keys::keep(&file, &key)?;
        return Ok(Some(key));
    }
    let ours = keys::load(&[file], None)?;
    cluster.key_or(LOOP, *ours.signing().octets()).await.map(Some).map_err(told)
}

fn usual_key_file(config: &Config) -> PathBuf {
    config.server.state_dir.join("loop.key")
}

/// Whether the loop key is ours to share: `key_files` is not written, or says what it would say.
pub(super) fn has_usual_key_file(config: &Config) -> bool {
    config.loops.key_files == [usual_key_file(config)]
}

/// Makes the memory of addresses one that other nodes can read.
pub(super) async fn addresses(cluster: &ClusterSpool, table: &Mutex<RecentlyGood>) -> Result<(), String> {
    let ours = table.lock().key();
    let key = cluster.key_or(ADDRESSES, ours).await.map_err(|error| error.to_string())?;
    let mut table = table.lock();
    if key != ours {
        if !table.is_empty() {
            tracing::warn!(
                "what this node knew of recently good addresses is forgotten: the cluster's counts from now on"
            );
        }
        *table = RecentlyGood::new(key);
    }
    table.share(cluster.queue_time());
    Ok(())
}

/// Tells the other nodes what is learned, until `stop`.
pub(super) async fn keep_telling(cluster: Arc<ClusterSpool>, table: Arc<Mutex<RecentlyGood>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut forget_at, mut is_told) = (Instant::now(), false);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let told = cluster.addresses().keep_open().await;
        match told.and(tell(&cluster, &table).await) {
            Ok(()) => is_told = false,
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!(alert = true, %error, "what is learned of addresses cannot be told to other nodes");
            }
            Err(_) => {}
        }
        if forget_at <= Instant::now() {
            forget_at = Instant::now() + FORGET;
            let addresses = cluster.addresses();
            let forget = addresses.forget(cluster.queue_time());
            if let Some(Err(error)) = stop.run_until_cancelled(forget).await {
                tracing::debug!(%error, "old addresses stay in the database for another hour");
            }
        }
    }
}

/// Tells at the end what was learned last.
pub(super) async fn tell_last(cluster: &ClusterSpool, table: &Mutex<RecentlyGood>) {
    let last = async { while !table.lock().has_no_news() && tell(cluster, table).await.is_ok() {} };
    let _ = tokio::time::timeout(LAST, last).await; // or others learn it by themselves
}

/// Tells some of it.
async fn tell(cluster: &ClusterSpool, table: &Mutex<RecentlyGood>) -> Result<(), DatabaseError> {
    let mut news = table.lock().news();
    if news.is_empty() {
        return Ok(());
    }
    let rest = news.split_off(news.len().min(AT_ONCE));
    table.lock().untold(rest);
    let written = cluster.addresses().write(&news).await;
    if written.is_err() {
        table.lock().untold(news);
    }
    written
}
