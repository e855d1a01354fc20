//! What the tests stand on: real servers with folders and ports of their own, started and stopped by process id.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where what it stands on is gone"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub mod certificates;
pub mod daemon;
pub mod dovecot;
pub mod faketime;
pub mod faulty_spool;
pub mod haproxy;
pub mod letter;
pub mod mail;
pub mod people;
pub mod postfix;
pub mod postfix_systems;
pub mod postgres;
pub mod power_loss;
pub mod recording_smtp_server;
pub mod relay;
pub mod routing_setup;
pub mod samba_ad;
pub mod scripted_smtp_server;
pub mod senders;
pub mod sessions;
pub mod sink;
pub mod slapd;
pub mod tables;
pub mod test_directory;
pub mod test_network;
pub mod test_node;
pub mod test_queue;
pub mod two_systems;
pub mod volume;

/// A port of `ip` that nobody listens on now, and that no other call of this process is given. It lies below the range
/// from which the kernel takes the ports of outgoing connections.
pub fn free_port(ip: Ipv4Addr) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 100).expect("below 100") * 200;
    loop {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind((ip, port)).is_ok() {
            return port;
        }
    }
}

/// Asks `condition` until it holds; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, condition: impl FnMut() -> bool) {
    assert!(within(limit, condition), "not within {limit:?}: {what}");
}

/// Asks `condition` until it holds; whether it did within `limit`.
pub fn within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until somebody accepts connections there.
pub fn wait_for_port(address: SocketAddr, limit: Duration) {
    let connects = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
    wait_until(&format!("a listener on {address}"), limit, connects);
}

/// The project's folder.
#[must_use]
pub fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A copy of the program in this folder, which other users may run. Another process makes it: a file that this one has
/// open for writing is inherited by whatever a test starts in that moment, and cannot be run ("Text file busy").
pub fn copied_program(folder: &Path) -> PathBuf {
    let copy = folder.join("program");
    daemon::run(std::process::Command::new("install").args(["-m", "755", program()]).arg(&copy));
    copy
}

/// The program as it was built with the tests.
#[must_use]
pub fn program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let tests = std::env::current_exe().expect("it is known");
        let built = tests.parent().and_then(Path::parent).expect("the tests are in target/PROFILE/deps");
        built.join("fingerpost").into_os_string().into_string().expect("a folder with a usual name")
    });
    &PROGRAM
}
