//! How long a session waits for its client (RFC 5321 4.5.3.2).
//!
//! A command has one deadline from the moment we are ready for it to its CRLF: octets that drip in do not move it.
//! Content may take as long as it needs while a kibibyte a second comes: whenever two minutes of the client's own time
//! bring less than two minutes' worth it ends, whether it is silent, drips, or stands still between two chunks. What
//! we make the client wait does not count.

use std::time::Duration;

use tokio::time::Instant;

use crate::smtp::server::Expect;

/// Of a content has to come, octets in a second.
const LEAST_A_SECOND: u64 = 1024;
/// This is looked at over so many octets ...
const LEAST: u64 = 120 * LEAST_A_SECOND;
/// ... in so long: 1 KiB a second (DESIGN section 7, "Patience"), as next hops have to take it.
const WITHIN: Duration = Duration::from_mins(2);

/// A segment over Ethernet: 1500 octets less the headers of IPv4 and TCP.
const FULL_SEGMENT: u64 = 1460;
/// How long a client that is about to send content is silent before something may be wrong.
const SUSPICIOUS: Duration = Duration::from_secs(10);

/// One session's deadlines.
#[derive(Debug)]
pub(super) struct Deadlines {
    command: Duration,
    /// Since when a command is waited for; `None`: one was taken, or nothing has been read yet.
    waiting: Option<Instant>,
    content: Option<Content>,
}

/// A message's content, from its first octet on until it has ended: of BDAT all chunks and what is between them.
#[derive(Debug)]
struct Content {
    /// When an octet last came, or it began.
    last: Instant,
    /// How many there were.
    octets: u64,
    /// Since when we read; `None`: it is not the client's turn.
    reading: Option<Instant>,
    /// The client's time since enough had come.
    waited: Duration,
    /// Octets that have come since.
    came: u64,
    /// Until when the octets that came pay for the client's time at the least pace; what came early pays for nothing.
    paid: Instant,
    /// Since when it is not the client's turn.
    ours: Option<Instant>,
}

impl Deadlines {
    pub(super) fn new(command: Duration) -> Self {
        Self { command, waiting: None, content: None }
    }

    /// Something was taken from the input: the next command has its own time.
    pub(super) fn taken(&mut self) {
        self.waiting = None;
    }

    /// The message has ended.
    pub(super) fn content_ended(&mut self) {
        self.content = None;
    }

    /// Content is about to come, or some has and more will.
    pub(super) fn content_begins(&mut self, now: Instant) {
        let begins =
            || Content { last: now, octets: 0, reading: None, waited: Duration::ZERO, came: 0, paid: now, ours: None };
        self.content.get_or_insert_with(begins);
    }

    /// We are about to read at `now`: until when.
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

    /// Until when content was fast enough; how long ago that is says how far it is behind. `None`: none is due.
    pub(super) fn content_paid(&self) -> Option<Instant> {
        self.content.as_ref().map(|content| content.paid)
    }

    /// How long content has stood still that began and never brought a full segment, with the octets that came: behind
    /// a path MTU black hole it does (DESIGN section 7). `None`: it moves, or it moved.
    pub(super) fn stalled_at_start(&self, now: Instant) -> Option<(Duration, u64)> {
        let Content { last, octets, .. } = self.content.as_ref()?;
        (*octets < FULL_SEGMENT && now - *last >= SUSPICIOUS).then(|| (now - *last, *octets))
    }

    /// Octets have come in.
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
                // The octets of a second are there when it has gone by.
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
        // For an hour a next hop does not take it.
        assert_eq!(deadlines.next(Expect::Content, at(3750)), at(3750 + 70));
        // It is looked at meanwhile whether somebody wants the connection.
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
