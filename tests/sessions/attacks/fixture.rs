//! A domain whose people all are in the directory, behind one next hop; everybody else of it is unknown.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::tables::{BASE_TABLES, PEOPLE, send_connector};
use support::test_network::{TestNetwork, domain};

/// The program, and the next hop that has the people.
pub(crate) struct AttackSetup {
    pub(crate) network: TestNetwork,
    pub(crate) hop: ScriptedSmtpServer,
    /// Has those of `r.test` whom the directory does not know; it says at the dot only who is not there.
    pub(crate) beyond: ScriptedSmtpServer,
}

/// A filter's address; it has a receive connector of its own.
pub(crate) const FILTER: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 7);

impl AttackSetup {
    /// `pN@c.test` below `people` are there. Further lines for the receive connector that takes everybody.
    pub(crate) fn start(people: usize, door: &str) -> Self {
        let mut network = TestNetwork::prepare();
        let (hop, beyond) = (network.hop(""), network.hop("with x: dot => 550 5.1.1 no such user"));
        let mut known = "address\n".to_owned();
        (0..people).for_each(|number| writeln!(known, "p{number}@c.test").unwrap());
        network.node.write("people.csv", &known);
        let doors = format!(
            "[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nmax_connections_per_ip = 1000\n{door}\n\n\
             [[receive_connector]]\nname = \"filter\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"{FILTER}/32\"]\n\n"
        );
        let inside = send_connector("inside", hop.address, "delivery = \"queue\"");
        let beyond_them = send_connector("beyond", beyond.address, "address_spaces = [{ domain = \"r.test\" }]");
        let domains = domain("c.test", "authoritative", "inside") + &domain("r.test", "internal-relay", "inside");
        network.node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{doors}{domains}{inside}{beyond_them}"));
        network.node.start();
        Self { network, hop, beyond }
    }

    /// A connection from this address; EHLO is said.
    pub(crate) fn from(&self, address: Ipv4Addr) -> Raw {
        Raw::hello_from(address, self.network.node.smtp)
    }

    /// How many refusals were told later.
    pub(crate) fn delayed(&self) -> f64 {
        let of = |door| format!("fingerpost_unknown_recipients_delayed_total{{receive_connector=\"{door}\"}}");
        ["internet", "filter"].into_iter().map(|door| self.network.node.metric(&of(door)).unwrap_or_default()).sum()
    }
}

/// Names unknown recipients over one connection, pipelined, at most 100 a transaction: the codes of the replies to RCPT.
pub(crate) fn names(raw: &mut Raw, recipients: impl Iterator<Item = String>) -> Vec<u16> {
    let mut lines = String::from("RSET\r\nMAIL FROM:<ann@outside.test>\r\n");
    let mut count = 0;
    for recipient in recipients {
        write!(lines, "RCPT TO:<{recipient}>\r\n").unwrap();
        count += 1;
    }
    raw.send(lines.as_bytes());
    assert_eq!((raw.reply().0, raw.reply().0), (250, 250));
    let mut codes = Vec::new();
    while codes.len() < count && codes.last() != Some(&421) && codes.last() != Some(&0) {
        codes.push(raw.reply().0);
    }
    codes
}

/// Sends a message to these, each of whom RCPT takes: the code of the reply to the dot.
pub(crate) fn sends(raw: &mut Raw, number: usize, recipients: &[String]) -> u16 {
    assert_eq!((raw.say("RSET").0, raw.say("MAIL FROM:<ann@outside.test>").0), (250, 250));
    for recipient in recipients {
        assert_eq!(raw.say(&format!("RCPT TO:<{recipient}>")).0, 250, "{recipient}");
    }
    assert_eq!(raw.say("DATA").0, 354);
    raw.say(&format!("Subject: {number}\r\nMessage-ID: <{number}@outside.test>\r\n\r\nHello {number}.\r\n.")).0
}
