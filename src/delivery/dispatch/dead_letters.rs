//! Holds the dead letters within their bounds, beside everything else: the folder is read and files are removed where that
//! may block, a few at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{QueueShared, record};
use crate::report::dead_letter::bounds::Sweep;
use crate::time::UnixTime;

/// How often those that are too old or too many are removed.
const EVERY: Duration = Duration::from_secs(60);
/// Between sweeps while more are to go.
const PAUSE: Duration = Duration::from_millis(200);

/// Sweeps now and then, and when there are too many, until no more attempts begin.
pub(super) async fn hold_within_bounds(shared: Arc<QueueShared>) {
    let sweep = Arc::new(Mutex::new(Sweep::new(shared.parts.memory.dead_letters.clone())));
    let mut ticks = tokio::time::interval(EVERY);
    let mut more = false;
    while !shared.stopping.is_cancelled() {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = tokio::time::sleep(PAUSE), if more => {}
            () = shared.too_many_dead_letters.notified(), if !more => {}
            _ = ticks.tick(), if !more => {}
        }
        let (shared, sweep) = (shared.clone(), sweep.clone());
        let swept = tokio::task::spawn_blocking(move || once(&shared, &sweep)).await;
        more = swept.unwrap_or(false); // a panic was logged
    }
}

/// Whether there is more to do.
fn once(shared: &QueueShared, sweep: &Mutex<Sweep>) -> bool {
    let config = shared.parts.current.load().config.clone();
    let mut sweep = sweep.lock().unwrap_or_else(PoisonError::into_inner);
    let ends = || shared.stopping.is_cancelled();
    let swept = sweep.run(&config.server.state_dir, &config.reports, UnixTime::at_least(), &ends);
    record::swept(&shared.parts.metrics, &swept);
    record::dead_letters(&shared.parts);
    swept.more
}
