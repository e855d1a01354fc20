//! Back-pressure: mail is turned away with 452 4.3.1 while there is less free space than `[spool] min_free`.
//!
//! Sessions ask [`Pressure::is_on`]; [`Pressure::watch`] looks every few seconds. Nothing already accepted is touched.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::in_force::Current;
use crate::metrics::Metrics;

/// How often free space is looked at.
const EVERY: Duration = Duration::from_secs(3);

/// Whether there is room for more mail.
#[derive(Debug, Default)]
pub struct Pressure {
    on: AtomicBool,
}

impl Pressure {
    /// Whether mail is to be turned away.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Takes note of how many bytes are free. What was turned on by less than `min_free` is turned off by an eighth
    /// more than it, so that it does not flutter.
    pub fn sample(&self, free: u64, min_free: u64) {
        let enough = if self.is_on() { min_free.saturating_add(min_free / 8) } else { min_free };
        let on = free < enough;
        if self.on.swap(on, Ordering::Relaxed) == on {
            return;
        }
        if on {
            tracing::error!(free, min_free, "the disk is nearly full: new mail is turned away with 452 4.3.1");
        } else {
            tracing::info!(free, min_free, "there is room again: new mail is taken");
        }
    }

    /// Looks at the free space under `state_dir` of the configuration in force until `stop`.
    pub async fn watch(self: Arc<Self>, current: Arc<Current>, metrics: Metrics, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let config = current.load().config.clone();
            let path = config.server.state_dir.clone();
            match tokio::task::spawn_blocking(move || free_bytes(&path)).await {
                Ok(Ok(free)) => {
                    self.sample(free, config.min_free);
                    metrics.spool_free.with_label_values::<&str>(&[]).set(i64::try_from(free).unwrap_or(i64::MAX));
                    metrics.back_pressure.with_label_values::<&str>(&[]).set(self.is_on().into());
                }
                Ok(Err(error)) => tracing::warn!(%error, "cannot tell how much space is free"),
                Err(error) => tracing::warn!(%error, "cannot tell how much space is free"),
            }
        }
    }
}

/// Bytes that an ordinary process may still write below `path`.
fn free_bytes(path: &PathBuf) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_does_not_flutter() {
        let pressure = Pressure::default();
        for (free, on) in
            [(1000, false), (800, false), (799, true), (800, true), (899, true), (900, false), (800, false)]
        {
            pressure.sample(free, 800);
            assert_eq!(pressure.is_on(), on, "{free} bytes free");
        }
    }

    #[test]
    fn free_space_is_known() {
        assert!(free_bytes(&std::env::temp_dir()).unwrap() > 0);
    }
}
