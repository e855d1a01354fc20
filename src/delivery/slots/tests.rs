//! A connector's slots, divided between nodes.

use super::*;
use crate::time::QueueTime;

const NOBODY: Applicant = Applicant::QUEUE;

fn name() -> Arc<str> {
    "secondary".into()
}

/// The share of a node in a turn that is the first's.
fn share(rank: usize, nodes: usize) -> Share {
    Share::new(rank, nodes, QueueTime(0))
}

fn lowered(idle: usize) -> Vec<Lowered> {
    vec![Lowered { connector: name(), idle }]
}

#[tokio::test]
async fn another_share_counts_at_once() {
    let slots = Slots::default();
    let slot = || slots.try_take(&name(), 3, NOBODY);
    let held = [slot(), slot(), slot()];
    assert!(held.iter().all(Option::is_some) && slot().is_none(), "without other nodes all are ours");
    assert_eq!(slots.idle_limit(&name(), 3), 3);
    // With two nodes this one has two, with three one; what is in use goes on.
    assert_eq!(slots.divide(share(0, 2)), lowered(0));
    assert_eq!(slots.divide(share(0, 2)), []);
    assert_eq!(slots.idle_limit(&name(), 3), 0, "three are in use: none may lie idle");
    let [first, second, third] = held;
    drop(first);
    assert_eq!(slots.idle_limit(&name(), 3), 2);
    assert!(slot().is_none(), "both are in use");
    drop((second, third));
    let again = [slot(), slot()];
    assert!(again.iter().all(Option::is_some) && slot().is_none());
    drop(again);
    assert_eq!(slots.divide(share(2, 3)), lowered(1));
    let (one, two) = (slot(), slot());
    assert!(one.is_some() && two.is_none());
}

#[tokio::test]
async fn who_waits_has_a_slot_when_the_nodes_turn_comes() {
    let slots = Slots::default();
    assert!(slots.divide(share(1, 2)).is_empty(), "no connector is known yet");
    assert!(slots.try_take(&name(), 1, NOBODY).is_none(), "the other node has the place");
    let connector = name();
    let mut waiting = std::pin::pin!(slots.take(&connector, 1, NOBODY));
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(slots.divide(Share::new(1, 2, QueueTime(60))).is_empty());
    let slot = waiting.await;
    // Its turn ends: the transaction goes on, and helps nobody by giving its slot back.
    assert_eq!(slots.divide(share(1, 2)), lowered(0));
    let mut next = std::pin::pin!(slots.take(&connector, 1, NOBODY));
    assert!(futures_util::poll!(&mut next).is_pending());
    assert!(futures_util::poll!(std::pin::pin!(slot.wanted())).is_pending());
    assert_eq!(slot.crowded(), None);
    drop(slot);
    assert!(futures_util::poll!(&mut next).is_pending());
    // The other node is gone.
    assert!(slots.divide(Share::WHOLE).is_empty());
    drop(next.await);
}
