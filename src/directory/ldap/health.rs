//! A directory's health: the breaker, `directory_up`, and one log line when either changes.
//!
//! `supervisor` and the questions report to it; only it logs the state of a directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::time::Instant;

use crate::directory::breaker::Breaker;
use crate::metrics::Metrics;

/// While the directory is down, a new cause is logged this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct DirectoryHealth {
    name: Arc<str>,
    up: IntGauge,
    breaker: Mutex<Breaker>,
    said: Mutex<LoggedHealth>,
    /// Slow questions in progress.
    slow: AtomicUsize,
}

/// The state that was last logged.
enum LoggedHealth {
    Nothing,
    Well,
    Unwell { cause: Arc<str>, at: Instant },
}

impl DirectoryHealth {
    /// The initial state; `directory_up` is 0.
    pub(super) fn new(name: &Arc<str>, metrics: &Metrics) -> Self {
        let up = metrics.directory_up.with_label_values(&[&**name]);
        up.set(0);
        metrics.directory_contradictions.with_label_values(&[&**name]);
        let (breaker, said) = (Mutex::new(Breaker::default()), Mutex::new(LoggedHealth::Nothing));
        Self { name: Arc::clone(name), up, breaker, said, slow: AtomicUsize::new(0) }
    }

    pub(super) fn answered(&self) {
        self.breaker.lock().answered();
    }

    /// A server did not answer in time.
    pub(super) fn timed_out(&self) {
        self.breaker.lock().timed_out(Instant::now().into_std());
    }

    /// A connection was opened and its test question answered.
    pub(super) fn passed_test(&self) {
        self.breaker.lock().passed_test();
    }

    /// The time until the next test; `None` while questions are asked.
    pub(super) fn until_test(&self) -> Option<Duration> {
        self.breaker.lock().until_test(Instant::now().into_std())
    }

    /// Records whether "not found" from this directory can be believed, or why not.
    pub(super) fn set(&self, health: &Result<(), Arc<str>>) {
        let mut said = self.said.lock();
        match (health, &*said) {
            (Ok(()), LoggedHealth::Well) => {}
            (Ok(()), LoggedHealth::Nothing | LoggedHealth::Unwell { .. }) => {
                tracing::info!(directory = %self.name, "the directory answers");
                self.up.set(1);
                *said = LoggedHealth::Well;
            }
            (Err(cause), LoggedHealth::Unwell { cause: before, at }) if before == cause || at.elapsed() < SAY_AGAIN => {
            }
            (Err(cause), LoggedHealth::Nothing | LoggedHealth::Well | LoggedHealth::Unwell { .. }) => {
                tracing::error!(
                    directory = %self.name,
                    "the directory gives no clean answers, unknown recipients get 451: {cause}"
                );
                self.up.set(0);
                *said = LoggedHealth::Unwell { cause: Arc::clone(cause), at: Instant::now() };
            }
        }
    }

    /// A question takes long: while the guard lives, the directory is not well.
    pub(super) fn doubt(&self) -> Doubt<'_> {
        self.slow.fetch_add(1, Ordering::Relaxed);
        Doubt(self)
    }

    /// Whether the last question got a clean answer in time, and none is slow now.
    pub(super) fn is_well(&self) -> bool {
        let said = self.said.lock();
        matches!(&*said, LoggedHealth::Well) && self.breaker.lock().is_calm() && self.slow.load(Ordering::Relaxed) == 0
    }

    /// Why it gives no clean answers; `None`: it does.
    pub(super) fn problem(&self) -> Option<Arc<str>> {
        match &*self.said.lock() {
            LoggedHealth::Unwell { cause, .. } => Some(Arc::clone(cause)),
            LoggedHealth::Nothing | LoggedHealth::Well => None,
        }
    }
}

pub(super) struct Doubt<'a>(&'a DirectoryHealth);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.slow.fetch_sub(1, Ordering::Relaxed);
    }
}
