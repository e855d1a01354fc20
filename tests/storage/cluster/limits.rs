//! Two nodes divide the limits of their connectors, and one of them counts for both.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fingerpost::share::TURN;
use parking_lot::Mutex;
use support::postgres::{self, Postgres};
use support::senders::{Letter, Raw};
use support::sink::{OnMessage, Sink};
use support::test_node::TestNode;
use support::two_systems::{FILE_DIRECTORY, TwoSystems, message};
use support::wait_until;

const LIMIT: Duration = Duration::from_secs(30);
const MESSAGES: usize = 6;
/// The default of `cut_through_patience`.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many messages of each sender next hops take at the moment, and the most so far.
#[derive(Default)]
struct AtOnce {
    senders: Mutex<HashMap<String, [usize; 2]>>,
    /// Whether next hops keep what they take waiting.
    slow: AtomicBool,
}

impl AtOnce {
    fn watch(self: &Arc<Self>) -> OnMessage {
        let all = self.clone();
        Arc::new(move |sunk| {
            all.change(&sunk.from, |[now, most]| [now + 1, most.max(now + 1)]);
            while all.slow.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            all.change(&sunk.from, |[now, most]| [now - 1, most]);
        })
    }

    fn change(&self, from: &str, change: impl FnOnce([usize; 2]) -> [usize; 2]) {
        let mut all = self.senders.lock();
        let its = all.entry(from.to_owned()).or_default();
        *its = change(*its);
    }

    fn of(&self, from: &str) -> [usize; 2] {
        self.senders.lock().get(from).copied().unwrap_or_default()
    }
}

/// A node of both, whose primary organisation takes three connections in all, and its secondary one.
fn prepare(node: &TestNode, text: &str, cluster: &str) {
    node.write("fingerpost.toml", &format!("{text}\n{cluster}"));
    node.write("domains.d/domains.toml", support::two_systems::DOMAINS);
    node.write("recipients.csv", "address\nknown1@contoso.test\n");
}

fn send(node: &TestNode, from: &str, to: &str) {
    let mut raw = Raw::hello(node.smtp);
    for number in 0..MESSAGES {
        let letter = Letter { from, to: &[to], bytes: &message(&format!("{from}-{number}"), 500) };
        assert!(matches!(raw.transact(&letter, ""), (_, Some((250, _)))), "{}", node.log());
    }
}

fn arrived(sink: &Sink, from: &str) -> usize {
    sink.all().iter().filter(|sunk| sunk.from == from).count()
}

#[test]
fn nodes_have_a_limit_together_and_take_turns_where_it_is_too_small() {
    let folder = postgres::folder();
    let primary = Postgres::primary(folder.path());
    let standby = primary.standby(folder.path());
    let at_once = Arc::<AtOnce>::default();
    let listen = |last| Sink::start_at(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)), at_once.watch());
    let (three, one) = (listen(2), listen(3));
    let two = TwoSystems::prepare(FILE_DIRECTORY);
    let (mut first, mut second) = (two.node, TestNode::prepare());
    let mut text = std::fs::read_to_string(first.path("fingerpost.toml")).unwrap();
    for (is, becomes) in [
        (first.smtp.to_string(), "{smtp}".to_owned()),
        (first.metrics.to_string(), "{metrics}".to_owned()),
        (first.admin().to_string(), "{admin}".to_owned()),
        (first.folder().display().to_string(), "{folder}".to_owned()),
        (format!("[\"{}\"]", bracketed(two.primary.address())), limited(three.address(), 3)),
        (format!("[\"{}\"]", bracketed(two.secondary.address())), limited(one.address(), 1)),
        // The secondary organisation is spoken to while the client waits.
        ("delivery = \"queue\"\naddress_spaces".to_owned(), "when_unreachable = \"queue\"\naddress_spaces".to_owned()),
        ("[server]\n".to_owned(), "[server]\ninstallation = \"contoso\"\n".to_owned()),
    ] {
        assert!(text.contains(&is), "{is} in {text}");
        text = text.replace(&is, &becomes);
    }
    let url = format!("{}?sslmode=disable", postgres::urls(&[&primary, &standby]));
    prepare(&first, &text, &format!("[cluster]\ndatabase = \"{url}\"\nnode = \"a\"\n"));
    // The other one's configuration is not quite the same.
    let other = format!("[reports]\nper_minute = 50\n[cluster]\ndatabase = \"{url}\"\nnode = \"b\"\n");
    prepare(&second, &text, &other);
    let made = first.run(&["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    // A turn of the first node begins.
    let turn = 2 * TURN;
    primary.sql(&format!("UPDATE fingerpost.installation SET age = (age / {turn} + 1) * {turn}"));
    first.start();
    second.start();

    // The single connection is the first node's. Clients of the second are not kept waiting for it: their mail is.
    let began = Instant::now();
    send(&second, "b@sender.test", "other1@contoso.test");
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    send(&first, "a@sender.test", "other1@contoso.test");
    wait_until("mail of the first node", LIMIT, || arrived(&one, "a@sender.test") == MESSAGES);
    assert_eq!(arrived(&one, "b@sender.test"), 0);
    primary.sql(&format!("UPDATE fingerpost.installation SET age = age + {TURN}"));
    wait_until("mail of the second node", LIMIT, || arrived(&one, "b@sender.test") == MESSAGES);

    // Of three connections the first node has two.
    for node in [&first, &second] {
        wait_until("they know each other", LIMIT, || node.log().contains("nodes=2"));
    }
    at_once.slow.store(true, Ordering::SeqCst);
    send(&first, "c@sender.test", "known1@contoso.test");
    send(&second, "d@sender.test", "known1@contoso.test");
    let taken = || ["c@sender.test", "d@sender.test"].map(|from| at_once.of(from));
    wait_until("two and one", LIMIT, || taken() == [[2, 2], [1, 1]]);
    at_once.slow.store(false, Ordering::SeqCst);
    wait_until("all mail", LIMIT, || three.all().len() == 2 * MESSAGES);
    assert_eq!(taken(), [[0, 2], [0, 1]]);
    assert_eq!(three.most_connections(), 3);

    // One of them speaks for both.
    for (name, value) in [("nodes", 2.0), ("configurations", 2.0), ("unowned_messages", 0.0)] {
        let series = format!("fingerpost_cluster_{name}");
        wait_until(&series, LIMIT, || first.metric(&series) == Some(value));
        assert_eq!(second.metric(&series), Some(0.0), "{series}");
    }
}

fn bracketed(address: SocketAddr) -> String {
    format!("[{}]:{}", address.ip(), address.port())
}

fn limited(address: SocketAddr, connections: usize) -> String {
    format!("[\"{}\"]\nmax_connections = {connections}", bracketed(address))
}
