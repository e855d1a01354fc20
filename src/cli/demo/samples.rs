//! The sample mail: what is sent, and where it must arrive.

use super::arrivals::{Arrived, Count};

/// Who sends: a person of the primary, so that reports have somewhere to go.
pub(super) const SENDER: &str = "alice@contoso.example";

/// One sample message.
pub(super) struct Sample {
    /// What it shows.
    pub(super) title: &'static str,
    /// Its recipients.
    pub(super) to: &'static [&'static str],
    /// Mailboxes, and what each must have in the end.
    arrives: &'static [(&'static str, Arrives)],
    /// What happens behind the first decision, where something does.
    pub(super) then: &'static str,
}

/// What a mailbox must have.
enum Arrives {
    Copy,
    /// One report that says this.
    Report(&'static str),
}

impl Sample {
    /// What must have arrived in the end.
    pub(super) fn expected(&self) -> Arrived {
        let count = |(mailbox, arrives): &(&str, Arrives)| {
            let count = match arrives {
                Arrives::Copy => Count { copies: 1, reports: Vec::new() },
                Arrives::Report(says) => Count { copies: 0, reports: vec![(*says).to_owned()] },
            };
            ((*mailbox).to_owned(), count)
        };
        self.arrives.iter().map(count).collect()
    }
}

pub(super) const SAMPLES: [Sample; 6] = [
    Sample {
        title: "Somebody whom the directory has",
        to: &["anna@contoso.example"],
        arrives: &[("primary/anna", Arrives::Copy)],
        then: "",
    },
    Sample {
        title: "Somebody whom only the secondary knows",
        to: &["bob@contoso.example"],
        arrives: &[("secondary/bob", Arrives::Copy)],
        then: "",
    },
    Sample {
        title: "One message for both sides: it is split",
        to: &["anna@contoso.example", "carol@contoso.example"],
        arrives: &[("primary/anna", Arrives::Copy), ("secondary/carol", Arrives::Copy)],
        then: "",
    },
    Sample {
        title: "Nobody: unknown to both",
        to: &["nobody@contoso.example"],
        arrives: &[],
        then: "the secondary was asked while the sender waited, and refused: he knows at once, and nobody writes a report",
    },
    Sample {
        title: "Somebody whom the secondary sends back to us",
        to: &["dave@contoso.example"],
        arrives: &[("primary/alice", Arrives::Report("554 5.4.6"))],
        then: "the secondary holds that dave lives on our side and sends the message back; Fingerpost knows its own\n\
               stamp on it and refuses it, so the secondary tells the sender: the loop ends on its first return",
    },
    Sample {
        title: "A domain that is not ours",
        to: &["erin@fabrikam.example"],
        arrives: &[],
        then: "nobody relays through Fingerpost who may not",
    },
];
