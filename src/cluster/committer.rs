//! Group commit: one transaction at a time for all callers that wait, and the questions about those whose outcome is
//! unknown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use super::batch::{self, Batch, Body, End, New, Replication, Settled, Statements};
use super::database::{Connection, Database, DatabaseError};
use super::shared::{EndsWith, Shared};
use crate::message::queue_id::QueueId;
use crate::spool::condition::Takes;
use crate::spool::entry::Record;
use crate::spool::{Draft, SpoolError};

/// The most callers, and octets of new mail, in one transaction.
const MOST: usize = 512;
const OCTETS: u64 = 8 << 20;
/// The pause between attempts to reach the database.
const AGAIN: Duration = Duration::from_millis(500);
/// How long what was delivered is tried to be written after the end of the epoch: as `drain_timeout`.
const LAST_TRIES: Duration = Duration::from_secs(30);
/// A commit that takes longer is told, and no mail is taken that may have to be kept.
const SLOW: Duration = Duration::from_secs(5);

/// What a caller wants to make durable.
pub(super) struct Job {
    pub(super) record: Record,
    /// CRC-32C of each new message's content.
    pub(super) sums: Vec<u32>,
    pub(super) uploads: Uploads,
    pub(super) answer: oneshot::Sender<Result<(), SpoolError>>,
}

/// Large contents that are in the database already, and are removed unless their record becomes durable.
pub(super) struct Uploads {
    pub(super) shared: Arc<Shared>,
    pub(super) ids: Vec<QueueId>,
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.shared.abandoned.lock().append(&mut self.ids);
    }
}

impl Job {
    /// Whether somebody waits who gives up: mail that its client keeps then, or a session's report. Delivery's outcomes,
    /// and reports with them, are waited for.
    fn has_clients_mail(&self) -> bool {
        !self.record.accepted.is_empty() && self.record.changes.is_empty()
    }

    /// Its new messages: reports too, where it has clients' mail that they are about.
    fn new_mail(&self) -> Vec<QueueId> {
        self.record.accepted.iter().map(|(_, entry)| entry.id).collect()
    }

    fn octets(&self) -> u64 {
        let small = |draft: &Draft| if matches!(draft, Draft::Small { .. }) { draft.size() } else { 0 };
        self.record.accepted.iter().map(|(draft, _)| small(draft)).sum()
    }
}

/// The task that commits.
pub(super) struct Committer {
    shared: Arc<Shared>,
    database: Database,
    connection: Option<(Connection, Statements)>,
    /// Clients' mail that was committed after they had been told that it was not: it is deleted.
    kept_by_clients: BTreeSet<QueueId>,
    settled: Option<[u8; 16]>,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, database: Database) -> Self {
        Self { shared, database, connection: None, kept_by_clients: BTreeSet::new(), settled: None }
    }

    /// Works until all senders are gone: what was delivered is written also after the end of the epoch.
    pub(super) async fn run(mut self, mut jobs: UnboundedReceiver<Job>) {
        let _ends = EndsWith(self.shared.clone());
        loop {
            let mut together = Vec::new();
            match tokio::time::timeout(AGAIN, jobs.recv()).await {
                Ok(Some(first)) => together.push(first),
                Ok(None) => return self.leave().await,
                Err(_) if self.has_nothing_to_do() => continue,
                Err(_) => {}
            }
            let mut octets: u64 = together.iter().map(Job::octets).sum();
            while together.len() < MOST && octets < OCTETS {
                let Ok(job) = jobs.try_recv() else { break };
                octets += job.octets();
                together.push(job);
            }
            // Whoever is gone has been told that his mail is not accepted.
            together.retain(|job| !(job.answer.is_closed() && job.has_clients_mail()));
            let alarm = self.shared.clone();
            let slow = async move {
                tokio::time::sleep(SLOW).await;
                alarm.takes(Takes::Nothing("the database does not answer".into()));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = self.commit(together) => {}
                () = slow => {}
            }
        }
    }

    /// While nothing is taken nobody may ask, so an empty transaction tells when that is over.
    fn has_nothing_to_do(&self) -> bool {
        let is_well = self.shared.takes_records() || self.shared.has_ended();
        is_well && self.kept_by_clients.is_empty() && self.shared.abandoned.lock().is_empty()
    }

    /// The last transaction: mail that its clients have kept must not be left to other nodes. [`ClusterSpool::leave`] bounds
    /// how often it is tried.
    ///
    /// [`ClusterSpool::leave`]: super::ClusterSpool::leave
    async fn leave(mut self) {
        while !self.kept_by_clients.is_empty() && !self.shared.has_ended() {
            self.commit(Vec::new()).await;
            if !self.kept_by_clients.is_empty() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Commits these jobs, and answers them.
    async fn commit(&mut self, jobs: Vec<Job>) {
        let mut batch = match self.shared.batch(&jobs) {
            Ok(batch) => batch,
            Err(error) => return answer(jobs, &Err(error)),
        };
        batch.settled = self.settled;
        batch.tries_all = !self.shared.takes_records();
        batch.gone.extend(&self.kept_by_clients);
        let abandoned = std::mem::take(&mut *self.shared.abandoned.lock());
        batch.gone.extend(&abandoned);
        let shared = self.shared.clone();
        let end = match self.connection().await {
            Ok((connection, statements)) => {
                batch::commit(connection, statements, shared.epoch.id, &batch, shared.standby).await
            }
            Err(error) => End::Refused(error),
        };
        if !matches!(end, End::Committed(..)) {
            self.shared.abandoned.lock().extend(abandoned); // removed twice is removed
        }
        match end {
            End::Committed(replication, finished) => {
                self.settled = Some(batch.key);
                self.kept_by_clients.clear();
                self.shared.replicated(replication);
                self.shared.takes(Takes::Records);
                self.committed(jobs);
                self.shared.forget(&finished);
            }
            End::Refused(DatabaseError::Ended) => self.ended(jobs).await,
            End::Refused(error) => self.refused(jobs, &error),
            End::Unknown(error) => self.unknown(jobs, &batch, &error).await,
        }
    }

    /// The connection, opened anew if it broke.
    async fn connection(&mut self) -> Result<&(Connection, Statements), DatabaseError> {
        if self.connection.as_ref().is_none_or(|(connection, _)| connection.is_closed()) {
            self.connection = None;
            let connection = self.database.connect().await?;
            let statements = connection.while_believed(Statements::prepare(&connection)).await?;
            self.connection = Some((connection, statements));
        }
        self.connection.as_ref().ok_or(DatabaseError::Ended)
    }

    fn committed(&mut self, jobs: Vec<Job>) {
        for mut job in jobs {
            self.shared.is_durable(&mut job);
            let mail = if job.has_clients_mail() { job.new_mail() } else { Vec::new() };
            if job.answer.send(Ok(())).is_err() {
                self.shared.forget(&mail);
                self.kept_by_clients.extend(mail);
            }
        }
    }

    fn refused(&mut self, jobs: Vec<Job>, error: &DatabaseError) {
        let text = error.to_string();
        // Also what it says itself against mail: a right that was withdrawn, or a table that is locked, holds for the next
        // ones too.
        let is_about_mail = jobs.is_empty() || jobs.iter().any(|job| !job.record.accepted.is_empty());
        if is_about_mail || !matches!(error, DatabaseError::Said { .. }) || error.is_full() {
            self.shared.takes(Takes::Nothing(text.clone()));
        }
        if matches!(error, DatabaseError::Away(_)) {
            self.connection = None;
        }
        answer(jobs, &Err(SpoolError::Io(text)));
    }

    /// Asks until the outcome is known; nothing else is committed meanwhile, so that no message of this batch is sent.
    async fn unknown(&mut self, jobs: Vec<Job>, batch: &Batch, error: &DatabaseError) {
        tracing::warn!(%error, "it is not known whether a transaction was committed: asking");
        self.shared.takes(Takes::Nothing(error.to_string()));
        let clients: Vec<QueueId> = jobs.iter().filter(|job| job.has_clients_mail()).flat_map(Job::new_mail).collect();
        self.connection = None;
        let settled = loop {
            match self.settle(batch.key, &clients).await {
                Ok(settled) => break settled,
                Err(DatabaseError::Ended) => {
                    self.kept_by_clients.extend(clients);
                    return self.ended(jobs).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "unknown still");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        };
        tracing::info!(?settled, "the transaction's outcome is known");
        let not_accepted = Err(SpoolError::Io("the database's answer was lost".into()));
        match settled {
            Settled::Void => answer(jobs, &not_accepted),
            Settled::Committed => {
                self.kept_by_clients.clear();
                for mut job in jobs {
                    if job.has_clients_mail() {
                        let _ = job.answer.send(not_accepted.clone());
                    } else {
                        self.shared.is_durable(&mut job);
                        let _ = job.answer.send(Ok(()));
                    }
                }
            }
        }
    }

    /// Settles a batch; if it was committed, its clients' mail is deleted: they have been told that it is not accepted.
    async fn settle(&self, key: [u8; 16], clients: &[QueueId]) -> Result<Settled, DatabaseError> {
        let connection = self.database.connect().await?;
        let settle = async {
            let settled = batch::settle(&connection, self.shared.epoch.id, key).await?;
            if settled == Settled::Committed && !clients.is_empty() {
                batch::delete(&connection, clients).await?;
            }
            Ok(settled)
        };
        connection.while_believed(settle).await
    }

    /// Another node has our mail. What was delivered is written all the same; the program ends.
    async fn ended(&mut self, jobs: Vec<Job>) {
        let changes: Vec<_> = jobs.iter().flat_map(|job| job.record.changes.clone()).collect();
        let kept: Vec<QueueId> = self.kept_by_clients.iter().copied().collect();
        self.shared.end();
        let began = Instant::now();
        while began.elapsed() < LAST_TRIES {
            let written = match self.connection().await {
                Ok((connection, _)) => {
                    let write = async {
                        batch::delete(connection, &kept).await?;
                        batch::delivered_after_all(connection, &changes).await
                    };
                    connection.while_believed(write).await
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => {
                    self.kept_by_clients.clear();
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "what was delivered cannot be written yet");
                    self.connection = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        // Other outcomes do not count any more, and are not written again.
        let (mail, outcomes): (Vec<_>, Vec<_>) = jobs.into_iter().partition(Job::has_clients_mail);
        answer(mail, &Err(SpoolError::Io(DatabaseError::Ended.to_string())));
        answer(outcomes, &Ok(()));
    }
}

fn answer(jobs: Vec<Job>, result: &Result<(), SpoolError>) {
    for job in jobs {
        let _ = job.answer.send(result.clone()); // nobody waits any more
    }
}

impl Shared {
    /// The transaction for these jobs.
    fn batch(&self, jobs: &[Job]) -> Result<Batch, SpoolError> {
        let failed = |what: &str| SpoolError::Io(format!("the message cannot be written: {what}"));
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| failed("the system gives no random numbers"))?;
        let mut batch = Batch { key, ..Batch::default() };
        for job in jobs {
            for ((draft, entry), sum) in job.record.accepted.iter().zip(&job.sums) {
                let content = match draft {
                    Draft::Small { content, .. } => Body::Here(content.clone()),
                    Draft::Blob(_) => Body::Uploaded(draft.size()),
                };
                let entry = entry.to_bytes().map_err(|error| failed(&error.to_string()))?;
                batch.new.push(New { id: draft.id(), entry, sum: *sum, content });
            }
            batch.changes.extend(job.record.changes.iter().cloned());
        }
        let writes = self.mail.lock().own.writes(&batch.changes);
        batch.gone = writes.finished;
        batch.changed = writes.changed;
        Ok(batch)
    }

    /// This job is durable.
    fn is_durable(&self, job: &mut Job) {
        job.uploads.ids.clear();
        let now = Instant::now();
        let mut mail = self.mail.lock();
        for ((draft, entry), sum) in job.record.accepted.iter().zip(&job.sums) {
            mail.own.insert(entry, *sum);
            if let Draft::Small { id, content } = draft {
                mail.fresh.keep(*id, content.clone(), now);
            }
        }
        mail.own.apply(&job.record.changes);
    }

    fn forget(&self, ids: &[QueueId]) {
        let mut mail = self.mail.lock();
        ids.iter().for_each(|id| mail.own.remove(*id));
    }

    fn replicated(&self, replication: Replication) {
        let alone = i64::from(replication == Replication::Alone);
        if self.metrics.cluster_without_standby.with_label_values::<&str>(&[]).get() != alone {
            self.metrics.cluster_without_standby.with_label_values::<&str>(&[]).set(alone);
            match replication {
                Replication::Alone => {
                    tracing::warn!(
                        alert = true,
                        "mail is accepted without a standby: synchronous_standby_names is empty"
                    );
                }
                Replication::Standby => tracing::info!("the database has a synchronous standby again"),
            }
        }
    }
}
