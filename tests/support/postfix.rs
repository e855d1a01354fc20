//! A Postfix instance as one organisation's mail system: it keeps the mail of those it knows in Maildirs and
//! relays everybody else of the shared domain back to Fingerpost, so that a loop would happen.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::mail::{Mail, maildir_files};
use super::{free_port, wait_for_port, wait_until};

/// How an instance is set up.
pub struct Setup<'a> {
    /// Its host name.
    pub name: &'a str,
    /// The loopback address it listens on.
    pub ip: Ipv4Addr,
    /// The domains it takes mail for.
    pub domains: &'a [&'a str],
    /// The addresses whose mail it keeps.
    pub known: &'a [&'a str],
    /// Where it sends everybody else of its domains.
    pub unknown_to: SocketAddr,
    /// Where it sends all other mail, its bounces among it.
    pub others_to: SocketAddr,
    /// More lines for main.cf.
    pub extra: &'a str,
}

/// A running (or stopped) instance.
pub struct Postfix {
    folder: TempDir,
    address: SocketAddr,
    known: Vec<String>,
}

impl Postfix {
    /// Writes the configuration, starts the instance and waits until it answers.
    pub fn start(setup: &Setup<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("fp-postfix-").tempdir_in("/tmp").expect("/tmp is writable");
        let address = SocketAddr::from((setup.ip, free_port(setup.ip)));
        let known = setup.known.iter().map(|address| address.to_lowercase()).collect();
        let postfix = Self { folder, address, known };
        postfix.write_configuration(setup);
        postfix.resume();
        postfix
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its configuration's folder; what changes there holds after [`Postfix::pause`] and [`Postfix::resume`].
    pub fn configuration(&self) -> PathBuf {
        self.path("etc")
    }

    /// Starts it again after [`Postfix::pause`].
    pub fn resume(&self) {
        // Just stopped it may still hold its lock for a moment.
        wait_until("postfix start", Duration::from_secs(20), || {
            self.postfix("start").status().expect("postfix is installed").success()
        });
        wait_for_port(self.address, Duration::from_secs(20));
    }

    /// Stops it without waiting for its end, and starts it again: what changed in its configuration holds.
    pub fn restart(&self) {
        let _ = self.postfix("abort").status();
        self.resume();
    }

    /// Keeps all its processes from running: they hold their sockets and say nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Sends a signal to its process group, which the master leads.
    fn signal(&self, name: &str) {
        let master = fs::read_to_string(self.path("spool/pid/master.pid")).expect("it was started");
        let group = format!("-{}", master.trim());
        let sent = Command::new("kill").args([&format!("-{name}"), "--", &group]).status().expect("kill");
        assert!(sent.success(), "no process group {group}");
    }

    /// Stops it; its mail and queue stay.
    pub fn pause(&self) {
        let _ = self.postfix("stop").status();
    }

    /// All mail that it keeps.
    pub fn mails(&self) -> Vec<Mail> {
        let mails_of = |address: &String| {
            let files = maildir_files(&self.path("mail").join(address));
            files.into_iter().map(|file| Mail::read(address, &file)).collect::<Vec<_>>()
        };
        self.known.iter().flat_map(mails_of).collect()
    }

    /// How many messages wait in its queue. A file without its execute bit is not a message yet: a Postfix that is
    /// stopped in the middle of one leaves it so, has not said 250 for it and never delivers it.
    pub fn queued(&self) -> usize {
        let count = |folder: &str| walk(&self.path("spool").join(folder));
        ["incoming", "active", "deferred"].iter().map(|folder| count(folder)).sum()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn postfix(&self, command: &str) -> Command {
        let mut postfix = Command::new("/usr/sbin/postfix");
        postfix.arg("-c").arg(self.path("etc")).arg(command);
        postfix
    }

    fn write_configuration(&self, setup: &Setup<'_>) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        for name in ["etc", "spool", "data", "mail"] {
            fs::create_dir(self.path(name)).expect("the folder is new");
        }
        let (user, group) = account("postfix");
        chown(self.path("data"), Some(user), Some(group)).expect("tests with Postfix run as root");
        chown(self.path("mail"), Some(65534), Some(65534)).expect("tests with Postfix run as root");
        // postsuper, which looks through the queue at each start and is not root then, logs what a stop left half written.
        fs::write(self.path("log"), "").expect("writable");
        fs::set_permissions(self.path("log"), fs::Permissions::from_mode(0o666)).expect("it is ours");
        fs::write(self.path("etc/main.cf"), later_wins(&self.main_cf(setup))).expect("writable");
        fs::write(self.path("etc/master.cf"), self.master_cf()).expect("writable");
        let lines = |line: &dyn Fn(&str) -> String| self.known.iter().map(|a| line(a)).collect::<String>();
        let domains: String = setup.domains.iter().map(|d| format!("{d} {}\n", next_hop(setup.unknown_to))).collect();
        let others = format!("* {}\n", next_hop(setup.others_to));
        let transport = lines(&|a| format!("{a} virtual:\n")) + &domains + &others;
        fs::write(self.path("etc/transport"), transport).expect("writable");
        fs::write(self.path("etc/mailboxes"), lines(&|a| format!("{a} {a}/\n"))).expect("writable");
    }

    fn main_cf(&self, setup: &Setup<'_>) -> String {
        let folder = self.folder.path().display();
        let (name, ip, domains, extra) = (setup.name, setup.ip, setup.domains.join(" "), setup.extra);
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {folder}/spool\n\
             data_directory = {folder}/data\n\
             command_directory = /usr/sbin\n\
             daemon_directory = /usr/lib/postfix/sbin\n\
             mail_owner = postfix\n\
             setgid_group = postdrop\n\
             maillog_file = {folder}/log\n\
             maillog_file_prefixes = {folder}\n\
             myhostname = {name}\n\
             mydestination =\n\
             inet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\n\
             smtp_bind_address = {ip}\n\
             mynetworks = 127.0.0.0/8\n\
             relay_domains = {domains}\n\
             smtpd_relay_restrictions = permit_mynetworks, reject\n\
             smtp_host_lookup = native\n\
             disable_dns_lookups = yes\n\
             smtputf8_enable = yes\n\
             hopcount_limit = 100\n\
             in_flow_delay = 0\n\
             minimal_backoff_time = 2s\n\
             queue_run_delay = 2s\n\
             smtp_connection_cache_on_demand = no\n\
             virtual_mailbox_base = {folder}/mail\n\
             virtual_mailbox_maps = texthash:{folder}/etc/mailboxes\n\
             virtual_uid_maps = static:65534\n\
             virtual_gid_maps = static:65534\n\
             transport_maps = texthash:{folder}/etc/transport\n\
             {extra}\n"
        )
    }

    fn master_cf(&self) -> String {
        format!(
            "{} inet n - n - - smtpd\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\n\
             rewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\n\
             proxymap unix - - n - - proxymap\n\
             smtp unix - - n - - smtp\n\
             relay unix - - n - - smtp\n\
             error unix - - n - - error\n\
             retry unix - - n - - error\n\
             virtual unix - n n - - virtual\n\
             anvil unix - - n - 1 anvil\n\
             scache unix - - n - 1 scache\n\
             postlog unix-dgram n - n - 1 postlogd\n",
            self.address
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.pause();
    }
}

/// The lines of a main.cf, of which the last one for a parameter counts, without the others: `postfix stop`, which warns of
/// each by way of its log daemon, may hang there for ever.
pub fn later_wins(main_cf: &str) -> String {
    let name = |line: &str| line.split('=').next().map(|name| name.trim().to_owned());
    let mut kept: Vec<&str> = Vec::new();
    for line in main_cf.lines().filter(|line| !line.is_empty()) {
        assert!(!line.starts_with(' '), "a parameter is one line here: {line}");
        kept.retain(|other| name(other) != name(line));
        kept.push(line);
    }
    kept.iter().map(|line| format!("{line}\n")).collect()
}

/// How Postfix's transport table names a next hop.
fn next_hop(address: SocketAddr) -> String {
    format!("smtp:[{}]:{}", address.ip(), address.port())
}

/// How many files with the execute bit lie below a folder.
fn walk(folder: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let messages = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => walk(&entry.path()),
        Ok(found) => usize::from(found.permissions().mode() & 0o100 != 0),
        Err(_) => 0, // gone meanwhile
    };
    entries.flatten().map(messages).sum()
}

/// A system account's user and group numbers.
pub fn account(name: &str) -> (u32, u32) {
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("there is no account {name}: is the package installed?"));
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().expect("numbers"));
    (numbers.next().expect("a user"), numbers.next().expect("a group"))
}
