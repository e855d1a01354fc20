//! Cut-through's own time limits end a wait sooner than the detection looks by itself: it is told all the same.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use crate::path_mtu::network::SERVER;
use crate::path_mtu::{SOON, black_holes, configuration, last_errors, network, reload, told};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::{Letter, Raw};
use support::sink::Sink;
use support::tables::{accepted_domain, send_connector};
use support::test_node::TestNode;
use support::two_systems::{message, token};
use support::wait_until;

const HOLE: &str = "suspected path MTU black hole";
/// More than the kernel takes for a connection on which nothing moves.
const MUCH: usize = 4 << 20;
/// So many RCPTs at once are more than a packet.
const MANY: usize = 60;

/// The configuration of a node whose next hops take part: `inside` behind the black hole, `near` before it. `way` is a
/// further line of the first.
fn takes_part(inside: SocketAddr, near: SocketAddr, way: &str) -> String {
    let queues = "delivery = \"queue\"\nreply_timeout = \"3s\"\n";
    let all = configuration("{smtp}", inside, ("", way));
    assert!(all.contains(queues));
    // Longer than any limit of cut-through's that is tried here.
    all.replace(queues, "reply_timeout = \"8s\"\n")
        + &accepted_domain("near.test", "near")
        + &send_connector("near", near, "")
}

fn start(configuration: &str) -> TestNode {
    let mut node = TestNode::prepare();
    let many = (0..MANY).fold(String::new(), |mut all, number| {
        let _ = writeln!(all, "ann{number}@contoso.test");
        all
    });
    node.write("people.csv", &format!("address\nann@contoso.test\nbob@near.test\n{many}"));
    node.write("fingerpost.toml", configuration);
    node.start();
    node
}

/// Once a connection.
fn is_told(node: &TestNode, connections: usize) {
    let alerts = told(node, "ERROR");
    assert_eq!(alerts.len(), connections, "{alerts:?}");
    assert!(alerts.iter().all(|alert| alert.contains("alert=true") && alert.contains(HOLE)), "{alerts:?}");
    assert_eq!(black_holes(node, "inside"), connections as f64);
}

#[test]
fn a_branch_that_is_cut_loose() {
    let Some(network) = network('l') else { return };
    let sink = network.server(|| Sink::start_at(SocketAddr::from((SERVER, 0)), Arc::new(|_| {})));
    network.client(|| {
        let near = Sink::start(Ipv4Addr::LOCALHOST);
        let with = |way: &str| takes_part(sink.address(), near.address(), way);
        let node = start(&with(""));
        let bytes = message("loose", MUCH);
        let letter = Letter { from: "s@sender.test", to: &["ann@contoso.test", "bob@near.test"], bytes: &bytes };
        let (_, dot) = Raw::hello(node.smtp).transact(&letter, "");
        let (code, said) = dot.unwrap();
        assert!(code == 250 && said.contains("queued as"), "{said}");
        is_told(&node, 1);
        assert!(last_errors(&node).contains(HOLE), "{}", last_errors(&node));
        assert_eq!((sink.all().len(), near.all().len()), (0, 1));

        reload(&node, &with("path_mtu_discovery = false"));
        wait_until("an empty queue", 2 * SOON, || {
            assert!(node.run(&["queue", "retry", "--all"]).status.success());
            last_errors(&node).is_empty()
        });
        wait_until("it arrives", SOON, || sink.all().len() == 1);
        assert_eq!((token(&sink.all()[0]), near.all().len()), ("loose".to_owned(), 1));
    });
}

/// The connection went to somebody else while the client stood still; the envelope that is said again fills a packet.
#[test]
fn an_envelope_that_is_not_waited_for_any_longer() {
    let Some(network) = network('e') else { return };
    let (_runtime, hop) = network.server(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = TcpListener::bind((SERVER, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let hop = {
            let _inside = runtime.enter();
            ScriptedSmtpServer::on(tokio::net::TcpListener::from_std(listener).unwrap(), "", None)
        };
        (runtime, hop)
    });
    network.client(|| {
        let one = "max_connections = 1";
        let node = start(&takes_part(hop.address, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)), one));
        let mut raw = Raw::hello(node.smtp);
        assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
        for number in 0..MANY {
            assert_eq!(raw.say(&format!("RCPT TO:<ann{number}@contoso.test>")).0, 250);
        }
        let mut other = Raw::hello(node.smtp);
        for command in ["MAIL FROM:<o@sender.test>", "RCPT TO:<ann@contoso.test>", "RSET"] {
            assert_eq!(other.say(command).0, 250, "{command}");
        }
        wait_until("both have given the connection back", SOON, || hop.commands("RSET").len() == 2);
        assert_eq!(raw.say("DATA").0, 354);
        raw.send(&message("again", 100));
        let (code, said) = raw.say(".");
        assert!(code == 250 && said.contains("queued as"), "{said}");
        // The connection from the pool may have been dead: a new one was tried as well.
        is_told(&node, 2);
        assert!(hop.taken().is_empty());
    });
}
