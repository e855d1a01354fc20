//! Two pods of the manifest share a queue in a real PostgreSQL: they start from nothing, take a changed ConfigMap without
//! a restart, and leave as `preStop` has them leave.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use support::certificates::Authority;
use support::postgres::{self, Postgres};
use support::senders::Raw;
use support::{free_port, wait_until};

use super::sandbox::Pod;
use super::{list, manifests, of_kind, read, text};

/// How long anything may take that happens by itself.
const SOON: Duration = Duration::from_secs(30);

/// A node in its pod, and where it listens.
struct Node {
    pod: Pod,
    smtp: SocketAddr,
    metrics: SocketAddr,
    configuration: String,
}

impl Node {
    /// A pod of this name whose configuration is that of the manifests, but for what is somewhere else here.
    fn new(name: &str, spec: &Value, database: &str) -> Self {
        let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
        let (smtp, metrics, admin) = (address(), address(), address());
        let configuration = read("fingerpost.toml");
        let directory = between(&configuration, "[[directory]]", "[[send_connector]]");
        let people = "[[directory]]\nname = \"ad\"\nkind = \"file\"\npath = \"people.csv\"\n\n";
        let url = between(&configuration, "database      = ", "\n");
        let mut changed = configuration
            .replace(directory, people)
            .replace(url, &format!("database = \"{database}?sslmode=disable\""))
            .replace("\"exchange.contoso.com\"", "\"[127.0.0.1]:9\"")
            .replace("\"groupwise.contoso.com\"]", "\"[127.0.0.1]:9\"]\ndelivery = \"queue\"")
            .replace("0.0.0.0:2525", &smtp.to_string())
            .replace("metrics_bind = \"0.0.0.0:9925\"", &format!("metrics_bind = \"{metrics}\"\nbind = \"{admin}\""));
        changed.push_str("\n[spool]\nmin_free = \"16MiB\"\n");
        let node = Self { pod: Pod::new(name, spec), smtp, metrics, configuration: changed };
        node.configure(&read("domains.toml"));
        node
    }

    /// Fills the ConfigMap's volume.
    fn configure(&self, domains: &str) {
        let people = "address\nalice@contoso.com\nalice@fabrikam.com\npostmaster@contoso.com\n".to_owned();
        let files = [
            ("fingerpost.toml", self.configuration.clone()),
            ("domains.toml", domains.to_owned()),
            ("people.csv", people),
        ];
        self.pod.fill("configuration", &files);
    }

    /// Fills the Secrets' volumes.
    fn trust(&self, authority: &Authority) {
        let issued = authority.issue(&["mx.contoso.com"]);
        let content = |path| std::fs::read_to_string(path).expect("it was just made");
        let password = || "a password\n".to_owned();
        let files = [
            ("database.password", password()),
            ("database-ca.pem", content(authority.file())),
            ("ad.password", password()),
        ];
        self.pod.fill("secrets", &files);
        self.pod.fill("certificate", &[("tls.crt", content(issued.certificate)), ("tls.key", content(issued.key))]);
    }

    fn start(&mut self, probe: &Value) {
        self.pod.start();
        wait_until("the pod is ready", SOON, || {
            assert_eq!(self.pod.ended(Duration::ZERO), None, "it ended: {}", self.pod.log());
            self.get(text(&probe["httpGet"]["path"])).is_some_and(|(status, _)| status == 200)
        });
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.metrics).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some((answer.split(' ').nth(1)?.parse().ok()?, answer))
    }

    /// The code of the reply to RCPT.
    fn rcpt(&self, to: &str) -> u16 {
        let mut raw = Raw::hello(self.smtp);
        raw.say("MAIL FROM:<ann@outside.test>");
        raw.say(&format!("RCPT TO:<{to}>")).0
    }

    /// What `fingerpost cluster status` says in the pod.
    fn status(&self) -> Value {
        let output = self.pod.exec(&["fingerpost", "cluster", "status", "--format", "json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

/// From the first word to what comes next.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let rest = &text[text.find(from).unwrap_or_else(|| panic!("there is no {from}"))..];
    &rest[..rest[1..].find(to).map_or(rest.len(), |at| at + 1)]
}

/// The names of the nodes that run, and how many messages each has.
fn running(status: &Value) -> Vec<(String, u64)> {
    let nodes = list(&status["nodes"]).iter().filter(|node| !node["running"].is_null());
    nodes
        .map(|node| (text(&node["name"]).to_owned(), node["running"]["messages"].as_u64().expect("a number")))
        .collect()
}

#[test]
fn pods_share_a_queue_reload_and_leave() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can give a process another root and another user.
    }
    let documents = manifests();
    let spec = &of_kind(&documents, "Deployment")[0]["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let folder = postgres::folder();
    let primary = Postgres::primary(folder.path());
    let _standby = primary.standby(folder.path());
    let authority = Authority::new(folder.path());
    let names = ["fingerpost-7d9f8b6c5d-x2x4q", "fingerpost-7d9f8b6c5d-k8zvw"];
    let mut nodes = names.map(|name| Node::new(name, spec, &primary.url()));
    for (node, made) in nodes.iter_mut().zip(["the database has its tables now", "nothing to do"]) {
        node.trust(&authority);
        let output = node.pod.initialize();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains(made), "{output:?}");
        node.start(&container["readinessProbe"]);
        for probe in ["startupProbe", "livenessProbe"] {
            let answer = node.get(text(&container[probe]["httpGet"]["path"]));
            assert_eq!(answer.map(|(status, _)| status), Some(200), "{probe}");
        }
    }
    let [first, other] = &mut nodes;
    let output = first.pod.exec(&["fingerpost", "check"]);
    assert!(output.status.success(), "{output:?}");
    let refused = first.pod.exec(&["touch", "/etc/written"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only"), "{refused:?}");
    assert_eq!(running(&first.status()), names.map(|name| (name.to_owned(), 0)), "{}", first.status());

    a_changed_map_is_taken(first);
    let mut raw = Raw::hello(first.smtp);
    for (line, code) in [
        ("MAIL FROM:<ann@outside.test>", 250),
        ("RCPT TO:<bob@contoso.com>", 250),
        ("DATA", 354),
        ("Subject: one\r\nMessage-ID: <one@outside.test>\r\n\r\nHello.\r\n.", 250),
    ] {
        assert_eq!(raw.say(line).0, code, "{line}");
    }
    assert_eq!(running(&other.status()), [(names[0].to_owned(), 1), (names[1].to_owned(), 0)]);
    leave(first, other, container);
}

/// kubelet swaps a link some time after the ConfigMap has changed.
fn a_changed_map_is_taken(node: &Node) {
    assert_eq!(node.rcpt("alice@fabrikam.com"), 550);
    let domain =
        "\n[[accepted_domain]]\ndomain = \"fabrikam.com\"\ntype = \"authoritative\"\ndeliver_to = \"exchange\"\n";
    for (domains, applied) in [(format!("{}{domain}", read("domains.toml")), 1), (read("domains.toml"), 2)] {
        node.configure(&domains);
        let series = format!("fingerpost_config_reloads_total{{result=\"applied\"}} {applied}\n");
        wait_until("the change is taken", SOON, || {
            node.get("/metrics").is_some_and(|(_, text)| text.contains(&series))
        });
        assert_ne!(node.rcpt("alice@fabrikam.com"), 550, "it is known, or was a moment ago");
    }
}

/// `preStop`: the other node takes the mail over. The last one is not let go by it, and is stopped by SIGTERM.
fn leave(first: &mut Node, last: &mut Node, container: &Value) {
    let hook = list(&container["lifecycle"]["preStop"]["exec"]["command"]).iter().map(text);
    let hook: Vec<_> =
        hook.map(|word| if word.ends_with('s') && word.starts_with('1') { "0s" } else { word }).collect();
    assert!(hook.contains(&"0s"), "{hook:?}");
    let output = first.pod.exec(&hook);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(first.pod.ended(SOON), Some(0), "{}", first.pod.log());
    wait_until("the mail is taken over", SOON, || running(&last.status()).iter().all(|(_, messages)| *messages == 1));
    assert_eq!(running(&last.status()).len(), 1);

    let output = last.pod.exec(&hook);
    assert!(!output.status.success(), "{output:?}");
    last.pod.terminate();
    assert_eq!(last.pod.ended(SOON), Some(0), "{}", last.pod.log());
}
