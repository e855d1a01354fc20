//! DESIGN section 7, "what the next hop says", row by row through the whole program: `tests/delivery/hops/says/*.toml`.
//!
//! Every case has a domain, a send connector and a scripted next hop of its own, so that all of them run in one node at
//! once. Its message either `waits` (the queue shows why; nobody is told; it arrives when the next hop is well again), is
//! `reported` (one report; it never arrives), or `arrives` at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;

use support::scripted_smtp_server::ScriptedSmtpServer;
use support::test_network::{BY_HAND, PEOPLE, SOON, TestNetwork, connector, domain};

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    case: Vec<Case>,
}

/// What a next hop says and what comes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The next hop's script.
    says: String,
    /// How many recipients the message has: `r0` and so on.
    #[serde(default = "one")]
    recipients: usize,
    /// No directory has the recipients: they are relayed, and nobody vouches for them.
    #[serde(default)]
    relayed: bool,
    /// TLS is required.
    #[serde(default)]
    tls: bool,
    /// It is authenticated to.
    #[serde(default)]
    auth: bool,
    /// What the queue shows of those that wait.
    waits: Option<String>,
    /// What the sender is told.
    reported: Option<Told>,
    /// Those that it is about; without it: all. The others have arrived at once.
    #[serde(default)]
    about: Vec<usize>,
    /// Somebody has to look at it.
    #[serde(default)]
    alert: bool,
}

/// What a report says of each recipient.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    status: String,
    /// The end of Diagnostic-Code.
    diagnostic: String,
}

fn one() -> usize {
    1
}

/// A case in its place.
struct Placed {
    name: String,
    number: usize,
    case: Case,
    hop: ScriptedSmtpServer,
}

impl Placed {
    fn address(&self, recipient: usize) -> String {
        format!("r{recipient}@c{}.test", self.number)
    }

    fn sender(&self) -> String {
        format!("sender{}@outside.test", self.number)
    }

    fn all(&self) -> Vec<String> {
        (0..self.case.recipients).map(|recipient| self.address(recipient)).collect()
    }

    /// The recipients that the case is about.
    fn about(&self) -> Vec<String> {
        match (&self.case.waits, &self.case.reported, self.case.about.as_slice()) {
            (None, None, _) => Vec::new(),
            (_, _, []) => self.all(),
            (_, _, about) => about.iter().map(|recipient| self.address(*recipient)).collect(),
        }
    }

    /// Those that have it at once.
    fn arrive(&self) -> Vec<String> {
        let about = self.about();
        self.all().into_iter().filter(|address| !about.contains(address)).collect()
    }

    fn connector(&self) -> String {
        let tls = if self.case.tls || self.case.auth { "tls = { mode = \"required\" }\n" } else { "" };
        let auth = "auth = { mechanism = \"plain\", username = \"fingerpost\", password_file = \"password\" }\n";
        let auth = if self.case.auth { auth } else { "" };
        let name = format!("hop{}", self.number);
        let own = format!("c{}.test", self.number);
        let (space, domain) = match self.case.relayed {
            true => {
                (format!("address_spaces = [{{ domain = \"{own}\" }}]\n"), domain(&own, "internal-relay", "senders"))
            }
            false => (String::new(), domain(&own, "authoritative", &name)),
        };
        connector(&name, self.hop.address, &format!("{BY_HAND}\n{tls}{auth}{space}")) + &domain
    }

    fn well(&self) -> &'static str {
        if self.case.tls || self.case.auth { OFFERS_TLS } else { "" }
    }

    fn taken(&self) -> Vec<String> {
        sorted(self.hop.taken())
    }
}

const OFFERS_TLS: &str = "ehlo => 250-next.hop\\n250-PIPELINING\\n250-STARTTLS\\n250 AUTH PLAIN LOGIN\n\
                          auth => 235 2.7.0 welcome";

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

fn read() -> BTreeMap<String, Vec<Case>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/delivery/hops/says");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let cases: Cases = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.file_stem().unwrap().to_string_lossy().into_owned(), cases.case)
        })
        .collect()
}

fn place(network: &TestNetwork) -> Vec<Placed> {
    let mut placed = Vec::new();
    for (file, cases) in read() {
        for case in cases {
            let well = if case.tls || case.auth { OFFERS_TLS } else { "" };
            let script = format!("{}\n{well}", case.says);
            let hop = if well.is_empty() { network.hop(&script) } else { network.tls_hop(&script) };
            let name = format!("{file}: {}", case.says.trim());
            placed.push(Placed { name, number: placed.len(), case, hop });
        }
    }
    placed
}

#[test]
fn every_row_of_what_the_next_hop_says() {
    let mut network = TestNetwork::prepare();
    let placed = place(&network);
    assert!(placed.len() >= 60, "only {} cases were found", placed.len());
    let resolved = placed.iter().filter(|placed| !placed.case.relayed);
    let people: String = resolved.flat_map(Placed::all).map(|address| format!("{address}\n")).collect();
    network.node.write("people.csv", &format!("address\n{people}"));
    network.node.write("password", "secret\n");
    let connectors: String = placed.iter().map(Placed::connector).collect();
    network.start(&format!("{PEOPLE}{connectors}"));

    for case in &placed {
        let to = case.all();
        network.send(&case.sender(), &to.iter().map(String::as_str).collect::<Vec<_>>());
    }
    settle(&network, &placed);
    let mut faults: Vec<String> = placed.iter().filter_map(|case| check(&network, case)).collect();

    for case in &placed {
        case.hop.follow(case.well());
    }
    network.deliver();
    faults.extend(placed.iter().filter_map(|case| check_at_the_end(&network, case)));
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), placed.len(), faults.join("\n"));
    println!("{} cases of what the next hop says, each as expected", placed.len());
}

/// Waits until every recipient that is not over has been tried. What is wrong is found case by case.
fn settle(network: &TestNetwork, placed: &[Placed]) {
    let waiting: usize = placed.iter().filter(|case| case.case.waits.is_some()).map(|case| case.about().len()).sum();
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        let mut shown = network.queue();
        shown.retain(|recipient| recipient["state"] == "waiting");
        if shown.len() <= waiting && shown.iter().all(|recipient| recipient["attempts"] != 0) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How the case stands after the first attempt; what is wrong with it.
fn check(network: &TestNetwork, placed: &Placed) -> Option<String> {
    let fault = |what: String| Some(format!("{}: {what}", placed.name));
    let (case, about) = (&placed.case, placed.about());
    let shown: Vec<_> = network
        .queue()
        .into_iter()
        .filter(|recipient| recipient["connector"] == format!("hop{}", placed.number))
        .collect();
    if let Some(words) = &case.waits {
        let waits = |address: &String| {
            shown.iter().any(|recipient| {
                recipient["address"] == **address
                    && recipient["state"] == "waiting"
                    && recipient["last_error"].as_str().is_some_and(|error| error.contains(words))
            })
        };
        if !about.iter().all(waits) {
            return fault(format!("{words:?} does not wait: {shown:?}"));
        }
    } else if shown.iter().any(|recipient| recipient["state"] == "waiting") {
        return fault(format!("it waits: {shown:?}"));
    }
    if placed.taken() != sorted(placed.arrive()) {
        return fault(format!("arrived {:?}, expected {:?}", placed.taken(), placed.arrive()));
    }
    let alerts = network.alerts(&format!("send_connector=hop{} ", placed.number));
    if (alerts > 0) != case.alert {
        return fault(format!("{alerts} alerts"));
    }
    None
}

/// How the case ended, its next hop well again; what is wrong with it.
fn check_at_the_end(network: &TestNetwork, placed: &Placed) -> Option<String> {
    let fault = |what: String| Some(format!("{}: {what}", placed.name));
    let expected = if placed.case.reported.is_some() { placed.arrive() } else { placed.all() };
    if placed.taken() != sorted(expected.clone()) {
        return fault(format!("in the end arrived {:?}, expected {expected:?}", placed.taken()));
    }
    let reports = network.reports(&placed.sender());
    let Some(told) = &placed.case.reported else {
        return (!reports.is_empty()).then(|| format!("{}: reported: {reports:?}", placed.name));
    };
    let [report] = reports.as_slice() else { return fault(format!("{} reports", reports.len())) };
    let about = placed.about();
    let finals: Vec<String> = about.iter().map(|address| format!("rfc822; {address}")).collect();
    let codes = report.fields("Diagnostic-Code");
    let right = report.fields("Final-Recipient") == finals
        && report.fields("Action") == vec!["failed"; about.len()]
        && report.fields("Status") == vec![told.status.as_str(); about.len()]
        && codes == vec![format!("smtp; {}", told.diagnostic); about.len()]
        && report.has(&format!("The mail system of \"hop{}\" refused it", placed.number));
    if right { None } else { fault(format!("{report:?}")) }
}

#[test]
fn a_connection_that_breaks_anywhere_is_no_answer() {
    let mut network = TestNetwork::prepare();
    let steps = ["greeting", "ehlo", "mail", "rcpt", "data", "dot"];
    let hops = steps.map(|step| (format!("{step}.test"), network.hop(&format!("{step} => drop"))));
    network.node.write("people.csv", &format!("address\n{}", steps.map(|step| format!("ann@{step}.test\n")).concat()));
    let table = |(name, hop): &(String, ScriptedSmtpServer)| {
        connector(name, hop.address, BY_HAND) + &domain(name, "authoritative", name)
    };
    network.start(&format!("{PEOPLE}{}", hops.iter().map(table).collect::<String>()));
    for (name, _) in &hops {
        network.send("s@outside.test", &[&format!("ann@{name}")]);
    }
    for (name, hop) in &hops {
        network.waits(&format!("ann@{name}"), "4.4.");
        hop.follow("");
    }
    network.deliver();
    for (name, hop) in &hops {
        assert_eq!(hop.taken(), [format!("ann@{name}")]);
    }
    assert!(network.reports("s@outside.test").is_empty());
}
