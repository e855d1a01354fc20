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
/// By how many seconds the beginning of one read may be told differently.
const ROUNDED: u64 = 2;

/// What this node did with a directory.
#[derive(Default)]
struct Done {
    /// The entries found gone of which other nodes were told, and when.
    found_gone: u64,
    told: Option<Instant>,
    /// The last read because of another node.
    caused: Option<Caused>,
    is_reading: bool,
}

/// A read because of another node's.
struct Caused {
    since: Instant,
    /// The other's.
    by: QueueTime,
    /// When it was begun.
    at: QueueTime,
    /// When it began, as it is told afterwards.
    began: Option<QueueTime>,
}

/// Does so until `stop`.
pub(super) async fn read_together(cluster: Arc<ClusterSpool>, current: Arc<Current>, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done: HashMap<String, Done> = HashMap::new();
    let mut under_way = JoinSet::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() && !cluster.has_ended() {
        while let Some(ended) = under_way.try_join_next() {
            if let Some(done) = ended.ok().and_then(|directory: String| done.get_mut(&directory)) {
                done.is_reading = false;
            }
        }
        let reads = current.load().resolver.directories().whole_reads();
        done.retain(|name, done| done.is_reading || reads.iter().any(|read| read.directory == *name));
        let now = cluster.queue_time();
        let mut tell = |read: &WholeRead| done.entry(read.directory.clone()).or_default().told(read, now);
        let told: Vec<DirectoryRead> = reads.iter().map(&mut tell).collect();
        let all = match stop.run_until_cancelled(cluster.tell_reads(&told)).await {
            None => break,
            Some(Ok(all)) => all,
            Some(Err(error)) => {
                tracing::debug!(%error, "it is not known when other nodes have read directories");
                continue;
            }
        };
        for read in &reads {
            let done = done.entry(read.directory.clone()).or_default();
            done.has_told(read);
            let own = began(read, now);
            if let Some(last) = all.iter().find(|last| own.is_behind(last)).filter(|_| done.may_read()) {
                done.is_reading = true;
                done.caused = Some(Caused { since: Instant::now(), by: last.at, at: now, began: None });
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

impl Done {
    /// What the other nodes are told: when the last read began, or that of another node that was its cause, lest each
    /// causes the next; or that all shall read now, because entries were found gone here.
    fn told(&mut self, read: &WholeRead, now: QueueTime) -> DirectoryRead {
        if read.found_gone < self.found_gone {
            self.found_gone = 0; // another configuration begins anew
        }
        let own = began(read, now);
        if self.wants_all_to_read(read) {
            return DirectoryRead { at: now, ..own };
        }
        match &mut self.caused {
            Some(caused) if caused.at.0 <= own.at.0 + ROUNDED => {
                let first = *caused.began.get_or_insert(own.at);
                let is_it = own.at.0 <= first.0 + ROUNDED;
                DirectoryRead { at: if is_it { caused.by } else { own.at }, ..own }
            }
            _ => own,
        }
    }

    fn wants_all_to_read(&self, read: &WholeRead) -> bool {
        read.found_gone > self.found_gone && self.told.is_none_or(|told| told.elapsed() >= PAUSE)
    }

    /// The others have been told.
    fn has_told(&mut self, read: &WholeRead) {
        if self.wants_all_to_read(read) {
            (self.found_gone, self.told) = (read.found_gone, Some(Instant::now()));
        }
    }

    /// Whether a read may begin because of another node's.
    fn may_read(&self) -> bool {
        !self.is_reading && self.caused.as_ref().is_none_or(|caused| caused.since.elapsed() >= PAUSE)
    }
}

/// Reads it; returns its name.
async fn refresh(current: Arc<Current>, directory: String) -> String {
    let in_force = current.load_full();
    if let Some(Err(cause)) = in_force.resolver.directories().refresh(&directory, Accept::No).await {
        tracing::warn!(directory, "another node has read it as a whole, this one cannot: {cause}");
    }
    directory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(ago: u64, found_gone: u64) -> WholeRead {
        WholeRead { directory: "ad".into(), ago: Duration::from_secs(ago), found_gone }
    }

    #[tokio::test(start_paused = true)]
    async fn all_shall_read_where_an_entry_was_found_gone_but_not_all_the_time() {
        let (mut done, now) = (Done::default(), QueueTime(5_000));
        // Entries found gone, seconds since the step before, whether the database answers, and what others are told.
        let steps = [
            (0, 0, true, 4_000),
            (1, 5, false, 5_000),
            (1, 5, true, 5_000), // it was not heard
            (1, 5, true, 4_000),
            (2, 5, true, 4_000), // it waits
            (3, 60, true, 5_000),
            (3, 60, true, 4_000),
            (0, 60, true, 4_000), // a reload made it anew
            (1, 5, true, 5_000),
        ];
        for (step, (found_gone, seconds, answers, expected)) in steps.into_iter().enumerate() {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(done.told(&read(1_000, found_gone), now).at, QueueTime(expected), "{step}");
            if answers {
                done.has_told(&read(1_000, found_gone));
            }
        }
    }

    /// Nodes whose reads take 40 s, for two hours: each whole hour's read is followed once by each.
    #[tokio::test(start_paused = true)]
    async fn slow_reads_do_not_cause_each_other() {
        const TAKES: u64 = 40;
        const HOUR: u64 = 3_600;
        struct Node {
            done: Done,
            /// When the last read began, and the one that is under way.
            whole: u64,
            reading: Option<u64>,
            reads: usize,
        }
        let node = |whole| Node { done: Done::default(), whole, reading: None, reads: 0 };
        let mut nodes = [node(8_000), node(9_000), node(10_000)];
        let mut row = QueueTime(0);
        for now in (10_050..10_050 + 2 * HOUR).step_by(5) {
            tokio::time::advance(LOOK).await;
            for node in &mut nodes {
                if let Some(began) = node.reading.filter(|began| *began + TAKES <= now) {
                    (node.whole, node.reading, node.done.is_reading) = (began, None, false);
                }
                let own = read(now - node.whole, 0);
                row = row.max(node.done.told(&own, QueueTime(now)).at);
                let last = DirectoryRead { directory: "ad".into(), at: row };
                let follows = began(&own, QueueTime(now)).is_behind(&last) && node.done.may_read();
                if follows {
                    let at = QueueTime(now);
                    node.done.caused = Some(Caused { since: Instant::now(), by: row, at, began: None });
                }
                if node.reading.is_none() && (follows || now >= node.whole + HOUR) {
                    node.done.is_reading = follows;
                    node.reading = Some(now);
                    node.reads += 1;
                }
            }
        }
        let reads: Vec<usize> = nodes.iter().map(|node| node.reads).collect();
        assert!(reads.iter().all(|reads| (1..=4).contains(reads)), "{reads:?}");
    }
}
