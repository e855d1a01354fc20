//! How many concurrent connections a host gets after it has refused one. Pure; time is an argument.
//!
//! Postfix (`smtpd_client_connection_count_limit`, 421 4.7.0), Exchange (`MaxInboundConnectionPerSource`, 421 4.3.2)
//! and Exchange Online (4.7.500) count a client's connections and refuse when there are too many, without giving their
//! limit. So the number that was too many is remembered, and one more is tried from time to time.

use std::time::{Duration, Instant};

/// More are allowed this long after the last refusal, and after each increase.
const RISE: Duration = Duration::from_secs(30);
/// One more each time; with many connections a part of them, so that a thousand are reached again in half an hour.
const PART: usize = 8;

/// A limit below the connector's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fewer {
    allowed: usize,
    rises: Instant,
}

impl Fewer {
    /// The host refused one more than `allowed`. `before` is the previous limit.
    pub(super) fn refused(before: Option<Self>, allowed: usize, now: Instant) -> Self {
        let allowed = before.map_or(allowed, |before| before.allowed.min(allowed));
        Self { allowed: allowed.max(1), rises: now + RISE }
    }

    /// The current limit.
    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// When the limit increases.
    pub(super) fn rises(&self) -> Instant {
        self.rises
    }

    /// The limit by now; `None`: the connector's, which is `limit`.
    pub(super) fn at(mut self, now: Instant, limit: usize) -> Option<Self> {
        while self.allowed < limit && self.rises <= now {
            self.allowed += (self.allowed / PART).max(1);
            self.rises += RISE;
        }
        (self.allowed < limit).then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_lower_it_and_time_raises_it() {
        let start = Instant::now();
        // Seconds; then how many were left when the host refused one, or a check; the limit out of 20.
        let look = None;
        for (events, allowed) in [
            (&[(0, Some(5))][..], Some(5)),
            (&[(0, Some(0))], Some(1)),
            (&[(0, Some(5)), (0, Some(4))], Some(4)),
            (&[(0, Some(5)), (0, Some(7))], Some(5)),
            (&[(0, Some(5)), (29, look)], Some(5)),
            (&[(0, Some(5)), (30, look)], Some(6)),
            (&[(0, Some(5)), (30, look), (59, look)], Some(6)),
            (&[(0, Some(5)), (30, look), (60, look)], Some(7)),
            (&[(0, Some(5)), (61, look)], Some(7)),
            (&[(0, Some(5)), (30, look), (40, Some(5)), (60, look)], Some(5)),
            (&[(0, Some(5)), (30, look), (40, Some(5)), (70, look)], Some(6)),
            (&[(0, Some(15)), (30, look)], Some(16)),
            (&[(0, Some(15)), (60, look)], Some(18)),
            (&[(0, Some(15)), (90, look)], None),
            (&[(0, Some(15)), (3600, look)], None),
            (&[(0, Some(15)), (90, look), (100, Some(17))], Some(17)),
            (&[(0, Some(19)), (30, look)], None),
        ] {
            let mut fewer: Option<Fewer> = None;
            for (seconds, refused) in events {
                let now = start + Duration::from_secs(*seconds);
                fewer = match refused {
                    Some(left) => Some(Fewer::refused(fewer, *left, now)),
                    None => fewer.and_then(|fewer| fewer.at(now, 20)),
                };
            }
            assert_eq!(fewer.map(|fewer| fewer.allowed()), allowed, "{events:?}");
        }
    }

    #[test]
    fn a_large_connector_is_not_held_back_for_hours() {
        let start = Instant::now();
        let fewer = Fewer::refused(None, 1, start);
        assert_eq!(fewer.at(start + 7 * RISE, 1000).unwrap().allowed(), 8, "few rise by one");
        assert!(fewer.at(start + Duration::from_mins(20), 1000).is_some());
        assert_eq!(fewer.at(start + Duration::from_mins(30), 1000), None);
    }

    #[test]
    fn a_limit_that_became_lower_is_the_limit() {
        let fewer = Fewer::refused(None, 5, Instant::now());
        assert_eq!(fewer.at(Instant::now(), 5), None);
        assert_eq!(fewer.at(Instant::now(), 2), None);
    }
}
