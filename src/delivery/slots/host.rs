//! How many connections one host is given at once after it refused another one. Pure; time is an argument.
//!
//! Postfix (`smtpd_client_connection_count_limit`, 421 4.7.0), Exchange (`MaxInboundConnectionPerSource`, 421 4.3.2)
//! and Exchange Online (4.7.500) count a client's connections and say that there are too many, never how many they
//! would take. So what was too many is remembered, and one more is tried from time to time.

use std::time::{Duration, Instant};

/// So long after the last refusal, and after each rise, more are allowed.
const RISE: Duration = Duration::from_secs(30);
/// One more each time; where many are allowed, a part of them, so that a thousand are there again in half an hour.
const PART: usize = 8;

/// Fewer connections than the connector allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fewer {
    allowed: usize,
    rises: Instant,
}

impl Fewer {
    /// The host refused one more than `allowed`. `before` is what was known of it.
    pub(super) fn refused(before: Option<Self>, allowed: usize, now: Instant) -> Self {
        let allowed = before.map_or(allowed, |before| before.allowed.min(allowed));
        Self { allowed: allowed.max(1), rises: now + RISE }
    }

    /// How many at once.
    pub(super) fn allowed(&self) -> usize {
        self.allowed
    }

    /// When it should be told the time again.
    pub(super) fn rises(&self) -> Instant {
        self.rises
    }

    /// What is allowed by now; `None`: as many as the connector, which allows `limit`.
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
        // Seconds; then how many were left when the host refused one, or a look; what is allowed of 20.
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
