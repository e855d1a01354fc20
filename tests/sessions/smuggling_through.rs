//! SMTP smuggling through a whole node, to a next hop that takes any end of data for one: what comes in as one message
//! goes out as one message, or is refused. (`tests/sessions/smuggling.rs` splits the protocol at every byte.)

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::mail::find;
use support::senders::Raw;
use support::test_node::TestNode;
use support::wait_until;

/// What has been taken for an end of data by one server or another. The true one is `\r\n.\r\n`.
const VARIANTS: [&[u8]; 8] =
    [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n\x00.\r\n"];

const SMUGGLED: &[u8] =
    b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<known1@contoso.test>\r\nDATA\r\nX-Smuggled: yes\r\n\r\nsmuggled";

#[test]
fn one_message_in_is_one_message_out_or_refused() {
    through("queue");
}

#[test]
fn one_message_in_is_one_message_out_or_refused_in_cut_through() {
    through("cut-through");
}

fn through(delivery: &str) {
    let hop = LenientHop::start();
    let mut node = TestNode::prepare();
    node.write("recipients.csv", "address\nknown0@contoso.test\nknown1@contoso.test\n");
    node.write("fingerpost.toml", &configuration(hop.address).replace("\"queue\"", &format!("\"{delivery}\"")));
    node.start();
    let mut sent = 0;
    let mut refused = 0;
    for variant in VARIANTS {
        for verb in ["DATA", "BDAT"] {
            let content = [b"Subject: x\r\n\r\nhello".as_slice(), variant, SMUGGLED].concat();
            let around = "Subject: x\r\n\r\nhello".len();
            for split in around.saturating_sub(1)..=around + variant.len() + 1 {
                let code = if verb == "DATA" { data(&node, &content, split) } else { bdat(&node, &content, split) };
                assert!(code == 250 || (500..600).contains(&code), "{variant:?} by {verb} split at {split}: {code}");
                if code == 250 { sent += 1 } else { refused += 1 }
            }
        }
    }
    let queue_empty =
        || node.metric("fingerpost_queue_messages{send_connector=\"primary\",state=\"waiting\"}") == Some(0.0);
    wait_until("the queue is empty", Duration::from_secs(30), queue_empty);
    let taken = hop.taken.lock().expect("no panics").clone();
    println!("{sent} accepted, {refused} refused, {} arrived", taken.len());
    assert!(refused > 0, "nothing was refused: were the variants sent?");
    assert!(taken.len() <= sent, "{} messages came of {sent} accepted", taken.len());
    for message in taken {
        assert!(!message.starts_with(b"X-Smuggled"), "a message was smuggled: {:?}", String::from_utf8_lossy(&message));
    }
}

/// Sends the content by DATA in two packets; the last reply's code.
fn data(node: &TestNode, content: &[u8], split: usize) -> u16 {
    let mut raw = envelope(node);
    assert_eq!(raw.say("DATA").0, 354);
    raw.send(&content[..split]);
    raw.pause();
    raw.send(&content[split..]);
    raw.send(b"\r\n.\r\n");
    let (code, text) = raw.reply();
    // Whatever it was, the session goes on with our command, not with theirs.
    raw.send(b"NOOP\r\nQUIT\r\n");
    let rest: Vec<u16> = std::iter::from_fn(|| Some(raw.reply().0).filter(|code| *code != 0)).collect();
    assert!(rest.is_empty() || rest == [250, 221], "after {code} {text}: {rest:?}");
    code
}

/// The same by BDAT.
fn bdat(node: &TestNode, content: &[u8], split: usize) -> u16 {
    let mut raw = envelope(node);
    raw.send(format!("BDAT {} LAST\r\n", content.len()).as_bytes());
    raw.send(&content[..split]);
    raw.pause();
    raw.send(&content[split..]);
    let (code, _) = raw.reply();
    assert_eq!(raw.say("QUIT").0, 221);
    code
}

fn envelope(node: &TestNode) -> Raw {
    let mut raw = Raw::hello(node.smtp);
    assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
    assert_eq!(raw.say("RCPT TO:<known0@contoso.test>").0, 250);
    raw
}

fn configuration(hop: SocketAddr) -> String {
    format!(
        "[server]\nhostname = \"mx.contoso.test\"\nstate_dir = \"{{folder}}/state\"\n\
         [admin]\nmetrics_bind = \"{{metrics}}\"\nbind = \"{{admin}}\"\n\
         [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\nmax_connections_per_ip = 1000\n\
         [[accepted_domain]]\ndomain = \"contoso.test\"\ntype = \"authoritative\"\ndeliver_to = \"primary\"\n\
         [[directory]]\nname = \"people\"\nkind = \"file\"\npath = \"recipients.csv\"\n\
         [[send_connector]]\nname = \"primary\"\nsmart_hosts = [\"[{}]:{}\"]\ndelivery = \"queue\"\n\
         [spool]\nmin_free = \"16MiB\"\n\
         [[send_connector]]\nname = \"reports\"\ndelivery = \"queue\"\nsmart_hosts = [\"[{}]:{}\"]\naddress_spaces = [{{ domain = \"*\" }}]\n",
        hop.ip(),
        hop.port(),
        hop.ip(),
        hop.port()
    )
}

/// A next hop that takes every variant for the end of data.
struct LenientHop {
    address: SocketAddr,
    taken: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl LenientHop {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 5), 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let taken = Arc::new(Mutex::new(Vec::new()));
        let keep = taken.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let keep = keep.clone();
                std::thread::spawn(move || converse(stream, &keep));
            }
        });
        Self { address, taken }
    }
}

/// One session: bytes come in, each command or content is cut off where this careless server sees its end.
fn converse(mut stream: TcpStream, keep: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    stream.write_all(b"220 careless.test\r\n")?;
    let mut buffer = Vec::new();
    let mut in_content = false;
    loop {
        let ends: Vec<&[u8]> = if in_content { [VARIANTS.as_slice(), &[b"\r\n.\r\n"]].concat() } else { vec![b"\n"] };
        let first = ends.iter().filter_map(|end| Some((find(&buffer, end)?, end.len()))).min();
        let Some((at, length)) = first else {
            let mut chunk = [0; 4096];
            let read = stream.read(&mut chunk)?;
            if read == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&chunk[..read]);
            continue;
        };
        let piece: Vec<u8> = buffer.drain(..at + length).collect();
        let reply: &[u8] = if in_content {
            keep.lock().expect("no panics").push(own_content(&piece));
            b"250 2.0.0 taken\r\n"
        } else if piece.to_ascii_uppercase().starts_with(b"DATA") {
            b"354 go on\r\n"
        } else {
            b"250 ok\r\n"
        };
        in_content = reply.starts_with(b"354");
        stream.write_all(reply)?;
    }
}

/// Without the header fields that Fingerpost puts on top.
fn own_content(piece: &[u8]) -> Vec<u8> {
    let start = find(piece, b"Subject: x").or_else(|| find(piece, b"X-Smuggled"));
    piece[start.unwrap_or(0)..].to_vec()
}
