//! P2: a next hop far away. Recipients that a client pipelines go on pipelined, and are one message however long each
//! answer takes: over a line that delays everything, with a server that takes its time, and, where the machine allows
//! it, over the kernel's own delay.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::cut_through::fixture::{RESOLVED, TwoHops, address_space, connector_to, shared_domain};
use crate::next_hop_behaviour::fixture::{Heard, all, sends_over, sends_pipelined, users};
use crate::path_mtu::network::{Network, SERVER};
use support::senders::Raw;
use support::sink::Sink;
use support::test_network::{PEOPLE, TestNetwork};

/// One way.
const DELAY: Duration = Duration::from_millis(50);
const ROUND_TRIP: Duration = Duration::from_millis(100);
const MANY: usize = 60;

/// A line to there that is this long in both directions, and as wide as one likes.
fn line(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = TcpStream::connect(to).unwrap();
            carry(near.try_clone().unwrap(), far.try_clone().unwrap());
            carry(far, near);
        }
    });
    address
}

/// What is read goes out a while later.
fn carry(mut from: TcpStream, mut to: TcpStream) {
    to.set_nodelay(true).unwrap();
    let (sender, under_way) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut piece = vec![0; 65_536];
        while let Ok(read @ 1..) = from.read(&mut piece) {
            let _ = sender.send((Instant::now() + DELAY, piece[..read].to_vec())); // the other end is gone
        }
    });
    std::thread::spawn(move || {
        for (due, piece) in under_way {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both); // it may be gone
    });
}

/// The same people as `TwoHops` has, and next hops at these addresses.
fn far(primary: SocketAddr, secondary: SocketAddr) -> TestNetwork {
    let mut network = TestNetwork::prepare();
    network.node.write("people.csv", &format!("address\n{}\n", users("p", 0..RESOLVED).join("\n")));
    network.start(&format!(
        "{PEOPLE}{}{}{}",
        connector_to("primary", primary, ""),
        connector_to("secondary", secondary, &address_space("c.test")),
        shared_domain("c.test", "primary")
    ));
    network
}

/// A client that is not where a next hop is: that would be asked one by one, for it may be a loop (DESIGN section 6).
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 50);

/// Sends a message to many at once; returns how long it took.
fn many(mut raw: Raw, id: &str, kind: &str) -> Duration {
    let to = users(kind, 0..MANY);
    let begun = Instant::now();
    sends_pipelined(&mut raw, id, &all(&to)).is_delivered();
    begun.elapsed()
}

/// Much less than a round trip for each recipient.
fn is_pipelined(took: Duration) {
    let each = ROUND_TRIP * u32::try_from(MANY).unwrap();
    assert!(took < each / 2, "{MANY} recipients took {took:?}");
}

#[test]
fn many_pipelined_recipients_over_a_long_line_take_few_round_trips() {
    let sinks = [2, 3].map(|host| Sink::start(Ipv4Addr::new(127, 0, 0, host)));
    let network = far(line(sinks[0].address()), line(sinks[1].address()));
    for (kind, sink) in ["p", "s"].into_iter().zip(&sinks) {
        let took = many(Raw::hello_from(CLIENT, network.node.smtp), &format!("long-{kind}"), kind);
        println!("{MANY} recipients over a round trip of {ROUND_TRIP:?}: {took:?}");
        assert!(took >= 3 * ROUND_TRIP, "the line has no delay: {took:?}");
        is_pipelined(took);
        let all = sink.all();
        assert_eq!((all.len(), all[0].to.len()), (1, MANY), "{kind}: one message");
    }
}

/// The server takes its time for each, one after another, and the client asks one after another or all at once: more
/// than the patience in all, less for each.
#[test]
fn many_slow_answers_are_one_message() {
    let script = "rcpt => after 40 250 2.1.5 ok";
    let two = TwoHops::start(script, script, "cut_through_patience = \"1s\"");
    for (kind, hop, send) in [
        ("p", &two.primary, sends_over as fn(&mut Raw, &str, &[&str]) -> Heard),
        ("s", &two.secondary, sends_pipelined),
    ] {
        let to = users(kind, 0..MANY);
        send(&mut Raw::hello_from(CLIENT, two.network.node.smtp), kind, &all(&to)).is_delivered();
        assert_eq!((hop.contents().len(), hop.taken()), (1, to), "{kind}: one message");
    }
}

#[test]
fn so_it_is_with_the_kernels_own_delay() {
    let namespaces = match Network::with_delay('w', ROUND_TRIP) {
        Ok(namespaces) => namespaces,
        Err(why) => {
            // Not `eprintln`, which the test runner keeps to itself.
            let _ = writeln!(std::io::stderr(), "\n*** NOT TESTED: the kernel's own delay: {why} ***\n");
            return;
        }
    };
    let sink = namespaces.server(|| Sink::start_at(SocketAddr::from((SERVER, 0)), Arc::new(|_| {})));
    namespaces.client(|| {
        let network = far(sink.address(), sink.address());
        for kind in ["p", "s"] {
            is_pipelined(many(Raw::hello(network.node.smtp), &format!("kernel-{kind}"), kind));
        }
        assert!(sink.all().len() == 2 && sink.all().iter().all(|sunk| sunk.to.len() == MANY));
    });
}
