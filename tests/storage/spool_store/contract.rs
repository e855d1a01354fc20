//! What any spool promises, one promise each; [`crate::spool_store::model`] tries them together. `open` opens the same one
//! again, and says what is wrong where it cannot.

use std::sync::Arc;

use fingerpost::spool::{Spool, SpoolError};

use crate::spool_store::fixture::{LARGE, STORES, accepted, commit, delivered, message};

pub(crate) type OpenAgain<'a> = &'a dyn Fn() -> Result<Arc<dyn Spool>, SpoolError>;

/// All of them, with a spool each.
pub(crate) const PROMISES: [fn(OpenAgain<'_>); 4] = [
    two_processes_do_not_have_it,
    content_is_as_long_as_its_envelope_says,
    what_is_finished_is_gone,
    a_record_is_durable_as_a_whole,
];

#[test]
fn every_store_on_a_disk_keeps_them() {
    for (_, open) in STORES {
        for promise in PROMISES {
            let folder = tempfile::tempdir().unwrap();
            promise(&|| open(folder.path()));
        }
    }
}

fn two_processes_do_not_have_it(open: OpenAgain<'_>) {
    let first = open().unwrap();
    let error = open().err().expect("two at once").to_string();
    assert!(error.contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(first);
    open().unwrap();
}

fn content_is_as_long_as_its_envelope_says(open: OpenAgain<'_>) {
    let spool = open().unwrap();
    for size in [100, LARGE] {
        let (draft, mut entry) = message(&*spool, size, 1);
        entry.content.size -= 1;
        assert!(commit(&*spool, accepted(vec![(draft, entry)])).is_err(), "{size}");
    }
    assert_eq!(spool.live_messages(), 0);
}

fn what_is_finished_is_gone(open: OpenAgain<'_>) {
    let spool = open().unwrap();
    for size in [100, LARGE] {
        let (draft, entry) = message(&*spool, size, 2);
        commit(&*spool, accepted(vec![(draft, entry.clone())])).unwrap();
        for (recipient, is_there) in [(0, true), (1, false), (0, false), (7, false)] {
            let changes = vec![delivered(entry.id, recipient)];
            commit(&*spool, crate::spool_store::fixture::changed(changes)).unwrap();
            assert_eq!(spool.open(entry.id).is_ok(), is_there, "{size} {recipient}");
            assert_eq!(spool.entry(entry.id).unwrap().is_some(), is_there);
            assert_eq!(spool.open_recipients(entry.id), if is_there { vec![1] } else { Vec::new() });
        }
    }
    assert_eq!(spool.live_messages(), 0);
}

/// New messages and outcomes of others in one record: all of it, or nothing.
fn a_record_is_durable_as_a_whole(open: OpenAgain<'_>) {
    let spool = open().unwrap();
    let (draft, first) = message(&*spool, 100, 1);
    commit(&*spool, accepted(vec![(draft, first.clone())])).unwrap();
    let (report, mut wrong) = (message(&*spool, 50, 1), message(&*spool, LARGE, 1));
    let kept = report.1.id;
    wrong.1.content.size += 1;
    let mut record = accepted(vec![wrong]);
    record.changes.push(delivered(first.id, 0));
    assert!(commit(&*spool, record).is_err());
    assert_eq!((spool.ids_after(None, 9), spool.open_recipients(first.id)), (vec![first.id], vec![0]));
    let mut record = accepted(vec![report]);
    record.changes.push(delivered(first.id, 0));
    commit(&*spool, record).unwrap();
    assert_eq!((spool.ids_after(None, 9), spool.entry(first.id).unwrap()), (vec![kept], None));
}
