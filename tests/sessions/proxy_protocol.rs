//! Clients behind a balancer: HAProxy in front of the program, and what others say in a PROXY header.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use support::haproxy::Haproxy;
use support::senders::Raw;
use support::sink::Sink;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;
use support::two_systems::{accepted, message};
use support::wait_until;

const SOON: Duration = Duration::from_secs(20);
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// A node that trusts [`BALANCER`], two doors on its bind, and a sink behind it.
struct ProxiedNode {
    node: TestNode,
    sink: Sink,
}

impl ProxiedNode {
    fn start() -> Self {
        let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
        let mut node = TestNode::prepare();
        node.write("people.csv", "address\nann@contoso.test\n");
        node.write(
            "fingerpost.toml",
            &format!(
                "{BASE_TABLES}{PEOPLE}{DOORS}{}{}",
                accepted_domain("contoso.test", "inside"),
                send_connector("inside", sink.address(), "")
            ),
        );
        node.start();
        Self { node, sink }
    }

    /// Sends a message over this conversation and returns it as it arrived.
    fn arrived(&self, raw: &mut Raw, token: &str) -> String {
        assert!(accepted(raw, "ann@contoso.test", &message(token, 100)), "{token} was not accepted");
        let mut found = None;
        wait_until(&format!("{token} arrives"), SOON, || {
            let all = self.sink.all();
            let texts = all.iter().map(|sunk| String::from_utf8_lossy(&sunk.bytes).into_owned());
            found = texts.into_iter().find(|text| text.contains(&format!("X-Token: {token}\r\n")));
            found.is_some()
        });
        found.unwrap()
    }

    fn connections(&self, connector: &str) -> f64 {
        let series = format!("fingerpost_connections_total{{receive_connector=\"{connector}\"}}");
        self.node.metric(&series).unwrap()
    }

    fn refused(&self) -> f64 {
        self.node.metric("fingerpost_sessions_refused_total{reason=\"proxy-header\"}").unwrap()
    }
}

const DOORS: &str = r#"
[[receive_connector]]
name            = "internet"
bind            = ["{smtp}"]
trusted_proxies = ["127.0.0.9"]
max_connections_per_ip = 1
[[receive_connector]]
name            = "partner"
bind            = ["{smtp}"]
remote_networks = ["127.0.0.77"]
trusted_proxies = ["127.0.0.9"]
max_connections_per_ip = 1
"#;

/// HAProxy in front of the node, with health checks; it connects from [`BALANCER`].
fn haproxy(node: SocketAddr, send: &str) -> Haproxy {
    Haproxy::start(&format!(
        "    server fingerpost {node} source {BALANCER} {send} check inter 100ms check-send-proxy\n"
    ))
}

#[test]
fn the_client_behind_haproxy_is_the_client_for_everything() {
    for send in ["send-proxy", "send-proxy-v2"] {
        let proxied = ProxiedNode::start();
        let haproxy = haproxy(proxied.node.smtp, send);
        let mut raw = Raw::hello_from(CLIENT, haproxy.front());
        let token = format!("behind-{send}");
        let text = proxied.arrived(&mut raw, &token);
        assert!(text.contains("[127.0.0.77]") && !text.contains("[127.0.0.9]"), "{send}: {text}");
        assert_eq!(proxied.connections("partner"), 1.0, "{send}: the header's address chooses the connector");
        // One client address may have several connections through the balancer.
        let more: Vec<Raw> = (0..3).map(|_| Raw::hello_from(CLIENT, haproxy.front())).collect();
        assert_eq!(proxied.connections("partner"), 4.0, "{send}: {}", more.len());
        let mut traced = String::new();
        wait_until("a trace", SOON, || {
            let output = proxied.node.run(&["trace", "--recipient", "ann@contoso.test", "--format", "json"]);
            traced = String::from_utf8_lossy(&output.stdout).into_owned();
            traced.contains("received")
        });
        assert!(traced.contains("\"connector\": \"partner\""), "{send}: {traced}");
        proxied.node.logged(&["client=127.0.0.77"]);
        assert_eq!(proxied.refused(), 0.0, "{send}: health checks are no malformed headers");
    }
}

#[test]
fn others_are_not_believed() {
    let proxied = ProxiedNode::start();
    let mut raw = Raw::connect(proxied.node.smtp);
    assert_eq!(raw.reply().0, 220);
    assert_eq!(raw.say("PROXY TCP4 127.0.0.77 127.0.0.1 40000 25").0, 500);
    assert_eq!(raw.say("EHLO sender.test").0, 250);
    let text = proxied.arrived(&mut raw, "unbelieved");
    assert!(text.contains("[127.0.0.1]") && !text.contains("127.0.0.77"), "{text}");
    assert_eq!((proxied.connections("internet"), proxied.connections("partner")), (1.0, 0.0));
    // Without a balancer an address has its limit.
    assert_eq!(Raw::connect(proxied.node.smtp).reply().0, 421);
}

#[test]
fn a_trusted_balancer_must_say_who_the_client_is() {
    let proxied = ProxiedNode::start();
    let connect = || Raw::connect_from(BALANCER, proxied.node.smtp);
    for (number, bytes) in [
        &b"EHLO sender.test\r\n"[..],
        b"PROXY TCP4 127.0.0.77 127.0.0.1 40000\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c0123456789ab",
        b"PROXY TCP4 127.0.0.77", // and nothing more
        b"",
    ]
    .iter()
    .enumerate()
    {
        let mut raw = connect();
        raw.send(bytes);
        assert_eq!(raw.reply(), (0, String::new()), "{bytes:?}: closed without a word");
        assert_eq!(proxied.refused(), number as f64 + 1.0, "{bytes:?}");
    }
    let log = proxied.node.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains("127.0.0.9") && line.contains(words)).count();
    assert_eq!((lines("malformed"), lines("does not begin"), lines("within 5s")), (2, 1, 2), "{log}");
    assert_eq!((proxied.connections("internet"), proxied.connections("partner")), (0.0, 0.0));
}

#[test]
fn what_follows_the_header_is_the_clients_however_it_is_cut() {
    let proxied = ProxiedNode::start();
    let line = b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\nEHLO sender.test\r\n";
    let address: Vec<u8> = [&[192, 0, 2, 7, 127, 0, 0, 1], &[0x9c, 0x40, 0, 25][..], &[4, 0, 1, 0]].concat();
    let binary =
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[address.len() as u8], &address, b"EHLO sender.test\r\n"].concat();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0EHLO sender.test\r\n";
    for (bytes, client) in [
        (&line[..], "[IPv6:2001:db8::7]"),
        (&binary, "[192.0.2.7]"),
        (local, "[127.0.0.9]"),
        (b"PROXY UNKNOWN\r\nEHLO sender.test\r\n", "[127.0.0.9]"),
    ] {
        for cut in [1, 7, bytes.len()] {
            let mut raw = Raw::connect_from(BALANCER, proxied.node.smtp);
            for piece in bytes.chunks(cut) {
                raw.send(piece);
                raw.pause();
            }
            assert_eq!((raw.reply().0, raw.reply().0), (220, 250), "{client} by {cut}");
            let text = proxied.arrived(&mut raw, &format!("cut-{cut}-{}", client.len() * bytes.len()));
            assert!(text.contains(client), "{client} by {cut}: {text}");
        }
    }
}
