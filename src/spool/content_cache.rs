//! A bounded cache of small contents that were just accepted, for the first attempt, which usually follows at once.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::message::queue_id::QueueId;

/// The most bytes that are kept.
const MOST: usize = 16 << 20;

#[derive(Debug, Default)]
pub(crate) struct ContentCache {
    contents: HashMap<QueueId, Bytes>,
    /// Insertion order; some of these may be gone.
    order: VecDeque<QueueId>,
    bytes: usize,
}

impl ContentCache {
    /// Keeps a content; the oldest are dropped when there are too many bytes.
    pub(crate) fn keep(&mut self, id: QueueId, content: Bytes) {
        self.bytes += content.len();
        self.contents.insert(id, content);
        self.order.push_back(id);
        while self.bytes > MOST || self.order.len() > 2 * self.contents.len() + 1000 {
            let Some(oldest) = self.order.pop_front() else { return };
            self.take(oldest);
        }
    }

    /// Takes a content out.
    pub(crate) fn take(&mut self, id: QueueId) -> Option<Bytes> {
        let content = self.contents.remove(&id)?;
        self.bytes -= content.len();
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_each_is_handed_out_once() {
        let mut fresh = ContentCache::default();
        let content = Bytes::from(vec![0; MOST / 4]);
        for id in 0..6 {
            fresh.keep(QueueId(id), content.clone());
        }
        let kept: Vec<u64> = (0..6).filter(|id| fresh.take(QueueId(*id)).is_some()).collect();
        assert_eq!(kept, [2, 3, 4, 5]);
        assert_eq!((fresh.bytes, fresh.take(QueueId(5))), (0, None));
    }

    #[test]
    fn what_is_gone_takes_no_room() {
        let mut fresh = ContentCache::default();
        for id in 0..100_000 {
            fresh.keep(QueueId(id), Bytes::from_static(b"x"));
            fresh.take(QueueId(id));
        }
        assert!(fresh.order.len() < 2000);
    }
}
