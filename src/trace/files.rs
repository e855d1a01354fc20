//! The files of the trace: one for each day, `2026-11-21.jsonl`; a large one is continued in `2026-11-21.2.jsonl` and
//! so on.

use std::path::{Path, PathBuf};

use crate::time::UnixTime;

/// A file. Files are ordered by day, then by part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DayFile {
    /// `2026-11-21`.
    pub(super) day: String,
    /// From 1.
    pub(super) part: u32,
    pub(super) path: PathBuf,
}

impl DayFile {
    pub(super) fn new(folder: &Path, day: &str, part: u32) -> Self {
        let name = if part == 1 { format!("{day}.jsonl") } else { format!("{day}.{part}.jsonl") };
        Self { day: day.to_owned(), part, path: folder.join(name) }
    }

    fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".jsonl")?;
        let (day, part) = name.split_once('.').unwrap_or((name, "1"));
        let form = day.len() == 10 && day.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        let (day, part) = (day.to_owned(), part.parse().ok()?);
        form.then_some(Self { day, part, path })
    }
}

/// All files, oldest first. Others are skipped.
pub(super) fn all(folder: &Path) -> Vec<DayFile> {
    let paths = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths.filter_map(DayFile::of).collect();
    found.sort();
    found
}

/// The UTC date: `2026-11-21`.
pub(super) fn day(at: UnixTime) -> String {
    at.rfc3339().chars().take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_the_order_in_which_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["1970-01-02.10.jsonl", "1970-01-02.2.jsonl", "1970-01-02.jsonl", "1970-01-01.3.jsonl"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        for other in ["notes.txt", "1970-01-01.x.jsonl", "1970-01-0.jsonl", "1970-01-01.jsonl.gz"] {
            std::fs::write(folder.path().join(other), "").unwrap();
        }
        let found: Vec<_> = all(folder.path()).into_iter().map(|file| (file.day, file.part)).collect();
        let expected = [("1970-01-01", 3), ("1970-01-02", 1), ("1970-01-02", 2), ("1970-01-02", 10)];
        assert_eq!(found, expected.map(|(day, part)| (day.to_owned(), part)));
        for part in [1, 7] {
            let file = DayFile::new(folder.path(), "1970-01-03", part);
            assert_eq!(DayFile::of(file.path.clone()), Some(file));
        }
    }
}
