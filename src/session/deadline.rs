//! How long a session waits for its client (RFC 5321 4.5.3.2).
//!
//! A command has one deadline from the moment we are ready for it to its CRLF: octets that drip in do not move it.
//! Content may take as long as it needs while it moves: three minutes without an octet end it, and so does a pace
//! that no network has.

use std::time::Duration;

use tokio::time::Instant;

use crate::smtp::server::Expect;

/// RFC 5321 4.5.3.2.5: between two blocks of data.
const STALLED: Duration = Duration::from_mins(3);
/// How long content may take at any pace.
const ANY_PACE: Duration = Duration::from_mins(10);
/// The pace of which it may take as long as it needs, octets a second: a quarter of a 9600 baud line.
const SLOWEST: u64 = 256;

/// A segment over Ethernet: 1500 octets less the headers of IPv4 and TCP.
const FULL_SEGMENT: u64 = 1460;
/// How long a client that is about to send content is silent before something may be wrong.
const SUSPICIOUS: Duration = Duration::from_secs(10);

/// One session's deadlines.
#[derive(Debug)]
pub(super) struct Deadlines {
    command: Duration,
    waiting: Waiting,
}

/// What is waited for.
#[derive(Debug)]
enum Waiting {
    /// A command was taken, or nothing has been read yet.
    Nothing,
    /// A command, since then.
    Command(Instant),
    /// Content: when it began, when an octet last came, and how many there were.
    Content { began: Instant, last: Instant, octets: u64 },
}

impl Deadlines {
    pub(super) fn new(command: Duration) -> Self {
        Self { command, waiting: Waiting::Nothing }
    }

    /// Something was taken from the input: the next command has its own time.
    pub(super) fn taken(&mut self) {
        if let Waiting::Command(_) = self.waiting {
            self.waiting = Waiting::Nothing;
        }
    }

    /// We are about to read at `now`: until when.
    pub(super) fn next(&mut self, expect: Expect, now: Instant) -> Instant {
        match (expect, &mut self.waiting) {
            (Expect::Command, Waiting::Command(since)) => *since + self.command,
            (Expect::Command, Waiting::Nothing | Waiting::Content { .. }) => {
                self.waiting = Waiting::Command(now);
                now + self.command
            }
            (Expect::Content, Waiting::Content { began, last, octets }) => {
                let pace = ANY_PACE + Duration::from_secs(*octets / SLOWEST);
                (*last + STALLED).min(*began + pace)
            }
            (Expect::Content, Waiting::Nothing | Waiting::Command(_)) => {
                self.waiting = Waiting::Content { began: now, last: now, octets: 0 };
                now + STALLED
            }
        }
    }

    /// How long content has stood still that began and never brought a full segment, with the octets that came: behind
    /// a path MTU black hole it does (DESIGN section 7). `None`: it moves, or it moved.
    pub(super) fn stalled_at_start(&self, now: Instant) -> Option<(Duration, u64)> {
        match self.waiting {
            Waiting::Content { last, octets, .. } if octets < FULL_SEGMENT && now - last >= SUSPICIOUS => {
                Some((now - last, octets))
            }
            _ => None,
        }
    }

    /// Octets have come in.
    pub(super) fn received(&mut self, count: usize, now: Instant) {
        if let Waiting::Content { last, octets, .. } = &mut self.waiting {
            *last = now;
            *octets += count as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_drips_in_is_cut() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::new(Duration::from_secs(300));
        for second in [0, 100, 200, 299] {
            assert_eq!(deadlines.next(Expect::Command, at(second)), at(300));
            deadlines.received(1, at(second));
        }
        deadlines.taken();
        assert_eq!(deadlines.next(Expect::Command, at(299)), at(599));
    }

    #[test]
    fn content_that_stands_still_from_its_start_is_suspicious() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (octets, silence, suspicious) in
            [(0_u64, 9_u64, false), (0, 10, true), (900, 180, true), (1460, 180, false), (100_000, 180, false)]
        {
            let mut deadlines = Deadlines::new(Duration::from_secs(300));
            assert_eq!(deadlines.stalled_at_start(at(100)), None);
            deadlines.next(Expect::Command, start);
            assert_eq!(deadlines.stalled_at_start(at(100)), None);
            deadlines.next(Expect::Content, start);
            deadlines.received(usize::try_from(octets).unwrap(), at(5));
            let found = deadlines.stalled_at_start(at(5 + silence));
            let silence = Duration::from_secs(silence);
            assert_eq!(found, suspicious.then_some((silence, octets)), "{octets} {silence:?}");
        }
    }

    #[test]
    fn content_has_time_while_it_moves() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (pace, cut) in [(0, 180), (1, 602), (255, 153_600), (256, u64::MAX), (1_000_000, u64::MAX)] {
            let mut deadlines = Deadlines::new(Duration::from_secs(300));
            let mut ended = u64::MAX;
            for second in 0..200_000 {
                if deadlines.next(Expect::Content, at(second)) <= at(second) {
                    ended = second;
                    break;
                }
                if pace > 0 {
                    deadlines.received(pace, at(second));
                }
            }
            assert!(ended.abs_diff(cut) <= cut / 100, "{pace} octets a second: cut after {ended} s");
        }
        let mut deadlines = Deadlines::new(Duration::from_secs(300));
        deadlines.next(Expect::Content, start);
        deadlines.received(1_000_000, at(170));
        assert_eq!(deadlines.next(Expect::Content, at(170)), at(350), "silence is what counts, not the whole");
    }
}
