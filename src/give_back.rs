//! What was read and is done with goes back to the system.
//!
//! The allocator keeps freed memory for a second, in case it is wanted again, and looks for what it could give back only
//! when a thread asks it for much or ends. A server that has read a long file and then has little to do would keep it for
//! ever. `config`, `directory` and `run` call [`soon`] when they have read something.
//!
//! It asks the kernel for huge pages besides, of which one octet in use keeps 2 MiB, and the kernel makes more of them
//! while we rest: an empty server took 22 MiB for 6, and after a reload of 100,000 domains what had been freed came back
//! by and by. `main` calls [`no_huge_pages`]. A table that is long is looked up in faster with them (a million recipients:
//! 0.5 us instead of 0.7), and takes many whole ones: whoever is about to make one calls [`huge_pages_for`].

use std::thread;
use std::time::Duration;

/// A little longer than the allocator (mimalloc 3, `purge_delay`) keeps it.
const LATER: Duration = Duration::from_millis(1500);

/// So many octets and more are a long table.
const LONG: u64 = 8 << 20;

/// From now on memory is taken by the page of 4 KiB.
pub fn no_huge_pages() {
    // Where the kernel knows none there is nothing to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Something that takes about so many octets is going to be made: if that is a long table, memory is taken by the huge
/// page again, until the program ends.
pub(crate) fn huge_pages_for(octets: u64) {
    if octets >= LONG {
        let _ = rustix::thread::disable_transparent_huge_pages(false);
    }
}

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
