//! Finds what a start on this host would refuse, or a first reload would fail on, without changing anything, for
//! `check`. It uses the start's own checks ([`super::privileges`], [`crate::private`], [`out_of_reach`]).
//!
//! The user who runs the check may not be the server's. Root can check everything, with the rights of `[server] user`
//! where that matters; what others cannot see is reported as not checked.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Uid, User};
use rustix::fs::{Access, AtFlags, CWD};

use super::{named_files, privileges};
use crate::config::{Auth, Cluster, Config, DirectoryKind, Protocol, ReceiveConnector};
use crate::obstacle::Obstacle;
use crate::private::{self, Starts};
use crate::tls::serve;

/// The description of the main file and included files.
const CONFIGURATION: &str = "the configuration";
const KEYS: &str = "[loop_detection] key_files";
const TOKEN: &str = "[admin] token_file";
/// The remedy for what could not be checked.
const AS_ROOT: &str = "run the check as root, or as the user that the server runs as";

/// The severity of a remark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Refused,
    /// The start succeeds, with a reservation.
    Doubtful,
    /// The current user cannot check it.
    NotChecked,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    /// What was checked, in the configuration's terms.
    pub(crate) what: String,
    pub(crate) weight: Weight,
    /// The fault and the remedy.
    pub(crate) obstacle: Obstacle,
}

impl Remark {
    fn new(what: impl Into<String>, weight: Weight, obstacle: Obstacle) -> Self {
        Self { what: what.into(), weight, obstacle }
    }

    fn not_checked(what: impl Into<String>, why: &str) -> Self {
        Self::new(what, Weight::NotChecked, Obstacle::new(format!("not checked: {why}"), AS_ROOT))
    }
}

/// The user with whose rights the server runs, as far as is known.
enum Server {
    /// The current user.
    Same,
    /// This user, to which root switches.
    Becomes(User),
    /// This user, who is not the current one.
    Other(User),
    /// Without `[server] user`: the current user, or another one.
    Perhaps,
}

pub(crate) fn look(config: &Config) -> Vec<Remark> {
    let server = match (config.server.user.as_deref(), Uid::effective()) {
        (None, us) if us.is_root() => Server::Same,
        (None, _) => Server::Perhaps,
        (Some(name), us) => match privileges::named(name) {
            Err(obstacle) => return vec![Remark::new("[server] user", Weight::Refused, obstacle)],
            Ok(user) if user.uid == us => Server::Same,
            Ok(user) if us.is_root() => Server::Becomes(user),
            Ok(user) => Server::Other(user),
        },
    };
    let mut remarks = Vec::new();
    if matches!(server, Server::Becomes(_) | Server::Other(_)) {
        let late = privileges::opened_too_late(config).into_iter();
        remarks.extend(late.map(|(key, found)| Remark::new(format!("[admin] {key}"), Weight::Refused, found)));
    }
    remarks.extend(files(config, &server));
    remarks.extend(state_dir(config, &server));
    remarks
}

/// Listeners that a server without root's rights cannot open: a start opens them before it gives these up, a reload
/// cannot. `open` are those that it has.
pub(crate) fn new_privileged_binds(config: &Config, open: &[String]) -> Vec<Remark> {
    if config.server.user.is_none() {
        return Vec::new();
    }
    let first = privileges::first_free_port();
    let binds =
        config.receive_connectors.iter().flat_map(|connector| connector.bind.iter().map(move |bind| (connector, bind)));
    let new = binds.filter(|(_, bind)| bind.port() != 0 && bind.port() < first && !open.contains(&bind.to_string()));
    let told = |(connector, bind): (&Arc<ReceiveConnector>, &SocketAddr)| {
        let found = format!("the running server does not have {bind}, and a reload cannot open a port below {first}");
        let cure = "restart it to take this configuration; or let the service manager give it CAP_NET_BIND_SERVICE";
        let what = format!("bind of receive connector {}", connector.name);
        Remark::new(what, Weight::Doubtful, Obstacle::new(found, cure))
    };
    new.map(told).collect()
}

/// Files that the server's user cannot read.
fn files(config: &Config, server: &Server) -> Vec<Remark> {
    match server {
        Server::Same => out_of_reach(config),
        Server::Becomes(user) => privileges::with_rights_of(user, || out_of_reach(config))
            .unwrap_or_else(|why| vec![Remark::not_checked("[server] user", &why)]),
        Server::Other(user) => {
            let why = format!("whether `{}` can read the files that are named here", user.name);
            vec![Remark::not_checked("[server] user", &why)]
        }
        Server::Perhaps => {
            let unseen = out_of_reach(config).into_iter();
            unseen.map(|remark| Remark::not_checked(remark.what, &remark.obstacle.found)).collect()
        }
    }
}

/// Files that we cannot read with our current rights: a reload will need them.
pub(super) fn out_of_reach(config: &Config) -> Vec<Remark> {
    let us = Uid::effective();
    let mut remarks = Vec::new();
    for (what, file) in read_later(config) {
        // A missing file is reported by the code that reads it.
        let may = rustix::fs::accessat(CWD, &file, Access::READ_OK, AtFlags::EACCESS);
        let Some(error) = may.err().filter(|error| is_denied(*error)) else { continue };
        let found = format!("user {us} cannot read {}: {error}", file.display());
        // The token must not be readable by other users.
        let cure = match &*what {
            KEYS | TOKEN => "give it to that user (chown), who must be able to pass the folders above it",
            _ => "give that user's group the right to read it (chgrp, chmod g+r), and the folders above it (g+x)",
        };
        let (weight, found) = match &*what {
            CONFIGURATION => (Weight::Doubtful, format!("{found}: every reload fails")),
            _ => (Weight::Refused, found),
        };
        remarks.push(Remark::new(what, weight, Obstacle::new(found, cure)));
    }
    let state_dir = &config.server.state_dir;
    let nearest = existing(state_dir);
    if let Err(error) = fs::metadata(nearest.join("."))
        && error.kind() == ErrorKind::PermissionDenied
        && nearest != state_dir
    {
        let found = format!("user {us} cannot reach {}: {error}", state_dir.display());
        let cure = "give that user the right to pass the folders above it (chmod o+x)";
        remarks.push(Remark::new("[server] state_dir", Weight::Refused, Obstacle::new(found, cure)));
    }
    remarks
}

fn is_denied(error: rustix::io::Errno) -> bool {
    std::io::Error::from(error).kind() == ErrorKind::PermissionDenied
}

/// The folder itself, or its nearest parent that can be seen.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| fs::metadata(folder).is_ok()).unwrap_or(folder)
}

/// The files that are read after root's rights are given up, with the setting that names each. Our own files in
/// `state_dir` are given to the user first.
fn read_later(config: &Config) -> Vec<(String, PathBuf)> {
    // For a pattern of `include` the folder is read.
    let is_pattern = |file: &Path| file.as_os_str().as_encoded_bytes().iter().any(|byte| matches!(byte, b'*' | b'?'));
    let read = |file: &PathBuf| match file.parent() {
        Some(folder) if is_pattern(file) => folder.to_owned(),
        _ => file.clone(),
    };
    let mut files: Vec<(String, PathBuf)> =
        config.files.iter().map(|file| (CONFIGURATION.to_owned(), read(file))).collect();
    let is_inside = |file: &Path| {
        let inner = file.strip_prefix(&config.server.state_dir).map(Path::components);
        inner.is_ok_and(|mut inner| inner.all(|part| matches!(part, Component::Normal(_))))
    };
    let keys = config.loops.key_files.iter().map(|file| (KEYS, file));
    let own = keys.chain([(TOKEN, &config.admin.token_file)]).filter(|(_, file)| !is_inside(file));
    files.extend(own.map(|(key, file)| (key.to_owned(), file.clone())));
    for (of, shown) in serve::shown(config) {
        files.push((format!("certificate of {of}"), shown.certificate.clone()));
        files.push((format!("key of {of}"), shown.key.clone()));
    }
    for connector in &config.receive_connectors {
        let of = format!("of receive connector {}", connector.name);
        files.extend(connector.tls.client_ca.iter().map(|file| (format!("client_ca {of}"), file.clone())));
        if let Auth::Users(file) = &connector.auth {
            files.push((format!("auth {of}"), file.clone()));
        }
    }
    if let Some(Cluster { password_file, ca, .. }) = &config.cluster {
        let named = [("[cluster] password_file", password_file), ("[cluster] ca", ca)];
        files.extend(named.into_iter().filter_map(|(key, file)| Some((key.to_owned(), file.clone()?))));
    }
    for directory in &config.directories {
        let of = format!("of directory {}", directory.name);
        match &directory.kind {
            DirectoryKind::File(file) => files.push((format!("path {of}"), file.path.clone())),
            DirectoryKind::Ldap(ldap) => {
                files.extend(ldap.password_file.iter().map(|file| (format!("password_file {of}"), file.clone())));
                files.extend(ldap.ca.iter().map(|file| (format!("ca {of}"), file.clone())));
            }
            DirectoryKind::CallAhead(_) => {}
        }
    }
    for connector in &config.send_connectors {
        let Protocol::Smtp(smtp) = &connector.protocol else { continue };
        let of = format!("of send connector {}", connector.name);
        files.extend(smtp.tls.ca.iter().map(|file| (format!("ca {of}"), file.clone())));
        files.extend(smtp.auth.iter().map(|auth| (format!("password_file {of}"), auth.password_file.clone())));
    }
    files
}

/// `state_dir` as the start would find it.
fn state_dir(config: &Config, server: &Server) -> Vec<Remark> {
    const WHAT: &str = "[server] state_dir";
    let state_dir = &config.server.state_dir;
    let us = Uid::effective();
    let owner = fs::metadata(state_dir).map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata));
    let starts = match server {
        Server::Becomes(user) | Server::Other(user) => Starts::AsRootFor(user.uid.as_raw()),
        Server::Same | Server::Perhaps => Starts::As(us.as_raw()),
    };
    match (server, owner) {
        (Server::Perhaps, Ok(owner)) if owner != us.as_raw() && owner != 0 => {
            let why = format!(
                "{} belongs to user {owner}; if the server runs as user {us}, as this check does, it will not start",
                state_dir.display()
            );
            return vec![Remark::not_checked(WHAT, &why)];
        }
        (Server::Same | Server::Perhaps, Err(error))
            if error.kind() == ErrorKind::NotFound && private::is_no_folder(state_dir).is_none() =>
        {
            return cannot_be_made(state_dir, server).into_iter().collect();
        }
        _ => {}
    }
    match private::inspect(state_dir, &named_files(config), starts) {
        Ok((first, all)) => {
            let more = all.saturating_sub(first.len());
            let mut remarks: Vec<_> =
                first.into_iter().map(|found| Remark::new(WHAT, Weight::Refused, found)).collect();
            if let Some(last) = remarks.last_mut().filter(|_| more > 0) {
                last.obstacle.found.push_str(&format!(" (and {more} more like these)"));
            }
            remarks
        }
        Err(obstacle) if matches!(server, Server::Same) => vec![Remark::new(WHAT, Weight::Refused, obstacle)],
        Err(obstacle) => vec![Remark::not_checked(WHAT, &obstacle.found)],
    }
}

fn cannot_be_made(state_dir: &Path, server: &Server) -> Option<Remark> {
    let nearest = existing(state_dir);
    let may = rustix::fs::accessat(CWD, nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    let error = may.err()?;
    let found = format!("{} cannot be made in {}: {error}", state_dir.display(), nearest.display());
    Some(match server {
        Server::Perhaps => Remark::not_checked("[server] state_dir", &found),
        _ => {
            let cure = "make it and give it to the server's user, or choose another [server] state_dir";
            Remark::new("[server] state_dir", Weight::Refused, Obstacle::new(found, cure))
        }
    })
}
