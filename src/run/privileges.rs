//! Gives up root's rights: binds the listeners, gives `state_dir` to `[server] user`, and switches to that user, before
//! anything is read from `state_dir` and before any client is accepted.
//!
//! `nix` calls the C library, which changes user and groups of all threads: for the kernel they belong to a thread, and
//! those of the runtime and the log exist already.

use std::ffi::CString;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::{Gid, Uid, User, getgrouplist, setgroups, setresgid, setresuid};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid as Group, Mode, OFlags, Uid as Owner};

use crate::config::Config;
use crate::obstacle::Obstacle;
use crate::private;

/// Below this port listening needs root or CAP_NET_BIND_SERVICE; the system may have another limit.
const PRIVILEGED: u16 = 1024;

/// Switches to the user, if one is configured and we are root. `files` are further files of ours that the configuration
/// names; `bind` is called before. `Some`: the result of `bind`, after switching.
///
/// # Errors
/// Why the start is impossible, with what to do.
pub(super) fn give_up<T>(
    config: &Config,
    files: &[&Path],
    bind: impl FnOnce() -> Result<T, String>,
) -> Result<Option<T>, String> {
    let is_root = Uid::effective().is_root();
    let Some(name) = config.server.user.as_deref() else {
        if is_root {
            tracing::warn!("fingerpost runs as root: write [server] user, or start it as a user of its own");
        }
        return Ok(None);
    };
    let user = named(name)?;
    if user.uid == Uid::effective() {
        return Ok(None);
    }
    if !is_root {
        let uid = Uid::effective();
        return Err(format!(
            "fingerpost runs as user {uid} and cannot become `{name}`: start it as root or as `{name}`"
        ));
    }
    if let Some((key, obstacle)) = opened_too_late(config).into_iter().next() {
        return Err(format!("[admin] {key}: {obstacle}"));
    }
    let bound = bind()?;
    give_away(&config.server.state_dir, files, &user)?;
    become_user(&user).map_err(|error| format!("cannot become user `{name}`: {error}"))?;
    tracing::info!(user = name, "no longer root");
    Ok(Some(bound))
}

/// As root, becomes the user who has this folder, for good: what a command writes there is for a server that runs as
/// that user. Else nothing changes.
///
/// # Errors
/// The text says why it cannot.
pub(crate) fn become_owner_of(folder: &Path) -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let told = |why: String| format!("cannot become the user who has {}: {why}", folder.display());
    let metadata = std::fs::metadata(folder).map_err(|error| told(error.to_string()))?;
    let owner = Uid::from_raw(metadata.uid());
    if owner.is_root() {
        return Ok(());
    }
    let user = User::from_uid(owner).map_err(|error| told(error.to_string()))?;
    let user = user.ok_or_else(|| told(format!("there is no user {owner}; run the command as that user")))?;
    become_user(&user).map_err(told)
}

/// The user of this name.
pub(super) fn named(name: &str) -> Result<User, Obstacle> {
    let found = User::from_name(name).map_err(|error| {
        Obstacle::new(format!("[server] user = \"{name}\": {error}"), "see that the user database can be read")
    })?;
    let user = found.ok_or_else(|| {
        let cure = format!("make one with `useradd --system {name}`, or name another");
        Obstacle::new(format!("[server] user: there is no user `{name}`"), cure)
    })?;
    if user.uid.is_root() {
        let found = format!("[server] user = \"{name}\" is root");
        return Err(Obstacle::new(found, "name a user without rights, or leave it out"));
    }
    Ok(user)
}

/// The first port that needs no rights.
pub(super) fn first_free_port() -> u16 {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    first.and_then(|text| text.trim().parse().ok()).unwrap_or(PRIVILEGED)
}

/// The keys of `[admin]` whose ports need root's rights: they are opened after those are given up.
pub(super) fn opened_too_late(config: &Config) -> Vec<(&'static str, Obstacle)> {
    let first = first_free_port();
    let binds = [("metrics_bind", config.admin.metrics_bind), ("bind", config.admin.bind)];
    let late = binds.into_iter().filter(|(_, bind)| bind.port() != 0 && bind.port() < first);
    let told = |(key, bind): (&'static str, SocketAddr)| {
        let found =
            format!("{bind} is opened when fingerpost is no longer root, which may not have a port below {first}");
        (key, Obstacle::new(found, format!("choose a port from {first} on")))
    };
    late.map(told).collect()
}

/// Runs a function with the user's rights, in a thread of its own, with which they end.
pub(super) fn with_rights_of<T: Send>(user: &User, act: impl FnOnce() -> T + Send) -> Result<T, String> {
    let groups: Vec<Group> = groups_of(user)?.into_iter().map(|group| Group::from_raw(group.as_raw())).collect();
    let (uid, gid) = (Owner::from_raw(user.uid.as_raw()), Group::from_raw(user.gid.as_raw()));
    let change = || {
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| change().map(|()| act()).map_err(|error| error.to_string()));
        thread.join().unwrap_or_else(|_| Err("it broke off".to_owned()))
    })
}

fn groups_of(user: &User) -> Result<Vec<Gid>, String> {
    let name = CString::new(user.name.as_str()).map_err(|error| error.to_string())?;
    getgrouplist(&name, user.gid).map_err(|error| error.to_string())
}

/// For all threads, and for good.
fn become_user(user: &User) -> Result<(), String> {
    let told = |error: nix::Error| error.to_string();
    setgroups(&groups_of(user)?).map_err(told)?;
    setresgid(user.gid, user.gid, user.gid).map_err(told)?;
    setresuid(user.uid, user.uid, user.uid).map_err(told)?;
    let is = (Uid::current(), Uid::effective(), Gid::current(), Gid::effective());
    if is != (user.uid, user.uid, user.gid, user.gid)
        || setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok()
    {
        return Err("the system did not do it".to_owned());
    }
    Ok(())
}

/// Gives `state_dir` and our files in it to the user. No symbolic link is followed, at any depth: otherwise the user
/// could lead root to other files.
fn give_away(state_dir: &Path, files: &[&Path], user: &User) -> Result<(), String> {
    let told = |error: std::io::Error| format!("cannot give {} to `{}`: {error}", state_dir.display(), user.name);
    if let Some(obstacle) = private::is_no_folder(state_dir) {
        return Err(obstacle.into());
    }
    private::folder(state_dir).map_err(told)?;
    let to = (Owner::from_raw(user.uid.as_raw()), Group::from_raw(user.gid.as_raw()));
    // It may be a symbolic link itself.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, state_dir, flags, Mode::empty()).map_err(|error| told(error.into()))?;
    give(folder.as_fd(), to).map_err(|error| told(error.into()))?;
    for path in private::ours(state_dir, files) {
        // Files in other folders are left to their owner.
        let Some(name) = path.strip_prefix(state_dir).ok().filter(|name| name.components().count() == 1) else {
            continue;
        };
        give_entry(folder.as_fd(), &CString::new(name.as_os_str().as_encoded_bytes()).unwrap_or_default(), to)
            .map_err(|error| match error {
                rustix::io::Errno::MLINK => private::many_names(&path, user.uid.as_raw()).to_string(),
                error => format!("cannot give {} to `{}`: {error}", path.display(), user.name),
            })?;
    }
    Ok(())
}

/// One entry of a folder, with everything in it.
fn give_entry(folder: BorrowedFd<'_>, name: &std::ffi::CStr, to: (Owner, Group)) -> rustix::io::Result<()> {
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        stat => stat?,
    };
    match FileType::from_raw_mode(stat.st_mode) {
        // It is refused after switching to the user.
        FileType::Symlink => Ok(()),
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = rustix::fs::openat(folder, name, flags, Mode::empty())?;
            for entry in Dir::read_from(&inner)? {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    give_entry(inner.as_fd(), entry.file_name(), to)?;
                }
            }
            give(inner.as_fd(), to)
        }
        _ if stat.st_uid == to.0.as_raw() => Ok(()),
        // Another name of it may be where the user may not write.
        _ if stat.st_nlink > 1 => Err(rustix::io::Errno::MLINK),
        _ => rustix::fs::chownat(folder, name, Some(to.0), Some(to.1), AtFlags::SYMLINK_NOFOLLOW),
    }
}

fn give(folder: BorrowedFd<'_>, to: (Owner, Group)) -> rustix::io::Result<()> {
    if rustix::fs::fstat(folder)?.st_uid == to.0.as_raw() {
        return Ok(());
    }
    rustix::fs::fchown(folder, Some(to.0), Some(to.1))
}
