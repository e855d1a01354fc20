//! The log is made shorter while the spool runs: the disk's bound holds, what waits is whole, and what is over stays over.

use std::path::Path;
use std::time::{Duration, Instant};

use fingerpost::cluster::ids::Ids;
use fingerpost::message::queue_id::QueueId;
use fingerpost::spool::entry::{Entry, HeldFor, RecipientState};
use fingerpost::spool::{Sizes, Spool};
use fingerpost::time::UnixTime;

use crate::spool_store::fixture::{
    accept, accepted, change, changed, commit, content, delivered, entry, found, is_whole, open,
};
use crate::spool_store::model::size;

const SIZES: Sizes = Sizes { segment: 64 << 10, slack: 512 << 10, reserve: 16 << 10 };

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Many messages that come and go.
fn pass(spool: &dyn Spool, messages: usize) {
    for _ in 0..messages {
        let over = accept(spool, 4000, 1);
        commit(spool, changed(vec![delivered(over.id, 0)])).unwrap();
    }
}

/// Waits until the folder has this property.
fn eventually(what: &str, folder: &Path, mut is_so: impl FnMut(&Path) -> bool) {
    let begun = Instant::now();
    while !is_so(folder) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
    }
}

#[test]
fn the_disk_holds_twice_what_is_live_and_a_bit_however_long_some_mail_waits() {
    let folder = scratch();
    let spool = open(folder.path(), SIZES).unwrap();
    let (mut waiting, mut most) = (Vec::<Entry>::new(), 0);
    for round in 0..120_u64 {
        let mut late = accept(&*spool, 4000, 2);
        let later = change(late.id, 1, RecipientState::due(UnixTime(round)));
        for change in [delivered(late.id, 0), later] {
            late.apply(&change);
            commit(&*spool, changed(vec![change])).unwrap();
        }
        waiting.push(late);
        pass(&*spool, 12);
        let live = waiting.len() as u64 * 4500;
        let size = size(folder.path());
        assert!(size <= 2 * live + SIZES.slack, "round {round}: {size} bytes for {live} live ones");
        most = most.max(size);
    }
    println!(
        "{} KiB are live, at most {} KiB were on the disk, 6 MiB were written",
        waiting.len() * 4500 / 1024,
        most / 1024
    );
    assert!(!folder.path().join("segments/00000001.seg").exists());
    assert!(waiting.iter().all(|entry| is_whole(&*spool, entry)), "also what was moved");
    drop(spool);
    let spool = open(folder.path(), SIZES).unwrap();
    assert_eq!(found(&*spool), waiting);
    assert!(waiting.iter().all(|entry| is_whole(&*spool, entry)));
}

#[test]
fn behind_what_waits_space_comes_back_out_of_turn() {
    let folder = scratch();
    let spool = open(folder.path(), SIZES).unwrap();
    let mut waiting: Vec<Entry> = (0..100).map(|_| accept(&*spool, 4000, 2)).collect();
    let first = || std::fs::metadata(folder.path().join("segments/00000001.seg")).unwrap();
    let (before, inode) = (size(folder.path()), std::os::unix::fs::MetadataExt::ino(&first()));
    for round in 0..50_usize {
        // Something becomes of what waits, and now and then something stays.
        let at = round * 7 % waiting.len();
        let changes =
            [delivered(waiting[at].id, 0), change(waiting[at].id, 1, RecipientState::due(UnixTime(round as u64)))];
        commit(&*spool, changed(changes.to_vec())).unwrap();
        changes.iter().for_each(|change| waiting[at].apply(change));
        if round % 10 == 0 {
            waiting.push(accept(&*spool, 1000, 2));
        }
        pass(&*spool, 20);
    }
    let bound = before + 6 * SIZES.segment;
    eventually("4 MB passed", folder.path(), |path| size(path) <= bound);
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&first()), inode, "what waits was not moved");
    let segments = || std::fs::read_dir(folder.path().join("segments")).unwrap().count();
    assert!(segments() < 20, "they become one: {}", segments());
    let check = |spool: &dyn Spool| {
        assert_eq!(found(spool), waiting);
        assert!(waiting.iter().all(|entry| is_whole(spool, entry)));
    };
    check(&*spool);
    drop(spool);
    let spool = open(folder.path(), SIZES).unwrap();
    check(&*spool);
    // What is over stays over, wherever its outcome is now.
    for entry in &waiting {
        commit(&*spool, changed((0..2).map(|recipient| delivered(entry.id, recipient)).collect())).unwrap();
    }
    drop(spool);
    assert!(found(&*open(folder.path(), SIZES).unwrap()).is_empty());
}

#[test]
fn what_is_over_stays_over_though_its_outcome_is_long_gone_from_the_log() {
    let folder = scratch();
    let mut spool = open(folder.path(), SIZES).unwrap();
    let mut message = accept(&*spool, 3000, 2);
    let first = delivered(message.id, 0);
    commit(&*spool, changed(vec![first.clone()])).unwrap();
    message.apply(&first);
    let late = [RecipientState::due(UnixTime(1)), RecipientState::Held(HeldFor::Drop)]
        .map(|state| change(message.id, 0, state));
    for round in 0..3 {
        for change in late.iter().chain([&first]) {
            commit(&*spool, changed(vec![change.clone()])).unwrap();
        }
        if round == 1 {
            pass(&*spool, 100); // it is moved
            eventually("the first segment goes", folder.path(), |path| !path.join("segments/00000001.seg").exists());
        }
        drop(spool);
        spool = open(folder.path(), SIZES).unwrap();
        assert_eq!(found(&*spool), [message.clone()], "round {round}");
    }
    commit(&*spool, changed(vec![delivered(message.id, 1)])).unwrap();
    pass(&*spool, 100);
    for change in late.iter().chain([&first]) {
        commit(&*spool, changed(vec![change.clone()])).unwrap();
    }
    assert!(spool.open(message.id).is_err());
    drop(spool);
    assert!(found(&*open(folder.path(), SIZES).unwrap()).is_empty());
}

#[test]
fn content_can_be_read_to_its_end_while_its_message_is_moved_or_finished() {
    let folder = scratch();
    let spool = open(folder.path(), SIZES).unwrap();
    let stays = accept(&*spool, 5000, 1);
    drop(spool.open(stays.id).unwrap()); // the first time it comes from memory
    let stored = spool.open(stays.id).unwrap();
    pass(&*spool, 100);
    eventually("the first segment goes", folder.path(), |path| !path.join("segments/00000001.seg").exists());
    assert_eq!(stored.whole().unwrap(), crate::spool_store::fixture::content(stays.id, 5000));
    let moved = spool.open(stays.id).unwrap();
    commit(&*spool, changed(vec![delivered(stays.id, 0)])).unwrap();
    assert_eq!(moved.whole().unwrap(), crate::spool_store::fixture::content(stays.id, 5000));
}

#[test]
fn what_has_rotted_waits_as_it_is_and_stops_nobody() {
    let folder = scratch();
    let spool = open(folder.path(), SIZES).unwrap();
    let mut rotten = accept(&*spool, 5000, 2);
    let half = delivered(rotten.id, 1);
    commit(&*spool, changed(vec![half.clone()])).unwrap();
    rotten.apply(&half);
    let stays = accept(&*spool, 5000, 1);
    let first = folder.path().join("segments/00000001.seg");
    let mut bytes = std::fs::read(&first).unwrap();
    let content = crate::spool_store::fixture::content(rotten.id, 5000);
    let at = memchr::memmem::find(&bytes, &content).unwrap();
    bytes[at + 100] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    pass(&*spool, 100);
    eventually("the first segment goes", folder.path(), |path| !path.join("segments/00000001.seg").exists());
    assert!(is_whole(&*spool, &stays));
    drop(spool.open(rotten.id).unwrap()); // the first time it comes from memory
    let is_damaged = |spool: &dyn Spool| {
        let stored = spool.open(rotten.id).unwrap();
        assert!(stored.whole().is_err_and(|error| error.kind() == std::io::ErrorKind::InvalidData));
        stored.is_damaged()
    };
    assert!(is_damaged(&*spool), "nobody gets it");
    drop(spool);
    let spool = open(folder.path(), SIZES).unwrap();
    assert_eq!(found(&*spool), [rotten.clone(), stays], "and nobody's outcome is made of it");
    assert!(is_damaged(&*spool));
    let aside = |end: &str| folder.path().join("aside").join(end);
    assert!(!aside("00000001.seg").exists(), "all else of it was moved");
    let kept = std::fs::read(aside(&format!("{}.eml", rotten.id))).unwrap();
    assert_eq!(kept.iter().zip(&content).filter(|(kept, was)| kept != was).count(), 1);
    assert_eq!(
        serde_json::from_slice::<Entry>(&std::fs::read(aside(&format!("{}.json", rotten.id))).unwrap()).unwrap(),
        rotten
    );
}

/// Ids of a cluster are higher than all of a spool, whenever they come: that says nothing of where their records are.
#[test]
fn mail_that_came_from_a_cluster_stays_over_and_its_ids_are_given_to_nobody() {
    let folder = scratch();
    let spool = open(folder.path(), SIZES).unwrap();
    let (ids, now) = (Ids::new(3, 0), UnixTime::now().0 * 1000);
    let came: Vec<QueueId> = (0..12).map(|_| ids.next(now)).collect();
    let mut waiting = Vec::new();
    for id in &came {
        let draft = spool.draft(*id, content(*id, 400)).unwrap();
        commit(&*spool, accepted(vec![(draft, entry(*id, 400, 1))])).unwrap();
        waiting.push(accept(&*spool, 4000, 1));
    }
    assert!(waiting.iter().all(|entry| !entry.id.is_clustered()));
    pass(&*spool, 40);
    came.iter().for_each(|id| commit(&*spool, changed(vec![delivered(*id, 0)])).unwrap());
    // An id of its own, made when the clock was ahead; soon nothing of that message is left.
    let ahead = QueueId((now + 3_600_000) << 20);
    let draft = spool.draft(ahead, content(ahead, 400)).unwrap();
    commit(&*spool, accepted(vec![(draft, entry(ahead, 400, 1))])).unwrap();
    commit(&*spool, changed(vec![delivered(ahead, 0)])).unwrap();
    pass(&*spool, 200);
    drop(spool);
    let spool = open(folder.path(), SIZES).unwrap();
    assert_eq!(found(&*spool), waiting);
    let next = spool.new_id();
    assert!(!next.is_clustered() && next > ahead, "{next} {ahead}");
}
