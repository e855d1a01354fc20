//! Asks the running program about thousands of addresses: by its API on one connection, and by RCPT in pipelines.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Count;
use support::test_node::TestNode;

/// Recipients of a transaction.
const RECIPIENTS: usize = 100;

/// A connection to the API that is used again.
struct Api<'a> {
    node: &'a TestNode,
    token: String,
    stream: Option<BufReader<TcpStream>>,
}

impl<'a> Api<'a> {
    fn of(node: &'a TestNode) -> Self {
        let token = std::fs::read_to_string(node.path("state/admin.token")).unwrap();
        Self { node, token: token.trim().to_owned(), stream: None }
    }

    fn get(&mut self, path: &str) -> serde_json::Value {
        for _ in 0..3 {
            if let Some(body) = self.try_get(path) {
                return serde_json::from_slice(&body).unwrap();
            }
            self.stream = None;
        }
        panic!("{path}: no answer");
    }

    fn try_get(&mut self, path: &str) -> Option<Vec<u8>> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.node.admin()).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                none.insert(BufReader::new(stream))
            }
        };
        let token = &self.token;
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).ok()?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        Some(body)
    }
}

/// Where mail for these goes, or what RCPT would say.
pub fn ways(node: &TestNode, addresses: &[String]) -> Count {
    let (mut api, mut count) = (Api::of(node), Count::new());
    for address in addresses {
        let explained = api.get(&format!("/api/route?address={address}"));
        let way = match (explained["route"]["connector"].as_str(), explained["reply"].as_str()) {
            (Some("primary"), _) => super::HERE.to_owned(),
            (Some("secondary"), _) if explained["verdict"] == "relayed" => super::RELAYED.to_owned(),
            (Some("secondary"), _) => super::AWAY.to_owned(),
            (_, reply) => reply.unwrap_or_default().chars().take(9).collect(),
        };
        *count.entry(way).or_default() += 1;
    }
    count
}

/// What RCPT says.
pub fn replies(server: SocketAddr, addresses: &[String]) -> BTreeMap<u16, usize> {
    let mut raw = support::senders::Raw::hello(server);
    let mut count = BTreeMap::new();
    for some in addresses.chunks(RECIPIENTS) {
        assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
        raw.send(some.iter().map(|address| format!("RCPT TO:<{address}>\r\n")).collect::<String>().as_bytes());
        for _ in some {
            *count.entry(raw.reply().0).or_default() += 1;
        }
        assert_eq!(raw.say("RSET").0, 250);
    }
    count
}

/// The value of a series, told quickly; with the space behind its name.
pub fn gauge(metrics: SocketAddr, series: &str) -> Option<usize> {
    let mut stream = TcpStream::connect(metrics).ok()?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}
