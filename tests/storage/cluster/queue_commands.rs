//! Queue commands at one node about the mail of all, and a node that is drained: two nodes and a real PostgreSQL with a
//! synchronous standby.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use fingerpost::admin::queue::{Listed, Message, Standing};
use fingerpost::cluster::ClusterSpool;
use fingerpost::cluster::ids::to_sql;
use fingerpost::cluster::listing::Owner;
use fingerpost::cluster::requests::{Asked, Reply, Request};
use fingerpost::config::Standby;
use fingerpost::message::queue_id::QueueId;
use fingerpost::spool::Spool;
use support::senders::Raw;
use support::sink::Sink;
use support::test_node::TestNode;
use support::two_systems::{self, message};
use support::{free_port, wait_until, within};
use tokio::time::Instant;

use super::{Setup, entry_of, mail};
use crate::spool_store::fixture::accepted;

/// How long anything may take that is not meant to wait.
const SOON: Duration = Duration::from_secs(20);

/// Nobody listens at `{hop}`, and nothing is tried again by itself.
const CONFIGURATION: &str = r#"
[server]
hostname = "{node}.contoso.test"
installation = "contoso"
state_dir = "{folder}/state"
drain_timeout = "2s"

[admin]
metrics_bind = "{metrics}"
bind = "{admin}"

[[receive_connector]]
name = "internet"
bind = ["{smtp}"]
remote_networks = ["127.0.0.0/8"]

[[accepted_domain]]
domain = "contoso.test"
type = "authoritative"
deliver_to = "primary"

[[directory]]
name = "people"
kind = "file"
path = "recipients.csv"

[[send_connector]]
name = "primary"
organization = "primary"
smart_hosts = ["{hop}"]
delivery = "queue"
retry = { first = "1h", factor = 1.0, max = "1h" }

[spool]
min_free = "16MiB"

[cluster]
database = "{database}"
node = "{node}"
"#;

pub(crate) fn node(setup: &Setup, name: &str, hop: SocketAddr) -> TestNode {
    let node = TestNode::prepare();
    let database = setup.cluster(name, Standby::Required).database;
    let text = CONFIGURATION.replace("{database}", &database).replace("{node}", name);
    let hop = format!("[{}]:{}", hop.ip(), hop.port());
    node.write("fingerpost.toml", &text.replace("{hop}", &hop));
    node.write("recipients.csv", "address\nknown@contoso.test\n");
    node
}

/// Sends a message to this node.
fn send(node: &TestNode, token: &str) {
    let mut raw = Raw::hello(node.smtp);
    assert!(two_systems::accepted(&mut raw, "known@contoso.test", &message(token, 2_000)), "{token}");
}

fn list(node: &TestNode, arguments: &[&str]) -> Listed {
    let output = node.run(&[&["queue", "list", "--format", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// Whose each message is, oldest first.
fn owners(listed: &Listed) -> Vec<&str> {
    listed.messages.iter().map(|message| message.node.as_deref().expect("a cluster's")).collect()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

/// What it printed, output and errors.
fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_queue_is_handled_from_any_node_and_handed_over_by_a_drain() {
    let setup = Setup::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        setup.init().await;
        requests_are_answered_withdrawn_or_unknown(&setup).await;
    });
    let hop = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), free_port(Ipv4Addr::new(127, 0, 0, 2))));
    let (mut a, mut b) = (node(&setup, "a", hop), node(&setup, "b", hop));
    a.start();
    b.start();
    for (node, token) in [(&a, "1"), (&b, "2"), (&a, "3"), (&b, "4"), (&b, "5")] {
        send(node, token);
    }
    all_mail_is_listed(&a, &b);
    let ids: Vec<QueueId> = list(&a, &[]).messages.iter().map(|message| message.id).collect();
    mail_of_another_node_is_dropped(&setup, &a, &b, ids[4]);
    everything_is_due(&a);
    mail_of_another_node_is_tried(&setup, &a, ids[1]);
    a_frozen_node_has_done_nothing(&a, &b, ids[3]);
    a_drained_node_hands_its_mail_over(&setup, &a, &mut b);

    let sink = Sink::start_at(hop, Arc::new(|_| {}));
    wait_until("the other node sends everything", SOON, || {
        a.run(&["queue", "retry", "--all"]);
        setup.rows("queue") == 0
    });
    let mut sent: Vec<_> = sink.all().iter().map(two_systems::token).collect();
    sent.sort();
    assert_eq!(sent, ["1", "2", "3", "4"], "each once");
    the_last_node_is_drained_only_alone(&mut a);
}

/// Requests between two nodes of which only one asks.
async fn requests_are_answered_withdrawn_or_unknown(setup: &Setup) {
    let (first, second) = (setup.node("first").await, setup.node("second").await);
    let (draft, entry) = mail(&*second, 500, 1);
    let id = entry.id;
    second.commit(accepted(vec![(draft, entry)])).await.unwrap();
    let found = first.find(id).await.unwrap().unwrap();
    let Owner::Node(owner) = found.owner else { panic!("{found:?}") };
    assert_eq!((owner.epoch, owner.name.as_str()), (second.epoch().id, "second"));
    assert_eq!(first.list_all(None, 9).await.unwrap().total, 1);

    // What is a node's in the database and not in its memory yet is not handled by it.
    let is_of = |node: &ClusterSpool| format!("UPDATE fingerpost.queue SET epoch = {}", node.epoch().id);
    setup.primary.sql(&is_of(&first));
    assert_eq!(entry_of(&first, id).await, None);
    setup.primary.sql(&is_of(&second));

    let drops = Request::Drop { id };
    let ask = |asker: &Arc<ClusterSpool>, limit| {
        let (asker, request, owner) = (asker.clone(), drops.clone(), second.epoch().id);
        tokio::spawn(async move { asker.ask(owner, &request, Instant::now() + limit).await.unwrap() })
    };
    let moment = Duration::from_millis(300);
    // Nobody takes it: it is withdrawn, and never done.
    assert_eq!(ask(&first, moment).await.unwrap(), Asked::Withdrawn);
    assert!(second.take_requests().await.unwrap().is_empty());
    // Two ask at once, and each has its own reply.
    let asked = [ask(&first, SOON), ask(&second, SOON)];
    let mut taken = Vec::new();
    while taken.len() < 2 {
        taken.extend(second.take_requests().await.unwrap());
    }
    for (taken, messages) in taken.iter().zip(1..) {
        assert_eq!(taken.request.as_ref(), Some(&drops));
        second.reply(taken, &Reply::Done { messages }).await.unwrap();
    }
    let mut replies = Vec::new();
    for asked in asked {
        replies.push(asked.await.unwrap());
    }
    replies.sort_by_key(|reply| format!("{reply:?}"));
    assert_eq!(replies, [1, 2].map(|messages| Asked::Answered(Reply::Done { messages })));
    // It is taken and not answered; then its node ends before it answers.
    let asked = ask(&first, 2 * moment);
    while second.take_requests().await.unwrap().is_empty() {}
    assert_eq!(asked.await.unwrap(), Asked::Unknown);
    let asked = ask(&first, SOON);
    while second.take_requests().await.unwrap().is_empty() {}
    second.leave().await;
    assert_eq!(asked.await.unwrap(), Asked::OwnerEnded);
    assert_eq!(ask(&first, SOON).await.unwrap(), Asked::OwnerEnded);
    assert!(second.take_requests().await.unwrap().is_empty());
    assert_eq!(setup.rows("request"), 0);
    setup.primary.sql("DELETE FROM fingerpost.queue; DELETE FROM fingerpost.body");
    first.leave().await;
}

fn all_mail_is_listed(a: &TestNode, b: &TestNode) {
    for node in [a, b] {
        let listed = list(node, &[]);
        assert_eq!((listed.total, owners(&listed)), (5, vec!["a", "b", "a", "b", "b"]));
    }
    let listed = list(a, &[]);
    let after = listed.messages[1].id.to_string();
    let part = list(b, &["--limit", "2", "--after", &after]);
    assert_eq!((part.total, part.messages.len(), part.messages[0].id), (5, 2, listed.messages[2].id));
    let table = text(&a.run(&["queue", "list"]));
    assert!(table.contains("node") && table.contains("5 messages"), "{table}");
    let other = &listed.messages[1].id.to_string();
    let shown = a.run(&["queue", "show", other, "--format", "json"]);
    let shown: Message = serde_json::from_slice(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    assert_eq!((shown.id.to_string(), shown.node.as_deref()), (other.clone(), Some("b")));
    let shown = text(&a.run(&["queue", "show", other]));
    assert!(shown.contains("\n  node      b\n"), "{shown}");
}

fn mail_of_another_node_is_dropped(setup: &Setup, a: &TestNode, b: &TestNode, id: QueueId) {
    let dropped = a.run(&["queue", "drop", &id.to_string()]);
    assert!(code(&dropped) == 0, "{dropped:?}");
    assert_eq!((setup.rows("queue"), setup.rows("body")), (4, 4), "it is durable");
    b.logged(&["an operator dropped the message"]);
    for command in ["drop", "retry", "show"] {
        let again = a.run(&["queue", command, &id.to_string()]);
        assert!(code(&again) == 1 && text(&again).contains("there is no message"), "{again:?}");
    }
}

/// What is being tried just then is not counted.
fn everything_is_due(a: &TestNode) {
    let arguments = ["queue", "retry", "--connector", "primary"];
    wait_until("all four are due", SOON, || text(&a.run(&arguments)).starts_with("4 messages are due now"));
}

/// Also while the standby is away: a request does not wait for it.
fn mail_of_another_node_is_tried(setup: &Setup, a: &TestNode, id: QueueId) {
    let attempts = || match &list(a, &[]).messages.iter().find(|message| message.id == id)?.recipients[0].standing {
        Standing::Waiting { attempts, .. } => Some(*attempts),
        _ => None,
    };
    let before = attempts();
    setup.standby.freeze();
    let retried = a.run(&["queue", "retry", &id.to_string()]);
    setup.standby.thaw();
    assert!(code(&retried) == 0 && text(&retried).starts_with("1 message is due now"), "{retried:?}");
    wait_until("its own node tries it", SOON, || attempts() > before);
}

fn a_frozen_node_has_done_nothing(a: &TestNode, b: &TestNode, id: QueueId) {
    b.signal("STOP");
    let (dropped, retried) = std::thread::scope(|scope| {
        let dropped = scope.spawn(|| a.run(&["queue", "drop", &id.to_string()]));
        let retried = scope.spawn(|| a.run(&["queue", "retry", "--all"]));
        (dropped.join().unwrap(), retried.join().unwrap())
    });
    let total = list(a, &[]).total;
    b.signal("CONT");
    assert!(code(&dropped) == 2 && text(&dropped).contains("node b did not answer within 5s: nothing was done"));
    assert!(code(&retried) == 2 && text(&retried).contains("messages are due now, but node b did not answer"));
    assert_eq!(total, 4);
    wait_until("it goes on", SOON, || b.get("/readyz").is_some_and(|(status, _)| status == 200));
    // A request of later is answered, and the withdrawn one was not done.
    assert_eq!(code(&a.run(&["queue", "retry", "--all"])), 0);
    assert_eq!(list(a, &[]).total, 4);
}

/// What nobody has taken over yet is shown as that.
fn a_drained_node_hands_its_mail_over(setup: &Setup, a: &TestNode, b: &mut TestNode) {
    let listed = list(a, &[]);
    let last = listed.messages.iter().rfind(|message| message.node.as_deref() == Some("b")).expect("it has one").id;
    // Nobody takes that one over until somebody has this lock.
    let hold = format!(
        "DO $$ BEGIN PERFORM 1 FROM fingerpost.queue WHERE id = {} FOR UPDATE; \
         WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 77) \
         LOOP PERFORM pg_sleep(0.05); END LOOP; END $$",
        to_sql(last)
    );
    std::thread::scope(|scope| {
        scope.spawn(|| setup.primary.sql(&hold));
        let is_held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        wait_until("it is held", SOON, || setup.primary.sql(is_held) == "1");
        let drained = scope.spawn(|| b.run(&["drain", "--pause", "1s"]));
        let is_draining = within(SOON, || b.get("/readyz").is_some_and(|(_, why)| why.contains("draining")));
        let takes_clients = Raw::try_hello(b.smtp).is_some(); // until a balancer has seen it
        let drained = drained.join().unwrap();
        let listed = list(a, &[]);
        let commands = ["drop", "retry"].map(|command| a.run(&["queue", command, &last.to_string()]));
        let table = text(&a.run(&["queue", "list"]));
        setup.primary.sql("SELECT pg_advisory_lock(77); SELECT pg_sleep(0.5)");
        assert!(is_draining && takes_clients);
        assert!(code(&drained) == 0 && text(&drained).contains("2 messages goes to a;"), "{drained:?}");
        let owner = listed.messages.iter().find(|message| message.id == last).and_then(|last| last.node.as_deref());
        assert_eq!(owner, Some(""));
        for refused in commands {
            assert!(code(&refused) == 2 && text(&refused).contains("waits to be taken over"), "{refused:?}");
        }
        assert!(table.contains("none: it waits to be taken over"), "{table}");
    });
    assert_eq!(b.ended(Duration::from_secs(1)), Some(0));
    wait_until("all is taken over", SOON, || owners(&list(a, &[])) == ["a"; 4]);
}

fn the_last_node_is_drained_only_alone(a: &mut TestNode) {
    let refused = a.run(&["drain"]);
    assert!(code(&refused) == 2 && text(&refused).contains("no other node is running"), "{refused:?}");
    let alone = a.run(&["drain", "--alone", "--pause", "0s"]);
    assert!(code(&alone) == 0 && text(&alone).contains("goes to the database"), "{alone:?}");
    assert_eq!(a.ended(Duration::from_secs(1)), Some(0));
}
