//! What is read back of a file, whole and damaged.

use std::path::PathBuf;

use super::*;
use crate::directory::known::{Claim, Meaning, Strength};
use crate::recipient::{Kind, Lookup};

fn known(name: &str) -> Known {
    let claims = vec![Claim { key: format!("{name}@contoso.com"), strength: Strength::Certain }];
    let rule = "test".to_owned();
    let meaning = Meaning { kind: Kind::Mailbox, target: None, mail_server: None, rule, at_odds: None };
    Known { id: Id::of(name.as_bytes()), dn: format!("CN={name},DC=contoso"), claims, meaning: Ok(meaning) }
}

fn has(loaded: &Loaded, name: &str) -> bool {
    matches!(loaded.view.lookup(&format!("{name}@contoso.com")), Lookup::Found(_))
}

/// A file with ann and bob, to which carl came while ann went.
fn written(folder: &Path) -> PathBuf {
    let path = folder.join("state/ad.snapshot");
    let mut writer = Writer::create(&path, Id(5)).unwrap();
    writer.put(vec![known("ann"), known("bob")]).unwrap();
    let (written, table) = writer.finish(Position::Unknown).unwrap();
    assert_eq!(table.count(), 2);
    let mut journal = written.install().unwrap();
    let changes = vec![Change::Put(known("carl")), Change::Gone(Id::of(b"ann"))];
    journal.append(changes, Some(&nine()), UnixTime(8)).unwrap();
    path
}

fn nine() -> Position {
    Position::Usn { invocation: b"dc1".to_vec(), usn: 9 }
}

fn read(path: &Path) -> Result<Loaded, Unreadable> {
    load(&File::open(path)?)
}

#[test]
fn what_was_written_comes_back_with_what_changed_since() {
    let folder = tempfile::tempdir().unwrap();
    assert!(open(&folder.path().join("none")).unwrap().is_none());
    let begun = UnixTime::now();
    let loaded = read(&written(folder.path())).unwrap();
    assert_eq!(["ann", "bob", "carl"].map(|name| has(&loaded, name)), [false, true, true]);
    assert_eq!(loaded.position, nine());
    assert!(loaded.whole >= begun, "it was read as a whole now");
    assert_eq!((loaded.at, loaded.of, loaded.view.count_entries()), (UnixTime(8), Id(5), 2));
}

#[test]
fn a_file_cut_off_anywhere_is_read_to_its_last_whole_record_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let whole = fs::read(&path).unwrap();
    let mut states = Vec::new();
    for length in 0..=whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        states.push(read(&path).ok().map(|loaded| has(&loaded, "carl")));
    }
    states.dedup();
    assert_eq!(states, [None, Some(false), Some(true)]);
}

#[test]
fn what_is_added_behind_a_torn_record_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
    let (loaded, mut journal) = open(&path).unwrap().unwrap();
    assert!(!has(&loaded, "carl"));
    journal.append(vec![Change::Put(known("dora"))], Some(&Position::Unknown), UnixTime(9)).unwrap();
    let loaded = read(&path).unwrap();
    assert_eq!(["ann", "carl", "dora"].map(|name| has(&loaded, name)), [true, false, true]);
}

#[test]
fn a_damaged_octet_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, damaged).unwrap();
        // What stands behind the damage is not believed; what stands before it was right.
        if let Ok(loaded) = read(&path) {
            assert!(has(&loaded, "ann") && has(&loaded, "bob") && !has(&loaded, "carl"), "octet {at}");
        }
    }
}

#[test]
fn a_file_that_is_not_installed_leaves_the_other_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let mut writer = Writer::create(&path, Id(5)).unwrap();
    writer.put(vec![known("eve")]).unwrap();
    drop(writer.finish(Position::Unknown).unwrap());
    assert!(has(&read(&path).unwrap(), "bob"));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn two_that_write_are_not_in_each_others_way_and_the_last_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let (mut one, mut other) = (Writer::create(&path, Id(5)).unwrap(), Writer::create(&path, Id(6)).unwrap());
    one.put(vec![known("eve")]).unwrap();
    other.put(vec![known("fay"), known("gil")]).unwrap();
    let (one, table) = one.finish(Position::Unknown).unwrap();
    assert_eq!(table.count(), 1);
    let mut replaced = one.install().unwrap();
    let (other, table) = other.finish(nine()).unwrap();
    assert_eq!(table.count(), 2);
    let mut journal = other.install().unwrap();
    replaced.append(vec![Change::Put(known("ida"))], None, UnixTime(9)).unwrap();
    journal.append(vec![Change::Put(known("joe"))], None, UnixTime(10)).unwrap();
    let loaded = read(&path).unwrap();
    assert_eq!(["eve", "fay", "gil", "ida", "joe"].map(|name| has(&loaded, name)), [false, true, true, false, true]);
    assert_eq!((loaded.position, loaded.at), (nine(), UnixTime(10)));
}

#[test]
fn what_another_process_left_behind_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let writer = Writer::create(&path, Id(5)).unwrap();
    let left = path.with_file_name("ad.snapshot-1-7.new");
    let of_another = path.with_file_name("ad2.snapshot-1-7.new");
    for file in [&left, &of_another] {
        fs::write(file, "left").unwrap();
    }
    open(&path).unwrap().unwrap();
    assert!(!left.exists() && of_another.exists() && writer.beside.new.exists());
}

#[test]
fn a_file_that_grows_no_more_is_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let (loaded, _) = open(&path).unwrap().unwrap();
    let unwritable = File::open(&path).unwrap();
    let mut journal = Journal::new(unwritable, loaded.end, nine(), UnixTime(8));
    assert!(journal.append(vec![Change::Put(known("eve"))], None, UnixTime(9)).is_err());
    assert_eq!(journal.noted(), UnixTime(8));
    assert_eq!(fs::metadata(&path).unwrap().len(), loaded.end);
}

#[test]
fn a_file_of_another_version_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let mut content = fs::read(&path).unwrap();
    content[6] = b'0';
    fs::write(&path, &content).unwrap();
    assert_eq!(open(&path).unwrap_err().to_string(), "another version of the program wrote it");
}

/// Whoever makes this fail gives the file another magic: what an older program wrote must not be read by newer rules.
#[test]
fn records_are_written_as_ever() {
    let changes = vec![Change::Put(known("a")), Change::Gone(Id(2))];
    let until = Record::Until { changes, position: nine(), at: UnixTime(300) };
    let written = framed(&until).unwrap();
    let plain: String = written[8..].iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(
        plain,
        "0102008cd987b0c889f7b1af010f434e3d612c44433d636f6e746f736f010d6140636f6e746f736f2e636f6d000000000004746573740001\
         02010364633109ac02"
    );
}
