//! A path MTU black hole for real: mail stands still in it, is reported, and passes with either cure, in both
//! directions. Where the machine does not allow network namespaces the tests say so on standard error, and pass.

pub(crate) mod network;

mod cut_through;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use network::{Network, SERVER};
use serde_json::Value;
use socket2::SockRef;
use support::senders::Raw;
use support::sink::Sink;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;
use support::two_systems::{accepted, message, token};
use support::wait_until;

const SOON: Duration = Duration::from_secs(20);
const LARGE: usize = 100_000;

/// The network, unless this machine does not allow one.
fn network(tag: char) -> Option<Network> {
    match Network::lay(tag) {
        Ok(network) => Some(network),
        Err(why) => {
            // Not `eprintln`, which the test runner keeps to itself.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** NOT TESTED: path MTU black holes: no network namespaces here: {why} ***\n"
            );
            None
        }
    }
}

/// A node that takes mail at `bind` for ann@contoso.test, who is at `inside`; `door` and `way` are further lines.
fn configuration(bind: &str, inside: SocketAddr, (door, way): (&str, &str)) -> String {
    let door = format!("[[receive_connector]]\nname = \"internet\"\nbind = [\"{bind}\"]\n{door}\n");
    let domain = accepted_domain("contoso.test", "inside");
    let waits = "delivery = \"queue\"\nreply_timeout = \"3s\"\nretry = { first = \"1h\", max = \"1h\" }\n";
    let inside = send_connector("inside", inside, &format!("{waits}{way}"));
    format!("{BASE_TABLES}{PEOPLE}{door}{domain}{inside}")
}

fn start(configuration: &str) -> TestNode {
    let mut node = TestNode::prepare();
    node.write("people.csv", "address\nann@contoso.test\n");
    node.write("fingerpost.toml", configuration);
    node.start();
    node
}

fn reload(node: &TestNode, configuration: &str) {
    node.write("fingerpost.toml", configuration);
    let output = node.run(&["reload"]);
    assert!(output.status.success(), "{output:?}");
}

fn send(node: &TestNode, token: &str, size: usize) {
    assert!(accepted(&mut Raw::hello(node.smtp), "ann@contoso.test", &message(token, size)), "{token}");
}

/// The last errors of what waits in the queue, a line each.
fn last_errors(node: &TestNode) -> String {
    let listed = node.run(&["queue", "list", "--format", "json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let messages = listed["messages"].as_array().unwrap().iter();
    let errors = messages.map(|message| message["recipients"][0]["last_error"].as_str().unwrap_or_default());
    errors.collect::<Vec<_>>().join("\n")
}

fn black_holes(node: &TestNode, connector: &str) -> f64 {
    node.metric(&format!("fingerpost_path_mtu_black_holes_total{{connector=\"{connector}\"}}")).unwrap()
}

/// What the log says of it at this level.
fn told(node: &TestNode, level: &str) -> Vec<String> {
    let log = node.log();
    let told = log.lines().filter(|line| line.contains(level) && line.contains(": suspected path MTU black hole"));
    told.map(str::to_owned).collect()
}

#[test]
fn what_we_send_stands_still_is_reported_and_passes_with_either_cure() {
    let Some(network) = network('o') else { return };
    let sink = network.server(|| Sink::start_at(SocketAddr::from((SERVER, 0)), Arc::new(|_| {})));
    network.client(|| {
        let with = |way: &str| configuration("{smtp}", sink.address(), ("", way));
        let node = start(&with(""));
        assert_eq!((black_holes(&node, "inside"), black_holes(&node, "internet")), (0.0, 0.0));
        let hole = "suspected path MTU black hole";
        let cure = "set path_mtu_discovery = false or max_segment_size = 1200 on send connector inside";
        // Of the smaller one all is written at once, the final dot too; of the larger one the kernel takes a part.
        for (number, size, step, setting) in [
            (1, 5000, "after the final dot", "path_mtu_discovery = false"),
            (2, LARGE, "at DATA, before the final dot", "max_segment_size = 500"),
        ] {
            let name = format!("message {number}");
            send(&node, &name, size);
            wait_until("the queue shows why", SOON, || last_errors(&node).contains(hole));
            let error = last_errors(&node);
            assert!(error.contains(&format!("{step}: {hole}")) && error.contains(cure), "{error}");
            let alerts = told(&node, "ERROR");
            assert!(alerts.iter().all(|line| line.contains("alert=true") && line.contains(cure)), "{alerts:?}");
            assert_eq!((alerts.len(), black_holes(&node, "inside")), (number, number as f64), "{}", node.log());
            assert_eq!(sink.all().len(), number - 1, "it cannot have arrived");

            reload(&node, &with(setting));
            wait_until("an empty queue", SOON, || {
                // A next hop that failed has a second's rest.
                assert!(node.run(&["queue", "retry", "--all"]).status.success());
                last_errors(&node).is_empty()
            });
            wait_until("it arrives", SOON, || sink.all().len() == number);
            assert_eq!(token(&sink.all()[number - 1]), name);
            reload(&node, &with(""));
        }
        assert_eq!(told(&node, "ERROR").len(), 2, "{}", node.log());
    });
}

#[test]
fn what_we_are_sent_stands_still_is_reported_and_passes_with_the_cure() {
    let Some(network) = network('i') else { return };
    let door = SocketAddr::from((SERVER, 2525));
    let with = |line: &str| configuration(&door.to_string(), SocketAddr::from(([127, 0, 0, 1], 9)), (line, ""));
    let node = network.server(|| start(&with("")));
    network.client(|| {
        assert!(accepted(&mut Raw::hello(door), "ann@contoso.test", &message("small", 100)));
        gives_up(door);
    });
    network.server(|| {
        wait_until("a suspicion", SOON, || black_holes(&node, "internet") > 0.0);
        let told = told(&node, "WARN");
        let words = "0 bytes of content came after our go-ahead, then nothing for 1";
        let cure = "set max_segment_size = 1200 on receive connector internet";
        assert!(told.len() == 1 && told[0].contains(words) && told[0].contains(cure), "{told:?}");
        reload(&node, &with("max_segment_size = 500"));
    });
    network.client(|| assert!(accepted(&mut Raw::hello(door), "ann@contoso.test", &message("large", LARGE))));
    network.server(|| assert_eq!(black_holes(&node, "internet"), 1.0));
}

/// A sender that resets the connection when a large message has not moved for 11 s.
fn gives_up(door: SocketAddr) {
    let mut raw = Raw::hello(door);
    for (line, code) in [("MAIL FROM:<s@sender.test>", 250), ("RCPT TO:<ann@contoso.test>", 250), ("DATA", 354)] {
        assert_eq!(raw.say(line).0, code, "{line}");
    }
    let mut stream = raw.into_stream();
    stream.set_nonblocking(true).unwrap();
    let written = stream.write(&message("stalled", LARGE)).unwrap();
    assert!(written > 2000, "{written}");
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(11))).unwrap();
    let silence = stream.read(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}
