//! The spool of a node in a cluster: [`Spool`] on the shared database.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::batch;
use super::census::Census;
use super::committer::{Committer, Job, Uploads};
use super::contents::{self, Remote};
use super::database::{Database, DatabaseError, Pool};
use super::epoch::{self, Epoch};
use super::evidence::SharedAddresses;
use super::ids::to_sql;
use super::living::Living;
use super::settings;
use super::shared::{EndsWith, Shared};
use super::sweep::Sweep;
use super::unwritten::Unwritten;
use crate::config::Cluster;
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;
use crate::share::Share;
use crate::spool::condition::Condition;
use crate::spool::entry::outline::Outlines;
use crate::spool::entry::{Entry, Record};
use crate::spool::{BlobDraft, Committed, Draft, NodeFolder, Spool, SpoolError, Stored};
use crate::time::QueueTime;

/// Where the committer answers.
type Answer = oneshot::Receiver<Result<(), SpoolError>>;

fn stopped() -> SpoolError {
    SpoolError::Io("this node has left the cluster: it starts again".into())
}

/// How long the last transactions may take at the end.
const LEAVING: Duration = Duration::from_secs(10);
/// A caller hears after so long that his mail is not accepted.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections for committing and what became of a commit, heartbeats, the sweep and addresses (two); the others read.
const OWN_CONNECTIONS: usize = 6;

/// The spool of one node. Its tasks end with it.
pub struct ClusterSpool {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    database: Database,
    addresses: Arc<SharedAddresses>,
    /// Nothing more is committed once it is gone.
    jobs: Mutex<Option<UnboundedSender<Job>>>,
    handle: Handle,
    folder: NodeFolder,
    unwritten: Unwritten,
    committer: Mutex<Option<JoinHandle<()>>>,
    /// `None`: it takes nothing over yet.
    sweep: Mutex<Option<JoinHandle<()>>>,
    tasks: [JoinHandle<()>; 2],
}

impl ClusterSpool {
    /// Joins the cluster. `folder`: this node's own, for content that is being received. `configuration`: its digest.
    ///
    /// # Errors
    /// [`SpoolError::Io`] with what to do.
    pub async fn open(
        cluster: &Cluster,
        folder: PathBuf,
        configuration: &str,
        metrics: Metrics,
    ) -> Result<Self, SpoolError> {
        let folder = NodeFolder::open(folder)?;
        let database =
            Database::new(cluster).map_err(|error| SpoolError::Io(format!("[cluster] database: {error}")))?;
        database.timelines().keep_in(&folder.file("timeline")).map_err(SpoolError::Io)?;
        let cannot = |error: DatabaseError| SpoolError::Io(error.to_string());
        let connection = database.connect().await.map_err(cannot)?;
        let missing = settings::missing_standby(&connection).await.map_err(cannot)?;
        if let Some(missing) = &missing {
            tracing::warn!(alert = true, "{missing}; the start waits for it");
        }
        let joined = Epoch::join(&connection, &cluster.node, configuration, folder.epoch());
        let epoch = connection.while_believed(joined).await.map_err(|error| match (missing, error) {
            (None, error) | (_, error @ (DatabaseError::Unfit(_) | DatabaseError::Ended)) => cannot(error),
            (Some(missing), _) => SpoolError::Io(missing.to_string()),
        })?;
        folder.save_epoch(epoch.id)?;
        drop(connection);
        let database = database.of_epoch(epoch.id);
        let shared = Arc::new(Shared::new(epoch, cluster.standby, configuration, metrics.clone()));
        metrics.cluster_without_standby.with_label_values::<&str>(&[]).set(0);
        metrics.spool_damaged_contents.with_label_values::<&str>(&[]);
        let readers = cluster.connections.saturating_sub(OWN_CONNECTIONS).max(1);
        let pool = Arc::new(Pool::new(database.clone(), readers));
        let (jobs, to_commit) = unbounded_channel();
        let (beating, beats) = (shared.clone(), database.clone());
        let committer = tokio::spawn(Committer::new(shared.clone(), database.clone()).run(to_commit));
        let tasks = [
            tokio::spawn(Census::keep(shared.clone(), pool.clone())),
            tokio::spawn(async move {
                let _ends = EndsWith(beating.clone());
                beating.epoch.keep_beating(&beats, &beating).await;
            }),
        ];
        Ok(Self {
            addresses: Arc::new(SharedAddresses::new(database.clone(), shared.epoch.node)),
            shared,
            pool,
            database,
            jobs: Mutex::new(Some(jobs)),
            handle: Handle::current(),
            folder,
            unwritten: Unwritten::default(),
            committer: Mutex::new(Some(committer)),
            sweep: Mutex::default(),
            tasks,
        })
    }

    /// Begins to take over mail of nodes that are gone, and returns it, for the queue. What a node takes over before it can
    /// deliver would wait there, so this comes last at a start.
    /// `None`: it does so already.
    pub fn take_over(&self) -> Option<UnboundedReceiver<Outlines>> {
        let mut sweep = self.sweep.lock();
        if sweep.is_some() {
            return None;
        }
        let (adopting, adopted) = unbounded_channel();
        *sweep = Some(tokio::spawn(Sweep::new(self.shared.clone(), self.database.clone(), adopting).run()));
        Some(adopted)
    }

    /// How to reach the database.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// What all nodes know of addresses.
    #[must_use]
    pub fn addresses(&self) -> Arc<SharedAddresses> {
        self.addresses.clone()
    }

    /// This node's epoch and name.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.shared.epoch
    }

    /// Whether its epoch has ended: what it writes does not count any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.has_ended()
    }

    /// Connections for reading.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The nodes that live.
    #[must_use]
    pub fn living(&self) -> Living {
        self.shared.epoch.living()
    }

    /// This node's share of limits that hold for all nodes together. Without the database it stays what it was: others
    /// may live.
    #[must_use]
    pub fn share(&self) -> Share {
        let living = self.living();
        Share::new(living.rank, living.nodes, self.queue_time())
    }

    /// Another configuration is in force, with this digest.
    pub fn set_configuration(&self, digest: String) {
        *self.shared.configuration.lock() = digest;
    }

    /// Mail of nodes that are gone is for others from now on.
    pub(super) fn take_over_no_more(&self) {
        self.shared.take_over_no_more();
    }

    /// Leaves the cluster: other nodes take over at once what is left. What was submitted before is committed first.
    pub async fn leave(&self) {
        self.jobs.lock().take();
        let committer = self.committer.lock().take();
        if let Some(committer) = committer
            && tokio::time::timeout(LEAVING, committer).await.is_err()
        {
            tracing::warn!("the last outcomes cannot be written: their mail may arrive twice");
        }
        self.shared.end();
        let left = async {
            let connection = self.database.connect().await?;
            self.shared.epoch.leave(&connection).await
        };
        let left = tokio::time::timeout(LEAVING, left).await;
        if let Err(error) = left.unwrap_or_else(|_| Err(DatabaseError::Away("no answer in time".into()))) {
            tracing::warn!(%error, "cannot leave the cluster: what is left is taken over later");
        }
    }

    /// Hands a record to the committer; returns where the answer comes.
    async fn submit(&self, record: Record) -> Result<Answer, SpoolError> {
        let mut uploads = Uploads { shared: self.shared.clone(), ids: Vec::new() };
        let mut sums = Vec::with_capacity(record.accepted.len());
        for (draft, entry) in &record.accepted {
            if draft.id() != entry.id || draft.size() != entry.content.size {
                let text =
                    format!("{} is to be {} octets, its content has {}", entry.id, entry.content.size, draft.size());
                return Err(SpoolError::Io(text));
            }
            sums.push(draft.sum());
            if let Draft::Blob(_) = draft {
                uploads.ids.push(entry.id);
                let uploaded = contents::upload(&self.pool, self.shared.epoch.id, entry.id, &draft.stored()).await;
                uploaded.map_err(|error| SpoolError::Io(error.to_string()))?;
            }
        }
        let (answer, answered) = oneshot::channel();
        let sent =
            self.jobs.lock().as_ref().is_some_and(|jobs| jobs.send(Job { record, sums, uploads, answer }).is_ok());
        if sent { Ok(answered) } else { Err(stopped()) }
    }

    /// Writes outcomes, and reports with them.
    async fn write(&self, record: Record) -> Result<(), SpoolError> {
        let delivered = self.unwritten.add(&record.changes);
        self.submit(record).await?.await.map_err(|_| stopped())??;
        self.unwritten.are_written(&delivered);
        Ok(())
    }

    async fn read(&self, id: QueueId) -> Result<Option<Entry>, DatabaseError> {
        // An operator asks about others' mail too; and what is being taken over must not be taken for one that is gone.
        if self.shared.mail.lock().own.get(id).is_none() {
            return Ok(None);
        }
        let statement = "SELECT format, entry FROM fingerpost.queue WHERE id = $1 AND epoch = $2";
        let rows = self.pool.query(statement, &[&to_sql(id), &self.shared.epoch.id]).await?;
        let mut mail = self.shared.mail.lock();
        let Some(row) = rows.first() else {
            mail.own.remove(id); // its last node has delivered it after all
            return Ok(None);
        };
        let entry = batch::entry(row.get(0), row.get(1))?;
        mail.own.narrow(&entry);
        Ok(Some(entry))
    }
}

impl Spool for ClusterSpool {
    fn new_id(&self) -> QueueId {
        self.shared.epoch.ids.next(epoch::now())
    }

    fn queue_time(&self) -> QueueTime {
        self.shared.epoch.pulse.queue_time()
    }

    fn create_as(&self, id: QueueId) -> Result<BlobDraft, SpoolError> {
        self.folder.draft(id)
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        Box::pin(async move {
            if record.accepted.is_empty() && record.changes.is_empty() {
                return Ok(());
            }
            record.accepted.iter().try_for_each(|(draft, entry)| draft.is_content_of(entry))?;
            // Outcomes, and reports with them, are waited for: they are written again where that fails.
            if !record.changes.is_empty() {
                return self.write(record).await;
            }
            let until = tokio::time::Instant::now() + PATIENCE;
            let slow = || SpoolError::Io(format!("the database did not answer within {PATIENCE:?}"));
            let mut answered = timeout_at(until, self.submit(record)).await.map_err(|_| slow())??;
            match timeout_at(until, &mut answered).await {
                Ok(answer) => answer.map_err(|_| stopped())?,
                Err(_) => {
                    // An answer that comes in this moment counts, or the committer sees that nobody waits.
                    answered.close();
                    answered.try_recv().unwrap_or_else(|_| Err(slow()))
                }
            }
        })
    }

    fn entry(&self, id: QueueId) -> Result<Option<Entry>, SpoolError> {
        let read = tokio::task::block_in_place(|| self.handle.block_on(self.read(id)));
        read.map_err(|error| SpoolError::Io(error.to_string()))
    }

    fn ids_after(&self, id: Option<QueueId>, most: usize) -> Vec<QueueId> {
        self.shared.mail.lock().own.ids_after(id, most)
    }

    fn open_recipients(&self, id: QueueId) -> Vec<usize> {
        self.shared.mail.lock().own.open(id).into_iter().map(|at| at as usize).collect()
    }

    fn live_messages(&self) -> usize {
        self.shared.mail.lock().own.len()
    }

    fn open(&self, id: QueueId) -> Result<Stored, SpoolError> {
        let mut mail = self.shared.mail.lock();
        let Some(owned) = mail.own.get(id) else {
            return Err(SpoolError::Io(format!("{id} is not a message of this node")));
        };
        if let Some(content) = mail.fresh.take(id) {
            return Ok(Stored::memory(content));
        }
        let remote = Remote { id, pool: self.pool.clone(), handle: self.handle.clone() };
        let stored = Stored::elsewhere(Arc::new(remote), owned.size, owned.sum);
        Ok(if mail.own.is_damaged(id) { stored.known_as_damaged() } else { stored })
    }

    fn keep_damaged(&self, entry: &Entry, content: &Stored) {
        // Another node may have delivered it after all: then it was deleted, and is not damaged.
        if !matches!(self.entry(entry.id), Ok(Some(_))) {
            return;
        }
        if self.shared.mail.lock().own.found_damaged(entry.id) {
            self.shared.metrics.spool_damaged_contents.with_label_values::<&str>(&[]).inc();
            self.folder.keep_damaged(entry, content);
        }
    }

    fn condition(&self) -> Condition {
        self.shared.condition.clone()
    }

    fn may_send(&self) -> bool {
        self.unwritten.are_few() && self.shared.epoch.pulse.may_send() && !self.shared.has_ended()
    }

    fn recovered(&self) -> Outlines {
        Outlines::default() // its mail of before is taken over as that of any node that is gone
    }
}

impl Drop for ClusterSpool {
    fn drop(&mut self) {
        self.tasks.iter().chain(&*self.committer.lock()).chain(&*self.sweep.lock()).for_each(JoinHandle::abort);
    }
}
