//! Connections between messages: kept for a while, so that the next message needs no greeting, TLS or AUTH.
//!
//! `attempt` takes one before it makes one, and puts it back when its transaction ended cleanly.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::attempt::connection::{Connection, History, Terms};
use super::health::Key;

/// How long a connection may lie idle. Exchange closes it after 5 minutes or less, Postfix after 5 minutes.
const IDLE: Duration = Duration::from_secs(30);
/// How long it lives: so that a change in DNS, of a certificate or in a load balancer is followed.
const LIFETIME: Duration = Duration::from_secs(300);
/// How often the idle ones are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// Idle connections of all connectors.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: HashMap<Key, Vec<Idle>>,
    /// Whether a task sweeps.
    sweeping: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_over(&self) -> bool {
        self.since.elapsed() >= IDLE || self.connection.opened.elapsed() >= LIFETIME
    }
}

impl Pool {
    /// The connection that was used last, made with these terms and alive as far as can be seen.
    #[must_use]
    pub fn take(&self, key: &Key, terms: &Terms) -> Option<Connection> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = state.idle.get_mut(key)?;
        while let Some(last) = idle.pop() {
            if !last.is_over() && *last.connection.terms == *terms && last.connection.is_quiet() {
                return Some(last.connection);
            }
        }
        None
    }

    /// Keeps a connection that is ready for MAIL, `limit` at most for one next hop.
    pub fn put(self: &Arc<Self>, key: Key, mut connection: Connection, limit: usize) {
        connection.history = History::Reused;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = state.idle.entry(key).or_default();
        let kept = Idle { connection, since: Instant::now() };
        if idle.len() >= limit || kept.is_over() {
            tokio::spawn(kept.connection.quit());
            return;
        }
        idle.push(kept);
        if !state.sweeping {
            state.sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Takes out what has lain idle too long; ends the sweeping when nothing is left.
    fn expired(&self) -> (Vec<Connection>, Next) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut over = Vec::new();
        for idle in state.idle.values_mut() {
            over.extend(idle.extract_if(.., |idle| idle.is_over()).map(|idle| idle.connection));
        }
        state.idle.retain(|_, idle| !idle.is_empty());
        state.sweeping = !state.idle.is_empty();
        (over, if state.sweeping { Next::Again } else { Next::Done })
    }
}

/// Whether the sweeping goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Again,
    Done,
}

async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let (over, next) = pool.expired();
        over.into_iter().for_each(|connection| drop(tokio::spawn(connection.quit())));
        if next == Next::Done {
            return;
        }
    }
}
