//! Senders: other people's clients, and a bare socket where a test has to say exactly what it says.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a client was told, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientResult {
    /// Whether the message was accepted for every recipient.
    pub accepted: bool,
    /// Everything that the client printed.
    pub printed: String,
}

/// One message to send.
pub struct Letter<'a> {
    /// The reverse-path; empty: `<>`.
    pub from: &'a str,
    /// The recipients.
    pub to: &'a [&'a str],
    /// The whole message, CRLF line ends.
    pub bytes: &'a [u8],
}

/// Sends with swaks (Perl).
pub fn swaks(server: SocketAddr, letter: &Letter<'_>) -> ClientResult {
    let mut command = Command::new("swaks");
    command.args(["--server", &server.ip().to_string(), "--port", &server.port().to_string()]);
    command.args(["--from", if letter.from.is_empty() { "<>" } else { letter.from }]);
    command.args(["--to", &letter.to.join(","), "--helo", "sender.test", "--data", "-", "--suppress-data"]);
    run_client(&mut command, letter.bytes)
}

/// Sends with msmtp (C).
pub fn msmtp(server: SocketAddr, letter: &Letter<'_>) -> ClientResult {
    let mut command = Command::new("msmtp");
    command.args(["--file=/dev/null", "--domain=sender.test", "--auth=off", "--tls=off", "--keepbcc=on"]);
    command.args([format!("--host={}", server.ip()), format!("--port={}", server.port())]);
    command.arg(format!("--from={}", letter.from)).arg("--").args(letter.to);
    run_client(&mut command, letter.bytes)
}

/// Sends with Python's smtplib.
pub fn smtplib(server: SocketAddr, letter: &Letter<'_>) -> ClientResult {
    let script = "import smtplib, sys\n\
                  host, port, sender = sys.argv[1], int(sys.argv[2]), sys.argv[3]\n\
                  client = smtplib.SMTP(host, port, local_hostname='sender.test', timeout=60)\n\
                  options = ['SMTPUTF8'] if not all(a.isascii() for a in sys.argv[3:]) else []\n\
                  refused = client.sendmail(sender, sys.argv[4:], sys.stdin.buffer.read(), mail_options=options)\n\
                  print(refused)\n\
                  client.quit()\n\
                  sys.exit(1 if refused else 0)\n";
    let mut command = Command::new("python3");
    command.args(["-c", script, &server.ip().to_string(), &server.port().to_string(), letter.from]);
    command.args(letter.to);
    run_client(&mut command, letter.bytes)
}

fn run_client(command: &mut Command, input: &[u8]) -> ClientResult {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.write_all(input); // a client that was refused does not read it
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let printed = [output.stdout, output.stderr].concat();
    ClientResult { accepted: output.status.success(), printed: String::from_utf8_lossy(&printed).into_owned() }
}

/// One reply: its code (0: the connection was closed) and all its text.
pub type SmtpReply = (u16, String);

/// A bare SMTP conversation.
pub struct Raw {
    stream: TcpStream,
    lines: BufReader<TcpStream>,
}

impl Raw {
    /// Connects, reads the greeting and says EHLO.
    pub fn hello(server: SocketAddr) -> Self {
        let mut raw = Self::connect(server);
        assert_eq!(raw.reply().0, 220);
        assert_eq!(raw.say("EHLO sender.test").0, 250);
        raw
    }

    /// The same, or nothing where nobody answers.
    pub fn try_hello(server: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(1)).ok()?;
        let mut raw = Self::over(stream);
        (raw.reply().0 == 220 && raw.say("EHLO sender.test").0 == 250).then_some(raw)
    }

    /// Connects from that address, reads the greeting and says EHLO.
    pub fn hello_from(source: Ipv4Addr, server: SocketAddr) -> Self {
        let mut raw = Self::connect_from(source, server);
        assert_eq!(raw.reply().0, 220);
        assert_eq!(raw.say("EHLO sender.test").0, 250);
        raw
    }

    /// Connects from that address only.
    pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((source, 0)).into()).expect("a loopback address");
        socket.connect(&server.into()).expect("it listens");
        Self::over(socket.into())
    }

    /// Connects only.
    pub fn connect(server: SocketAddr) -> Self {
        Self::over(TcpStream::connect_timeout(&server, Duration::from_secs(5)).expect("it listens"))
    }

    /// The bare socket.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        let lines = BufReader::new(stream.try_clone().expect("a socket"));
        Self { stream, lines }
    }

    /// Sends a command and reads its reply.
    pub fn say(&mut self, command: &str) -> SmtpReply {
        let sent = self.stream.write_all(format!("{command}\r\n").as_bytes());
        if sent.is_err() { (0, String::new()) } else { self.reply() }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection stands");
    }

    /// Whether there is something to read, or the end.
    pub fn hears(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let there = !self.lines.buffer().is_empty() || self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).expect("a socket");
        there
    }

    /// Lets what was sent arrive as a packet of its own.
    pub fn pause(&self) {
        std::thread::sleep(Duration::from_millis(3));
    }

    /// Reads one reply: its code, and all its text. Code 0: the connection was closed.
    pub fn reply(&mut self) -> SmtpReply {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap_or(0) == 0 {
                return (0, text);
            }
            text.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
                return (code, text);
            }
        }
    }

    /// A whole transaction: the replies to MAIL, to each RCPT, and to the final dot (`None` where no RCPT was taken).
    pub fn transact(&mut self, letter: &Letter<'_>, parameters: &str) -> (Vec<SmtpReply>, Option<SmtpReply>) {
        let mail = self.say(&format!("MAIL FROM:<{}>{parameters}", letter.from));
        let mut replies = vec![mail];
        for to in letter.to {
            replies.push(self.say(&format!("RCPT TO:<{to}>")));
        }
        if !replies[1..].iter().any(|(code, _)| *code == 250) {
            self.say("RSET");
            return (replies, None);
        }
        let go_on = self.say("DATA");
        if go_on.0 != 354 {
            return (replies, Some(go_on));
        }
        let sent = self.stream.write_all(&stuffed(letter.bytes));
        let last = if sent.is_err() { (0, String::new()) } else { self.reply() };
        (replies, Some(last))
    }
}

/// The content dot-stuffed, with the final dot.
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 5);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}
