//! Delivery into Maildirs: `PATH/DOMAIN/LOCAL/{tmp,new,cur}`, one file for each message, as in
//! <https://cr.yp.to/proto/maildir.html>.
//!
//! `dispatch` calls [`deliver`] on a blocking thread. The message is written as it is stored, CRLF line ends included,
//! after the Return-Path that final delivery adds (RFC 5321 4.4); it counts as delivered when file and folder are
//! synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

use crate::smtp::address::{Address, ReversePath};
use crate::spool::Stored;

/// The longest file name, in octets. File systems allow 255; mail readers append flags and sizes.
const LONGEST_NAME: usize = 200;

#[derive(Debug)]
pub struct Letter {
    /// The folder of all mailboxes.
    pub root: PathBuf,
    pub mailbox: Address,
    /// For Return-Path.
    pub reverse_path: ReversePath,
    /// The file's name, the same at every attempt: after a crash a second attempt replaces the first one's file.
    pub name: String,
    pub body: Stored,
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    InMailbox,
    /// It was not ours any more: nothing is in the mailbox.
    NotOurs,
}

/// Writes the message and returns only when it is durable. `is_ours` is asked at the last moment before it can be seen.
///
/// # Errors
/// An error of the file system; the message is not in `new` then, or completely.
pub fn deliver(letter: Letter, is_ours: impl FnOnce() -> bool) -> io::Result<Delivered> {
    let mailbox = folder(&letter.root, &letter.mailbox);
    let (tmp, new) = (mailbox.join("tmp"), mailbox.join("new"));
    for folder in [&tmp, &new, &mailbox.join("cur")] {
        make_folder(folder)?;
    }
    let name = fitting(letter.name);
    let written = tmp.join(&name);
    let stored = write(&written, letter.reverse_path, &letter.body).and_then(|()| match is_ours() {
        true => fs::rename(&written, new.join(&name)).map(|()| Delivered::InMailbox),
        false => Ok(Delivered::NotOurs),
    });
    match stored {
        Ok(Delivered::InMailbox) => sync_folder(&new)?,
        Ok(Delivered::NotOurs) | Err(_) => {
            let _ = fs::remove_file(&written);
        }
    }
    stored
}

fn write(path: &Path, reverse_path: ReversePath, body: &Stored) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(format!("Return-Path: {reverse_path}\r\n").as_bytes())?;
    io::copy(&mut body.reader(), &mut file)?;
    file.sync_all()
}

/// A mailbox's folder; the same for equal addresses.
#[must_use]
pub fn folder(root: &Path, mailbox: &Address) -> PathBuf {
    root.join(safe(mailbox.domain().as_str())).join(safe(mailbox.local_key()))
}

/// A text as a folder's name: `%` and two hex digits for characters that it may not have or should not begin with.
fn safe(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            '.' if at == 0 => name.push_str("%2E"),
            '/' | '\\' | '%' | '\0'..='\x1f' | '\x7f' => name.push_str(&format!("%{:02X}", u32::from(c))),
            _ => name.push(c),
        }
    }
    fitting(name)
}

/// A name that is too long is cut and gets a hash of the whole appended, so that different names stay different. No
/// other name has `%~`.
fn fitting(name: String) -> String {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let hash = digest(&SHA256, name.as_bytes());
    let hash: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let cut = name.floor_char_boundary(LONGEST_NAME - hash.len() - 2);
    format!("{}%~{hash}", &name[..cut])
}

/// Creates a folder and its parents, each durably.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_stay_below_their_root() {
        for (address, expected) in [
            ("Alice@Contoso.com", "/m/contoso.com/alice"),
            ("\"alice\"@contoso.com", "/m/contoso.com/alice"),
            ("\"../../etc\"@contoso.com", "/m/contoso.com/\"..%2F..%2Fetc\""),
            ("\"..\"@contoso.com", "/m/contoso.com/\"..\""),
            ("a/b%c@contoso.com", "/m/contoso.com/a%2Fb%25c"),
            ("rené@contoso.com", "/m/contoso.com/rené"),
            ("a@[192.0.2.1]", "/m/[192.0.2.1]/a"),
        ] {
            let address = Address::parse(address).unwrap();
            assert_eq!(folder(Path::new("/m"), &address), Path::new(expected), "{address}");
        }
        assert_eq!(safe(".."), "%2E.");
        assert_eq!(safe("a\r\nb"), "a%0D%0Ab");
    }

    #[test]
    fn names_fit_the_file_system_and_stay_different() {
        let root = tempfile::tempdir().unwrap();
        let long =
            |last: char| format!("\"{}{last}\"@{}.example", "/".repeat(100), ["x".repeat(60).as_str(); 2].join("."));
        let host = ["y".repeat(60).as_str(); 4].join(".");
        let rené = format!("{}@x.example", "é".repeat(100));
        for (address, id) in [(long('a'), 1), (long('a'), 2), (long('b'), 3), (rené.clone(), 4)] {
            let mailbox = Address::parse(&address).unwrap();
            let body = Stored::memory("x\r\n".into());
            let name = format!("1770000000.{id}R0.{host}");
            let letter = Letter { root: root.path().join("m"), mailbox, reverse_path: ReversePath::Null, name, body };
            deliver(letter, || true).unwrap();
        }
        for (address, letters) in [(long('a'), 2), (long('b'), 1), (rené, 1)] {
            let new = folder(&root.path().join("m"), &Address::parse(&address).unwrap()).join("new");
            assert_eq!(fs::read_dir(new).unwrap().count(), letters, "{address}");
        }
    }

    #[test]
    fn a_message_arrives_whole_once() {
        let root = tempfile::tempdir().unwrap();
        let mailbox = root.path().join("mail/contoso.com/alice");
        let files = |folder: &str| fs::read_dir(mailbox.join(folder)).unwrap().count();
        for (is_ours, expected, arrived) in
            [(false, Delivered::NotOurs, 0), (true, Delivered::InMailbox, 1), (true, Delivered::InMailbox, 1)]
        {
            let letter = Letter {
                root: root.path().join("mail"),
                mailbox: Address::parse("alice@contoso.com").unwrap(),
                reverse_path: ReversePath::Null,
                name: "1.Q.host".into(),
                body: Stored::memory("Subject: x\r\n\r\n.\r\n".into()),
            };
            let asked_at_last = || {
                assert_eq!(files("tmp"), 1);
                is_ours
            };
            assert_eq!(deliver(letter, asked_at_last).unwrap(), expected);
            assert_eq!((files("new"), files("tmp")), (arrived, 0));
        }
        let text = fs::read_to_string(mailbox.join("new/1.Q.host")).unwrap();
        assert_eq!(text, "Return-Path: <>\r\nSubject: x\r\n\r\n.\r\n");
    }

    #[test]
    fn damaged_content_is_in_no_mailbox() {
        let root = tempfile::tempdir().unwrap();
        for size in [10, 8192, 8193, 300_000] {
            let written = vec![b'x'; size];
            let mut damaged = written.clone();
            damaged[size / 2] = b'y';
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&damaged).unwrap();
            let body = Stored::file(std::sync::Arc::new(file), size as u64, Some(crc32c::crc32c(&written)));
            let letter = Letter {
                root: root.path().join("mail"),
                mailbox: Address::parse("alice@contoso.com").unwrap(),
                reverse_path: ReversePath::Null,
                name: "1.Q.host".into(),
                body: body.clone(),
            };
            assert_eq!(deliver(letter, || true).unwrap_err().kind(), io::ErrorKind::InvalidData, "{size}");
            assert!(body.is_damaged());
            for folder in ["new", "tmp", "cur"] {
                let folder = root.path().join("mail/contoso.com/alice").join(folder);
                assert_eq!(fs::read_dir(folder).unwrap().count(), 0, "{size}");
            }
        }
    }
}
