//! Durable messages a second.

use std::time::Instant;

use crate::spool_store::fixture::{STORES, accept};

#[test]
#[ignore = "a measurement: cargo test --release --test storage spool_store:: -- --ignored --nocapture speed"]
fn commits_a_second() {
    for (name, open) in STORES {
        let folder = std::env::var_os("SPOOL_SPEED_FOLDER").unwrap_or_else(|| std::env::temp_dir().into());
        let folder = tempfile::tempdir_in(folder).unwrap();
        let spool = open(folder.path()).unwrap();
        for threads in [1, 20, 200] {
            let each = 4000 / threads;
            let begun = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| (0..each).for_each(|_| drop(accept(&*spool, 4096, 1))));
                }
            });
            let took = begun.elapsed();
            let rate = (threads * each) as f64 / took.as_secs_f64();
            println!(
                "{name}: {threads} threads, {} messages of 4 KiB in {took:.2?}: {rate:.0} a second",
                threads * each
            );
        }
    }
}
