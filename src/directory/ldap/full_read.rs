//! Reads the whole directory, page by page (RFC 2696), into a new snapshot.
//!
//! `follow` calls it. Each page is written to a file at once, so that memory has one page only; the file becomes the
//! snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ldap3::Scope;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use super::answer;
use super::connection::Connection;
use super::search::{Failure, IDS, Search};
use crate::config::LdapConfig;
use crate::directory::known::Known;
use crate::directory::snapshot::Snapshot;
use crate::directory::snapshot::position::Position;
use crate::directory::snapshot::saved::Writer;
use crate::directory::snapshot::served::Outcome;

/// The least time for a page.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is logged.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A new snapshot that is being filled.
pub(super) struct Filling {
    snapshot: Arc<Snapshot>,
    writer: Writer,
    begun: Instant,
    told: Instant,
    progress: Arc<AtomicUsize>,
}

impl Filling {
    pub(super) async fn begin(snapshot: &Arc<Snapshot>, progress: &Arc<AtomicUsize>) -> Result<Self, Failure> {
        let shared = Arc::clone(snapshot);
        let writer = blocking(move || shared.begin()).await?.map_err(|error| Failure::NotTried(error.to_string()))?;
        let (begun, told) = (Instant::now(), Instant::now());
        progress.store(0, Ordering::Relaxed);
        Ok(Self { snapshot: Arc::clone(snapshot), writer, begun, told, progress: Arc::clone(progress) })
    }

    /// Adds entries; those without an address are left out.
    pub(super) async fn put(mut self, entries: Vec<Known>) -> Result<Self, Failure> {
        let entries: Vec<Known> = entries.into_iter().filter(|known| !known.claims.is_empty()).collect();
        let snapshot = Arc::clone(&self.snapshot);
        let (written, writer) = blocking(move || (snapshot.put(&mut self.writer, entries), self.writer)).await?;
        written.map_err(|error| Failure::NotTried(format!("the snapshot cannot be written: {error}")))?;
        self.writer = writer;
        self.progress.store(self.writer.entries(), Ordering::Relaxed);
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tracing::info!(directory = self.snapshot.name(), entries = self.writer.entries(), "reading all recipients");
        }
        Ok(self)
    }

    /// Puts it in force, unless too many recipients would change.
    pub(super) async fn take(self, position: Position, config: &LdapConfig) -> Result<Outcome, Failure> {
        let probe = config.probe.as_ref().map(|probe| config.profile.key(probe).into_owned());
        let (entries, seconds) = (self.writer.entries(), self.begun.elapsed().as_secs_f64());
        let snapshot = Arc::clone(&self.snapshot);
        let taken = blocking(move || snapshot.read(self.writer, position, probe.as_deref())).await?;
        let outcome = taken.map_err(Failure::NotTried)?;
        tracing::info!(directory = self.snapshot.name(), entries, seconds, "all recipients were read");
        Ok(outcome)
    }
}

/// Reads all bases into a new snapshot; the directory had been followed up to that position.
pub(super) async fn read(
    connection: &Connection,
    config: &LdapConfig,
    mut filling: Filling,
    position: Position,
) -> Result<Outcome, Failure> {
    let filter = config.profile.everybody().to_string();
    let attributes = with_id(config);
    for base in &config.base {
        let mut cookie = Vec::new();
        loop {
            let search = Search { base, scope: Scope::Subtree, filter: &filter, attributes: &attributes };
            let page = in_time(config, connection.page(search, cookie)).await?;
            answer::complete(&page.reply).map_err(Failure::Doubt)?;
            let disabled = answer::disabled_accounts(config);
            filling = filling
                .put(page.reply.entries.iter().map(|entry| config.profile.know(entry, disabled)).collect())
                .await?;
            cookie = page.cookie;
            if cookie.is_empty() {
                break;
            }
        }
    }
    filling.take(position, config).await
}

/// The profile's attributes and the entry's identifier.
pub(super) fn with_id(config: &LdapConfig) -> Vec<&str> {
    config.profile.attributes().into_iter().chain(IDS).collect()
}

/// Applies the time limit of a page.
pub(super) async fn in_time<T>(
    config: &LdapConfig,
    page: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let patience = config.timeout.max(PATIENCE);
    timeout(patience, page).await.unwrap_or_else(|_| Err(Failure::Silent(patience)))
}

/// Runs blocking work on another thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    spawn_blocking(work).await.map_err(|_| Failure::NotTried("the work broke off; the log has the reason".to_owned()))
}
