//! Keeps a snapshot equal to the directory: reads all of it, then follows changes by the best method that the server
//! has: a stream (RFC 4533), Active Directory's update sequence numbers (USN) on one controller (MS-ADTS 3.1.1.1.9), or
//! full reads only.
//!
//! One task for each directory, on the connection that questions use; `supervisor` opens another when that ends. A
//! failure costs freshness, never a correct answer: the snapshot knows how fresh it is.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

pub use self::requests::Refreshed;
use self::requests::Waiting;
pub(super) use self::requests::{Doubted, Refresh, Request};
use super::connection::{Connection, ConnectionLoss};
use super::full_read::{self, Filling};
use super::health::DirectoryHealth;
use super::search::Failure;
use super::supervisor::ConnectionState;
use crate::config::{LdapConfig, SnapshotConfig};
use crate::directory::snapshot::Snapshot;
use crate::directory::snapshot::position::Position;

mod usn_changed;
mod requests;
mod syncrepl;

/// Pauses after consecutive failures, doubled up to the longest; `LONGEST_DOUBT` applies where a cheap question can
/// show whether the directory has recovered, because a failed full read is expensive.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_DOUBT: Duration = Duration::from_secs(4);
/// How often the age is published.
const TELL_AGE: Duration = Duration::from_secs(5);

/// What the task does next.
enum NextStep {
    /// The connection has changed, or there is none.
    Ended,
    /// A full read, which somebody may wait for.
    Read(Option<Waiting>),
    /// Reading a few entries again.
    Look(Doubted),
    /// The work of every `poll`.
    Poll,
}

/// The task's state.
pub(super) struct Keeper {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<LdapConfig>,
    pub(super) kept: SnapshotConfig,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) states: watch::Receiver<ConnectionState>,
    pub(super) health: Arc<DirectoryHealth>,
    pub(super) requests: tokio::sync::Mutex<mpsc::Receiver<Request>>,
    /// Entries so far of a full read in progress.
    pub(super) progress: Arc<AtomicUsize>,
    pub(super) problem: Arc<Mutex<Option<String>>>,
    /// When a stream was last restarted because it had missed a change.
    pub(super) anew: Mutex<Option<Instant>>,
}

/// Why following ended.
enum FollowEnd {
    /// The connection has changed, or there is none.
    Connection,
    /// It begins again at once; somebody may wait for it.
    Again(Option<Waiting>),
}

impl Keeper {
    pub(super) async fn run(self) {
        let keeper = Arc::new(self);
        let age = Arc::clone(&keeper.snapshot);
        let _age = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                sleep(TELL_AGE).await;
                age.tell_age();
            }
        }));
        let (mut failures, mut waiting) = (0, None);
        loop {
            let connection = keeper.connection().await;
            let begun = Instant::now();
            let following = tokio::spawn(Arc::clone(&keeper).follow(Arc::clone(&connection), waiting.take()));
            // The client library panics on some malformed answers, which ends only this task.
            let ended = AbortOnDropHandle::new(following).await.unwrap_or(Err(Failure::Malformed("a control")));
            keeper.snapshot.lost();
            match ended {
                Ok(FollowEnd::Connection) => failures = 0,
                Ok(FollowEnd::Again(done)) => (failures, waiting) = (0, done),
                Err(failure) => {
                    keeper.failed(&connection, &failure);
                    failures = if begun.elapsed() > LONGEST_PAUSE { 1 } else { failures + 1 };
                    let cheap = failure.is_servers_fault() || matches!(failure, Failure::Doubt(_));
                    let longest = if cheap { LONGEST_DOUBT } else { LONGEST_PAUSE };
                    let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1_u32).min(10)).min(longest);
                    waiting = keeper.pause(pause).await;
                }
            }
        }
    }

    /// Waits for the next connection. Requests for a read meanwhile get an error.
    async fn connection(&self) -> Arc<Connection> {
        let mut states = self.states.clone();
        let mut requests = self.requests.lock().await;
        loop {
            if let ConnectionState::Up(connection) = &*states.borrow_and_update()
                && !connection.is_condemned()
            {
                return Arc::clone(connection);
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { std::future::pending::<()>().await },
                Some(request) = requests.recv() => {
                    let cause = match &*states.borrow() {
                        ConnectionState::Down(cause) | ConnectionState::Lost(cause) => cause.to_string(),
                        ConnectionState::Connecting(_) | ConnectionState::Up(_) => "it is being connected to; try again".to_owned(),
                    };
                    self.refuse(request, cause).await;
                }
            }
        }
    }

    /// Answers a request without the directory: held changes can be accepted all the same.
    async fn refuse(&self, request: Request, cause: String) {
        if let Request::Refresh(refresh) = request
            && let Ok(waiting) = self.received(refresh).await
        {
            self.answer(waiting, Err(cause));
        }
    }

    /// Waits; a request for a full read ends the pause, because the operator may know that the directory has recovered.
    async fn pause(&self, pause: Duration) -> Option<Waiting> {
        let until = Instant::now() + pause;
        let mut requests = self.requests.lock().await;
        loop {
            tokio::select! {
                () = sleep_until(until) => return None,
                Some(request) = requests.recv() => if let Request::Refresh(refresh) = request
                    && let Ok(Some(waiting)) = self.received(refresh).await
                {
                    return Some(waiting);
                },
            }
        }
    }

    /// Follows the directory on one connection, until that ends.
    async fn follow(
        self: Arc<Self>,
        connection: Arc<Connection>,
        mut waiting: Option<Waiting>,
    ) -> Result<FollowEnd, Failure> {
        let followed = self.follow_best(&connection, &mut waiting).await;
        if let Err(failure) = &followed {
            self.answer(waiting.take(), Err(failure.to_string()));
        }
        followed
    }

    /// Follows by the best method that the server has.
    async fn follow_best(
        &self,
        connection: &Arc<Connection>,
        waiting: &mut Option<Waiting>,
    ) -> Result<FollowEnd, Failure> {
        let root = full_read::in_time(&self.config, connection.root()).await?;
        let name = &*self.name;
        if let Some(numbers) = root.numbers {
            if connection.shows_numbers(&self.config).await? {
                return self.numbered(connection, numbers.service, waiting).await;
            }
            tracing::warn!(
                directory = name,
                "uSNChanged may not be read, so changes show in whole reads alone: give the bind account the right to it"
            );
        } else if root.streams {
            match self.streamed(connection, waiting).await {
                Err(refused @ Failure::Refused { code: NOT_SUPPORTED | UNWILLING, .. }) => {
                    tracing::info!(directory = name, "no stream of changes, whole reads instead: {refused}");
                }
                ended => return ended,
            }
        }
        self.read_only(connection, waiting).await
    }

    /// Full reads only. Changes between them are unknown, so the directory is asked about addresses that are not found.
    async fn read_only(
        &self,
        connection: &Arc<Connection>,
        waiting: &mut Option<Waiting>,
    ) -> Result<FollowEnd, Failure> {
        loop {
            let due = Instant::now() + self.snapshot.until_whole_read();
            if waiting.is_some() || due <= Instant::now() {
                self.whole(connection, Position::Unknown, waiting).await?;
                continue;
            }
            match self.next(connection, due, due).await? {
                NextStep::Ended => return Ok(FollowEnd::Connection),
                NextStep::Look(doubted) => self.look(connection, &doubted).await?,
                NextStep::Poll => {}
                NextStep::Read(who) => {
                    *waiting = who;
                    self.whole(connection, Position::Unknown, waiting).await?;
                }
            }
        }
    }

    /// Waits for the next thing to do.
    async fn next(&self, connection: &Connection, due: Instant, poll: Instant) -> Result<NextStep, Failure> {
        if self.snapshot.wants_whole_read() {
            return Ok(NextStep::Read(None));
        }
        let mut requests = self.requests.lock().await;
        loop {
            tokio::select! {
                () = self.ended(connection) => return Ok(NextStep::Ended),
                Some(request) = requests.recv() => match request {
                    Request::Look(doubted) => return Ok(NextStep::Look(doubted)),
                    Request::Refresh(refresh) => if let Some(waiting) = self.received(refresh).await? {
                        return Ok(NextStep::Read(Some(waiting)));
                    },
                },
                () = sleep_until(due) => return Ok(NextStep::Read(None)),
                () = sleep_until(poll) => return Ok(NextStep::Poll),
            }
        }
    }

    /// Reads the whole directory by pages, and sends the result to a waiting caller.
    async fn whole(
        &self,
        connection: &Connection,
        position: Position,
        waiting: &mut Option<Waiting>,
    ) -> Result<(), Failure> {
        self.ask_probe(connection).await?;
        let filling = Filling::begin(&self.snapshot, &self.progress).await?;
        let outcome = full_read::read(connection, &self.config, filling, position).await?;
        self.answer(waiting.take(), Ok(outcome));
        self.succeeded();
        Ok(())
    }

    /// Reads doubtful entries again. A failure has no effect on them.
    async fn look(&self, connection: &Connection, doubted: &Doubted) -> Result<(), Failure> {
        let (attributes, disabled) = (full_read::with_id(&self.config), super::answer::disabled_accounts(&self.config));
        let mut changes = Vec::new();
        for suspect in self.snapshot.suspects(&doubted.key, &doubted.live) {
            match full_read::in_time(&self.config, connection.entry(&suspect.dn, &attributes)).await {
                Ok(entry) => {
                    let now = entry.map(|entry| self.config.profile.know(&entry, disabled));
                    changes.extend(suspect.compared_with(now));
                }
                Err(failure) if failure.is_servers_fault() => return Err(failure),
                Err(failure) => tracing::debug!(directory = %self.name, dn = suspect.dn, "cannot be read: {failure}"),
            }
        }
        let snapshot = Arc::clone(&self.snapshot);
        full_read::blocking(move || snapshot.corrected(changes)).await?;
        Ok(())
    }

    /// Searches for the probe: a frozen server, or one that we may no longer read, sends no changes either.
    async fn ask_probe(&self, connection: &Connection) -> Result<(), Failure> {
        let config = &self.config;
        let asked = async {
            let Some(probe) = &config.probe else { return connection.see_bases(config).await.map(Ok) };
            let filter = config.profile.filter([probe]).to_string();
            let reply = connection.search(config, &filter).await;
            reply.map(|reply| super::answer::read(config, &reply, probe).health)
        };
        let health = timeout(config.timeout, asked).await.unwrap_or(Err(Failure::Silent(config.timeout)))?;
        self.health.answered();
        self.health.set(&health);
        health.map_err(Failure::Doubt)
    }

    /// Completes when this is no longer the current connection.
    async fn ended(&self, connection: &Connection) {
        let mut states = self.states.clone();
        let other = |state: &ConnectionState| match state {
            ConnectionState::Up(now) => now.generation != connection.generation,
            ConnectionState::Connecting(_) | ConnectionState::Lost(_) | ConnectionState::Down(_) => true,
        };
        // Without a supervisor there is no connection either.
        let _ = states.wait_for(other).await;
    }

    fn succeeded(&self) {
        *self.problem.lock() = None;
    }

    fn failed(&self, connection: &Connection, failure: &Failure) {
        let cause = format!("{}: {failure}", connection.server.url);
        match failure {
            Failure::Silent(_) => connection.condemn(ConnectionLoss::Silent),
            Failure::Broken(_) | Failure::Tls(_) | Failure::Malformed(_) => {
                connection.condemn(ConnectionLoss::Broken(failure.to_string()))
            }
            _ => {}
        }
        let mut problem = self.problem.lock();
        if problem.as_ref() != Some(&cause) {
            tracing::error!(
                directory = %self.name,
                "the directory cannot be followed, unknown recipients are asked for one by one: {cause}"
            );
            *problem = Some(cause);
        }
    }
}

/// unavailableCriticalExtension, unwillingToPerform (RFC 4511 appendix A).
const NOT_SUPPORTED: u32 = 12;
const UNWILLING: u32 = 53;
