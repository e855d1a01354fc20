//! Simulates an outage of a day, with restarts: the real queue, schedule and spool, with the test's clock and next hop,
//! which is unreachable and later accepts everything.
//!
//! The clock advances by half a minute. A restart loses what a stop or a kill loses: the queue's time continues from
//! where it was saved.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::Retry;
use crate::delivery::dispatch::commit::{change, heard};
use crate::delivery::dispatch::sample::{self, route};
use crate::delivery::dispatch::settle::{self, AttemptOutcome, Attempted, Settled};
use crate::delivery::outcome::{Class, Outcome as Tried};
use crate::metrics::Metrics;
use crate::report::Action;
use crate::smtp::reply::{Enhanced, Reply};
use crate::spool::entry::{Outcome, Queued, Record};
use crate::spool::store::LogStore;
use crate::spool::{Draft, Sizes, Spool};
use crate::time::{Moment, QueueTime};
use told::Told;

mod told;

const TICK: u64 = 30;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const CONTENT: &[u8] = b"Subject: hello\r\n\r\nHello.\r\n";
const TO: &str = "bob@contoso.com";
/// A small log, so that compaction runs often.
const SIZES: Sizes = Sizes { segment: 256 << 10, slack: 1 << 20, reserve: 64 << 10 };

#[derive(Clone, Copy)]
struct Plan {
    messages: usize,
    /// How long a process lives; `None`: there is only one.
    restarts: Option<u64>,
    outage: u64,
    give_up_after: u64,
}

/// How a process ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Stop,
    /// The queue's time since the last whole minute is lost.
    Kill,
}

/// What happened to one message.
#[derive(Default)]
struct Story {
    queued_at: QueueTime,
    attempts: u32,
    delivered: u32,
    /// Its reports, with its age at that time.
    told: Vec<(Action, u64)>,
}

struct World {
    folder: tempfile::TempDir,
    spool: Option<LogStore>,
    queue: Queue,
    retry: Retry,
    now: u64,
    /// When this process started, and the queue's time then.
    start: (u64, u64),
    up: bool,
    tries: u32,
    stories: HashMap<QueueId, Story>,
    /// The largest size of the spool at the end of a process.
    octets: u64,
    told: Told,
}

fn rules(_: &str) -> Rules {
    Rules { limit: 500, grouping: Grouping::Together, reports_per_minute: Some(60) }
}

/// Thousands of records are synced, and none has to survive the test.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn octets(folder: &Path) -> u64 {
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let Ok(entry) = entry else { return 0 };
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => octets(&entry.path()),
            // A segment has its full length from the beginning.
            Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => 0, // tidied away meanwhile
        }
    };
    std::fs::read_dir(folder).map_or(0, |entries| entries.map(of).sum())
}

impl World {
    fn new(plan: Plan) -> Self {
        let retry = Retry {
            first: Duration::from_secs(30),
            factor: 2.0,
            max: Duration::from_secs(120),
            warn_after: Duration::from_secs(4 * HOUR),
            give_up_after: Duration::from_secs(plan.give_up_after),
        };
        let now = UnixTime::now().0;
        let mut world = Self {
            folder: in_memory(),
            spool: None,
            queue: Queue::default(),
            retry,
            now,
            start: (now, now),
            up: false,
            tries: 0,
            stories: HashMap::new(),
            octets: 0,
            told: Told::default(),
        };
        world.start(now);
        world
    }

    fn spool(&self) -> &LogStore {
        self.spool.as_ref().unwrap()
    }

    /// Starts a process with this queue time.
    fn start(&mut self, queue_time: u64) {
        let folder = self.folder.path();
        std::fs::write(folder.join("clock"), format!("fingerpost queue time 1\n{queue_time}\n")).unwrap();
        let spool = LogStore::open(folder, SIZES, Metrics::new()).unwrap();
        self.start = (self.now, queue_time);
        self.tries += 1_000_000; // begins with a random number
        self.queue = Queue::default();
        for mut outline in spool.recovered() {
            settle::after_start(&mut outline, |_| &self.retry, UnixTime(self.now));
            self.queue.restore(&outline);
        }
        self.spool = Some(spool);
    }

    /// Ends the process by a stop or a kill, and starts the next some seconds later.
    fn restart(&mut self, by: By) {
        let ran = self.now - self.start.0;
        let saved = if by == By::Kill { ran / MINUTE * MINUTE } else { ran };
        self.spool = None;
        self.told.end(); // a kill would lose them
        self.octets = self.octets.max(octets(self.folder.path()));
        self.now += 7;
        self.start(self.start.1 + saved);
    }

    fn queue_time(&self) -> QueueTime {
        QueueTime(self.start.1 + self.now - self.start.0)
    }

    /// Accepts this many messages.
    async fn accept(&mut self, messages: usize) {
        for _ in 0..messages {
            let id = self.spool().new_id();
            let mut entry = sample::entry(id.0, &[(TO, "a", RecipientState::due(UnixTime(self.now)))]);
            (entry.received_at, entry.queued_at) = (UnixTime(self.now), self.queue_time());
            entry.content.size = CONTENT.len() as u64;
            let draft = Draft::Small { id, content: CONTENT.into() };
            self.spool().commit(Record { accepted: vec![(draft, entry.clone())], changes: Vec::new() }).await.unwrap();
            self.stories.insert(id, Story { queued_at: entry.queued_at, ..Story::default() });
            self.queue.insert(entry, None);
        }
    }

    /// Runs everything that is due in this time.
    async fn run(&mut self, seconds: u64) {
        let until = self.now + seconds;
        while self.now < until {
            loop {
                let turns = self.queue.pick(rules, UnixTime(self.now));
                if turns.is_empty() {
                    break;
                }
                self.attempts(turns).await;
            }
            self.now += TICK;
        }
    }

    /// Makes these attempts concurrently.
    async fn attempts(&mut self, turns: Vec<Turn>) {
        self.tries += 1;
        let mut ended = Vec::new();
        for turn in turns {
            if !self.queue.is_loaded(turn.id)
                && let Some(mut entry) = self.spool().entry(turn.id).unwrap()
            {
                settle::after_reading(&mut entry, |_| &self.retry, UnixTime(self.now));
                self.queue.load(entry);
            }
            match self.queue.take(&turn, rules(""), UnixTime(self.now)) {
                Some(picked) => ended.push((turn, self.attempt(&picked))),
                None => {
                    self.queue.led_nowhere(&turn);
                    self.queue.finished(&turn);
                }
            }
        }
        let changes = ended.iter().map(|(_, (entry, _, settled))| change(entry, &settled.update)).collect();
        self.spool().commit(Record { accepted: Vec::new(), changes }).await.unwrap();
        for (turn, (_, attempted, settled)) in ended {
            if let Some(heard) = heard(&attempted) {
                self.queue.heard(&attempted.route, heard, rules(""), UnixTime(self.now));
            }
            self.queue.update(turn.id, vec![settled.update]);
            self.queue.finished(&turn);
        }
    }

    fn attempt(&mut self, picked: &Picked) -> (Arc<Entry>, Attempted, Settled) {
        let (recipient, known) = picked.recipients[0].clone();
        let state = &picked.entry.recipients[recipient].state;
        let (outcome, end) = match self.up {
            true => (
                Tried::said(Class::Accepted, Reply::fixed(250, Enhanced(2, 0, 0), "ok"), &"hub".into()),
                AttemptOutcome::Delivered,
            ),
            false => (
                Tried::ours(Class::Unreachable, Reply::fixed(451, Enhanced(4, 4, 1), "down")),
                AttemptOutcome::Deferred,
            ),
        };
        let (route, tries) = (route(TO, "a"), self.tries);
        let counts = outcome.class != Class::Unreachable || tries != state.tries();
        let attempted = Attempted { recipient, known, route, refused_now: None, outcome, counts, tries, end };
        let (up, queue) = (Duration::from_secs(self.now - self.start.0), self.queue_time());
        let settled =
            settle::settle(&picked.entry, &attempted, &self.retry, Moment { day: UnixTime(self.now), queue, up });
        if attempted.end == AttemptOutcome::Deferred {
            let was = &picked.entry.recipients[recipient];
            let is = Queued { state: settled.update.state.clone(), ..was.clone() };
            self.told.deferred(was, &is, UnixTime(self.now));
        }
        let story = self.stories.get_mut(&picked.entry.id).unwrap();
        story.attempts += 1;
        story.delivered += u32::from(matches!(settled.update.state, RecipientState::Done(Outcome::Delivered { .. })));
        if let Some(reported) = &settled.reported {
            story.told.push((reported.action, queue.since(picked.entry.queued_at).as_secs()));
        }
        (picked.entry.clone(), attempted, settled)
    }

    /// Whether nothing waits any more.
    fn is_empty(&self) -> bool {
        self.spool().live_messages() == 0
            && self.queue.shown().all(|shown| shown.waiting + shown.held == 0)
            && self.queue.live.is_empty()
            && self.queue.next_due(rules).is_none()
    }

    /// The trace has a few records for each message however often it was tried, the log a few lines a minute; attempts
    /// that are not recorded individually are counted.
    fn check_what_is_told(&mut self, minutes: usize) {
        self.told.end();
        let attempts = || self.stories.values().map(|story| story.attempts);
        let records: u32 = attempts().map(|attempts| attempts.checked_ilog2().map_or(0, |log| log + 1)).sum();
        assert_eq!(self.told.records, records as usize, "the first, the second, the fourth");
        assert_eq!(self.told.counted(), attempts().map(u64::from).sum::<u64>());
        assert!(self.told.lines <= 4 * minutes, "{} lines", self.told.lines);
    }

    fn told(&self, action: Action) -> impl Iterator<Item = u64> {
        self.stories
            .values()
            .flat_map(|story| &story.told)
            .filter(move |(told, _)| *told == action)
            .map(|(_, age)| *age)
    }
}

/// An outage; with restarts a third of the mail comes during it.
async fn outage(plan: Plan) -> World {
    let mut world = World::new(plan);
    // The spool's own clock does not advance, so messages have to come at a start.
    let first = plan.restarts.map_or(plan.messages, |_| plan.messages * 2 / 3);
    world.accept(first).await;
    let each = plan.restarts.unwrap_or(29 * MINUTE);
    let (ends, parts) = (world.now + plan.outage, plan.outage / each);
    let mut left = plan.messages - first;
    let mut ways = [By::Stop, By::Kill].into_iter().cycle();
    while world.now < ends {
        world.run(each.min(ends - world.now)).await;
        if let Some(by) = ways.next().filter(|_| plan.restarts.is_some()) {
            world.restart(by);
        }
        let come = left.min((plan.messages - first).div_ceil(parts as usize));
        left -= come;
        world.accept(come).await;
    }
    assert_eq!(left, 0);
    world
}

/// The most attempts for one message: as many as the schedule makes in this time, and one for each restart in between.
fn most_attempts(seconds: u64) -> u32 {
    // A wait is at least a tenth less than two minutes; before that it is 27 and 54 seconds.
    u32::try_from(seconds / 108).unwrap() + 3
}

#[tokio::test]
async fn after_a_day_with_restarts_each_is_delivered_once() {
    let plan = Plan { messages: 40, restarts: Some(29 * MINUTE), outage: 24 * HOUR, give_up_after: 48 * HOUR };
    let mut world = outage(plan).await;
    assert_eq!(world.spool().live_messages(), plan.messages);
    assert!(world.stories.values().all(|story| story.delivered == 0));
    for story in world.stories.values() {
        let age = world.queue_time().since(story.queued_at).as_secs();
        let least = (age / (120 + TICK)).saturating_sub(2);
        assert!(
            u64::from(story.attempts) >= least && story.attempts <= most_attempts(age),
            "{} in {age} s",
            story.attempts
        );
    }
    // A delay is reported once: here at twice `warn_after`, because no process runs for half an hour.
    let late =
        world.stories.values().filter(|story| world.queue_time().since(story.queued_at).as_secs() > 8 * HOUR + 150);
    assert_eq!(world.told(Action::Delayed).count(), late.count());
    assert!(world.told(Action::Delayed).all(|age| (8 * HOUR..=8 * HOUR + 150).contains(&age)));
    assert_eq!(world.told(Action::Failed).count(), 0);
    world.check_what_is_told(25 * 60);

    world.up = true;
    world.run(3 * MINUTE).await;
    assert!(world.is_empty(), "it is back, and {} wait", world.spool().live_messages());
    assert!(world.stories.values().all(|story| story.delivered == 1));
    world.restart(By::Kill);
    assert!(world.is_empty());
    assert!(world.octets < 4 * SIZES.slack, "{} octets", world.octets);
}

#[tokio::test]
async fn what_is_given_up_is_given_up_in_time_whatever_restarts() {
    for (restarts, outage_lasts, given_up) in [(None, 14, 12), (Some(29 * MINUTE), 26, 24)] {
        let plan = Plan { messages: 30, restarts, outage: outage_lasts * HOUR, give_up_after: 12 * HOUR };
        let mut world = outage(plan).await;
        let old = |world: &World| {
            let age = |story: &&Story| world.queue_time().since(story.queued_at).as_secs();
            world.stories.values().filter(|story| age(story) > given_up * HOUR + 150).count()
        };
        // None fails before its time, and none waits for ever.
        let failed = world.told(Action::Failed).count();
        assert!(failed >= plan.messages * 2 / 3 && failed == old(&world), "{restarts:?}: {failed}, {}", old(&world));
        assert!(world.told(Action::Failed).all(|age| (given_up * HOUR..=given_up * HOUR + 150).contains(&age)));
        assert_eq!(world.spool().live_messages(), plan.messages - failed);
        world.up = true;
        world.run(3 * MINUTE).await;
        assert!(world.is_empty());
        for story in world.stories.values() {
            let failed = story.told.iter().filter(|(action, _)| *action == Action::Failed).count();
            assert_eq!(failed + story.delivered as usize, 1, "{:?}", story.told);
        }
    }
}

/// The same with more: `cargo test --lib outage -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "some minutes"]
async fn a_day_with_two_hundred() {
    let began = std::time::Instant::now();
    let plan = Plan { messages: 200, restarts: Some(29 * MINUTE), outage: 24 * HOUR, give_up_after: 48 * HOUR };
    let mut world = outage(plan).await;
    let attempts: u32 = world.stories.values().map(|story| story.attempts).sum();
    world.check_what_is_told(25 * 60);
    let Told { records, lines, .. } = &world.told;
    println!(
        "{attempts} attempts in vain, {records} records of the trace, {lines} lines, at most {} octets of spool, in {:?}",
        world.octets,
        began.elapsed()
    );
    world.up = true;
    world.run(3 * MINUTE).await;
    assert!(world.is_empty());
    assert!(world.stories.values().all(|story| story.delivered == 1));
    assert!(world.octets < 8 << 20, "{} octets", world.octets);
}
