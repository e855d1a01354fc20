//! A snapshot in figures, for operators and Prometheus, and in the log.

use tokio::time::Instant;

use super::Snapshot;
use super::report::SnapshotReport;
use super::served::{Outcome, Served};
use crate::recipient::Kind;
use crate::time::UnixTime;

impl Snapshot {
    /// In figures.
    #[must_use]
    pub fn report(&self) -> SnapshotReport {
        let served = self.served.load();
        let served = served.as_deref();
        SnapshotReport {
            recipients: served.map(|served| served.current().count_entries()),
            age_seconds: self.age_seconds(),
            held: served.map_or(0, Served::held),
            reading: None,
            problem: None,
        }
    }

    /// Looks at the clock, and sets the gauge that changes by itself.
    pub fn tell_age(&self) {
        self.contact().mind_the_clock(UnixTime::steady(), Instant::now());
        let age = self.age_seconds().map_or(-1, |age| i64::try_from(age).unwrap_or(i64::MAX));
        self.metrics.directory_snapshot_age.with_label_values(&[&*self.name]).set(age);
    }

    fn age_seconds(&self) -> Option<u64> {
        self.contact().age(UnixTime::steady()).map(|age| age.as_secs())
    }

    pub(super) fn measure(&self) {
        let name = &*self.name;
        let served = self.served.load();
        let counts = served.as_deref().map(|served| served.current().count_kinds()).unwrap_or_default();
        for (kind, count) in Kind::ALL.iter().zip(counts) {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.directory_recipients.with_label_values(&[name, kind.as_str()]).set(count);
        }
        let held = served.as_deref().map_or(0, Served::held);
        self.metrics.directory_changes_held.with_label_values(&[name]).set(i64::try_from(held).unwrap_or(i64::MAX));
        self.tell_age();
    }
}

/// One line where changes begin to be held, or no longer are.
pub(super) fn tell(name: &str, before: usize, outcome: Outcome) {
    match outcome {
        Outcome::Held(recipients) if before == 0 => tracing::error!(
            directory = name,
            recipients,
            "changes that would turn the mail of too many recipients around are held: look at the directory; if they are \
             meant, `fingerpost directory refresh {name} --accept` takes them; `fingerpost directory held {name}` lists them"
        ),
        Outcome::Taken(recipients) if before > 0 => {
            tracing::info!(directory = name, recipients, "no changes are held any more");
        }
        Outcome::Held(_) | Outcome::Taken(_) => {}
    }
}
