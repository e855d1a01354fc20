//! The queue: which branch is due, how many at once, and what becomes of each attempt.
//!
//! `session` sends what it has committed; the spool hands over what it recovered. One task waits for the next due time
//! and starts attempts, each a task of its own: the way is decided again (`redecide`), the branch sent (`run`), the
//! outcome worked out (`settle`), made durable together with the report it causes (`commit`) and told (`record`). What a
//! session's own branch does not know yet is followed to its end (`under_way`). `queue` has it all in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Retry};
use crate::delivery::attempt::Outbound;
use crate::delivery::health::Back;
use crate::delivery::last_refusals::LastRefusal;
use crate::delivery::memory::Memory;
use crate::in_force::Current;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;
use crate::smtp::address::Address;
use crate::spool::entry::outline::Standing;
use crate::spool::entry::{Entry, HeldFor};
use crate::spool::{Spool, SpoolError};
use crate::time::{Jumps, Moment, UnixTime};
use crate::trace::Trace;

mod attempt;
mod basis;
mod branch;
mod commit;
mod content;
mod dead_letters;
mod drops;
mod outages;
mod queue;
mod redecide;
mod repeated;
mod run;
#[cfg(test)]
mod sample;
mod settle;
mod record;
mod under_way;

use basis::Basis;
use branch::Grouping;
use outages::Outages;
use queue::{Due, Queue, Rules, Shown};
pub use under_way::{Handover, UnderWay};

/// How often the gauge of dead letters is set, sums are told, and the clocks compared; also the longest sleep.
const TICK: Duration = Duration::from_secs(5);
/// Mail held because its connector is gone is looked at again this often: a directory that is back may know another.
const LOOK_AT_HELD: Duration = Duration::from_secs(300);
/// An attempt that ended without an outcome (a panic) is made again after this.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(60);
/// Decisions at once about mail whose connector is not in the configuration.
const WITHOUT_CONNECTOR: Rules = Rules { limit: 4, grouping: Grouping::Together, reports_per_minute: None };

/// What delivery works with.
pub struct Parts {
    /// The configuration in force.
    pub current: Arc<Current>,
    /// Where the mail is.
    pub spool: Arc<dyn Spool>,
    /// The way out by SMTP.
    pub outbound: Outbound,
    /// What mail that was taken leaves behind.
    pub memory: Memory,
    /// Counters.
    pub metrics: Metrics,
    /// The message trace.
    pub trace: Trace,
}

/// The running queue.
pub struct Delivery {
    shared: Arc<QueueShared>,
}

/// How much waits and is held for a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub connector: String,
    /// Messages that wait.
    pub waiting: usize,
    /// Messages that are held.
    pub held: usize,
    /// When the oldest of either was taken.
    pub oldest: Option<UnixTime>,
}

/// What the tasks of the queue share.
struct QueueShared {
    parts: Parts,
    queue: Mutex<Queue>,
    /// Something may be due, or a place may be free.
    wake: Notify,
    /// No more attempts.
    stopping: CancellationToken,
    /// No session hands anything over any more.
    closing: CancellationToken,
    /// The attempts under way, and what starts them.
    tasks: TaskTracker,
    /// There are more dead letters than are kept.
    too_many_dead_letters: Notify,
    /// Deferrals that the log has as sums.
    outages: Mutex<Outages>,
}

impl Delivery {
    /// Starts with what the spool recovered, then takes what sessions have committed.
    #[must_use]
    pub fn start(parts: Parts, accepted: UnboundedReceiver<Handover>) -> Arc<Self> {
        let mut queue = Queue::counting(parts.memory.reports.clone());
        let mut dropped = Vec::new();
        let (config, now) = (parts.current.load().config.clone(), UnixTime::steady());
        for mut outline in parts.spool.recovered() {
            settle::after_start(&mut outline, |connector| retry(&config, connector), now);
            queue.restore(&outline);
            if outline.open.iter().any(|open| open.standing == Standing::Held(HeldFor::Drop)) {
                dropped.push(outline.id);
            }
        }
        queue.look_at_held();
        let shared = Arc::new(QueueShared {
            parts,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            too_many_dead_letters: Notify::new(),
            outages: Mutex::default(),
        });
        for id in dropped {
            shared.tasks.spawn(drops::go_on_before(shared.clone(), id));
        }
        shared.tasks.spawn(dead_letters::hold_within_bounds(shared.clone()));
        shared.tasks.spawn(drive(shared.clone(), accepted));
        Arc::new(Self { shared })
    }

    /// How many messages are queued.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.parts.spool.live_messages()
    }

    /// Queued messages behind this one, the oldest first, as they stand now; and how many there are in all. It reads them
    /// from the disk and blocks; the queue goes on meanwhile.
    ///
    /// # Errors
    /// The spool's.
    pub fn list(&self, behind: Option<QueueId>, most: usize) -> Result<(usize, Vec<Entry>), SpoolError> {
        let spool = &self.shared.parts.spool;
        let (total, ids) = (self.total(), spool.ids_after(behind, most));
        let entries: Result<Vec<_>, SpoolError> = ids.into_iter().filter_map(|id| self.show(id).transpose()).collect();
        Ok((total, entries?))
    }

    /// One queued message. It may read from the disk and blocks.
    ///
    /// # Errors
    /// The spool's.
    pub fn show(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        match self.shared.queue().get(id) {
            Some(entry) => Ok(Some(entry)),
            None => self.shared.parts.spool.entry(id),
        }
    }

    /// How much waits and is held for each connector.
    #[must_use]
    pub fn sums(&self) -> Vec<Sum> {
        let sum = |shown: Shown<'_>| Sum {
            connector: shown.connector.to_owned(),
            waiting: shown.waiting + shown.waiting_reports,
            held: shown.held,
            oldest: shown.oldest.map(QueueId::made_at),
        };
        self.shared.queue().shown().map(sum).collect()
    }

    /// What a next hop said last to a recipient that it refused.
    #[must_use]
    pub fn last_refusal(&self, address: &Address) -> Option<LastRefusal> {
        self.shared.parts.memory.last_refusal(address)
    }

    /// Makes a message's waiting recipients due now; whether it has some. Held ones stay held.
    pub fn retry(&self, id: QueueId) -> bool {
        let is_due = self.shared.queue().retry(id);
        self.shared.wake.notify_one();
        is_due
    }

    /// Makes due what waits for one connector, or for all; how many messages that is. They go gently, a few at once.
    pub fn retry_all(&self, connector: Option<&str>) -> usize {
        let messages =
            self.shared.queue().retry_all(|of| connector.is_none_or(|connector| connector == of), Due::RETRY);
        self.shared.wake.notify_one();
        messages
    }

    /// Drops a message without a report, durably. `false`: there is none with this id. Recipients that are being tried
    /// just now are dropped when their attempt ends, unless it delivers them; should we end before it does, at the next start. Dropping the future does not take it back.
    ///
    /// # Errors
    /// The spool's, in words.
    pub async fn drop_message(&self, id: QueueId) -> Result<bool, String> {
        // In a task of its own: were it broken off, nobody would free the recipients that it holds.
        let dropped = self.shared.tasks.spawn(drops::begin(self.shared.clone(), id)).await;
        dropped.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Sets the queue's gauges to what they are now. It is called before each scrape.
    pub fn show_gauges(&self) {
        record::gauges(&self.shared.parts.metrics, &self.shared.queue(), UnixTime::now());
    }

    /// The configuration in force has changed: held mail is looked at again, and mail whose connector is gone now.
    pub fn configuration_changed(&self) {
        let config = self.shared.parts.current.load().config.clone();
        let mut queue = self.shared.queue();
        queue.retry_all(|connector| config.send_connector(connector).is_none(), Due::GONE);
        queue.look_at_held();
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Begins no more attempts. What sessions hand over as they end is taken still: of that something may be under way.
    pub fn begin_no_more(&self) {
        self.shared.stopping.cancel();
    }

    /// Begins no more attempts and waits for those under way, those that sessions have handed over among them.
    pub async fn stop(&self) {
        self.begin_no_more();
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        record::sums(&self.shared.outages().rest());
    }
}

impl QueueShared {
    fn now(&self) -> Moment {
        Moment::now(self.parts.spool.queue_time())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outages(&self) -> MutexGuard<'_, Outages> {
        self.outages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is due and has a place; returns how long nothing more can be due.
    fn start_due(self: &Arc<Self>) -> Duration {
        let config = self.parts.current.load().config.clone();
        let now = UnixTime::steady();
        let mut queue = self.queue();
        let turns = queue.pick(|connector| rules(&config, connector), now);
        let next = queue.next_due(|connector| rules(&config, connector));
        drop(queue);
        for turn in turns {
            // Boxed: it is large, and spawning moves it about.
            self.tasks.spawn(Box::pin(attempt::attempt(self.clone(), turn)));
        }
        next.map_or(TICK, |due| due.since(now).min(TICK))
    }

    /// These next hops answer, be it a session: what waits for them goes too.
    fn hops_are_back(&self, hops: &[Back]) {
        let config = self.parts.current.load().config.clone();
        let mut queue = self.queue();
        for back in hops {
            queue.hop_is_back(back, (rules(&config, &back.connector), UnixTime::steady()));
        }
    }

    /// Takes a message that was just committed. Its ways were decided by what is in force now, or a moment ago.
    fn take(self: &Arc<Self>, Handover { entry, under_way }: Handover) {
        let basis = Basis::of(&self.parts.current.load_full());
        let id = entry.id;
        let mut queue = self.queue();
        queue.insert(entry, Some(&basis));
        for UnderWay { recipients, outcomes } in under_way {
            let held = queue.hold(id, &recipients);
            self.tasks.spawn(under_way::follow(self.clone(), held, outcomes));
        }
    }
}

/// When mail on this connector is tried again.
fn retry<'a>(config: &'a Config, connector: &str) -> &'a Retry {
    config.send_connector(connector).map_or(&Retry::DEFAULT, |connector| &connector.retry)
}

fn rules(config: &Config, connector: &str) -> Rules {
    config.send_connector(connector).map_or(WITHOUT_CONNECTOR, |connector| Rules {
        limit: connector.max_connections.max(1),
        grouping: Grouping::of(connector),
        reports_per_minute: Some(config.reports.per_minute),
    })
}

/// Waits for what comes next, until it is stopped; then only for what sessions hand over as they end.
async fn drive(shared: Arc<QueueShared>, mut accepted: UnboundedReceiver<Handover>) {
    let mut tick = tokio::time::interval(TICK);
    let mut held = tokio::time::interval_at(Instant::now() + LOOK_AT_HELD, LOOK_AT_HELD);
    let mut sessions_live = true;
    let mut jumps = Jumps::default();
    while !shared.stopping.is_cancelled() {
        let idle = shared.start_due();
        tokio::select! {
            () = shared.stopping.cancelled() => break,
            handover = accepted.recv(), if sessions_live => match handover {
                Some(handover) => shared.take(handover),
                None => sessions_live = false,
            },
            hops = shared.parts.outbound.came_back() => shared.hops_are_back(&hops),
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(idle) => {}
            _ = tick.tick() => {
                record::dead_letters(&shared.parts);
                record::sums(&shared.outages().due(UnixTime::steady()));
                record::jump(&shared.parts.metrics, &mut jumps);
            }
            _ = held.tick() => shared.queue().look_at_held(),
        }
    }
    while let Some(Some(handover)) = shared.closing.run_until_cancelled(accepted.recv()).await {
        shared.take(handover);
    }
    while let Ok(handover) = accepted.try_recv() {
        shared.take(handover);
    }
}
