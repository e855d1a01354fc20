//! When a client may lose the connections to next hops that its transaction holds: only if another transaction waits
//! for one, and only for time that the client itself takes. Pure.
//!
//! Only RCPT and content are progress. A connection that is taken back costs repeating the envelope later. So where
//! more transactions wait than there are connections, a silent client keeps its own no longer than the next hop took
//! for the envelope, which is what repeating it will cost. Three hundred clients that stop after RCPT then hold twenty
//! connections for 20 ms each instead of half a second.

use std::time::{Duration, Instant};

/// A client that is silent for this long between two RCPTs, or before DATA, may lose its connections.
const SILENT: Duration = Duration::from_millis(500);
/// The client's own time from the first RCPT to the header section.
const ENVELOPE: Duration = Duration::from_secs(10);
/// How long content is measured before it is called slow.
const CONTENT: Duration = Duration::from_millis(500);

/// The same three while more wait than there are connections.
const CROWDED_SILENT: Duration = Duration::from_millis(20);
const CROWDED_ENVELOPE: Duration = Duration::from_millis(500);
const CROWDED_CONTENT: Duration = Duration::from_millis(100);
/// How often a session checks whether more wait.
const LOOK: Duration = Duration::from_millis(50);

/// How many other transactions want a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// None, or no more than there are connections.
    Few,
    /// More than there are connections; this one has been held for this time.
    Many(Duration),
}

/// When a waiting session checks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Then it may lose its connections.
    MayLose(Instant),
    /// Then it checks how many others wait.
    AtOthers(Instant),
}

impl Look {
    pub(super) fn at(self) -> Instant {
        let (Self::MayLose(at) | Self::AtOthers(at)) = self;
        at
    }
}

/// Measures the client's time in one transaction.
#[derive(Debug)]
pub(super) struct Lease {
    phase: Phase,
    /// Since when the client is waited for now.
    waiting: Option<Instant>,
    /// The client's time in this phase.
    own: Duration,
    /// The client's time since its last RCPT.
    silent: Duration,
    pub(super) state: LeaseState,
}

/// The phase of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Envelope,
    /// Content, since this time.
    Content(Instant),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseState {
    Keeps,
    /// If somebody wants them.
    MayLose,
    /// It lost one while its content was streamed, which happens at most once for a message.
    HasLost,
}

impl Lease {
    pub(super) fn new() -> Self {
        let (own, silent) = (Duration::ZERO, Duration::ZERO);
        Self { phase: Phase::Envelope, waiting: None, own, silent, state: LeaseState::Keeps }
    }

    /// The client is waited for from now on. Returns when to check again; `None`: it may lose its connections already,
    /// or never will.
    pub(super) fn wait(&mut self, now: Instant, others: Others) -> Option<Look> {
        if self.state != LeaseState::Keeps {
            self.waiting.get_or_insert(now);
            return None;
        }
        let (at, next) = (self.lost_at(now, others), now + LOOK);
        Some(if others == Others::Few && next < at { Look::AtOthers(next) } else { Look::MayLose(at) })
    }

    fn lost_at(&mut self, now: Instant, others: Others) -> Instant {
        let since = *self.waiting.get_or_insert(now);
        match self.phase {
            Phase::Envelope => {
                let (silent, all) = match others {
                    Others::Few => (SILENT, ENVELOPE),
                    Others::Many(held) => {
                        let asking = held.saturating_sub(self.own + now.saturating_duration_since(since));
                        (asking.clamp(CROWDED_SILENT, SILENT), CROWDED_ENVELOPE)
                    }
                };
                since + silent.saturating_sub(self.silent).min(all.saturating_sub(self.own))
            }
            Phase::Content(began) => {
                // Half of the rest is the client's own time.
                let ours = since.saturating_duration_since(began).saturating_sub(self.own);
                let least = if others == Others::Few { CONTENT } else { CROWDED_CONTENT };
                (since + ours.saturating_sub(self.own)).max(began + least)
            }
        }
    }

    /// The client may lose its connections from now on.
    pub(super) fn may_lose(&mut self) {
        if self.state == LeaseState::Keeps {
            self.state = LeaseState::MayLose;
        }
    }

    /// Octets came.
    pub(super) fn came(&mut self, now: Instant) {
        if let Some(since) = self.waiting.take() {
            let waited = now.saturating_duration_since(since);
            self.own += waited;
            self.silent += waited;
        }
        if self.state == LeaseState::MayLose {
            self.state = LeaseState::Keeps;
        }
    }

    pub(super) fn progress(&mut self) {
        self.silent = Duration::ZERO;
    }

    /// The header section is complete, and content follows.
    pub(super) fn content(&mut self, now: Instant) {
        *self = Self { phase: Phase::Content(now), state: self.state, ..Self::new() };
    }

    /// A stream was broken off.
    pub(super) fn lost(&mut self) {
        self.state = LeaseState::HasLost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays what a client does, each step with the milliseconds that it was waited for before: `r` a RCPT, `n` a NOOP,
    /// `h` the header section, `c` content; `.` the server was busy for that time. Returns after how much more silence
    /// it may lose its connections.
    fn left(events: &[(char, u64)], others: Others) -> u64 {
        let (mut lending, mut now) = (Lease::new(), Instant::now());
        for (event, milliseconds) in events {
            if *event != '.' {
                lending.wait(now, others);
            }
            now += Duration::from_millis(*milliseconds);
            match event {
                '.' => continue,
                'r' => {
                    lending.came(now);
                    lending.progress();
                }
                'h' => {
                    lending.came(now);
                    lending.content(now);
                }
                _ => lending.came(now),
            }
        }
        let at = lending.lost_at(now, others);
        u64::try_from(at.saturating_duration_since(now).as_millis()).unwrap()
    }

    #[test]
    fn only_recipients_and_content_are_progress() {
        for (events, expected) in [
            (&[('r', 10)][..], 500),
            (&[('r', 10), ('r', 400)], 500),
            (&[('r', 10), ('n', 300)], 200),
            (&[('r', 10), ('n', 300), ('n', 300)], 0),
            (&[('r', 10), ('n', 300), ('.', 5000)], 200),
            (&[('r', 10), ('r', 490), ('r', 490)], 500),
            (&[('r', 9_700), ('r', 200)], 100),
            (&[('r', 11_000)], 0),
            (&[('r', 10), ('h', 100)], 500),
            // Half of the time is the client's, in which it is waited for.
            (&[('h', 1), ('c', 100), ('.', 100), ('c', 100), ('.', 2000)], 1900),
            (&[('h', 1), ('c', 700), ('.', 100), ('c', 700), ('.', 100)], 0),
        ] {
            assert_eq!(left(events, Others::Few), expected, "{events:?}");
        }
    }

    #[test]
    fn in_a_crowd_it_keeps_them_for_as_long_as_asking_took() {
        let many = |held| Others::Many(Duration::from_millis(held));
        for (events, held, expected) in [
            (&[('r', 10)][..], 5, 20),
            (&[('r', 10), ('.', 200)], 210, 200),
            (&[('r', 10), ('.', 3000)], 3000, 490), // of half a second of its own
            (&[('r', 10), ('n', 15)], 30, 5),
            (&[('r', 10), ('n', 300)], 310, 0),
            (&[('r', 10), ('r', 480)], 490, 10),
            (&[('r', 600)], 600, 0),
            (&[('h', 1)], 1, 100),
            (&[('h', 1), ('c', 60), ('.', 100), ('c', 60), ('.', 10)], 200, 0),
        ] {
            assert_eq!(left(events, many(held)), expected, "{events:?}");
        }
    }

    #[test]
    fn a_session_looks_again_whether_there_is_a_crowd() {
        let (mut lending, start) = (Lease::new(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(lending.wait(start, Others::Few), Some(Look::AtOthers(at(50))));
        assert_eq!(lending.wait(at(50), Others::Few), Some(Look::AtOthers(at(100))));
        assert_eq!(lending.wait(at(470), Others::Few), Some(Look::MayLose(at(500))));
        let many = Others::Many(Duration::from_millis(103));
        assert_eq!(lending.wait(at(100), many), Some(Look::MayLose(at(20))), "at once");
    }

    /// Simulates sessions that stop after RCPT, with 2 ms for each question to the next hop; returns how many got a
    /// connection by then.
    fn asked_about(sessions: usize, connections: usize, until: u64) -> usize {
        let start = Instant::now();
        let (mut waiting, mut asked, mut held) = (sessions, 0, Vec::new());
        for millisecond in 0..until {
            let now = start + Duration::from_millis(millisecond);
            held.retain_mut(|(lending, since): &mut (Lease, Instant)| {
                let since_then = now.duration_since(*since);
                if since_then < Duration::from_millis(2) || waiting == 0 {
                    return true;
                }
                let others = if waiting > connections { Others::Many(since_then) } else { Others::Few };
                !matches!(lending.wait(now, others), Some(Look::MayLose(at)) if at <= now)
            });
            while held.len() < connections && waiting > 0 {
                waiting -= 1;
                asked += 1;
                held.push((Lease::new(), now));
            }
        }
        asked
    }

    #[test]
    fn three_hundred_that_stop_hold_up_nobody_for_long() {
        assert_eq!(asked_about(20, 20, 1), 20);
        assert_eq!(asked_about(40, 20, 400), 20, "no more wait than there are");
        assert_eq!(asked_about(40, 20, 600), 40);
        // Half a second of silence each: 20 of them.
        let served = asked_about(300, 20, 330);
        assert!(served >= 280, "{served}");
        assert_eq!(asked_about(300, 20, 900), 300);
        let served = asked_about(300, 2, 3500);
        assert!(served >= 290, "{served}");
    }

    #[test]
    fn a_stream_is_broken_off_once() {
        let (mut lending, now) = (Lease::new(), Instant::now());
        lending.content(now);
        assert!(lending.wait(now, Others::Few).is_some());
        lending.may_lose();
        assert_eq!(lending.wait(now, Others::Few), None);
        lending.lost();
        lending.came(now);
        assert_eq!((lending.state, lending.wait(now, Others::Few)), (LeaseState::HasLost, None));
    }
}
