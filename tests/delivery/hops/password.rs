//! A relay password that expired: a 5xx at the next hop's AUTH is nobody's bounce.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use support::test_network::{PEOPLE, SOON, TestNetwork, connector, domain};
use support::wait_until;

const SENDER: &str = "s@outside.test";

#[test]
fn an_expired_password_bounces_nothing_and_is_corrected_without_a_restart() {
    for (mechanism, right, words) in [
        ("plain", format!("auth plain {} => 235 2.7.0 welcome\n", STANDARD.encode("\0fingerpost\0new secret")), ""),
        ("login", format!("{} => 235 2.7.0 welcome\n", STANDARD.encode("new secret")), LOGIN),
    ] {
        let mut network = TestNetwork::prepare();
        let offers = "ehlo => 250-next.hop\\n250-STARTTLS\\n250 AUTH PLAIN LOGIN";
        let refused = "535 5.7.139 Authentication unsuccessful, the password has expired";
        let old = STANDARD.encode("old secret");
        let hop = network.tls_hop(&format!("{offers}\n{right}{words}{old} => {refused}\nauth => {refused}"));
        network.node.write("people.csv", "address\nann@c.test\nbob@c.test\n");
        network.node.write("relay.password", "old secret\n");
        let settings = format!(
            "tls = {{ mode = \"required\" }}\n\
             auth = {{ mechanism = \"{mechanism}\", username = \"fingerpost\", password_file = \"relay.password\" }}\n\
             retry = {{ first = \"1s\", factor = 1.0, max = \"1s\" }}"
        );
        let tables = connector("hop", hop.address, &settings) + &domain("c.test", "authoritative", "hop");
        network.start(&format!("{PEOPLE}{tables}"));

        for _ in 0..10 {
            network.send(SENDER, &["ann@c.test", "bob@c.test"]);
        }
        let shown = network.waits("ann@c.test", "535 5.7.139");
        assert!(shown["last_error"].as_str().unwrap().contains("at AUTH"), "{shown}");
        assert!(network.alerts("send_connector=hop reason=451 4.7.139") > 0, "nobody is told");
        let up = format!(
            "fingerpost_next_hop_up{{send_connector=\"hop\",smart_host=\"[127.0.0.1]:{}\"}}",
            hop.address.port()
        );
        assert_eq!(network.node.metric(&up), Some(0.0));
        wait_until("more attempts", SOON, || hop.seen().len() >= 3);
        assert_eq!((network.queue().len(), hop.taken().len()), (20, 0), "all of it waits");

        fs::write(network.node.path("relay.password"), "new secret\n").unwrap();
        network.quiet();
        assert_eq!(hop.taken().len(), 20, "{mechanism}: every recipient once");
        assert_eq!(network.node.metric(&up), Some(1.0));
        assert!(network.reports(SENDER).is_empty(), "something bounced");
        let log = network.node.log();
        assert!(!log.contains("secret") && !log.contains(&old), "the password is in the log");
    }
}

/// What a server says in AUTH LOGIN before the password: `VXNlcm5hbWU6`, `UGFzc3dvcmQ6`.
const LOGIN: &str = "auth login => 334 VXNlcm5hbWU6\nZmluZ2VycG9zdA== => 334 UGFzc3dvcmQ6\n";
