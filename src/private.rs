//! Files and folders with access for this user only, whatever the umask; and the checks of `state_dir` at start.
//!
//! All code that writes below `state_dir` creates files and folders here; `run` calls [`look_after`] before anything is
//! read from it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::obstacle::Obstacle;

/// Our own files and folders in `state_dir`. Everything else in it belongs to others and is left alone.
const OURS: [&str; 9] = [
    "spool",
    "node",
    "trace",
    "directories",
    "dead-letters",
    "accepted-domains.json",
    "recently-good",
    "known-logins",
    "admin.token",
];

/// The most files that a line of the log names.
const NAMED: usize = 5;

/// Options to open a file which, if it is created, is accessible for this user only.
#[must_use]
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Creates an empty file, or truncates an existing one.
///
/// # Errors
/// The system's.
pub fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Creates a folder and its parents, where they are missing.
///
/// # Errors
/// The system's.
pub fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates `state_dir` if it is missing, and checks it: there must be no symbolic links in it; rights of other users to
/// our files are removed and logged. `others` are further files of ours that the configuration names.
///
/// # Errors
/// Why the start is impossible, with what to do.
pub fn look_after(state_dir: &Path, others: &[&Path]) -> Result<(), Obstacle> {
    if let Some(obstacle) = is_no_folder(state_dir) {
        return Err(obstacle);
    }
    // Its parents are not ours: whatever user we switch to must be able to pass.
    if let Some(above) = state_dir.parent() {
        let _ = fs::create_dir_all(above); // what is wrong with it is said of state_dir
    }
    folder(state_dir).map_err(|error| {
        let cure = "make it and give it to this user, or choose another [server] state_dir";
        Obstacle::new(format!("cannot make {}: {error}", state_dir.display()), cure)
    })?;
    let mut wide = Vec::new();
    survey(state_dir, others, &mut |path, metadata, whose| {
        not_a_link(path, metadata)?;
        if whose == Whose::Ours { narrow(path, metadata, &mut wide) } else { Ok(()) }
    })?;
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

/// The user who starts on a `state_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    As(u32),
    /// Root, who gives our files to this user and switches to it.
    AsRootFor(u32),
}

/// What [`look_after`] would refuse, without changing anything: the first few obstacles, and their number.
///
/// # Errors
/// A file that cannot be examined.
pub(crate) fn inspect(state_dir: &Path, others: &[&Path], starts: Starts) -> Result<(Vec<Obstacle>, usize), Obstacle> {
    let (mut first, mut all) = (Vec::new(), 0);
    if let Some(obstacle) = is_no_folder(state_dir) {
        return Ok((vec![obstacle], 1));
    }
    if let Err(error) = fs::metadata(state_dir)
        && error.kind() == io::ErrorKind::NotFound
    {
        return Ok((first, all));
    }
    let ours: Vec<PathBuf> = ours(state_dir, others).collect();
    // As in `run::privileges`: files in other folders are not given away.
    let is_given = |path: &Path| {
        let within = path.strip_prefix(state_dir).ok().and_then(|inner| inner.components().next());
        within.is_none_or(|entry| ours.contains(&state_dir.join(entry)))
    };
    survey(state_dir, others, &mut |path, metadata, whose| {
        let found = not_a_link(path, metadata).and_then(|()| match (whose, starts) {
            (Whose::Others, _) | (_, Starts::As(0)) => Ok(()),
            (_, Starts::AsRootFor(user)) if is_given(path) => giveable(path, metadata, user),
            (_, Starts::As(user) | Starts::AsRootFor(user)) => belongs_to(path, metadata, user),
        });
        if let Err(obstacle) = found {
            all += 1;
            first.extend(Some(obstacle).filter(|_| all <= NAMED));
        }
        Ok(())
    })?;
    Ok((first, all))
}

/// Whether something else is in the place of `state_dir`: a file, or a dangling symbolic link.
pub(crate) fn is_no_folder(state_dir: &Path) -> Option<Obstacle> {
    let (there, behind) = (fs::symlink_metadata(state_dir).ok()?, fs::metadata(state_dir));
    let path = state_dir.display();
    match behind {
        Ok(behind) if behind.is_dir() => None,
        Err(error) if there.is_symlink() && error.kind() == io::ErrorKind::NotFound => {
            Some(Obstacle::new(format!("{path} is a link that leads nowhere"), "make the folder that it leads to"))
        }
        Ok(_) => Some(Obstacle::new(format!("{path} is no folder"), "choose another [server] state_dir")),
        Err(_) => None,
    }
}

/// The paths of our files in `state_dir`.
pub(crate) fn ours<'a>(state_dir: &'a Path, others: &'a [&Path]) -> impl Iterator<Item = PathBuf> + 'a {
    let named = others.iter().filter(move |file| file.starts_with(state_dir)).map(|file| file.to_path_buf());
    OURS.iter().map(|name| state_dir.join(name)).chain(named)
}

/// Whether something in `state_dir` is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// One of [`ours`], or in one of them; `state_dir` itself.
    Ours,
    /// Another user's.
    Others,
}

/// Visits `state_dir`, which may be a symbolic link itself, and everything in it, without following other links. A
/// folder is visited before its content, so that other users cannot change it in between.
fn survey(
    state_dir: &Path,
    others: &[&Path],
    look: &mut dyn FnMut(&Path, &fs::Metadata, Whose) -> Result<(), Obstacle>,
) -> Result<(), Obstacle> {
    let ours: Vec<PathBuf> = ours(state_dir, others).collect();
    let metadata = fs::metadata(state_dir).map_err(|error| cannot("look at", state_dir, &error))?;
    look(state_dir, &metadata, Whose::Ours)?;
    let mut left = vec![(state_dir.to_owned(), Whose::Others)];
    while let Some((folder, whose)) = left.pop() {
        let entries = fs::read_dir(&folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Such as `lost+found`: none of our files is there.
            Err(_) if whose == Whose::Others && !ours.iter().any(|file| file.starts_with(&folder)) => continue,
            Err(error) => return Err(cannot("read", &folder, &error)),
        };
        for path in entries.iter().map(fs::DirEntry::path) {
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(cannot("look at", &path, &error)),
            };
            let whose = if ours.contains(&path) { Whose::Ours } else { whose };
            look(&path, &metadata, whose)?;
            if metadata.is_dir() {
                left.push((path, whose));
            }
        }
    }
    Ok(())
}

/// Behind a symbolic link there may be an empty spool, or a file that we must not write; this applies to any name,
/// since some of our files may not exist yet.
fn not_a_link(path: &Path, metadata: &fs::Metadata) -> Result<(), Obstacle> {
    if !metadata.is_symlink() {
        return Ok(());
    }
    let to = fs::read_link(path).unwrap_or_default();
    let found = format!("{} is a link to {}: state_dir holds files and folders only", path.display(), to.display());
    let cure = "move what it leads to here, or choose another [server] state_dir, which may be a link itself";
    Err(Obstacle::new(found, cure))
}

/// Whether root can give a file to the user.
fn giveable(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), Obstacle> {
    if metadata.is_dir() || metadata.uid() == user || metadata.nlink() == 1 {
        return Ok(());
    }
    Err(many_names(path, user))
}

/// Root must not give away a file with another hard link, which may be where the user may not write.
pub(crate) fn many_names(path: &Path, user: u32) -> Obstacle {
    let found = format!("{} has other names (hard links), so it cannot be given to user {user}", path.display());
    Obstacle::new(found, "copy it and remove the other names")
}

/// A file that is not ours could be changed by its owner.
fn belongs_to(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), Obstacle> {
    let owner = metadata.uid();
    if owner == user {
        return Ok(());
    }
    let found = format!("{} belongs to user {owner}, and fingerpost runs as user {user}", path.display());
    Err(Obstacle::new(found, "give state_dir and what is in it to this one (chown -R)"))
}

/// Removes rights of others. Root can use files of other users all the same.
fn narrow(path: &Path, metadata: &fs::Metadata, wide: &mut Vec<PathBuf>) -> Result<(), Obstacle> {
    let user = rustix::process::geteuid();
    if !user.is_root() {
        belongs_to(path, metadata, user.as_raw())?;
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let own = mode & 0o700;
    fs::set_permissions(path, Permissions::from_mode(own)).map_err(|error| {
        let path = path.display();
        let found = format!("{path} has mode {mode:04o}, which lets others in, and it cannot be changed: {error}");
        Obstacle::new(found, format!("chmod {own:o} {path}"))
    })?;
    wide.push(path.to_owned());
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Obstacle {
    let found = format!("cannot {what} {}: {error}", path.display());
    Obstacle::new(found, "give it to the user that fingerpost runs as")
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
            ("node/incoming/x", 0o644, 0o600),
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
            ("keys", "elsewhere"),
            ("loop.key", "nowhere"),
            ("accepted-domains.json.new", "elsewhere/file"),
            ("somebody's", "nowhere"),
            ("somebody/else/deep", "elsewhere"),
        ] {
            if name == "keys" {
                fs::remove_dir(real.join(name)).unwrap();
            }
            super::folder(real.join(name).parent().unwrap()).unwrap();
            symlink(folder.path().join(to), real.join(name)).unwrap();
            let error = look_after(&state, &[&key]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("is a link to"), "{error}");
            assert_eq!(mode(&folder.path().join("elsewhere/file")), 0o644, "nothing behind it is touched");
            let (found, all) = inspect(&state, &[&key], Starts::As(0)).unwrap();
            assert!(all == 1 && found[0].to_string() == error, "{found:?}");
            fs::remove_file(real.join(name)).unwrap();
        }
        look_after(&state, &[&key]).unwrap();
    }
}
