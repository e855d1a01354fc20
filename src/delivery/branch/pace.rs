//! How fast a branch's next hop takes the content, as far as it is the next hop that is waited for.
//!
//! `content` asks before each write how long it may take, and notes what it took. Small pieces count as large ones do:
//! what is written is added up until it is worth two minutes.

use std::time::Duration;

/// What a next hop has to take at least, octets ...
const LEAST: u64 = 120 * 1024;
/// ... in so long: 1 KiB a second (DESIGN section 7). Below it the branch is given up.
const WITHIN: Duration = Duration::from_secs(120);

/// What a next hop took, and how long it took over it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    pub(super) octets: usize,
    pub(super) time: Duration,
}

/// One branch's pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How long it made the message's other branches wait, in all.
    pub(super) behind: Duration,
    /// How long it was waited for since it had taken enough.
    waited: Duration,
    /// Octets that it has taken since.
    taken: u64,
    hurry: Hurry,
}

/// Whether somebody waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Hurry {
    #[default]
    Client,
    /// Nobody: `reply_timeout` ends a write that does not move.
    Nobody,
}

impl Pace {
    /// Where nobody waits.
    pub(super) fn unhurried() -> Self {
        Self { hurry: Hurry::Nobody, ..Self::default() }
    }

    /// How long it may take over what is written next.
    pub(super) fn left(&self) -> Duration {
        match self.hurry {
            Hurry::Client => WITHIN.saturating_sub(self.waited),
            Hurry::Nobody => Duration::MAX,
        }
    }

    /// It has taken octets, and made the others wait.
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
