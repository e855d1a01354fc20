//! What the tests stand on: real servers with folders and ports of their own, started and stopped by process id.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

pub mod certificates;
pub mod daemon;
pub mod fingerpost;
pub mod journey;
pub mod mail;
pub mod pair;
pub mod postfix;
pub mod samba_ad;
pub mod senders;
pub mod sink;
pub mod slapd;

/// A port of `ip` that nobody listens on now.
pub fn free_port(ip: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((ip, 0)).expect("a loopback address has free ports");
    listener.local_addr().expect("it is bound").port()
}

/// Asks `condition` until it holds; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until somebody accepts connections there.
pub fn wait_for_port(address: SocketAddr, limit: Duration) {
    let connects = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok();
    wait_until(&format!("a listener on {address}"), limit, connects);
}
