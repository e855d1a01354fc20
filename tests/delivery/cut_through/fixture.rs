//! What all tests of cut-through have in common: send connectors that say nothing of `delivery`, a domain on two of them, and
//! a client's conversation step by step.

use std::net::{Ipv4Addr, SocketAddr};

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::{Raw, SmtpReply};
use support::tables::send_connector;
use support::test_network::{BY_HAND, PEOPLE, TestNetwork};

/// A client of the organisation that the senders' connector has: no stranger.
pub(crate) const STAFF: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// The door of [`STAFF`].
pub(crate) const STAFF_DOOR: &str = "[[receive_connector]]\nname = \"staff\"\nbind = [\"{smtp}\"]\n\
                                     remote_networks = [\"127.0.0.9/32\"]\norganization = \"senders\"\n\n";

/// A send connector with further lines; it delivers as a connector does that does not say how.
pub(crate) fn connector_to(name: &str, to: SocketAddr, more: &str) -> String {
    send_connector(name, to, &format!("organization = \"{name}\"\n{BY_HAND}\n{more}"))
}

/// The lines of a connector that serves a domain's unresolved recipients.
pub(crate) fn address_space(domain: &str) -> String {
    format!("address_spaces = [{{ domain = \"{domain}\" }}]")
}

/// A domain on two systems.
pub(crate) fn shared_domain(domain: &str, primary: &str) -> String {
    support::test_network::domain(domain, "internal-relay", primary)
}

/// `c.test` on `primary`, which has the recipients of the directory, and `secondary`, which has all others.
pub(crate) struct TwoHops {
    pub(crate) network: TestNetwork,
    pub(crate) primary: ScriptedSmtpServer,
    pub(crate) secondary: ScriptedSmtpServer,
}

/// Resolved recipients of `c.test`; all other addresses of it are unresolved.
pub(crate) const RESOLVED: usize = 250;

impl TwoHops {
    /// Both next hops with their scripts, and further lines for both connectors.
    pub(crate) fn start(primary: &str, secondary: &str, more: &str) -> Self {
        let mut network = TestNetwork::prepare();
        let (primary, secondary) = (network.hop(primary), network.hop(secondary));
        let people: String = (0..RESOLVED).map(|number| format!("p{number}@c.test\n")).collect();
        network.node.write("people.csv", &format!("address\n{people}"));
        network.start(&format!(
            "{PEOPLE}{STAFF_DOOR}{}{}{}",
            connector_to("primary", primary.address, more),
            connector_to("secondary", secondary.address, &format!("{}\n{more}", address_space("c.test"))),
            shared_domain("c.test", "primary")
        ));
        Self { network, primary, secondary }
    }

    /// Whether the next hop of that connector is held to be up: 1.
    pub(crate) fn up(&self, name: &str) -> Option<f64> {
        let hop = if name == "primary" { &self.primary } else { &self.secondary };
        let (ip, port) = (hop.address.ip(), hop.address.port());
        let metric = format!("fingerpost_next_hop_up{{send_connector=\"{name}\",smart_host=\"[{ip}]:{port}\"}}");
        self.network.node.metric(&metric)
    }

    /// A stranger's connection.
    pub(crate) fn stranger(&self) -> Raw {
        Raw::hello(self.network.node.smtp)
    }
}

/// One line and the reply that it must get: how it begins. Returns the reply.
pub(crate) fn say(raw: &mut Raw, line: &str, expected: &str) -> String {
    let (_, text) = raw.say(line);
    assert!(text.starts_with(expected), "{line}: {text:?}, expected {expected:?}");
    text
}

/// A message of this many bytes or a little more, with a Message-ID and a Date; CRLF line ends.
pub(crate) fn letter(id: &str, size: usize) -> String {
    let line = "A line of a message as people write them: not long, not short.\r\n";
    format!(
        "From: <ann@outside.test>\r\nSubject: {id}\r\nDate: Sat, 21 Nov 2026 04:39:00 +0000\r\n\
         Message-ID: <{id}@outside.test>\r\n\r\nHello.\r\n{}",
        line.repeat(size / line.len())
    )
}

/// MAIL, each RCPT (all must be accepted) and DATA.
pub(crate) fn envelope(raw: &mut Raw, from: &str, to: &[&str]) {
    say(raw, &format!("MAIL FROM:<{from}>"), "250");
    to.iter().for_each(|to| drop(say(raw, &format!("RCPT TO:<{to}>"), "250")));
    say(raw, "DATA", "354");
}

/// Whether a reply is the one expected: alternatives are separated by `|`; each is how it begins and, behind ` ... `,
/// the next hop's words, which come with the organisation's name.
pub(crate) fn is_expected(said: &SmtpReply, expected: &str, organization: &str) -> bool {
    let text = said.1.replace("\r\n", " ");
    expected.split('|').any(|one| match one.split_once(" ... ") {
        None => text.starts_with(one),
        Some((codes, words)) => text.starts_with(codes) && text.contains(words) && text.contains(organization),
    })
}
