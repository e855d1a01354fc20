//! What the disk does not give says nothing: nobody's mail is over for it, and nobody's is sent again. And a disk on which
//! nothing can be made durable: run in processes under the shim.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::time::{Duration, Instant};

use fingerpost::spool::condition::Takes;
use fingerpost::spool::entry::{Entry, Outcome, RecipientState};
use fingerpost::spool::release::{LetGo, release};
use fingerpost::spool::{Sizes, Spool};

use crate::spool_store::faults::{under_shim, with_fault};
use crate::spool_store::fixture::{
    accept, accepted, change, changed, commit, delivered, given, is_whole, message, open,
};
use support::power_loss::tree;

const SIZES: Sizes = Sizes { segment: 64 << 10, slack: 128 << 10, reserve: 16 << 10 };
/// Longer than the first pauses.
const SOON: Duration = Duration::from_secs(30);

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Many messages that come and go.
fn pass(spool: &dyn Spool, messages: usize) {
    for _ in 0..messages {
        let over = accept(spool, 4000, 1);
        commit(spool, changed(vec![delivered(over.id, 0)])).unwrap();
    }
}

fn exists(folder: &Path, segment: u32) -> bool {
    folder.join(format!("segments/{segment:08}.seg")).exists()
}

fn start(folder: &Path) -> (std::sync::Arc<dyn Spool>, Vec<Entry>) {
    let spool = open(folder, SIZES).unwrap();
    let recovered = crate::spool_store::fixture::found(&*spool);
    (spool, recovered)
}

/// A message with an outcome, one without, and so many that are over that their segment is to be cleaned.
fn two(spool: &dyn Spool) -> [Entry; 2] {
    let mut half = accept(spool, 3000, 2);
    let first = delivered(half.id, 0);
    commit(spool, changed(vec![first.clone()])).unwrap();
    half.apply(&first);
    [half, accept(spool, 3000, 1)]
}

#[test]
#[ignore = "a process of a_segment_that_cannot_be_read_in_compaction_stays"]
fn compacting_process() {
    let Some((_, folder)) = given() else { return };
    for fault in ["read /segments/00000001.seg$", "open /segments/00000001.seg$"] {
        let _ = fs::remove_dir_all(folder.join("segments"));
        let spool = open(&folder, SIZES).unwrap();
        let kept = two(&*spool);
        with_fault(fault, || {
            pass(&*spool, 100);
            eventually("it is told", || spool.condition().unreadable().len() == 1);
            let told = spool.condition().unreadable().remove(0);
            assert_eq!((told.segment, told.messages), (1, 2), "{fault}: {told:?}");
            pass(&*spool, 100);
            assert!(exists(&folder, 1), "{fault}: it stays");
        });
        // no later than after the pause of 5 s
        eventually("it is read again", || spool.condition().unreadable().is_empty() && !exists(&folder, 1));
        assert!(kept.iter().all(|entry| is_whole(&*spool, entry)), "{fault}");
        drop(spool);
        let (spool, recovered) = start(&folder);
        assert_eq!(recovered, kept, "{fault}: nobody's outcome was made of it, and none was forgotten");
        for entry in &kept {
            commit(&*spool, changed((0..2).map(|recipient| delivered(entry.id, recipient)).collect())).unwrap();
        }
    }
}

#[test]
fn a_segment_that_cannot_be_read_in_compaction_stays() {
    under_shim("unreadable::compacting_process", "log", Duration::ZERO);
}

/// What became of a message stands in another segment than its record.
#[test]
#[ignore = "a process of an_outcome_that_cannot_be_read_is_not_forgotten"]
fn outcome_process() {
    let Some((_, folder)) = given() else { return };
    let spool = open(&folder, SIZES).unwrap();
    let mut half = accept(&*spool, 3000, 2);
    let mut others = Vec::new();
    while !exists(&folder, 2) {
        others.push(accept(&*spool, 4000, 1).id);
    }
    let first = delivered(half.id, 0);
    commit(&*spool, changed(vec![first.clone()])).unwrap();
    half.apply(&first);
    while !exists(&folder, 3) {
        accept(&*spool, 4000, 1);
    }
    let all = fs::read_dir(folder.join("segments")).unwrap().count();
    with_fault("read /segments/00000002.seg$", || {
        // The first one is to be moved.
        others.iter().for_each(|id| commit(&*spool, changed(vec![delivered(*id, 0)])).unwrap());
        // Not before the log is long again: the first one may have been rewritten meanwhile, alone.
        eventually("it is told", || {
            pass(&*spool, 5);
            spool.condition().unreadable().iter().any(|told| told.segment == 1)
        });
    });
    eventually("the first is moved", || {
        pass(&*spool, 5);
        !exists(&folder, 1)
    });
    assert!(all >= 3);
    drop(spool);
    let (_, recovered) = start(&folder);
    assert!(recovered.contains(&half), "its first recipient has it");
}

/// Nobody waits until it is the first one.
#[test]
#[ignore = "a process of a_sparse_segment_behind_the_first_that_cannot_be_read_is_told"]
fn behind_process() {
    let Some((_, folder)) = given() else { return };
    let spool = open(&folder, SIZES).unwrap();
    let mut dense = Vec::new();
    while !exists(&folder, 2) {
        dense.push(accept(&*spool, 4000, 1));
    }
    let behind = accept(&*spool, 3000, 1);
    let told = || spool.condition().unreadable().iter().any(|told| told.segment == 2 && told.messages > 0);
    with_fault("read /segments/00000002.seg$", || {
        pass(&*spool, 60);
        eventually("it is told", told);
    });
    eventually("it is well", || spool.condition().unreadable().is_empty());
    dense.push(behind);
    assert!(dense.iter().all(|entry| is_whole(&*spool, entry)));
    drop(spool);
    assert_eq!(start(&folder).1, dense);
}

#[test]
fn a_sparse_segment_behind_the_first_that_cannot_be_read_is_told() {
    under_shim("unreadable::behind_process", "log", Duration::ZERO);
}

#[test]
fn an_outcome_that_cannot_be_read_is_not_forgotten() {
    under_shim("unreadable::outcome_process", "log", Duration::ZERO);
}

#[test]
#[ignore = "a process of an_operator_lets_a_segment_go"]
fn releasing_process() {
    let Some((_, folder)) = given() else { return };
    let spool = open(&folder, SIZES).unwrap();
    let kept = two(&*spool);
    assert_eq!(spool.keep_unreadable(1).unwrap(), None, "it can be read");
    with_fault("read /segments/00000001.seg$", || {
        pass(&*spool, 100);
        eventually("it is told", || spool.condition().unreadable().len() == 1);
        let ids: Vec<_> = kept.iter().map(|entry| entry.id).collect();
        assert_eq!(spool.keep_unreadable(1).unwrap(), Some(ids));
        let dropped = |(id, recipient)| change(id, recipient, RecipientState::Done(Outcome::Dropped));
        commit(&*spool, changed([(kept[0].id, 1), (kept[1].id, 0)].map(dropped).into())).unwrap();
        pass(&*spool, 50);
        eventually("it goes", || !exists(&folder, 1) && spool.condition().unreadable().is_empty());
    });
    assert!(folder.join("aside/00000001.seg").exists());
    drop(spool);
    assert!(start(&folder).1.is_empty());
}

#[test]
fn an_operator_lets_a_segment_go() {
    under_shim("unreadable::releasing_process", "log", Duration::ZERO);
}

#[test]
#[ignore = "a process of a_start_forgets_nothing_that_it_cannot_read"]
fn starting_process() {
    let Some((_, folder)) = given() else { return };
    let spool = open(&folder, SIZES).unwrap();
    let kept = two(&*spool);
    drop(spool);
    let before = tree(&folder);
    for fault in ["read /segments/00000001.seg$", "open /segments/00000001.seg$"] {
        with_fault(fault, || {
            let Err(error) = open(&folder, SIZES) else { panic!("{fault}: it was opened") };
            let error = error.to_string();
            assert!(error.contains("00000001.seg") && error.contains("spool release 1 --offline"), "{error}");
        });
        let after = tree(&folder);
        let is_log = |path: &Path| path.parent().is_some_and(|folder| folder.ends_with("segments"));
        let log = before.iter().filter(|(path, _)| is_log(path));
        assert_eq!(after.keys().filter(|path| is_log(path)).count(), log.clone().count(), "{fault}: nothing is begun");
        assert!(log.into_iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "{fault}: all is as it was");
    }
    // A bad moment is waited for.
    let faults = std::env::var("SHIM_FAULTS").unwrap();
    fs::write(&faults, "read /segments/00000001.seg$").unwrap();
    let over = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1500));
        fs::remove_file(faults).unwrap();
    });
    let (spool, recovered) = start(&folder);
    over.join().unwrap();
    assert_eq!(recovered, kept);
    assert!(kept.iter().all(|entry| is_whole(&*spool, entry)));
    drop(spool);
    // An operator lets it go, who knows what that means.
    assert_eq!(release(&folder, 1).unwrap(), LetGo::Nothing);
    let number = fs::read_dir(folder.join("segments")).unwrap();
    let numbers = number.filter_map(|file| file.unwrap().file_name().to_str()?.strip_suffix(".seg")?.parse().ok());
    let last: u32 = numbers.max().unwrap();
    // Root may be the one who does it: what it writes is to be the server's user's all the same.
    let segment = folder.join(format!("segments/{last:08}.seg"));
    let of_another = rustix::process::geteuid().is_root().then_some(65_534);
    chown(&segment, of_another, of_another).unwrap();
    with_fault(&format!("read /segments/{last:08}.seg$"), || {
        let LetGo::Bytes { bytes, aside, .. } = release(&folder, last).unwrap() else { panic!("nothing was let go") };
        assert!(bytes > 0 && aside.exists());
        // the shim knows the segment by its name: the copy reads as the disk gave it then
    });
    assert_eq!(
        fs::metadata(&segment).unwrap().uid(),
        of_another.unwrap_or_else(|| rustix::process::geteuid().as_raw())
    );
    let (_, recovered) = start(&folder);
    assert!(recovered.iter().all(|entry| kept.contains(entry)), "{recovered:?}");
}

#[test]
fn a_start_forgets_nothing_that_it_cannot_read() {
    under_shim("unreadable::starting_process", "log", Duration::ZERO);
}

#[test]
#[ignore = "a process of a_folder_whose_sync_failed_is_not_used_again"]
fn folder_process() {
    let Some((_, folder)) = given() else { return };
    let spool = open(&folder, SIZES).unwrap();
    let mut kept = two(&*spool).to_vec();
    with_fault("sync /segments$", || {
        while !folder.join("spare/1").read_dir().unwrap().any(|_| true) {
            kept.push(accept(&*spool, 4000, 1));
        }
    });
    assert_eq!(spool.condition().takes(), Takes::Records);
    for _ in 0..40 {
        kept.push(accept(&*spool, 4000, 1));
    }
    assert!(folder.join("spare/1").read_dir().unwrap().count() > 1, "it goes on there");
    let first = kept.remove(0);
    commit(&*spool, changed(vec![delivered(first.id, 1)])).unwrap();
    assert!(kept.iter().all(|entry| is_whole(&*spool, entry)));
    // Its parent looks for these after a power cut.
    let ids: Vec<String> = kept.iter().map(|entry| entry.id.to_string()).collect();
    fs::write(folder.parent().unwrap().join("kept"), ids.join("\n")).unwrap();
    std::process::exit(0); // as by kill -9
}

#[test]
fn a_folder_whose_sync_failed_is_not_used_again() {
    let (scratch, _) = under_shim("unreadable::folder_process", "log", Duration::ZERO);
    let kept = fs::read_to_string(scratch.path().join("kept")).unwrap();
    for folder in ["spool", "disk"] {
        let folder = scratch.path().join(folder);
        for start in 0..3 {
            let spool = open(&folder, SIZES).unwrap();
            let recovered = crate::spool_store::fixture::found(&*spool);
            let ids: Vec<String> = recovered.iter().map(|entry| entry.id.to_string()).collect();
            assert_eq!(ids.join("\n"), kept, "start {start}");
            assert!(recovered.iter().all(|entry| is_whole(&*spool, entry)));
        }
    }
}

#[test]
#[ignore = "a process of a_disk_that_takes_nothing_is_told_and_taken_again"]
fn closed_process() {
    let Some((_, folder)) = given() else { return };
    let spool = open(&folder, SIZES).unwrap();
    let mut kept = two(&*spool).to_vec();
    for fault in ["sync /spool/s", "deny /spool/s"] {
        with_fault(fault, || {
            for _ in 0..3 {
                assert!(commit(&*spool, accepted(vec![message(&*spool, 1000, 1)])).is_err(), "{fault}");
            }
            assert!(matches!(spool.condition().takes(), Takes::Nothing(why) if !why.is_empty()), "{fault}");
        });
        // by itself, nobody sends anything
        eventually("it is opened again", || spool.condition().takes() == Takes::Records);
        kept.push(accept(&*spool, 1000, 1));
    }
    drop(spool);
    let (spool, recovered) = start(&folder);
    assert!(kept.iter().all(|entry| recovered.contains(entry) && is_whole(&*spool, entry)));
}

#[test]
fn a_disk_that_takes_nothing_is_told_and_taken_again() {
    under_shim("unreadable::closed_process", "log", Duration::ZERO);
}
