//! The program with a mail server as a directory: what senders hear, what an operator sees, and that a server which asks
//! back ends no worse than in a 451.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::mail_server::{REFUSES_UNKNOWN, postfix};
use support::senders::Raw;
use support::tables::BASE_TABLES;
use support::test_node::TestNode;

/// A node in front of this mail server, which vouches for its own users of `contoso.test` and resolves those of
/// `fabrikam.test`. A time-out of 2 s.
fn prepare_node(server: SocketAddr) -> TestNode {
    let node = TestNode::prepare();
    node.write("people.txt", "ours@contoso.test\n");
    node.write(
        "fingerpost.toml",
        &format!(
            "{BASE_TABLES}[[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\n\
             [[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n\
             [[accepted_domain]]\ndomain = \"fabrikam.test\"\ndeliver_to = \"kerio\"\n\n\
             [[directory]]\nname = \"people\"\nkind = \"file\"\npath = \"people.txt\"\ndomains = [\"contoso.test\"]\n\n\
             [[directory]]\nname = \"vouching\"\nkind = \"call-ahead\"\nsend_connector = \"kerio\"\ntimeout = \"2s\"\n\n\
             [[directory]]\nname = \"resolving\"\nkind = \"call-ahead\"\nsend_connector = \"kerio\"\ntimeout = \"2s\"\n\
             domains = [\"fabrikam.test\"]\n\n\
             [[send_connector]]\nname = \"primary\"\norganization = \"primary\"\nsmart_hosts = [\"[127.0.0.1]:9\"]\n\n\
             [[send_connector]]\nname = \"kerio\"\norganization = \"secondary\"\nsmart_hosts = [\"[{}]:{}\"]\n\
             delivery = \"queue\"\nverify_with = \"vouching\"\naddress_spaces = [{{ domain = \"contoso.test\" }}]\n",
            server.ip(),
            server.port()
        ),
    );
    node
}

/// What RCPT is answered.
fn rcpt(node: &TestNode, address: &str) -> (u16, String) {
    let mut raw = Raw::hello(node.smtp);
    raw.say("MAIL FROM:<joe@sender.test>");
    raw.say(&format!("RCPT TO:<{address}>"))
}

fn printed(node: &TestNode, arguments: &[&str]) -> String {
    let output = node.run(arguments);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn accepts_everything(node: &TestNode, directory: &str) -> Option<f64> {
    node.metric(&format!("fingerpost_directory_accepts_everything{{directory=\"{directory}\"}}"))
}

#[test]
fn a_server_that_refuses_unknown_recipients_vouches_for_the_others() {
    let postfix = postfix(REFUSES_UNKNOWN);
    let mut node = prepare_node(postfix.address());
    node.start();
    assert_eq!(accepts_everything(&node, "vouching"), Some(0.0));
    assert_eq!(rcpt(&node, "alice@contoso.test").0, 250);
    assert!(rcpt(&node, "nobody@contoso.test").1.starts_with("550 5.1.1"));
    let looked = printed(&node, &["directory", "lookup", "alice@contoso.test"]);
    assert!(looked.contains("mailbox: kerio: 250 2.1.5 Ok, by RCPT TO accepted"), "{looked}");
    assert!(looked.contains("vouching vouches for alice@contoso.test"), "{looked}");
    let stats = printed(&node, &["directory", "stats"]);
    assert!(stats.contains("vouching   call-ahead  up"), "{stats}");
    let checked = printed(&node, &["check", "--connect"]);
    assert!(checked.contains("directory vouching: answers, and does not know postmaster@contoso.test"), "{checked}");
}

#[test]
fn one_that_accepts_everything_vouches_for_nobody_and_holds_up_nobody_but_resolves_nobody() {
    let postfix = postfix("");
    let mut node = prepare_node(postfix.address());
    node.start();
    assert_eq!(rcpt(&node, "nobody@contoso.test").0, 250, "relayed, as without verify_with");
    assert!(rcpt(&node, "anybody@fabrikam.test").1.starts_with("451 4.4.3"));
    for directory in ["vouching", "resolving"] {
        assert_eq!(accepts_everything(&node, directory), Some(1.0), "{directory}");
    }
    let log = node.logged(&["alert=true", "let it refuse unknown recipients at RCPT"]);
    assert!(log.contains("kerio accepts every address of contoso.test"), "{log}");
    let route = printed(&node, &["route", "nobody@contoso.test"]);
    assert!(route.starts_with("nobody@contoso.test: relayed through kerio"), "{route}");
    assert!(route.contains("relayed without its word"), "{route}");
    let looked = printed(&node, &["directory", "lookup", "nobody@contoso.test"]);
    assert!(looked.contains("unavailable: kerio accepts every address of contoso.test"), "{looked}");
    let stats = printed(&node, &["directory", "stats"]);
    assert!(stats.contains("resolving  call-ahead  accepts everything"), "{stats}");
    let checked = node.run(&["check", "--connect"]);
    let text = String::from_utf8_lossy(&checked.stdout);
    assert!(text.contains("FAILED  directory resolving: kerio accepts every address of fabrikam.test"), "{text}");
    assert_eq!(checked.status.code(), Some(1));
}

/// A mail server that takes mail for `known@`, and asks the node about everybody else before it answers RCPT. How often
/// it was asked about each is counted.
fn asking_back(node: Arc<Mutex<Option<SocketAddr>>>) -> (SocketAddr, Arc<Mutex<HashMap<String, usize>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<HashMap<String, usize>>>::default());
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (node, counted) = (node.lock().unwrap().unwrap(), Arc::clone(&counted));
            std::thread::spawn(move || serve(&stream, node, &counted));
        }
    });
    (address, asked)
}

fn serve(stream: &TcpStream, node: SocketAddr, counted: &Mutex<HashMap<String, usize>>) {
    let say = |reply: &str| {
        let mut stream = stream;
        stream.write_all(format!("{reply}\r\n").as_bytes())
    };
    let _ = say("220 kerio.contoso.test ESMTP");
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let reply = if line.starts_with("RCPT TO:") {
            *counted.lock().unwrap().entry(line.clone()).or_default() += 1;
            match line.starts_with("RCPT TO:<known@") {
                true => "250 ok".to_owned(),
                false => ask(node, &line),
            }
        } else {
            "250 ok".to_owned()
        };
        let _ = say(&reply);
    }
}

fn ask(node: SocketAddr, rcpt: &str) -> String {
    let mut raw = Raw::hello(node);
    raw.say("MAIL FROM:<>");
    raw.say(rcpt).1.trim_end().to_owned()
}

#[test]
fn a_server_that_asks_back_joins_the_question_and_no_probe_causes_another() {
    let known = Arc::new(Mutex::new(None));
    let (server, asked) = asking_back(Arc::clone(&known));
    let mut node = prepare_node(server);
    *known.lock().unwrap() = Some(node.smtp);
    node.start();
    // About the last one it asks nothing; but about the address that nobody has, which belongs to the question.
    for address in ["alice@contoso.test", "bob@fabrikam.test", "known@fabrikam.test"] {
        let start = Instant::now();
        let (_, said) = rcpt(&node, address);
        assert!(said.starts_with("451 4.4.3"), "{said}");
        let waited = start.elapsed();
        assert!(waited > Duration::from_secs(1) && waited < Duration::from_secs(4), "the time-out: {waited:?}");
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 4, "{asked:?}");
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");
}
