//! Limits the rate at which a mail server is asked. Pure; time is an argument.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Pace {
    /// The time between two questions.
    gap: Duration,
    next: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: u32) -> Self {
        Self { gap: Duration::from_secs(1) / per_second.max(1), next: None }
    }

    /// When a question that comes now may be asked; `None`: not before `until`, and then no slot is taken.
    pub(super) fn reserve(&mut self, now: Instant, until: Instant) -> Option<Instant> {
        let turn = self.next.map_or(now, |next| next.max(now));
        if turn >= until {
            return None;
        }
        self.next = Some(turn + self.gap);
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_keep_their_distance_and_none_waits_in_vain() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(4);
        for (comes, until, turn) in [
            (0, 900, Some(0)),
            (0, 900, Some(250)),
            (10, 900, Some(500)),
            (20, 500, None),
            (20, 750, None),
            (20, 751, Some(750)),
            // An idle time is not credited.
            (5000, 9000, Some(5000)),
            (5000, 9000, Some(5250)),
            (5251, 9000, Some(5500)),
        ] {
            assert_eq!(pace.reserve(at(comes), at(until)), turn.map(at), "{comes} {until}");
        }
    }
}
