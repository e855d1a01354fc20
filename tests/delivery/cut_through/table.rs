//! Every step of a next hop's conversation by every behaviour: `tests/delivery/cut_through/table/*.toml`.
//!
//! A cell has a domain, two send connectors (`pN` for recipients `p0`, `p1` ... that the directory has, `sN` for `s0` ...
//! that it does not) and two scripted next hops of its own, so that all cells run in one node at once. Each asserts the
//! replies to the sender, the copies on each side, the queue, and, when its next hops are well again, that every
//! recipient that was accepted has exactly one copy or one report, and nobody else anything.

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::cut_through::fixture::{STAFF, STAFF_DOOR, address_space, connector_to, is_expected, letter, shared_domain};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::senders::{Letter, Raw, SmtpReply};
use support::test_network::{PEOPLE, SOON, TestNetwork};
use support::within;

mod cells;
mod hop;
use cells::{Case, Client, read};
use hop::Hop;

/// Conversations at once: few enough that a healthy next hop never seems slow.
const AT_ONCE: usize = 16;

/// A cell in its place.
struct Placed {
    name: String,
    number: usize,
    case: Case,
    primary: Hop,
    secondary: Hop,
}

/// What the sender was told.
struct Told {
    rcpt: Vec<SmtpReply>,
    dot: Option<SmtpReply>,
    /// The reply to NOOP behind it all: no next hop ends the client's session.
    noop: SmtpReply,
}

impl Told {
    /// The recipients that we answer for.
    fn accepted<'a>(&self, case: &'a Case) -> Vec<&'a str> {
        if self.dot.as_ref().is_none_or(|said| said.0 != 250) {
            return Vec::new();
        }
        case.to.iter().zip(&self.rcpt).filter(|(_, said)| said.0 == 250).map(|(to, _)| to.as_str()).collect()
    }
}

impl Placed {
    fn address(&self, recipient: &str) -> String {
        format!("{recipient}@c{}.test", self.number)
    }

    fn sender(&self) -> String {
        format!("sender{}@outside.test", self.number)
    }

    fn tables(&self) -> String {
        let (case, number) = (&self.case, self.number);
        let domain = format!("c{number}.test");
        let slow = ["wait", "drip", "silence"];
        let hasty = slow.iter().any(|word| case.primary.contains(word) || case.secondary.contains(word));
        let patience = if hasty { "cut_through_patience = \"1s\"\n" } else { "" };
        let secret = "tls = { mode = \"required\" }\n\
                      auth = { mechanism = \"plain\", username = \"fingerpost\", password_file = \"password\" }\n";
        let secret = if case.secret { secret } else { "" };
        let primary = format!("{patience}{secret}{}\n{}", case.settings, case.primary_settings);
        let secondary = format!("{patience}{}\n{}\n{}", address_space(&domain), case.settings, case.secondary_settings);
        connector_to(&format!("p{number}"), self.primary.address(), &primary)
            + &connector_to(&format!("s{number}"), self.secondary.address(), &secondary)
            + &shared_domain(&domain, &format!("p{number}"))
    }

    fn converse(&self, server: SocketAddr) -> Told {
        let source = if self.case.client == Client::Staff { STAFF } else { Ipv4Addr::LOCALHOST };
        let to: Vec<String> = self.case.to.iter().map(|to| self.address(to)).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let bytes = letter(&format!("cell-{}", self.number), self.case.size * 1024);
        let letter = Letter { from: &self.sender(), to: &to, bytes: bytes.as_bytes() };
        let mut raw = Raw::hello_from(source, server);
        let (mut replies, dot) = raw.transact(&letter, "");
        let rcpt = replies.split_off(1);
        assert_eq!(replies[0].0, 250, "MAIL is answered by us: {}", replies[0].1);
        Told { rcpt, dot, noop: raw.say("NOOP") }
    }

    /// Who has copies, sorted.
    fn taken(&self) -> Vec<String> {
        let domain = format!("@c{}.test", self.number);
        let hops = if self.case.is_well() { vec![&self.primary] } else { vec![&self.primary, &self.secondary] };
        let taken = hops.iter().flat_map(|hop| hop.taken());
        let mut taken: Vec<String> =
            taken.filter_map(|address| address.strip_suffix(&domain).map(str::to_owned)).collect();
        taken.sort();
        taken
    }

    /// Who waits in the queue, sorted.
    fn queued(&self, queue: &[serde_json::Value]) -> Vec<String> {
        let domain = format!("@c{}.test", self.number);
        let of = |entry: &serde_json::Value| {
            let undone = !["delivered", "relayed", "failed"].contains(&entry["state"].as_str()?);
            entry["address"].as_str()?.strip_suffix(&domain).filter(|_| undone).map(str::to_owned)
        };
        let mut queued: Vec<String> = queue.iter().filter_map(of).collect();
        queued.sort();
        queued
    }

    /// What is wrong with the replies.
    fn wrong_replies(&self, told: &Told) -> Option<String> {
        if told.noop.0 != 250 {
            return Some(format!("the session is over: {:?}", told.noop));
        }
        for (to, said) in self.case.to.iter().zip(&told.rcpt) {
            let organization = format!("{}{}", &to[..1], self.number);
            let expected = self.case.rcpt.get(to).map_or("250", String::as_str);
            if !is_expected(said, expected, &organization) {
                return Some(format!("RCPT {to}: {:?}, expected {expected:?}", said.1));
            }
        }
        let organization = format!("{}{}", &self.case.to[0][..1], self.number);
        match &told.dot {
            Some(said) if !is_expected(said, &self.case.dot, &organization) => {
                Some(format!("final reply {:?}, expected {:?}", said.1, self.case.dot))
            }
            None if told.rcpt.iter().any(|said| said.0 == 250) => Some("no final reply".to_owned()),
            _ => None,
        }
    }

    /// What is wrong with the copies and the queue after the final reply.
    fn wrong_places(&self, told: &Told, queue: &[serde_json::Value]) -> Option<String> {
        let (case, accepted) = (&self.case, told.accepted(&self.case));
        let mut queued: Vec<&str> = case.queued.iter().map(String::as_str).collect();
        queued.retain(|to| accepted.contains(to));
        queued.sort_unstable();
        let elsewhere = |to: &&str| !queued.contains(to) && !case.reported.contains_key(*to);
        let mut taken: Vec<&str> = accepted.iter().copied().filter(elsewhere).collect();
        taken.sort_unstable();
        if !case.open && (self.taken() != taken || self.queued(queue) != queued) {
            let found = (self.taken(), self.queued(queue));
            return Some(format!("copies and queue {found:?}, expected {:?}", (taken, queued)));
        }
        None
    }

    /// What is wrong in the end.
    fn wrong_end(&self, network: &TestNetwork, told: &Told, alerted: &HashSet<String>) -> Option<String> {
        let case = &self.case;
        let mut copies: Vec<&str> = told.accepted(case);
        copies.retain(|to| !case.reported.contains_key(*to));
        copies.sort_unstable();
        if self.taken() != copies {
            return Some(format!("in the end copies for {:?}, expected {copies:?}", self.taken()));
        }
        let reports = network.reports(&self.sender());
        let fields = |name| reports.iter().flat_map(|report| report.fields(name)).collect::<Vec<_>>();
        let told_about = fields("Final-Recipient").into_iter().zip(fields("Status"));
        let told_about: BTreeMap<String, String> =
            told_about.map(|(to, how)| (to.to_owned(), how.to_owned())).collect();
        let expected = case.reported.iter().map(|(to, how)| (format!("rfc822; {}", self.address(to)), how.clone()));
        let expected: BTreeMap<String, String> = expected.collect();
        let is_reported = |(to, how): (&String, &String)| {
            expected.get(to).is_some_and(|expected| expected.split('|').any(|one| one == how))
        };
        if !told_about.iter().all(is_reported)
            || [told_about.len(), fields("Final-Recipient").len()] != [expected.len(); 2]
        {
            return Some(format!("reports {told_about:?} ({}), expected {expected:?}", reports.len()));
        }
        let alert = ["p", "s"].iter().any(|way| alerted.contains(&format!("{way}{}", self.number)));
        (alert != case.alert).then(|| format!("alert: {alert}"))
    }
}

fn place(network: &TestNetwork) -> Vec<Placed> {
    let well = Arc::new(network.hop(""));
    let placed = |(number, (name, case)): (usize, (String, Case))| {
        let start = |script: &str| match script {
            "" => Hop::Well(well.clone()),
            script => Hop::start(network, script),
        };
        let secondary = start(&case.secondary);
        let primary = if case.secret { Hop::start_with_secrets(network, &case.primary) } else { start(&case.primary) };
        Placed { name, number, case, primary, secondary }
    };
    read().into_iter().enumerate().map(placed).collect()
}

#[test]
fn every_step_by_every_behaviour() {
    let mut network = TestNetwork::prepare();
    let mut placed = place(&network);
    assert!(placed.len() >= 600, "only {} cells were found", placed.len());
    let resolved = |cell: &Placed| ["p0", "p1", "p2"].map(|to| cell.address(to) + "\n").concat();
    network.node.write("people.csv", &format!("address\n{}", placed.iter().map(resolved).collect::<String>()));
    network.node.write("password", "secret\n");
    let tables: String = placed.iter().map(Placed::tables).collect();
    network.start(&format!("{PEOPLE}{STAFF_DOOR}{tables}"));

    let told = converse(&placed, network.node.smtp);
    let mut faults = Vec::new();
    let mut fault = |cell: &Placed, wrong: Option<String>| {
        faults.extend(wrong.map(|wrong| format!("{} (number {}): {wrong}", cell.name, cell.number)));
    };
    settle(&network, &placed, &told);
    let queue = network.queue();
    for (cell, told) in placed.iter().zip(&told) {
        fault(cell, cell.wrong_replies(told));
        fault(cell, cell.wrong_places(told, &queue));
    }
    placed.iter_mut().for_each(|cell| {
        cell.primary.get_well(&network);
        cell.secondary.get_well(&network);
    });
    let rest = deliver(&network);
    let alerted = alerted(&network.node.log());
    for (cell, told) in placed.iter().zip(&told) {
        fault(cell, cell.wrong_end(&network, told, &alerted));
    }
    assert!(
        faults.is_empty() && rest.is_empty(),
        "{} of {}:\n{}\n{rest}",
        faults.len(),
        placed.len(),
        faults.join("\n")
    );
    println!("{} cells, each as expected", placed.len());
}

/// All conversations, some at a time.
fn converse(placed: &[Placed], server: SocketAddr) -> Vec<Told> {
    let (next, told) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(cell) = placed.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let answers = cell.converse(server);
                    told.lock().unwrap().insert(cell.number, answers);
                }
            });
        }
    });
    told.into_inner().unwrap().into_values().collect()
}

/// The send connectors that somebody has to look at.
fn alerted(log: &str) -> HashSet<String> {
    let lines = log.lines().filter(|line| line.contains(" alert=true "));
    let name = |line: &str| Some(line.split_once("send_connector=")?.1.split(' ').next()?.to_owned());
    lines.filter_map(name).collect()
}

/// Waits until every cell is as it should be after the final reply, or long enough. What is wrong is found cell by cell.
fn settle(network: &TestNetwork, placed: &[Placed], told: &[Told]) {
    within(SOON / 2, || {
        let queue = network.queue();
        placed.iter().zip(told).all(|(cell, told)| cell.wrong_places(told, &queue).is_none())
    });
}

/// Retries all until the queue is empty; what is left of it.
fn deliver(network: &TestNetwork) -> String {
    let empty = within(3 * SOON, || {
        network.node.run(&["queue", "retry", "--all"]);
        network.queue().is_empty()
    });
    if empty {
        return String::new();
    }
    format!("the queue does not get empty: {:?}", network.queue())
}
