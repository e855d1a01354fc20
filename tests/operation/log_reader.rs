//! Standard error is a pipe that nobody reads, as behind a log shipper that hangs: mail goes on, warnings are kept, the
//! program ends when it is told to, and a reader who comes back learns how many lines were lost.

use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::senders::{Letter, Raw};
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;
use support::{wait_until, within};

const LOST: &str = "fingerpost_log_lines_lost_total";
/// More than any of these takes; what is shown is that they end, not how fast.
const LIMIT: Duration = Duration::from_secs(60);

/// Alice has a Maildir.
fn prepare_node() -> TestNode {
    let node = TestNode::prepare();
    node.write("people.csv", "address\nalice@contoso.test\n");
    // What strangers cause would be told as sums.
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\norganization = \"senders\"\n\n";
    let mailboxes = "[[send_connector]]\nname = \"mailboxes\"\nprotocol = \"maildir\"\npath = \"{folder}/mail\"\n";
    let senders = send_connector("senders", ([127, 0, 0, 9], 25).into(), "organization = \"senders\"");
    let domain = accepted_domain("contoso.test", "mailboxes");
    node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{domain}{mailboxes}{senders}"));
    node
}

/// Sends alice a message: the code after the dot.
fn send(raw: &mut Raw, header: &str) -> u16 {
    let domain = format!("{0}.{0}.{0}.test", "x".repeat(60));
    let from = format!("{}@{domain}", "s".repeat(64));
    let bytes = format!("{header}\r\nHello.\r\n").into_bytes();
    let letter = Letter { from: &from, to: &["alice@contoso.test"], bytes: &bytes };
    raw.transact(&letter, "").1.expect("alice is known").0
}

/// Mail with long names until lines of the log are lost.
fn fill(node: &TestNode) {
    for batch in 0..400 {
        let mut raw = Raw::hello(node.smtp);
        for number in 0..50 {
            let header = format!("Message-ID: <{}-{batch}-{number}@sender.test>\r\n", "m".repeat(220));
            assert_eq!(send(&mut raw, &header), 250);
        }
        if node.metric(LOST).is_some_and(|lost| lost > 0.0) {
            return;
        }
    }
    panic!("no line was lost after 20,000 messages: {:?}", node.metric(LOST));
}

/// A message that has gone round and round is refused with a warning.
fn warn(node: &TestNode, number: usize) {
    let header = format!("{}Message-ID: <round-{number}@sender.test>\r\n", "Received: from a by b\r\n".repeat(60));
    assert_eq!(send(&mut Raw::hello(node.smtp), &header) / 100, 5);
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().expect("a pipe")
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_keeps_every_warning() {
    let (reader, writer) = pipe();
    let mut node = prepare_node();
    node.start_with_log(writer);
    fill(&node);
    (0..100).for_each(|number| warn(&node, number));
    assert_eq!(send(&mut Raw::hello(node.smtp), "Message-ID: <after@sender.test>\r\n"), 250);
    assert_eq!(node.get("/healthz").map(|(status, _)| status), Some(200));
    wait_until("alice has it", LIMIT, || has_mail(&node, "<after@sender.test>"));

    // The reader is back.
    let lost = node.metric(LOST).expect("it is there");
    let lines = std::thread::spawn(move || BufReader::new(reader).lines().map(Result::unwrap).collect::<Vec<_>>());
    wait_until("lines go out again", LIMIT, || {
        let before = node.metric(LOST);
        send(&mut Raw::hello(node.smtp), "");
        node.metric(LOST) == before
    });
    node.signal("TERM");
    assert_eq!(node.ended(LIMIT), Some(0));
    let lines = lines.join().unwrap();
    let rounds: Vec<_> = lines.iter().filter(|line| line.contains("too many hops")).collect();
    assert_eq!(rounds.len(), 100, "a warning was lost");
    let in_order = |(number, line): (usize, &&String)| line.contains(&format!("\"<round-{number}@sender.test>\""));
    assert!(rounds.iter().enumerate().all(in_order), "{rounds:?}");
    let told = lines.iter().filter(|line| line.contains("log lines were lost here"));
    let told: u64 = told.filter_map(|line| line.split_once(" lines=")?.1.split(' ').next()?.parse::<u64>().ok()).sum();
    assert!(told as f64 >= lost && lost > 0.0, "{told} are told, {lost} were lost before the reader came back");
    assert!(lines.last().is_some_and(|line| line.ends_with(": stopped")), "{:?}", lines.last());
}

fn has_mail(node: &TestNode, message_id: &str) -> bool {
    let found = Command::new("grep").args(["-rlF", message_id]).arg(node.path("mail")).output().expect("grep");
    found.status.success()
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_it_from_ending() {
    let (reader, writer) = pipe();
    let mut node = prepare_node();
    node.start_with_log(writer);
    fill(&node);
    // Others who do not go by themselves either: a session, a client of each HTTP server.
    let session = Raw::hello(node.smtp);
    let http = [node.metrics, node.admin()].map(|address| TcpStream::connect(address).unwrap());
    node.signal("TERM");
    assert_eq!(node.ended(LIMIT), Some(0));
    drop((reader, session, http));
}

/// A pipe that takes nothing any more.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe();
    let filled = Command::new("timeout").args(["0.5", "cat", "/dev/zero"]).stdout(writer.try_clone().unwrap()).status();
    assert_eq!(filled.expect("timeout runs").code(), Some(124), "the pipe takes everything");
    (reader, writer)
}

#[test]
fn what_does_not_start_ends_all_the_same() {
    let (reader, writer) = full_pipe();
    let mut node = prepare_node();
    node.write("fingerpost.toml", "[server]\nwrong = 1\n");
    node.launch_with_log(writer);
    assert_eq!(node.ended(LIMIT), Some(2));
    drop(reader);
}

#[test]
fn it_starts_and_serves_with_a_log_that_is_full_from_the_beginning() {
    let (reader, writer) = full_pipe();
    let mut node = prepare_node();
    node.start_with_log(writer);
    assert_eq!(send(&mut Raw::hello(node.smtp), "Message-ID: <first@sender.test>\r\n"), 250);
    node.signal("TERM");
    assert_eq!(node.ended(LIMIT), Some(0));
    drop(reader);
}

#[test]
fn it_goes_on_when_the_reader_has_gone() {
    let (reader, writer) = pipe();
    let mut node = prepare_node();
    node.start_with_log(writer);
    drop(reader);
    assert_eq!(send(&mut Raw::hello(node.smtp), "Message-ID: <first@sender.test>\r\n"), 250);
    wait_until("lines are counted", LIMIT, || node.metric(LOST).is_some_and(|lost| lost > 0.0));
    node.signal("TERM");
    assert_eq!(node.ended(LIMIT), Some(0));
}

#[test]
fn the_demo_shows_everything_all_the_same() {
    let _alone = crate::DEMO.lock();
    let (reader, writer) = full_pipe();
    let mut demo = Command::new(support::program());
    demo.args(["demo", "--once", "--log", "debug"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
    let mut demo = demo.spawn().expect("the program was built");
    let mut ended = None;
    let is_over = within(2 * LIMIT, || {
        ended = demo.try_wait().expect("a child");
        ended.is_some()
    });
    if !is_over {
        let _ = demo.kill();
        let _ = demo.wait();
    }
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
    drop(reader);
}
