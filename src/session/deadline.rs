//! How long a session waits for its client (RFC 5321 4.5.3.2).
//!
//! A command has one deadline, from when the server is ready for it to its CRLF; single octets do not extend it.
//! Content may take as long as it needs at one kibibyte a second: if two minutes of the client's time bring less than
//! that, the session ends, whether the client is silent, slow, or pauses between two chunks. Time in which the client
//! waits for the server does not count.

use std::time::Duration;

use tokio::time::Instant;

use crate::smtp::server::Expect;

/// The least pace of content, octets a second.
const LEAST_A_SECOND: u64 = 1024;
/// It is measured over this many octets ...
const LEAST: u64 = 120 * LEAST_A_SECOND;
/// ... and this time (DESIGN section 7, "Patience"), as next hops are measured.
const WITHIN: Duration = Duration::from_mins(2);

/// A full TCP segment over Ethernet: 1500 octets less the headers of IPv4 and TCP.
const FULL_SEGMENT: u64 = 1460;
/// How long a client that has begun content may be silent before a path MTU fault is suspected.
const SUSPICIOUS: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Deadlines {
    command: Duration,
    /// Since when a command is waited for; `None`: nothing is waited for.
    waiting: Option<Instant>,
    content: Option<Content>,
}

/// The timing of a message's content, from its first octet to its end; with BDAT all chunks and the time between them.
#[derive(Debug)]
struct Content {
    /// When an octet last came; at first when the content began.
    last: Instant,
    octets: u64,
    /// Since when it is the client's turn; `None`: it is not.
    reading: Option<Instant>,
    /// The client's time since the least amount last came.
    waited: Duration,
    /// Octets since then.
    came: u64,
    /// Until when the client is on time at the least pace; octets beyond the pace are not credited.
    paid: Instant,
    /// Since when it is the server's turn.
    ours: Option<Instant>,
}

impl Deadlines {
    pub(super) fn new(command: Duration) -> Self {
        Self { command, waiting: None, content: None }
    }

    /// A command was taken from the input: the next one gets a new deadline.
    pub(super) fn taken(&mut self) {
        self.waiting = None;
    }

    pub(super) fn content_ended(&mut self) {
        self.content = None;
    }

    /// Content is about to begin, or to go on.
    pub(super) fn content_begins(&mut self, now: Instant) {
        let begins =
            || Content { last: now, octets: 0, reading: None, waited: Duration::ZERO, came: 0, paid: now, ours: None };
        self.content.get_or_insert_with(begins);
    }

    /// The deadline for reading that begins at `now`.
    pub(super) fn next(&mut self, expect: Expect, now: Instant) -> Instant {
        if expect == Expect::Content {
            self.content_begins(now);
        }
        let content = self.content.as_mut().map(|content| {
            let since = *content.reading.get_or_insert(now);
            if let Some(ours) = content.ours.take() {
                content.paid += now - ours;
            }
            since + WITHIN.saturating_sub(content.waited)
        });
        match (expect, content) {
            (Expect::Content, Some(content)) => content,
            (_, content) => {
                let command = *self.waiting.get_or_insert(now) + self.command;
                content.map_or(command, |content| content.min(command))
            }
        }
    }

    /// Until when content was on time; the longer ago, the further it is behind. `None`: no content is due.
    pub(super) fn content_paid(&self) -> Option<Instant> {
        self.content.as_ref().map(|content| content.paid)
    }

    /// How long content has stalled that never brought a full segment, and the octets that came: this is what a path
    /// MTU black hole looks like (DESIGN section 7). `None`: it has not stalled, or brought a full segment before.
    pub(super) fn stalled_at_start(&self, now: Instant) -> Option<(Duration, u64)> {
        let Content { last, octets, .. } = self.content.as_ref()?;
        (*octets < FULL_SEGMENT && now - *last >= SUSPICIOUS).then(|| (now - *last, *octets))
    }

    pub(super) fn received(&mut self, count: usize, now: Instant) {
        let Some(content) = &mut self.content else { return };
        content.last = now;
        content.octets += count as u64;
        content.paid = now.min(content.paid + Duration::from_millis(count as u64 * 1000 / LEAST_A_SECOND));
        content.ours = Some(now);
        content.came += count as u64;
        if let Some(since) = content.reading.take() {
            content.waited += now - since;
        }
        if content.came >= LEAST {
            (content.waited, content.came) = (Duration::ZERO, 0);
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
    fn content_has_time_while_a_kibibyte_a_second_comes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (pace, cut) in [(0, 120), (1, 120), (256, 120), (1023, 120), (1024, u64::MAX), (1_000_000, u64::MAX)] {
            let mut deadlines = Deadlines::new(Duration::from_secs(300));
            let mut ended = u64::MAX;
            for second in 0..10_000 {
                if deadlines.next(Expect::Content, at(second)) <= at(second) {
                    ended = second;
                    break;
                }
                // The octets of a second arrive at its end.
                if pace > 0 {
                    deadlines.received(pace, at(second + 1));
                }
            }
            assert!(ended.abs_diff(cut) <= 1, "{pace} octets a second: cut after {ended} s");
        }
    }

    #[test]
    fn what_came_fast_before_does_not_last_and_our_own_time_does_not_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::new(Duration::from_secs(300));
        assert_eq!(deadlines.next(Expect::Content, start), at(120));
        deadlines.received(1_000_000, at(100));
        assert_eq!(deadlines.next(Expect::Content, at(100)), at(220));
        deadlines.received(1, at(150));
        // A next hop does not accept it for an hour.
        assert_eq!(deadlines.next(Expect::Content, at(3750)), at(3750 + 70));
        // Meanwhile the session checks whether somebody wants the connection.
        assert_eq!(deadlines.next(Expect::Content, at(3800)), at(3750 + 70));
        deadlines.content_ended();
        assert_eq!(deadlines.next(Expect::Command, at(4000)), at(4300), "the next command has its own time");
    }

    #[test]
    fn chunks_are_one_content() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut deadlines = Deadlines::new(Duration::from_secs(300));
        assert_eq!(deadlines.next(Expect::Command, start), at(300), "no content yet");
        deadlines.received(8, at(10));
        deadlines.taken();
        assert_eq!(deadlines.next(Expect::Content, at(10)), at(130));
        deadlines.received(1, at(50));
        deadlines.taken();
        assert_eq!(deadlines.next(Expect::Command, at(50)), at(130), "the client's pause between two chunks counts");
    }

    #[test]
    fn content_is_behind_by_what_it_does_not_pay_for() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut deadlines = Deadlines::new(Duration::from_secs(300));
        let behind = |deadlines: &Deadlines, now| at(now) - deadlines.content_paid().unwrap();
        assert_eq!(deadlines.content_paid(), None);
        let _ = deadlines.next(Expect::Content, at(0));
        for second in 1..=20 {
            deadlines.received(1024, at(second * 1000));
            assert_eq!(behind(&deadlines, second * 1000), Duration::ZERO, "a kibibyte a second");
            let _ = deadlines.next(Expect::Content, at(second * 1000));
        }
        for second in 21..=40 {
            deadlines.received(512, at(second * 1000));
            let _ = deadlines.next(Expect::Content, at(second * 1000));
        }
        assert_eq!(behind(&deadlines, 40_000), Duration::from_secs(10), "half of it");
        deadlines.received(64 * 1024, at(40_000));
        assert_eq!(behind(&deadlines, 40_000), Duration::ZERO);
        let _ = deadlines.next(Expect::Content, at(100_000));
        assert_eq!(behind(&deadlines, 100_000), Duration::ZERO, "we let it wait for a minute");
        assert_eq!(behind(&deadlines, 107_000), Duration::from_secs(7), "what came early pays for nothing");
        deadlines.content_ended();
        assert_eq!(deadlines.content_paid(), None);
    }
}
