//! A snapshot's figures for operators, its age, and log lines about held changes. `measure` has the gauges.

use super::Snapshot;
use super::report::SnapshotReport;
use super::served::{Outcome, Served};
use crate::time::UnixTime;

impl Snapshot {
    #[must_use]
    pub fn report(&self) -> SnapshotReport {
        let served = self.served.load();
        let served = served.as_deref();
        let (expected_addresses, expected_recipients) =
            served.map_or((0, 0), |served| served.expected().counted(self.now().at));
        SnapshotReport {
            recipients: served.map(|served| served.current().count_entries()),
            age_seconds: self.age_seconds(),
            held: served.map_or(0, Served::held),
            expected_addresses,
            expected_recipients,
            reading: None,
            problem: None,
        }
    }

    /// Checks the clock, and sets the gauge of the age.
    pub fn tell_age(&self) {
        self.contact.lock().mind_the_clock(UnixTime::steady(), super::instant());
        let age = self.age_seconds().map_or(-1, |age| i64::try_from(age).unwrap_or(i64::MAX));
        self.metrics.directory_snapshot_age.with_label_values(&[&*self.name]).set(age);
    }

    fn age_seconds(&self) -> Option<u64> {
        self.contact.lock().age(UnixTime::steady()).map(|age| age.as_secs())
    }
}

/// Logs one line when changes begin or cease to be held.
pub(super) fn held(name: &str, before: Option<&Served>, outcome: Outcome) {
    let (was_held, was_told) =
        before.map_or((false, false), |before| (before.is_holding(), before.is_holding() && !before.is_resuming()));
    match outcome {
        Outcome::Held(recipients) if !was_told => tracing::error!(
            directory = name,
            recipients,
            "changes that would turn the mail of too many recipients around are held: look at the directory; if they are \
             meant, `fingerpost directory refresh {name} --accept` takes them; `fingerpost directory held {name}` lists them"
        ),
        Outcome::Taken(recipients) if was_held => {
            tracing::info!(directory = name, recipients, "no changes are held any more");
        }
        Outcome::Held(_) | Outcome::Taken(_) => {}
    }
}

/// The same at a start, when the held changes are still unknown.
pub(super) fn resumed(name: &str, served: &Served) {
    if served.is_resuming() {
        tracing::error!(
            directory = name,
            "changes were held at the end and still are: `fingerpost directory held {name}` lists them as soon as the \
             directory has been read"
        );
    }
}
