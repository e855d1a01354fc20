//! A full disk: outcomes are written from the reserve, the log is made shorter, and then there is room again.

use std::path::Path;
use std::time::{Duration, Instant};

use fingerpost::spool::entry::{RecipientState, Waiting};
use fingerpost::spool::{Sizes, Spool};

use crate::spool_store::faults::SmallFileSystem;
use crate::spool_store::fixture::{
    accept, accepted, change, changed, commit, delivered, found, is_whole, message, open,
};

const SIZES: Sizes = Sizes { segment: 256 << 10, slack: 64 << 20, reserve: 128 << 10 };

/// Takes all room there is.
fn fill(folder: &Path) {
    let piece = std::fs::File::create(folder.join("filler")).unwrap();
    let (mut at, mut size) = (0, 65536);
    while size > 0 {
        match std::os::unix::fs::FileExt::write_at(&piece, &vec![1; size], at) {
            Ok(written) => at += written as u64,
            Err(_) => size /= 2,
        }
    }
}

/// What became free since.
fn fill_again(folder: &Path) {
    let at = |name| folder.join(name);
    std::fs::rename(at("filler"), at("filler-1")).unwrap();
    fill(folder);
    std::fs::rename(at("filler"), at("filler-2")).unwrap();
    std::fs::rename(at("filler-1"), at("filler")).unwrap();
}

fn is_taken(spool: &dyn Spool, size: u64) -> bool {
    commit(spool, accepted(vec![message(spool, size, 1)])).is_ok()
}

#[test]
fn outcomes_find_room_when_the_disk_is_full_and_new_mail_does_not() {
    let Some(disk) = SmallFileSystem::mount() else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    let spool = open(disk.0.path(), SIZES).unwrap();
    let entries: Vec<_> = (0..50).map(|_| accept(&*spool, 5000, 2)).collect();
    fill(disk.0.path());
    let begun = Instant::now();
    let refused = (0..20).filter(|_| !is_taken(&*spool, 20_000)).count();
    assert!(refused >= 19, "{refused} of 20: the disk is full");
    assert!(disk.0.path().join("reserve").exists(), "it is not given away for mail that is refused anyway");
    for entry in &entries {
        commit(&*spool, changed(vec![delivered(entry.id, 0)])).unwrap();
    }
    assert!(!is_taken(&*spool, 20_000), "what is left of the reserve is for outcomes");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(spool);
    let begun = Instant::now();
    let spool = open(disk.0.path(), SIZES).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "a start on a full disk took {:?}", begun.elapsed());
    let recovered = found(&*spool);
    assert_eq!(recovered.len(), 50);
    for (found, entry) in recovered.iter().zip(&entries) {
        assert!(found.id == entry.id && found.recipients[0].state == delivered(entry.id, 0).state);
        assert!(is_whole(&*spool, entry));
    }
    std::fs::remove_file(disk.0.path().join("filler")).unwrap();
    assert!(is_taken(&*spool, 20_000));
    assert!(disk.0.path().join("reserve").exists());
}

#[test]
fn the_log_is_made_shorter_on_a_full_disk() {
    let Some(disk) = SmallFileSystem::mount() else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    let spool = open(disk.0.path(), SIZES).unwrap();
    let entries: Vec<_> = (0..100).map(|_| accept(&*spool, 20_000, 1)).collect();
    fill(disk.0.path());
    assert!(!is_taken(&*spool, 20_000));
    // one in ten stays: every segment is sparse
    let (stay, over): (Vec<_>, Vec<_>) = entries.into_iter().enumerate().partition(|(n, _)| n % 10 == 0);
    for (_, entry) in &over {
        commit(&*spool, changed(vec![delivered(entry.id, 0)])).unwrap();
    }
    let begun = Instant::now();
    while !is_taken(&*spool, 20_000) {
        assert!(begun.elapsed() < Duration::from_secs(20), "2 MiB are over, and there is no room for new mail");
    }
    assert!(stay.iter().all(|(_, entry)| is_whole(&*spool, entry)));
}

#[test]
fn a_start_works_where_outcomes_have_used_up_the_reserve() {
    let Some(disk) = SmallFileSystem::mount() else {
        return eprintln!("skipped: only root can mount a small file system");
    };
    let spool = open(disk.0.path(), SIZES).unwrap();
    let entry = accept(&*spool, 5000, 2);
    fill(disk.0.path());
    let last_error = "x".repeat(10_000);
    let waiting = || RecipientState::Waiting(Waiting { last_error: last_error.clone(), ..Waiting::default() });
    let kept = (0..1000).take_while(|_| commit(&*spool, changed(vec![change(entry.id, 1, waiting())])).is_ok()).count();
    assert!(kept > 5 && kept < 1000, "{kept} from the reserve");
    drop(spool);
    fill_again(disk.0.path());
    let spool = open(disk.0.path(), SIZES).unwrap();
    // It takes mail as soon as what is over has given its space back.
    assert_eq!(crate::spool_store::fixture::found(&*spool)[0].id, entry.id);
    drop(spool);
    std::fs::remove_file(disk.0.path().join("filler")).unwrap();
    let spool = open(disk.0.path(), SIZES).unwrap();
    assert!(is_taken(&*spool, 20_000) && disk.0.path().join("reserve-start").exists(), "it is there for the next time");
}
