//! A next hop that follows a script, and what it saw.
//!
//! A script is a text with a rule a line, `WHEN => ACT`. WHEN is the beginning of a command, without case, or
//! `greeting` or `dot`; `first: WHEN` holds for the first connection only. ACT is a reply (`\n` separates its lines,
//! which are written as they stand), `drop` (close without a word) or `stall` (say nothing more; the test's clock is
//! paused, so that our time limits pass at once). The first rule that fits is followed; without one the next hop
//! agrees, as far as a server that keeps the order of commands would.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a next hop saw of one connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    /// Where it came from.
    pub(crate) peer: Option<IpAddr>,
    /// Commands, in order; `(tls)` where the handshake was done.
    pub(crate) lines: Vec<String>,
    /// Contents as they came, dot-stuffed, without the final dot's line; BDAT's as they are.
    pub(crate) contents: Vec<Vec<u8>>,
}

/// A running next hop; it ends with the test's runtime.
pub(crate) struct NextHop {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

struct Rule {
    /// How many connections, from the first one on, it holds for.
    connections: usize,
    when: String,
    act: String,
}

struct Hop {
    rules: Vec<Rule>,
    tls: Option<TlsAcceptor>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl NextHop {
    /// Starts one on a free port of the loopback address.
    pub(crate) async fn start(script: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script, tls)
    }

    /// Starts one on a listener.
    pub(crate) fn on(listener: TcpListener, script: &str, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let hop = Arc::new(Hop { rules: rules(script), tls, seen: seen.clone() });
        tokio::spawn(async move {
            for number in 0.. {
                let (socket, peer) = listener.accept().await.unwrap();
                let hop = hop.clone();
                hop.seen.lock().unwrap().push(Seen { peer: Some(peer.ip()), ..Seen::default() });
                tokio::spawn(async move { hop.serve(socket, number).await });
            }
        });
        Self { address, seen }
    }

    /// What every connection saw, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// All commands of all connections that begin so.
    pub(crate) fn commands(&self, beginning: &str) -> Vec<String> {
        let seen = self.seen();
        seen.into_iter().flat_map(|seen| seen.lines).filter(|line| line.starts_with(beginning)).collect()
    }

    /// Where the connections came from.
    pub(crate) fn peers(&self) -> Vec<IpAddr> {
        self.seen().iter().filter_map(|seen| seen.peer).collect()
    }

    /// All contents of all connections.
    pub(crate) fn contents(&self) -> Vec<Vec<u8>> {
        self.seen().into_iter().flat_map(|seen| seen.contents).collect()
    }
}

fn rules(script: &str) -> Vec<Rule> {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (when, act) = line.split_once(" => ").unwrap_or_else(|| panic!("not a rule: {line}"));
            let (connections, when) = when.strip_prefix("first: ").map_or((usize::MAX, when), |when| (1, when));
            Rule { connections, when: when.to_ascii_lowercase(), act: act.replace("\\n", "\r\n") }
        })
        .collect()
}

/// What a step ended with.
enum Next {
    Go,
    Over,
}

impl Hop {
    async fn serve(&self, socket: TcpStream, number: usize) {
        let mut plain = Talk { stream: socket, buffer: Vec::new(), hop: self, number, mail: false, recipients: 0 };
        if !plain.talk("greeting").await {
            return;
        }
        let stream = plain.stream;
        let Some(acceptor) = &self.tls else { return };
        let Ok(stream) = acceptor.accept(stream).await else { return };
        self.note(number, "(tls)".to_owned());
        Talk { stream, buffer: Vec::new(), hop: self, number, mail: false, recipients: 0 }.talk("tls").await;
    }

    fn note(&self, number: usize, line: String) {
        self.seen.lock().unwrap()[number].lines.push(line);
    }

    fn act(&self, number: usize, line: &str, otherwise: &str) -> String {
        let line = line.to_ascii_lowercase();
        let fits = |rule: &&Rule| number < rule.connections && line.starts_with(&rule.when);
        self.rules.iter().find(fits).map_or(otherwise, |rule| &rule.act).to_owned()
    }
}

struct Talk<'a, S> {
    stream: S,
    buffer: Vec<u8>,
    hop: &'a Hop,
    number: usize,
    /// Of the transaction: whether MAIL was accepted, and how many recipients were.
    mail: bool,
    recipients: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    /// Returns whether STARTTLS was agreed to.
    async fn talk(&mut self, begin: &str) -> bool {
        if begin == "greeting" && matches!(self.say("greeting", "220 next.hop ESMTP").await, Next::Over) {
            return false;
        }
        while let Some(line) = self.line().await {
            self.hop.note(self.number, line.clone());
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let otherwise = match verb.as_str() {
                "EHLO" => "250-next.hop\r\n250 PIPELINING",
                "STARTTLS" => "220 go ahead",
                "RCPT" if !self.mail => "503 5.5.1 MAIL first",
                "DATA" if self.recipients == 0 => "503 5.5.1 no valid recipients",
                "DATA" => "354 go ahead",
                "QUIT" => "221 bye",
                _ => "250 2.0.0 ok",
            };
            let next = match verb.as_str() {
                "DATA" => self.data(&line, otherwise).await,
                "BDAT" => self.bdat(&line).await,
                _ => self.say(&line, otherwise).await,
            };
            let agreed = self.hop.act(self.number, &line, otherwise).starts_with("25");
            match verb.as_str() {
                "MAIL" => (self.mail, self.recipients) = (agreed, 0),
                "RCPT" => self.recipients += usize::from(agreed),
                "RSET" | "DATA" | "BDAT" => (self.mail, self.recipients) = (false, 0),
                _ => {}
            }
            if verb == "STARTTLS" && self.hop.act(self.number, &line, otherwise).starts_with("220") {
                return true;
            }
            if matches!(next, Next::Over) || verb == "QUIT" {
                return false;
            }
        }
        false
    }

    async fn data(&mut self, line: &str, otherwise: &str) -> Next {
        if matches!(self.say(line, otherwise).await, Next::Over) {
            return Next::Over;
        }
        if !self.hop.act(self.number, line, otherwise).starts_with("354") {
            return Next::Go;
        }
        let mut content = b"\r\n".to_vec();
        while !content.ends_with(b"\r\n.\r\n") {
            let Some(byte) = self.byte().await else { return Next::Over };
            content.push(byte);
        }
        let content = content[2..content.len() - 3].to_vec();
        self.hop.seen.lock().unwrap()[self.number].contents.push(content);
        self.say("dot", "250 2.0.0 queued").await
    }

    async fn bdat(&mut self, line: &str) -> Next {
        let size: usize = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut content = Vec::new();
        while content.len() < size {
            let Some(byte) = self.byte().await else { return Next::Over };
            content.push(byte);
        }
        self.hop.seen.lock().unwrap()[self.number].contents.push(content);
        self.say("dot", "250 2.0.0 queued").await
    }

    async fn say(&mut self, line: &str, otherwise: &str) -> Next {
        match self.hop.act(self.number, line, otherwise).as_str() {
            "drop" => Next::Over,
            "stall" => {
                tokio::time::pause();
                std::future::pending().await
            }
            reply => {
                let written = self.stream.write_all(format!("{reply}\r\n").as_bytes()).await;
                let closes = reply.starts_with("421");
                if written.is_err() || closes { Next::Over } else { Next::Go }
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.byte().await?);
        }
        line.truncate(line.len() - 2);
        Some(String::from_utf8(line).unwrap())
    }

    async fn byte(&mut self) -> Option<u8> {
        if self.buffer.is_empty() {
            let mut buffer = vec![0; 4096];
            let read = self.stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
            buffer.truncate(read);
            buffer.reverse();
            self.buffer = buffer;
        }
        self.buffer.pop()
    }
}
