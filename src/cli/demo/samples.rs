//! The sample mail, and where it has to arrive.

use super::arrivals::{Arrived, Count};

/// The sender, a user of the primary, who gets reports.
pub(super) const SENDER: &str = "alice@contoso.example";

pub(super) struct Sample {
    /// What it demonstrates.
    pub(super) title: &'static str,
    pub(super) to: &'static [&'static str],
    /// The expected content of mailboxes.
    arrives: &'static [(&'static str, Arrives)],
    /// What happens after the first decision, if anything.
    pub(super) then: &'static str,
}

/// The expected content of a mailbox.
enum Arrives {
    Copy,
    /// One report with these codes.
    Report(&'static str),
}

impl Sample {
    /// The expected content of all mailboxes.
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
