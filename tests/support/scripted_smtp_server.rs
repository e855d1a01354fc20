//! A next hop that follows a script, and what it saw.
//!
//! A script is a text with a rule a line, `WHEN => ACT`. WHEN is the beginning of a command, without case, or
//! `greeting`, `content` (its first bytes are there) or `dot`; `first: WHEN` holds for the first connection only,
//! `again: WHEN` where the connection has taken a message already, `full: WHEN` where the transaction has three
//! recipients already, `with NAME: WHEN` where it has one whose address begins so, `over N: WHEN` while more than N
//! connections stand. ACT is a reply (`\n` separates its lines, which are written as they stand), `drop` (close
//! without a word), `wait` (until another script is followed, which then says what; nothing is read meanwhile),
//! `after MILLISECONDS ACT` (nothing is read meanwhile either: pipelined commands wait one after another, as with a
//! server that is one process), `drip REPLY` (a byte a second), or `stall` (say nothing more; the test's clock is
//! paused, so that our time limits pass at once). `content` may also `go`, or `trickle`: read a byte a second while
//! this script is followed, or `every MILLISECONDS`: read 16 KiB each time. `dot` may go on with its recipients,
//! `dot ADDRESS ADDRESS`; after LHLO (RFC 2033) there is an answer for each of them. The first rule that fits is
//! followed; without one the next hop agrees, as far as a server that keeps the order of commands would.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What a next hop saw of one connection.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Where it came from.
    pub peer: Option<IpAddr>,
    /// Commands, in order; `(tls)` where the handshake was done.
    pub lines: Vec<String>,
    /// Contents as they came, dot-stuffed, without the final dot's line; BDAT's as they are.
    pub contents: Vec<Vec<u8>>,
    /// The recipients of each content that was taken, as RCPT had them.
    pub taken: Vec<Vec<String>>,
    /// Bytes of contents that broke off before their end.
    pub partial: usize,
    /// The other side is gone.
    pub closed: bool,
}

/// A `full` transaction has so many recipients.
const FULL: usize = 3;

/// A running next hop; it ends with the test's runtime.
pub struct ScriptedSmtpServer {
    pub address: SocketAddr,
    hop: Arc<Hop>,
}

struct Rule {
    /// How many connections, from the first one on, it holds for.
    connections: usize,
    /// How many messages the connection must have taken.
    messages: usize,
    /// How many recipients the transaction must have.
    recipients: usize,
    /// How the address of one of them must begin.
    with: String,
    /// How many connections must stand besides.
    others: usize,
    when: String,
    act: String,
}

struct Hop {
    rules: Mutex<Vec<Rule>>,
    tls: Option<TlsAcceptor>,
    seen: Mutex<Vec<Seen>>,
}

impl ScriptedSmtpServer {
    /// Starts one on a free port of the loopback address.
    pub async fn start(script: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script, tls)
    }

    /// Starts one on a listener.
    pub fn on(listener: TcpListener, script: &str, tls: Option<TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let rules = Mutex::new(rules(script));
        let hop = Arc::new(Hop { rules, tls, seen: Mutex::default() });
        let serving = hop.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let (socket, peer) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap(); // the kernel's clock is never paused
                let hop = serving.clone();
                hop.seen.lock().push(Seen { peer: Some(peer.ip()), ..Seen::default() });
                tokio::spawn(async move {
                    hop.serve(socket, number).await;
                    hop.seen.lock()[number].closed = true;
                });
            }
        });
        Self { address, hop }
    }

    /// From now on it follows this script, on connections that stand as well.
    pub fn follow(&self, script: &str) {
        *self.hop.rules.lock() = rules(script);
    }

    /// What every connection saw, in the order in which they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.hop.seen.lock().clone()
    }

    /// Who got something, an entry for each copy.
    pub fn taken(&self) -> Vec<String> {
        self.hop.seen.lock().iter().flat_map(|seen| seen.taken.concat()).collect()
    }

    /// All commands of all connections that begin so.
    pub fn commands(&self, beginning: &str) -> Vec<String> {
        let seen = self.hop.seen.lock();
        seen.iter().flat_map(|seen| &seen.lines).filter(|line| line.starts_with(beginning)).cloned().collect()
    }

    /// Where the connections came from.
    pub fn peers(&self) -> Vec<IpAddr> {
        self.hop.seen.lock().iter().filter_map(|seen| seen.peer).collect()
    }

    /// All contents of all connections.
    pub fn contents(&self) -> Vec<Vec<u8>> {
        self.seen().into_iter().flat_map(|seen| seen.contents).collect()
    }
}

fn rules(script: &str) -> Vec<Rule> {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (when, act) = line.split_once(" => ").unwrap_or_else(|| panic!("not a rule: {line}"));
            let (connections, when) = when.strip_prefix("first: ").map_or((usize::MAX, when), |when| (1, when));
            let (messages, when) = when.strip_prefix("again: ").map_or((0, when), |when| (1, when));
            let (recipients, when) = when.strip_prefix("full: ").map_or((0, when), |when| (FULL, when));
            let with = when.strip_prefix("with ").and_then(|rest| rest.split_once(": "));
            let (with, when) = with.map_or((String::new(), when), |(name, when)| (name.to_owned(), when));
            let over = when.strip_prefix("over ").and_then(|rest| rest.split_once(": "));
            let (others, when) = over.map_or((0, when), |(number, when)| (number.parse().unwrap(), when));
            let (when, act) = (when.to_ascii_lowercase(), act.replace("\\n", "\r\n"));
            Rule { connections, messages, recipients, with, others, when, act }
        })
        .collect()
}

/// What a step ended with.
enum AfterStep {
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
        self.seen.lock()[number].lines.push(line);
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
    /// LMTP is spoken.
    lmtp: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Talk<'a, S> {
    fn new(stream: S, hop: &'a Hop, number: usize) -> Self {
        Self { stream, buffer: Vec::new(), hop, number, mail: false, recipients: Vec::new(), lmtp: false }
    }

    /// What the script says to a line, as soon as it says something.
    async fn act(&self, line: &str, otherwise: &str) -> String {
        loop {
            let said = self.act_now(line, otherwise);
            if let Some((wait, act)) = said.strip_prefix("after ").and_then(|rest| rest.split_once(' ')) {
                tokio::time::sleep(Duration::from_millis(wait.parse().unwrap())).await;
                return act.to_owned();
            }
            if said != "wait" {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn act_now(&self, line: &str, otherwise: &str) -> String {
        let line = line.to_ascii_lowercase();
        let (messages, others) = {
            let seen = self.hop.seen.lock();
            (seen[self.number].taken.len(), seen.iter().filter(|seen| !seen.closed).count() - 1)
        };
        let applies = |rule: &&Rule| {
            self.number < rule.connections
                && messages >= rule.messages
                && self.recipients.len() >= rule.recipients
                && (rule.with.is_empty() || self.recipients.iter().any(|to| to.starts_with(&rule.with)))
                && others >= rule.others
                && line.starts_with(&rule.when)
        };
        let rules = self.hop.rules.lock();
        rules.iter().find(applies).map_or(otherwise, |rule| &rule.act).to_owned()
    }

    /// Returns whether STARTTLS was agreed to.
    async fn talk(&mut self, begin: &str) -> bool {
        if begin == "greeting" && matches!(self.say("greeting", "220 next.hop ESMTP").await, AfterStep::Over) {
            return false;
        }
        while let Some(line) = self.line().await {
            self.hop.note(self.number, line.clone());
            let verb = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
            let otherwise = match verb.as_str() {
                "EHLO" | "LHLO" => "250-next.hop\r\n250 PIPELINING",
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
            let said = said.strip_prefix("drip ").unwrap_or(&said);
            match verb.as_str() {
                "LHLO" => self.lmtp = true,
                "MAIL" => (self.mail, self.recipients) = (said.starts_with("25"), Vec::new()),
                "RCPT" if said.starts_with("25") => self.recipients.push(path(&line)),
                "RSET" | "DATA" | "BDAT" => (self.mail, self.recipients) = (false, Vec::new()),
                _ => {}
            }
            if verb == "STARTTLS" && said.starts_with("220") {
                return true;
            }
            if matches!(next, AfterStep::Over) || verb == "QUIT" {
                return false;
            }
        }
        false
    }

    async fn data(&mut self, said: &str) -> AfterStep {
        if matches!(self.write(said).await, AfterStep::Over) {
            return AfterStep::Over;
        }
        if !said.trim_start_matches("drip ").starts_with("354") {
            return AfterStep::Go;
        }
        // The line end before the content counts for a dot on its first line.
        let mut content = b"\r\n".to_vec();
        content.append(&mut self.buffer);
        let mut looked_at = 0;
        loop {
            if let Some(at) = memmem::find(&content[looked_at..], b"\r\n.\r\n") {
                let end = looked_at + at;
                self.buffer = content.split_off(end + 5);
                let content = content.get(2..end + 2).unwrap_or_default().to_vec();
                return self.dot(content).await;
            }
            looked_at = content.len().saturating_sub(4);
            if !self.more_content(&mut content).await {
                return AfterStep::Over;
            }
        }
    }

    async fn bdat(&mut self, line: &str) -> AfterStep {
        let size: usize = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut content = std::mem::take(&mut self.buffer);
        while content.len() < size {
            if !self.more_content(&mut content).await {
                return AfterStep::Over;
            }
        }
        self.buffer = content.split_off(size);
        self.dot(content).await
    }

    /// Reads more of a content, as the script says. False: it breaks off.
    async fn more_content(&mut self, content: &mut Vec<u8>) -> bool {
        let goes_on = match self.act("content", "go").await.as_str() {
            "go" => self.fill(4096).await,
            "trickle" => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.fill(1).await
            }
            steady if steady.starts_with("every ") => {
                tokio::time::sleep(Duration::from_millis(steady[6..].parse().unwrap())).await;
                self.fill(16 * 1024).await
            }
            said => matches!(self.write(said).await, AfterStep::Go) && self.fill(4096).await,
        };
        content.append(&mut self.buffer);
        if !goes_on {
            self.hop.seen.lock()[self.number].partial += content.len();
        }
        goes_on
    }

    /// The whole content is there.
    async fn dot(&mut self, content: Vec<u8>) -> AfterStep {
        if self.lmtp {
            return self.dot_for_each(content).await;
        }
        self.hop.seen.lock()[self.number].contents.push(content);
        let said = self.act(&format!("dot {}", self.recipients.join(" ")), "250 2.0.0 queued").await;
        if said.starts_with("25") {
            let recipients = std::mem::take(&mut self.recipients);
            self.hop.seen.lock()[self.number].taken.push(recipients);
        }
        self.write(&said).await
    }

    async fn dot_for_each(&mut self, content: Vec<u8>) -> AfterStep {
        self.hop.seen.lock()[self.number].contents.push(content);
        for recipient in std::mem::take(&mut self.recipients) {
            let said = self.act(&format!("dot {recipient}"), "250 2.0.0 delivered").await;
            if said.starts_with("25") {
                self.hop.seen.lock()[self.number].taken.push(vec![recipient]);
            }
            if matches!(self.write(&said).await, AfterStep::Over) {
                return AfterStep::Over;
            }
        }
        AfterStep::Go
    }

    async fn say(&mut self, line: &str, otherwise: &str) -> AfterStep {
        let said = self.act(line, otherwise).await;
        self.write(&said).await
    }

    async fn write(&mut self, said: &str) -> AfterStep {
        match said {
            "drop" => AfterStep::Over,
            "stall" => {
                tokio::time::pause();
                std::future::pending().await
            }
            slow if slow.starts_with("drip ") => self.drip(&format!("{}\r\n", &slow[5..])).await,
            reply => {
                let written = self.stream.write_all(format!("{reply}\r\n").as_bytes()).await;
                let closes = reply.starts_with("421");
                if written.is_err() || closes { AfterStep::Over } else { AfterStep::Go }
            }
        }
    }

    async fn drip(&mut self, reply: &str) -> AfterStep {
        for byte in reply.bytes() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if self.stream.write_all(&[byte]).await.is_err() {
                return AfterStep::Over;
            }
        }
        AfterStep::Go
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            if !self.fill(4096).await {
                return None;
            }
        }
    }

    /// Reads more into the buffer. False: there is no more.
    async fn fill(&mut self, most: usize) -> bool {
        let mut read = vec![0; most];
        let count = self.stream.read(&mut read).await.unwrap_or(0);
        self.buffer.extend_from_slice(&read[..count]);
        count > 0
    }
}

/// The path of a MAIL or RCPT command, without brackets.
fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(path, _)| path.to_owned())
}
