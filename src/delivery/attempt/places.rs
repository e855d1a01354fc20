//! How many connections a send connector may have at once (`max_connections`): who waits is served in turn.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fast_map::FastMap;

/// A place for one connection, until it is dropped.
pub(super) type Place = Option<OwnedSemaphorePermit>;

/// The places of all connectors.
#[derive(Default)]
pub(super) struct Places(Mutex<FastMap<Arc<str>, Connector>>);

struct Connector {
    limit: usize,
    free: Arc<Semaphore>,
}

impl Places {
    /// Waits for a place. After a change of the limit there may be more connections than it says until the old ones
    /// are done.
    pub(super) async fn take(&self, connector: &Arc<str>, limit: usize) -> Place {
        let free = self.of(connector, limit);
        free.acquire_owned().await.ok()
    }

    /// A place that is free now.
    pub(super) fn try_take(&self, connector: &Arc<str>, limit: usize) -> Option<Place> {
        self.of(connector, limit).try_acquire_owned().ok().map(Some)
    }

    fn of(&self, connector: &Arc<str>, limit: usize) -> Arc<Semaphore> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(connector).filter(|known| known.limit == limit) {
            return known.free.clone();
        }
        let free = Arc::new(Semaphore::new(limit.max(1)));
        all.insert(connector.clone(), Connector { limit, free: free.clone() });
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn places_are_given_in_turn() {
        let places = Arc::new(Places::default());
        let name: Arc<str> = "secondary".into();
        let first = places.take(&name, 1).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..3 {
            let (places, name, order) = (places.clone(), name.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let _place = places.take(&name, 1).await;
                order.lock().unwrap().push(number);
            }));
            tokio::task::yield_now().await;
        }
        assert!(order.lock().unwrap().is_empty());
        drop(first);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
        let _kept = places.take(&name, 1).await;
        assert!(places.take(&name, 2).await.is_some(), "a new limit holds at once");
    }
}
