//! A real PostgreSQL for tests: its own folder and free loopback port, alone or with a synchronous standby, stopped by
//! process id. Needs Debian's `postgresql`; where the tests run as root, its servers run as the user `postgres`.
//!
//! What a killed client had asked for may still be done: [`Postgres::sql_within`] only stops waiting.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::daemon::run;
use super::postfix::account;
use super::volume::Volume;
use super::{faketime, free_port, wait_until, within};

mod postmaster;

use postmaster::Postmaster;

/// The role that may do anything, and the name of its database.
pub const ROLE: &str = "fingerpost";
/// The user of the system that the servers run as: PostgreSQL refuses to be root.
const SYSTEM_USER: &str = "postgres";
/// What volumes have, MiB: more than settings and tests use.
const DATA: u64 = 1024;
const LOG: u64 = 1536;
/// How long anything may take that is not meant to wait.
const LIMIT: Duration = Duration::from_secs(60);

/// A running (or stopped) server. What is in its folder stays until the folder is removed.
pub struct Postgres {
    /// Its folder's name, and what a standby calls itself towards its primary.
    name: String,
    folder: PathBuf,
    port: u16,
    postmaster: Option<Postmaster>,
    volumes: Option<Volumes>,
    /// How far its clock is from the system's, for libfaketime.
    clock: Option<String>,
}

/// Small file systems of a server's own, each of which can be full while the other is not.
pub struct Volumes {
    pub data: Volume,
    /// The write-ahead log, `pg_wal`.
    pub log: Volume,
}

impl Volumes {
    fn mount() -> Self {
        Self { data: Volume::mount(DATA, SYSTEM_USER), log: Volume::mount(LOG, SYSTEM_USER) }
    }
}

/// A folder that servers can have theirs in; a test's own temporary folder is closed to them when root makes it.
pub fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("fp-postgres-").tempdir_in("/tmp").expect("/tmp is writable");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

/// One address for several servers, in the order in which a client tries them.
pub fn urls(servers: &[&Postgres]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    format!("postgresql://{ROLE}@{}/{ROLE}", hosts.join(","))
}

impl Postgres {
    /// Makes a server below [`folder`] with an empty database `fingerpost` of the role `fingerpost`, and starts it.
    pub fn primary(folder: &Path) -> Self {
        Self::primary_on(folder, None)
    }

    /// The same with volumes of its own, as have its standbys.
    pub fn primary_on_volumes(folder: &Path) -> Self {
        Self::primary_on(folder, Some(Volumes::mount()))
    }

    fn primary_on(folder: &Path, volumes: Option<Volumes>) -> Self {
        let mut primary = Self::prepare(folder, free_port(Ipv4Addr::LOCALHOST), volumes);
        let mut initdb = as_server("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", ROLE]);
        run(initdb.args(primary.log_folder()).arg("-D").arg(primary.data()));
        primary.write_settings();
        primary.start();
        run(as_server("createdb").args(["-h", "127.0.0.1", "-U", ROLE, "-p", &primary.port.to_string(), ROLE]));
        primary
    }

    /// Makes a standby of this server, starts it, and has this one's commits wait for it from now on, and for no other.
    pub fn standby(&self, folder: &Path) -> Self {
        self.standby_at(folder, free_port(Ipv4Addr::LOCALHOST))
    }

    /// The same on the port of a server that is gone, in place of which it stands.
    pub fn standby_at(&self, folder: &Path, port: u16) -> Self {
        let mut standby = Self::prepare(folder, port, self.volumes.as_ref().map(|_| Volumes::mount()));
        let (port, name) = (self.port, standby.name.clone());
        let primary = format!("host=127.0.0.1 port={port} user={ROLE} application_name={name}");
        let mut copy = as_server("pg_basebackup");
        copy.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-d", &primary]);
        run(copy.args(standby.log_folder()).arg("-D").arg(standby.data()));
        standby.forget_standbys();
        standby.write_settings();
        standby.start();
        self.set("synchronous_standby_names", &name);
        let state = format!("SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}'");
        wait_until("a synchronous standby", LIMIT, || self.sql(&state) == "sync");
        standby
    }

    /// `postgresql://fingerpost@127.0.0.1:PORT/fingerpost`.
    pub fn url(&self) -> String {
        urls(&[self])
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it calls itself as a standby: its name in `synchronous_standby_names` and `pg_stat_replication`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the statements return: a line per row, `|` between columns. Each statement is a transaction of its own.
    pub fn sql(&self, text: &str) -> String {
        self.sql_within(text, LIMIT).unwrap_or_else(|| panic!("no answer within {LIMIT:?}: {text}"))
    }

    /// The same, or nothing where that takes longer than `limit`; then the client is killed.
    pub fn sql_within(&self, text: &str, limit: Duration) -> Option<String> {
        self.psql(text, limit).map(|said| said.unwrap_or_else(|error| panic!("{text}: {error}")))
    }

    /// The same of a server that may end meanwhile: nothing where it says an error, too.
    pub fn sql_if_it_lives(&self, text: &str, limit: Duration) -> Option<String> {
        self.psql(text, limit)?.ok()
    }

    fn psql(&self, text: &str, limit: Duration) -> Option<Result<String, String>> {
        let mut files = [(); 3].map(|()| tempfile::tempfile().expect("temporary files can be made"));
        let [input, output, errors] = &mut files;
        input.write_all(text.as_bytes()).and_then(|()| input.rewind()).expect("writable");
        let handle = |file: &File| Stdio::from(file.try_clone().expect("files can be opened"));
        let mut psql = Command::new(binaries().join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url()]);
        let mut psql = psql.stdin(handle(input)).stdout(handle(output)).stderr(handle(errors)).spawn().expect("psql");
        if !within(limit, || psql.try_wait().expect("it is ours").is_some()) {
            psql.kill().expect("it is ours");
            psql.wait().expect("it is ours");
            return None;
        }
        let status = psql.wait().expect("it is ours");
        let said = content(output).trim_end_matches('\n').to_owned();
        Some(if status.success() { Ok(said) } else { Err(format!("{status}\n{}", content(errors))) })
    }

    /// Changes a setting, as one that outlives restarts; it holds for new sessions, and for commits that wait for standbys.
    pub fn set(&self, name: &str, value: &str) {
        let loaded = "SELECT pg_conf_load_time()";
        let before = self.sql(loaded);
        self.sql(&format!("ALTER SYSTEM SET {name} = '{}'; SELECT pg_reload_conf()", value.replace('\'', "''")));
        wait_until("the new configuration", LIMIT, || self.sql(loaded) != before);
        // Whether commits wait at all is noted by the checkpointer, which reads the configuration before it obeys.
        self.sql("CHECKPOINT");
    }

    /// Starts it again on the same port with the same data, and waits until it answers.
    pub fn start(&mut self) {
        assert!(self.postmaster.is_none(), "it runs");
        let log = File::options().append(true).create(true).open(self.folder.join("log")).expect("writable");
        let mut command = as_server("/usr/bin/env"); // what the library makes must be the server's, not root's
        if let Some(offset) = &self.clock {
            command.arg(format!("LD_PRELOAD={}", faketime::library().display())).arg(format!("FAKETIME={offset}"));
            command.args(["FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]);
        }
        command.arg(binaries().join("postgres"));
        command.arg("-D").arg(self.data()).stdout(Stdio::null()).stderr(log);
        let postmaster = self.postmaster.insert(Postmaster::start(&mut command));
        let mut asked = Command::new(binaries().join("pg_isready"));
        asked.args(["-q", "-h", "127.0.0.1", "-U", ROLE, "-d", "postgres", "-p", &self.port.to_string()]);
        wait_until("PostgreSQL's answer", LIMIT, || {
            assert!(!postmaster.has_ended(), "PostgreSQL does not start");
            asked.status().expect("pg_isready").success()
        });
    }

    /// From its next start on its clock is so far from the system's: `+1h`.
    pub fn set_clock(&mut self, offset: &str) {
        self.clock = Some(offset.to_owned());
    }

    /// Its volumes, if it was made with them.
    pub fn volumes(&self) -> &Volumes {
        self.volumes.as_ref().expect("it has volumes")
    }

    /// Whether it has ended by itself; then it can be started again.
    pub fn has_ended(&mut self) -> bool {
        let has_ended = self.postmaster.as_mut().is_none_or(Postmaster::has_ended);
        if has_ended {
            self.postmaster = None;
        }
        has_ended
    }

    /// Stops it fast: sessions are ended, what is committed is sent to the standbys and written.
    pub fn stop(&mut self) {
        self.postmaster.take().expect("it runs").end(LIMIT);
    }

    /// Kills all its processes.
    pub fn kill(&mut self) {
        self.postmaster.take().expect("it runs").kill();
    }

    /// The same, unless it is gone.
    pub fn kill_if_running(&mut self) {
        if self.postmaster.is_some() {
            self.kill();
        }
    }

    /// None of its processes runs on, but the kernel still accepts connections.
    pub fn freeze(&self) {
        self.postmaster.as_ref().expect("it runs").freeze();
    }

    /// They go on.
    pub fn thaw(&self) {
        self.postmaster.as_ref().expect("it runs").thaw();
    }

    /// Makes a primary of a standby.
    pub fn promote(&self) {
        run(as_server("pg_ctl").args(["promote", "-D"]).arg(self.data()));
        wait_until("the end of recovery", LIMIT, || self.sql("SELECT pg_is_in_recovery()") == "f");
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn prepare(parent: &Path, port: u16, volumes: Option<Volumes>) -> Self {
        let name = format!("postgres_{port}");
        let folder = parent.join(&name);
        let _ = fs::remove_dir_all(&folder); // of whoever had the port before
        fs::create_dir(&folder).expect("the folder is new");
        if is_root() {
            let (user, group) = account(SYSTEM_USER);
            chown(&folder, Some(user), Some(group)).expect("root may do that");
        }
        Self { name, folder, port, postmaster: None, volumes, clock: None }
    }

    fn data(&self) -> PathBuf {
        self.volumes.as_ref().map_or_else(|| self.folder.join("data"), |volumes| volumes.data.join("data"))
    }

    /// Where its log is to be, for the programs that make it.
    fn log_folder(&self) -> Option<String> {
        self.volumes.as_ref().map(|volumes| format!("--waldir={}", volumes.log.join("log").display()))
    }

    /// Appends our settings to what `initdb` wrote, or the primary had: the last one counts.
    fn write_settings(&self) {
        let (folder, port) = (self.folder.display(), self.port);
        // Shared memory in files of the folder does not outlive a kill -9 elsewhere. A standby that was away asks again
        // soon, and finds what it missed.
        let settings = format!(
            "\nlisten_addresses = '127.0.0.1'\n\
             port = {port}\n\
             unix_socket_directories = '{folder}'\n\
             fsync = on\n\
             wal_level = replica\n\
             hot_standby = on\n\
             max_connections = 60\n\
             shared_buffers = 32MB\n\
             max_wal_senders = 5\n\
             wal_keep_size = 256MB\n\
             wal_retrieve_retry_interval = 200ms\n\
             dynamic_shared_memory_type = mmap\n\
             log_line_prefix = '%m [%p] %a '\n"
        );
        let file = File::options().append(true).open(self.data().join("postgresql.conf"));
        file.and_then(|mut file| file.write_all(settings.as_bytes())).expect("it was just made");
    }

    /// A copy of a primary has that one's standbys in its settings; promoted it would wait for them.
    fn forget_standbys(&self) {
        let file = self.data().join("postgresql.auto.conf");
        let settings = fs::read_to_string(&file).expect("it was just made");
        let others = settings.lines().filter(|line| !line.starts_with("synchronous_standby_names"));
        fs::write(&file, others.map(|line| format!("{line}\n")).collect::<String>()).expect("it was just made");
    }

    /// Removes the System V segment by which a killed server would know that its processes are gone: the last line but
    /// one of `postmaster.pid` is its key and its number.
    fn remove_segment(&self) {
        let Ok(text) = fs::read_to_string(self.data().join("postmaster.pid")) else { return };
        if let Some(segment) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").args(["-m", segment]).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.postmaster = None;
        self.remove_segment();
        if std::thread::panicking() {
            eprintln!("--- the log of {} ---\n{}", self.name, self.log());
        }
    }
}

/// A program of PostgreSQL's, run as whom its servers run.
fn as_server(program: &str) -> Command {
    let program = binaries().join(program);
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    // It complains of a folder that it may not enter.
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Where the newest version's programs are; Debian has only a few of them in the path.
fn binaries() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("is Debian's postgresql installed?").flatten();
    let version = |entry: fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
    let with_server = |version: &u32| Path::new(&format!("/usr/lib/postgresql/{version}/bin/postgres")).exists();
    let newest = versions.filter_map(version).filter(with_server).max().expect("is Debian's postgresql installed?");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// All that was written to a file that is open.
fn content(file: &mut File) -> String {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("readable");
    text
}
