//! An SMTP server on the sender's side: it takes everything and keeps it in memory. It may refuse connections for a while.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

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
    /// From where it came.
    pub peer: IpAddr,
    /// When its end was read.
    pub at: Instant,
}

/// A running sink. Its threads end with the process. Clones are the same one.
#[derive(Clone)]
pub struct Sink {
    address: SocketAddr,
    server: Arc<Server>,
    /// The thread that accepts connections; none while they are refused.
    listens: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// What the threads share.
struct Server {
    sunk: Mutex<Vec<Sunk>>,
    on_message: OnMessage,
    /// The connections that stand, by their numbers; locked from DATA to the reply to the end of data.
    open: Mutex<HashMap<usize, Arc<Mutex<TcpStream>>>>,
    /// The most connections at once.
    most: AtomicUsize,
    refuses: AtomicBool,
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
        let server = Arc::new(Server {
            sunk: Mutex::default(),
            on_message,
            open: Mutex::default(),
            most: AtomicUsize::new(0),
            refuses: AtomicBool::new(false),
        });
        let listens = Arc::new(Mutex::new(Some(server.clone().listen(listener))));
        Self { address, server, listens }
    }

    /// From now on connections are refused. Those that stand end, but not between DATA and the reply to the end of data: its
    /// sender knows what became of each message.
    pub fn refuse_connections(&self) {
        let Some(listens) = self.listens.lock().take() else { return };
        self.server.refuses.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // it looks
        listens.join().expect("it does not panic");
        let open: Vec<_> = self.server.open.lock().values().cloned().collect();
        for stream in open {
            let _ = stream.lock().shutdown(Shutdown::Read);
        }
    }

    /// Listens again.
    pub fn take_connections(&self) {
        let mut listens = self.listens.lock();
        if listens.is_none() {
            self.server.refuses.store(false, Ordering::SeqCst);
            let listener = TcpListener::bind(self.address).expect("nobody took its port");
            *listens = Some(self.server.clone().listen(listener));
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most connections that it has had at once.
    pub fn most_connections(&self) -> usize {
        self.server.most.load(Ordering::SeqCst)
    }

    /// Everything that came.
    pub fn all(&self) -> Vec<Sunk> {
        self.server.sunk.lock().clone()
    }

    /// What came for one address.
    pub fn for_address(&self, address: &str) -> Vec<Sunk> {
        let mut all = self.all();
        all.retain(|sunk| sunk.to.iter().any(|to| to.eq_ignore_ascii_case(address)));
        all
    }
}

impl Server {
    fn listen(self: Arc<Self>, listener: TcpListener) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if self.refuses.load(Ordering::SeqCst) {
                    return;
                }
                let (number, open) = self.accept(&stream);
                let server = self.clone();
                std::thread::spawn(move || {
                    server.converse(&stream, &open);
                    server.open.lock().remove(&number);
                });
            }
        })
    }

    /// Notes a connection, with a number.
    fn accept(&self, stream: &TcpStream) -> (usize, Arc<Mutex<TcpStream>>) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.lock();
        let stream = Arc::new(Mutex::new(stream.try_clone().expect("a socket")));
        open.insert(number, stream.clone());
        self.most.fetch_max(open.len(), Ordering::SeqCst);
        (number, stream)
    }

    /// One session; any error ends it.
    fn converse(&self, stream: &TcpStream, open: &Mutex<TcpStream>) -> Option<()> {
        let (peer, mut out) = (stream.peer_addr().ok()?.ip(), stream.try_clone().ok()?);
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
                "EHLO" => say(
                    "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES\r\n",
                )?,
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
                    let _stays_open = open.lock();
                    if self.refuses.load(Ordering::SeqCst) {
                        return None;
                    }
                    say("354 go on\r\n")?;
                    let bytes = content(&mut lines)?;
                    let (to, at) = (std::mem::take(&mut to), Instant::now());
                    let message = Sunk { from: from.clone(), to, bytes, peer, at };
                    (self.on_message)(&message);
                    self.sunk.lock().push(message);
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
