//! A next hop that follows a script, and what it saw.
//!
//! A script is a text with a rule a line, `WHEN => ACT`. WHEN is the beginning of a command, without case, or
//! `greeting` or `dot`; `first: WHEN` holds for the first connection only, `full: WHEN` where the transaction has three
//! recipients already. ACT is a reply (`\n` separates its lines, which are written as they stand), `drop` (close
//! without a word), `wait` (until another script is followed, which then says what) or `stall` (say nothing more; the
//! test's clock is paused, so that our time limits pass at once). The first rule that fits is followed; without one the
//! next hop agrees, as far as a server that keeps the order of commands would.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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
    /// The recipients of each content that was taken, as RCPT had them.
    pub(crate) taken: Vec<Vec<String>>,
}

/// A `full` transaction has so many recipients.
const FULL: usize = 3;

/// A running next hop; it ends with the test's runtime.
pub(crate) struct NextHop {
    pub(crate) address: SocketAddr,
    hop: Arc<Hop>,
}

struct Rule {
    /// How many connections, from the first one on, it holds for.
    connections: usize,
    /// How many recipients the transaction must have.
    recipients: usize,
    when: String,
    act: String,
}

struct Hop {
    rules: Mutex<Vec<Rule>>,
    tls: Option<TlsAcceptor>,
    seen: Mutex<Vec<Seen>>,
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
        let rules = Mutex::new(rules(script));
        let hop = Arc::new(Hop { rules, tls, seen: Mutex::default() });
        let serving = hop.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let (socket, peer) = listener.accept().await.unwrap();
                let hop = serving.clone();
                hop.seen.lock().unwrap().push(Seen { peer: Some(peer.ip()), ..Seen::default() });
                tokio::spawn(async move { hop.serve(socket, number).await });
            }
        });
        Self { address, hop }
    }

    /// From now on it follows this script, on connections that stand as well.
    pub(crate) fn follow(&self, script: &str) {
        *self.hop.rules.lock().unwrap() = rules(script);
    }

    /// What every connection saw, in the order in which they came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.hop.seen.lock().unwrap().clone()
    }

    /// Who got something, an entry for each copy.
    pub(crate) fn taken(&self) -> Vec<String> {
        self.seen().into_iter().flat_map(|seen| seen.taken).flatten().collect()
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
            let (recipients, when) = when.strip_prefix("full: ").map_or((0, when), |when| (FULL, when));
            Rule { connections, recipients, when: when.to_ascii_lowercase(), act: act.replace("\\n", "\r\n") }
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
        let mut plain = Talk::new(socket, self, number);
        if !plain.talk("greeting").await {
            return;
        }
        let stream = plain.stream;
        let Some(acceptor) = &self.tls else { return };
        let Ok(stream) = acceptor.accept(stream).await else { return };
        self.note(number, "(tls)".to_owned());
        Talk::new(stream, self, number).talk("tls").await;
    }

    fn note(&self, number: usize, line: String) {
        self.seen.lock().unwrap()[number].lines.push(line);
    }
}

struct Talk<'a, S> {
    stream: S,
    buffer: Vec<u8>,
    hop: &'a Hop,
    number: usize,
    /// Of the transaction: whether MAIL was accepted, and which recipients were.
    mail: bool,
    recipients: Vec<String>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Talk<'a, S> {
    fn new(stream: S, hop: &'a Hop, number: usize) -> Self {
        Self { stream, buffer: Vec::new(), hop, number, mail: false, recipients: Vec::new() }
    }

    /// What the script says to a line, as soon as it says something.
    async fn act(&self, line: &str, otherwise: &str) -> String {
        loop {
            let said = self.act_now(line, otherwise);
            if said != "wait" {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn act_now(&self, line: &str, otherwise: &str) -> String {
        let line = line.to_ascii_lowercase();
        let fits = |rule: &&Rule| {
            self.number < rule.connections && self.recipients.len() >= rule.recipients && line.starts_with(&rule.when)
        };
        let rules = self.hop.rules.lock().unwrap();
        rules.iter().find(fits).map_or(otherwise, |rule| &rule.act).to_owned()
    }

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
                "DATA" if self.recipients.is_empty() => "503 5.5.1 no valid recipients",
                "DATA" => "354 go ahead",
                "QUIT" => "221 bye",
                _ => "250 2.0.0 ok",
            };
            let said = self.act(&line, otherwise).await;
            let next = match verb.as_str() {
                "DATA" => self.data(&said).await,
                "BDAT" => self.bdat(&line).await,
                _ => self.write(&said).await,
            };
            match verb.as_str() {
                "MAIL" => (self.mail, self.recipients) = (said.starts_with("25"), Vec::new()),
                "RCPT" if said.starts_with("25") => self.recipients.push(path(&line)),
                "RSET" | "DATA" | "BDAT" => (self.mail, self.recipients) = (false, Vec::new()),
                _ => {}
            }
            if verb == "STARTTLS" && said.starts_with("220") {
                return true;
            }
            if matches!(next, Next::Over) || verb == "QUIT" {
                return false;
            }
        }
        false
    }

    async fn data(&mut self, said: &str) -> Next {
        if matches!(self.write(said).await, Next::Over) {
            return Next::Over;
        }
        if !said.starts_with("354") {
            return Next::Go;
        }
        let mut content = b"\r\n".to_vec();
        while !content.ends_with(b"\r\n.\r\n") {
            let Some(byte) = self.byte().await else { return Next::Over };
            content.push(byte);
        }
        let content = content[2..content.len() - 3].to_vec();
        self.dot(content).await
    }

    async fn bdat(&mut self, line: &str) -> Next {
        let size: usize = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut content = Vec::new();
        while content.len() < size {
            let Some(byte) = self.byte().await else { return Next::Over };
            content.push(byte);
        }
        self.dot(content).await
    }

    /// The whole content is there.
    async fn dot(&mut self, content: Vec<u8>) -> Next {
        let said = self.act("dot", "250 2.0.0 queued").await;
        {
            let seen = &mut self.hop.seen.lock().unwrap()[self.number];
            seen.contents.push(content);
            if said.starts_with("25") {
                seen.taken.push(std::mem::take(&mut self.recipients));
            }
        }
        self.write(&said).await
    }

    async fn say(&mut self, line: &str, otherwise: &str) -> Next {
        let said = self.act(line, otherwise).await;
        self.write(&said).await
    }

    async fn write(&mut self, said: &str) -> Next {
        match said {
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

/// The path of a MAIL or RCPT command, without brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(path, _)| path.to_owned())
}
