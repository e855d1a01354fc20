//! Reads directories as a whole when another node of the cluster has, or has found an entry gone that only whole reads
//! show to all.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterSpool;
use crate::cluster::directory_reads::DirectoryRead;
use crate::directory::{Accept, WholeRead};
use crate::in_force::Current;
use crate::spool::Spool as _;
use crate::time::QueueTime;

/// How often the nodes compare.
const LOOK: Duration = Duration::from_secs(5);
/// The least time between two reads of a directory because of other nodes, or because of entries that were found gone.
const PAUSE: Duration = Duration::from_secs(60);

/// What this node did with a directory.
#[derive(Default)]
struct Done {
    /// The entries found gone of which other nodes were told.
    found_gone: u64,
    told: Option<Instant>,
    tried: Option<Instant>,
}

/// Does so until `stop`.
pub(super) async fn read_together(cluster: Arc<ClusterSpool>, current: Arc<Current>, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done: HashMap<String, Done> = HashMap::new();
    let mut under_way = JoinSet::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() && !cluster.has_ended() {
        while under_way.try_join_next().is_some() {}
        let reads = current.load().resolver.directories().whole_reads();
        done.retain(|name, _| reads.iter().any(|read| read.directory == *name));
        let now = cluster.queue_time();
        let own: Vec<DirectoryRead> = reads.iter().map(|read| began(read, now)).collect();
        let told: Vec<DirectoryRead> =
            reads.iter().map(|read| wanted(read, done.entry(read.directory.clone()).or_default(), now)).collect();
        let Some(all) = stop.run_until_cancelled(cluster.tell_reads(&told)).await else { break };
        let all = all.unwrap_or_else(|error| {
            tracing::debug!(%error, "it is not known when other nodes have read directories");
            Vec::new()
        });
        for read in own.iter().filter(|read| all.iter().any(|last| read.is_behind(last))) {
            let done = done.entry(read.directory.clone()).or_default();
            if done.tried.is_none_or(|tried| tried.elapsed() >= PAUSE) {
                done.tried = Some(Instant::now());
                tracing::info!(directory = read.directory, "another node has read it as a whole: so does this one");
                under_way.spawn(refresh(current.clone(), read.directory.clone()));
            }
        }
    }
}

/// When the last whole read began.
fn began(read: &WholeRead, now: QueueTime) -> DirectoryRead {
    DirectoryRead { directory: read.directory.clone(), at: QueueTime(now.0.saturating_sub(read.ago.as_secs())) }
}

/// What the other nodes are told: the last read, or that all shall read now, because entries were found gone here.
fn wanted(read: &WholeRead, done: &mut Done, now: QueueTime) -> DirectoryRead {
    let is_allowed = done.told.is_none_or(|told| told.elapsed() >= PAUSE);
    if read.found_gone <= done.found_gone || !is_allowed {
        done.found_gone = done.found_gone.min(read.found_gone); // another configuration begins anew
        return began(read, now);
    }
    (done.found_gone, done.told) = (read.found_gone, Some(Instant::now()));
    DirectoryRead { directory: read.directory.clone(), at: now }
}

async fn refresh(current: Arc<Current>, directory: String) {
    let in_force = current.load_full();
    if let Some(Err(cause)) = in_force.resolver.directories().refresh(&directory, Accept::No).await {
        tracing::warn!(directory, "another node has read it as a whole, this one cannot: {cause}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_shall_read_where_an_entry_was_found_gone_but_not_all_the_time() {
        let read = |found_gone| WholeRead { directory: "ad".into(), ago: Duration::from_secs(1_000), found_gone };
        let (mut done, now) = (Done::default(), QueueTime(5_000));
        // Entries found gone, seconds since the step before, and what others are told.
        let steps = [
            (0, 0, 4_000),
            (1, 5, 5_000),
            (1, 5, 4_000),
            (2, 5, 4_000), // it waits
            (3, 60, 5_000),
            (3, 60, 4_000),
            (0, 60, 4_000), // a reload made it anew
            (1, 5, 5_000),
        ];
        for (step, (found_gone, seconds, expected)) in steps.into_iter().enumerate() {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(wanted(&read(found_gone), &mut done, now).at, QueueTime(expected), "{step}");
        }
    }
}
