//! The first of two smart hosts begins a conversation and then says nothing; the queue's mail goes by the second.

use support::test_network::{BY_HAND, PEOPLE, SOON, TestNetwork, connector, domain};
use support::wait_until;

/// Places of the connector.
const PLACES: usize = 6;
const MESSAGES: usize = 60;

/// P10: how many messages the silent one holds, by where it is silent.
#[test]
fn a_silent_host_holds_few_places() {
    for (script, holds) in [("rcpt => wait", 2), ("data => wait", 2), ("dot => wait", PLACES)] {
        let mut network = TestNetwork::prepare();
        let (silent, idle) = (network.hop(script), network.hop(""));
        network.node.write("people.csv", "address\np0@c.test\n");
        let one = connector("hop", silent.address, &format!("max_connections = {PLACES}\n{BY_HAND}"));
        let address = |of: std::net::SocketAddr| format!("[{}]:{}", of.ip(), of.port());
        let (first, second) = (address(silent.address), address(idle.address));
        let both = one.replace(&format!("\"{first}\""), &format!("\"{first}\", \"{second}\""));
        assert_ne!(one, both);
        network.start(&format!("{PEOPLE}{both}{}", domain("c.test", "authoritative", "hop")));
        (0..MESSAGES).for_each(|_| network.send("ann@outside.test", &["p0@c.test"]));
        wait_until("the second has the rest", SOON, || idle.taken().len() == MESSAGES - holds);
        // With a test of the host.
        assert!(silent.seen().len() <= PLACES + 1, "{script}: {} connections", silent.seen().len());
        silent.follow("");
        network.quiet();
        assert_eq!((silent.taken().len(), idle.taken().len()), (holds, MESSAGES - holds), "{script}: each once");
    }
}
