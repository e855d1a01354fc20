//! Keeps a snapshot what the directory is: reads it as a whole, then follows what changes, by the best way that the server
//! has: a stream (RFC 4533), Active Directory's numbering of changes on one controller (MS-ADTS 3.1.1.1.9), or whole reads
//! alone.
//!
//! One task a directory, on the connection that questions use; `supervisor` makes another when that ends. What goes wrong
//! costs freshness, never an answer: the snapshot says how far it can be believed.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Connection, End};
use super::pulse::Pulse;
use super::search::Failure;
use super::supervisor::State;
use super::whole::{self, Filling, Taking};
use crate::config::{LdapConfig, SnapshotConfig};
use crate::directory::snapshot::position::Position;
use crate::directory::snapshot::served::Outcome;
use crate::directory::snapshot::{Accept, Snapshot, Suspect};

mod numbered;
mod streamed;

/// Pauses after failures in a row: doubled each time, up to the longest; a shorter one where a question shows whether the
/// directory is well again, because a whole read that fails is dear.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_DOUBT: Duration = Duration::from_secs(4);
/// How often the age is told.
const TELL_AGE: Duration = Duration::from_secs(5);

/// What somebody wants of the task.
pub(super) enum Request {
    /// The directory is to be read as a whole, now.
    Refresh(Refresh),
    /// The directory, asked itself, said something else of these entries.
    Look(Vec<Suspect>),
}

/// Somebody waits for a whole read.
pub(super) struct Refresh {
    pub(super) accept: Accept,
    pub(super) done: oneshot::Sender<Result<Refreshed, String>>,
}

/// What is to be done next.
enum Next {
    /// There is another connection, or none.
    Ended,
    /// A whole read.
    Read(Option<Refresh>),
    /// A few entries, again.
    Look(Vec<Suspect>),
    /// What is done every `poll`.
    Poll,
}

/// What a whole read came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refreshed {
    /// Recipients now.
    pub recipients: usize,
    /// So many of them take another way, or none, since.
    pub turned: usize,
    /// So many would, if what is held were accepted.
    pub held: usize,
}

/// The task.
pub(super) struct Keeper {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<LdapConfig>,
    pub(super) kept: SnapshotConfig,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) states: watch::Receiver<State>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) requests: tokio::sync::Mutex<mpsc::Receiver<Request>>,
    /// How many entries a read under way has so far.
    pub(super) progress: Arc<AtomicUsize>,
    pub(super) problem: Arc<Mutex<Option<String>>>,
}

/// Why following ended.
enum Ended {
    /// There is another connection, or none.
    Connection,
    /// It is to begin anew at once, for whoever waits for it.
    Again(Option<Refresh>),
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
            let following = tokio::spawn(Arc::clone(&keeper).follow(Arc::clone(&connection), waiting.take()));
            // The client library panics on some malformed answers; that ends this task, nothing else.
            let ended = AbortOnDropHandle::new(following).await.unwrap_or(Err(Failure::Malformed("a control")));
            keeper.snapshot.lost();
            match ended {
                Ok(Ended::Connection) => failures = 0,
                Ok(Ended::Again(done)) => (failures, waiting) = (0, done),
                Err(failure) => {
                    keeper.failed(&connection, &failure);
                    failures += 1;
                    let cheap = failure.is_servers_fault() || matches!(failure, Failure::Doubt(_));
                    let longest = if cheap { LONGEST_DOUBT } else { LONGEST_PAUSE };
                    let pause = FIRST_PAUSE.saturating_mul(1 << (failures - 1_u32).min(10)).min(longest);
                    waiting = keeper.pause(pause, &failure).await;
                }
            }
        }
    }

    /// The next connection. Who asks for a read meanwhile is told that there is none.
    async fn connection(&self) -> Arc<Connection> {
        let mut states = self.states.clone();
        let mut requests = self.requests.lock().await;
        loop {
            if let State::Up(connection) = &*states.borrow_and_update()
                && !connection.is_condemned()
            {
                return Arc::clone(connection);
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() { std::future::pending::<()>().await },
                Some(request) = requests.recv() => match &*states.borrow() {
                    State::Down(cause) => self.refuse(request, cause),
                    State::Connecting | State::Up(_) => self.refuse(request, "it is being connected to; try again"),
                },
            }
        }
    }

    /// What is held can be accepted without the directory.
    fn refuse(&self, request: Request, cause: &str) {
        if let Request::Refresh(Refresh { accept, done }) = request {
            let accepted = (accept == Accept::Yes).then(|| self.snapshot.accept()).filter(|turned| *turned > 0);
            let answer = accepted.map(|turned| self.refreshed(turned));
            // Who asked may have gone.
            let _ = done.send(answer.ok_or_else(|| cause.to_owned()));
        }
    }

    fn refreshed(&self, turned: usize) -> Refreshed {
        let report = self.snapshot.report();
        Refreshed { recipients: report.recipients.unwrap_or_default(), turned, held: report.held }
    }

    async fn pause(&self, pause: Duration, failure: &Failure) -> Option<Refresh> {
        let until = Instant::now() + pause;
        let mut requests = self.requests.lock().await;
        loop {
            tokio::select! {
                () = sleep_until(until) => return None,
                Some(request) = requests.recv() => match request {
                    Request::Refresh(refresh) if refresh.accept == Accept::No => return Some(refresh),
                    request => self.refuse(request, &failure.to_string()),
                },
            }
        }
    }

    /// Follows the directory on one connection, until that ends.
    async fn follow(self: Arc<Self>, connection: Arc<Connection>, waiting: Option<Refresh>) -> Result<Ended, Failure> {
        let root = whole::in_time(&self.config, connection.root()).await?;
        match root.numbers {
            Some(numbers) => self.numbered(&connection, numbers.service, waiting).await,
            None if root.streams => match self.streamed(&connection, waiting).await {
                Err(Failure::Refused { doing, code: code @ (NOT_SUPPORTED | UNWILLING), text }) => {
                    let refused = Failure::Refused { doing, code, text };
                    tracing::info!(directory = %self.name, "no stream of changes, whole reads instead: {refused}");
                    self.read_only(&connection, None).await
                }
                ended => ended,
            },
            None => self.read_only(&connection, waiting).await,
        }
    }

    /// Whole reads alone. Between them nobody knows of changes, so the directory is asked about who is not there.
    async fn read_only(&self, connection: &Arc<Connection>, waiting: Option<Refresh>) -> Result<Ended, Failure> {
        self.whole(connection, Position::Unknown, waiting).await?;
        let mut due = Instant::now() + self.kept.full_read;
        loop {
            self.snapshot.lost();
            match self.next(connection, due, due).await {
                Next::Ended => return Ok(Ended::Connection),
                Next::Look(entries) => self.look(connection, entries).await?,
                Next::Poll => {}
                Next::Read(waiting) => {
                    self.whole(connection, Position::Unknown, waiting).await?;
                    due = Instant::now() + self.kept.full_read;
                }
            }
        }
    }

    /// Waits for something to do.
    async fn next(&self, connection: &Connection, due: Instant, poll: Instant) -> Next {
        if self.snapshot.file_is_behind() {
            return Next::Read(None);
        }
        let mut requests = self.requests.lock().await;
        tokio::select! {
            () = self.ended(connection) => Next::Ended,
            Some(request) = requests.recv() => match request {
                Request::Refresh(refresh) => Next::Read(Some(refresh)),
                Request::Look(entries) => Next::Look(entries),
            },
            () = sleep_until(due) => Next::Read(None),
            () = sleep_until(poll) => Next::Poll,
        }
    }

    /// Reads the directory as a whole by pages, and tells whoever waits for it.
    async fn whole(
        &self,
        connection: &Connection,
        position: Position,
        waiting: Option<Refresh>,
    ) -> Result<(), Failure> {
        let accept = accept(waiting.as_ref());
        let read = async {
            self.ask_probe(connection).await?;
            let filling = Filling::begin(&self.snapshot, &self.progress).await?;
            whole::read(connection, &self.config, filling, Taking { position, accept }).await
        };
        let read = read.await;
        self.answer(waiting, &read);
        read.map(|_| self.succeeded())
    }

    fn answer(&self, waiting: Option<Refresh>, read: &Result<Outcome, Failure>) {
        let Some(Refresh { done, .. }) = waiting else { return };
        let answer = match read {
            Ok(Outcome::Taken(turned)) => Ok(self.refreshed(*turned)),
            Ok(Outcome::Held(_)) => Ok(self.refreshed(0)),
            Err(failure) => Err(failure.to_string()),
        };
        // Who asked may have gone.
        let _ = done.send(answer);
    }

    /// Reads entries again of which the directory said something else.
    async fn look(&self, connection: &Connection, suspects: Vec<Suspect>) -> Result<(), Failure> {
        let attributes = whole::with_id(&self.config);
        let mut changes = Vec::new();
        for suspect in suspects {
            let entry = whole::in_time(&self.config, connection.entry(&suspect.dn, &attributes)).await?;
            let disabled = super::answer::disabled_accounts(&self.config);
            changes.extend(suspect.compared_with(entry.map(|entry| self.config.profile.know(&entry, disabled))));
        }
        let (snapshot, position) = (Arc::clone(&self.snapshot), self.snapshot.position());
        whole::blocking(move || snapshot.changed(changes, position)).await?;
        Ok(())
    }

    /// Asks for the probe: a server that has frozen, or tells us nothing any more, tells of no change either.
    async fn ask_probe(&self, connection: &Connection) -> Result<(), Failure> {
        let config = &self.config;
        let asked = async {
            let Some(probe) = &config.probe else { return connection.see_bases(config).await.map(Ok) };
            let filter = config.profile.filter([probe]).to_string();
            let reply = connection.search(config, &filter).await;
            reply.map(|reply| super::answer::read(config, &reply, probe).health)
        };
        let health = timeout(config.timeout, asked).await.unwrap_or(Err(Failure::Silent(config.timeout)))?;
        self.pulse.answered();
        self.pulse.health(&health);
        health.map_err(Failure::Doubt)
    }

    /// Returns when the connection is no longer the one in use.
    async fn ended(&self, connection: &Connection) {
        let mut states = self.states.clone();
        let other = |state: &State| match state {
            State::Up(now) => now.generation != connection.generation,
            State::Connecting | State::Down(_) => true,
        };
        // Without a supervisor there is no connection either.
        let _ = states.wait_for(other).await;
    }

    fn succeeded(&self) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn failed(&self, connection: &Connection, failure: &Failure) {
        let cause = format!("{}: {failure}", connection.server.url);
        match failure {
            Failure::Silent(_) => connection.condemn(End::Silent),
            Failure::Broken(_) | Failure::Malformed(_) => connection.condemn(End::Broken(failure.to_string())),
            _ => {}
        }
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if problem.as_ref() != Some(&cause) {
            tracing::error!(
                directory = %self.name,
                "the directory cannot be followed, unknown recipients are asked for one by one: {cause}"
            );
            *problem = Some(cause);
        }
    }
}

fn accept(waiting: Option<&Refresh>) -> Accept {
    waiting.map_or(Accept::No, |refresh| refresh.accept)
}

/// unavailableCriticalExtension, unwillingToPerform (RFC 4511 appendix A).
const NOT_SUPPORTED: u32 = 12;
const UNWILLING: u32 = 53;
