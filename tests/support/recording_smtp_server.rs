//! A next hop that keeps what it accepts and answers what it is told to, over a real socket.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// One message that it accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What MAIL said, parameters included.
    pub mail: String,
    /// What each accepted RCPT said, parameters included.
    pub rcpt: Vec<String>,
    /// The content, dots unstuffed.
    pub data: String,
}

/// The next hop.
#[derive(Clone)]
pub struct RecordingSmtpServer {
    /// Where it listens.
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    offers: Vec<&'static str>,
    accepted: Mutex<Vec<Accepted>>,
    /// Replies to come, by what they answer: an address for RCPT, `.` for the final dot.
    script: Mutex<HashMap<String, VecDeque<String>>>,
    at_the_dot: AtomicUsize,
    most_at_the_dot: AtomicUsize,
    /// While it is shut, final dots are not answered.
    gate: Mutex<Option<Arc<Notify>>>,
}

impl RecordingSmtpServer {
    /// Starts one that offers these extensions.
    pub async fn start(offers: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            offers: offers.to_vec(),
            accepted: Mutex::default(),
            script: Mutex::default(),
            at_the_dot: AtomicUsize::new(0),
            most_at_the_dot: AtomicUsize::new(0),
            gate: Mutex::default(),
        });
        let hop = Self { address, inner };
        let serving = hop.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let hop = serving.clone();
                tokio::spawn(async move { hop.serve(stream).await });
            }
        });
        hop
    }

    /// The next time it is asked, it says this; then the next of these; then it accepts again.
    pub fn say(&self, to: &str, replies: &[&str]) {
        let replies = replies.iter().map(|reply| (*reply).to_owned());
        self.inner.script.lock().entry(to.to_ascii_lowercase()).or_default().extend(replies);
    }

    /// What it accepted.
    pub fn accepted(&self) -> Vec<Accepted> {
        self.inner.accepted.lock().clone()
    }

    /// Final dots are not answered until `open`.
    pub fn shut(&self) {
        *self.inner.gate.lock() = Some(Arc::new(Notify::new()));
    }

    /// Final dots are answered again.
    pub fn open(&self) {
        if let Some(gate) = self.inner.gate.lock().take() {
            gate.notify_waiters();
        }
    }

    /// How many transactions wait for the answer to their final dot.
    pub fn at_the_dot(&self) -> usize {
        self.inner.at_the_dot.load(Ordering::SeqCst)
    }

    /// The most that waited at once.
    pub fn most_at_the_dot(&self) -> usize {
        self.inner.most_at_the_dot.load(Ordering::SeqCst)
    }

    fn scripted(&self, to: &str) -> Option<String> {
        self.inner.script.lock().get_mut(to).and_then(VecDeque::pop_front)
    }

    async fn serve(&self, stream: TcpStream) -> Option<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 hop.example ESMTP\r\n").await.ok()?;
        let (mut mail, mut rcpt) = (String::new(), Vec::new());
        loop {
            let line = lines.next_line().await.ok()??;
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let reply = match verb.as_str() {
                "EHLO" => {
                    let offers = self.inner.offers.iter().map(|offer| format!("250-{offer}\r\n"));
                    format!("250-hop.example\r\n{}250 HELP", offers.collect::<String>())
                }
                "MAIL" => {
                    (mail, rcpt) = (line.clone(), Vec::new());
                    "250 2.1.0 ok".to_owned()
                }
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_ascii_lowercase();
                    let reply = self.scripted(&address).unwrap_or_else(|| "250 2.1.5 ok".to_owned());
                    if reply.starts_with('2') {
                        rcpt.push(line.clone());
                    }
                    reply
                }
                "DATA" if rcpt.is_empty() => "554 5.5.1 no recipients".to_owned(),
                "DATA" => {
                    write.write_all(b"354 go ahead\r\n").await.ok()?;
                    let mut data = String::new();
                    loop {
                        let line = lines.next_line().await.ok()??;
                        if line == "." {
                            break;
                        }
                        data.push_str(line.strip_prefix('.').unwrap_or(&line));
                        data.push_str("\r\n");
                    }
                    self.dot(Accepted { mail: mail.clone(), rcpt: std::mem::take(&mut rcpt), data }).await
                }
                "QUIT" => {
                    let _ = write.write_all(b"221 2.0.0 bye\r\n").await;
                    return Some(());
                }
                _ => "250 2.0.0 ok".to_owned(),
            };
            write.write_all(format!("{reply}\r\n").as_bytes()).await.ok()?;
        }
    }

    async fn dot(&self, message: Accepted) -> String {
        let waiting = self.inner.at_the_dot.fetch_add(1, Ordering::SeqCst) + 1;
        self.inner.most_at_the_dot.fetch_max(waiting, Ordering::SeqCst);
        let gate = self.inner.gate.lock().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let reply = self.scripted(".").unwrap_or_else(|| "250 2.0.0 taken".to_owned());
        if reply.starts_with('2') {
            self.inner.accepted.lock().push(message);
        }
        self.inner.at_the_dot.fetch_sub(1, Ordering::SeqCst);
        reply
    }
}
