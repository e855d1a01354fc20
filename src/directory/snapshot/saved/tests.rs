//! Reading intact and damaged files.

use std::path::PathBuf;

use super::*;
use crate::directory::known::{Claim, Meaning, Strength};
use crate::formats::Format;
use crate::lookup::{Kind, Lookup};
use crate::smtp::address::Address;

fn known(name: &str) -> Known {
    let claims = vec![Claim { key: format!("{name}@contoso.com"), strength: Strength::Certain }];
    let rule = "test".to_owned();
    let meaning = Meaning { kind: Kind::Mailbox, target: None, mail_server: None, rule, at_odds: None };
    Known { id: Id::of(name.as_bytes()), dn: format!("CN={name},DC=contoso"), claims, meaning: Ok(meaning) }
}

fn has(loaded: &Loaded, name: &str) -> bool {
    matches!(loaded.view.lookup(&format!("{name}@contoso.com")), Lookup::Found(_))
}

/// A file with ann and bob, to which carl was added while ann was removed.
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
        // Nothing after the damage is used; everything before it is correct.
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

/// A file with an entry of each kind, and later changes.
fn example(folder: &Path) -> PathBuf {
    let path = folder.join("state/example.snapshot");
    let mut writer = Writer::create(&path, Id(5)).unwrap();
    writer.begun = UnixTime(7);
    let full = Meaning {
        kind: Kind::MailUser,
        target: Some(Address::parse("ann@fabrikam.com").unwrap()),
        mail_server: Some("ex1.contoso.com".into()),
        rule: "targetAddress".into(),
        at_odds: Some("type 128".into()),
    };
    let mut ann = Known { meaning: Ok(full), ..known("ann") };
    ann.claims.push(Claim { key: "a.nn".into(), strength: Strength::Fallback });
    let of_kind = |kind| {
        let mut one = known(&format!("{kind:?}").to_lowercase());
        one.meaning.as_mut().unwrap().kind = kind;
        one
    };
    writer.put(vec![ann, known("bob"), Known { meaning: Err("unclear".into()), ..known("dora") }]).unwrap();
    writer.put(Kind::ALL.map(of_kind).into()).unwrap();
    let mut journal = writer.finish(Position::Unknown).unwrap().0.install().unwrap();
    let changes = vec![Change::Put(known("carl")), Change::Gone(Id::of(b"bob"))];
    journal.append(changes, Some(&nine()), UnixTime(8)).unwrap();
    path
}

#[test]
fn its_format() {
    let folder = tempfile::tempdir().unwrap();
    let written = fs::read(example(folder.path())).unwrap();
    let format = Format { name: "directory-snapshot", extension: "snapshot", oldest: 1, current: 1 };
    format.check(&written, |number, bytes| {
        assert_eq!(bytes[6] - b'0', u8::try_from(number).unwrap());
        let path = folder.path().join("old.snapshot");
        fs::write(&path, bytes).unwrap();
        let loaded = read(&path).unwrap();
        assert_eq!(["ann", "bob", "carl", "group"].map(|name| has(&loaded, name)), [true, false, true, true]);
        assert_eq!((&loaded.position, loaded.at, loaded.whole, loaded.of), (&nine(), UnixTime(8), UnixTime(7), Id(5)));
    });
}

/// The file is a cache: one of another version is not treated as an interrupted write, and the directory is read again.
#[test]
fn a_record_of_another_version_is_told_from_damage_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path());
    let whole = fs::read(&path).unwrap();
    let framed = |content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        [&length[..], &crc32c::crc32c(content).to_le_bytes(), content].concat()
    };
    let content = postcard::to_allocvec(&Record::Entry(known("eve"))).unwrap();
    let longer = [&content[..], &[0]].concat();
    let mut variant = content.clone();
    variant[0] = 2;
    for (what, content) in [("a field less", &content[..content.len() - 1]), ("more", &longer), ("a variant", &variant)]
    {
        let record = framed(content);
        for at in [HEAD, whole.len()] {
            let bytes = [&whole[..at], &record, &whole[at..]].concat();
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(open(&path), Err(Unreadable::Foreign)), "{what} at {at}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "{what} at {at}");
        }
    }
}
