//! HAProxy in front of SMTP servers, on a free port. Needs Debian's `haproxy`.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::daemon::Daemon;
use super::free_port;

/// A running balancer, killed when dropped.
pub struct Haproxy {
    front: SocketAddr,
    daemon: Option<Daemon>,
    folder: TempDir,
}

impl Haproxy {
    /// Starts it; `lines` are those of its `listen` section but `bind`.
    pub fn start(lines: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("fp-haproxy-").tempdir_in("/tmp").expect("/tmp is writable");
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
        let text = format!(
            "global\n    maxconn 100\n\
             defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n\
             listen smtp\n    bind {front}\n{lines}"
        );
        std::fs::write(folder.path().join("haproxy.cfg"), text).expect("the folder is ours");
        let mut haproxy = Self { front, daemon: None, folder };
        haproxy.run();
        haproxy
    }

    /// Where clients connect.
    pub fn front(&self) -> SocketAddr {
        self.front
    }

    /// Kills it, if it runs, and starts it again.
    pub fn kill_and_start(&mut self) {
        self.daemon = None;
        self.run();
    }

    fn run(&mut self) {
        let mut command = Command::new("/usr/sbin/haproxy");
        command.args(["-db", "-f"]).arg(self.folder.path().join("haproxy.cfg"));
        self.daemon = Some(Daemon::start(command.stdout(Stdio::null()).stderr(Stdio::null()), self.front));
    }
}
