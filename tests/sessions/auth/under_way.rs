//! Passwords that are under way to a directory, or were and never answered; and many of one client at once.

use std::io::{Read, Write, copy};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::auth::guesses::{ELSEWHERE, HERE, counted, guess};
use crate::auth::inbound::{door, line};
use crate::tls::fixture::{SOON, TlsSystems};
use support::slapd::{BASE, READER, Slapd};
use support::wait_until;

const OPEN: u8 = 0;
const HOLDS: u8 = 1;
const CUTS: u8 = 2;

/// Stands before a directory, and counts binds as Ann: it can keep them waiting, or close the connection once they came.
struct Gate {
    address: SocketAddr,
    state: Arc<GateState>,
}

#[derive(Default)]
struct GateState {
    mode: AtomicU8,
    binds: AtomicUsize,
}

impl Gate {
    fn before(directory: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<GateState>::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || state.pass(client, directory));
            }
        });
        Self { address, state }
    }

    fn is(&self, mode: u8) {
        self.state.mode.store(mode, Ordering::SeqCst);
    }

    fn binds(&self) -> usize {
        self.state.binds.load(Ordering::SeqCst)
    }
}

impl GateState {
    /// One connection; who is gone is gone.
    fn pass(&self, mut client: TcpStream, directory: SocketAddr) {
        let mut first = [0; 4096];
        let Ok(octets) = client.read(&mut first) else { return };
        if first[..octets].windows(8).any(|part| part == b"uid=ann,") {
            self.binds.fetch_add(1, Ordering::SeqCst);
            while self.mode.load(Ordering::SeqCst) == HOLDS {
                thread::sleep(Duration::from_millis(5));
            }
            if self.mode.load(Ordering::SeqCst) == CUTS {
                return;
            }
        }
        let mut server = TcpStream::connect(directory).unwrap();
        let _ = server.write_all(&first[..octets]);
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Both);
        });
        let _ = copy(&mut client, &mut server);
        let _ = server.shutdown(std::net::Shutdown::Both);
        back.join().unwrap();
    }
}

/// A node whose users are Ann and Bob of a directory behind a gate. Ann has logged in from here.
fn start() -> (TlsSystems, Slapd, Gate) {
    let slapd = Slapd::start();
    slapd.add_person("ann", "mail: ann@contoso.com\nuserPassword: open sesame");
    slapd.add_person("bob", "mail: bob@contoso.com\nuserPassword: other words");
    let gate = Gate::before(slapd.address());
    let mut systems = TlsSystems::prepare();
    let directory = format!(
        "[[directory]]\nname = \"ldap\"\nprofile = \"openldap\"\nurls = [\"ldap://{}\"]\nbase = [\"{BASE}\"]\n\
         bind_dn = \"{READER}\"\npassword_file = \"{}\"\nprobe = \"postmaster@contoso.com\"\n",
        gate.address,
        slapd.password_file().display()
    );
    let tables = door(&systems, "directory") + &directory;
    systems.start(&tables);
    assert_eq!(guess(&systems, &[(HERE, "ann", "open sesame")]), "235");
    assert_eq!(gate.binds(), 1);
    (systems, slapd, gate)
}

/// What these are told; the gate opens once so many binds wait at it.
fn held(systems: &TlsSystems, gate: &Gate, guesses: &[(&str, &str, &str)], binds: usize) -> String {
    let before = gate.binds();
    gate.is(HOLDS);
    thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the binds are under way", SOON, || gate.binds() == before + binds);
            gate.is(OPEN);
        });
        guess(systems, guesses)
    })
}

fn addresses(count: usize) -> Vec<String> {
    (1..=count).map(|at| format!("127.0.1.{at}")).collect()
}

#[test]
fn right_passwords_that_are_under_way_are_not_wrong_ones() {
    let (systems, mut slapd, gate) = start();
    let addresses = addresses(8);
    let guesses: Vec<_> = addresses.iter().map(|from| (&**from, "ann", "open sesame")).collect();
    assert_eq!(held(&systems, &gate, &guesses, 3), ["235"; 8].join(" "), "each from another new place");
    assert_eq!(gate.binds(), 1 + 8);
    // From one new place: one asks, the others wait for it.
    assert_eq!(held(&systems, &gate, &[(ELSEWHERE, "ann", "open sesame"); 8], 1), ["235"; 8].join(" "));
    assert_eq!((counted(&systems, "accepted"), counted(&systems, "limited")), (17.0, 0.0));
    slapd.stop();
}

#[test]
fn three_wrong_passwords_reach_an_account_however_many_are_under_way() {
    let (systems, mut slapd, gate) = start();
    let addresses = addresses(40);
    let words: Vec<String> = (0..40).map(|at| format!("guess{at}")).collect();
    let guesses: Vec<_> = addresses.iter().zip(&words).map(|(from, word)| (&**from, "ann", &**word)).collect();
    let codes = held(&systems, &gate, &guesses, 3);
    assert_eq!((codes.matches("535").count(), codes.matches("454").count()), (3, 37), "{codes}");
    assert_eq!(gate.binds(), 1 + 3);
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "limited")), (3.0, 37.0));
    let log = systems.node.logged(&["three wrong passwords reached this account"]);
    assert!(!log.contains("did not answer"), "{log}");
    slapd.stop();
}

#[test]
fn a_wrong_password_of_a_device_with_many_connections_is_asked_once() {
    let (systems, mut slapd, gate) = start();
    assert_eq!(held(&systems, &gate, &[(ELSEWHERE, "ann", "old words"); 10], 1), ["535"; 10].join(" "));
    assert_eq!(gate.binds(), 1 + 1);
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "repeated")), (1.0, 9.0));
    slapd.stop();
}

#[test]
fn what_was_sent_and_never_answered_may_have_been_counted_as_wrong() {
    let (systems, mut slapd, gate) = start();
    let addresses = addresses(5);
    // Its connection breaks, or its time is over.
    for (from, how) in addresses.iter().zip([CUTS, CUTS, HOLDS]) {
        gate.is(how);
        assert_eq!(guess(&systems, &[(from, "ann", "open sesame")]), "454");
    }
    assert_eq!((gate.binds(), counted(&systems, "unavailable")), (1 + 3, 3.0));
    gate.is(OPEN);
    assert_eq!(guess(&systems, &[(&addresses[3], "ann", "open sesame"), (&addresses[3], "ann", "x")]), "454 454");
    assert_eq!((gate.binds(), counted(&systems, "limited")), (1 + 3, 2.0));
    assert_eq!(guess(&systems, &[(&addresses[3], "bob", "other words")]), "235");
    systems.node.logged(&["wrong or that the directory did not answer"]);
    // Once it turns out to be right nothing was wrong.
    assert_eq!(guess(&systems, &[(HERE, "ann", "open sesame")]), "235");
    assert_eq!(guess(&systems, &[(&addresses[4], "ann", "open sesame")]), "235");
    slapd.stop();
}

#[test]
fn twenty_of_a_client_may_fail_and_fifty_may_be_right_at_once() {
    let mut systems = TlsSystems::prepare();
    let hash = line("user", "open sesame");
    let names: Vec<String> = (0..45).map(|at| format!("user{at}")).collect();
    let lines: String = names.iter().map(|name| hash.replacen("user", name, 1)).collect();
    systems.node.write("users", &lines);
    let door = door(&systems, "users:users");
    systems.start(&door);
    let wrong: Vec<_> = names.iter().map(|name| (ELSEWHERE, name.as_str(), "guess")).collect();
    let codes = guess(&systems, &wrong);
    assert_eq!((codes.matches("535").count(), codes.matches("454").count()), (20, 25), "{codes}");
    assert_eq!((counted(&systems, "rejected"), counted(&systems, "limited")), (20.0, 25.0));
    // A webmail server in the morning, and again when it is known there.
    let right: Vec<_> = names.iter().map(|name| (HERE, name.as_str(), "open sesame")).collect();
    for _ in 0..2 {
        assert_eq!(guess(&systems, &right), ["235"; 45].join(" "));
    }
}
