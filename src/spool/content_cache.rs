//! A bounded cache of small contents that were just accepted, for the first attempt, which usually follows at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::message::queue_id::QueueId;

/// The most bytes that are kept.
const MOST: usize = 16 << 20;
/// An attempt that has not begun by then is not about to: its next hop is away.
const LONGEST: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct ContentCache {
    contents: HashMap<QueueId, Bytes>,
    /// In the order of insertion, with its time; some of these may be gone.
    order: VecDeque<(Instant, QueueId)>,
    bytes: usize,
}

impl ContentCache {
    /// Keeps a content; the oldest are dropped when there are too many bytes, or after [`LONGEST`].
    pub(crate) fn keep(&mut self, id: QueueId, content: Bytes, now: Instant) {
        self.bytes += content.len();
        self.contents.insert(id, content);
        self.order.push_back((now, id));
        while self.bytes > MOST || self.order.len() > 2 * self.contents.len() + 1000 {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            self.take(oldest);
        }
        self.drop_old(now);
    }

    /// Drops what has been here for longer than [`LONGEST`].
    pub(crate) fn drop_old(&mut self, now: Instant) {
        while let Some((_, id)) = self.order.pop_front_if(|(since, _)| now.duration_since(*since) > LONGEST) {
            self.take(id);
        }
        if self.contents.is_empty() {
            self.contents.shrink_to(1000);
            self.order.shrink_to(1000);
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
        let (mut fresh, now) = (ContentCache::default(), Instant::now());
        let content = Bytes::from(vec![0; MOST / 4]);
        for id in 0..6 {
            fresh.keep(QueueId(id), content.clone(), now);
        }
        let kept: Vec<u64> = (0..6).filter(|id| fresh.take(QueueId(*id)).is_some()).collect();
        assert_eq!(kept, [2, 3, 4, 5]);
        assert_eq!((fresh.bytes, fresh.take(QueueId(5))), (0, None));
    }

    #[test]
    fn what_is_gone_takes_no_room() {
        let (mut fresh, now) = (ContentCache::default(), Instant::now());
        for id in 0..100_000 {
            fresh.keep(QueueId(id), Bytes::from_static(b"x"), now);
            fresh.take(QueueId(id));
        }
        assert!(fresh.order.len() < 2000);
    }

    #[test]
    fn what_waits_is_not_kept() {
        let (mut fresh, now) = (ContentCache::default(), Instant::now());
        fresh.keep(QueueId(1), Bytes::from_static(b"x"), now);
        fresh.keep(QueueId(2), Bytes::from_static(b"x"), now + LONGEST);
        assert!(fresh.contents.contains_key(&QueueId(1)));
        fresh.keep(QueueId(3), Bytes::from_static(b"x"), now + LONGEST + Duration::from_secs(1));
        assert_eq!((fresh.take(QueueId(1)), fresh.bytes), (None, 2));
        fresh.drop_old(now + 3 * LONGEST);
        assert_eq!((fresh.contents.len(), fresh.order.len(), fresh.bytes), (0, 0, 0));
    }
}
