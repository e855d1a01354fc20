//! A folder with a configuration, the program run in it, and a server that ends with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::free_port;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fingerpost");

/// A folder with a configuration on free ports, in which the program runs.
pub(crate) struct Installation {
    folder: tempfile::TempDir,
    pub(crate) smtp: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Installation {
    /// `contoso.example` is shared: alice is ours, the rest goes to a next hop that nobody is.
    pub(crate) fn new() -> Self {
        let installation = Self { folder: tempfile::tempdir().unwrap(), smtp: free(), admin: free(), metrics: free() };
        std::fs::write(installation.path("people.csv"), "address,kind\nalice@contoso.example,mailbox\n").unwrap();
        installation.write(&installation.configuration());
        installation
    }

    pub(crate) fn configuration(&self) -> String {
        format!(
            r#"[server]
hostname = "mx.contoso.example"
state_dir = "state"
drain_timeout = "5s"

[admin]
bind = "{admin}"
metrics_bind = "{metrics}"

[[receive_connector]]
name = "internet"
bind = ["{smtp}"]
remote_networks = ["127.0.0.0/8"]

[[accepted_domain]]
domain = "contoso.example"
type = "internal-relay"
deliver_to = "mailboxes"

[[accepted_domain]]
domain = "ours.example"
type = "authoritative"
deliver_to = "mailboxes"

[[directory]]
name = "people"
kind = "file"
path = "people.csv"

[[send_connector]]
name = "mailboxes"
protocol = "maildir"
path = "mail"

[[send_connector]]
name = "secondary"
organization = "secondary"
smart_hosts = ["[127.0.0.1]:{nobody}"]
delivery = "queue"
address_spaces = [{{ domain = "contoso.example" }}]

[spool]
min_free = "1MiB"
"#,
            admin = self.admin,
            metrics = self.metrics,
            smtp = self.smtp,
            nobody = free().port(),
        )
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, configuration: &str) {
        std::fs::write(self.path("fingerpost.toml"), configuration).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--config").arg(self.path("fingerpost.toml")).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        ran(&mut self.command(arguments))
    }

    /// Starts the server and waits until it is ready.
    pub(crate) fn serve(&self) -> Server {
        let log = std::fs::File::create(self.path("log")).unwrap();
        let child = self.command(&["run", "--log-format", "json"]).stderr(log).spawn().unwrap();
        let mut server = Server { child };
        eventually("the server is ready", || {
            assert!(server.child.try_wait().unwrap().is_none(), "{}", self.log());
            self.get(self.metrics, "/readyz", &[]).is_some_and(|(status, _)| status == 200)
        });
        server
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Asks by HTTP: the status and the body. `None`: nobody answers.
    pub(crate) fn get(&self, server: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(server).ok()?;
        let host = if headers.iter().any(|(name, _)| *name == "Host") { "" } else { "Host: localhost\r\n" };
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        write!(stream, "GET {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n\r\n").ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.path("state/admin.token")).unwrap().trim().to_owned()
    }

    /// Sends a message and returns the reply to its final dot.
    pub(crate) fn send(&self, to: &str) -> String {
        self.send_with(to, "Message-ID: <one@x.example>")
    }

    /// The same with this header section.
    pub(crate) fn send_with(&self, to: &str, header: &str) -> String {
        let mut stream = BufReader::new(TcpStream::connect(self.smtp).unwrap());
        let mut said = String::new();
        let mail = format!("RCPT TO:<{to}>");
        let content = format!("{header}\r\n\r\nHello.\r\n.");
        for command in ["", "EHLO x.example", "MAIL FROM:<bob@x.example>", &mail, "DATA", &content] {
            if !command.is_empty() {
                stream.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
            }
            loop {
                said.clear();
                stream.read_line(&mut said).unwrap();
                if said.as_bytes().get(3) != Some(&b'-') {
                    break;
                }
            }
        }
        said
    }
}

/// Runs the program without a configuration.
pub(crate) fn bare(arguments: &[&str]) -> Ran {
    ran(Command::new(PROGRAM).args(arguments).stdin(Stdio::null()))
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A server; it is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// Tells it to stop and returns its exit code.
    pub(crate) fn stop(mut self) -> i32 {
        self.signal("TERM");
        let mut code = None;
        eventually("the server stops", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it is so, at most 20 s.
pub(crate) fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port(Ipv4Addr::LOCALHOST)).into()
}
