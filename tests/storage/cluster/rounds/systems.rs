//! The systems of the rounds, and what happens to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use support::haproxy::Haproxy;
use support::postgres::{self, Postgres};
use support::relay::Relay;
use support::test_node::TestNode;
use support::two_systems::{FILE_DIRECTORY, TwoSystems};
use support::{wait_until, within};

use super::count::{Doubt, Sent};
use super::{Round, Silence};

pub(super) const NODES: usize = 3;
/// From where the balancer connects.
const BALANCER: &str = "127.0.0.9";
/// Until everything works again after a round.
pub(super) const RECOVERY: Duration = Duration::from_secs(60);
/// How long an old primary and a new one both say that they are it.
const BOTH: Duration = Duration::from_secs(8);
/// How far a clock is off, for libfaketime.
const AN_HOUR_AHEAD: &str = "+1h";

pub(super) struct Systems {
    pub(super) two: TwoSystems,
    others: Vec<TestNode>,
    primary: Postgres,
    standby: Postgres,
    folder: tempfile::TempDir,
    balancer: Haproxy,
    /// Each node's ways to both databases.
    ways: Vec<[Relay; 2]>,
    pub(super) sent: Arc<Sent>,
    /// When each node was started last.
    began: [Instant; NODES],
    /// What nodes had sent, perhaps, when they died.
    pub(super) doubts: Vec<Doubt>,
}

impl Systems {
    pub(super) fn start() -> Self {
        let folder = postgres::folder();
        let primary = Postgres::primary_on_volumes(folder.path());
        let standby = primary.standby(folder.path());
        let two = TwoSystems::prepare(FILE_DIRECTORY);
        let mut others: Vec<TestNode> = (1..NODES).map(|_| TestNode::prepare()).collect();
        let text = text(&two.node);
        let url = postgres::urls(&[&primary, &standby]);
        let ways: Vec<_> = (0..NODES).map(|_| [&primary, &standby].map(|server| Relay::to(server.port()))).collect();
        for (number, node) in std::iter::once(&two.node).chain(&others).enumerate() {
            let by_way = |url: String, (server, way): (&Postgres, &Relay)| {
                url.replace(&format!(":{}", server.port()), &format!(":{}", way.port()))
            };
            let url = [&primary, &standby].into_iter().zip(&ways[number]).fold(url.clone(), by_way);
            let cluster = format!("[cluster]\ndatabase = \"{url}?sslmode=disable\"\nnode = \"n{number}\"\n");
            let from = format!("source_address = \"{}\"\nretry = ", source(number));
            node.write("fingerpost.toml", &format!("{}\n{cluster}", text.replace("retry = ", &from)));
            for name in ["recipients.csv", "domains.d/domains.toml"] {
                let content = std::fs::read_to_string(two.node.path(name)).unwrap();
                node.write(name, &content);
            }
        }
        let made = two.node.run(&["cluster", "init"]);
        assert!(made.status.success(), "{made:?}");
        let balancer = Haproxy::start(&servers(std::iter::once(&two.node).chain(&others)));
        others.iter_mut().for_each(TestNode::start);
        let (sent, began, doubts) = (Arc::default(), [Instant::now(); NODES], Vec::new());
        let mut systems = Self { two, others, primary, standby, folder, balancer, ways, sent, began, doubts };
        systems.two.node.start();
        systems
    }

    fn node(&mut self, number: usize) -> &mut TestNode {
        if number == 0 { &mut self.two.node } else { &mut self.others[number - 1] }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &TestNode> {
        std::iter::once(&self.two.node).chain(&self.others)
    }

    /// Where clients connect: half of the mail comes through the balancer.
    pub(super) fn doors(&self) -> Vec<std::net::SocketAddr> {
        self.nodes().map(|node| node.smtp).chain(std::iter::repeat_n(self.balancer.front(), NODES)).collect()
    }

    /// Whether every node takes mail.
    pub(super) fn are_well(&self) -> bool {
        self.nodes().all(|node| node.get("/readyz").is_some_and(|(status, _)| status == 200))
    }

    pub(super) fn queued(&self) -> Option<usize> {
        self.primary.sql_within("SELECT count(*) FROM fingerpost.queue", Duration::from_secs(5))?.parse().ok()
    }

    fn all_well(&self) {
        let ready = || self.nodes().map(|node| node.get("/readyz")).collect::<Vec<_>>();
        assert!(within(RECOVERY, || self.are_well()), "{:?}\n{}", ready(), self.logs());
    }

    /// What is no mere information in the nodes' logs, the newest of it.
    pub(super) fn logs(&self) -> String {
        let tail = |node: &TestNode| {
            let log = node.log();
            let lines: Vec<_> = log.lines().filter(|line| !line.contains(" INFO ")).rev().take(40).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        self.nodes().map(tail).collect::<Vec<_>>().join("\n---\n")
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

    /// A round; the nodes are numbered from `number` on.
    pub(super) fn go(&mut self, round: Round, number: usize) {
        let node = number % NODES;
        match round {
            Round::NodeKilled => {
                self.dies(node, TestNode::kill);
                self.launch(node);
            }
            Round::NodeStopped => {
                self.dies(node, TestNode::stop);
                self.launch(node);
            }
            Round::NodesSilent(silences) => self.fall_silent(silences, node),
            Round::PrimaryKilled => {
                self.primary.kill();
                self.promote(|_| {});
            }
            Round::PrimaryFrozen => {
                self.primary.freeze();
                self.promote(|old| {
                    old.thaw();
                    std::thread::sleep(BOTH);
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
            Round::DataFull => self.data_full(),
            Round::LogFull => self.log_full(),
            Round::ClocksApart => self.clocks_apart(node),
            Round::BalancerKilled => self.balancer.kill_and_start(),
        }
    }

    /// Two nodes fall silent, and others end their epochs, one of which is that of the node behind them.
    fn fall_silent(&mut self, silences: [Silence; 2], first: usize) {
        let silent = [(silences[0], first), (silences[1], (first + 1) % NODES)];
        let epochs = silent.map(|(_, node)| self.epoch(node));
        for (silence, node) in silent {
            match silence {
                Silence::Killed => self.dies(node, TestNode::kill),
                Silence::Frozen => self.dies(node, |node| node.signal("STOP")),
                Silence::CutOff => {
                    self.ways[node].iter().for_each(Relay::cut);
                    self.dies(node, |_| {});
                }
            }
        }
        epochs.iter().for_each(|epoch| self.epoch_ends(epoch));
        for (silence, node) in silent {
            match silence {
                Silence::Killed => {}
                Silence::Frozen => self.node(node).signal("CONT"),
                Silence::CutOff => self.ways[node].iter().for_each(Relay::mend),
            }
            if !matches!(silence, Silence::Killed) {
                let ended = self.node(node).ended(Duration::from_secs(60));
                assert_eq!(ended, Some(2), "it goes on without an epoch, {silence:?}");
            }
            self.launch(node);
        }
    }

    /// The primary has no room for data: its log goes on.
    fn data_full(&mut self) {
        let refused = self.sent.refused();
        self.primary.volumes().data.fill();
        let mut told = [false; NODES];
        wait_until("each node tells that, and clients hear 451", RECOVERY, || {
            for (told, node) in told.iter_mut().zip(self.nodes()) {
                *told |= node.get("/readyz").is_some_and(|(code, text)| code == 503 && text.contains("No space left"));
            }
            told == [true; NODES] && self.sent.refused() > refused
        });
        self.primary.volumes().data.make_room();
    }

    /// The primary has no room for its log, and ends.
    fn log_full(&mut self) {
        self.primary.volumes().log.fill();
        let primary = &mut self.primary;
        wait_until("the database ends", RECOVERY, || {
            primary.sql_if_it_lives("SELECT pg_switch_wal()", Duration::from_secs(5)); // it writes into the next file
            primary.has_ended()
        });
        std::thread::sleep(Duration::from_secs(1)); // while there is none
        primary.volumes().log.make_room();
        primary.start();
    }

    /// A standby whose clock is an hour ahead becomes the primary: nodes that live go on, and nobody is older for that; one
    /// that starts is refused. Then another primary has the right time.
    fn clocks_apart(&mut self, node: usize) {
        self.standby.kill();
        self.standby.set_clock(AN_HOUR_AHEAD);
        self.standby.start();
        self.all_well();
        let (age, began) = (self.age(), Instant::now());
        self.primary.kill();
        self.promote(|_| {});
        self.all_well();
        let ahead: i64 = self.primary.sql("SELECT extract(epoch FROM clock_timestamp())::bigint").parse().unwrap();
        let now = fingerpost::time::UnixTime::now().0.cast_signed();
        assert!((3_500..3_700).contains(&(ahead - now)), "its clock is {} s ahead", ahead - now);
        self.dies(node, TestNode::stop);
        self.node(node).launch();
        assert_eq!(self.node(node).ended(RECOVERY), Some(2), "its clock is right, the database's is not");
        let log = self.node(node).log();
        assert!(log.contains("this clock and the database's are 3600 s apart"), "{log}");
        let jumped = self.age() - age - began.elapsed().as_secs().cast_signed();
        assert!((-10..=10).contains(&jumped), "the queue's time jumped by {jumped} s");
        self.primary.kill();
        self.promote(|_| {});
        self.launch(node);
    }

    /// The queue's time.
    fn age(&self) -> i64 {
        self.primary.sql("SELECT age FROM fingerpost.installation").parse().unwrap()
    }

    /// Something ends a node's life, or its way to the database; noted is what has no durable outcome then.
    fn dies(&mut self, node: usize, how: impl FnOnce(&mut TestNode)) {
        how(self.node(node));
        let tokens = "SELECT substring(encode(substring(b.content FROM 1 FOR 8192), 'escape') \
             FROM 'X-Token: ([a-z0-9-]+)') FROM fingerpost.queue q JOIN fingerpost.body b ON b.id = q.id AND b.piece = 0";
        let waiting = self.primary.sql(tokens).lines().map(str::to_owned).collect();
        self.doubts.push(Doubt { node, from: source(node), waiting, began: self.began[node], ended: Instant::now() });
    }

    /// Starts a node again.
    fn launch(&mut self, node: usize) {
        let now = Instant::now();
        self.began[node] = now;
        if let Some(doubt) = self.doubts.iter_mut().rev().find(|doubt| doubt.node == node) {
            doubt.ended = now;
        }
        self.node(node).launch();
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

/// The configuration of all nodes, from that of the first one.
fn text(first: &TestNode) -> String {
    let text = std::fs::read_to_string(first.path("fingerpost.toml")).unwrap();
    let [smtp, metrics, admin] = [first.smtp, first.metrics, first.admin()].map(|at| at.to_string());
    text.replace(&smtp, "{smtp}")
        .replace(&metrics, "{metrics}")
        .replace(&admin, "{admin}")
        .replace(&first.folder().display().to_string(), "{folder}")
        // One organisation by cut-through, the other through the queue.
        .replacen("delivery = \"queue\"", "when_unreachable = \"queue\"", 1)
        .replace("[server]\n", "[server]\ninstallation = \"contoso\"\n")
        .replace("per_ip = 1000\n", &format!("per_ip = 1000\ntrusted_proxies = [\"{BALANCER}\"]\n"))
}

/// From where a node sends.
fn source(node: usize) -> std::net::IpAddr {
    let last = u8::try_from(node + 1).unwrap();
    std::net::Ipv4Addr::new(127, 0, 1, last).into()
}

/// The balancer's lines: it sends to nodes that are ready.
fn servers<'a>(nodes: impl Iterator<Item = &'a TestNode>) -> String {
    let server = |(number, node): (usize, &TestNode)| {
        let (smtp, probes) = (node.smtp, node.metrics.port());
        format!("    server n{number} {smtp} source {BALANCER} send-proxy-v2 check port {probes} inter 200ms\n")
    };
    format!("    option httpchk GET /readyz\n{}", nodes.enumerate().map(server).collect::<String>())
}
