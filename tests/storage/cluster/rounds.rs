//! Three nodes, HAProxy in front of them, PostgreSQL with a synchronous standby and two organisations' servers on one
//! machine: mail by cut-through and through the queue while nodes, databases and the balancer die, freeze and come back, and
//! the way to the database is cut. Counted is what arrived.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use support::haproxy::Haproxy;
use support::postgres::{self, Postgres};
use support::relay::Relay;
use support::senders::{Letter, Raw};
use support::test_node::TestNode;
use support::two_systems::{FILE_DIRECTORY, TwoSystems, message, token};
use support::{wait_until, within};

/// What happens in a round.
#[derive(Debug, Clone, Copy)]
enum Round {
    /// A node is killed, and started again at once.
    NodeKilled,
    /// A node is killed, and started again when another one has ended its epoch.
    NodeGone,
    /// A node is stopped as for an upgrade, and started again.
    NodeStopped,
    /// A node is frozen until its epoch has ended, and goes on.
    NodeFrozen,
    /// The primary is killed and the standby promoted; a new standby is made.
    PrimaryKilled,
    /// The primary is frozen, the standby promoted, and the old primary goes on.
    PrimaryFrozen,
    /// The standby is killed and started again.
    StandbyKilled,
    /// A wait for the standby is cancelled.
    WaitCancelled,
    /// The last node is cut off from the database, while its next hops work, until its epoch has ended.
    NodeCutOff,
    /// The balancer is killed, and started again.
    BalancerKilled,
}

/// Attempts under way in a node when it dies: each may have been sent without a durable outcome.
const UNDER_WAY: usize = 100;
const NODES: usize = 3;
/// From where the balancer connects.
const BALANCER: &str = "127.0.0.9";
/// The pause of a sender before each message.
const PACE: Duration = Duration::from_millis(25);
/// Until everything works again after a round.
const RECOVERY: Duration = Duration::from_secs(60);

struct Systems {
    two: TwoSystems,
    others: Vec<TestNode>,
    primary: Postgres,
    standby: Postgres,
    folder: tempfile::TempDir,
    balancer: Haproxy,
    /// The last node's way to both databases.
    ways: [Relay; 2],
}

impl Systems {
    fn start() -> Self {
        let folder = postgres::folder();
        let primary = Postgres::primary(folder.path());
        let standby = primary.standby(folder.path());
        let two = TwoSystems::prepare(FILE_DIRECTORY);
        let mut others: Vec<TestNode> = (1..NODES).map(|_| TestNode::prepare()).collect();
        let text = std::fs::read_to_string(two.node.path("fingerpost.toml")).unwrap();
        let [smtp, metrics, admin] = [two.node.smtp, two.node.metrics, two.node.admin()].map(|at| at.to_string());
        let folder_of_first = two.node.folder().display().to_string();
        let text = text
            .replace(&smtp, "{smtp}")
            .replace(&metrics, "{metrics}")
            .replace(&admin, "{admin}")
            .replace(&folder_of_first, "{folder}")
            // One organisation by cut-through, the other through the queue.
            .replacen("delivery = \"queue\"", "when_unreachable = \"queue\"", 1)
            .replace("[server]\n", "[server]\ninstallation = \"contoso\"\n")
            .replace("per_ip = 1000\n", &format!("per_ip = 1000\ntrusted_proxies = [\"{BALANCER}\"]\n"));
        let url = postgres::urls(&[&primary, &standby]);
        let ways = [&primary, &standby].map(|server| Relay::to(server.port()));
        let balancer = Haproxy::start(&servers(std::iter::once(&two.node).chain(&others)));
        let mut systems = Self { two, others: Vec::new(), primary, standby, folder, balancer, ways };
        for (number, node) in std::iter::once(&systems.two.node).chain(&others).enumerate() {
            let url = if number == NODES - 1 { systems.by_the_ways(&url) } else { url.clone() };
            let cluster = format!("[cluster]\ndatabase = \"{url}?sslmode=disable\"\nnode = \"n{number}\"\n");
            node.write("fingerpost.toml", &format!("{text}\n{cluster}"));
            for name in ["recipients.csv", "domains.d/domains.toml"] {
                let content = std::fs::read_to_string(systems.two.node.path(name)).unwrap();
                node.write(name, &content);
            }
        }
        let made = systems.two.node.run(&["cluster", "init"]);
        assert!(made.status.success(), "{made:?}");
        systems.two.node.start();
        others.iter_mut().for_each(TestNode::start);
        systems.others = others;
        systems
    }

    /// The same address by the ways that can be cut.
    fn by_the_ways(&self, url: &str) -> String {
        let ports = [&self.primary, &self.standby].map(Postgres::port);
        let by_way =
            |url: String, (port, way): (u16, &Relay)| url.replace(&format!(":{port}"), &format!(":{}", way.port()));
        ports.into_iter().zip(&self.ways).fold(url.to_owned(), by_way)
    }

    fn node(&mut self, number: usize) -> &mut TestNode {
        if number == 0 { &mut self.two.node } else { &mut self.others[number - 1] }
    }

    fn nodes(&self) -> impl Iterator<Item = &TestNode> {
        std::iter::once(&self.two.node).chain(&self.others)
    }

    /// Whether every node takes mail.
    fn are_well(&self) -> bool {
        self.nodes().all(|node| node.get("/readyz").is_some_and(|(status, _)| status == 200))
    }

    fn queued(&self) -> Option<usize> {
        self.primary.sql_within("SELECT count(*) FROM fingerpost.queue", Duration::from_secs(5))?.parse().ok()
    }

    /// The standby becomes the primary, and the server that was it is replaced by a new standby. Before that it may go on.
    fn promote(&mut self, before: impl Fn(&Postgres)) {
        self.standby.promote();
        std::mem::swap(&mut self.primary, &mut self.standby);
        before(&self.standby);
        let port = self.standby.port();
        self.standby.kill_if_running();
        self.standby = self.primary.standby_at(self.folder.path(), port);
    }

    fn go(&mut self, round: Round, number: usize) {
        let node = number % NODES;
        match round {
            Round::NodeKilled => {
                self.node(node).kill();
                self.node(node).launch();
            }
            Round::NodeGone => {
                let epoch = self.epoch(node);
                self.node(node).kill();
                self.epoch_ends(&epoch);
                self.node(node).launch();
            }
            Round::NodeStopped => {
                self.node(node).stop();
                self.node(node).launch();
            }
            Round::NodeFrozen => {
                let epoch = self.epoch(node);
                self.node(node).signal("STOP");
                self.epoch_ends(&epoch);
                self.node(node).signal("CONT");
                let ended = self.node(node).ended(Duration::from_secs(30));
                assert!(ended.is_some(), "it goes on without an epoch");
                self.node(node).launch();
            }
            Round::PrimaryKilled => {
                self.primary.kill();
                self.promote(|_| {});
            }
            Round::PrimaryFrozen => {
                self.primary.freeze();
                self.promote(|old| {
                    old.thaw();
                    std::thread::sleep(Duration::from_secs(15)); // while both say that they are the primary
                });
            }
            Round::StandbyKilled => {
                self.standby.kill();
                std::thread::sleep(Duration::from_secs(2)); // while nothing is accepted
                self.standby.start();
            }
            Round::WaitCancelled => {
                self.standby.freeze();
                let waits = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
                wait_until("something waits", RECOVERY, || self.primary.sql(waits).contains('t'));
                self.standby.thaw();
            }
            Round::NodeCutOff => {
                let last = NODES - 1;
                let epoch = self.epoch(last);
                self.ways.iter().for_each(Relay::cut);
                self.epoch_ends(&epoch);
                self.ways.iter().for_each(Relay::mend);
                let ended = self.node(last).ended(Duration::from_secs(60));
                assert!(ended.is_some(), "it goes on without an epoch");
                self.node(last).launch();
            }
            Round::BalancerKilled => self.balancer.kill_and_start(),
        }
    }

    /// Until somebody has ended this epoch.
    fn epoch_ends(&self, epoch: &str) {
        let living = format!("SELECT count(*) FROM fingerpost.epoch WHERE id = {epoch}");
        wait_until("its epoch is ended", Duration::from_secs(60), || self.primary.sql(&living) == "0");
    }

    fn epoch(&self, node: usize) -> String {
        let statement = format!(
            "SELECT e.id FROM fingerpost.epoch e JOIN fingerpost.node n ON n.number = e.node WHERE n.name = 'n{node}'"
        );
        self.primary.sql(&statement)
    }
}

/// The balancer's lines: it sends to nodes that are ready.
fn servers<'a>(nodes: impl Iterator<Item = &'a TestNode>) -> String {
    let server = |(number, node): (usize, &TestNode)| {
        let (smtp, probes) = (node.smtp, node.metrics.port());
        format!("    server n{number} {smtp} source {BALANCER} send-proxy-v2 check port {probes} inter 200ms\n")
    };
    format!("    option httpchk GET /readyz\n{}", nodes.enumerate().map(server).collect::<String>())
}

/// What the senders know.
#[derive(Default)]
struct Sent {
    acknowledged: Mutex<Vec<(String, bool)>>,
    /// Messages without a reply to their end.
    unanswered: AtomicUsize,
    over: AtomicBool,
}

/// Sends message after message, each to the next node that takes it.
fn send(sender: usize, servers: &[std::net::SocketAddr], sent: &Sent) {
    for number in 0.. {
        if sent.over.load(Ordering::SeqCst) {
            return;
        }
        std::thread::sleep(PACE); // other tests want the processors, too
        let token = format!("s{sender}-{number}");
        let is_known = number % 2 == 0;
        let to = if is_known {
            format!("known{}@contoso.test", number % 100)
        } else {
            format!("other{number}@contoso.test")
        };
        let Some(mut raw) = Raw::try_hello(servers[(sender + number) % servers.len()]) else { continue };
        let bytes = message(&token, if number % 50 == 7 { 400_000 } else { 3_000 });
        let letter = Letter { from: "s@sender.test", to: &[&to], bytes: &bytes };
        match raw.transact(&letter, "") {
            (_, Some((250, _))) => sent.acknowledged.lock().push((token, is_known)),
            (_, Some((0, _))) => {
                sent.unanswered.fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }
}

/// Runs these rounds under load, and counts.
fn run(rounds: &[Round]) {
    let mut systems = Systems::start();
    // Half of the mail comes through the balancer.
    let balancer = std::iter::repeat_n(systems.balancer.front(), NODES);
    let servers: Vec<_> = systems.nodes().map(|node| node.smtp).chain(balancer).collect();
    let sent = Sent::default();
    std::thread::scope(|scope| {
        for sender in 0..4 {
            let (sent, servers) = (&sent, &servers);
            scope.spawn(move || send(sender, servers, sent));
        }
        for (number, round) in rounds.iter().enumerate() {
            let before = sent.acknowledged.lock().len();
            wait_until("mail flows", RECOVERY, || sent.acknowledged.lock().len() > before + 20);
            systems.go(*round, number);
            let began = Instant::now();
            let well = within(RECOVERY, || systems.are_well());
            assert!(
                well,
                "{round:?}: {:?}\n{}",
                systems.nodes().map(|node| node.get("/readyz")).collect::<Vec<_>>(),
                logs(&systems)
            );
            println!("round {number}: {round:?}: all well after {:.1} s", began.elapsed().as_secs_f64());
        }
        sent.over.store(true, Ordering::SeqCst);
    });
    let drained = within(RECOVERY, || systems.queued() == Some(0));
    let (acknowledged, unanswered) = (sent.acknowledged.lock().clone(), sent.unanswered.load(Ordering::SeqCst));
    let copies = systems.two.copies();
    let lost: Vec<_> = acknowledged.iter().filter(|(token, _)| !copies.contains_key(token)).collect();
    let more: usize = copies.values().map(|copies| copies - 1).sum();
    println!(
        "{} acknowledged, {unanswered} unanswered, {} arrived, {more} more than once",
        acknowledged.len(),
        copies.len()
    );
    assert!(lost.is_empty(), "lost: {lost:?}\n{}", logs(&systems));
    assert!(drained, "{:?} are queued still\n{}", systems.queued(), logs(&systems));
    assert_eq!(misrouted(&systems, &acknowledged), Vec::<String>::new());
    assert!(more <= unanswered + UNDER_WAY * rounds.len(), "{more} twice\n{}", logs(&systems));
}

/// Tokens that arrived at the other organisation.
fn misrouted(systems: &Systems, acknowledged: &[(String, bool)]) -> Vec<String> {
    let known: HashMap<&str, bool> = acknowledged.iter().map(|(token, known)| (token.as_str(), *known)).collect();
    let wrong = |at: &support::sink::Sink, is_known| {
        let tokens = at.all().iter().map(token).collect::<Vec<_>>();
        tokens.into_iter().filter(|token| known.get(token.as_str()) == Some(&is_known)).collect::<Vec<_>>()
    };
    [wrong(&systems.two.primary, false), wrong(&systems.two.secondary, true)].concat()
}

fn logs(systems: &Systems) -> String {
    let tail = |node: &TestNode| {
        let log = node.log();
        let lines: Vec<_> = log.lines().filter(|line| !line.contains(" INFO ")).rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    systems.nodes().map(tail).collect::<Vec<_>>().join("\n---\n")
}

#[test]
fn nodes_and_databases_fail_and_nothing_is_lost() {
    use Round::{
        BalancerKilled, NodeCutOff, NodeFrozen, NodeKilled, NodeStopped, PrimaryFrozen, PrimaryKilled, StandbyKilled,
        WaitCancelled,
    };
    run(&[
        WaitCancelled,
        NodeKilled,
        PrimaryKilled,
        BalancerKilled,
        NodeStopped,
        StandbyKilled,
        PrimaryFrozen,
        NodeFrozen,
        NodeCutOff,
    ]);
}

/// `make cluster`.
#[test]
#[ignore = "half an hour: make cluster"]
fn every_round_many_times() {
    use Round::{
        BalancerKilled, NodeCutOff, NodeFrozen, NodeGone, NodeKilled, NodeStopped, PrimaryFrozen, PrimaryKilled,
        StandbyKilled, WaitCancelled,
    };
    let mut rounds = Vec::new();
    for (round, times) in [
        (NodeKilled, 15),
        (NodeGone, 5),
        (NodeStopped, 5),
        (PrimaryKilled, 5),
        (StandbyKilled, 5),
        (WaitCancelled, 5),
        (PrimaryFrozen, 5),
        (NodeFrozen, 10),
        (NodeCutOff, 5),
        (BalancerKilled, 3),
    ] {
        rounds.extend(std::iter::repeat_n(round, times));
    }
    run(&rounds);
}
