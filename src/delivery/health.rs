//! Which next hops answer: one that failed is tried last, by one connection at a time, until it answers again.
//!
//! `attempt` asks [`Health::standing`] for the order, takes a [`Pass`] before it connects and says on it how that
//! ended. Only what concerns the next hop as a whole counts, never what it says of a sender or a recipient.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::SmartHost;

/// After a failure nobody connects for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// A next hop that is down is tried in its own place again after so long, even while others do its work.
const DUE: Duration = Duration::from_secs(60);
/// Next hops that are down and remembered; the oldest are forgotten.
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
    /// It answered last time, or was never tried.
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
    /// It was up and fails, fails for another reason, or answers again: worth a line in the log.
    News,
    /// As before.
    Same,
}

/// All next hops that are down.
#[derive(Debug, Default)]
pub struct Health {
    down: Mutex<HashMap<Key, Down>>,
    /// Somebody has done probing.
    probed: Notify,
}

#[derive(Debug)]
struct Down {
    last_failure: Instant,
    probing: bool,
    reason: Arc<str>,
}

impl Health {
    /// How it stands.
    #[must_use]
    pub fn standing(&self, key: &Key) -> Standing {
        match self.down.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            None => Standing::Up,
            Some(down) if !down.probing && down.last_failure.elapsed() >= DUE => Standing::Due,
            Some(_) => Standing::Down,
        }
    }

    /// Permission to connect, once a probe that is under way has ended: if it found the next hop alive, nobody needs
    /// to wait for his next attempt.
    ///
    /// # Errors
    /// [`Barred`]: it is down.
    pub async fn enter_after_probe(&self, key: Key) -> Result<Pass<'_>, Barred> {
        loop {
            let probed = self.probed.notified();
            if !self.down.lock().unwrap_or_else(PoisonError::into_inner).get(&key).is_some_and(|down| down.probing) {
                return self.enter(key);
            }
            probed.await;
        }
    }

    /// Permission to connect.
    ///
    /// # Errors
    /// [`Barred`]: it is down, and somebody else is trying it or has just done so.
    pub fn enter(&self, key: Key) -> Result<Pass<'_>, Barred> {
        if let Some(down) = self.down.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&key) {
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
#[derive(Debug, PartialEq, Eq)]
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
        let before = self.health.down.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        if before.is_some() { Change::News } else { Change::Same }
    }

    /// It does not.
    pub fn fails(self, reason: &str) -> Change {
        let mut all = self.health.down.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED {
            all.retain(|_, down| down.last_failure.elapsed() < DUE);
        }
        let probing = self.kind == Kind::Usual && all.get(&self.key).is_some_and(|down| down.probing);
        let down = Down { last_failure: Instant::now(), probing, reason: reason.into() };
        match all.insert(self.key.clone(), down) {
            Some(before) if *before.reason == *reason => Change::Same,
            _ => Change::News,
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.kind == Kind::Usual {
            return;
        }
        if let Some(down) = self.health.down.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&self.key) {
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
        Key { connector: "secondary".into(), host: SmartHost { host: Host::Name("gw".to_owned()), port } }
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
        tokio::time::advance(PAUSE).await;
        let probe = health.enter(key(1)).unwrap();
        let (waiting, ()) = tokio::join!(health.enter_after_probe(key(1)), async {
            probe.fails("refused");
        });
        assert!(waiting.is_err());
    }
}
