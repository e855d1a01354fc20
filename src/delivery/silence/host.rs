//! Decides whether a next hop is silent: several conversations wait for its reply, and none ends. Pure; time is an
//! argument.
//!
//! A wait is late after some seconds, or after twice the host's slowest recent reply. When a few waits are late, and no
//! transaction has ended there meanwhile, the host is silent: a few transactions go on waiting, others move to another
//! host, and new ones try other hosts first. A reply to a late wait, or the end of any transaction, ends the silence;
//! until then a few transactions at a time try it again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The least time after which a wait is late.
pub(super) const LATE: Duration = Duration::from_secs(5);
/// The greatest time after which a wait is late.
const LATE_AT_MOST: Duration = Duration::from_secs(60);
/// How long a slow reply determines when waits are late.
const LATELY: Duration = Duration::from_secs(600);
/// The host is tried again after this time since a wait was in vain.
const PAUSE: Duration = Duration::from_secs(60);
/// How many wait at a silent host: this part of the connector's connections, and at least the given number.
const PART: usize = 8;
const AT_LEAST: usize = 2;

/// How many of the connections wait at a silent host. At least one is left for others.
pub(super) fn few(connections: usize) -> usize {
    (connections / PART).max(AT_LEAST).min(connections.saturating_sub(1))
}

/// Whether to go on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Stay,
    /// Enough wait there already; another host may take the message.
    Leave,
}

#[derive(Debug, Default)]
pub(super) struct Host {
    /// Late waits.
    late: BTreeSet<u64>,
    last: u64,
    /// The slowest of the late replies, and when it came.
    slowest: Option<(Duration, Instant)>,
    /// Since when it is known to be silent, by the last observation.
    silent: Option<Instant>,
}

impl Host {
    /// After how long a wait is late.
    pub(super) fn late_after(&self, now: Instant) -> Duration {
        let slowest = self.slowest.filter(|(_, at)| now.saturating_duration_since(*at) < LATELY);
        slowest.map_or(LATE, |(took, _)| took.saturating_mul(2).clamp(LATE, LATE_AT_MOST))
    }

    /// A wait is late, and the host has ended no transaction since it began. Returns its number from now on.
    pub(super) fn is_late(&mut self, number: Option<u64>, few: usize, now: Instant) -> (u64, Then) {
        let number = number.unwrap_or_else(|| {
            self.last += 1;
            self.last
        });
        self.late.insert(number);
        if self.late.len() >= few.max(1) {
            self.silent = Some(now);
        }
        let before = self.late.range(..number).count();
        (number, if before < few { Then::Stay } else { Then::Leave })
    }

    /// A late wait got its reply after this time.
    pub(super) fn answers(&mut self, number: u64, took: Duration, now: Instant) {
        self.late.remove(&number);
        self.silent = None;
        self.took(took, now);
    }

    /// A late wait ended in vain. If no transaction waits for a slow reply to the end, the next one waits longer.
    pub(super) fn in_vain(&mut self, number: u64, waited: Duration, few: usize, now: Instant) {
        if !self.late.remove(&number) {
            return;
        }
        if self.silent.is_some() {
            self.silent = Some(now);
        }
        if few == 0 {
            self.took(waited, now);
        }
    }

    fn took(&mut self, took: Duration, now: Instant) {
        let lately = self.slowest.filter(|(_, at)| now.saturating_duration_since(*at) < LATELY);
        if lately.is_none_or(|(slowest, _)| took >= slowest) {
            self.slowest = Some((took, now));
        }
    }

    /// A transaction there has ended, with any result.
    pub(super) fn ends_one(&mut self) {
        self.silent = None;
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.is_some()
    }

    /// Whether a transaction should try it as if it were not silent, beside those that are there, to see whether it
    /// answers.
    pub(super) fn is_tried(&self, there: usize, few: usize, now: Instant) -> bool {
        self.silent.is_none_or(|seen| there < few.max(1) && now.saturating_duration_since(seen) >= PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_is_an_eighth_and_leaves_room() {
        for (connections, expected) in
            [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (20, 2), (24, 3), (100, 12), (1000, 125)]
        {
            assert_eq!(few(connections), expected, "{connections}");
        }
    }

    /// Events of a host, a letter each: `l` one more is late, `a` the first of these gets its reply after 20 seconds,
    /// `v` it waited in vain, `e` a transaction ends, `s` a second later, `m` a minute later. Then how many of the late
    /// ones leave, of which 2 may stay; whether it is silent; whether the next transaction goes there, if none is
    /// there.
    #[test]
    fn a_host_is_silent_while_a_few_wait_and_nothing_ends() {
        for (events, leave, silent, tried) in [
            ("", 0, false, true),
            ("l", 0, false, true),
            ("ll", 0, true, false),
            ("llllll", 4, true, false),
            ("llm", 0, true, true),
            ("llmv", 0, true, false),
            ("llvv", 0, true, false),
            ("llvvm", 0, true, true),
            ("llvvml", 0, true, true),
            ("llvvmll", 0, true, false),
            ("lle", 0, false, true),
            ("lla", 0, false, true),
            ("llsa", 0, false, true),
            ("llael", 0, true, false), // the other one still waits
            ("lv", 0, false, true),
            ("lvl", 0, false, true),
        ] {
            let (mut host, mut now, mut late, mut left) = (Host::default(), Instant::now(), Vec::new(), 0);
            for event in events.chars() {
                match event {
                    'l' => {
                        let (number, then) = host.is_late(None, 2, now);
                        late.push(number);
                        left += usize::from(then == Then::Leave);
                    }
                    'a' => host.answers(late.remove(0), Duration::from_secs(20), now),
                    'v' => host.in_vain(late.remove(0), Duration::from_secs(300), 2, now),
                    'e' => host.ends_one(),
                    's' => now += Duration::from_secs(1),
                    _ => now += Duration::from_secs(60),
                }
            }
            assert_eq!((left, host.is_silent(), host.is_tried(0, 2, now)), (leave, silent, tried), "{events}");
        }
    }

    #[test]
    fn a_slow_host_has_its_time() {
        let (mut host, now) = (Host::default(), Instant::now());
        let second = Duration::from_secs(1);
        assert_eq!(host.late_after(now), LATE);
        for (took, after) in [(6, 12), (10, 20), (7, 20), (300, 60)] {
            let (number, _) = host.is_late(None, 2, now);
            host.answers(number, second * took, now);
            assert_eq!(host.late_after(now), second * after, "{took}");
        }
        assert_eq!(host.late_after(now + LATELY), LATE, "it may have become quick");
        let (number, _) = host.is_late(None, 2, now + LATELY);
        host.answers(number, second * 6, now + LATELY);
        assert_eq!(host.late_after(now + LATELY), second * 12);
    }

    /// With one connection no transaction stays; that a host is slow has to be found out all the same.
    #[test]
    fn with_one_connection_each_waits_longer_than_the_one_before() {
        let (mut host, mut now) = (Host::default(), Instant::now());
        let mut waited = Vec::new();
        for _ in 0..6 {
            assert!(host.is_tried(0, few(1), now));
            let late = host.late_after(now);
            let (number, then) = host.is_late(None, few(1), now);
            assert_eq!(then, Then::Leave);
            host.in_vain(number, late, few(1), now);
            assert!(!host.is_tried(0, few(1), now));
            waited.push(late.as_secs());
            now += PAUSE;
        }
        assert_eq!(waited, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn who_waits_longest_stays() {
        let (mut host, now) = (Host::default(), Instant::now());
        let numbers: Vec<u64> = (0..4).map(|_| host.is_late(None, 2, now).0).collect();
        let again = |host: &mut Host, at: usize| host.is_late(Some(numbers[at]), 2, now).1;
        assert_eq!([0, 1, 2, 3].map(|at| again(&mut host, at)), [Then::Stay, Then::Stay, Then::Leave, Then::Leave]);
        host.in_vain(numbers[0], LATE, 2, now);
        assert_eq!([1, 2, 3].map(|at| again(&mut host, at)), [Then::Stay, Then::Stay, Then::Leave]);
        assert!(!host.is_tried(2, 2, now + PAUSE) && host.is_tried(1, 2, now + PAUSE), "a few at a time");
    }
}
