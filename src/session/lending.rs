//! When a client may lose the connections to next hops that its transaction holds: only where somebody waits for one, and
//! only for what it makes us wait itself. Pure.
//!
//! Only RCPT and content are progress. What is taken back costs nothing but the envelope said once more.

use std::time::{Duration, Instant};

/// A client that is silent for so long between two RCPTs, or before DATA, can do without for a moment.
const SILENT: Duration = Duration::from_millis(500);
/// How much of its own time a client has, from the first RCPT to the header section.
const ENVELOPE: Duration = Duration::from_secs(10);
/// Content is looked at for so long before it is called slow.
const CONTENT: Duration = Duration::from_millis(500);

/// One transaction's time, as far as we wait for the client.
#[derive(Debug)]
pub(super) struct Lending {
    phase: Phase,
    /// Since when we wait now.
    waiting: Option<Instant>,
    /// The client's own time in this phase.
    own: Duration,
    /// The same since its last RCPT.
    silent: Duration,
    /// Whether it may lose its connections: somebody only has to ask.
    pub(super) state: State,
}

/// Where the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Envelope,
    /// The content, since then.
    Content(Instant),
}

/// Whether a client may lose its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not yet.
    Keeps,
    /// If somebody wants them.
    MayLose,
    /// It lost one while its content streamed: that happens once a message.
    HasLost,
}

impl Lending {
    pub(super) fn new() -> Self {
        let (own, silent) = (Duration::ZERO, Duration::ZERO);
        Self { phase: Phase::Envelope, waiting: None, own, silent, state: State::Keeps }
    }

    /// We wait for the client from now on. When it may lose its connections; `None`: it may, or it never will.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.waiting.get_or_insert(now);
        match (self.state, self.phase) {
            (State::MayLose | State::HasLost, _) => None,
            (State::Keeps, Phase::Envelope) => {
                let left = SILENT.saturating_sub(self.silent).min(ENVELOPE.saturating_sub(self.own));
                Some(since + left)
            }
            (State::Keeps, Phase::Content(began)) => {
                // Half of the time is its own then.
                let ours = since.saturating_duration_since(began).saturating_sub(self.own);
                Some((since + ours.saturating_sub(self.own)).max(began + CONTENT))
            }
        }
    }

    /// The time came.
    pub(super) fn may_lose(&mut self) {
        if self.state == State::Keeps {
            self.state = State::MayLose;
        }
    }

    /// Octets came.
    pub(super) fn came(&mut self, now: Instant) {
        if let Some(since) = self.waiting.take() {
            let waited = now.saturating_duration_since(since);
            self.own += waited;
            self.silent += waited;
        }
        if self.state == State::MayLose {
            self.state = State::Keeps;
        }
    }

    /// A RCPT.
    pub(super) fn progress(&mut self) {
        self.silent = Duration::ZERO;
    }

    /// The header section is there, and the content comes.
    pub(super) fn content(&mut self, now: Instant) {
        *self = Self { phase: Phase::Content(now), state: self.state, ..Self::new() };
    }

    /// A stream was broken off.
    pub(super) fn lost(&mut self) {
        self.state = State::HasLost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client does, each with the milliseconds that we waited for it before: `r` a RCPT, `n` a NOOP, `h` the header
    /// section, `c` content; `.` we were busy for so long. Returns after how much more silence it may lose its connections.
    fn left(events: &[(char, u64)]) -> u64 {
        let (mut lending, mut now) = (Lending::new(), Instant::now());
        for (event, milliseconds) in events {
            if *event != '.' {
                lending.wait(now);
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
        let at = lending.wait(now).unwrap();
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
            // Half of the time is the client's: it is what we wait for.
            (&[('h', 1), ('c', 100), ('.', 100), ('c', 100), ('.', 2000)], 1900),
            (&[('h', 1), ('c', 700), ('.', 100), ('c', 700), ('.', 100)], 0),
        ] {
            assert_eq!(left(events), expected, "{events:?}");
        }
    }

    #[test]
    fn a_stream_is_broken_off_once() {
        let (mut lending, now) = (Lending::new(), Instant::now());
        lending.content(now);
        assert!(lending.wait(now).is_some());
        lending.may_lose();
        assert_eq!(lending.wait(now), None);
        lending.lost();
        lending.came(now);
        assert_eq!((lending.state, lending.wait(now)), (State::HasLost, None));
    }
}
