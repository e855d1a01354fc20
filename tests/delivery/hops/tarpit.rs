//! A recipient domain whose server takes connections and says nothing, beside one that works, over one connector that
//! goes by MX: the healthy one's mail does not wait for the sick one's.

use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::Raw;
use support::test_network::SOON;
use support::test_node::TestNode;
use support::wait_until;

/// A domain that is an address has that address as its only server (RFC 5321 5.1), at port 25.
const TARPIT: &str = "127.25.0.2";
const HEALTHY: &str = "127.25.0.3";
const BACK: &str = "127.25.0.4";
const GONE: &str = "127.25.0.5";

const CONFIGURATION: &str = r#"
[server]
hostname  = "mx.contoso.test"
state_dir = "{folder}/state"

[admin]
metrics_bind = "{metrics}"
bind         = "{admin}"

[[receive_connector]]
name            = "internal"
bind            = ["{smtp}"]
remote_networks = ["127.0.0.0/8"]
relay           = "anywhere"

[[directory]]
name = "people"
kind = "file"
path = "people.csv"

[[accepted_domain]]
domain     = "contoso.test"
type       = "authoritative"
deliver_to = "internet"

[[send_connector]]
name            = "internet"
smart_hosts     = []
mx              = true
delivery        = "queue"
address_spaces  = [{ domain = "*" }]
max_connections = 4

[spool]
min_free = "16MiB"
"#;

fn send(raw: &mut Raw, to: &str) {
    for (line, code) in
        [("MAIL FROM:<a@contoso.test>", 250), (&format!("RCPT TO:<b@[{to}]>"), 250), ("DATA", 354), ("hello\r\n.", 250)]
    {
        let said = raw.say(line);
        assert_eq!(said.0, code, "{line}: {}", said.1);
    }
}

#[test]
fn a_domain_whose_server_stalls_does_not_take_every_place() {
    let runtime = Runtime::new().unwrap();
    let hop = |address: &str, script: &str| {
        let listener = runtime.block_on(TcpListener::bind((address, 25))).unwrap();
        runtime.block_on(async { ScriptedSmtpServer::on(listener, script, None) })
    };
    let (tarpit, healthy) = (hop(TARPIT, "greeting => wait"), hop(HEALTHY, ""));
    let mut node = TestNode::prepare();
    node.write("people.csv", "address\nann@contoso.test\n");
    node.write("fingerpost.toml", CONFIGURATION);
    node.start();
    let mut raw = Raw::hello(node.smtp);
    (0..20).for_each(|_| send(&mut raw, TARPIT));
    wait_until("a stalled connection", SOON, || !tarpit.seen().is_empty());
    (0..10).for_each(|_| send(&mut raw, HEALTHY));
    wait_until("the healthy domain's mail", SOON, || healthy.contents().len() == 10);
    assert_eq!(tarpit.seen().len(), 2, "half of four");
    // It comes to life, and all of its mail arrives.
    tarpit.follow("");
    wait_until("the other domain's mail", SOON, || tarpit.contents().len() == 20);
    node.stop();
}

/// What waits, by its recipient, with its attempts.
fn waiting(node: &TestNode) -> Vec<(String, u64)> {
    let listed = node.run(&["queue", "list", "--format", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let recipients = listed["messages"].as_array().unwrap().iter().flat_map(|message| {
        message["recipients"].as_array().unwrap().iter().map(|recipient| {
            (recipient["address"].as_str().unwrap().to_owned(), recipient["attempts"].as_u64().unwrap())
        })
    });
    recipients.collect()
}

/// Q9 by MX: mail to two domains waits for an hour; a session reaches one of them.
#[test]
fn a_session_that_reaches_a_domain_brings_its_queued_mail() {
    let cut_through =
        "delivery        = \"cut-through\"\nwhen_unreachable = \"queue\"\nretry = { first = \"1h\", max = \"1h\" }";
    let mut node = TestNode::prepare();
    node.write("people.csv", "address\nann@contoso.test\n");
    node.write("fingerpost.toml", &CONFIGURATION.replace("delivery        = \"queue\"", cut_through));
    node.start();
    let mut raw = Raw::hello(node.smtp);
    [BACK, BACK, BACK, GONE].iter().for_each(|to| send(&mut raw, to));
    drop(raw);
    wait_until("all were tried", SOON, || {
        waiting(&node).len() == 4 && waiting(&node).iter().all(|(_, attempts)| *attempts > 0)
    });
    // A start, because it must have been out of reach for a while.
    node.stop();
    let runtime = Runtime::new().unwrap();
    let listener = runtime.block_on(TcpListener::bind((BACK, 25))).unwrap();
    let hop = runtime.block_on(async { ScriptedSmtpServer::on(listener, "", None) });
    node.start();
    let before = waiting(&node);
    assert_eq!(before.len(), 4, "nothing is due: {before:?}");
    send(&mut Raw::hello(node.smtp), BACK);
    wait_until("what waited for it", SOON, || hop.contents().len() == 4);
    wait_until("the other one alone", SOON, || waiting(&node).len() == 1);
    let gone = format!("b@[{GONE}]");
    let attempts = before.iter().find(|(to, _)| *to == gone).unwrap().1;
    assert_eq!(waiting(&node), [(gone, attempts)], "it was not hastened");
    node.stop();
}
