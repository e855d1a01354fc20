//! A server process that a test starts: waited for, frozen, thawed, and killed by its id at the end.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);

/// A child process, killed when dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it and waits until it listens on `address`.
    pub fn start(command: &mut Command, address: SocketAddr) -> Self {
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut daemon = Self { child };
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("{command:?} ended: {status}");
            }
            assert!(Instant::now() < deadline, "{command:?} does not listen on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// Stops it in its tracks (SIGSTOP); the kernel still accepts connections for it.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + START;
        // The signal is on its way to each thread; until then it may still answer.
        while !self.is_stopped() {
            assert!(Instant::now() < deadline, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether all its threads are stopped (proc_pid_stat(5): the state behind the name in brackets is T).
    fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let state = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('T'))
        };
        tasks.map(state).all(|stopped| stopped != Some(false))
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as a service manager does (SIGTERM) and waits.
    pub fn end(mut self) {
        self.signal(Signal::TERM);
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end; it must succeed. Returns what it printed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{}\n{}", output.status, words.0, words.1);
    words.0.into_owned()
}
