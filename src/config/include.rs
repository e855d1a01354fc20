//! `include`: finds the files that a pattern matches.
//!
//! `file` reads them; `reload` watches the folders of the patterns.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What the patterns of one file match.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The files, pattern by pattern, sorted by name within one; without duplicates.
    pub(super) files: Vec<PathBuf>,
    /// The patterns as absolute paths.
    pub(super) patterns: Vec<PathBuf>,
    /// Errors, with the index of the pattern.
    pub(super) faults: Vec<(usize, String)>,
    /// Warnings, with the index of the pattern.
    pub(super) warnings: Vec<(usize, String)>,
}

/// Finds the files; relative patterns are relative to `folder`.
pub(super) fn find(folder: &Path, patterns: &[String]) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::new();
    for (at, written) in patterns.iter().enumerate() {
        let pattern = folder.join(written);
        found.patterns.push(pattern.clone());
        match matching(&pattern) {
            Ok(files) if files.is_empty() => found.warnings.push((at, format!("include \"{written}\" fits no file"))),
            Ok(files) => found.files.extend(files.into_iter().filter(|file| seen.insert(file.clone()))),
            Err(error) => found.faults.push((at, format!("`include`: {}: {error}", pattern.display()))),
        }
    }
    found
}

/// The files that match a pattern, sorted by name.
pub(crate) fn matching(pattern: &Path) -> std::io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains(['*', '?']) {
        // A missing file is reported when it is read.
        return Ok(vec![pattern.to_owned()]);
    }
    let folder = pattern.parent().unwrap_or(Path::new("/"));
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if fits(pattern, &path) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file in the pattern's folder matches it. Wildcards do not match names that begin with a dot, such as
/// editors' temporary files.
pub(crate) fn fits(pattern: &Path, file: &Path) -> bool {
    if pattern.parent() != file.parent() {
        return false;
    }
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(|name| name.chars().collect());
    let (Some(pattern), Some(name)): (Option<Vec<char>>, Option<Vec<char>>) = (name(pattern), name(file)) else {
        return false;
    };
    (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && wild(&pattern, &name)
}

fn wild(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), Some((_, shorter))) => wild(rest, name) || wild(pattern, shorter),
        (Some(('*', rest)), None) => wild(rest, name),
        (Some(('?', rest)), Some((_, shorter))) => wild(rest, shorter),
        (Some((a, rest)), Some((b, shorter))) => a == b && wild(rest, shorter),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_fit_what_they_should() {
        for (pattern, file, yes) in [
            ("/d/*.toml", "/d/a.toml", true),
            ("/d/*.toml", "/d/.a.toml", false),
            ("/d/*.toml", "/d/.#a.toml", false),
            ("/d/*.toml", "/d/a.toml~", false),
            ("/d/*.toml", "/e/a.toml", false),
            ("/d/a?.toml", "/d/ab.toml", true),
            ("/d/a?.toml", "/d/a.toml", false),
            ("/d/*a*.toml", "/d/banana.toml", true),
            ("/d/x.toml", "/d/x.toml", true),
        ] {
            assert_eq!(fits(Path::new(pattern), Path::new(file)), yes, "{pattern} {file}");
        }
    }

    #[test]
    fn files_come_sorted_and_once() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", ".c.toml", "d.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = find(folder.path(), &["*.toml".into(), "b.*".into(), "none/*.toml".into(), "x.toml".into()]);
        let names: Vec<_> = found.files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
        assert_eq!(names, ["a.toml", "b.toml", "x.toml"]);
        assert_eq!(found.warnings.len(), 1);
        assert_eq!(found.patterns.len(), 4);
    }
}
