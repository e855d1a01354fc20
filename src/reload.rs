//! Applies configuration changes without a restart: after file changes and 2 s without further ones, SIGHUP,
//! `fingerpost reload`.
//!
//! `run` makes one [`Reloader`] with a function that builds what a configuration needs, starts
//! [`watch`](Reloader::watch) and calls [`reload`](Reloader::reload) on SIGHUP; `admin` calls it for the API. A
//! configuration goes into force as a whole or not at all (DESIGN section 4, "Reload").

mod changes;
mod prepare;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch::{Receiver, Sender};
use tokio::task::JoinHandle;

use self::changes::changes;
use self::watch::Watch;
use crate::config::Config;
use crate::config::check::{self, Attempt, Problem, Removed};
use crate::give_back;
use crate::in_force::{Current, InForce};
use crate::metrics::Metrics;
use crate::routing::accepted_domain::AcceptedDomains;
use crate::state::Domains;
use crate::time::UnixTime;

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    Applied {
        /// The changes for people, one on each line.
        changes: Vec<String>,
    },
    /// The files have the configuration in force.
    Unchanged,
    /// The files have errors; the old configuration stays in force.
    Refused(Vec<Problem>),
    /// More than a tenth of the domains (and more than one) would vanish: `reload --accept` applies it all the same.
    Held { vanishing: Vec<String> },
}

impl Reloaded {
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused(_) => "refused",
            Self::Held { .. } => "held",
        }
    }
}

/// Whether a reload may remove more than a tenth of the domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    NotGiven,
    /// `--accept` was given.
    Given,
}

/// Builds what a configuration needs, reusing unchanged parts of what is in force; or returns why it cannot. It may
/// block, and runs within the runtime.
pub type Build = Box<dyn Fn(Config, &InForce) -> Result<InForce, Vec<String>> + Send + Sync>;

/// Loads the configuration for a start: row 0 applies to domains that were removed lately, even while the server was
/// down.
///
/// # Errors
/// All problems at once, in the order of files and lines.
pub fn start(path: &Path, now: UnixTime) -> Result<Config, Vec<Problem>> {
    let config = check::load(path, &Removed::new())?;
    let before = Domains::read(&config.server.state_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "what was accepted before is not known");
        Domains::default()
    });
    let removed = before.removed_by(&config.routing.accepted, now);
    Ok(check::with_removed(config, &removed))
}

/// Puts new configurations in force.
pub struct Reloader {
    path: PathBuf,
    current: Arc<Current>,
    build: Build,
    metrics: Metrics,
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<(UnixTime, Reloaded)>>,
    /// The files of the last attempt, in which an error may be corrected.
    files: Mutex<Vec<PathBuf>>,
    applied: Sender<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// Requested: files that the configuration names (certificates, keys, recipients) are read again as well.
    Asked(Consent),
    /// Files changed: only the configuration itself matters.
    Seen,
}

impl Reloader {
    /// For the configuration in force, which was read from `path`.
    #[must_use]
    pub fn new(path: PathBuf, current: Arc<Current>, build: Build, metrics: Metrics) -> Arc<Self> {
        let config = current.load().config.clone();
        let reloader = Self {
            path,
            current,
            build,
            metrics,
            turn: tokio::sync::Mutex::new(()),
            last: Mutex::default(),
            files: Mutex::new(config.files.clone()),
            applied: Sender::new(0),
        };
        for result in ["applied", "unchanged", "refused", "held"] {
            reloader.metrics.config_reloads.with_label_values(&[result]).inc_by(0);
        }
        reloader.note_in_force(&config, UnixTime::now());
        Arc::new(reloader)
    }

    /// Reads the files again and puts them in force, if they are valid. Reloads are serialised.
    pub async fn reload(self: &Arc<Self>, consent: Consent) -> Reloaded {
        self.run(Cause::Asked(consent)).await
    }

    /// Reloads whenever the files change, until the task is aborted.
    pub fn watch(self: &Arc<Self>) -> JoinHandle<()> {
        let reloader = self.clone();
        tokio::spawn(async move {
            let mut watch = Watch::new();
            loop {
                let files = lock(&reloader.files).clone();
                watch.follow(&files);
                watch.changed(&files).await;
                watch.note(&files);
                reloader.run(Cause::Seen).await;
            }
        })
    }

    /// The result of the last reload, and when it was; `None` before the first.
    #[must_use]
    pub fn last(&self) -> Option<(UnixTime, Reloaded)> {
        lock(&self.last).clone()
    }

    /// Changes whenever a new configuration is in force: for listeners, which are opened and closed then.
    #[must_use]
    pub fn applied(&self) -> Receiver<u64> {
        self.applied.subscribe()
    }

    /// Runs in its own task: if a client of the API goes away, the reload must still be recorded, and no other may run
    /// concurrently.
    async fn run(self: &Arc<Self>, cause: Cause) -> Reloaded {
        let reloader = self.clone();
        let whole = tokio::spawn(async move { reloader.take_turn(cause).await });
        whole.await.unwrap_or_else(|error| self.refuse(vec![format!("the reload broke off: {error}")]))
    }

    async fn take_turn(self: &Arc<Self>, cause: Cause) -> Reloaded {
        let _turn = self.turn.lock().await;
        let reloader = self.clone();
        let now = UnixTime::now();
        let outcome = match tokio::task::spawn_blocking(move || reloader.attempt(cause, now)).await {
            Ok(outcome) => outcome,
            Err(error) => self.refuse(vec![format!("the new configuration could not be built: {error}")]),
        };
        self.record(cause, &outcome, now);
        give_back::soon();
        outcome
    }

    fn attempt(&self, cause: Cause, now: UnixTime) -> Reloaded {
        let old = self.current.load_full();
        let Attempt { outcome, files } = check::attempt(&self.path, None);
        *lock(&self.files) = files;
        let config = match outcome {
            Ok(config) => config,
            Err(problems) => return Reloaded::Refused(problems),
        };
        if config.hash == old.config.hash && cause == Cause::Seen {
            return Reloaded::Unchanged;
        }
        if config.server.state_dir != old.config.server.state_dir {
            return self.refuse(vec!["`state_dir` cannot change while the server runs; restart it".to_owned()]);
        }
        if config.server.user != old.config.server.user {
            return self.refuse(vec!["`user` cannot change while the server runs; restart it".to_owned()]);
        }
        let (accepted, before) = (&config.routing.accepted, &old.config.routing.accepted);
        let vanishing = vanishing(before, accepted);
        if cause != Cause::Asked(Consent::Given) && too_many(vanishing.len(), before.count()) {
            return Reloaded::Held { vanishing };
        }
        let removed = Domains::of(before).removed_by(accepted, now);
        let config = check::with_removed(config, &removed);
        let changes = changes(&old.config, &config);
        let same = config.hash == old.config.hash;
        match (self.build)(config, &old) {
            Err(messages) => return self.refuse(messages),
            Ok(in_force) => {
                let in_force = Arc::new(in_force);
                self.current.store(Arc::clone(&in_force));
                old.resolver.directories().give_way_to(in_force.resolver.directories());
            }
        }
        self.applied.send_modify(|count| *count += 1);
        if same { Reloaded::Unchanged } else { Reloaded::Applied { changes } }
    }

    /// Refuses the configuration as a whole.
    fn refuse(&self, messages: Vec<String>) -> Reloaded {
        let problem = |message| Problem { file: self.path.clone(), line: 0, text: String::new(), message };
        Reloaded::Refused(messages.into_iter().map(problem).collect())
    }

    /// Logs, counts and stores a result. Repeated results of unchanged files are logged once.
    fn record(&self, cause: Cause, outcome: &Reloaded, now: UnixTime) {
        let config = self.current.load().config.clone();
        {
            let mut last = lock(&self.last);
            let before = last.as_ref().map(|(_, outcome)| outcome);
            let in_force = matches!(before, None | Some(Reloaded::Applied { .. } | Reloaded::Unchanged));
            let told = before == Some(outcome) || (in_force && *outcome == Reloaded::Unchanged);
            if cause == Cause::Seen && told {
                return;
            }
            *last = Some((now, outcome.clone()));
        }
        self.metrics.config_reloads.with_label_values(&[outcome.label()]).inc();
        match outcome {
            Reloaded::Applied { changes } => {
                tracing::info!(hash = config.hash, changes = changes.join("; "), "configuration applied");
                config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                self.note_in_force(&config, now);
            }
            Reloaded::Unchanged => tracing::info!(hash = config.hash, "configuration unchanged"),
            Reloaded::Refused(problems) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                tracing::error!(problems = problems.len(), "configuration refused, the old one stays");
            }
            Reloaded::Held { vanishing } => tracing::error!(
                vanishing = vanishing.join(" "),
                "configuration held, the old one stays: it takes away more than a tenth of the domains; \
                 run `fingerpost reload --accept` if it should"
            ),
        }
    }

    fn note_in_force(&self, config: &Config, now: UnixTime) {
        // A thread that ends returns the memory that the texts of a hundred thousand domains took.
        let write = || Domains::of(&config.routing.accepted).write(&config.server.state_dir);
        let written = std::thread::scope(|scope| scope.spawn(write).join());
        if let Err(error) = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            tracing::warn!(%error, "the accepted domains were not noted");
        }
        self.metrics.config_info.reset();
        self.metrics.config_info.with_label_values(&[&config.hash]).set(1);
        self.metrics.config_last_reload.with_label_values::<&str>(&[]).set(now.0.try_into().unwrap_or(i64::MAX));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Domains that are accepted now and would not be any more.
fn vanishing(before: &AcceptedDomains, after: &AcceptedDomains) -> Vec<String> {
    let gone = before.iter().filter(|domain| !after.has(&domain.pattern));
    gone.map(|domain| domain.pattern.to_string()).collect()
}

/// More than a tenth, and more than one.
fn too_many(vanishing: usize, of: usize) -> bool {
    vanishing > 1 && vanishing * 10 > of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_may_vanish() {
        for (vanishing, of, held) in
            [(0, 0, false), (1, 1, false), (1, 2, false), (2, 2, true), (2, 20, false), (2, 19, true), (3, 20, true)]
        {
            assert_eq!(too_many(vanishing, of), held, "{vanishing} of {of}");
        }
    }
}
