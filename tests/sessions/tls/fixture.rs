//! A node with TLS: its receive connectors are the test's, its mail goes to two sinks, `inside` for contoso.test and
//! `outside`.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::certificates::{Authority, Issued};
use support::sink::Sink;
use support::tables::{BASE_TABLES, PEOPLE, accepted_domain, send_connector};
use support::test_node::TestNode;

/// How long anything may take that happens by itself.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The node, its authority, and those who get its mail.
pub(crate) struct TlsSystems {
    pub(crate) node: TestNode,
    pub(crate) authority: Authority,
    pub(crate) inside: Sink,
    pub(crate) outside: Sink,
}

impl TlsSystems {
    /// Everything but the configuration.
    pub(crate) fn prepare() -> Self {
        let node = TestNode::prepare();
        let authority = Authority::new(node.folder());
        let inside = Sink::start(Ipv4Addr::new(127, 0, 0, 2));
        let outside = Sink::start(Ipv4Addr::new(127, 0, 0, 3));
        Self { node, authority, inside, outside }
    }

    /// Starts the node with these tables beside its domain and its ways out.
    pub(crate) fn start(&mut self, tables: &str) {
        self.write(tables);
        self.node.start();
    }

    /// Writes the configuration.
    pub(crate) fn write(&self, tables: &str) {
        self.node.write("people.csv", "address\nann@contoso.test\n");
        let domain = accepted_domain("contoso.test", "inside");
        let inside = send_connector("inside", self.inside.address(), "");
        let outside = send_connector("outside", self.outside.address(), "address_spaces = [{ domain = \"*\" }]");
        self.node.write("fingerpost.toml", &format!("{BASE_TABLES}{PEOPLE}{domain}{tables}\n{inside}{outside}"));
    }
}

/// A receive connector's lines for a certificate.
pub(crate) fn tls(mode: &str, issued: &Issued, more: &str) -> String {
    let (certificate, key) = (issued.certificate.display(), issued.key.display());
    format!("tls = {{ mode = \"{mode}\", certificate = \"{certificate}\", key = \"{key}\"{more} }}")
}

/// What Python's smtplib is told, line by line: `script` has `host`, `port`, and a `context` that shows the certificate.
pub(crate) fn python(server: SocketAddr, certificate: Option<&Issued>, script: &str) -> String {
    let head = "import base64, smtplib, ssl, sys, time\n\
                host, port = sys.argv[1], int(sys.argv[2])\n\
                context = ssl._create_unverified_context()\n\
                if len(sys.argv) > 3: context.load_cert_chain(sys.argv[3], sys.argv[4])\n";
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{head}{script}"), &server.ip().to_string(), &server.port().to_string()]);
    if let Some(issued) = certificate {
        command.args([&issued.certificate, &issued.key]);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
