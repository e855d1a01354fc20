//! One receive connector's connections: how many each client has, and which is closed when slots are short.
//! `connection_slots` has one for each connector.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::eviction::{Order, first_to_go, is_crowded, is_overdue};
use crate::session::turn::{Idle, Stage, Turn, Why};
use crate::smtp::envelope::Whose;

/// The part of a scan's result that is remembered, and the least number: so consecutive evictions do not each need a
/// scan.
const REMEMBERED: usize = 16;
/// With this many connections a scan without a result is not repeated at once.
const MANY: usize = 256;
/// It is repeated after this time.
const LATELY: Duration = Duration::from_millis(10);

/// The connections of one connector.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) all: usize,
    /// `max_connections`, as the last client saw it.
    pub(super) most: usize,
    by_client: HashMap<IpAddr, usize>,
    connected: Vec<Option<Connected>>,
    /// Free indexes of `connected`.
    free: Vec<usize>,
    /// The first to be closed is last.
    first: Vec<(usize, Idle)>,
    /// When a scan had no result.
    in_vain: Option<Duration>,
    /// How many had proven to be known, and when they were counted.
    known: Option<(Duration, usize)>,
}

pub(super) struct Connected {
    pub(super) turn: Turn,
    /// As clients are counted.
    pub(super) client: IpAddr,
    /// By its connector.
    pub(super) whose: Whose,
}

impl Crowd {
    /// How many connections this client has.
    pub(super) fn of(&self, client: IpAddr) -> usize {
        self.by_client.get(&client).copied().unwrap_or_default()
    }

    /// The approximate number of strangers.
    pub(super) fn strangers(&mut self, now: Duration) -> usize {
        let lately = self.known.filter(|(at, _)| self.all >= MANY && now.saturating_sub(*at) < LATELY);
        let (_, known) = lately.unwrap_or_else(|| {
            let known = self.connected.iter().flatten().filter(|connected| connected.turn.is_known()).count();
            *self.known.insert((now, known))
        });
        self.all.saturating_sub(known)
    }

    /// Adds a connection; returns its index.
    pub(super) fn add(&mut self, connected: Connected) -> usize {
        self.all += 1;
        *self.by_client.entry(connected.client).or_default() += 1;
        match self.free.pop() {
            Some(at) => {
                self.connected[at] = Some(connected);
                at
            }
            None => {
                self.connected.push(Some(connected));
                self.connected.len() - 1
            }
        }
    }

    pub(super) fn leave(&mut self, at: usize) -> Option<Connected> {
        let gone = self.connected.get_mut(at)?.take()?;
        self.free.push(at);
        self.all = self.all.saturating_sub(1);
        if let Some(here) = self.by_client.get_mut(&gone.client) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.by_client.remove(&gone.client);
            }
        }
        Some(gone)
    }

    /// The idle time of the stranger that is first to be closed; `None`: none may be closed now.
    pub(super) fn longest_idle(&mut self, now: Duration) -> Option<Order> {
        loop {
            let Some((at, idle)) = self.first.last().copied() else {
                if !self.scan(now) {
                    return None;
                }
                continue;
            };
            let still = self.connected.get(at).and_then(Option::as_ref).and_then(|connected| connected.turn.idle());
            if still == Some(idle) {
                return Some(Order::of(idle));
            }
            self.first.pop();
        }
    }

    /// Closes the stranger that is first; its slot is free.
    pub(super) fn evict(&mut self, now: Duration) -> Option<Connected> {
        while self.longest_idle(now).is_some() {
            let (at, idle) = self.first.pop()?;
            let connected = self.connected.get(at).and_then(Option::as_ref);
            if connected.is_some_and(|connected| connected.turn.send_away(idle, Why::of(idle, Why::Wanted))) {
                return self.leave(at);
            }
        }
        None
    }

    /// Closes all strangers that are idle for too long while connections are short; and an organization's clients, if
    /// they are too many themselves.
    pub(super) fn send_overdue_away(&mut self, now: Duration) -> Vec<Connected> {
        let too_many = is_crowded(self.all, self.most);
        let overdue = |(at, connected): (usize, &Option<Connected>)| {
            let Connected { turn, whose, .. } = connected.as_ref()?;
            let idle = turn.idle().filter(|idle| is_overdue(*idle, now))?;
            let known = too_many && *whose == Whose::Known && idle.stage != Stage::Content;
            let concerned = idle.whose == Whose::Stranger || known;
            (concerned && turn.send_away(idle, Why::of(idle, Why::Idle))).then_some(at)
        };
        let gone: Vec<usize> = self.connected.iter().enumerate().filter_map(overdue).collect();
        gone.into_iter().filter_map(|at| self.leave(at)).collect()
    }

    /// Searches for the first to be closed; `false`: there is none.
    fn scan(&mut self, now: Duration) -> bool {
        if self.all >= MANY && self.in_vain.is_some_and(|at| now.saturating_sub(at) < LATELY) {
            return false;
        }
        let idle = |(at, connected): (usize, &Option<Connected>)| Some((at, connected.as_ref()?.turn.idle()?));
        let idle = self.connected.iter().enumerate().filter_map(idle);
        self.first = first_to_go(idle, now, (self.all / REMEMBERED).max(REMEMBERED));
        self.in_vain = self.first.is_empty().then_some(now);
        !self.first.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::session::turn::SlotKind;

    fn add(crowd: &mut Crowd, start: Instant, idle_since: Option<u64>) -> (usize, Turn) {
        let turn = Turn::new(start, CancellationToken::new(), Arc::new(Semaphore::new(1)), SlotKind::Free);
        if let Some(since) = idle_since {
            turn.begins(start + Duration::from_millis(since), Stage::BeforeMail, Whose::Stranger);
        }
        let client = [192, 0, 2, 1].into();
        (crowd.add(Connected { turn: turn.clone(), client, whose: Whose::Stranger }), turn)
    }

    #[test]
    fn evictions_go_by_idleness_whatever_happens_between_them() {
        let (mut crowd, start, now) = (Crowd::default(), Instant::now(), Duration::from_secs(60));
        // 100 idle ones in no order, and some that are not idle.
        let turns: Vec<Turn> = (0..100).map(|at| add(&mut crowd, start, Some(at * 37 % 100)).1).collect();
        let busy: Vec<Turn> = (0..50).map(|_| add(&mut crowd, start, None).1).collect();
        let gone = |turns: &[Turn]| turns.iter().filter(|turn| turn.sent_away().is_some()).count();
        let since = |at: u64| at * 37 % 100;
        for number in 0..100 {
            assert_eq!(crowd.longest_idle(now).map(|order| order.since), Some(Duration::from_millis(number)));
            assert!(crowd.evict(now).is_some());
            let this = (0..100).find(|at| since(*at) == number).unwrap();
            assert!(turns[usize::try_from(this).unwrap()].sent_away().is_some(), "{number}");
            // New ones take free slots, and are younger.
            add(&mut crowd, start, Some(1000 + number));
            assert_eq!(crowd.all, 150);
        }
        assert_eq!((gone(&turns), gone(&busy)), (100, 0));
        assert_eq!(crowd.longest_idle(now).map(|order| order.since), Some(Duration::from_millis(1000)));
        for _ in 0..100 {
            assert!(crowd.evict(now).is_some());
        }
        assert!(crowd.evict(now).is_none(), "the others are not idle");
        assert_eq!((crowd.all, crowd.of([192, 0, 2, 1].into()), gone(&busy)), (50, 50, 0));
    }

    #[test]
    fn who_gets_on_is_not_evicted_for_what_he_was() {
        let (mut crowd, start, now) = (Crowd::default(), Instant::now(), Duration::from_secs(60));
        let (_, first) = add(&mut crowd, start, Some(1));
        let (_, second) = add(&mut crowd, start, Some(2));
        assert_eq!(crowd.longest_idle(now).map(|order| order.since), Some(Duration::from_millis(1)));
        first.ends().unwrap();
        first.begins(start + Duration::from_millis(3), Stage::AfterMail, Whose::Stranger);
        assert!(crowd.evict(now).is_some());
        assert!(first.sent_away().is_none() && second.sent_away().is_some());
    }

    #[test]
    fn a_crowd_has_less_patience() {
        let (mut crowd, start) = (Crowd::default(), Instant::now());
        let turns: Vec<Turn> = (0..10).map(|at| add(&mut crowd, start, Some(at * 1000)).1).collect();
        let gone = crowd.send_overdue_away(Duration::from_secs(14));
        assert_eq!((gone.len(), crowd.all), (5, 5));
        assert!(turns.iter().enumerate().all(|(at, turn)| turn.sent_away() == (at < 5).then_some(Why::Idle)));
    }
}
