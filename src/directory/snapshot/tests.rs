//! Restarts with different files, and freshness.

use std::collections::HashMap;

use super::*;
use crate::config::{CacheConfig, HoldChanges, LdapMode, Profile};
use crate::directory::known::{Claim, Known, Meaning, Strength};

mod accidents;
mod ended;
mod unread;

const KEPT: SnapshotConfig = SnapshotConfig {
    poll: Duration::from_secs(10),
    full_read: Duration::from_hours(1),
    max_stale: Duration::from_hours(24),
};

fn config(base: &[&str]) -> LdapConfig {
    LdapConfig {
        urls: Vec::new(),
        profile: Profile::ActiveDirectory,
        base: base.iter().map(|base| (*base).to_owned()).collect(),
        bind_dn: String::new(),
        password_file: None,
        start_tls: false,
        ca: None,
        certificate: None,
        timeout: Duration::from_secs(5),
        probe: None,
        cache: CacheConfig { found: Duration::ZERO, not_found: Duration::ZERO, entries: 0 },
        refuse_disabled: false,
        mode: LdapMode::Snapshot(KEPT),
        hold_changes: HoldChanges { share_millionths: 20_000, at_least: 3, within: Duration::from_hours(1) },
        mailbox_servers: HashMap::new(),
    }
}

fn open(folder: &Path, config: &LdapConfig) -> Snapshot {
    let mail: Arc<dyn Mail> = Arc::new(crate::directory::mail::NoMail);
    Snapshot::open(&"ad".into(), config, KEPT, &Room { folder, metrics: &Metrics::new(), mail: &mail })
}

fn known(number: usize) -> Known {
    let claims = vec![Claim { key: key(number), strength: Strength::Certain }];
    let rule = "test".to_owned();
    let meaning = Meaning { kind: Kind::Mailbox, target: None, mail_server: None, rule, at_odds: None };
    Known { id: Id(number as u64), dn: format!("CN=u{number}"), claims, meaning: Ok(meaning) }
}

fn key(number: usize) -> String {
    format!("u{number}@contoso.com")
}

fn at(usn: u64) -> Position {
    Position::Usn { invocation: b"dc1".to_vec(), usn }
}

/// Reads users with these numbers completely.
fn read(snapshot: &Snapshot, users: std::ops::Range<usize>, usn: u64) -> Outcome {
    let mut writer = snapshot.begin().unwrap();
    writer.put(users.map(known).collect()).unwrap();
    snapshot.read(writer, at(usn), None).unwrap()
}

/// A snapshot that follows ten users.
fn following(folder: &Path) -> Snapshot {
    let snapshot = open(folder, &config(&["OU=Staff"]));
    read(&snapshot, 0..10, 1);
    snapshot.changed(Vec::new(), at(1));
    snapshot
}

fn all_gone() -> Vec<Change> {
    (0..10).map(|number| Change::Gone(Id(number))).collect()
}

fn answered(snapshot: &Snapshot, number: usize) -> Option<bool> {
    snapshot.answer(&key(number), UnixTime::now()).map(|lookup| lookup != Lookup::NotFound)
}

#[test]
fn a_file_of_another_part_of_the_directory_is_served_and_everything_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let narrow = config(&["OU=Staff"]);
    read(&open(folder.path(), &narrow), 0..1, 7);
    for (config, expected) in [
        (narrow.clone(), at(7)),
        (config(&["OU=Staff", "OU=More"]), Position::Unknown),
        (LdapConfig { profile: Profile::Openldap, ..narrow.clone() }, Position::Unknown),
        (LdapConfig { refuse_disabled: true, ..narrow.clone() }, Position::Unknown),
    ] {
        let snapshot = open(folder.path(), &config);
        assert_eq!(snapshot.position(), expected, "{config:?}");
        assert_eq!(snapshot.until_whole_read().is_zero(), expected == Position::Unknown);
        assert!(snapshot.served().is_some());
        assert_eq!(snapshot.answer("nobody@contoso.com", UnixTime::now()), None, "nobody follows it yet");
    }
}

/// The file is a cache: it is not used, the directory is read completely, and the file is replaced.
#[test]
fn a_file_of_another_version_is_told_in_one_line_and_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    read(&open(folder.path(), &config(&["OU=Staff"])), 0..3, 7);
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let ours = std::fs::read(&file).unwrap();
    let mut foreign = ours.clone();
    foreign[6] += 1;
    std::fs::write(&file, &foreign).unwrap();
    let lines = Lines::default();
    let writer = {
        let lines = lines.clone();
        move || lines.clone()
    };
    let log = tracing_subscriber::fmt().with_writer(writer).finish();
    let snapshot = tracing::subscriber::with_default(log, || open(folder.path(), &config(&["OU=Staff"])));
    let told = String::from_utf8(lines.0.lock().clone()).unwrap();
    assert!(told.lines().count() == 1 && told.contains("another version of the program wrote it"), "{told}");
    assert_eq!(answered(&snapshot, 0), None);
    assert_eq!(std::fs::read(&file).unwrap(), foreign, "until there is another one");
    read(&snapshot, 0..3, 8);
    assert_eq!(std::fs::read(&file).unwrap()[..8], ours[..8]);
    assert_eq!(answered(&open(folder.path(), &config(&["OU=Staff"])), 0), Some(true));
}

/// A log in memory.
#[derive(Clone, Default)]
struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_a_whole_read_does_not_have_is_not_believed_before_what_changed_during_it_is_in() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = open(folder.path(), &config(&["OU=Staff"]));
    read(&snapshot, 0..10, 1);
    assert_eq!((answered(&snapshot, 1), answered(&snapshot, 11)), (Some(true), None));
    snapshot.changed(vec![Change::Put(known(11))], at(2));
    assert_eq!((answered(&snapshot, 11), answered(&snapshot, 12)), (Some(true), Some(false)));
}

#[tokio::test(start_paused = true)]
async fn a_look_at_some_entries_is_no_contact() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = following(folder.path());
    tokio::time::advance(Duration::from_secs(20)).await;
    snapshot.tell_age();
    snapshot.corrected(vec![Change::Put(known(11))]);
    assert_eq!(answered(&snapshot, 11), Some(true));
    assert_eq!((answered(&snapshot, 12), snapshot.report().age_seconds), (None, Some(20)));
    assert_eq!(snapshot.position(), at(1));
}

#[test]
fn accepting_confirms_nothing_and_takes_only_what_was_held() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = following(folder.path());
    assert_eq!(snapshot.accept(&Accept::Yes), 0, "nothing was held");
    assert_eq!(snapshot.changed(all_gone(), at(2)), Outcome::Held(10));
    snapshot.lost();
    assert_eq!(snapshot.accept(&Accept::Yes), 10);
    assert_eq!((answered(&snapshot, 1), snapshot.report().held), (None, 0), "nobody follows it");
    assert!(snapshot.wants_whole_read(), "the file does not have it");
    read(&snapshot, 0..10, 3);
    // What the next read finds has not been accepted.
    assert_eq!(read(&snapshot, 20..30, 4), Outcome::Held(10));
    assert!(!snapshot.wants_whole_read());
}

#[tokio::test(start_paused = true)]
async fn what_is_held_does_not_age_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = following(folder.path());
    snapshot.changed(all_gone(), at(2));
    // As if the file had last been updated long ago.
    snapshot.journal.lock().as_mut().unwrap().append(Vec::new(), None, UnixTime(1)).unwrap();
    snapshot.changed(Vec::new(), at(3));
    drop(snapshot);
    let again = open(folder.path(), &config(&["OU=Staff"]));
    assert_eq!(again.position(), Position::Unknown, "everything has to come again");
    assert!(again.until_whole_read().is_zero() && again.report().held > 0);
    assert!(again.report().age_seconds.is_some_and(|age| age < 60), "{:?}", again.report());
    assert_eq!(answered(&again, 1), Some(true));
    assert_eq!(read(&again, 20..30, 3), Outcome::Held(10));
}

#[test]
fn the_probe_has_to_be_somebody_who_gets_mail() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = open(folder.path(), &config(&["OU=Staff"]));
    let mut nobody = known(1);
    nobody.meaning.as_mut().unwrap().kind = Kind::NoMailbox;
    for (users, expected) in [(vec![known(0)], false), (vec![nobody], false), (vec![known(1)], true)] {
        let mut writer = snapshot.begin().unwrap();
        writer.put(users).unwrap();
        assert_eq!(snapshot.read(writer, at(1), Some(&key(1))).is_ok(), expected);
    }
}

#[test]
fn addresses_that_others_get_as_well_count_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = following(folder.path());
    let also = |number: usize| {
        let mut thief = known(100 + number);
        thief.claims.push(Claim { key: key(number), strength: Strength::Certain });
        vec![Change::Put(thief)]
    };
    for number in 0..3 {
        assert_eq!(snapshot.changed(also(number), at(2)), Outcome::Taken(1));
        assert_eq!(answered(&snapshot, number), None, "two have it");
    }
    assert_eq!(snapshot.changed(also(3), at(2)), Outcome::Held(4));
    for number in 0..4 {
        let (old, new) = (answered(&snapshot, number), answered(&snapshot, 100 + number));
        assert_eq!((old, new), (Some(true), Some(true)), "it goes on as before");
    }
}

#[test]
fn what_the_directory_says_itself_is_compared_with_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = following(folder.path());
    assert!(snapshot.contradicts(&key(1), &Lookup::NotFound));
    assert_eq!(snapshot.suspects(&key(1), &Lookup::NotFound).len(), 1);
    snapshot.changed(all_gone(), at(2));
    assert!(!snapshot.contradicts(&key(1), &Lookup::NotFound), "that is known, and waits");
}
