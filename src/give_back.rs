//! What was read and is done with goes back to the system.
//!
//! The allocator keeps freed memory for a second, in case it is wanted again, and looks for what it could give back only
//! when a thread asks it for much or ends. A server that has read a long file and then has little to do would keep it for
//! ever. `config`, `directory` and `run` call [`soon`] when they have read something.

use std::thread;
use std::time::Duration;

/// A little longer than the allocator (mimalloc 3, `purge_delay`) keeps it.
const LATER: Duration = Duration::from_millis(1500);

/// Lets a thread end in a while.
pub fn soon() {
    let ends = || {
        thread::sleep(LATER);
        // A thread that never asked for memory has nothing to end.
        drop(std::hint::black_box(Box::new(0_u64)));
    };
    if let Err(error) = thread::Builder::new().name("give-back".to_owned()).spawn(ends) {
        tracing::debug!(%error, "no thread to give memory back");
    }
}
