//! Returns memory to the system after something large was read.
//!
//! The allocator keeps freed memory for a second, and checks what it can return only when a thread allocates much or
//! ends. A server that has read a long file and then has little to do would keep the memory for ever. `config`,
//! `directory` and `run` call [`soon`] after reading.

use std::thread;
use std::time::Duration;

/// A little longer than the allocator keeps freed memory (mimalloc 3, `purge_delay`).
const LATER: Duration = Duration::from_millis(1500);

/// Starts a thread that ends after a while, on which the allocator returns memory.
pub fn soon() {
    let ends = || {
        thread::sleep(LATER);
        // A thread must have allocated something.
        drop(std::hint::black_box(Box::new(0_u64)));
    };
    if let Err(error) = thread::Builder::new().name("give-back".to_owned()).spawn(ends) {
        tracing::debug!(%error, "no thread to give memory back");
    }
}
