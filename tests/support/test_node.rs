//! The program itself, as an administrator runs it: its own process, its own folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_port, wait_until};

/// A node with a configuration of its own. `{smtp}`, `{metrics}`, `{admin}` and `{folder}` in the configuration
/// become its ports and its folder.
pub struct TestNode {
    folder: TempDir,
    /// Where it takes mail.
    pub smtp: SocketAddr,
    /// `/metrics`, `/healthz`, `/readyz`.
    pub metrics: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
    environment: Vec<(String, String)>,
    /// What its shell says of its limits before it starts.
    limits: Option<String>,
}

impl TestNode {
    /// A node that is not started yet: other systems want to know its address first.
    pub fn prepare() -> Self {
        let folder = tempfile::Builder::new().prefix("fp-node-").tempdir_in("/tmp").expect("/tmp is writable");
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
        let (smtp, metrics, admin) = (address(), address(), address());
        Self { folder, smtp, metrics, admin, child: None, environment: Vec::new(), limits: None }
    }

    /// Where the API is.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A variable for its environment from the next start on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The descriptors that it and its commands may have: soft limit and hard one.
    pub fn limit_descriptors(&mut self, soft: usize, hard: usize) {
        self.limits = Some(format!("ulimit -Sn {soft} && ulimit -Hn {hard}"));
    }

    /// The control group that it and its commands run in.
    pub fn enter_group(&mut self, group: &Path) {
        self.limits = Some(format!("echo $$ > {}/cgroup.procs", group.display()));
    }

    /// No variables of its own from the next start on.
    pub fn clear_environment(&mut self) {
        self.environment.clear();
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into its folder, placeholders replaced, by rename as a careful editor does.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
        let text = text
            .replace("{smtp}", &self.smtp.to_string())
            .replace("{metrics}", &self.metrics.to_string())
            .replace("{admin}", &self.admin.to_string())
            .replace("{folder}", &self.folder.path().display().to_string());
        let new = path.with_extension("new~");
        fs::write(&new, text).expect("writable");
        fs::rename(&new, &path).expect("same folder");
    }

    /// Starts it with `fingerpost.toml` and waits until it is ready.
    pub fn start(&mut self) {
        self.launch();
        self.wait_for_start("fingerpost ready", |node| node.get("/readyz").is_some_and(|(status, _)| status == 200));
    }

    /// Starts it and waits until it answers clients: under back-pressure it does, and is not ready.
    pub fn start_under_pressure(&mut self) {
        self.launch();
        self.wait_for_start("fingerpost listening", |node| TcpStream::connect(node.smtp).is_ok());
    }

    /// Starts it with this umask and waits until it is ready.
    pub fn start_with_umask(&mut self, umask: &str) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("writable");
        let mut command = Command::new("sh");
        let line = format!("umask {umask}; exec \"$0\" run --config \"$1\"");
        command.args(["-c", &line, crate::program()]).arg(self.path("fingerpost.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("open")).stderr(log);
        self.child = Some(command.spawn().expect("there is a shell"));
        self.wait_for_start("fingerpost ready", |node| node.get("/readyz").is_some_and(|(status, _)| status == 200));
    }

    /// Starts it and waits for nothing.
    pub fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).expect("writable");
        self.launch_with_log(log);
    }

    /// Starts it with its log on this end of a pipe, and waits until it is ready.
    pub fn start_with_log(&mut self, log: impl Into<Stdio>) {
        self.launch_with_log(log);
        self.wait_for_start("fingerpost ready", |node| node.get("/readyz").is_some_and(|(status, _)| status == 200));
    }

    /// The same without waiting.
    pub fn launch_with_log(&mut self, log: impl Into<Stdio>) {
        let mut command = self.command();
        command.arg("run").arg("--config").arg(self.path("fingerpost.toml"));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("the program was built"));
    }

    fn wait_for_start(&mut self, what: &str, has_started: impl Fn(&Self) -> bool) {
        wait_until(what, Duration::from_secs(20), || {
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().ok().flatten().is_some());
            assert!(!ended, "fingerpost ended at start: {}", self.log());
            has_started(self)
        });
    }

    /// Ends it as a service manager does and waits.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }

    /// Waits until it ends by itself: its exit code; `None`: not within `limit`, or by a signal.
    pub fn ended(&mut self, limit: Duration) -> Option<i32> {
        let deadline = std::time::Instant::now() + limit;
        let child = self.child.as_mut().expect("it was started");
        while std::time::Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Ends it as a power switch does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([format!("-{name}"), id]).status().expect("kill").success());
    }

    /// Its process id while it runs.
    pub fn process_id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Runs one of its commands with its configuration.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.command();
        command.args(arguments).arg("--config").arg(self.path("fingerpost.toml"));
        command.output().expect("the program was built")
    }

    /// GETs a path of the metrics door: status and body.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.metrics, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// The value of one series, as `/metrics` shows it: name with labels.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.trim().parse().ok();
        text.lines().find_map(value)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Waits until all of these words are in its log, and returns it: what is no warning is written a moment later.
    pub fn logged(&self, words: &[&str]) -> String {
        wait_until(&format!("{words:?} in the log"), Duration::from_secs(5), || {
            let log = self.log();
            words.iter().all(|words| log.contains(words))
        });
        self.log()
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self) -> Command {
        let program = crate::program();
        let Some(limits) = &self.limits else { return Command::new(program) };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{limits} && exec \"$0\" \"$@\"")).arg(program);
        command
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- fingerpost's log ---\n{}", self.log());
        }
    }
}
