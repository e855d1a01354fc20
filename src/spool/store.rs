//! The simple store: a file a message, envelopes and outcomes in one append-only log with group commit.
//!
//! `main` opens it, sessions and `delivery` use it through [`Spool`]. A few threads sync content, so that many files
//! are on their way to the disk at once; then one thread, the committer, names content and writes the log.
//! What lies where: `layout`. docs/decisions/0002-own-spool-log.md says why it is built so.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{Builder, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::committer::{Committer, Job, Places, Start};
use super::contents::{self, Contents};
use super::entry::{Entry, Record};
use super::layout::{self, Layout, failed};
use super::recover::{Recovered, recover};
use super::segment::{NotBegun, Segment};
use super::spares::Spares;
use super::{Committed, Draft, Spool, SpoolError};
use crate::message::queue_id::QueueId;
use crate::metrics::Metrics;

/// Threads that sync content. Each mostly waits for the disk.
const SYNCERS: usize = 16;

/// A spool below one folder. Dropping it finishes what was begun and unlocks the folder.
pub struct FileStore {
    layout: Layout,
    spares: Arc<Spares>,
    places: Places,
    last_id: AtomicU64,
    recovered: Mutex<Vec<Entry>>,
    queues: Option<Queues>,
    threads: Vec<JoinHandle<()>>,
    lock: File,
}

/// Where jobs go.
struct Queues {
    with_content: Sender<Job>,
    without_content: Sender<Job>,
}

impl FileStore {
    /// Opens the spool below `folder`, making it if it is missing, and recovers what is in it. One process at a time:
    /// the folder is locked.
    ///
    /// # Errors
    /// [`SpoolError::Io`] naming the file.
    pub fn open(folder: &Path, metrics: Metrics) -> Result<Self, SpoolError> {
        let layout = Layout::make(folder)?;
        let lock = layout::lock(folder)?;
        let Recovered { mut live, places, last_id, next_segment, next_folder, discard, .. } = recover(&layout)?;
        let segment = Segment::begin(&layout.log, next_segment, &mut live, last_id).map_err(|e| match e {
            NotBegun::Unwritten(e) | NotBegun::Unnamed(e) => e,
        })?;
        let spares = Arc::new(Spares::new(layout.incoming.clone()));
        let contents = Contents::new(contents::Start {
            root: layout.messages.clone(),
            places: &places,
            next: next_folder,
            spares: spares.clone(),
            metrics: metrics.clone(),
        });
        sweep(&discard, &layout, &places);
        let recovered = Mutex::new(live.entries().cloned().collect());
        let places = Arc::new(RwLock::new(places));
        let committer = Committer::new(Start {
            folder: layout.log.clone(),
            segment,
            live,
            places: places.clone(),
            contents,
            last_id,
            metrics: metrics.clone(),
        });
        metrics.spool_sync_failures.with_label_values::<&str>(&[]); // there at zero
        let (queues, threads) = start(committer, &metrics)?;
        let last_id = AtomicU64::new(last_id.0);
        Ok(Self { layout, spares, places, last_id, recovered, queues: Some(queues), threads, lock })
    }

    /// Milliseconds since 1970 and a counter; never one that was used before, even if the clock went back.
    fn submit(&self, record: Record) -> Result<oneshot::Receiver<Result<(), SpoolError>>, SpoolError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queues.as_ref().ok_or_else(ended)?;
        let queue = if record.accepted.is_empty() { &queue.without_content } else { &queue.with_content };
        queue.send(Job { record, answer }).map_err(|_| ended())?;
        Ok(answered)
    }
}

impl Spool for FileStore {
    fn new_id(&self) -> QueueId {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or_default() << 20;
        let next = |last: u64| Some(now.max(last + 1));
        let last = self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        QueueId(now.max(last + 1))
    }

    fn create_as(&self, id: QueueId) -> Result<Draft, SpoolError> {
        let path = self.layout.incoming.join(id.to_string());
        let file = self.spares.take(&path)?;
        Ok(Draft { id, file, path, kept: false })
    }

    fn commit(&self, record: Record) -> Committed<'_> {
        Box::pin(async move {
            if record.accepted.is_empty() && record.changes.is_empty() {
                return Ok(());
            }
            self.submit(record)?.await.map_err(|_| ended())?
        })
    }

    fn open(&self, id: QueueId) -> Result<File, SpoolError> {
        let place = self.places.read().unwrap_or_else(PoisonError::into_inner).get(&id).copied();
        let folder = place.ok_or_else(|| SpoolError::Io(format!("{id} is not in the spool")))?;
        let path = self.layout.messages.join(contents::folder_name(folder)).join(id.to_string());
        File::open(&path).map_err(|e| failed("cannot open", &path, &e))
    }

    fn recovered(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.recovered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.queues = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // closing is not enough where a process that is just being forked off still holds a copy
        let _ = self.lock.unlock();
    }
}

/// Starts the threads. They end when the queues are closed.
fn start(committer: Committer, metrics: &Metrics) -> Result<(Queues, Vec<JoinHandle<()>>), SpoolError> {
    let (with_content, to_sync) = mpsc::channel();
    let (without_content, to_commit) = mpsc::channel();
    let to_sync = Arc::new(Mutex::new(to_sync));
    let mut threads = vec![spawn("spool-log", move || committer.run(&to_commit))?];
    for _ in 0..SYNCERS {
        let (from, to, metrics) = (to_sync.clone(), without_content.clone(), metrics.clone());
        threads.push(spawn("spool-sync", move || sync_contents(&from, &to, &metrics))?);
    }
    Ok((Queues { with_content, without_content }, threads))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SpoolError> {
    Builder::new().name(name.into()).spawn(body).map_err(|e| SpoolError::Io(format!("cannot start a thread: {e}")))
}

/// One of the threads that make content durable before the committer names it.
fn sync_contents(from: &Mutex<Receiver<Job>>, to: &Sender<Job>, metrics: &Metrics) {
    loop {
        let job = from.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        match job.record.accepted.iter().try_for_each(|(draft, entry)| sync(draft, entry, metrics)) {
            Ok(()) => {
                if let Err(unsent) = to.send(job) {
                    unsent.0.end(Err(ended()));
                }
            }
            Err(error) => job.end(Err(error)),
        }
    }
}

/// Recovery takes content of another length for damaged, so it is not let in.
fn sync(draft: &Draft, entry: &Entry, metrics: &Metrics) -> Result<(), SpoolError> {
    let length = draft.file.metadata().map_err(|e| failed("cannot read", &draft.path, &e))?.len();
    if draft.id != entry.id || length != entry.content.size {
        let text = format!("{} is to be {} bytes, its file {} has {length}", entry.id, entry.content.size, draft.id);
        return Err(SpoolError::Io(text));
    }
    draft.file.sync_data().map_err(|e| {
        let error = failed("cannot sync", &draft.path, &e);
        layout::alert(metrics, &error, "the message is turned away for now");
        error
    })
}

/// Removes what recovery found that nobody needs: files, then folders without a live message.
fn sweep(discard: &[PathBuf], layout: &Layout, places: &HashMap<QueueId, u32>) {
    let used: std::collections::HashSet<PathBuf> =
        places.values().map(|folder| layout.messages.join(contents::folder_name(*folder))).collect();
    for path in discard.iter().filter(|path| !used.contains(*path)) {
        if path.parent() == Some(&layout.messages) {
            let _ = fs::remove_dir(path); // a stranger's file keeps it
        } else {
            layout::discard(path);
        }
    }
}

fn ended() -> SpoolError {
    SpoolError::Io("the spool has stopped: see the log, and restart fingerpost".into())
}
