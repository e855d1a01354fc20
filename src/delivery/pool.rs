//! Keeps connections between messages for a while, so that the next message needs no greeting, TLS or AUTH.
//!
//! `attempt` takes one before it makes one, and puts it back when its transaction ended cleanly. The one that was used
//! last is taken first, so that connections which are no longer needed expire.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::attempt::connection::{Connection, History, Terms};
use super::health::Key;
use crate::config::SmartHost;
use crate::fast_map::FastMap;

/// The longest idle time. Exchange closes an idle connection after at most 5 minutes, Postfix after 5 minutes.
const IDLE: Duration = Duration::from_secs(30);
/// The longest lifetime, so that changes of DNS, certificates or load balancers take effect.
const LIFETIME: Duration = Duration::from_secs(300);
/// How often idle connections are checked.
const SWEEP: Duration = Duration::from_secs(5);
/// A connection that was used within this time is not checked before it is used again: the check is a system call for
/// every message, and a closed connection shows at MAIL without harm.
const LATELY: Duration = Duration::from_secs(1);

/// Idle connections of all connectors.
#[derive(Default)]
pub struct Pool {
    state: Mutex<PoolInner>,
}

#[derive(Default)]
struct PoolInner {
    /// By connector, each limited separately.
    idle: FastMap<Arc<str>, Idles>,
    /// Whether the sweeping task runs.
    sweeping: bool,
}

/// One connector's connections; those used last are at the end.
type Idles = FastMap<SmartHost, Vec<Idle>>;

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_over(&self, now: Instant) -> bool {
        now - self.since >= IDLE || now - self.connection.opened >= LIFETIME
    }

    fn looks_alive(&self, now: Instant) -> bool {
        now - self.since < LATELY || self.connection.is_quiet()
    }
}

impl Pool {
    /// The connection that was used last, with these terms, and alive as far as can be seen.
    #[must_use]
    pub fn take(&self, key: &Key, terms: &Terms) -> Option<Connection> {
        let mut state = self.state.lock();
        let idles = state.idle.get_mut(&key.connector)?;
        let idle = idles.get_mut(&key.host)?;
        let now = Instant::now();
        let mut found = None;
        while let Some(last) = idle.pop() {
            if last.is_over(now) || !last.connection.terms.are_same(terms) {
                tokio::spawn(last.connection.quit());
            } else if last.looks_alive(now) {
                found = Some(last.connection);
                break;
            }
        }
        found
    }

    /// Whether there is one.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        let state = self.state.lock();
        let idle = state.idle.get(&key.connector).and_then(|idles| idles.get(&key.host));
        let now = Instant::now();
        idle.is_some_and(|idle| idle.iter().any(|idle| !idle.is_over(now)))
    }

    /// Keeps a connection that is ready for MAIL. A connector keeps `limit` at most, over all its next hops; beyond
    /// that the one that has been idle longest is closed.
    pub fn put(self: &Arc<Self>, key: Key, mut connection: Connection, limit: usize) {
        connection.history = History::Reused;
        let now = Instant::now();
        let kept = Idle { connection, since: now };
        if kept.is_over(now) || limit == 0 {
            tokio::spawn(kept.connection.quit());
            return;
        }
        let mut state = self.state.lock();
        let idles = state.idle.entry(key.connector).or_default();
        while idles.values().map(Vec::len).sum::<usize>() >= limit {
            let Some(oldest) = take_oldest(idles) else { break };
            tokio::spawn(oldest.connection.quit());
        }
        idles.entry(key.host).or_default().push(kept);
        if !state.sweeping {
            state.sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes connections of a connector, those that have been idle longest first, until it has `most`.
    pub fn keep_idle(&self, connector: &str, most: usize) {
        let mut state = self.state.lock();
        let Some(idles) = state.idle.get_mut(connector) else { return };
        while idles.values().map(Vec::len).sum::<usize>() > most {
            let Some(oldest) = take_oldest(idles) else { break };
            tokio::spawn(oldest.connection.quit());
        }
    }

    /// Removes connections that have been idle too long; sweeping ends when none is left.
    fn expired(&self) -> (Vec<Connection>, Sweeping) {
        let mut state = self.state.lock();
        let (now, mut over) = (Instant::now(), Vec::new());
        for idles in state.idle.values_mut() {
            for idle in idles.values_mut() {
                over.extend(idle.extract_if(.., |idle| idle.is_over(now)).map(|idle| idle.connection));
            }
            idles.retain(|_, idle| !idle.is_empty());
        }
        state.idle.retain(|_, idles| !idles.is_empty());
        state.sweeping = !state.idle.is_empty();
        (over, if state.sweeping { Sweeping::Again } else { Sweeping::Done })
    }
}

fn take_oldest(idles: &mut Idles) -> Option<Idle> {
    let first = |(host, idle): (&SmartHost, &Vec<Idle>)| Some((idle.first()?.since, host.clone()));
    let (_, host) = idles.iter().filter_map(first).min_by_key(|(since, _)| *since)?;
    idles.get_mut(&host).map(|idle| idle.remove(0))
}

/// Whether sweeping goes on.
#[derive(PartialEq, Eq)]
enum Sweeping {
    Again,
    Done,
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let (over, next) = pool.expired();
        over.into_iter().for_each(|connection| drop(tokio::spawn(connection.quit())));
        if next == Sweeping::Done {
            return;
        }
    }
}
