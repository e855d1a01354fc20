//! Many queued messages: the next start is soon ready.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::power::fixture::{Settings, StorageSetup, recipient, send, token};
use support::senders::Raw;

const MESSAGES: usize = 20_000;
const SESSIONS: usize = 20;

#[test]
fn twenty_thousand_queued_messages_do_not_keep_it_from_starting() {
    let mut setup = StorageSetup::prepare(&Settings { retry: "1h", ..Settings::default() });
    setup.shim(); // spares the disk its syncs
    setup.node.start();
    let (next, begun) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut raw = Raw::hello(setup.node.smtp);
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= MESSAGES {
                        return;
                    }
                    assert!(send(&mut raw, &recipient(n), &token("many", n, 700)).is_ok());
                }
            });
        }
    });
    println!("{MESSAGES} messages taken in {:.1?}", begun.elapsed());
    setup.node.kill();
    setup.node.clear_environment();
    let begun = Instant::now();
    setup.node.start();
    let took = begun.elapsed();
    println!("ready with {MESSAGES} queued messages after {took:.2?}");
    assert!(took < Duration::from_secs(10), "not ready within 10 s: {took:?}");
    assert_eq!(setup.queued(), Some(MESSAGES as f64));
}
