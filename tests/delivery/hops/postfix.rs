//! Real next hops that go away and come back under load: exact counts on each side.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::mail::Mail;
use support::postfix::{Postfix, Setup};
use support::postfix_systems::{NodeDirectory, PostfixSystems};
use support::senders::Raw;
use support::test_network::{PEOPLE, TestNetwork, domain};
use support::test_node::TestNode;
use support::two_systems::{accepted, message};
use support::{wait_until, within};

/// How long everything may take to arrive.
const LONG: Duration = Duration::from_secs(60);
const MESSAGES: usize = 240;

/// Sends `MESSAGES` messages over four sessions, to these recipients in turn; `meanwhile` is called once, when a
/// quarter is through. Every one must be accepted.
fn load(server: SocketAddr, to: &[&str], meanwhile: impl FnOnce()) {
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut raw = Raw::hello(server);
                loop {
                    let number = sent.fetch_add(1, Ordering::SeqCst);
                    if number >= MESSAGES {
                        return;
                    }
                    let (token, to) = (format!("load-{number}"), to[number % to.len()]);
                    assert!(accepted(&mut raw, to, &message(&token, 2000)), "{token} was not accepted");
                }
            });
        }
        wait_until("a quarter of the load", LONG, || sent.load(Ordering::SeqCst) > MESSAGES / 4);
        meanwhile();
    });
}

/// How often each message of the load was taken by these servers. A Postfix that is stopped while it puts a message into
/// a mailbox does so again: that is one taking, under one queue id.
fn takings<'a>(mails: impl IntoIterator<Item = &'a Mail>) -> HashMap<String, usize> {
    let mut taken: HashMap<String, HashSet<String>> = HashMap::new();
    for mail in mails {
        let (Some(token), Some(received)) = (mail.field("X-Token"), mail.field("Received")) else { continue };
        taken.entry(token).or_default().insert(received); // the topmost: the server's own, with its name and queue id
    }
    taken.into_iter().map(|(token, by)| (token, by.len())).collect()
}

/// Nothing was sent twice but what the log calls "outcome unknown": a server that died between taking a message and
/// saying so. Returns how many were.
fn sent_twice(mails: &[Mail], log: &str) -> usize {
    let taken = takings(mails);
    let unknown = |token: &str| {
        let of_it = |line: &&str| line.contains("outcome unknown") && line.contains(&format!("<{token}@"));
        log.lines().filter(of_it).count()
    };
    for (token, times) in &taken {
        assert!(times - 1 <= unknown(token), "{token} was taken {times} times, {} outcomes unknown", unknown(token));
    }
    taken.values().map(|times| times - 1).sum()
}

/// An operator who does not wait ten minutes for what a server that died may have taken.
fn hasten_what_may_have_arrived(node: &TestNode) {
    let listed = node.run(&["queue", "list", "--format", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    for message in listed["messages"].as_array().unwrap() {
        let recipients = message["recipients"].as_array().unwrap();
        if recipients.iter().any(|recipient| recipient["may_have_arrived"].as_u64() > Some(0)) {
            node.run(&["queue", "retry", message["id"].as_str().unwrap()]);
        }
    }
}

#[test]
fn the_secondary_is_down_for_a_while_and_nothing_is_lost_or_doubled() {
    let systems = PostfixSystems::start(NodeDirectory::File);
    let to = ["sam@contoso.test", "alice@contoso.test", "susan@contoso.test"];
    load(systems.node.smtp, &to, || systems.secondary.pause());
    let queued = systems.node.metric("fingerpost_queue_messages{send_connector=\"secondary\",state=\"waiting\"}");
    assert!(queued > Some(0.0), "nothing waits: {queued:?}");
    wait_until("the primary's mail, which does not wait for the secondary", LONG, || {
        takings(&systems.primary.mails()).len() == MESSAGES / 3
    });
    assert!(systems.outside.all().is_empty());
    systems.secondary.resume();
    wait_until("the secondary's mail", LONG, || {
        hasten_what_may_have_arrived(&systems.node);
        systems.waiting() == 0.0
            && systems.secondary.queued() == 0
            && takings(&systems.secondary.mails()).len() >= MESSAGES - MESSAGES / 3
    });
    let all = [systems.primary.mails(), systems.secondary.mails()].concat();
    assert_eq!(takings(&all).len(), MESSAGES, "something is lost");
    let twice = sent_twice(&all, &systems.node.log());
    assert!(systems.outside.all().is_empty(), "somebody was told something");
    println!("{MESSAGES} messages, {queued:?} of them queued while the secondary was down: none lost, {twice} twice");
}

/// Two servers of one organisation and a node that uses the first as long as it answers.
struct TwoServers {
    network: TestNetwork,
    first: Postfix,
    second: Postfix,
}

const PERSON: [&str; 2] = ["ann@c.test", "bob@c.test"];

fn two_servers(settings: &str) -> TwoServers {
    let mut network = TestNetwork::prepare();
    let server = |name: &str, ip| {
        Postfix::start(&Setup {
            name,
            ip,
            domains: &["c.test"],
            known: &PERSON,
            unknown_to: network.node.smtp,
            others_to: network.senders.address(),
            extra: "",
        })
    };
    let first = server("first.test", Ipv4Addr::new(127, 0, 0, 2));
    let second = server("second.test", Ipv4Addr::new(127, 0, 0, 3));
    network.node.write("people.csv", "address\nann@c.test\nbob@c.test\n");
    let (one, two) = (first.address(), second.address());
    let connector = format!(
        "[[send_connector]]\nname = \"both\"\norganization = \"both\"\n\
         smart_hosts = [\"[{}]:{}\", \"[{}]:{}\"]\ndelivery = \"queue\"\nretry = {{ first = \"1s\", factor = 1.0, max = \"1s\" }}\n{settings}\n\n",
        one.ip(),
        one.port(),
        two.ip(),
        two.port()
    );
    network.start(&format!("{PEOPLE}{connector}{}", domain("c.test", "authoritative", "both")));
    TwoServers { network, first, second }
}

impl TwoServers {
    fn mails(&self) -> Vec<Mail> {
        [self.first.mails(), self.second.mails()].concat()
    }

    /// Waits until all has arrived; returns how many were sent more than once.
    fn all_arrive(&self) -> usize {
        let mut seen = (0, 0, 0);
        let arrived = || {
            hasten_what_may_have_arrived(&self.network.node);
            let (ours, theirs) = (self.network.queue().len(), self.first.queued() + self.second.queued());
            seen = (ours, theirs, takings(&self.mails()).len());
            seen == (0, 0, MESSAGES)
        };
        let all = within(LONG, arrived);
        assert!(all, "{} in our queue, {} in theirs, {} of {MESSAGES} arrived", seen.0, seen.1, seen.2);
        assert!(self.network.senders.all().is_empty(), "somebody was told something");
        sent_twice(&self.mails(), &self.network.node.log())
    }
}

#[test]
fn the_first_smart_host_goes_away_in_the_middle_of_the_load() {
    let servers = two_servers("");
    load(servers.network.node.smtp, &PERSON, || servers.first.pause());
    wait_until("an empty queue", LONG, || {
        hasten_what_may_have_arrived(&servers.network.node);
        servers.network.queue().is_empty()
    });
    assert!(!servers.second.mails().is_empty(), "the second has nothing");
    // What the first one had taken and not put into mailboxes yet is its own to deliver.
    servers.first.resume();
    let twice = servers.all_arrive();
    let (first, second) = (servers.first.mails().len(), servers.second.mails().len());
    assert!(first > 0 && second > 0, "{first} and {second}");
    println!("failover: {first} by the first, {second} by the second, {twice} of them twice");
}

#[test]
fn pooled_connections_die_with_the_server_that_restarts() {
    let servers = two_servers("");
    load(servers.network.node.smtp, &PERSON, || {
        for _ in 0..2 {
            servers.first.pause();
            servers.first.resume();
            servers.second.pause();
            servers.second.resume();
        }
    });
    let twice = servers.all_arrive();
    let (first, second) = (servers.first.mails().len(), servers.second.mails().len());
    println!("restarts: {first} and {second}, none lost, {twice} twice");
}
