//! Metrics, dashboard and rules against a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fingerpost::config::check::load_text;
use fingerpost::metrics::Metrics;
use serde_json::Value;
use support::senders::Raw;
use support::two_systems::{FILE_DIRECTORY, TwoSystems, accepted, message};
use support::{free_port, wait_for_port, wait_until};
use tempfile::TempDir;

const RULES: &str = "grafana/fingerpost.rules.yml";
const DASHBOARD: &str = "grafana/fingerpost.json";
/// In `conf/minimal.toml`: a connector's smart host, and the labels of its series.
const SMART_HOST: &str = "smart_hosts  = [\"exchange.contoso.local\"]";
const HOST: [&str; 2] = ["exchange", "exchange.contoso.local"];
/// Nobody listens at the discard port.
const UNREACHABLE: &str = "[[directory]]\nname = \"ad\"\nurls = [\"ldap://127.0.0.1:9\"]\nbase = [\"DC=contoso,DC=test\"]\n\
                           probe = \"postmaster@contoso.test\"\ndomains = [\"apart.test\"]\n";

#[test]
fn the_rules_are_valid_and_fire_on_what_they_are_for() {
    for arguments in [["check", "rules", RULES], ["test", "rules", "tests/operation/prometheus/rules_test.yml"]] {
        let output =
            Command::new("promtool").args(arguments).current_dir(root()).output().expect("promtool is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
}

#[test]
fn every_series_of_dashboard_and_rules_is_there_from_the_start() {
    let mut systems = TwoSystems::prepare(&format!("{FILE_DIRECTORY}{UNREACHABLE}"));
    let apart = "[[accepted_domain]]\ndomain = \"apart.test\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n";
    systems.node.write("domains.d/apart.toml", apart);
    systems.node.start();
    let (_, exposed) = systems.node.get("/metrics").expect("it answers");
    let names: BTreeSet<&str> = exposed.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let used = used_names();
    assert!(used.len() > 15, "only {} names found in dashboard and rules", used.len());
    // Certificates and directories' kinds have no series where there is no certificate or no such entry.
    let missing: Vec<&String> =
        used.iter().filter(|name| !names.contains(name.as_str()) && !name.contains("certificate")).collect();
    assert!(missing.is_empty(), "not exposed before the first message: {missing:?}");
}

/// `FingerpostNextHopTakesFewer` compares the two gauges: they differ only while a next hop refuses connections.
#[test]
fn what_next_hops_take_is_compared_with_what_is_configured() {
    let metrics = Metrics::new();
    let configured = |limit: u32| {
        let text = read("conf/minimal.toml").replace(SMART_HOST, &format!("{SMART_HOST}\nmax_connections = {limit}"));
        metrics.prepare(&load_text(&text, Path::new("/etc/fingerpost/fingerpost.toml")).expect("it loads"));
    };
    let gauges = [&metrics.next_hop_connections_allowed, &metrics.next_hop_connections_max];
    let shown = || gauges.map(|gauge| gauge.with_label_values(&HOST).get());
    // How many are configured, then how many the host takes; what is shown.
    for (limit, takes, expected) in [
        (20, None, [20, 20]),
        (40, None, [40, 40]),
        (10, None, [10, 10]),
        (20, Some(4), [4, 20]),
        (40, None, [4, 40]),
        (40, Some(40), [40, 40]),
        (40, Some(20), [20, 40]),
        (8, None, [8, 8]),
        // The connector was made smaller, and nobody has sent since.
        (8, Some(20), [8, 8]),
    ] {
        configured(limit);
        if let Some(takes) = takes {
            metrics.show_allowed(HOST, takes);
        }
        assert_eq!(shown(), expected, "{limit} {takes:?}");
    }
    // Found by MX: no series, and none that says that it is down.
    metrics.show_allowed([HOST[0], "mx1.example"], 3);
    assert!(!metrics.encode().contains("mx1.example"));
}

#[test]
fn a_real_prometheus_scrapes_it_and_answers_every_query_of_the_dashboard() {
    let people = FILE_DIRECTORY.trim_end();
    let mut systems =
        TwoSystems::prepare(&format!("{people}\ndomains = [\"contoso.test\", \"fabrikam.test\"]\n{UNREACHABLE}"));
    let apart = "[[accepted_domain]]\ndomain = \"apart.test\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n";
    systems.node.write("domains.d/apart.toml", apart);
    systems.node.start();
    let prometheus = Prometheus::start(systems.node.metrics);
    let up = || prometheus.query("up{job=\"fingerpost\"}").iter().any(|value| *value > 0.5);
    wait_until("prometheus scrapes fingerpost", Duration::from_secs(30), up);
    let mut raw = Raw::hello(systems.node.smtp);
    for n in 0..20 {
        assert!(accepted(&mut raw, &format!("known{n}@contoso.test"), &message(&format!("prom-{n}"), 500)));
        assert!(accepted(&mut raw, &format!("other{n}@contoso.test"), &message(&format!("prom-b-{n}"), 500)));
    }
    raw.say("MAIL FROM:<s@sender.test>");
    assert_eq!(raw.say("RCPT TO:<nobody@fabrikam.test>").0, 550);
    let delivered = "sum(fingerpost_deliveries_total{result=\"delivered\"})";
    wait_until("40 deliveries are counted", Duration::from_secs(30), || prometheus.query(delivered) == [40.0]);
    for (query, expected) in [
        ("sum(fingerpost_recipients_total{domain=\"contoso.test\",verdict=\"resolved\"})", 20.0),
        ("sum(fingerpost_recipients_total{domain=\"contoso.test\",verdict=\"relayed\"})", 20.0),
        ("sum(fingerpost_recipients_total{domain=\"fabrikam.test\",verdict=\"refused\"})", 1.0),
        ("sum(fingerpost_messages_received_total)", 40.0),
        ("sum(fingerpost_loops_total)", 0.0),
    ] {
        assert_eq!(prometheus.query(query), [expected], "{query}");
    }
    let queries = dashboard_queries();
    assert!(queries.len() >= 15, "only {} queries found in the dashboard", queries.len());
    for query in queries {
        let query = query.replace("$instance", ".*").replace("$__rate_interval", "30s");
        wait_until(&format!("an answer to {query}"), Duration::from_secs(30), || !prometheus.query(&query).is_empty());
    }
    let rules = prometheus.get("/api/v1/rules");
    let health: Vec<&Value> =
        rules["data"]["groups"][0]["rules"].as_array().expect("rules").iter().map(|r| &r["health"]).collect();
    assert!(health.len() >= 10 && health.iter().all(|health| *health == "ok" || *health == "unknown"), "{rules}");
}

/// A Prometheus of our own that scrapes one node each second.
struct Prometheus {
    address: SocketAddr,
    child: Child,
    _folder: TempDir,
}

impl Prometheus {
    fn start(target: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)));
        let rules = root().join(RULES);
        let configuration = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{}']\nscrape_configs:\n  \
             - job_name: fingerpost\n    static_configs: [{{ targets: ['{target}'] }}]\n",
            rules.display()
        );
        fs::write(folder.path().join("prometheus.yml"), configuration).expect("writable");
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}/prometheus.yml", folder.path().display()));
        command.arg(format!("--storage.tsdb.path={}/data", folder.path().display()));
        command.arg(format!("--web.listen-address={address}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("prometheus is installed");
        let prometheus = Self { address, child, _folder: folder };
        wait_for_port(address, Duration::from_secs(30));
        prometheus
    }

    /// The values of an instant query; panics where Prometheus calls it wrong.
    fn query(&self, query: &str) -> Vec<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        assert_ne!(answer["status"], "error", "{query}: {answer}");
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().filter_map(|result| result["value"][1].as_str()?.parse().ok()).collect()
    }

    fn get(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or(Value::Null)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect("it is in the tree")
}

fn dashboard_queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels").clone();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    targets.filter_map(|target| Some(target["expr"].as_str()?.to_owned())).collect()
}

/// Every metric that dashboard or rules name.
fn used_names() -> BTreeSet<String> {
    let text = read(RULES) + &dashboard_queries().join("\n");
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("fingerpost_")).map(str::to_owned).collect()
}
