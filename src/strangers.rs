//! Statistics of strangers: detects harvesting ([`harvest`]), and decides which events are logged individually or in
//! summaries ([`sums`]).
//!
//! `session` and `listener` use it; `run` logs the summaries.
//! [`Shown::is_stranger`](crate::smtp::envelope::Shown::is_stranger) defines strangers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub mod harvest;
pub mod sums;
pub mod taken;

use harvest::{Harvest, Pace, Who};
use sums::{About, Sum, Sums};

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::one_client::one_client;
use crate::time::UnixTime;
use crate::trace::{self, Event, Trace, What};

/// How often summaries that are complete are logged.
const EVERY: Duration = Duration::from_secs(5);

/// The statistics. Clones share them.
#[derive(Clone)]
pub struct Strangers(Arc<Inner>);

struct Inner {
    sums: Mutex<Sums>,
    harvest: Mutex<Harvest>,
    metrics: Metrics,
    trace: Trace,
}

impl Strangers {
    #[must_use]
    pub fn new(metrics: Metrics, trace: Trace) -> Self {
        Self(Arc::new(Inner { sums: Mutex::default(), harvest: Mutex::default(), metrics, trace }))
    }

    /// Whether to log this individually. If not, it is counted in a summary, which is logged when its minute is over.
    #[must_use]
    pub fn tells(&self, about: &About<'_>) -> bool {
        let told = self.0.sums.lock().take(about, UnixTime::steady());
        if !told {
            self.0.metrics.told_as_sums.with_label_values(&[about.what.as_str()]).inc();
        }
        told
    }

    /// A recipient of this client was refused as unknown: returns how its refusals are given from now on.
    #[must_use]
    pub fn unknown(&self, who: Who, session: &Arc<str>, recipient: &str, limits: &Limits) -> Pace {
        self.0.harvest.lock().unknown(who, session, recipient, limits, UnixTime::steady())
    }

    /// Whether this client has just been limited to one session; true once.
    #[must_use]
    pub fn one_session_begins(&self, who: Who) -> bool {
        self.0.harvest.lock().one_session_begins(who)
    }

    /// A recipient of this client was accepted at RCPT. Returns whether that counts before the end of data.
    #[must_use]
    pub fn accepted(&self, who: Who, recipient: &str) -> bool {
        self.0.harvest.lock().accepted(who, recipient, UnixTime::steady())
    }

    /// The end of data was answered: `accepted` recipients are accepted in the end, of which `counted` have been
    /// counted.
    pub fn settled(&self, who: Who, counted: usize, accepted: usize) {
        if counted != accepted {
            self.0.harvest.lock().settled(who, counted as u64, accepted as u64, UnixTime::steady());
        }
    }

    /// Whether this client may have one session only.
    #[must_use]
    pub fn has_one_session(&self, address: IpAddr, limits: &Limits) -> bool {
        self.0.harvest.lock().has_one_session(one_client(address), limits, UnixTime::steady())
    }

    /// A session has ended.
    pub fn left(&self, address: IpAddr, session: &Arc<str>) {
        self.0.harvest.lock().left(one_client(address), session);
    }

    /// Writes summaries to log and trace when their minute is over, and the rest at the end.
    pub async fn tell_sums(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let due = self.0.sums.lock().due(UnixTime::steady());
            due.iter().for_each(|sum| self.log_sum(sum));
        }
        let rest = self.0.sums.lock().rest();
        rest.iter().for_each(|sum| self.log_sum(sum));
    }

    fn log_sum(&self, sum: &Sum) {
        let (what, times) = (sum.what.as_str(), sum.times);
        let (client, domain, reason, sample) = (&*sum.client, &*sum.domain, &*sum.reason, sum.sample.join(", "));
        tracing::info!(%client, times, %domain, %reason, %sample, "{what}: told as a sum");
        if sum.what == sums::Kind::RefusedRecipient {
            let told = trace::Sum { times, client: client.into(), domain: domain.into(), reason: reason.into() };
            self.0.trace.record(&Event {
                at: sum.since.by_day(),
                id: "".into(),
                session: "".into(),
                what: What::Refused,
                sender: "".into(),
                recipient: sample.into(),
                message_id: "".into(),
                connector: "".into(),
                detail: told.line().into(),
                sum: Some(told),
                attempt: None,
            });
        }
    }
}
