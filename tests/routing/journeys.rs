//! Journeys: mail sent through Fingerpost between two real Postfix systems, with exact counts on each side and
//! bodies compared byte by byte. A case is a folder below `tests/routing/journeys/`; each is told in its `journey.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use support::postfix_systems::{Changes, NodeDirectory, PostfixSystems};
use support::senders::Raw;
use support::{postfix_systems, senders};

/// One journey as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journey {
    /// What it shows.
    about: String,
    /// The directories it is for; all of them unless written.
    #[serde(default)]
    directories: Vec<NodeDirectory>,
    /// The messages, in order.
    send: Vec<Send>,
    /// Who has what in the end.
    arrives: Arrives,
}

/// One message to send.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    #[serde(default)]
    client: Client,
    from: String,
    to: Vec<String>,
    /// Parameters of MAIL, with `raw`.
    #[serde(default)]
    parameters: String,
    /// The replies to each RCPT, as far as they are written here, with `raw`.
    #[serde(default)]
    rcpt: Vec<String>,
    /// The reply to the final dot (`raw`); for other clients whether they were content.
    #[serde(default)]
    dot: Option<String>,
    /// More header fields, each with its CRLF.
    #[serde(default)]
    header: String,
    /// The body; a short one with dots unless written.
    #[serde(default)]
    body: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Client {
    #[default]
    Raw,
    Swaks,
    Smtplib,
    Msmtp,
}

/// Mailboxes, one entry for each copy.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Arrives {
    primary: Vec<String>,
    secondary: Vec<String>,
    /// Outside: reports to the sender, and mail for foreign domains.
    outside: Vec<String>,
}

const BODY: &str = "first line\r\n.a line with a dot\r\n..two dots\r\n\r\nlast line\r\n";

#[test]
fn every_journey_with_a_file_directory() {
    run_all(NodeDirectory::File, 20);
}

#[test]
fn every_journey_without_a_queue_in_front() {
    let replace = vec![("\"queue\"", "\"cut-through\"")];
    run_in(
        &PostfixSystems::start_with(NodeDirectory::File, &Changes { replace, ..Changes::default() }),
        NodeDirectory::File,
        20,
    );
}

#[test]
fn every_journey_with_an_active_directory() {
    run_all(NodeDirectory::ActiveDirectory, 45);
}

#[test]
fn every_journey_with_an_openldap_directory() {
    run_all(NodeDirectory::Openldap, 25);
}

fn run_all(kind: NodeDirectory, at_least: usize) {
    run_in(&PostfixSystems::start(kind), kind, at_least);
}

fn run_in(systems: &PostfixSystems, kind: NodeDirectory, at_least: usize) {
    let cases: Vec<(PathBuf, Journey)> = cases()
        .into_iter()
        .filter(|(_, case)| case.directories.is_empty() || case.directories.contains(&kind))
        .collect();
    assert!(cases.len() >= at_least, "only {} journeys found", cases.len());
    let mut failed = Vec::new();
    for (folder, case) in &cases {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match travel(systems, &name, case) {
            Ok(()) => println!("ok   {name}: {}", case.about),
            Err(why) => failed.push(format!("{name} ({}): {why}", case.about)),
        }
    }
    assert!(failed.is_empty(), "{} of {} journeys failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

fn cases() -> Vec<(PathBuf, Journey)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routing/journeys");
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root).expect("the folder is in the tree").flatten().map(|e| e.path()).collect();
    folders.retain(|folder| folder.join("journey.toml").exists());
    folders.sort();
    let read = |folder: PathBuf| {
        let text = fs::read_to_string(folder.join("journey.toml")).expect("readable");
        let case = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        (folder, case)
    };
    folders.into_iter().map(read).collect()
}

fn travel(systems: &PostfixSystems, name: &str, case: &Journey) -> Result<(), String> {
    let mut bodies = Vec::new();
    for (at, send) in case.send.iter().enumerate() {
        let body = send.body.clone().unwrap_or_else(|| BODY.to_owned());
        hand_in(systems, &token(name), at, send, &body)?;
        bodies.push(body.into_bytes());
    }
    let expected = postfix_systems::Arrived {
        primary: sorted(&case.arrives.primary),
        secondary: sorted(&case.arrives.secondary),
        outside: sorted(&case.arrives.outside),
    };
    systems.settle(&token(name), &expected)?;
    for mail in systems.kept(&token(name)) {
        if !bodies.iter().any(|body| body == mail.body() || trimmed(body) == trimmed(mail.body())) {
            return Err(format!(
                "the body for {} is not what was sent: {:?}",
                mail.mailbox,
                String::from_utf8_lossy(mail.body())
            ));
        }
    }
    Ok(())
}

/// Without its final line ends: swaks adds one.
fn trimmed(body: &[u8]) -> &[u8] {
    body.trim_ascii_end()
}

fn sorted(list: &[String]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|address| address.to_lowercase()).collect();
    list.sort();
    list
}

/// What marks all mail of one journey.
fn token(name: &str) -> String {
    format!("journey-{name}")
}

fn hand_in(systems: &PostfixSystems, token: &str, at: usize, send: &Send, body: &str) -> Result<(), String> {
    let message = format!(
        "From: Sender <{}>\r\nTo: someone\r\nSubject: {token}\r\nMessage-ID: <{token}.{at}@sender.test>\r\n\
         Date: Sat, 21 Nov 2026 04:39:00 +0000\r\nX-Journey: {token}\r\n{}\r\n{body}",
        send.from, send.header
    );
    let to: Vec<&str> = send.to.iter().map(String::as_str).collect();
    let letter = senders::Letter { from: &send.from, to: &to, bytes: message.as_bytes() };
    let told = match send.client {
        Client::Raw => return converse(systems, send, &letter),
        Client::Swaks => senders::swaks(systems.node.smtp, &letter),
        Client::Smtplib => senders::smtplib(systems.node.smtp, &letter),
        Client::Msmtp => senders::msmtp(systems.node.smtp, &letter),
    };
    let wanted = send.dot.as_deref().unwrap_or("250").starts_with('2');
    if told.accepted == wanted { Ok(()) } else { Err(format!("message {at}: {}", told.printed)) }
}

fn converse(systems: &PostfixSystems, send: &Send, letter: &senders::Letter<'_>) -> Result<(), String> {
    let mut raw = Raw::hello(systems.node.smtp);
    let (replies, dot) = raw.transact(letter, &send.parameters);
    let told: Vec<String> = replies[1..].iter().map(|(_, text)| text.replace("\r\n", " ")).collect();
    if replies[0].0 != 250 {
        return Err(format!("MAIL: {}", replies[0].1));
    }
    let wanted = if send.rcpt.is_empty() { vec!["250".to_owned(); told.len()] } else { send.rcpt.clone() };
    if told.len() != wanted.len() || !told.iter().zip(&wanted).all(|(told, wanted)| told.starts_with(wanted.as_str())) {
        return Err(format!("RCPT: wanted {wanted:?}, got {told:?}"));
    }
    match (&dot, &send.dot) {
        (None, None) => Ok(()),
        (Some((250, _)), None) => Ok(()),
        (Some((_, text)), Some(wanted)) if text.starts_with(wanted.as_str()) => Ok(()),
        _ => Err(format!("final dot: wanted {:?}, got {dot:?}", send.dot)),
    }
}
