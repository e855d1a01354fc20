//! A network path that can be cut: it forwards TCP connections, and while it is cut nothing goes through, in either
//! direction, and nobody hears why.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a path that is cut is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A path from a free loopback port. Its threads end with the process.
pub struct Relay {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Relay {
    /// A path to this port of the loopback address.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let (relay, cut) = (listener.local_addr().expect("it is bound").port(), Arc::new(AtomicBool::new(false)));
        let is_cut = cut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let is_cut = is_cut.clone();
                std::thread::spawn(move || connect(&client, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &is_cut));
            }
        });
        Self { port: relay, cut }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on nothing goes through.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// What stands goes on.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

fn connect(client: &TcpStream, to: SocketAddr, cut: &Arc<AtomicBool>) {
    wait(cut);
    let Ok(server) = TcpStream::connect(to) else { return };
    if let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) {
        let cut = cut.clone();
        std::thread::spawn(move || forward(&mut from, &mut to, &cut));
    }
    if let (Ok(mut from), Ok(mut to)) = (server.try_clone(), client.try_clone()) {
        forward(&mut from, &mut to, cut);
    }
}

/// Forwards until either side ends.
fn forward(from: &mut TcpStream, to: &mut TcpStream, cut: &AtomicBool) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        wait(cut); // what was read, and what comes meanwhile, is held up
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(std::net::Shutdown::Both);
    }
}

fn wait(cut: &AtomicBool) {
    while cut.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
    }
}
