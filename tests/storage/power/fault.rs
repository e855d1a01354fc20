//! A disk whose syncs fail: what could not be made durable gets 451, and only that; afterwards all is well again.

use std::time::Duration;

use crate::power::fixture::{Settings, StorageSetup, assert_once, quiet, recipient, send, token};
use support::power_loss::{Survives, after_power_cut, inodes, operations, synced_after_a_failure, tree, write_tree};
use support::senders::Raw;
use support::wait_until;

const SESSIONS: usize = 8;
/// Too large for a record.
const LARGE: usize = 300_000;

/// Sends one letter over each of some sessions at once. Returns the tokens of those that got 250, and what the others
/// were told.
fn send_at_once(setup: &StorageSetup, name: &str, size: usize) -> (Vec<String>, Vec<(u16, String)>) {
    let results: Vec<_> = std::thread::scope(|scope| {
        let senders = (0..SESSIONS).map(|n| {
            let token = token(name, n, size);
            scope.spawn(move || send(&mut Raw::hello(setup.node.smtp), &recipient(n), &token).map(|_| token))
        });
        let senders: Vec<_> = senders.collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let (accepted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    (accepted.into_iter().map(Result::unwrap).collect(), refused.into_iter().map(Result::unwrap_err).collect())
}

#[test]
fn a_failed_sync_gets_451_and_the_next_message_is_taken() {
    let mut setup = StorageSetup::prepare(&Settings::default());
    setup.shim();
    let root = setup.node.path("state");
    let initial = tree(&root);
    let inodes = inodes(&initial);
    setup.node.start();
    let (mut kept, refused) = send_at_once(&setup, "before", 1500);
    assert_eq!((kept.len(), refused), (SESSIONS, Vec::new()));
    let failures = |setup: &StorageSetup| setup.node.metric("fingerpost_spool_sync_failures_total").unwrap();
    assert!(failures(&setup) < 1.0);
    // large contents; their names; the log
    let parts = [("/incoming/", LARGE), ("/large/", LARGE), ("/segments/", 1500), ("/segments/", LARGE)];
    for (round, (part, size)) in parts.into_iter().enumerate() {
        let before = failures(&setup);
        setup.fault(&format!("sync {part}"));
        let (accepted, refused) = send_at_once(&setup, &format!("during{round}"), size);
        assert!(accepted.is_empty(), "{part}: a 250 though the sync failed: {accepted:?}");
        for (code, text) in &refused {
            assert_eq!((*code, text.starts_with("451 4.3.0")), (451, true), "{part}: {text}");
        }
        assert!(failures(&setup) > before, "{part}: the failure was not counted");
        setup.fault("");
        // Where no segment could be begun, it is tried again soon.
        wait_until("it is ready again", Duration::from_secs(20), || {
            setup.node.get("/readyz").is_some_and(|(status, _)| status == 200)
        });
        let (accepted, refused_later) = send_at_once(&setup, &format!("after{round}"), size);
        assert_eq!((accepted.len(), refused_later), (SESSIONS, Vec::new()), "{part}: the disk is well again");
        println!("sync of {part} fails: {} sessions got 451; then {} got 250", refused.len(), accepted.len());
        kept.extend(accepted);
    }
    let log = setup.node.log();
    assert!(log.contains("ERROR") && log.contains("cannot sync"), "no error in the log");
    setup.node.kill();

    let ops = operations(&setup.node.path("operations"));
    assert_eq!(synced_after_a_failure(&ops), [""; 0], "a failed sync was tried again on the same file");
    let disk = after_power_cut(&initial, &inodes, &ops, Survives::Nothing);
    let mut again = StorageSetup::prepare(&Settings::default());
    write_tree(&disk, &root, &again.node.path("state"));
    let hops = again.hops(&quiet());
    again.node.start();
    again.wait_until_delivered();
    assert_once(&hops, &kept);
    println!("after a power cut exactly the {} accepted messages arrive", kept.len());
}
