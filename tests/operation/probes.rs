//! Whether we live is answered at once, whatever other clients of the same port do: so is mail, and the API.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use support::tables::{BASE_TABLES, PEOPLE};
use support::test_node::TestNode;
use support::wait_until;

/// So many domains that `/metrics` does not fit the kernel's buffers.
const DOMAINS: usize = 1_000;

fn prepare_node() -> TestNode {
    let node = TestNode::prepare();
    node.write("people.csv", "address\nalice@contoso.test\n");
    let door = "[[receive_connector]]\nname = \"internet\"\nbind = [\"{smtp}\"]\n\n";
    let mailboxes = "[[send_connector]]\nname = \"mailboxes\"\nprotocol = \"maildir\"\npath = \"{folder}/mail\"\n\n";
    let long = ["d".repeat(60), "d".repeat(60), "d".repeat(60)].join(".");
    let domain =
        |number| format!("[[accepted_domain]]\ndomain = \"d{number}.{long}.test\"\ndeliver_to = \"mailboxes\"\n\n");
    let domains: String = (0..DOMAINS).map(domain).collect();
    node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{door}{mailboxes}{domains}"));
    node
}

/// A client that has said this, and reads nothing; its buffer is small.
fn client(to: SocketAddr, says: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2_048).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    socket.connect(&to.into()).expect("it listens");
    let mut stream = TcpStream::from(socket);
    let _ = stream.write_all(says.as_bytes()); // it may have been cut already
    stream
}

fn asking(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

#[test]
fn whether_we_live_is_answered_whatever_others_do() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised");
    let mut node = prepare_node();
    node.start();
    let mut readers: Vec<_> = (0..50).map(|_| client(node.metrics, &asking("/metrics"))).collect();
    let mut crowd: Vec<_> = (0..1_000).map(|_| client(node.metrics, "")).collect();
    crowd.extend((0..200).map(|_| client(node.metrics, "GET /healthz HTTP/1.1\r\nHost: loc")));
    crowd.extend((0..200).map(|_| client(node.metrics, &asking("/healthz").repeat(100))));
    for round in 0..10 {
        // Each has a time-out of 5 s.
        assert_eq!(node.get("/healthz"), Some((200, "alive\n".to_owned())), "round {round}");
        assert_eq!(node.get("/readyz").map(|(status, _)| status), Some(200), "round {round}");
        let (status, text) = node.get("/metrics").expect("who reads has an answer");
        assert!(status == 200 && text.len() > 1 << 20 && text.ends_with('\n'), "{} octets", text.len());
        readers.retain_mut(|reader| reader.read(&mut [0]).is_ok_and(|read| read == 1)); // an octet at a time
        crowd.extend((0..100).map(|_| client(node.metrics, "")));
    }
    assert!(!readers.is_empty(), "who reads slowly has his places");
    wait_until("no more than its places are taken", Duration::from_secs(20), || connections(&node) <= 192 + 50);
}

/// Sockets of the node.
fn connections(node: &TestNode) -> usize {
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", node.process_id())).expect("it runs");
    let target = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.ok()?.path()).ok();
    descriptors.filter_map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn the_api_answers_whatever_others_do() {
    let mut node = prepare_node();
    node.start();
    let admin = node.admin();
    let crowd: Vec<_> = (0..300).map(|number| client(admin, if number % 2 == 0 { "" } else { "GET / HT" })).collect();
    let turned_away: Vec<_> = (0..100).map(|_| client(admin, &asking("/api/status"))).collect();
    for _ in 0..5 {
        let output = node.run(&["status", "--format", "json"]);
        assert!(output.status.success(), "{output:?}");
        assert!(output.stdout.len() > 10 * DOMAINS);
    }
    drop((crowd, turned_away));
}

/// What newcomers do, one after another, until it is over; how many came.
fn newcomers(to: SocketAddr, kind: usize, over: &AtomicBool) -> usize {
    let (mut held, mut came) = (VecDeque::new(), 0);
    while !over.load(Ordering::SeqCst) {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else { continue };
        came += 1;
        match kind % 4 {
            0 => {}
            1 => drop(stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: loc")),
            2 => {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)); // closing resets it
                continue;
            }
            // An octet of a request at a time, over all that it has.
            _ => held.iter_mut().for_each(|stream: &mut TcpStream| drop(stream.write_all(b"G"))),
        }
        held.push_back(stream);
        if held.len() > 100 {
            held.pop_front();
        }
    }
    came
}

/// Whenever a probe comes it is answered, however many newcomers come in the same moment. One in a thousand, or one, may need more
/// than the second that it has to connect: the kernel forgets a SYN while its queue is full, and sends it again then.
#[test]
fn a_probe_is_answered_in_the_midst_of_newcomers() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit may be raised");
    let mut node = prepare_node();
    node.start();
    let over = AtomicBool::new(false);
    let (metrics, over) = (node.metrics, &over);
    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..12).map(|kind| scope.spawn(move || newcomers(metrics, kind, over))).collect();
        let began = Instant::now();
        let (mut answered, mut asked, mut late) = (0, 0, 0);
        while began.elapsed() < Duration::from_secs(8) {
            let this = Instant::now();
            answered += usize::from(node.get("/healthz") == Some((200, "alive\n".to_owned())));
            late += usize::from(this.elapsed() > Duration::from_secs(1));
            asked += 1;
        }
        over.store(true, Ordering::SeqCst);
        let came: usize = crowd.into_iter().map(|crowd| crowd.join().expect("it came")).sum();
        println!("{answered} of {asked} probes answered, {late} after more than a second, among {came} newcomers");
        assert!(came > 1_000, "{came}");
        assert!(answered + 1 + asked / 1_000 >= asked, "{answered} of {asked} among {came} newcomers");
    });
}
