//! Runs every conversation of `tests/sessions/dialogs` with a real session over a socket in memory, three ways: in step, octet by
//! octet, and all at once; the replies are the same each time. Each line of a case begins with
//!
//! - `#`: a comment;
//! - `client:`: the client's address;
//! - `C:`: the client sends this line and CRLF;
//! - `R:`: the client sends just these octets, with `\r`, `\n`, `\0`, `\xNN` and `*N` at the end for N times;
//! - `S:`: the server says this line; `...` at its end stands for anything;
//! - `X:`: the server closes the connection;
//! - `Q:`: this was made durable: `<sender> -> recipient via connector, ...`;
//! - `B:`: a line of the last durable message behind our Received field.

use std::path::Path;
use std::time::Duration;

use std::sync::Arc;

use support::sessions::SessionSetup;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::sync::CancellationToken;

/// One line of a case.
#[derive(Debug)]
enum Step {
    Send(Vec<u8>),
    Expect(String),
    Closed,
}

/// One case.
#[derive(Debug, Default)]
struct Case {
    client: String,
    steps: Vec<Step>,
    durable: Vec<String>,
    body: Vec<String>,
}

/// How the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendMode {
    InStep,
    OctetByOctet,
    AllAtOnce,
}

fn read_case(path: &Path) -> Case {
    let text = std::fs::read_to_string(path).unwrap();
    let mut case = Case { client: "192.0.2.1".into(), ..Case::default() };
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (kind, rest) = line.split_once(':').unwrap_or_else(|| panic!("{}: {line}", path.display()));
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match kind {
            "client" => case.client = rest.to_owned(),
            "C" => case.steps.push(Step::Send(format!("{rest}\r\n").into_bytes())),
            "R" => case.steps.push(Step::Send(octets(rest))),
            "S" => case.steps.push(Step::Expect(rest.to_owned())),
            "X" => case.steps.push(Step::Closed),
            "Q" => case.durable.push(rest.to_owned()),
            "B" => case.body.push(rest.to_owned()),
            _ => panic!("{}: {line}", path.display()),
        }
    }
    case
}

/// What an `R:` line stands for.
fn octets(text: &str) -> Vec<u8> {
    let repeated = text.rsplit_once('*').and_then(|(text, times)| Some((text, times.parse().ok()?)));
    let (text, times) = repeated.unwrap_or((text, 1));
    let mut octets = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        octets.push(match (byte, byte == b'\\') {
            (byte, false) => byte,
            _ => match bytes.next().unwrap() {
                b'r' => b'\r',
                b'n' => b'\n',
                b'0' => 0,
                b'x' => {
                    let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&hex, 16).unwrap()
                }
                other => other,
            },
        });
    }
    octets.repeat(times)
}

/// The client's side of the socket.
struct Wire {
    socket: DuplexStream,
    unread: Vec<u8>,
}

impl Wire {
    /// The next line that the server says; `None`: it closed.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let read = tokio::time::timeout(Duration::from_secs(3600), self.socket.read_buf(&mut self.unread));
            match read.await.expect("the server says nothing") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn send(&mut self, octets: &[u8], way: SendMode) {
        // A server that has closed is seen when the next line is read.
        if way == SendMode::OctetByOctet {
            for octet in octets {
                let _ = self.socket.write_all(&[*octet]).await;
                tokio::task::yield_now().await;
            }
        } else {
            let _ = self.socket.write_all(octets).await;
        }
    }
}

async fn run(setup: &SessionSetup, name: &str, case: &Case, way: SendMode) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let draining = CancellationToken::new();
    let session = tokio::spawn(fingerpost::session::serve(
        Arc::new(setup.services.clone()),
        setup.client(&case.client),
        server,
        draining,
    ));
    let mut wire = Wire { socket: client, unread: Vec::new() };
    if way == SendMode::AllAtOnce {
        for step in &case.steps {
            if let Step::Send(octets) = step {
                wire.send(octets, way).await;
            }
        }
    }
    for step in &case.steps {
        match step {
            Step::Send(_) if way == SendMode::AllAtOnce => {}
            Step::Send(octets) => wire.send(octets, way).await,
            Step::Expect(expected) => {
                let said = wire.line().await.unwrap_or_else(|| panic!("{name} {way:?}: closed before {expected:?}"));
                let matches = match expected.strip_suffix("...") {
                    Some(beginning) => said.starts_with(beginning),
                    None => said == *expected,
                };
                assert!(matches, "{name} {way:?}: expected {expected:?}, the server said {said:?}");
            }
            Step::Closed => assert_eq!(wire.line().await, None, "{name} {way:?}: the server does not close"),
        }
    }
    drop(wire);
    session.await.unwrap();
    let committed = setup.take_committed();
    let summaries: Vec<&String> = committed.iter().map(|(summary, _)| summary).collect();
    assert_eq!(summaries, case.durable.iter().collect::<Vec<_>>(), "{name} {way:?}");
    if !case.body.is_empty() {
        let content = String::from_utf8_lossy(&committed.last().unwrap().1).into_owned();
        let lines: Vec<&str> = content.split("\r\n").skip(3).collect(); // Received has three lines
        assert_eq!(lines, case.body, "{name} {way:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_dialog_goes_as_written() {
    let setup = SessionSetup::new();
    let mut names = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions/dialogs");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let case = read_case(&path);
        assert!(case.steps.iter().any(|step| matches!(step, Step::Expect(_))), "{name} expects nothing");
        for way in [SendMode::InStep, SendMode::OctetByOctet, SendMode::AllAtOnce] {
            run(&setup, &name, &case, way).await;
        }
        names.push(name);
    }
    assert!(names.len() >= 15, "only these dialogs were found: {names:?}");
}

/// The dialogs that are short enough are also cut in two at every octet.
#[tokio::test(start_paused = true)]
async fn cutting_a_dialog_anywhere_changes_nothing() {
    let setup = SessionSetup::new();
    for name in ["resolved", "split", "bdat", "bdat-refused", "bare-lf", "smuggling-dot"] {
        let case = read_case(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/sessions/dialogs/{name}.txt")));
        let sent = |step: &Step| match step {
            Step::Send(octets) => octets.clone(),
            _ => Vec::new(),
        };
        let all: Vec<u8> = case.steps.iter().flat_map(sent).collect();
        for cut in 1..all.len() {
            let (first, second) = all.split_at(cut);
            let mut steps = vec![Step::Send(first.to_vec()), Step::Send(second.to_vec())];
            steps.extend(case.steps.iter().filter_map(|step| match step {
                Step::Send(_) => None,
                Step::Expect(line) => Some(Step::Expect(line.clone())),
                Step::Closed => Some(Step::Closed),
            }));
            let cut_case =
                Case { client: case.client.clone(), steps, durable: case.durable.clone(), body: case.body.clone() };
            run(&setup, &format!("{name} cut at {cut}"), &cut_case, SendMode::InStep).await;
        }
    }
}
