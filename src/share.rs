//! This node's share of a limit that holds for several nodes together (DESIGN section 11, "Limits"). Pure; time is an
//! argument.
//!
//! `cluster` knows which nodes live; `delivery` divides `max_connections` and `[reports] per_minute` by it. A node that
//! has its queue for itself has [`Share::WHOLE`].

use std::time::Duration;

use crate::time::QueueTime;

/// How long a node has its place, where a limit is smaller than the number of nodes: seconds of the queue's time.
pub const TURN: u64 = 60;
/// A node begins nothing in the last seconds of its turn, unless it has the next one too: nodes' queue times differ by
/// a few seconds, and what is under way ends meanwhile.
pub const GAP: u64 = 10;

/// Which of the living nodes this is, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// How many living nodes have lower numbers.
    rank: usize,
    /// How many nodes live.
    nodes: usize,
    at: QueueTime,
}

impl Default for Share {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl Share {
    /// All of every limit.
    pub const WHOLE: Self = Self { rank: 0, nodes: 1, at: QueueTime(0) };

    /// `rank`: how many of the `nodes` that live have lower numbers. `at`: the queue's time, which all of them share.
    #[must_use]
    pub fn new(rank: usize, nodes: usize, at: QueueTime) -> Self {
        let nodes = nodes.max(1);
        Self { rank: rank.min(nodes - 1), nodes, at }
    }

    /// This node's part of a limit. The parts of all living nodes add up to it, but in the gaps between turns.
    #[must_use]
    pub fn of(self, limit: usize) -> usize {
        if limit >= self.nodes {
            return limit / self.nodes + usize::from(self.rank < limit % self.nodes);
        }
        let turn = self.turn();
        let behind = (self.at.0 + GAP) / TURN;
        usize::from(self.has_place(limit, turn) && self.has_place(limit, behind))
    }

    /// The number of the turn that it is in.
    #[must_use]
    pub fn turn(self) -> u64 {
        self.at.0 / TURN
    }

    /// How long this node has no part of a limit from now on; zero: it has one.
    #[must_use]
    pub fn wait_for(self, limit: usize) -> Duration {
        if self.of(limit) > 0 || limit == 0 {
            return Duration::ZERO;
        }
        let next = self.turn() + 1;
        let of_turns = next..=next.saturating_add(self.nodes as u64);
        let turn = of_turns.into_iter().find(|turn| self.has_place(limit, *turn)).unwrap_or(next);
        Duration::from_secs((turn * TURN).saturating_sub(self.at.0))
    }

    /// Whether it has one of fewer places than there are nodes. Places move on by as many as there are each turn, so that
    /// nobody is left out.
    fn has_place(self, places: usize, turn: u64) -> bool {
        let nodes = self.nodes as u64;
        let first = turn.wrapping_mul(places as u64) % nodes;
        (self.rank as u64 + nodes - first) % nodes < places as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts of all nodes, in the order of their numbers.
    fn parts(limit: usize, nodes: usize, at: u64) -> Vec<usize> {
        (0..nodes).map(|rank| Share::new(rank, nodes, QueueTime(at)).of(limit)).collect()
    }

    #[test]
    fn a_limit_is_divided_and_the_lowest_numbers_have_the_remainder() {
        for (limit, nodes, expected) in [
            (20, 1, &[20][..]),
            (20, 2, &[10, 10]),
            (20, 3, &[7, 7, 6]),
            (3, 2, &[2, 1]),
            (3, 3, &[1, 1, 1]),
            (5, 4, &[2, 1, 1, 1]),
            (1, 1, &[1]),
        ] {
            assert_eq!(parts(limit, nodes, 12_345), expected, "{limit} {nodes}");
        }
        assert_eq!(Share::WHOLE.of(7), 7);
        assert_eq!(Share::new(5, 0, QueueTime(0)), Share::WHOLE, "nobody but this one");
    }

    #[test]
    fn places_that_are_too_few_go_round() {
        for (limit, nodes, at, expected) in [
            (1, 2, 0, &[1, 0][..]),
            (1, 2, 49, &[1, 0]),
            (1, 2, 50, &[0, 0]),
            (1, 2, 59, &[0, 0]),
            (1, 2, 60, &[0, 1]),
            (1, 2, 109, &[0, 1]),
            (1, 2, 119, &[0, 0]),
            (1, 2, 120, &[1, 0]),
            (2, 3, 0, &[1, 1, 0]),
            (2, 3, 55, &[1, 0, 0]), // the first has the next turn, too
            (2, 3, 60, &[1, 0, 1]),
            (2, 3, 120, &[0, 1, 1]),
            (2, 3, 180, &[1, 1, 0]),
        ] {
            assert_eq!(parts(limit, nodes, at), expected, "{limit} {nodes} {at}");
        }
    }

    #[test]
    fn a_node_knows_when_its_place_comes() {
        for (limit, rank, nodes, at, wait) in [
            (1, 0, 2, 0, 0),
            (1, 0, 2, 50, 70),
            (1, 1, 2, 50, 10),
            (1, 1, 2, 0, 60),
            (1, 2, 3, 1, 119),
            (9, 1, 2, 55, 0),
        ] {
            let share = Share::new(rank, nodes, QueueTime(at));
            assert_eq!(share.wait_for(limit), Duration::from_secs(wait), "{limit} {rank} {nodes} {at}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_all_nodes_are_the_limit(limit in 1..3_000_usize, nodes in 1..1_024_usize, at in 0..1_u64 << 40) {
            let sum: usize = parts(limit, nodes, at).iter().sum();
            if limit >= nodes || at % TURN < TURN - GAP {
                prop_assert_eq!(sum, limit);
            } else {
                prop_assert!(sum <= limit);
            }
        }

        /// Nodes whose clocks are apart by less than the gap never have more places than there are.
        #[test]
        fn clocks_that_are_apart_give_out_no_place_twice(
            limit in 1..20_usize,
            nodes in 1..20_usize,
            at in 0..100_000_u64,
            off in prop::collection::vec(0..GAP, 20),
        ) {
            let part = |(rank, off): (usize, &u64)| Share::new(rank, nodes, QueueTime(at + off)).of(limit);
            let sum: usize = off.iter().take(nodes).enumerate().map(part).sum();
            prop_assert!(sum <= limit, "{} of {}", sum, limit);
        }

        #[test]
        fn everybody_has_a_turn_and_knows_when(limit in 1..20_usize, nodes in 1..20_usize, at in 0..100_000_u64) {
            for rank in 0..nodes {
                let share = |at| Share::new(rank, nodes, QueueTime(at));
                let wait = share(at).wait_for(limit).as_secs();
                prop_assert!(wait <= nodes.div_ceil(limit) as u64 * TURN, "{}", wait);
                prop_assert!(share(at + wait).of(limit) > 0);
                prop_assert!((at..at + wait).all(|at| share(at).of(limit) == 0));
            }
        }
    }
}
