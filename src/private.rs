//! Files and folders that only we can read, whatever the umask; and `state_dir` as it has to be found at the start.
//!
//! Whoever writes below `state_dir` makes its files and folders here; `run` looks at what is there ([`look_after`])
//! before anything is read from it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What is ours in `state_dir`, by name. Everything else in it is somebody else's, and left alone.
const OURS: [&str; 8] = [
    "spool",
    "trace",
    "directories",
    "dead-letters",
    "accepted-domains.json",
    "recently-good",
    "known-logins",
    "admin.token",
];

/// How many files a line of the log names.
const NAMED: usize = 5;

/// How a file is opened that nobody else may read if it is made.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// An empty file in the place of what is there.
///
/// # Errors
/// The system's.
pub fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// A folder and those above it where they are missing.
///
/// # Errors
/// The system's.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes `state_dir` where it is missing, and finds it as it has to be: no links where our files and folders belong, and
/// no rights of others, which are taken away and told. `others` are files of ours that the configuration names.
///
/// # Errors
/// What keeps us from starting, with what to do.
pub fn look_after(state_dir: &Path, others: &[&Path]) -> Result<(), String> {
    // Those above it are not ours: whoever we become must get through.
    if let Some(above) = state_dir.parent() {
        let _ = fs::create_dir_all(above); // what is wrong with it is said of state_dir
    }
    folder(state_dir).map_err(|error| {
        let folder = state_dir.display();
        format!("cannot make {folder}: {error}; make it and give it to this user, or choose another [server] state_dir")
    })?;
    // It may be a link itself; first, so that nobody else can change what is in it meanwhile.
    let mut wide = Vec::new();
    let metadata = fs::metadata(state_dir).map_err(|error| cannot("look at", state_dir, &error))?;
    narrow(state_dir, &metadata, &mut wide)?;
    for path in ours(state_dir, others) {
        look_at(&path, &mut wide)?;
    }
    if !wide.is_empty() {
        let files: Vec<_> = wide.iter().take(NAMED).map(|path| path.display().to_string()).collect();
        let more = wide.len().saturating_sub(NAMED);
        tracing::warn!(
            files = files.join(" "),
            more,
            "others could read or change files or folders of ours: their rights were taken away; what is secret in them \
             may be known"
        );
    }
    Ok(())
}

/// The paths of what is ours in `state_dir`.
pub(crate) fn ours<'a>(state_dir: &'a Path, others: &'a [&Path]) -> impl Iterator<Item = PathBuf> + 'a {
    let named = others.iter().filter(move |file| file.starts_with(state_dir)).map(|file| file.to_path_buf());
    OURS.iter().map(|name| state_dir.join(name)).chain(named)
}

/// One file or folder, and all that is in it.
fn look_at(path: &Path, wide: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(cannot("look at", &path, &error)),
        };
        if metadata.is_symlink() {
            let to = fs::read_link(&path).unwrap_or_default();
            return Err(format!(
                "{} is a link to {}: state_dir holds files and folders only; move what it leads to here, or choose \
                 another [server] state_dir, which may be a link itself",
                path.display(),
                to.display()
            ));
        }
        narrow(&path, &metadata, wide)?;
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
            left.extend(entries.map_err(|error| cannot("read", &path, &error))?.iter().map(fs::DirEntry::path));
        }
    }
    Ok(())
}

/// Takes rights of others away. What is not ours cannot be kept from its owner; root alone can use it all the same.
fn narrow(path: &Path, metadata: &fs::Metadata, wide: &mut Vec<PathBuf>) -> Result<(), String> {
    let user = rustix::process::geteuid();
    if metadata.uid() != user.as_raw() && !user.is_root() {
        return Err(format!(
            "{} belongs to user {}, and fingerpost runs as user {user}: give state_dir and what is in it to this one \
             (chown -R)",
            path.display(),
            metadata.uid(),
            user = user.as_raw()
        ));
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let own = mode & 0o700;
    fs::set_permissions(path, Permissions::from_mode(own)).map_err(|error| {
        let path = path.display();
        format!(
            "{path} has mode {mode:04o}, which lets others in, and it cannot be changed: {error}; chmod {own:o} {path}"
        )
    })?;
    wide.push(path.to_owned());
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}; give it to the user that fingerpost runs as", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn put(path: &Path, mode: u32) {
        folder(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_ours_alone() {
        let above = tempfile::tempdir().unwrap();
        let state = above.path().join("a/b");
        look_after(&state, &[]).unwrap();
        folder(&state.join("trace/deep")).unwrap();
        drop(create(&state.join("file")).unwrap());
        drop(options().append(true).create(true).open(state.join("other")).unwrap());
        let modes = ["", "trace", "trace/deep", "file", "other"].map(|name| mode(&state.join(name)));
        assert_eq!(modes, [0o700, 0o700, 0o700, 0o600, 0o600]);
    }

    #[test]
    fn rights_of_others_are_taken_away_and_what_is_not_ours_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let at = |name: &str| state.path().join(name);
        let key = at("loop.key");
        for (name, before, after) in [
            ("spool/segments/1.seg", 0o644, 0o600),
            ("spool/aside/x", 0o666, 0o600),
            ("trace/2026-11-28.jsonl", 0o640, 0o600),
            ("admin.token", 0o604, 0o600),
            ("recently-good", 0o400, 0o400),
            ("loop.key", 0o660, 0o600),
            ("somebody/else.txt", 0o644, 0o644),
        ] {
            put(&at(name), before);
            look_after(state.path(), &[&key]).unwrap();
            assert_eq!(mode(&at(name)), after, "{name}");
        }
        for name in ["", "spool", "spool/segments"] {
            fs::set_permissions(at(name), Permissions::from_mode(0o755)).unwrap();
        }
        look_after(state.path(), &[&key]).unwrap();
        assert_eq!(["", "spool", "spool/segments"].map(|name| mode(&at(name))), [0o700; 3]);
    }

    #[test]
    fn a_link_where_something_of_ours_belongs_is_refused_and_state_dir_may_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, state) = (folder.path().join("real"), folder.path().join("state"));
        fs::create_dir(&real).unwrap();
        symlink(&real, &state).unwrap();
        look_after(&state, &[]).unwrap();
        put(&folder.path().join("elsewhere/file"), 0o644);
        let key = state.join("keys/loop.key");
        for (name, to) in [
            ("spool", "elsewhere"),
            ("spool", "nowhere"),
            ("spool/segments", "elsewhere"),
            ("directories/ad", "elsewhere/file"),
            ("trace", "elsewhere"),
            ("admin.token", "elsewhere/file"),
            ("keys/loop.key", "elsewhere/file"),
        ] {
            super::folder(real.join(name).parent().unwrap()).unwrap();
            symlink(folder.path().join(to), real.join(name)).unwrap();
            let error = look_after(&state, &[&key]).unwrap_err();
            assert!(error.contains(name) && error.contains("is a link to"), "{error}");
            assert_eq!(mode(&folder.path().join("elsewhere/file")), 0o644, "nothing behind it is touched");
            fs::remove_file(real.join(name)).unwrap();
        }
        symlink("nowhere", real.join("somebody's")).unwrap();
        look_after(&state, &[&key]).unwrap();
    }
}
