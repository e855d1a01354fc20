//! `queue export --offline`: what waits after a kill, as files, whatever state the spool is in; and what `check` says of it.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::installation::{Installation, Ran, eventually};

const NOBODY: u32 = 65534;

/// A message as it was sent.
struct Sent {
    /// MAIL's parameters, and whom it is for.
    parameters: &'static str,
    recipients: &'static [&'static str],
    content: Vec<u8>,
}

/// Small ones and one with a file of its own; dots, octets beyond ASCII, an end without an empty line.
fn letters() -> Vec<Sent> {
    let head = |n: u32| {
        format!("Message-ID: <{n}@x.example>\r\nDate: Sat, 28 Nov 2026 22:00:00 +0000\r\nFrom: bob@x.example\r\n\r\n")
    };
    let letter = |n, parameters, recipients, body: &[u8]| Sent {
        parameters,
        recipients,
        content: [head(n).as_bytes(), body].concat(),
    };
    let large: Vec<u8> = (0..40_000).flat_map(|n: u32| format!("{n:08}\r\n").into_bytes()).collect();
    vec![
        letter(1, "", &["bob@contoso.example"], b"Hello.\r\n"),
        letter(2, " BODY=8BITMIME", &["bob@contoso.example"], b".\r\n..two\r\nB\xc3\xbccher\xff\r\n\r\n"),
        letter(3, " BODY=8BITMIME", &["eve@contoso.example", "dan@contoso.example"], &large),
        letter(4, "", &["eve@contoso.example", "alice@contoso.example"], b"one of them has a mailbox here\r\n"),
    ]
}

fn send(installation: &Installation, sent: &Sent) -> String {
    let mut stream = BufReader::new(TcpStream::connect(installation.smtp).unwrap());
    let mut said = String::new();
    let mut say = |octets: &[u8]| {
        stream.get_mut().write_all(octets).unwrap();
        loop {
            said.clear();
            stream.read_line(&mut said).unwrap();
            if said.as_bytes().get(3) != Some(&b'-') {
                return said.clone();
            }
        }
    };
    say(b"");
    say(b"EHLO x.example\r\n");
    say(format!("MAIL FROM:<bob@x.example>{}\r\n", sent.parameters).as_bytes());
    for recipient in sent.recipients {
        say(format!("RCPT TO:<{recipient}>\r\n").as_bytes());
    }
    say(b"DATA\r\n");
    let mut stuffed = Vec::new();
    for line in sent.content.split_inclusive(|octet| *octet == b'\n') {
        stuffed.extend_from_slice(if line.starts_with(b".") { b"." } else { b"" });
        stuffed.extend_from_slice(line);
    }
    stuffed.extend_from_slice(b".\r\n");
    say(&stuffed)
}

/// A server to which all of it was sent, and that was killed after its first attempts.
fn killed() -> (Installation, Vec<Sent>) {
    let installation = Installation::new();
    let server = installation.serve();
    let letters = letters();
    for letter in &letters {
        let said = send(&installation, letter);
        assert!(said.starts_with("250"), "{said}");
    }
    eventually("all were tried, and one recipient has his mail", || {
        let listed: serde_json::Value =
            serde_json::from_str(&installation.run(&["queue", "list", "--format", "json"]).out).unwrap();
        let messages = listed["messages"].as_array().unwrap();
        let recipients: Vec<_> = messages.iter().flat_map(|one| one["recipients"].as_array().unwrap()).collect();
        messages.len() == 4
            && recipients.iter().all(|one| one["state"] == "delivered" || one["attempts"].as_u64() > Some(0))
            && recipients.iter().any(|one| one["state"] == "delivered")
    });
    drop(server); // kill -9
    (installation, letters)
}

/// All files below a folder: content, rights, and when they were changed.
fn all(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.metadata().unwrap();
            let content = if metadata.is_dir() { Vec::new() } else { fs::read(&path).unwrap() };
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path, (content, metadata.mode(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    found
}

fn export(installation: &Installation, to: &str) -> Ran {
    installation.run(&["queue", "export", "--offline", installation.path(to).to_str().unwrap()])
}

fn names(folder: &Path, end: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    files.sort();
    files
}

/// What was sent, with our Received field and nothing else before it.
fn is_what_was_sent(eml: &[u8], sent: &Sent) {
    let ours = eml.strip_suffix(&sent.content[..]).unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(eml)));
    let ours = std::str::from_utf8(ours).unwrap();
    assert!(ours.starts_with("Received: ") && ours.ends_with("\r\n"), "{ours}");
    assert!(ours.split_terminator("\r\n").skip(1).all(|line| line.starts_with([' ', '\t'])), "{ours}");
}

fn segment(installation: &Installation) -> PathBuf {
    names(&installation.path("state/spool/segments"), ".seg").remove(0)
}

#[test]
fn what_waits_after_a_kill_is_written_to_files_octet_for_octet() {
    let (installation, letters) = killed();
    let before = all(&installation.path("state/spool"));
    let ran = export(&installation, "out");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(ran.out.starts_with("4 messages are in "), "{ran:?}");
    assert_eq!(all(&installation.path("state/spool")), before, "the spool is only read");

    let out = installation.path("out");
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 8);
    let files = names(&out, ".eml");
    for (file, sent) in files.iter().zip(&letters) {
        assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
        is_what_was_sent(&fs::read(file).unwrap(), sent);
        let json = file.with_extension("json");
        assert_eq!(fs::metadata(&json).unwrap().mode() & 0o777, 0o600);
        let json: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
        assert_eq!((&json["format"], &json["content"]), (&1.into(), &"whole".into()));
        assert_eq!(json["mail"], format!("MAIL FROM:<bob@x.example>{}", sent.parameters));
        assert_eq!((&json["sender"], &json["client"]), (&"bob@x.example".into(), &"127.0.0.1".into()));
        assert_eq!(json["size"], fs::metadata(file).unwrap().len());
        for (at, address) in sent.recipients.iter().enumerate() {
            let recipient = &json["recipients"][at];
            assert_eq!(recipient["rcpt"], format!("RCPT TO:<{address}>"));
            let (connector, state) = match *address {
                "alice@contoso.example" => ("mailboxes", "delivered"),
                _ => ("secondary", "waiting"),
            };
            assert_eq!((&recipient["connector"], &recipient["state"]), (&connector.into(), &state.into()), "{json}");
            assert_eq!(recipient["send"], state == "waiting");
            if state == "waiting" {
                assert!(recipient["attempts"].as_u64() > Some(0) && recipient["last_error"] != "", "{recipient}");
            }
        }
    }

    // Into what is there already, into the spool, or without saying how: no. An empty folder is closed to others.
    for (to, cause) in [("out", "is not empty"), ("state/spool/out", "is in the spool"), ("people.csv", "no folder")] {
        let ran = export(&installation, to);
        assert!(ran.code == 2 && ran.err.contains(cause), "{to}: {ran:?}");
    }
    assert_eq!(installation.run(&["queue", "export", installation.path("x").to_str().unwrap()]).code, 2);
    fs::create_dir(installation.path("empty")).unwrap();
    fs::set_permissions(installation.path("empty"), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(export(&installation, "empty").code, 0);
    assert_eq!(fs::metadata(installation.path("empty")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(all(&installation.path("state/spool")), before);

    // With a configuration that does not load, and while a server has it: which loses nothing of it.
    let good = installation.configuration();
    installation.write(&format!("{good}\nnonsense = 1\n"));
    assert_eq!(export(&installation, "broken").code, 0);
    installation.write(&good);
    let _server = installation.serve();
    let ran = export(&installation, "running");
    assert!(ran.code == 2 && ran.err.contains("in use by process"), "{ran:?}");
    assert!(!installation.path("running").exists());
    let listed: serde_json::Value =
        serde_json::from_str(&installation.run(&["queue", "list", "--format", "json"]).out).unwrap();
    assert_eq!(listed["total"], 4);
}

#[test]
fn without_a_spool_or_with_an_empty_one_there_is_nothing_to_do() {
    let installation = Installation::new();
    let ran = export(&installation, "out");
    assert!(ran.code == 2 && ran.err.contains("there is no spool in"), "{ran:?}");
    assert!(!installation.path("out").exists());
    assert_eq!(installation.serve().stop(), 0);
    let ran = export(&installation, "out");
    assert!(ran.code == 0 && ran.out.starts_with("0 messages are in"), "{ran:?}");
}

/// The program as another user, on a spool that nobody can write to.
#[test]
fn who_may_only_read_the_spool_can_export_it() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: only root can become somebody else");
    }
    let (installation, letters) = killed();
    fs::set_permissions(installation.path("."), Permissions::from_mode(0o755)).unwrap();
    for path in all(&installation.path("state"))
        .into_keys()
        .chain([installation.path("state"), installation.path("people.csv")])
    {
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        let mode = if path.is_dir() { 0o500 } else { 0o400 };
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(installation.path("nobodys")).unwrap();
    std::os::unix::fs::chown(installation.path("nobodys"), Some(NOBODY), Some(NOBODY)).unwrap();
    let before = all(&installation.path("state"));
    let mut command = Command::new(support::copied_program(&installation.path(".")));
    command.args(["queue", "export", "--offline"]).arg(installation.path("nobodys/out"));
    command.arg("--config").arg(installation.path("fingerpost.toml")).uid(NOBODY).gid(NOBODY);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let files = names(&installation.path("nobodys/out"), ".eml");
    assert_eq!(files.len(), letters.len());
    files.iter().zip(&letters).for_each(|(file, sent)| is_what_was_sent(&fs::read(file).unwrap(), sent));
    assert_eq!(all(&installation.path("state")), before);
}

#[test]
fn a_disk_that_is_mounted_read_only_is_enough() {
    let (installation, letters) = killed();
    let state = installation.path("state");
    let mount = |arguments: &[&str]| {
        let mut mount = Command::new("mount");
        mount.args(arguments).arg(&state).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success())
    };
    if !mount(&["--bind", state.to_str().unwrap()]) {
        return eprintln!("skipped: only root can mount");
    }
    let is_read_only = mount(&["-o", "remount,bind,ro"]) && fs::write(state.join("x"), "x").is_err();
    let ran = export(&installation, "out");
    let _ = Command::new("umount").arg("-l").arg(&state).status();
    assert!(is_read_only);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(names(&installation.path("out"), ".eml").len(), letters.len());
}

#[test]
fn a_disk_that_fills_up_is_said_with_how_much_was_written() {
    let (installation, _) = killed();
    let small = installation.path("small");
    fs::create_dir(&small).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&small).stderr(std::process::Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        return eprintln!("skipped: only root can mount a small file system");
    }
    let ran = export(&installation, "small/out");
    let written = names(&small.join("out"), ".json").len();
    let left = names(&small.join("out"), ".eml").len();
    let _ = Command::new("umount").arg("-l").arg(&small).status();
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("No space left") && ran.err.contains("2 of 4 messages were written"), "{ran:?}");
    assert_eq!((written, left), (2, 2), "nothing is there by half");
}

/// The first record of the first segment with an octet more, and a sum that is right.
fn make_undecodable(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (at, head) = (128, word(128 + 8) as usize);
    let lengths = [(word(at + 8) + 1).to_le_bytes(), bytes[at + 12..at + 16].try_into().unwrap()].concat();
    let head = [&bytes[at + 20..at + 20 + head], &[0]].concat();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&lengths), &head).to_le_bytes();
    let rest = &bytes[at + 20 + head.len() - 1..];
    fs::write(path, [&bytes[..at + 8], &lengths, &sum, &head, rest].concat()).unwrap();
}

#[test]
fn a_spool_of_another_version_is_refused_told_by_check_and_exported_as_far_as_it_can_be_read() {
    let (installation, letters) = killed();
    assert_eq!(installation.run(&["check"]).code, 0);
    let ran = installation.run(&["check", "--connect"]);
    assert!(ran.out.contains("ok      spool ") && ran.out.contains("is read; 4 messages wait"), "{ran:?}");

    make_undecodable(&segment(&installation));
    let before = all(&installation.path("state/spool"));
    let ran = installation.run(&["run"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    for words in ["00000001.seg", "the record at byte 128 ", "another version wrote it", "queue export --offline DIR"] {
        assert!(ran.err.contains(words), "{words}: {ran:?}");
    }
    let mut after = all(&installation.path("state/spool"));
    let lock = installation.path("state/spool/lock");
    after.insert(lock.clone(), before[&lock].clone());
    assert_eq!(after, before, "nothing is moved, written or removed");

    // What segments say of themselves is as it was: that is all that `check` reads without --connect.
    assert_eq!(installation.run(&["check"]).code, 0);
    let ran = installation.run(&["check", "--connect"]);
    let told = "a start is refused: the record at byte 128 of ";
    assert!(ran.code == 1 && ran.out.contains("FAILED  spool ") && ran.out.contains(told), "{ran:?}");

    let ran = export(&installation, "out");
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.starts_with("3 messages are in "), "{ran:?}");
    assert!(ran.err.contains("the record at byte 128 ") && ran.err.contains("may have been delivered"), "{ran:?}");
    let files = names(&installation.path("out"), ".eml");
    assert_eq!(files.len(), 3);
    files.iter().zip(&letters[1..]).for_each(|(file, sent)| is_what_was_sent(&fs::read(file).unwrap(), sent));
}

#[test]
fn a_spool_of_a_later_format_is_told_by_check() {
    let (installation, _) = killed();
    let path = segment(&installation);
    let mut bytes = fs::read(&path).unwrap();
    for copy in [8, 64 + 8] {
        bytes[copy..copy + 4].copy_from_slice(&[0xff, 0, 0, 0xff]);
    }
    fs::write(&path, bytes).unwrap();
    for arguments in [&["check"][..], &["check", "--connect"]] {
        let ran = installation.run(arguments);
        let is_told =
            ran.out.contains("a start is refused") && ran.out.contains("is in format 255, this version reads");
        assert!(ran.code == 1 && is_told, "{arguments:?}: {ran:?}");
    }
}

#[test]
fn what_the_disk_does_not_give_is_no_damage_to_check() {
    let (installation, _) = killed();
    let path = segment(&installation);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap(); // reading it fails
    for arguments in [&["check"][..], &["check", "--connect"]] {
        let ran = installation.run(arguments);
        assert!(ran.out.contains("warning spool ") && ran.out.contains("cannot be read: Is a directory"), "{ran:?}");
        assert!(
            ran.out.contains("a start is refused while that may say what became of mail"),
            "{arguments:?}: {ran:?}"
        );
    }
}

#[test]
fn content_that_is_not_what_was_written_is_kept_apart() {
    let (installation, _) = killed();
    let folder = fs::read_dir(installation.path("state/spool/large")).unwrap().next().unwrap().unwrap().path();
    let large = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let id = large.file_name().unwrap().to_str().unwrap().to_owned();
    let whole = fs::read(&large).unwrap();
    let mut spoilt = whole.clone();
    spoilt[1000] ^= 1;
    for (what, content, word) in
        [("flipped", Some(&spoilt[..]), "damaged"), ("cut", Some(&whole[..1000]), "damaged"), ("gone", None, "missing")]
    {
        match content {
            Some(content) => fs::write(&large, content).unwrap(),
            None => fs::remove_file(&large).unwrap(),
        }
        let ran = export(&installation, what);
        assert_eq!(ran.code, 1, "{what}: {ran:?}");
        assert!(ran.err.contains(&format!("{id}: its content is {word}")), "{what}: {ran:?}");
        assert!(ran.out.contains("4 messages are in ") && ran.out.contains("1 of them without"), "{what}: {ran:?}");
        let out = installation.path(what);
        assert!(!out.join(format!("{id}.eml")).exists(), "{what}: nobody sends it by mistake");
        assert_eq!(fs::read(out.join(format!("{id}.eml.damaged"))).ok().as_deref(), content, "{what}");
        let json: serde_json::Value =
            serde_json::from_slice(&fs::read(out.join(format!("{id}.json"))).unwrap()).unwrap();
        assert_eq!(json["content"], word, "{what}");
    }
}
