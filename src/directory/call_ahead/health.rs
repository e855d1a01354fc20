//! The mail server's health: the breaker, `directory_up`, and one log line when it changes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::time::Instant;

use super::prober::Heard;
use crate::directory::breaker::{Breaker, TEST_EVERY, TIMEOUTS};
use crate::metrics::Metrics;

/// While the server cannot be asked, a new cause is logged this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);

pub(super) struct DirectoryHealth {
    name: Arc<str>,
    up: IntGauge,
    state: Mutex<HealthState>,
}

struct HealthState {
    breaker: Breaker,
    said: LoggedHealth,
}

/// The state that was last logged.
enum LoggedHealth {
    Nothing,
    Well,
    Unwell { cause: String, at: Instant },
}

impl DirectoryHealth {
    /// The initial state counts as up, since no question is asked before mail comes.
    pub(super) fn new(name: &Arc<str>, metrics: &Metrics) -> Self {
        let up = metrics.directory_up.with_label_values(&[&**name]);
        up.set(1);
        Self {
            name: Arc::clone(name),
            up,
            state: Mutex::new(HealthState { breaker: Breaker::default(), said: LoggedHealth::Nothing }),
        }
    }

    /// Whether a question may be asked. While the breaker is open only a test after each pause may.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn admits(&self) -> Result<(), String> {
        let now = Instant::now().into_std();
        let mut state = self.state.lock();
        match state.breaker.until_test(now) {
            None => Ok(()),
            Some(Duration::ZERO) => {
                // Until the test is answered, no other is made.
                state.breaker.timed_out(now);
                Ok(())
            }
            Some(_) => Err(format!("it did not answer {TIMEOUTS} times in a row and is asked every {TEST_EVERY:?}")),
        }
    }

    /// Records the result of a question.
    pub(super) fn heard(&self, heard: &Heard) {
        let mut state = self.state.lock();
        match heard {
            Heard::Accepted(_) | Heard::Unknown | Heard::Unclear(_) => {
                state.breaker.answered();
                state.breaker.passed_test();
                if !matches!(state.said, LoggedHealth::Well) {
                    tracing::info!(directory = %self.name, "the mail server answers");
                    state.said = LoggedHealth::Well;
                    self.up.set(1);
                }
            }
            Heard::Silent(cause) => {
                state.breaker.timed_out(Instant::now().into_std());
                self.say(&mut state, cause);
            }
            // A single question failed; others may be answered, so this is logged and questions go on.
            Heard::Withheld(cause) | Heard::Failed(cause) => self.say(&mut state, cause),
        }
    }

    fn say(&self, state: &mut HealthState, cause: &str) {
        self.up.set(0);
        match &state.said {
            LoggedHealth::Unwell { cause: before, at } if before == cause || at.elapsed() < SAY_AGAIN => {}
            LoggedHealth::Nothing | LoggedHealth::Well | LoggedHealth::Unwell { .. } => {
                tracing::error!(
                    directory = %self.name,
                    "the mail server cannot be asked, who is not known already gets 451: {cause}"
                );
                state.said = LoggedHealth::Unwell { cause: cause.to_owned(), at: Instant::now() };
            }
        }
    }

    /// Whether the last question was answered in time.
    pub(super) fn is_well(&self) -> bool {
        let state = self.state.lock();
        matches!(state.said, LoggedHealth::Well) && state.breaker.is_calm()
    }
}
