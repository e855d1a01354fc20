//! Gauges of the whole cluster. One node exports them for all, that with the lowest number of those that live; at others,
//! and without `[cluster]`, they are 0.

use prometheus::{IntGaugeVec, Registry};

use super::gauge;

#[derive(Clone)]
pub struct ClusterMetrics {
    /// `cluster_nodes`: those that live.
    pub nodes: IntGaugeVec,
    /// `cluster_configurations`: how many different ones they have.
    pub configurations: IntGaugeVec,
    /// `cluster_queue_messages`: of all nodes, and of none.
    pub queue_messages: IntGaugeVec,
    /// `cluster_queue_oldest_seconds`: the age of the oldest of them.
    pub queue_oldest: IntGaugeVec,
    /// `cluster_unowned_messages`: those that belong to no living node.
    pub unowned_messages: IntGaugeVec,
}

impl ClusterMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            nodes: gauge(r, "cluster_nodes", "Nodes that live", &[]),
            configurations: gauge(r, "cluster_configurations", "Different configurations of nodes that live", &[]),
            queue_messages: gauge(r, "cluster_queue_messages", "Messages in the shared queue", &[]),
            queue_oldest: gauge(
                r,
                "cluster_queue_oldest_seconds",
                "Age of the oldest message in the shared queue",
                &[],
            ),
            unowned_messages: gauge(r, "cluster_unowned_messages", "Messages that belong to no living node", &[]),
        }
    }

    /// Each of them.
    #[must_use]
    pub fn all(&self) -> [&IntGaugeVec; 5] {
        [&self.nodes, &self.configurations, &self.queue_messages, &self.queue_oldest, &self.unowned_messages]
    }

    /// Another node exports them, or none.
    pub fn clear(&self) {
        self.all().iter().for_each(|gauge| gauge.with_label_values::<&str>(&[]).set(0));
    }
}
