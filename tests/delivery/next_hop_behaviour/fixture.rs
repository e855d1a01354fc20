//! A Postfix behind the program, as the mail system of all users of its domains, and clients that send there.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use crate::cut_through::fixture::{connector_to, letter, shared_domain};
use support::mail::Mail;
use support::postfix::{Postfix, Setup, later_wins};
use support::senders::{Letter, Raw, SmtpReply};
use support::test_network::{PEOPLE, SOON, TestNetwork};
use support::wait_until;

/// So many `p` and `s` users each domain has.
pub(crate) const USERS: usize = 60;

const SENDER: &str = "ann@outside.test";

/// How the Postfix behaves.
#[derive(Default)]
pub(crate) struct PostfixBehaviour<'a> {
    /// The program's domains; Postfix is a relay for the first.
    pub(crate) domains: &'a [&'a str],
    /// Further lines of main.cf.
    pub(crate) main_cf: &'a str,
    /// Further lines of both connectors.
    pub(crate) lines: &'a str,
}

/// The program and the Postfix.
pub(crate) struct PostfixSetup {
    pub(crate) network: TestNetwork,
    pub(crate) postfix: Postfix,
    main_cf: String,
}

impl PostfixSetup {
    /// With `c.test` alone.
    pub(crate) fn start(main_cf: &str, lines: &str) -> Self {
        Self::start_with(&PostfixBehaviour { domains: &["c.test"], main_cf, lines })
    }

    pub(crate) fn start_with(behaviour: &PostfixBehaviour<'_>) -> Self {
        let mut network = TestNetwork::prepare();
        let users = |kind: &str| -> Vec<String> {
            let of = |domain: &&str| (0..USERS).map(|user| format!("{kind}{user}@{domain}")).collect::<Vec<_>>();
            behaviour.domains.iter().flat_map(of).collect()
        };
        let (resolved, unresolved) = (users("p"), users("s"));
        let known: Vec<&str> = resolved.iter().chain(&unresolved).map(String::as_str).collect();
        let unknown = "relay_recipient_maps = texthash:$virtual_mailbox_base/../etc/mailboxes";
        let postfix = Postfix::start(&Setup {
            name: "hop.test",
            ip: Ipv4Addr::new(127, 0, 0, 3),
            domains: &behaviour.domains[..1],
            known: &known,
            unknown_to: network.senders.address(),
            others_to: network.senders.address(),
            extra: &format!("{unknown}\n{}", behaviour.main_cf),
        });
        let main_cf = fs::read_to_string(postfix.configuration().join("main.cf")).unwrap();
        network.node.write("people.csv", &format!("address\n{}\n", resolved.join("\n")));
        let spaces: Vec<String> = behaviour.domains.iter().map(|name| format!("{{ domain = \"{name}\" }}")).collect();
        let secondary = format!("address_spaces = [{}]\n{}", spaces.join(", "), behaviour.lines);
        let domains: String = behaviour.domains.iter().map(|name| shared_domain(name, "primary")).collect();
        network.start(&format!(
            "{PEOPLE}{}{}{domains}",
            connector_to("primary", postfix.address(), behaviour.lines),
            connector_to("secondary", postfix.address(), &secondary)
        ));
        Self { network, postfix, main_cf }
    }

    /// From now on the Postfix has these lines in main.cf besides those that it was started with.
    pub(crate) fn becomes(&self, main_cf: &str) {
        let main_cf = later_wins(&format!("{}{main_cf}\n", self.main_cf));
        fs::write(self.postfix.configuration().join("main.cf"), main_cf).unwrap();
        self.postfix.restart();
    }

    /// The program's door.
    pub(crate) fn door(&self) -> SocketAddr {
        self.network.node.smtp
    }

    /// One message over a connection of its own.
    pub(crate) fn sends(&self, id: &str, to: &[&str]) -> Heard {
        sends(self.door(), id, to)
    }

    /// Waits until a mailbox has this message, once.
    pub(crate) fn has(&self, to: &str, id: &str) {
        let id = format!("<{id}@outside.test>");
        let is_it = |mail: &Mail| mail.mailbox == to && mail.field("Message-ID").as_deref() == Some(&id);
        wait_until(&format!("{id} for {to}"), SOON, || {
            let copies = self.postfix.mails().iter().filter(|mail| is_it(mail)).count();
            assert!(copies < 2, "{copies} copies of {id} for {to}");
            copies == 1
        });
    }

    /// Neither connector holds the Postfix to be down.
    pub(crate) fn is_up(&self) {
        for connector in ["primary", "secondary"] {
            is_up(&self.network, connector, self.postfix.address());
        }
    }

    /// Nothing waits, and nobody was told anything.
    pub(crate) fn nothing_is_left(&self) {
        nothing_is_left(&self.network);
    }
}

/// What a client heard.
#[derive(Debug)]
pub(crate) struct Heard {
    /// To MAIL.
    pub(crate) mail: SmtpReply,
    /// To each RCPT.
    pub(crate) rcpt: Vec<SmtpReply>,
    /// To the final dot, or to DATA where that was refused. Nothing: no recipient was accepted.
    pub(crate) dot: Option<SmtpReply>,
}

impl Heard {
    /// The last word about its only recipient.
    pub(crate) fn last(&self) -> &str {
        let refused = [&self.mail].into_iter().chain(&self.rcpt).find(|said| said.0 != 250);
        &refused.or(self.dot.as_ref()).expect("no refusal, so there was a dot").1
    }

    /// The code of each RCPT's reply.
    pub(crate) fn codes(&self) -> Vec<u16> {
        self.rcpt.iter().map(|said| said.0).collect()
    }

    /// How the message went, which somebody was accepted for.
    pub(crate) fn dot(&self) -> &str {
        &self.dot.as_ref().unwrap_or_else(|| panic!("nobody was accepted: {self:?}")).1
    }

    /// All are accepted, and the message is delivered.
    pub(crate) fn is_delivered(&self) {
        assert!(
            self.rcpt.iter().all(|said| said.0 == 250) && self.dot().starts_with("250 2.0.0 delivered"),
            "{self:?}"
        );
    }
}

/// Sends one message over a connection of its own.
pub(crate) fn sends(door: SocketAddr, id: &str, to: &[&str]) -> Heard {
    sends_over(&mut Raw::hello(door), id, to)
}

/// The same over this one.
pub(crate) fn sends_over(raw: &mut Raw, id: &str, to: &[&str]) -> Heard {
    sends_much(raw, id, to, 0)
}

/// The same, so many octets of it.
pub(crate) fn sends_much(raw: &mut Raw, id: &str, to: &[&str], size: usize) -> Heard {
    let text = letter(id, size);
    let (mut replies, dot) = raw.transact(&Letter { from: SENDER, to, bytes: text.as_bytes() }, "");
    let mail = replies.remove(0);
    Heard { mail, rcpt: replies, dot }
}

/// MAIL and all RCPTs at once, then the message if anybody was accepted.
pub(crate) fn sends_pipelined(raw: &mut Raw, id: &str, to: &[&str]) -> Heard {
    let recipients: String = to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
    raw.send(format!("MAIL FROM:<{SENDER}>\r\n{recipients}").as_bytes());
    let mail = raw.reply();
    let rcpt: Vec<SmtpReply> = to.iter().map(|_| raw.reply()).collect();
    let dot = rcpt.iter().any(|said| said.0 == 250).then(|| {
        let said = raw.say("DATA");
        if said.0 == 354 { raw.say(&format!("{}.", letter(id, 0))) } else { said }
    });
    Heard { mail, rcpt, dot }
}

/// Users of a domain, by their numbers.
pub(crate) fn users(kind: &str, numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{kind}{number}@c.test")).collect()
}

/// The list as it is handed on.
pub(crate) fn all(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

/// The connector does not hold this host to be down.
pub(crate) fn is_up(network: &TestNetwork, connector: &str, host: SocketAddr) {
    let up = network.node.metric(&series("fingerpost_next_hop_up", connector, host));
    assert_eq!(up, Some(1.0), "{connector} is marked down");
}

/// How many connections the connector allows itself to this host.
pub(crate) fn allowed(network: &TestNetwork, connector: &str, host: SocketAddr) -> f64 {
    network.node.metric(&series("fingerpost_next_hop_connections_allowed", connector, host)).expect("it has been used")
}

fn series(name: &str, connector: &str, host: SocketAddr) -> String {
    format!("{name}{{send_connector=\"{connector}\",smart_host=\"[{}]:{}\"}}", host.ip(), host.port())
}

/// Nothing waits, and nobody was told anything.
pub(crate) fn nothing_is_left(network: &TestNetwork) {
    assert!(network.queue().is_empty(), "{:?}", network.queue());
    assert!(network.senders.all().is_empty(), "somebody was told something: {:?}", network.senders.all());
}
