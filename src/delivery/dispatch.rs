//! The queue: chooses the branches that are due, limits concurrent attempts, and handles their results.
//!
//! `session` sends what it has committed; the spool hands over what it recovered. One task waits for the next due time
//! and starts attempts, each a task of its own: the route is decided again (`redecide`), the branch sent (`run`), the
//! result worked out (`settle`), made durable together with the report it causes (`commit`), and logged (`record`).
//! Branches of sessions without an outcome yet are followed to their end (`under_way`). `queue` is the state in memory.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Protocol, Retry};
use crate::delivery::attempt::Outbound;
use crate::delivery::health::Back;
use crate::delivery::last_refusals::LastRefusal;
use crate::delivery::memory::Memory;
use crate::in_force::Current;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;
use crate::share::Share;
use crate::smtp::address::Address;
use crate::spool::entry::outline::{Outlines, Standing};
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

/// How often the gauge of dead letters is set, summaries are logged, and the clocks compared; also the longest sleep.
const TICK: Duration = Duration::from_secs(5);
/// Mail that is held because its connector is gone is examined this often: a directory that is available again may give
/// another route.
const LOOK_AT_HELD: Duration = Duration::from_secs(300);
/// When an attempt that ended without a result (a panic) is repeated.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(60);
/// Limits for routing mail whose connector is not in the configuration.
const WITHOUT_CONNECTOR: Rules = Rules { limit: 4, grouping: Grouping::Together, reports_per_minute: None };

/// The services that delivery uses.
pub struct Parts {
    pub current: Arc<Current>,
    pub spool: Arc<dyn Spool>,
    pub outbound: Outbound,
    /// Notes about accepted mail for later decisions.
    pub memory: Memory,
    pub metrics: Metrics,
    pub trace: Trace,
}

pub struct Delivery {
    shared: Arc<QueueShared>,
}

/// The number of messages for a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub connector: String,
    pub waiting: usize,
    pub held: usize,
    /// When the oldest of both was received.
    pub oldest: Option<UnixTime>,
}

struct QueueShared {
    parts: Parts,
    queue: Mutex<Queue>,
    /// Something may be due, or a slot may be free.
    wake: Notify,
    /// Cancelled: no more attempts begin.
    stopping: CancellationToken,
    /// Cancelled: sessions hand over no more messages.
    closing: CancellationToken,
    /// Attempts, and the task that starts them.
    tasks: TaskTracker,
    /// There are more dead letters than allowed.
    too_many_dead_letters: Notify,
    /// Deferrals that are logged as summaries.
    outages: Mutex<Outages>,
}

impl Delivery {
    /// Starts with the messages that the spool recovered, then takes those that sessions commit.
    #[must_use]
    pub fn start(parts: Parts, accepted: UnboundedReceiver<Handover>) -> Arc<Self> {
        let (queue, recovered) = (Queue::counting(parts.memory.reports.clone()), parts.spool.recovered());
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
        shared.adopt(recovered);
        shared.tasks.spawn(dead_letters::hold_within_bounds(shared.clone()));
        shared.tasks.spawn(drive(shared.clone(), accepted));
        Arc::new(Self { shared })
    }

    /// Takes messages over that another process had.
    pub fn adopt(&self, outlines: Outlines) {
        self.shared.adopt(outlines);
        self.shared.wake.notify_one();
    }

    /// The number of queued messages.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.parts.spool.live_messages()
    }

    /// The total number of queued messages, and up to `most` of those after `behind`, oldest first, with their current
    /// state. Reads from the disk and blocks; the queue goes on meanwhile.
    ///
    /// # Errors
    /// The spool's.
    pub fn list(&self, behind: Option<QueueId>, most: usize) -> Result<(usize, Vec<Entry>), SpoolError> {
        let spool = &self.shared.parts.spool;
        let (total, ids) = (self.total(), spool.ids_after(behind, most));
        let entries: Result<Vec<_>, SpoolError> = ids.into_iter().filter_map(|id| self.show(id).transpose()).collect();
        Ok((total, entries?))
    }

    /// A queued message. Blocks, since it may be read from the disk.
    ///
    /// # Errors
    /// The spool's.
    pub fn show(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        match self.shared.queue.lock().get(id) {
            Some(entry) => Ok(Some(entry)),
            None => self.shared.parts.spool.entry(id),
        }
    }

    /// A message that is in memory just now, where it may be ahead of the spool.
    #[must_use]
    pub fn loaded(&self, id: QueueId) -> Option<Entry> {
        self.shared.queue.lock().get(id)
    }

    /// How many messages wait and are held for each connector.
    #[must_use]
    pub fn sums(&self) -> Vec<Sum> {
        let sum = |shown: Shown<'_>| Sum {
            connector: shown.connector.to_owned(),
            waiting: shown.waiting + shown.waiting_reports,
            held: shown.held,
            oldest: shown.oldest.map(QueueId::made_at),
        };
        self.shared.queue.lock().shown().map(sum).collect()
    }

    /// The last refusal of a recipient by a next hop.
    #[must_use]
    pub fn last_refusal(&self, address: &Address) -> Option<LastRefusal> {
        self.shared.parts.memory.last_refusal(address)
    }

    /// Makes a message's waiting recipients due now; returns whether there are any. Held ones stay held.
    pub fn retry(&self, id: QueueId) -> bool {
        let is_due = self.shared.queue.lock().retry(id);
        self.shared.wake.notify_one();
        is_due
    }

    /// Makes due what waits for one connector, or for all; returns how many messages. They are tried a few at a time.
    pub fn retry_all(&self, connector: Option<&str>) -> usize {
        let messages =
            self.shared.queue.lock().retry_all(|of| connector.is_none_or(|connector| connector == of), Due::RETRY);
        self.shared.wake.notify_one();
        messages
    }

    /// Drops a message without a report, durably. `false`: there is none with this id. Recipients in an attempt are
    /// dropped when it ends, unless it delivers them; if the process ends before, at the next start. Dropping the
    /// future does not cancel it.
    ///
    /// # Errors
    /// The spool's, as text.
    pub async fn drop_message(&self, id: QueueId) -> Result<bool, String> {
        // In its own task: if it were cancelled, the recipients that it holds would not be freed.
        let dropped = self.shared.tasks.spawn(drops::begin(self.shared.clone(), id)).await;
        dropped.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// Updates the queue's gauges; called before each scrape.
    pub fn show_gauges(&self) {
        record::gauges(&self.shared.parts.metrics, &self.shared.queue.lock(), UnixTime::now());
    }

    /// The configuration in force has changed: examines held mail, and mail whose connector is gone.
    pub fn configuration_changed(&self) {
        let config = self.shared.parts.current.load().config.clone();
        let mut queue = self.shared.queue.lock();
        queue.retry_all(|connector| config.send_connector(connector).is_none(), Due::GONE);
        queue.look_at_held();
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// This node has another share of the limits: slots may be free.
    pub fn limits_changed(&self) {
        self.shared.wake.notify_one();
    }

    /// Begins no more attempts. Messages that sessions hand over as they end are still taken, because they may be under
    /// way.
    pub fn begin_no_more(&self) {
        self.shared.stopping.cancel();
    }

    /// Begins no more attempts, and waits for those in progress, including those that sessions have handed over.
    pub async fn stop(&self) {
        self.begin_no_more();
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        record::sums(&self.shared.outages.lock().rest());
    }
}

impl QueueShared {
    fn now(&self) -> Moment {
        Moment::now(self.parts.spool.queue_time())
    }

    /// Takes messages that were found at start, or that another node had.
    fn adopt(self: &Arc<Self>, outlines: Outlines) {
        let (config, now) = (self.parts.current.load().config.clone(), UnixTime::steady());
        let mut dropped = Vec::new();
        let mut queue = self.queue.lock();
        for mut outline in outlines {
            settle::after_start(&mut outline, |connector| retry(&config, connector), now);
            queue.restore(&outline);
            if outline.open.iter().any(|open| open.standing == Standing::Held(HeldFor::Drop)) {
                dropped.push(outline.id);
            }
        }
        queue.look_at_held();
        drop(queue);
        for id in dropped {
            self.tasks.spawn(drops::go_on_before(self.clone(), id));
        }
    }

    /// Starts what is due and has a slot; returns how long nothing else can be due.
    fn start_due(self: &Arc<Self>) -> Duration {
        let config = self.parts.current.load().config.clone();
        let now = UnixTime::steady();
        let mut queue = self.queue.lock();
        let share = self.parts.outbound.share();
        let turns = queue.pick(|connector| rules(&config, connector, share), now);
        let next = queue.next_due(|connector| rules(&config, connector, share));
        drop(queue);
        for turn in turns {
            // Boxed: it is large, and spawning moves it.
            self.tasks.spawn(Box::pin(attempt::attempt(self.clone(), turn)));
        }
        next.map_or(TICK, |due| due.since(now).min(TICK))
    }

    /// These next hops answer again, perhaps to a session: what waits for them is due.
    fn hops_are_back(&self, hops: &[Back]) {
        let config = self.parts.current.load().config.clone();
        let mut queue = self.queue.lock();
        for back in hops {
            queue.hop_is_back(back, rules(&config, &back.connector, self.parts.outbound.share()), UnixTime::steady());
        }
    }

    /// Takes a message that was just committed. It was routed by the configuration in force, or the one before.
    fn take(self: &Arc<Self>, Handover { entry, under_way }: Handover) {
        let basis = Basis::of(&self.parts.current.load_full());
        let id = entry.id;
        let mut queue = self.queue.lock();
        queue.insert(entry, Some(&basis));
        for UnderWay { recipients, outcomes } in under_way {
            let held = queue.hold(id, &recipients);
            self.tasks.spawn(under_way::follow(self.clone(), held, outcomes));
        }
    }
}

/// The `retry` settings for mail on this connector.
fn retry<'a>(config: &'a Config, connector: &str) -> &'a Retry {
    config.send_connector(connector).map_or(&Retry::DEFAULT, |connector| &connector.retry)
}

/// The limits for mail on this connector, of which a node has its share where there are several.
fn rules(config: &Config, connector: &str, share: Share) -> Rules {
    config.send_connector(connector).map_or(WITHOUT_CONNECTOR, |connector| Rules {
        limit: match connector.protocol {
            Protocol::Smtp(_) => share.of(connector.max_connections),
            Protocol::Maildir(_) => connector.max_connections,
        },
        grouping: Grouping::of(connector),
        reports_per_minute: Some(share.of(config.reports.per_minute)),
    })
}

/// Waits for events until it is stopped; then only for what sessions hand over as they end.
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
                record::sums(&shared.outages.lock().due(UnixTime::steady()));
                record::jump(&shared.parts.metrics, &mut jumps);
            }
            _ = held.tick() => shared.queue.lock().look_at_held(),
        }
    }
    while let Some(Some(handover)) = shared.closing.run_until_cancelled(accepted.recv()).await {
        shared.take(handover);
    }
    while let Ok(handover) = accepted.try_recv() {
        shared.take(handover);
    }
}
