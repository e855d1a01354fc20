//! Stored examples of every file format: `tests/formats/NAME-NUMBER.EXTENSION`, one for each number that a format ever
//! had. The unit tests of a format's own module call [`Format::check`].
//!
//! If the bytes changed without a new number, the previous version would misread them. So a change of what is written
//! needs a new number; the old examples are kept, and still read (docs/decisions/0008-formats.md says for how long).

use std::fs;
use std::path::{Path, PathBuf};

/// If set, writes the example of a number that has none yet.
const WRITE: &str = "FINGERPOST_NEW_EXAMPLES";

/// All formats (`spool-log` is not written any more, and refused: `tests/storage/spool_store/damage.rs`). JSON and
/// lines of text contain no number; then only the example's name has it.
const ALL: [&str; 16] = [
    "accepted-domains",
    "admin-token",
    "directory-changes",
    "directory-snapshot",
    "directory-ways",
    "envelope",
    "known-logins",
    "loop-key",
    "queue-export",
    "recently-good",
    "spool-checkpoint",
    "spool-clock",
    "spool-log",
    "spool-moved",
    "spool-segment",
    "trace",
];

pub(crate) struct Format {
    /// The examples' name.
    pub(crate) name: &'static str,
    /// The examples' extension.
    pub(crate) extension: &'static str,
    /// The first number that is still read, or at least recognised.
    pub(crate) oldest: u16,
    /// The number that is written.
    pub(crate) current: u16,
}

impl Format {
    /// Checks that a fixed value is written as in the current example, and passes each example with its number to
    /// `read`, which panics if it is read wrongly.
    pub(crate) fn check(&self, written: &[u8], read: impl Fn(u16, &[u8])) {
        let Self { name, oldest, current, .. } = self;
        assert!(ALL.contains(name), "add {name} to the list of formats in src/formats.rs");
        let of_current = self.path(*current);
        if !of_current.exists() && std::env::var_os(WRITE).is_some() {
            fs::write(&of_current, written).unwrap();
        }
        for number in *oldest..=*current {
            let path = self.path(number);
            let stored = fs::read(&path).unwrap_or_else(|error| {
                panic!(
                    "{name} has no example of its number {number}: {}: {error}. If the number is new: {WRITE}=1 cargo \
                     test --lib formats",
                    path.display()
                )
            });
            if number == *current {
                self.compare(written, &stored);
            }
            read(number, &stored);
        }
        let later = self.path(current + 1);
        assert!(!later.exists(), "{} is of a number that {name} has not", later.display());
    }

    fn compare(&self, written: &[u8], stored: &[u8]) {
        let Self { name, current, .. } = self;
        let Some(at) = first_difference(written, stored) else { return };
        panic!(
            "what is written as {name} {current} is not what it was, from octet {at} on ({} octets, before {}): a version \
             that knows {current} would read it as something else. Give the format a new number, keep {} as it is, go on \
             reading it, and have the new example written: {WRITE}=1 cargo test --lib formats",
            written.len(),
            stored.len(),
            self.path(*current).display()
        );
    }

    fn path(&self, number: u16) -> PathBuf {
        folder().join(format!("{}-{number}.{}", self.name, self.extension))
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    let at = one.iter().zip(other).position(|(one, other)| one != other);
    at.or_else(|| (one.len() != other.len()).then(|| one.len().min(other.len())))
}

#[test]
fn every_example_is_of_a_format_that_is_checked() {
    let mut found: Vec<String> = Vec::new();
    for file in fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let (format, number) = name.split_once('.').unwrap().0.rsplit_once('-').unwrap();
        assert!(ALL.contains(&format) && number.parse::<u16>().is_ok(), "tests/formats/{name}: nobody checks it");
        found.push(format.to_owned());
    }
    found.sort();
    found.dedup();
    assert_eq!(found, ALL);
}

#[test]
fn changed_bytes_are_told_with_what_to_do() {
    let format = Format { name: "spool-clock", extension: "txt", oldest: 1, current: 1 };
    format.compare(b"as it is", b"as it is");
    for (written, at) in [(&b"as it Is"[..], 6), (b"as it is\0", 8), (b"as it i", 7), (b"", 0)] {
        let panicked = std::panic::catch_unwind(|| format.compare(written, b"as it is")).unwrap_err();
        let told = *panicked.downcast::<String>().unwrap();
        for words in [format!("from octet {at} on"), "Give the format a new number, keep ".into(), WRITE.into()] {
            assert!(told.contains(&words), "{told}");
        }
    }
}
