//! Which next hops answer: one that failed is tried last, by one connection at a time, until it answers again.
//!
//! `attempt` asks [`Health::standing`] for the order, takes a [`Pass`] before it connects and says on it how that
//! ended. Only what concerns the next hop as a whole counts, never what it says of a sender or a recipient.
//!
//! One failure is no outage: a connection may be reset while others work. A next hop that has answered within
//! [`TRUSTED`] goes down with the failures of two attempts in a row; one that has not, with the first, so that a server
//! which is off is not tried by twenty messages. Down, it is tried by one connection at a time (the probe), [`PAUSE`]
//! after the last failure at the earliest; others wait for the probe or take another next hop. The first answer brings
//! it back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::SmartHost;
use crate::fast_map::FastMap;

/// After a failure nobody connects for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// A next hop that is down is tried in its own place again after so long, even while others do its work.
const DUE: Duration = Duration::from_secs(60);
/// A next hop that answered so lately may fail once.
const TRUSTED: Duration = Duration::from_secs(60);
/// Next hops that are remembered; beyond it those of which nothing was heard for [`DUE`] are forgotten, or all.
const REMEMBERED: usize = 10_000;

/// One next hop of one connector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The send connector.
    pub connector: Arc<str>,
    /// The host, after MX.
    pub host: SmartHost,
}

/// How a next hop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers, as far as is known.
    Up,
    /// It failed, and it is time to try it in its own place again.
    Due,
    /// It failed.
    Down,
}

/// Why no connection may be made now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// What it failed with.
    pub reason: Arc<str>,
}

/// What an attempt changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It fails and did not before, fails for another reason, or answers again: worth a line in the log.
    News,
    /// As before.
    Same,
}

/// All next hops that were tried lately.
#[derive(Debug, Default)]
pub struct Health {
    known: Mutex<FastMap<Key, State>>,
    /// Somebody has done probing.
    probed: Notify,
}

/// What is known of one.
#[derive(Debug)]
enum State {
    /// It answered, and has not failed since.
    Answered(Instant),
    /// It answered, and failed once since.
    Struck { at: Instant, reason: Arc<str> },
    /// It is down.
    Down(Down),
}

#[derive(Debug)]
struct Down {
    last_failure: Instant,
    probing: bool,
    reason: Arc<str>,
}

impl State {
    /// When something was last heard of it.
    fn heard(&self) -> Instant {
        match self {
            Self::Answered(at) | Self::Struck { at, .. } => *at,
            Self::Down(down) => down.last_failure,
        }
    }

    fn reason(&self) -> Option<&Arc<str>> {
        match self {
            Self::Answered(_) => None,
            Self::Struck { reason, .. } | Self::Down(Down { reason, .. }) => Some(reason),
        }
    }
}

impl Health {
    /// How it stands.
    #[must_use]
    pub fn standing(&self, key: &Key) -> Standing {
        match self.known().get(key) {
            None | Some(State::Answered(_) | State::Struck { .. }) => Standing::Up,
            Some(State::Down(down)) if !down.probing && down.last_failure.elapsed() >= DUE => Standing::Due,
            Some(State::Down(_)) => Standing::Down,
        }
    }

    fn known(&self) -> MutexGuard<'_, FastMap<Key, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Permission to connect, once a probe that is under way has ended: if it found the next hop alive, nobody needs
    /// to wait for his next attempt.
    ///
    /// # Errors
    /// [`Barred`]: it is down.
    pub async fn enter_after_probe(&self, key: Key) -> Result<Pass<'_>, Barred> {
        loop {
            let probed = self.probed.notified();
            let probing = matches!(self.known().get(&key), Some(State::Down(Down { probing: true, .. })));
            if !probing {
                return self.enter(key);
            }
            probed.await;
        }
    }

    /// It answers, and is of no use all the same: from now on it counts as one that failed.
    pub fn open(&self, key: &Key, reason: &str) -> Change {
        let mut known = self.known();
        make_room(&mut known);
        let probing = matches!(known.get(key), Some(State::Down(down)) if down.probing);
        let down = State::Down(Down { last_failure: Instant::now(), probing, reason: reason.into() });
        let before = known.insert(key.clone(), down);
        if before.as_ref().and_then(State::reason).is_some_and(|before| **before == *reason) {
            Change::Same
        } else {
            Change::News
        }
    }

    /// Permission to connect.
    ///
    /// # Errors
    /// [`Barred`]: it is down, and somebody else is trying it or has just done so.
    pub fn enter(&self, key: Key) -> Result<Pass<'_>, Barred> {
        if let Some(State::Down(down)) = self.known().get_mut(&key) {
            if down.probing || down.last_failure.elapsed() < PAUSE {
                return Err(Barred { reason: down.reason.clone() });
            }
            down.probing = true;
            return Ok(Pass { health: self, key, kind: Kind::Probe });
        }
        Ok(Pass { health: self, key, kind: Kind::Usual })
    }
}

/// Permission to connect once. Dropped without a word it leaves the next hop as it was.
#[derive(Debug)]
pub struct Pass<'a> {
    health: &'a Health,
    key: Key,
    kind: Kind,
}

/// What it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The next hop was up.
    Usual,
    /// It was down, and this is the one connection that tries it.
    Probe,
}

impl Pass<'_> {
    /// Whose pass it is.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// It answers.
    pub fn answers(self) -> Change {
        let mut known = self.health.known();
        if let Some(State::Answered(at)) = known.get_mut(&self.key) {
            *at = Instant::now();
            return Change::Same;
        }
        make_room(&mut known);
        match known.insert(self.key.clone(), State::Answered(Instant::now())) {
            Some(State::Down(_)) => Change::News,
            Some(State::Answered(_) | State::Struck { .. }) | None => Change::Same,
        }
    }

    /// It does not.
    pub fn fails(self, reason: &str) -> Change {
        let now = Instant::now();
        let mut known = self.health.known();
        make_room(&mut known);
        let before = known.get(&self.key);
        let state = match before {
            Some(State::Answered(at)) if now - *at < TRUSTED => State::Struck { at: now, reason: reason.into() },
            Some(State::Down(down)) => {
                let probing = down.probing && self.kind == Kind::Usual;
                State::Down(Down { last_failure: now, probing, reason: reason.into() })
            }
            Some(State::Answered(_) | State::Struck { .. }) | None => {
                State::Down(Down { last_failure: now, probing: false, reason: reason.into() })
            }
        };
        let same = before.and_then(State::reason).is_some_and(|before| **before == *reason);
        known.insert(self.key.clone(), state);
        if same { Change::Same } else { Change::News }
    }
}

fn make_room(known: &mut FastMap<Key, State>) {
    if known.len() >= REMEMBERED {
        known.retain(|_, state| state.heard().elapsed() < DUE);
        if known.len() > REMEMBERED / 2 {
            known.clear();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.kind == Kind::Usual {
            return;
        }
        if let Some(State::Down(down)) = self.health.known().get_mut(&self.key) {
            down.probing = false;
        }
        self.health.probed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;

    fn key(port: u16) -> Key {
        Key { connector: "secondary".into(), host: SmartHost::new(Host::Name("gw".to_owned()), port) }
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_probes_what_failed() {
        let health = Health::default();
        let [first, second, late] = [(); 3].map(|()| health.enter(key(1)).unwrap());
        assert_eq!(first.fails("refused"), Change::News);
        assert_eq!(second.fails("refused"), Change::Same);
        assert_eq!(health.standing(&key(1)), Standing::Down);
        assert_eq!(health.standing(&key(2)), Standing::Up);
        assert_eq!(health.enter(key(1)).unwrap_err(), Barred { reason: "refused".into() });
        tokio::time::advance(PAUSE).await;
        let probe = health.enter(key(1)).unwrap();
        assert_eq!(late.fails("refused"), Change::Same);
        tokio::time::advance(PAUSE).await;
        assert!(health.enter(key(1)).is_err());
        drop(probe);
        let probe = health.enter(key(1)).unwrap();
        assert_eq!(probe.fails("timed out"), Change::News);
        tokio::time::advance(DUE).await;
        assert_eq!(health.standing(&key(1)), Standing::Due);
        let probe = health.enter(key(1)).unwrap();
        assert_eq!(health.standing(&key(1)), Standing::Down);
        assert_eq!(probe.answers(), Change::News);
        assert_eq!(health.standing(&key(1)), Standing::Up);
    }

    /// What happens to a next hop, a letter each: `a` an answer, `f` a failure, `1` a second later, `m` a minute later.
    #[tokio::test(start_paused = true)]
    async fn one_failure_of_a_trusted_next_hop_is_no_outage() {
        for (events, standing) in [
            ("", Standing::Up),
            ("f", Standing::Down),
            ("a", Standing::Up),
            ("af", Standing::Up),
            ("aff", Standing::Down),
            ("af1f", Standing::Down),
            ("afaf", Standing::Up),
            ("afmf", Standing::Down),
            ("amf", Standing::Down),
            ("fm", Standing::Due),
            ("f1a", Standing::Up),
            ("f1af", Standing::Up),
            ("f1f", Standing::Down),
        ] {
            let health = Health::default();
            for event in events.chars() {
                match event {
                    'a' => _ = health.enter(key(1)).unwrap().answers(),
                    'f' => _ = health.enter(key(1)).unwrap().fails("refused"),
                    '1' => tokio::time::advance(PAUSE).await,
                    _ => tokio::time::advance(TRUSTED).await,
                }
            }
            assert_eq!(health.standing(&key(1)), standing, "{events}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let health = Health::default();
        for number in 0..=REMEMBERED {
            let host = SmartHost::new(Host::Name(format!("mx{number}")), 25);
            health.enter(Key { connector: "out".into(), host }).unwrap().answers();
            assert!(health.known().len() <= REMEMBERED);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_can_be_put_down_all_the_same() {
        let health = Health::default();
        assert_eq!(health.open(&key(1), "it refuses everybody"), Change::News);
        assert_eq!(health.open(&key(1), "it refuses everybody"), Change::Same);
        assert_eq!(health.standing(&key(1)), Standing::Down);
        assert_eq!(health.enter(key(1)).unwrap_err(), Barred { reason: "it refuses everybody".into() });
        tokio::time::advance(PAUSE).await;
        let probe = health.enter(key(1)).unwrap();
        health.open(&key(1), "it refuses everybody");
        tokio::time::advance(PAUSE).await;
        assert!(health.enter(key(1)).is_err(), "one probe at a time");
        assert_eq!(probe.answers(), Change::News);
        assert_eq!(health.standing(&key(1)), Standing::Up);
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_a_probe_and_follow_it() {
        let health = Health::default();
        health.enter(key(1)).unwrap().fails("refused");
        assert!(health.enter_after_probe(key(1)).await.is_err());
        tokio::time::advance(PAUSE).await;
        let probe = health.enter(key(1)).unwrap();
        let (waiting, ()) = tokio::join!(health.enter_after_probe(key(1)), async {
            probe.answers();
        });
        waiting.unwrap().fails("refused");
        health.enter(key(1)).unwrap().fails("refused");
        tokio::time::advance(PAUSE).await;
        let probe = health.enter(key(1)).unwrap();
        let (waiting, ()) = tokio::join!(health.enter_after_probe(key(1)), async {
            probe.fails("refused");
        });
        assert!(waiting.is_err());
    }
}
