//! The program with scripted next hops around it, and a sink where every report arrives.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Authority;
use crate::scripted_smtp_server::ScriptedSmtpServer;
use crate::senders::Raw;
use crate::sink::Sink;
use crate::tables::{self, BASE_TABLES, send_connector};
use crate::test_node::TestNode;
use crate::wait_until;

/// How long anything may take that happens by itself.
pub const SOON: Duration = Duration::from_secs(20);

/// The program, scripted next hops, and everybody's senders.
pub struct TestNetwork {
    /// Fingerpost; `start` begins it.
    pub node: TestNode,
    /// All mail to the outside: the reports.
    pub senders: Sink,
    runtime: Runtime,
    configuration: String,
    sent: AtomicUsize,
}

/// A report that a sender got.
#[derive(Debug, Clone)]
pub struct Report {
    text: String,
}

impl TestNetwork {
    /// A network without next hops yet.
    pub fn prepare() -> Self {
        let runtime = Runtime::new().unwrap();
        let senders = Sink::start(Ipv4Addr::new(127, 0, 0, 4));
        Self { node: TestNode::prepare(), senders, runtime, configuration: String::new(), sent: AtomicUsize::new(0) }
    }

    /// A next hop that follows a script (`support/scripted_smtp_server.rs`).
    pub fn hop(&self, script: &str) -> ScriptedSmtpServer {
        self.runtime.block_on(ScriptedSmtpServer::start(script, None))
    }

    /// The same on a listener.
    pub fn hop_on(&self, listener: TcpListener, script: &str) -> ScriptedSmtpServer {
        listener.set_nonblocking(true).unwrap();
        let _runtime = self.runtime.enter();
        ScriptedSmtpServer::on(tokio::net::TcpListener::from_std(listener).unwrap(), script, None)
    }

    /// The same with TLS, where the script offers it.
    pub fn tls_hop(&self, script: &str) -> ScriptedSmtpServer {
        let tls = acceptor(self.node.folder());
        self.runtime.block_on(ScriptedSmtpServer::start(script, Some(tls)))
    }

    /// Starts the program with these tables beside what every network has: a door, and the senders' connector.
    pub fn start(&mut self, tables: &str) {
        self.configuration =
            format!("{BASE_TABLES}{DOOR}{}{tables}", connector("senders", self.senders.address(), SENDERS));
        self.node.write("fingerpost.toml", &self.configuration);
        self.node.start();
    }

    /// Replaces a piece of the configuration, which must be there, and has it taken over; returns the old text.
    pub fn reconfigure(&mut self, old: &str, new: &str) -> String {
        assert!(self.configuration.contains(old), "the configuration has no {old:?}");
        let changed = self.configuration.replace(old, new);
        self.apply(changed)
    }

    /// Has this configuration taken over; returns the one before.
    pub fn apply(&mut self, configuration: String) -> String {
        self.node.write("fingerpost.toml", &configuration);
        let reload = self.node.run(&["reload", "--accept"]);
        assert!(reload.status.success(), "{reload:?}");
        std::mem::replace(&mut self.configuration, configuration)
    }

    /// Sends one message, which must be accepted for all.
    pub fn send(&self, from: &str, to: &[&str]) {
        let to: Vec<String> = to.iter().map(|to| format!("<{to}>")).collect();
        self.send_with(&format!("<{from}>"), &to.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// The same; sender and recipients with their brackets and parameters.
    pub fn send_with(&self, from: &str, to: &[&str]) {
        let mut raw = Raw::hello(self.node.smtp);
        let mut say = |line: &str, code| {
            let said = raw.say(line);
            assert_eq!(said.0, code, "{line}: {}", said.1);
        };
        say(&format!("MAIL FROM:{from}"), 250);
        to.iter().for_each(|to| say(&format!("RCPT TO:{to}"), 250));
        say("DATA", 354);
        let number = self.sent.fetch_add(1, Ordering::SeqCst);
        // Each is another message: the same content again and again is a loop.
        let fields =
            format!("From: <ann@outside.test>\r\nSubject: hello {number}\r\nDate: Sat, 21 Nov 2026 04:39:00 +0000");
        say(&format!("{fields}\r\nMessage-ID: <{number}@outside.test>\r\n\r\nHello.\r\n."), 250);
    }

    /// The reply to a RCPT from a stranger.
    pub fn rcpt(&self, to: &str) -> String {
        let mut raw = Raw::hello(self.node.smtp);
        raw.say("MAIL FROM:<ann@outside.test>");
        raw.say(&format!("RCPT TO:<{to}>")).1
    }

    /// What `fingerpost queue list --format json` shows: each queued recipient, with its message's `id` and `sender`.
    pub fn queue(&self) -> Vec<Value> {
        let listed = self.node.run(&["queue", "list", "--format", "json"]);
        assert!(listed.status.success(), "{listed:?}");
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let messages = listed["messages"].as_array().unwrap().clone();
        messages.iter().flat_map(recipients).collect()
    }

    /// How one recipient stands in the queue; nothing: it is not there.
    pub fn standing(&self, address: &str) -> Option<Value> {
        self.queue().into_iter().find(|recipient| recipient["address"] == address)
    }

    /// Waits until a recipient waits in the queue with these words; returns how it stands.
    pub fn waits(&self, address: &str, words: &str) -> Value {
        let mut shown = Value::Null;
        wait_until(&format!("{address} waits with {words:?}"), SOON, || {
            shown = self.standing(address).unwrap_or_default();
            shown["state"] == "waiting" && shown["last_error"].as_str().is_some_and(|error| error.contains(words))
        });
        shown
    }

    /// `fingerpost queue retry --all`, until nothing is left. A next hop that was just down is left alone for a second.
    pub fn deliver(&self) {
        wait_until("an empty queue", SOON, || {
            let retry = self.node.run(&["queue", "retry", "--all"]);
            assert!(retry.status.success(), "{retry:?}");
            std::thread::sleep(Duration::from_millis(100));
            self.queue().is_empty()
        });
    }

    /// Waits until the queue is empty by itself.
    pub fn quiet(&self) {
        wait_until("an empty queue", SOON, || self.queue().is_empty());
    }

    /// The reports that a sender got.
    pub fn reports(&self, sender: &str) -> Vec<Report> {
        let to_text = |bytes: &[u8]| Report { text: String::from_utf8_lossy(bytes).replace("\r\n ", " ") };
        self.senders.for_address(sender).iter().map(|sunk| to_text(&sunk.bytes)).collect()
    }

    /// Retries all once; returns when every recipient that waits has had an attempt since.
    pub fn retry(&self) {
        let attempts = || -> u64 { self.queue().iter().filter_map(|recipient| recipient["attempts"].as_u64()).sum() };
        let before = attempts();
        let waiting = self.queue().iter().filter(|recipient| recipient["state"] == "waiting").count() as u64;
        let retry = self.node.run(&["queue", "retry", "--all"]);
        assert!(retry.status.success(), "{retry:?}");
        wait_until("an attempt", SOON, || attempts() >= before + waiting);
    }

    /// The log, when nothing was added to it for a moment.
    fn settled_log(&self) -> String {
        let mut log = self.node.log();
        for _ in 0..40 {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let now = self.node.log();
            if now == log {
                break;
            }
            log = now;
        }
        log
    }

    /// The log's lines that somebody has to look at and that have these words.
    pub fn alerts(&self, words: &str) -> usize {
        // Nobody waits for the log: it is written a moment later.
        let log = self.settled_log();
        log.lines().filter(|line| line.contains("alert=true") && line.contains(words)).count()
    }
}

impl Report {
    /// The values of all fields of that name in any of its parts, unfolded.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let value = |line: &'_ str| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then(|| line.len() - value.len())
        };
        self.text.split("\r\n").filter_map(|line| value(line).map(|at| &line[at..])).collect()
    }

    /// Whether the words are in it.
    pub fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }
}

/// The recipients of a listed message, each with its message's id and sender.
fn recipients(message: &Value) -> Vec<Value> {
    let with_message = |recipient: &Value| {
        let mut recipient = recipient.clone();
        recipient["id"] = message["id"].clone();
        recipient["sender"] = message["sender"].clone();
        recipient
    };
    message["recipients"].as_array().unwrap().iter().map(with_message).collect()
}

/// A send connector that queues, with further lines.
pub fn connector(name: &str, to: SocketAddr, more: &str) -> String {
    send_connector(name, to, &format!("organization = \"{name}\"\ndelivery = \"queue\"\n{more}"))
}

/// An accepted domain.
pub fn domain(name: &str, kind: &str, deliver_to: &str) -> String {
    format!("[[accepted_domain]]\ndomain = \"{name}\"\ntype = \"{kind}\"\ndeliver_to = \"{deliver_to}\"\n\n")
}

/// `people.csv` as the directory.
pub const PEOPLE: &str = tables::PEOPLE;

/// Only `fingerpost queue retry` brings the next attempt.
pub const BY_HAND: &str = "retry = { first = \"1h\", max = \"1h\" }";

const SENDERS: &str = "address_spaces = [{ domain = \"*\" }]\nretry = { first = \"1s\", factor = 1.0, max = \"1s\" }";

const DOOR: &str = r#"
[[receive_connector]]
name            = "internet"
bind            = ["{smtp}"]
remote_networks = ["127.0.0.0/8"]
max_connections_per_ip = 1000
# All who come here have one address, and some look for others'.
limits = { unknown_recipients = 0 }

[reports]
from       = "postmaster@contoso.test"
deliver_to = "senders"

"#;

fn acceptor(folder: &Path) -> TlsAcceptor {
    let issued = Authority::new(folder).issue(&["127.0.0.1"]);
    let certificate = CertificateDer::from_pem_file(&issued.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&issued.key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
