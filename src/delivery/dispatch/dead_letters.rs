//! Enforces the limits on dead letters in the background: reads the folder and removes files on a blocking thread, a
//! few at a time.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{QueueShared, record};
use crate::report::dead_letter::bounds::Sweep;
use crate::time::UnixTime;

const EVERY: Duration = Duration::from_secs(60);
/// The pause between sweeps while more are to be removed.
const PAUSE: Duration = Duration::from_millis(200);

/// Sweeps regularly, and when there are too many, until the queue stops.
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

/// One sweep; returns whether there is more to do.
fn once(shared: &QueueShared, sweep: &Mutex<Sweep>) -> bool {
    let config = shared.parts.current.load().config.clone();
    let mut sweep = sweep.lock();
    let ends = || shared.stopping.is_cancelled();
    let swept = sweep.run(&config.server.state_dir, &config.reports, UnixTime::at_least(), &ends);
    record::swept(&shared.parts.metrics, &swept);
    record::dead_letters(&shared.parts);
    swept.more
}
