//! A node between two systems, which are sinks: for tests that count copies under load rather than look at real mail systems.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use super::senders::{Letter, Raw};
use super::sink::{Sink, Sunk};
use super::test_node::TestNode;

/// The node and its two organisations.
pub struct TwoSystems {
    /// Fingerpost: `known0@` to `known99@contoso.test` are the primary's.
    pub node: TestNode,
    /// The primary organisation.
    pub primary: Sink,
    /// The secondary organisation.
    pub secondary: Sink,
}

/// A file directory with 100 recipients.
pub const FILE_DIRECTORY: &str = "[[directory]]\nname = \"people\"\nkind = \"file\"\npath = \"recipients.csv\"\n";

impl TwoSystems {
    /// Prepares the node; `directory` is the `[[directory]]` to use. Call `node.start()` next.
    pub fn prepare(directory: &str) -> Self {
        let primary = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
        let secondary = Sink::start(Ipv4Addr::new(127, 0, 0, 3));
        let node = TestNode::prepare();
        let recipients: String = (0..100).map(|n| format!("known{n}@contoso.test\n")).collect();
        node.write("recipients.csv", &format!("address\n{recipients}"));
        node.write("fingerpost.toml", &configuration(directory, primary.address(), secondary.address()));
        node.write("domains.d/domains.toml", DOMAINS);
        Self { node, primary, secondary }
    }

    /// How often each token arrived, at either side.
    pub fn copies(&self) -> HashMap<String, usize> {
        let mut copies = HashMap::new();
        for sunk in self.primary.all().iter().chain(&self.secondary.all()) {
            *copies.entry(token(sunk)).or_insert(0) += sunk.to.len();
        }
        copies
    }
}

/// `domains.d/domains.toml`: one shared domain, one authoritative.
pub const DOMAINS: &str = "[[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\n\
     deliver_to = \"primary\"\n\n\
     [[accepted_domain]]\ndomain = \"fabrikam.test\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n";

fn configuration(directory: &str, primary: SocketAddr, secondary: SocketAddr) -> String {
    let retry = "{ first = \"1s\", factor = 1.0, max = \"1s\" }";
    format!(
        "[server]\nhostname = \"mx.contoso.test\"\nstate_dir = \"{{folder}}/state\"\ninclude = [\"domains.d/*.toml\"]\n\
         drain_timeout = \"2s\"\n\n\
         [admin]\nmetrics_bind = \"{{metrics}}\"\nbind = \"{{admin}}\"\n\n\
         [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\
         max_connections_per_ip = 1000\n\n\
         [[send_connector]]\nname = \"primary\"\norganization = \"primary\"\nsmart_hosts = [\"[{}]:{}\"]\n\
         delivery = \"queue\"\nretry = {retry}\n\n\
         [[send_connector]]\nname = \"secondary\"\norganization = \"secondary\"\nsmart_hosts = [\"[{}]:{}\"]\n\
         delivery = \"queue\"\naddress_spaces = [{{ domain = \"contoso.test\" }}, {{ domain = \"fabrikam.test\" }}]\nretry = {retry}\n\n\
         [spool]\nmin_free = \"16MiB\"\n\n{directory}\n",
        primary.ip(),
        primary.port(),
        secondary.ip(),
        secondary.port()
    )
}

/// The token of a message: its X-Token field.
pub fn token(sunk: &Sunk) -> String {
    let text = String::from_utf8_lossy(&sunk.bytes);
    let value = text.lines().find_map(|line| line.strip_prefix("X-Token: "));
    value.unwrap_or_default().trim_end().to_owned()
}

/// A message of about `size` bytes with that token.
pub fn message(token: &str, size: usize) -> Vec<u8> {
    let line = format!("{}\r\n", "x".repeat(70));
    let body = line.repeat(size / line.len() + 1);
    format!(
        "From: s@sender.test\r\nTo: r@contoso.test\r\nSubject: {token}\r\nMessage-ID: <{token}@sender.test>\r\n\
         Date: Sat, 21 Nov 2026 04:39:00 +0000\r\nX-Token: {token}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends one message to one recipient; whether it got 250 at the final dot. Any broken connection is a no.
pub fn accepted(raw: &mut Raw, to: &str, bytes: &[u8]) -> bool {
    let letter = Letter { from: "s@sender.test", to: &[to], bytes };
    matches!(raw.transact(&letter, ""), (_, Some((250, _))))
}
