//! A next hop that is out of reach, and recipients whose mail would be queued: who only asks for them fills no log.

use std::net::Ipv4Addr;

use crate::attacks::fixture::names;
use support::senders::Raw;
use support::tables::{BASE_TABLES, PEOPLE, send_connector};
use support::test_network::{SOON, TestNetwork, domain};
use support::wait_until;

#[test]
fn recipients_that_would_be_queued_are_told_as_sums() {
    let mut network = TestNetwork::prepare();
    network.node.write("people.csv", "address\np0@c.test\np1@c.test\n");
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n";
    let nobody = send_connector("inside", ([127, 0, 0, 1], 9).into(), "");
    let domain = domain("c.test", "authoritative", "inside");
    network.node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{domain}{nobody}"));
    network.node.start();
    let (clients, rounds, named) = (3, 20, 50);
    for client in 1..=clients {
        let mut raw = Raw::hello_from(Ipv4Addr::new(127, 0, 3, client), network.node.smtp);
        for _ in 0..rounds {
            let who = ["postmaster@c.test", "p0@c.test", "p1@c.test"].into_iter().cycle();
            let codes = names(&mut raw, who.take(named).map(str::to_owned));
            assert!(codes.iter().all(|code| *code == 250), "{codes:?}");
        }
    }
    // A recipient that is named again in the same transaction is known already.
    let all = usize::from(clients) * rounds * 3;
    let line = "next hop out of reach: queued";
    let as_sums = network.node.metric("fingerpost_told_as_sums_total{what=\"out-of-reach\"}").unwrap();
    wait_until("the others are told", SOON, || network.node.log().matches(line).count() as f64 + as_sums >= all as f64);
    let log = network.node.log();
    let told = log.matches(line).count();
    assert!(told <= 2 * 15 * usize::from(clients), "ten of a client in a minute, and what is new: {told}");
    assert!(log.len() < 64 << 10, "{}", log.len());
    assert!(as_sums >= (all - told) as f64, "{as_sums} and {told} of {all}");
}
