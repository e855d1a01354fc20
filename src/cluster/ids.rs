//! Queue ids that several nodes give out: none is used twice. Pure.
//!
//! ```text
//! 62     always set: an embedded spool's ids have it clear, so that imported mail keeps its own
//! 61-20  milliseconds since 1970
//! 19-10  the node's number
//!  9-0   a counter
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use crate::message::queue_id::{CLUSTERED, QueueId};

/// The largest node number.
pub const MOST_NODES: u32 = (1 << 10) - 1;

/// How far ids may be beyond the last heartbeat, which says how far they have come: milliseconds. A start begins so far
/// behind it.
const SKIPPED: u64 = 10_000;
/// What a node may give out before its first heartbeat, and between two where its clock stands still.
pub const STEP: u64 = 1000;

/// Gives out a node's ids.
#[derive(Debug)]
pub struct Ids {
    node: u64,
    /// Milliseconds and counter of the last one.
    last: AtomicU64,
}

impl Ids {
    /// `node`: at most [`MOST_NODES`]. `reached`: what the last heartbeat of this number says ([`Ids::reached_by`]), or a start
    /// that came to none ([`STEP`] more for each).
    #[must_use]
    pub fn new(node: u32, reached: u64) -> Self {
        Self { node: u64::from(node), last: AtomicU64::new((reached + SKIPPED) << 10) }
    }

    /// The next id; `now`: milliseconds since 1970. Where the clock went back, it goes on from the last.
    pub fn next(&self, now: u64) -> QueueId {
        let now = now << 10;
        let next = |last: u64| Some(now.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        let number = now.max(last + 1);
        QueueId(CLUSTERED | (number >> 10) << 20 | self.node << 10 | number & 1023)
    }

    /// What a heartbeat says, in milliseconds: ids that are given out until the next one are less than [`SKIPPED`] beyond it,
    /// by the clock or, where that is behind, one by one. So ids run ahead of the clock by no more than that, however often
    /// a node starts.
    pub fn reached_by(&self, now: u64) -> u64 {
        now.max((self.last.load(Ordering::Relaxed) >> 10).saturating_sub(SKIPPED - STEP))
    }
}

/// As the database has it.
#[must_use]
pub fn to_sql(id: QueueId) -> i64 {
    id.0.cast_signed()
}

/// From the database.
#[must_use]
pub fn from_sql(id: i64) -> QueueId {
    QueueId(id.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::time::UnixTime;

    #[test]
    fn no_id_is_given_out_twice_whatever_the_clocks_do() {
        let nodes = [Ids::new(0, 0), Ids::new(1, 0), Ids::new(MOST_NODES, 5_000)];
        let mut all = BTreeSet::new();
        for now in [4_000, 4_000, 4_001, 3_000, 9_000] {
            for ids in &nodes {
                let mut last = QueueId(0);
                for _ in 0..3_000 {
                    let id = ids.next(now);
                    assert!(id > last && all.insert(id), "{id}");
                    last = id;
                }
            }
        }
        assert!(all.iter().all(|id| from_sql(to_sql(*id)) == *id && to_sql(*id) > 0));
    }

    #[test]
    fn however_often_a_node_starts_its_ids_stay_near_the_clock_and_are_new() {
        // A start every two seconds, each killed after an id and a heartbeat, or before the heartbeat; then the clock goes back.
        let (mut reached, mut last) = (1_000_000, QueueId(0));
        for start in 0..10_000 {
            let now = if start < 9_000 { 1_000_000 + 2_000 * start } else { 5_000_000 };
            let ids = Ids::new(7, reached);
            reached = now.max(reached + STEP);
            if start % 3 == 0 {
                reached = reached.max(ids.reached_by(now));
            }
            let id = ids.next(now);
            assert!(id > last, "{start}");
            assert!(start >= 9_000 || id.made_at().0 <= (now + SKIPPED + STEP) / 1000, "{start}: {id:?} at {now}");
            last = id;
            if start % 3 == 1 {
                reached = reached.max(ids.reached_by(now));
            }
        }
    }

    #[test]
    fn an_id_says_when_it_was_made_and_comes_after_all_of_an_embedded_spool() {
        let made = 1_790_000_000_123;
        let id = Ids::new(7, 0).next(made);
        assert_eq!(id.made_at(), UnixTime(made / 1000));
        let far_future = QueueId(4_000_000_000_000 << 20);
        assert!(id > far_future, "{id} {far_future}");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
