//! What refusals mean: each line of `refusals/*.txt` is a reply as a server says it, and how it is to be read. Whatever
//! is echoed in a reply changes nothing, and the manual shows every row.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;

use fingerpost::delivery::refusal::read::{Reading, Transaction, read};
use fingerpost::delivery::refusal::{Step, rows};
use fingerpost::smtp::client::replies::Replies;
use fingerpost::smtp::reply::Reply;

mod echoes;
mod page;

/// One line, and who spoke.
#[derive(Debug)]
struct Case {
    line: String,
    step: Step,
    wire: String,
    expected: String,
    said: Vec<String>,
    client: Option<IpAddr>,
    ours: Vec<IpAddr>,
}

impl Case {
    fn reply(&self) -> Reply {
        parsed(&self.wire)
    }

    fn reading(&self, reply: &Reply) -> Reading {
        let said: Vec<&str> = self.said.iter().map(String::as_str).collect();
        let transaction =
            Transaction { said: &said, name: "mx.fingerpost.test", client: self.client, ours: &self.ours };
        read(self.step, reply, &transaction)
    }
}

/// The reply as it comes from the wire.
fn parsed(wire: &str) -> Reply {
    let mut replies = Replies::default();
    replies.buffer.extend_from_slice(wire.replace('\n', "\r\n").as_bytes());
    replies.buffer.extend_from_slice(b"\r\n");
    replies.next_reply().expect("a reply").expect("a whole reply")
}

fn shown(reading: &Reading) -> String {
    format!("{:?} {}", reading.meaning, reading.row.name)
}

fn step(name: &str) -> Step {
    match name {
        "GREETING" => Step::Greeting,
        "EHLO" => Step::Ehlo,
        "STARTTLS" => Step::StartTls,
        "AUTH" => Step::Auth,
        "MAIL" => Step::Mail,
        "RCPT" => Step::Rcpt,
        "DATA" => Step::Data,
        "DOT" => Step::Dot,
        other => panic!("there is no step {other}"),
    }
}

fn cases() -> &'static [Case] {
    static CASES: LazyLock<Vec<Case>> = LazyLock::new(all_cases);
    &CASES
}

fn all_cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delivery/refusals");
    let mut cases = Vec::new();
    for file in ["cases.txt", "products.txt"] {
        let text = std::fs::read_to_string(folder.join(file)).expect("readable");
        let (mut said, mut client, mut ours) = (Vec::new(), None, Vec::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(words) = line.strip_prefix('@') {
                let (about, rest) = words.split_once(' ').expect("a word and what it says");
                match about {
                    "client" => client = rest.parse().ok(),
                    "ours" => ours = rest.split(' ').map(|ip| ip.parse().expect("an address")).collect(),
                    "said" => said = rest.split(' ').map(str::to_owned).collect(),
                    other => panic!("{file}: @{other}"),
                }
                continue;
            }
            let (says, expected) = line.rsplit_once(" => ").unwrap_or_else(|| panic!("{file}: {line}"));
            let (at, wire) = says.split_once(": ").unwrap_or_else(|| panic!("{file}: {line}"));
            cases.push(Case {
                line: line.to_owned(),
                step: step(at),
                wire: wire.replace("\\n", "\n"),
                expected: expected.to_owned(),
                said: said.clone(),
                client,
                ours: ours.clone(),
            });
        }
    }
    assert!(cases.len() >= 200, "only {} replies found", cases.len());
    cases
}

#[test]
fn replies_are_read_as_they_are_meant() {
    let read = |case: &Case| shown(&case.reading(&case.reply()));
    let wrong = cases()
        .iter()
        .filter(|case| read(case) != case.expected)
        .map(|case| format!("{}\n    read as {}", case.line, read(case)))
        .collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{} are read otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_row_has_a_reply() {
    let seen: BTreeSet<&str> = cases().iter().map(|case| case.reading(&case.reply()).row.name).collect();
    let missing: Vec<&str> = rows::all().map(|row| row.name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no reply in refusals/*.txt is read by {missing:?}");
}

#[test]
fn names_are_one_of_a_kind() {
    let names: Vec<&str> = rows::all().map(|row| row.name).collect();
    let different: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), different.len());
    for name in names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
    }
}
