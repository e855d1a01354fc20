//! A spool that is read without being opened says what a start would find, whatever it went through, and changes nothing.

use std::path::Path;

use fingerpost::message::queue_id::QueueId;
use fingerpost::spool::Sizes;
use fingerpost::spool::entry::{Entry, HeldFor, RecipientState, Waiting};
use fingerpost::spool::offline::{Content, Look, NotRead, Offline};
use fingerpost::time::UnixTime;

use crate::spool_store::fixture::{LARGE, STORES, accept, change, changed, commit, content, delivered, open};
use support::power_loss::{Numbers, tree};

/// What waits, by id, each with whether its content is what it was; and that nothing was written.
fn read(folder: &Path) -> Vec<(Entry, bool)> {
    let before = tree(folder);
    let offline = Offline::read(folder, Look::Whole).unwrap();
    assert!(offline.problems().is_empty(), "{:?}", offline.problems());
    assert!(offline.strays().unwrap().is_empty());
    let mut found = Vec::new();
    let each = offline.each::<std::convert::Infallible>(|waiting| {
        let expected = content(waiting.entry.id, waiting.entry.content.size);
        let is_right = match waiting.content {
            Content::Here { bytes, is_whole } => is_whole && bytes == expected,
            Content::File { path, sum } => {
                let bytes = std::fs::read(path).unwrap();
                sum == Some(crc32c::crc32c(&bytes)) && bytes == expected
            }
        };
        found.push((waiting.entry, is_right));
        Ok(())
    });
    each.unwrap();
    assert_eq!(offline.count(), found.len());
    assert_eq!(tree(folder), before);
    found.sort_by_key(|(entry, _)| entry.id);
    found
}

#[test]
fn it_says_what_a_start_would_find() {
    for (name, open) in STORES {
        let folder = tempfile::tempdir().unwrap();
        let mut numbers = Numbers(7);
        let mut known: Vec<QueueId> = Vec::new();
        for round in 0..5 {
            let spool = open(folder.path()).unwrap();
            let mut entries = crate::spool_store::fixture::found(&*spool);
            for _ in 0..40 {
                let size = if numbers.below(40) == 0 { LARGE } else { 1 + numbers.below(3000) as u64 };
                entries.push(accept(&*spool, size, 1 + numbers.below(3)));
                known.push(entries[entries.len() - 1].id);
                let id = known[numbers.below(known.len())];
                let recipient = numbers.below(3);
                let next_attempt = UnixTime(numbers.below(1000) as u64);
                let changes = match numbers.below(4) {
                    0 => vec![change(id, recipient, RecipientState::Held(HeldFor::Drop))],
                    1 => vec![change(
                        id,
                        recipient,
                        RecipientState::Waiting(Waiting { next_attempt, ..Waiting::default() }),
                    )],
                    _ => (0..3).map(|recipient| delivered(id, recipient)).collect(),
                };
                commit(&*spool, changed(changes)).unwrap();
            }
            drop(spool);
            let found = read(folder.path());
            let spool = open(folder.path()).unwrap();
            let recovered = crate::spool_store::fixture::found(&*spool);
            assert!(recovered.len() > 10, "{name}, round {round}: {}", recovered.len());
            assert!(found.iter().all(|(_, is_right)| *is_right), "{name}, round {round}");
            let found: Vec<Entry> = found.into_iter().map(|(entry, _)| entry).collect();
            assert!(found == recovered, "{name}, round {round}: {} and {}", found.len(), recovered.len());
        }
    }
}

#[test]
fn what_has_rotted_is_told_from_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), Sizes::default()).unwrap();
    let [small, whole, large, gone] = [300, 300, LARGE, LARGE].map(|size| accept(&*spool, size, 1));
    drop(spool);
    let spoil = |path: &Path, at: usize| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let segment = folder.path().join("segments/00000001.seg");
    let at = memchr::memmem::find(&std::fs::read(&segment).unwrap(), &content(small.id, 300)).unwrap();
    spoil(&segment, at);
    spoil(&folder.path().join(format!("large/00000000/{}", large.id)), 99);
    std::fs::remove_file(folder.path().join(format!("large/00000000/{}", gone.id))).unwrap();
    let offline = Offline::read(folder.path(), Look::Whole).unwrap();
    assert!(matches!(offline.problems(), [problem] if problem.text().contains("cannot be read at bytes")));
    let mut found = Vec::new();
    let each = offline.each::<std::convert::Infallible>(|waiting| {
        let is_right = match waiting.content {
            Content::Here { is_whole, .. } => is_whole,
            Content::File { path, sum } => std::fs::read(path).is_ok_and(|bytes| sum == Some(crc32c::crc32c(&bytes))),
        };
        found.push((waiting.entry.id, is_right));
        Ok(())
    });
    each.unwrap();
    assert_eq!(found, [(small.id, false), (whole.id, true), (large.id, false), (gone.id, false)]);
}

#[test]
fn a_large_content_whose_envelope_cannot_be_read_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path(), Sizes::default()).unwrap();
    let large = accept(&*spool, LARGE, 1);
    drop(spool);
    std::fs::remove_file(folder.path().join("segments/00000001.seg")).unwrap();
    let offline = Offline::read(folder.path(), Look::Whole).unwrap();
    let strays = offline.strays().unwrap();
    assert_eq!(strays.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [large.id]);
}

#[test]
fn it_is_not_read_while_it_is_open_and_not_opened_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(Offline::read(&folder.path().join("none"), Look::Whole), Err(NotRead::Missing(_))));
    let spool = open(folder.path(), Sizes::default()).unwrap();
    let Err(NotRead::InUse(error)) = Offline::read(folder.path(), Look::Headers) else { panic!("it was read") };
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(spool);
    let offline = [Look::Whole, Look::Headers].map(|look| Offline::read(folder.path(), look).unwrap());
    let Err(error) = open(folder.path(), Sizes::default()) else { panic!("it was opened") };
    assert!(error.to_string().contains("is being read by `fingerpost queue export`"), "{error}");
    // A short look is waited for.
    let looking = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(150));
        drop(offline);
    });
    drop(open(folder.path(), Sizes::default()).unwrap());
    looking.join().unwrap();
}
