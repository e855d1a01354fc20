//! A Dovecot instance that takes mail by LMTP, over TCP and over a Unix socket, into Maildirs: own folders, a free
//! loopback port, users in a passwd-file, stopped by process id. Needs Debian's `dovecot-core` and `dovecot-lmtpd`.
//!
//! Where it listens is written as docs/next-hops.md says, names and port replaced: what stands there is tried here.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::Daemon;
use super::mail::{Mail, maildir_files};
use super::{free_port, wait_until};

/// Whose mail it is on disk: nobody.
const OWNER: u32 = 65_534;
/// How long it may take to make its socket.
const START: Duration = Duration::from_secs(20);

/// Somebody with a mailbox.
pub struct User<'a> {
    /// The address, which is the name of the account as well.
    pub address: &'a str,
    /// Bytes that the mailbox may hold; 0: as many as come.
    pub quota: u64,
}

/// A running (or stopped) instance.
pub struct Dovecot {
    folder: TempDir,
    address: SocketAddr,
    daemon: Option<Daemon>,
}

impl Dovecot {
    /// Writes the configuration, starts the instance and waits until it listens.
    pub fn start(users: &[User<'_>]) -> Self {
        Self::start_with(users, "")
    }

    /// The same with further lines of configuration.
    pub fn start_with(users: &[User<'_>], lines: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("fp-dovecot-").tempdir_in("/tmp").expect("/tmp is writable");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
        let mut dovecot = Self { folder, address, daemon: None };
        fs::create_dir(dovecot.path("mail")).expect("the folder is new");
        chown(dovecot.path("mail"), Some(OWNER), Some(OWNER)).expect("tests with Dovecot run as root");
        dovecot.write_users(users);
        fs::write(dovecot.path("dovecot.conf"), dovecot.configuration() + lines).expect("writable");
        dovecot.resume();
        dovecot
    }

    /// Where it listens on TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.path("fingerpost")
    }

    /// Starts it again after [`Dovecot::pause`].
    pub fn resume(&mut self) {
        let mut command = Command::new("/usr/sbin/dovecot");
        command.arg("-F").arg("-c").arg(self.path("dovecot.conf"));
        self.daemon = Some(Daemon::start(&mut command, self.address));
        let socket = self.socket();
        wait_until("Dovecot's socket", START, || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    /// Stops it; its mail stays.
    pub fn pause(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.end();
        }
    }

    /// The mail in somebody's mailbox.
    pub fn mails(&self, address: &str) -> Vec<Mail> {
        let files = maildir_files(&self.path("mail").join(address));
        files.iter().map(|file| Mail::read(address, file)).collect()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Who has a mailbox from now on, by passwd-file: `user:password:uid:gid:gecos:home:shell:extra`.
    pub fn write_users(&self, users: &[User<'_>]) {
        let line = |user: &User<'_>| {
            let home = self.path("mail").join(user.address);
            let quota = match user.quota {
                0 => String::new(),
                bytes => format!("userdb_quota_rule=*:bytes={bytes}"),
            };
            format!("{}:{{PLAIN}}x:{OWNER}:{OWNER}::{}::{quota}\n", user.address, home.display())
        };
        fs::write(self.path("users"), users.iter().map(line).collect::<String>()).expect("writable");
    }

    fn configuration(&self) -> String {
        let folder = self.folder.path().display();
        format!(
            "base_dir = {folder}/run\n\
             state_dir = {folder}/state\n\
             log_path = {folder}/log\n\
             instance_name = {folder}\n\
             protocols = lmtp\n\
             listen = 127.0.0.1\n\
             ssl = no\n\
             hostname = imap.contoso.test\n\
             mail_location = maildir:~\n\
             mail_plugins = quota\n\
             plugin {{\n  quota = maildir:user\n  quota_grace = 0\n}}\n\
             passdb {{\n  driver = passwd-file\n  args = username_format=%Lu {folder}/users\n}}\n\
             userdb {{\n  driver = passwd-file\n  args = username_format=%Lu {folder}/users\n}}\n\
             {}",
            self.listeners()
        )
    }

    /// The manual's piece of configuration, with our user, folder and port.
    fn listeners(&self) -> String {
        let mut text = manual();
        let port = format!("port = {}", self.address.port());
        let folder = self.folder.path().display().to_string();
        for (old, new) in [("user = fingerpost", "user = root"), ("port = 24", &port), ("/run/dovecot", &folder)] {
            assert!(text.contains(old), "docs/next-hops.md has no {old:?}:\n{text}");
            text = text.replace(old, new);
        }
        text
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        self.pause();
        if std::thread::panicking() {
            eprintln!("--- Dovecot's log ---\n{}", self.log());
        }
    }
}

/// The block in docs/next-hops.md that goes into Dovecot's configuration.
fn manual() -> String {
    let page = crate::project().join("docs/next-hops.md");
    let page = fs::read_to_string(&page).expect("the manual has this page");
    let block = page.split("```dovecot\n").nth(1).and_then(|rest| rest.split("```").next());
    block.expect("a block for Dovecot").to_owned()
}
