//! What an older version wrote is read as it was, and what this one adds comes back.

use std::convert::Infallible;
use std::path::Path;

use fingerpost::message::queue_id::QueueId;
use fingerpost::smtp::reply::{Enhanced, Reply};
use fingerpost::spool::Sizes;
use fingerpost::spool::entry::{Entry, HeldFor, Outcome, RecipientState, Waiting, Why};
use fingerpost::spool::header::{Header, LENGTH};
use fingerpost::spool::offline::{Content, Look, Offline};
use fingerpost::time::{QueueTime, UnixTime};

use crate::spool_store::fixture::{accept, change, changed, commit, entry, found, open};

/// A segment as the last version with format 2 wrote it: a report for four recipients in each of its states, and one for
/// one recipient.
const FORMAT_2: &[u8] = include_bytes!("../../formats/spool-segment-2.seg");
const IDS: [QueueId; 2] = [QueueId(1_883_131_734_572_138_496), QueueId(1_883_131_734_577_381_376)];

fn waiting(ages_from: Option<QueueTime>) -> RecipientState {
    let last_error = "hub.contoso.com[192.0.2.1]:25: 451 4.2.1 busy".to_owned();
    RecipientState::Waiting(Waiting {
        attempts: 7,
        tried: 7,
        tries: 0,
        next_attempt: UnixTime(1_800_000_000),
        why: Why::Deferred,
        last_error,
        warned: true,
        in_doubt: 0,
        followed: false,
        ages_from,
    })
}

/// A spool of format 2 with that segment and nothing else.
fn old_spool(folder: &Path) {
    drop(open(folder, Sizes::default()).unwrap()); // its folders
    for file in std::fs::read_dir(folder.join("segments")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    std::fs::write(folder.join("segments/00000001.seg"), FORMAT_2).unwrap();
    std::fs::write(folder.join("clock"), "fingerpost queue time 1\n1900000000\n").unwrap();
}

fn expected() -> [Entry; 2] {
    let mut first = entry(IDS[0], 300, 4);
    let failed = Outcome::Failed { next_hop: "".into(), reply: Reply::fixed(550, Enhanced(5, 1, 1), "no such user") };
    let states = [waiting(None), RecipientState::Held(HeldFor::NoConnector), RecipientState::Done(failed)];
    for (queued, state) in first.recipients.iter_mut().zip(states) {
        queued.state = state;
    }
    // What it was received by is what its age counts from.
    [first, entry(IDS[1], 20, 1)].map(|entry| Entry { queued_at: QueueTime(entry.received_at.0), ..entry })
}

/// What the example's messages are made of: numbers that follow from the id.
fn content_of_format_2(entry: &Entry) -> Vec<u8> {
    let mut numbers = support::power_loss::Numbers(entry.id.0 | 1);
    let size = entry.content.size as usize;
    let words = (0..size.div_ceil(4)).flat_map(|_| (numbers.below(1 << 32) as u32).to_le_bytes());
    words.take(size).collect()
}

#[test]
fn a_spool_of_format_2_is_read_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    old_spool(folder.path());
    for start in 1..=3 {
        let spool = open(folder.path(), Sizes::default()).unwrap();
        let found = found(&*spool);
        assert_eq!(found, expected(), "start {start}");
        for entry in &found {
            let content = spool.open(entry.id).unwrap().whole().unwrap();
            assert_eq!(content, content_of_format_2(entry), "start {start}");
        }
        assert!(found.iter().all(|entry| !entry.origin.is_strangers_report()), "nobody knows whose they are");
    }
}

#[test]
fn a_report_that_waited_for_its_turn_ages_from_its_first_attempt_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    old_spool(folder.path());
    let spool = open(folder.path(), Sizes::default()).unwrap();
    let new = accept(&*spool, 100, 1);
    let since = waiting(Some(QueueTime(1_799_999_000)));
    // One of each: what the older version took, and what this one did.
    let changes = [IDS[1], new.id].map(|id| change(id, 0, since.clone())).into();
    commit(&*spool, changed(changes)).unwrap();
    drop(spool);
    let found = found(&*open(folder.path(), Sizes::default()).unwrap());
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], expected()[0]);
    assert!(found[1..].iter().all(|entry| entry.recipients[0].state == since), "{found:#?}");
}

/// The examples of all numbers, each as a spool of its own, with the large content that it names.
#[test]
fn every_format_is_exported_as_a_start_reads_it() {
    let large = QueueId(1_883_131_734_577_381_376);
    for (number, name, waiting) in [(2, "00000001.seg", 2), (3, "00000009.seg", 2), (4, "00000009.seg", 2)] {
        let folder = tempfile::tempdir().unwrap();
        old_spool(folder.path());
        std::fs::remove_file(folder.path().join("segments/00000001.seg")).unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/formats/spool-segment-{number}.seg"));
        let mut bytes = std::fs::read(example).unwrap();
        if number > 2 {
            // it says that it had some before it
            let alone = Header { previous: 0, first: 9, ..Header::read(&bytes).unwrap() };
            bytes.splice(..LENGTH, alone.write());
            std::fs::create_dir(folder.path().join("large/00000003")).unwrap();
            std::fs::write(folder.path().join(format!("large/00000003/{large}")), vec![7; 300_000]).unwrap();
        }
        std::fs::write(folder.path().join("segments").join(name), bytes).unwrap();
        let offline = Offline::read(folder.path(), Look::Whole).unwrap();
        assert_eq!(offline.problems(), []);
        let mut found = Vec::new();
        let each = offline.each::<Infallible>(|waiting| {
            match &waiting.content {
                Content::Here { is_whole, .. } => assert!(is_whole, "format {number}"),
                // Formats before 4 kept no sum of large ones.
                Content::File { sum, .. } => assert_eq!(sum.is_some(), number >= 4),
            }
            found.push(waiting.entry);
            Ok(())
        });
        each.unwrap();
        drop(offline);
        assert_eq!(found.len(), waiting, "format {number}");
        let recovered = crate::spool_store::fixture::found(&*open(folder.path(), Sizes::default()).unwrap());
        assert_eq!(found, recovered, "format {number}");
    }
}
