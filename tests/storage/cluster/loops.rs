//! Loops over several nodes (docs/loops.md): a next hop that brings its mail back to another node each time. Each rule ends
//! them as on one node, or at most as many passes later as there are other nodes.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};

use support::senders::{Letter, Raw};
use support::sink::{Sink, Sunk};
use support::tables::{BASE_TABLES, PEOPLE, send_connector};
use support::test_node::TestNode;

use super::*;

const NODES: usize = 3;
/// Where the next hop is, and from where it brings mail back.
const SECONDARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const BOB: &str = "bob@contoso.test";
const PASS: Duration = Duration::from_secs(20);

/// How mail is brought back.
#[derive(Debug, Clone, Copy)]
enum Back {
    /// By a receive connector of the next hop's organisation.
    ByItsConnector,
    /// As a stranger's.
    ByAnybodys,
}

/// A next hop that brings everything back: what it does to a header section, for the how-manieth time.
struct Returner {
    does: &'static str,
    change: fn(&[String], usize) -> Vec<String>,
    /// Passes at one node: as many as the rule lets through.
    alone: usize,
}

const RETURNERS: &[Returner] = &[
    Returner { does: "nothing to it", change: |fields, _| fields.to_vec(), alone: 1 },
    Returner { does: "away with Received", change: |fields, _| without(fields, &["Received"]), alone: 1 },
    Returner { does: "away with stamps", change: |fields, _| without(fields, &["Fingerpost-Route"]), alone: 2 },
    Returner {
        does: "away with both",
        change: |fields, _| without(fields, &["Received", "Fingerpost-Route"]),
        alone: 2,
    },
    Returner {
        does: "a new Message-ID, away with both",
        change: |fields, pass| renamed(&without(fields, &["Received", "Fingerpost-Route"]), pass),
        alone: 8,
    },
    Returner { does: "a new Message-ID and subject", change: |fields, pass| again(&renamed(fields, pass)), alone: 9 },
    Returner {
        does: "a new Message-ID and subject, away with stamps",
        change: |fields, pass| again(&renamed(&without(fields, &["Fingerpost-Route"]), pass)),
        alone: 13,
    },
];

/// Without these fields.
fn without(fields: &[String], names: &[&str]) -> Vec<String> {
    let is_kept = |field: &&String| !names.iter().any(|name| field.starts_with(&format!("{name}:")));
    fields.iter().filter(is_kept).cloned().collect()
}

/// With another Message-ID.
fn renamed(fields: &[String], pass: usize) -> Vec<String> {
    let mut fields = without(fields, &["Message-ID"]);
    fields.push(format!("Message-ID: <{pass}@secondary.test>\r\n"));
    fields
}

/// With a subject that grows.
fn again(fields: &[String]) -> Vec<String> {
    fields.iter().map(|field| field.replace("Subject: ", "Subject: again ")).collect()
}

/// The content with its header section changed.
fn changed_by(returner: &Returner, content: &[u8], pass: usize) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).unwrap();
    let (section, body) = text.split_once("\r\n\r\n").unwrap();
    let mut fields: Vec<String> = Vec::new();
    for line in section.split("\r\n") {
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => field.push_str(&format!("{line}\r\n")),
            _ => fields.push(format!("{line}\r\n")),
        }
    }
    format!("{}\r\n{body}", (returner.change)(&fields, pass).concat()).into_bytes()
}

/// Nodes `n0` to `n2`, for which everybody at contoso.test is unresolved and the secondary's.
fn nodes(setup: &Setup, secondary: SocketAddr, back: Back) -> Vec<TestNode> {
    let url = postgres::urls(&[&setup.primary, &setup.standby]);
    let connector = match back {
        Back::ByItsConnector => {
            "[[receive_connector]]\nname = \"from-secondary\"\nbind = [\"{smtp}\"]\n\
             remote_networks = [\"127.0.0.3/32\"]\norganization = \"secondary\"\n\n"
        }
        Back::ByAnybodys => "",
    };
    let mut nodes: Vec<_> = (0..NODES)
        .map(|number| {
            let node = TestNode::prepare();
            let spaces = "cut_through_patience = \"6s\"\norganization = \"secondary\"\naddress_spaces = [{ domain = \"contoso.test\" }]";
            let tables = [
                &BASE_TABLES.replace("[server]\n", "[server]\ninstallation = \"contoso\"\n"),
                "[loop_detection]\nmax_received = 12\n\n",
                connector,
                "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\nremote_networks = [\"127.0.0.0/8\"]\n\n",
                PEOPLE,
                "[[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"internal-relay\"\ndeliver_to = \"primary\"\n\n",
                &send_connector("primary", secondary, "organization = \"primary\""),
                &send_connector("secondary", secondary, spaces),
                &format!("[cluster]\ndatabase = \"{url}?sslmode=disable\"\nnode = \"n{number}\"\n"),
            ];
            node.write("fingerpost.toml", &tables.concat());
            node.write("people.csv", "address\n");
            node
        })
        .collect();
    let made = nodes[0].run(&["cluster", "init"]);
    assert!(made.status.success(), "{made:?}");
    nodes.iter_mut().for_each(TestNode::start);
    nodes
}

fn letter_to(to: &str) -> Vec<u8> {
    let letter = format!(
        "From: ann@outside.test\r\nTo: {to}\r\nSubject: x\r\nMessage-ID: <{to}>\r\n\
         Date: Sat, 21 Nov 2026 04:39:00 +0000\r\n\r\nbody\r\n"
    );
    letter.into_bytes()
}

/// Hands a message to one node after the other, as the next hop returns it, until one refuses it: how often the next hop
/// took it, and the refusal.
fn passes(nodes: &[TestNode], came: &Receiver<Sunk>, returner: &Returner, to: &str) -> (usize, String) {
    let mut content = letter_to(to);
    let mut from = Ipv4Addr::LOCALHOST;
    for pass in 0..100 {
        let mut raw = Raw::hello_from(from, nodes[pass % nodes.len()].smtp);
        let letter = Letter { from: "ann@outside.test", to: &[to], bytes: &content };
        let (replies, end) = raw.transact(&letter, "");
        let (code, text) = end.or_else(|| replies.last().cloned()).unwrap();
        if code != 250 {
            return (pass, text);
        }
        let sunk = came.recv_timeout(PASS).expect("it is sent on");
        assert_eq!(sunk.to, [to]);
        content = changed_by(returner, &sunk.bytes, pass);
        from = SECONDARY;
    }
    panic!("{}: it circles for ever", returner.does);
}

fn every_rule_ends_it(back: Back) {
    let setup = Setup::start();
    let (send, came) = channel();
    let send = parking_lot::Mutex::new(send);
    let keep = Arc::new(move |sunk: &Sunk| send.lock().send(sunk.clone()).unwrap());
    let secondary = Sink::start_at((SECONDARY, 0).into(), keep);
    let nodes = nodes(&setup, secondary.address(), back);
    for (number, returner) in RETURNERS.iter().enumerate() {
        for together in 1..=NODES {
            let (count, refusal) =
                passes(&nodes[..together], &came, returner, &format!("r{number}-{together}@contoso.test"));
            println!("{back:?}, {}, {together} nodes: {count} passes, {}", returner.does, refusal.trim_end());
            assert!(refusal.starts_with("554 5.4.6"), "{}: {refusal}", returner.does);
            let most = returner.alone + together - 1;
            assert!(count <= most, "{}: {count} passes over {together} nodes, not {most}", returner.does);
            assert!(together > 1 || count == returner.alone, "{}: {count} passes at one node", returner.does);
        }
    }
}

#[test]
fn a_loop_over_several_nodes_ends_by_each_rule() {
    every_rule_ends_it(Back::ByItsConnector);
}

#[test]
fn so_does_one_that_comes_in_as_anybodys() {
    every_rule_ends_it(Back::ByAnybodys);
}

/// Where the others cannot be asked, nobody decides.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_waits_while_the_database_is_away() {
    let setup = Setup::start();
    let (send, came) = channel();
    let send = parking_lot::Mutex::new(send);
    let keep = Arc::new(move |sunk: &Sunk| send.lock().send(sunk.clone()).unwrap());
    let secondary = Sink::start_at((SECONDARY, 0).into(), keep);
    let nodes = nodes(&setup, secondary.address(), Back::ByItsConnector);
    let returner = &RETURNERS[3];
    let hand_in = |from, content: &[u8]| {
        let letter = Letter { from: "ann@outside.test", to: &[BOB], bytes: content };
        let (replies, end) = Raw::hello_from(from, nodes[0].smtp).transact(&letter, "");
        end.or_else(|| replies.last().cloned()).unwrap()
    };
    let (code, text) = hand_in(Ipv4Addr::LOCALHOST, &letter_to(BOB));
    assert_eq!(code, 250, "{text}");
    let came_back = changed_by(returner, &came.recv_timeout(PASS).unwrap().bytes, 0);
    [&setup.primary, &setup.standby].into_iter().for_each(Postgres::freeze);
    let (code, text) = hand_in(SECONDARY, &came_back);
    assert!(text.starts_with("451 4.3.0 this message may be in a routing loop"), "{code} {text}");
    [&setup.primary, &setup.standby].into_iter().for_each(Postgres::thaw);
    // It has come back once, however often it was tried.
    let passes = || hand_in(SECONDARY, &came_back).0 == 250;
    eventually("it passes", Duration::from_secs(20), passes).await;
    let (code, text) = hand_in(SECONDARY, &came_back);
    assert!(code == 554 && text.contains("5.4.6"), "{code} {text}");
}

/// A next hop that asks one node after the other about a recipient that it is asked about, and says what they say. Returns
/// its address; counts how often it was asked.
fn asks_back(doors: Arc<parking_lot::Mutex<Vec<SocketAddr>>>, asked: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind((SECONDARY, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (doors, asked) = (doors.clone(), asked.clone());
            std::thread::spawn(move || answer(&stream, &doors, &asked));
        }
    });
    address
}

fn answer(
    stream: &std::net::TcpStream,
    doors: &parking_lot::Mutex<Vec<SocketAddr>>,
    asked: &AtomicUsize,
) -> Option<()> {
    use std::io::BufRead as _;
    let mut out = stream.try_clone().ok()?;
    out.write_all(b"220 secondary.test ESMTP\r\n").ok()?;
    for line in std::io::BufReader::new(stream).lines() {
        let line = line.ok()?;
        let reply = match line.get(..4)? {
            "RCPT" => {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                let door = { doors.lock().clone() };
                let mut raw = Raw::hello_from(SECONDARY, door[(number + 1) % door.len()]);
                raw.say("MAIL FROM:<ann@outside.test>");
                raw.say(&line).1
            }
            "QUIT" => return None,
            _ => "250 2.0.0 ok\r\n".to_owned(),
        };
        out.write_all(reply.as_bytes()).ok()?;
    }
    Some(())
}

#[test]
fn so_does_a_question_that_goes_round() {
    let setup = Setup::start();
    let (doors, asked) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let secondary = asks_back(Arc::clone(&doors), asked.clone());
    let nodes = nodes(&setup, secondary, Back::ByItsConnector);
    for together in 1..=NODES {
        *doors.lock() = nodes[..together].iter().map(|node| node.smtp).collect();
        asked.store(0, Ordering::SeqCst);
        let mut raw = Raw::hello(nodes[0].smtp);
        assert_eq!(raw.say("MAIL FROM:<ann@outside.test>").0, 250);
        let (code, text) = raw.say(&format!("RCPT TO:<asked-{together}@contoso.test>"));
        let count = asked.load(Ordering::SeqCst);
        println!("{together} nodes: asked {count} times, {}", text.trim_end());
        assert!((500..600).contains(&code), "{text}");
        assert!((1..=together).contains(&count), "asked {count} times over {together} nodes");
    }
}
