//! Measures how fast a branch's next hop takes the content, counting only the time that it is waited for.
//!
//! `content` asks before each write how long it may take, and records the result. Octets are added up until they are
//! worth two minutes, so the size of pieces does not matter.

use std::time::Duration;

/// The least number of octets that a next hop has to take ...
const LEAST: u64 = 120 * 1024;
/// ... in this time: 1 KiB a second (DESIGN section 7). Below that the branch is given up.
const WITHIN: Duration = Duration::from_secs(120);

/// Octets that a next hop took, and the time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    pub(super) octets: usize,
    pub(super) time: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long it made the message's other branches wait in total.
    pub(super) behind: Duration,
    /// How long it was waited for since it last took the least amount.
    waited: Duration,
    /// Octets since then.
    taken: u64,
    hurry: Hurry,
}

/// Whether a client waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Hurry {
    #[default]
    Client,
    /// No: a write without progress ends by `reply_timeout`.
    Nobody,
}

impl Pace {
    /// For a branch without a waiting client.
    pub(super) fn unhurried() -> Self {
        Self { hurry: Hurry::Nobody, ..Self::default() }
    }

    /// The time limit for the next write.
    pub(super) fn left(&self) -> Duration {
        match self.hurry {
            Hurry::Client => WITHIN.saturating_sub(self.waited),
            Hurry::Nobody => Duration::MAX,
        }
    }

    /// Records a write, and how long it made the others wait.
    pub(super) fn took(&mut self, Took { octets, time }: Took, behind: Duration) {
        self.behind += behind;
        self.waited += time;
        self.taken += octets as u64;
        if self.taken >= LEAST {
            (self.waited, self.taken) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kibibyte_a_second_will_do_in_pieces_of_any_size() {
        let second = Duration::from_secs(1);
        for (octets, seconds, keeps_up) in [
            (1024, 1, true),
            (1000, 1, false),
            (64 * 1024, 59, true),
            (64 * 1024, 61, false),
            (120 * 1024, 120, true),
            (1 << 20, 120, true),
            (1 << 20, 121, false),
            (1, 0, true),
        ] {
            let mut pace = Pace::default();
            let kept_up = (0..1000).all(|_| {
                let in_time = seconds * second <= pace.left();
                pace.took(Took { octets, time: seconds * second }, Duration::ZERO);
                in_time
            });
            assert_eq!(kept_up, keeps_up, "{octets} octets in {seconds} s");
        }
    }

    #[test]
    fn what_was_taken_fast_before_does_not_last() {
        let mut pace = Pace::default();
        pace.took(Took { octets: 100 << 20, time: Duration::from_secs(1) }, Duration::ZERO);
        assert_eq!(pace.left(), WITHIN);
        pace.took(Took { octets: 1024, time: Duration::from_secs(100) }, Duration::ZERO);
        assert_eq!(pace.left(), Duration::from_secs(20));
    }
}
