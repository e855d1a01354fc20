//! A server process that a test starts: waited for, frozen, thawed, and killed by its id at the end.

use std::net::{SocketAddr, TcpListener, TcpStream};
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
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
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

/// A port of 127.0.0.1 that nobody uses.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a command to its end; it must succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let words = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{}\n{}", output.status, words.0, words.1);
}
