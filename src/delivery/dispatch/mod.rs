//! The queue: which branch is due, how many at once, and what becomes of each attempt.
//!
//! `session` sends what it has committed; the spool hands over what it recovered. One task waits for the next due time
//! and starts attempts, each a task of its own: the way is decided again (`redecide`), the branch sent (`run`), the
//! outcome worked out (`settle`), made durable together with the report it causes (`commit`) and told (`tell`). What a
//! session's own branch does not know yet is followed to its end (`under_way`). `queue` has it all in memory.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::delivery::attempt::Outbound;
use crate::delivery::last_refusals::LastRefusal;
use crate::delivery::memory::Memory;
use crate::in_force::Current;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;
use crate::report::dead_letter::bounds::Sweep;
use crate::smtp::address::Address;
use crate::spool::entry::Entry;
use crate::spool::{Spool, SpoolError};
use crate::time::{Moment, UnixTime};
use crate::trace::Trace;

mod basis;
mod branch;
mod commit;
mod content;
mod queue;
mod redecide;
mod run;
#[cfg(test)]
mod sample;
mod settle;
mod tell;
mod under_way;

use basis::Basis;
use branch::Grouping;
use queue::{Dropping, Picked, Queue, Rules, Ticket};
pub use under_way::{Handover, UnderWay};

/// How often the dead letters are counted; also the longest sleep, so that a clock that was put right is noticed.
const TICK: Duration = Duration::from_secs(5);
/// How often dead letters that are too old or too many are removed.
const SWEEP: Duration = Duration::from_secs(60);
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
    shared: Arc<Shared>,
}

/// What the tasks of the queue share.
struct Shared {
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
    /// What the dead letters are held within bounds by.
    sweep: Mutex<Sweep>,
}

impl Delivery {
    /// Starts with what the spool recovered, then takes what sessions have committed.
    #[must_use]
    pub fn start(parts: Parts, accepted: UnboundedReceiver<Handover>) -> Arc<Self> {
        let mut queue = Queue::default();
        for entry in parts.spool.recovered() {
            queue.insert(entry, None);
        }
        queue.look_at_held(UnixTime::now());
        let dropped: Vec<Dropping> = queue.dropped_before().into_iter().filter_map(|id| queue.begin_drop(id)).collect();
        let shared = Arc::new(Shared {
            parts,
            queue: Mutex::new(queue),
            wake: Notify::new(),
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            sweep: Mutex::default(),
        });
        shared.count_dead_letters();
        for dropping in dropped {
            shared.tasks.spawn(go_on_dropping(shared.clone(), dropping));
        }
        shared.tasks.spawn(drive(shared.clone(), accepted));
        Arc::new(Self { shared })
    }

    /// All queued messages, oldest first, as they stand now. The queue goes on while they are sorted and shown.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Entry>> {
        let mut all = self.shared.queue().all();
        all.sort_by_key(|entry| (entry.received_at, entry.id));
        all
    }

    /// One queued message.
    #[must_use]
    pub fn show(&self, id: QueueId) -> Option<Entry> {
        self.shared.queue().get(id)
    }

    /// What a next hop said last to a recipient that it refused.
    #[must_use]
    pub fn last_refusal(&self, address: &Address) -> Option<LastRefusal> {
        self.shared.parts.memory.last_refusal(address)
    }

    /// Makes waiting recipients due now: of one message, or of all. Returns how many messages that were. Held ones
    /// stay held.
    pub fn retry(&self, id: Option<QueueId>) -> usize {
        let messages = self.shared.queue().retry(id, UnixTime::now());
        self.shared.wake.notify_one();
        messages
    }

    /// Drops a message without a report, durably. `false`: there is none with this id. Recipients that are being tried
    /// just now are dropped when their attempt ends, unless it delivers them; should we end before it does, at the next start. Dropping the future does not take it back.
    ///
    /// # Errors
    /// The spool's, in words.
    pub async fn drop_message(&self, id: QueueId) -> Result<bool, String> {
        let Some(dropping) = self.shared.queue().begin_drop(id) else { return Ok(false) };
        let shared = self.shared.clone();
        // In a task of its own: were it broken off, nobody would free the recipients that it holds.
        let dropped = self.shared.tasks.spawn(async move {
            commit::drop_recipients(&shared, &dropping).await?;
            tracing::info!(queue_id = %id, sender = %dropping.entry.sender.reverse_path, "dropped by an operator");
            Ok::<(), SpoolError>(())
        });
        dropped.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(true)
    }

    /// Sets the queue's gauges to what they are now. It is called before each scrape.
    pub fn show_gauges(&self) {
        tell::gauges(&self.shared.parts.metrics, &self.shared.queue(), UnixTime::now());
    }

    /// The configuration in force has changed: held mail is looked at again, and mail whose connector is gone now.
    pub fn configuration_changed(&self) {
        let config = self.shared.parts.current.load().config.clone();
        let now = UnixTime::now();
        let mut queue = self.shared.queue();
        queue.retry_orphans(|connector| config.send_connector(connector).is_some(), now);
        queue.look_at_held(now);
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
    }
}

impl Shared {
    /// This moment.
    fn now(&self) -> Moment {
        Moment { day: UnixTime::now(), queue: self.parts.spool.queue_time() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is due and has a place; returns how long nothing more can be due.
    fn start_due(self: &Arc<Self>) -> Duration {
        let config = self.parts.current.load().config.clone();
        let now = UnixTime::now();
        let mut queue = self.queue();
        let picked = queue.pick(|connector| rules(&config, connector), now);
        let next = queue.next_due(|connector| rules(&config, connector));
        drop(queue);
        for picked in picked {
            // Boxed: it is large, and spawning moves it about.
            self.tasks.spawn(Box::pin(attempt(self.clone(), picked)));
        }
        next.map_or(TICK, |due| due.since(now).min(TICK))
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

    /// Removes the dead letters that are too old, or too many.
    fn sweep_dead_letters(&self) {
        let config = self.parts.current.load().config.clone();
        let mut sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let swept = sweep.run(&config.server.state_dir, &config.reports, UnixTime::now());
        tell::swept(&self.parts.metrics, &swept);
        drop(sweep);
        self.count_dead_letters();
    }

    /// Counts the dead letters.
    fn count_dead_letters(&self) {
        let state_dir = self.parts.current.load().config.server.state_dir.clone();
        tell::dead_letters(&self.parts.metrics, &state_dir);
    }
}

fn rules(config: &Config, connector: &str) -> Rules {
    config.send_connector(connector).map_or(WITHOUT_CONNECTOR, |connector| Rules {
        limit: connector.max_connections.max(1),
        grouping: Grouping::of(connector),
        reports_per_minute: Some(config.reports.per_minute),
    })
}

/// Waits for what comes next, until it is stopped; then only for what sessions hand over as they end.
async fn drive(shared: Arc<Shared>, mut accepted: UnboundedReceiver<Handover>) {
    let mut tick = tokio::time::interval(TICK);
    let mut sweep = tokio::time::interval(SWEEP);
    let mut held = tokio::time::interval_at(Instant::now() + LOOK_AT_HELD, LOOK_AT_HELD);
    let mut sessions_live = true;
    while !shared.stopping.is_cancelled() {
        let idle = shared.start_due();
        tokio::select! {
            () = shared.stopping.cancelled() => break,
            handover = accepted.recv(), if sessions_live => match handover {
                Some(handover) => shared.take(handover),
                None => sessions_live = false,
            },
            () = shared.wake.notified() => {}
            () = tokio::time::sleep(idle) => {}
            _ = tick.tick() => shared.count_dead_letters(),
            _ = sweep.tick() => {
                let shared = shared.clone();
                shared.clone().tasks.spawn_blocking(move || shared.sweep_dead_letters());
            }
            _ = held.tick() => shared.queue().look_at_held(UnixTime::now()),
        }
    }
    while let Some(Some(handover)) = shared.closing.run_until_cancelled(accepted.recv()).await {
        shared.take(handover);
    }
    while let Ok(handover) = accepted.try_recv() {
        shared.take(handover);
    }
}

/// One attempt. Whatever happens to it, its place and its recipients are free afterwards.
async fn attempt(shared: Arc<Shared>, picked: Picked) {
    let (id, ticket) = (picked.entry.id, picked.ticket);
    let place = Place { shared: &shared, picked: &picked };
    let hold = Hold { shared: &shared, id, ticket };
    let in_force = shared.parts.current.load_full();
    let ended = run::run(&shared, &in_force, &picked).await;
    let _durable = commit::commit(&shared, &in_force, &picked.entry, ended).await;
    drop(hold);
    drop(place);
    go_on_with_drop(shared, id).await;
}

/// Recipients of a message are free again: if an operator dropped it meanwhile, they are dropped now.
async fn go_on_with_drop(shared: Arc<Shared>, id: QueueId) {
    let rest = shared.queue().rest_of_dropped(id);
    if let Some(rest) = rest {
        go_on_dropping(shared, rest).await;
    }
}

/// What an operator dropped a while ago is dropped now.
async fn go_on_dropping(shared: Arc<Shared>, rest: Dropping) {
    if let Err(error) = commit::drop_recipients(&shared, &rest).await {
        tracing::error!(queue_id = %rest.entry.id, %error, "a dropped message cannot be taken out of the queue; it stays");
    }
}

/// An attempt's place on its connector.
struct Place<'a> {
    shared: &'a Shared,
    picked: &'a Picked,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Picked { connector, rank, domain, .. } = self.picked;
        self.shared.queue().finished(connector, *rank, domain.as_ref());
        self.shared.wake.notify_one();
    }
}

/// A hold on recipients, whoever tries them.
struct Hold<'a> {
    shared: &'a Shared,
    id: QueueId,
    ticket: Ticket,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.shared.queue().release(self.id, self.ticket, UnixTime::now().plus(AFTER_BREAKDOWN));
        self.shared.wake.notify_one();
    }
}
