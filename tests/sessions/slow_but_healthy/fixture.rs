//! The program between two sides that share a domain, and mail from ten clients to healthy recipients of both.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::{Letter, Raw, SmtpReply};
use support::test_network::{PEOPLE, SOON, TestNetwork, domain};
use support::test_node::TestNode;
use support::{tables, wait_until, within};

/// Users on each side.
pub(crate) const USERS: usize = 40;
const CLIENTS: usize = 10;

/// Fingerpost, and the primary and the secondary behind it.
pub(crate) struct HealthySystems {
    pub(crate) network: TestNetwork,
    /// The primary, the secondary.
    pub(crate) hops: [ScriptedSmtpServer; 2],
    /// A smart host that both connectors have before their own.
    pub(crate) beside: Option<SocketAddr>,
    sent: AtomicUsize,
}

/// A measured client's address, or (from 20 on) a stranger's.
pub(crate) fn client(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 101 + u8::try_from(number).unwrap())
}

impl HealthySystems {
    /// Next hops that follow these scripts; `go` starts the program.
    pub(crate) fn prepare(scripts: [&str; 2]) -> Self {
        let network = TestNetwork::prepare();
        let hops = scripts.map(|script| network.hop(script));
        Self { network, hops, beside: None, sent: AtomicUsize::new(0) }
    }

    /// The same, and the program is up; `lines` are further lines of both connectors.
    pub(crate) fn start(scripts: [&str; 2], lines: &str) -> Self {
        let mut systems = Self::prepare(scripts);
        systems.go("", lines);
        systems
    }

    /// Starts the program with these tables besides, and these lines in both connectors.
    pub(crate) fn go(&mut self, more: &str, lines: &str) {
        let people: String = (0..USERS).map(|n| format!("p{n}@contoso.test\n")).collect();
        self.network.node.write("people.csv", &format!("address\n{people}"));
        let connector = |name: &str, at: usize, space: &str| {
            let own = self.hops[at].address;
            let text = tables::send_connector(name, own, &format!("organization = \"{name}\"\n{space}{lines}"));
            let written = |host: SocketAddr| format!("\"[{}]:{}\"", host.ip(), host.port());
            let hosts = self.beside.into_iter().chain([own]).map(written).collect::<Vec<_>>().join(", ");
            text.replace(&format!("[{}]", written(own)), &format!("[{hosts}]"))
        };
        let primary = connector("primary", 0, "");
        let secondary = connector("secondary", 1, "address_spaces = [{ domain = \"contoso.test\" }]\n");
        let domain = domain("contoso.test", "internal-relay", "primary");
        self.network.start(&format!("{PEOPLE}{domain}{primary}{secondary}{more}"));
    }

    /// The program.
    pub(crate) fn node(&self) -> &TestNode {
        &self.network.node
    }

    /// Ten clients at once send so many messages each to both sides, one after another; none hears anything but 2xx.
    pub(crate) fn load(&self, each: usize) {
        let wrong = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let wrong = &wrong;
                scope.spawn(move || {
                    for _ in 0..each {
                        for heard in ["p", "s"].map(|side| self.send(number, side)) {
                            wrong.lock().unwrap().extend(heard);
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "{} of {}: {wrong:?}", wrong.len(), 2 * each * CLIENTS);
    }

    /// Sends one message over a connection of its own: what was heard besides 2xx and 354.
    fn send(&self, from: usize, side: &str) -> Vec<SmtpReply> {
        let number = self.sent.fetch_add(1, Ordering::SeqCst);
        let mut raw = Raw::connect_from(client(from), self.node().smtp);
        let hello = [raw.reply(), raw.say("EHLO sender.test")];
        let to = format!("{side}{}@contoso.test", number % USERS);
        let bytes = format!("Message-ID: <{number}@outside.test>\r\nX-Healthy: {number}\r\n\r\nHello.\r\n");
        let letter = Letter { from: "ann@outside.test", to: &[&to], bytes: bytes.as_bytes() };
        let (replies, last) = raw.transact(&letter, "");
        let heard = hello.into_iter().chain(replies).chain(last);
        heard.filter(|(code, _)| code / 100 != 2).collect()
    }

    /// Everything that was sent is at its side once, and nothing else is.
    pub(crate) fn all_arrived(&self) {
        self.all_arrived_beside(0);
    }

    /// The same beside so many messages of strangers.
    pub(crate) fn all_arrived_beside(&self, strangers: usize) {
        let sent = self.sent.load(Ordering::SeqCst);
        let arrived = || self.hops.iter().map(|hop| hop.contents().len()).sum::<usize>();
        if !within(SOON / 4, || arrived() >= sent + strangers) {
            self.network.deliver(); // what was queued
        }
        wait_until("all messages", SOON, || arrived() >= sent + strangers);
        self.network.quiet();
        let mut copies = BTreeMap::new();
        for content in self.hops.iter().flat_map(ScriptedSmtpServer::contents) {
            let text = String::from_utf8_lossy(&content).into_owned();
            let number = text.lines().find_map(|line| line.strip_prefix("X-Healthy: ")).map(str::to_owned);
            *copies.entry(number).or_insert(0) += 1;
        }
        assert_eq!(copies.remove(&None).unwrap_or(0), strangers);
        assert!(copies.len() == sent && copies.values().all(|copies| *copies == 1), "{sent} were sent: {copies:?}");
    }
}
