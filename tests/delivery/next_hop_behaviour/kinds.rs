//! A refusal, and what is right: each as a next hop of its own, with a domain of its own, so that all of them run in one
//! node at once. Each is met by a stranger who sends to somebody unresolved, and by one who sends to somebody resolved.

use crate::cut_through::fixture::{address_space, connector_to, shared_domain};
use crate::next_hop_behaviour::fixture::{Heard, is_up, sends};
use support::scripted_smtp_server::ScriptedSmtpServer;
use support::test_network::{PEOPLE, TestNetwork};

/// What is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// There is no such recipient: 550 for the unresolved one; the resolved one may be new, and is doubted.
    Unknown,
    /// It is about us: never a 5xx of ours. 451 for the unresolved one; the resolved one is queued; an alert.
    AboutUs,
    /// The next hop cannot now: the same without an alert.
    Unreachable,
    /// The client's answer, which begins so, in the next hop's words.
    Answer(&'static str),
}

/// A case of the field, where it is said, what is said, and what is right.
pub(crate) type Case = (&'static str, &'static str, &'static str, Expected);

/// A case in its place.
struct Placed {
    number: usize,
    case: &'static Case,
    hop: ScriptedSmtpServer,
}

impl Placed {
    fn on(network: &TestNetwork, number: usize, case: &'static Case) -> Self {
        let (_, step, says, _) = case;
        let domain = format!("k{number}.test");
        // The recipients' addresses as they are echoed.
        let rule = |to: &str| {
            let says = says.replace("{to}", &format!("{to}@{domain}")).replace("{domain}", &domain);
            match *step {
                "rcpt" => format!("rcpt to:<{to}@ => {says}\n"),
                step => format!("with {to}@: {step} => {says}\n"),
            }
        };
        let script = if *step == "mail" { format!("mail => {says}") } else { rule(UNRESOLVED) + &rule(RESOLVED) };
        Self { number, case, hop: network.hop(&script) }
    }

    fn domain(&self) -> String {
        format!("k{}.test", self.number)
    }

    fn tables(&self) -> String {
        let (domain, number) = (self.domain(), self.number);
        let secondary = address_space(&domain);
        let primary = format!("primary{number}");
        connector_to(&primary, self.hop.address, "")
            + &connector_to(&format!("secondary{number}"), self.hop.address, &secondary)
            + &shared_domain(&domain, &primary)
    }

    /// What is wrong with it.
    fn check(&self, network: &TestNetwork) -> Result<(), String> {
        let (case, step, says, right) = self.case;
        let send = |to: &str| {
            sends(network.node.smtp, &format!("{to}-{}", self.number), &[&format!("{to}@{}", self.domain())])
        };
        let (unresolved, resolved) = (send(UNRESOLVED), send(RESOLVED));
        let (expected, kept) = match right {
            Expected::Unknown => ("550 5.1.1 ", "451 4.3.0 "),
            Expected::AboutUs | Expected::Unreachable => ("451 4.4.1 ", "250 2.0.0 queued"),
            Expected::Answer(said) => (*said, *said),
        };
        let fault = |what: &str, heard: &Heard| Err(format!("{case}: {step} => {says}: {right:?}: {what}: {heard:?}"));
        if !unresolved.last().starts_with(expected) || !resolved.last().starts_with(kept) {
            return Err(format!("{case}: {step} => {says}: {right:?}: {unresolved:?}, {resolved:?}"));
        }
        let passed_on = matches!(right, Expected::Unknown | Expected::Answer(_));
        if passed_on && !unresolved.last().contains(" said: ") {
            return fault("not in its words", &unresolved);
        }
        let alerts = network.alerts(&format!("send_connector=primary{} ", self.number))
            + network.alerts(&format!("send_connector=secondary{} ", self.number));
        if alerts != usize::from(*right == Expected::AboutUs) {
            return fault(&format!("{alerts} alerts"), &unresolved);
        }
        if *step != "mail" {
            is_up(network, &format!("secondary{}", self.number), self.hop.address);
            let fine = send("fine");
            if !fine.last().starts_with("250 2.0.0 delivered") {
                return fault("others are hit", &fine);
            }
        }
        let waits = network.standing(&format!("{RESOLVED}@{}", self.domain())).is_some();
        if waits != matches!(right, Expected::AboutUs | Expected::Unreachable) {
            return fault(&format!("it waits: {waits}"), &resolved);
        }
        Ok(())
    }
}

/// The words are in the address: nothing follows from that.
const UNRESOLVED: &str = "relay1";
const RESOLVED: &str = "relay2";

/// Tries all of them.
pub(crate) fn are_right(cases: &'static [Case]) {
    let mut network = TestNetwork::prepare();
    let placed: Vec<Placed> =
        cases.iter().enumerate().map(|(number, case)| Placed::on(&network, number, case)).collect();
    let people: String = placed.iter().map(|placed| format!("{RESOLVED}@{}\n", placed.domain())).collect();
    network.node.write("people.csv", &format!("address\n{people}"));
    network.start(&format!("{PEOPLE}{}", placed.iter().map(Placed::tables).collect::<String>()));
    let faults: Vec<String> = placed.iter().filter_map(|placed| placed.check(&network).err()).collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), placed.len(), faults.join("\n"));

    // Nobody gets a bounce, and what waits arrives once the cause is put right.
    assert!(network.senders.all().is_empty(), "a bounce");
    placed.iter().for_each(|placed| placed.hop.follow(""));
    network.deliver();
    for placed in &placed {
        let kept = matches!(placed.case.3, Expected::AboutUs | Expected::Unreachable);
        let taken = placed.hop.taken().iter().filter(|to| to.starts_with(RESOLVED)).count();
        assert_eq!(taken, usize::from(kept), "{:?}", placed.case);
    }
    assert!(network.senders.all().is_empty(), "a bounce");
}
