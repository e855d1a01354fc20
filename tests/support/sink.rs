//! An SMTP server on the sender's side: it takes everything and keeps it in memory.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// One message as it came over the wire.
#[derive(Debug, Clone)]
pub struct Sunk {
    /// MAIL FROM, without brackets.
    pub from: String,
    /// RCPT TO, without brackets.
    pub to: Vec<String>,
    /// The content, dots removed, CRLF line ends.
    pub bytes: Vec<u8>,
}

/// A running sink. Its threads end with the process.
pub struct Sink {
    address: SocketAddr,
    sunk: Arc<Mutex<Vec<Sunk>>>,
    /// The most connections at once.
    most: Arc<AtomicUsize>,
}

/// Is called with every message before its 250 is sent.
pub type OnMessage = Arc<dyn Fn(&Sunk) + Send + Sync>;

impl Sink {
    /// Listens on a free port of `ip`.
    pub fn start(ip: Ipv4Addr) -> Self {
        Self::start_at(SocketAddr::from((ip, 0)), Arc::new(|_| {}))
    }

    /// Listens there.
    pub fn start_at(address: SocketAddr, on_message: OnMessage) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let sunk = Arc::new(Mutex::new(Vec::new()));
        let (kept, most, open) = (sunk.clone(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let seen = most.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, on_message) = (kept.clone(), on_message.clone());
                let open = open.clone();
                seen.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    converse(&stream, &kept, &on_message);
                    open.fetch_sub(1, Ordering::SeqCst)
                });
            }
        });
        Self { address, sunk, most }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most connections that it has had at once.
    pub fn most_connections(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Everything that came.
    pub fn all(&self) -> Vec<Sunk> {
        self.sunk.lock().clone()
    }

    /// What came for one address.
    pub fn for_address(&self, address: &str) -> Vec<Sunk> {
        let mut all = self.all();
        all.retain(|sunk| sunk.to.iter().any(|to| to.eq_ignore_ascii_case(address)));
        all
    }
}

/// One session; any error ends it.
fn converse(stream: &TcpStream, kept: &Mutex<Vec<Sunk>>, on_message: &OnMessage) -> Option<()> {
    let mut out = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream);
    let mut say = |text: &str| out.write_all(text.as_bytes()).ok();
    say("220 sink.test ESMTP\r\n")?;
    let (mut from, mut to) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let upper = line.to_ascii_uppercase();
        match upper.get(..4).unwrap_or_default() {
            "EHLO" => {
                say("250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n")?
            }
            "MAIL" => {
                from = bracketed(&line);
                to.clear();
                say("250 2.1.0 ok\r\n")?;
            }
            "RCPT" => {
                to.push(bracketed(&line));
                say("250 2.1.5 ok\r\n")?;
            }
            "DATA" => {
                say("354 go on\r\n")?;
                let bytes = content(&mut lines)?;
                let message = Sunk { from: from.clone(), to: std::mem::take(&mut to), bytes };
                on_message(&message);
                kept.lock().push(message);
                say("250 2.0.0 taken\r\n")?;
            }
            "QUIT" => {
                say("221 2.0.0 bye\r\n")?;
                return Some(());
            }
            _ => say("250 2.0.0 ok\r\n")?,
        }
    }
}

fn bracketed(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map(|(address, _)| address.to_owned()).unwrap_or_default()
}

/// Reads up to the line with the single dot.
fn content(lines: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut line = Vec::new();
        lines.by_ref().read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
        if line == b".\r\n" {
            return Some(bytes);
        }
        bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}
