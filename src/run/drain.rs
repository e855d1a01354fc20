//! A drain: the node goes on and says that it is draining, until it is stopped.

use super::Node;
use crate::admin::drain::Pause;
use crate::admin::probes::Phase;

impl Node {
    /// Completes when an operator has asked for a drain; the node has to be stopped after this pause. From now on it says
    /// that it is draining.
    pub async fn asked_to_drain(&self) -> Pause {
        let mut drain = self.drain.subscribe();
        let pause = drain.wait_for(Option::is_some).await.ok().and_then(|pause| *pause);
        let Some(pause) = pause else { return std::future::pending().await }; // its sender lives as long as this
        self.phase.send_replace(Phase::Draining);
        pause
    }
}
