//! Puts a node together: a [`Node`] is everything that a configuration runs, started in the order of dependencies and
//! stopped in the reverse order. `fingerpost run` runs one until a signal ([`run`]); `fingerpost demo` runs three.
//!
//! Listeners are opened when everything else that can fail has succeeded, and closed first.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::drain::Pause;
use crate::admin::guard::Token;
use crate::admin::probes::{Phase, Probes};
use crate::admin::{self, Door, Served};
use crate::cluster::ClusterSpool;
use crate::config::Config;
use crate::config::check::render;
use crate::delivery::attempt::Outbound;
use crate::delivery::dispatch::{self, Delivery, Handover};
use crate::delivery::memory::Memory;
use crate::delivery::rcpt_in_flight::RcptsInFlight;
use crate::directory::Needs;
use crate::directory::call_ahead::prober::Prober;
use crate::directory::mail::Mail;
use crate::guesses::Guesses;
use crate::in_force::{Current, InForce};
use crate::keys::{self, InUse};
use crate::listener::Listeners;
use crate::metrics::Metrics;
use crate::pressure::Pressure;
use crate::reload::{self, Reloader};
use crate::routing::recently_good::RecentlyGood;
use crate::session::Services;
use crate::spool::Spool;
use crate::spool::condition::Condition;
use crate::state::saved_table::SavedTable;
use crate::strangers::Strangers;
use crate::time::{Moment, UnixTime};
use crate::trace::{Trace, writer};
use crate::{descriptors, private};

mod background;
mod directory_reads;
mod drain;
mod mail_seen;
pub(crate) mod preflight;
pub(crate) mod privileges;
mod shared;
mod signals;
pub(crate) mod spool;

use mail_seen::MailSeen;
use preflight::{Remark, Weight};
pub use signals::run;

/// The time for messages that sessions hand over at the end of `drain_timeout`.
const LAST_MOMENT: Duration = Duration::from_millis(100);
/// How long background tasks may take to end.
const BACKGROUND: Duration = Duration::from_secs(10);

pub struct Node {
    current: Arc<Current>,
    condition: Condition,
    cluster: Option<Arc<ClusterSpool>>,
    listeners: Arc<Listeners>,
    delivery: Arc<Delivery>,
    recently_good: Arc<SavedTable<RecentlyGood>>,
    logins: Arc<SavedTable<Guesses>>,
    reloader: Arc<Reloader>,
    phase: watch::Sender<Phase>,
    drain: watch::Sender<Option<Pause>>,
    trace: writer::Writer,
    servers: [Served; 2],
    /// Stops background tasks.
    stop: CancellationToken,
    background: TaskTracker,
}

/// Everything that exists before the node becomes visible.
struct Ground {
    metrics: Metrics,
    current: Arc<Current>,
    spool: Arc<dyn Spool>,
    cluster: Option<Arc<ClusterSpool>>,
    /// That of all nodes.
    loop_key: Option<[u8; 32]>,
    trace: Trace,
    memory: Memory,
    outbound: Outbound,
    mail: Arc<MailSeen>,
    strangers: Strangers,
    recently_good: Arc<SavedTable<RecentlyGood>>,
    logins: Arc<SavedTable<Guesses>>,
}

impl Node {
    /// Starts with the configuration in this file.
    ///
    /// # Errors
    /// Why it cannot start, with what to do; problems of a configuration take a line or more each.
    pub async fn start(file: &Path) -> Result<Self, String> {
        let started_at = UnixTime::steady(); // first of all: from now on that clock goes by itself
        let config = reload::start(file, started_at)
            .map_err(|problems| format!("the configuration cannot be used:\n{}", render(&problems)))?;
        config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
        descriptors::warning(&config, descriptors::limit()).iter().for_each(|warning| tracing::warn!("{warning}"));
        let bound = give_up_root(&config)?;
        let (ground, trace) = Ground::lay(config).await?;
        let config = ground.current.load().config.clone();
        let (phase, phases) = watch::channel(Phase::Starting);
        let drain = watch::Sender::new(None);
        let queue = Arc::new(OnceLock::new());
        let probes = Door::open(config.admin.metrics_bind, "metrics_bind").await?;
        let probes = probes.serve_probes(Probes {
            metrics: ground.metrics.clone(),
            phase: phases.clone(),
            condition: ground.spool.condition(),
            queue: queue.clone(),
        });
        let admin = Door::open(config.admin.bind, "bind").await?;
        let token = Token::load_or_make(&config.admin.token_file)?;

        let (accepted, committed) = tokio::sync::mpsc::unbounded_channel();
        let pressure = Arc::new(Pressure::default());
        let listeners = Arc::new(Listeners::new(ground.services(accepted, pressure.clone())).with_bound(bound));
        listeners.apply(&config).map_err(|error| error.to_string())?;
        // Nothing fails from here on: an attempt that a failed start interrupts might deliver twice. What the first
        // clients send is durable and waits for the queue.
        let outbound = ground.outbound.clone();
        outbound.set_own_listeners(listeners.local_addrs());
        let delivery = Delivery::start(ground.parts(), committed);
        queue.get_or_init(|| delivery.clone());
        let reloader = reloader(file, &ground, listeners.clone());
        let parts = admin::Parts {
            current: ground.current.clone(),
            delivery: delivery.clone(),
            spool: ground.spool.clone(),
            cluster: ground.cluster.clone(),
            reloader: reloader.clone(),
            metrics: ground.metrics.clone(),
            phase: phases,
            drain: drain.clone(),
            trace_folder: trace_folder(&config),
            started_at,
        };
        let servers = [probes, admin.serve_admin(token, Arc::new(parts))];
        let (stop, background) = (CancellationToken::new(), TaskTracker::new());
        let after = background::AfterReload::new(&ground, delivery.clone());
        background.spawn(after.live_with_others(stop.clone()));
        background.spawn(after.watch(reloader.clone(), ground.current.clone(), listeners.clone(), stop.clone()));
        background.spawn(background::keep_trace(ground.current.clone(), trace.room(), stop.clone()));
        background.spawn(background::watch_files(reloader.clone(), stop.clone()));
        background.spawn(listeners.clone().renew(stop.clone()));
        background::spawn(&ground, &delivery, pressure, &background, &stop);
        phase.send_replace(Phase::Serving);
        let Ground { current, spool, cluster, recently_good, logins, .. } = ground;
        Ok(Self {
            current,
            condition: spool.condition(),
            cluster,
            listeners,
            delivery,
            recently_good,
            logins,
            reloader,
            phase,
            drain,
            trace,
            servers,
            stop,
            background,
        })
    }

    /// The configuration in force.
    #[must_use]
    pub fn in_force(&self) -> Arc<InForce> {
        self.current.load_full()
    }

    #[must_use]
    pub fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    /// Completes when the spool accepts no more records, with the reason: the program has to be restarted.
    pub async fn spool_ended(&self) -> String {
        self.condition.ended().await
    }

    #[must_use]
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// Accepts no more clients, begins no more attempts, lets attempts and sessions finish, including messages that
    /// sessions hand over, all within `drain_timeout`, and stops. What is unfinished then, or was accepted meanwhile,
    /// is in the spool.
    pub async fn stop(self) {
        let patience = self.current.load().config.server.drain_timeout;
        self.phase.send_replace(Phase::Draining);
        self.stop.cancel();
        let began = Instant::now();
        self.delivery.begin_no_more();
        let told = async {
            if let Some(cluster) = &self.cluster {
                cluster.begin_to_stop().await;
            }
        };
        tokio::join!(told, self.listeners.drain(patience));
        let left = patience.saturating_sub(began.elapsed()).max(LAST_MOMENT);
        if tokio::time::timeout(left, self.delivery.stop()).await.is_err() {
            tracing::warn!("attempts are left after drain_timeout; they are made again after the next start");
        }
        self.background.close();
        if tokio::time::timeout(BACKGROUND, self.background.wait()).await.is_err() {
            tracing::warn!("background tasks do not end; the program ends without them");
        }
        if let Some(cluster) = &self.cluster {
            shared::tell_last(cluster, &self.recently_good.table).await;
            cluster.leave().await;
        }
        self.recently_good.save().await;
        self.logins.save().await;
        self.trace.stop().await;
        let [probes, admin] = self.servers;
        tokio::join!(probes.stop(), admin.stop());
    }
}

impl Ground {
    /// Creates the state folder, locks and recovers the spool, and builds what the configuration needs.
    async fn lay(config: Config) -> Result<(Self, writer::Writer), String> {
        let metrics = Metrics::new();
        look_after(&config)?;
        let outbound = Outbound::new(metrics.clone());
        let state_dir = config.server.state_dir.clone();
        let (spool, cluster) = spool::open(&config, &metrics).await?;
        cluster.iter().for_each(|cluster| outbound.divide(cluster.share()));
        let now = Moment::now(spool.queue_time());
        let recently_good = Arc::new(SavedTable::load(&state_dir, now)?);
        let logins = Arc::new(SavedTable::load(&state_dir, now)?);
        let mut memory = Memory::new(Arc::default(), recently_good.table.clone(), spool.clone());
        let mut loop_key = None;
        if let Some(cluster) = &cluster {
            shared::addresses(cluster, &recently_good.table).await?;
            memory = memory.with_shared(cluster.addresses());
            loop_key = shared::loop_key(cluster, &config).await?;
        }
        let mail = Arc::new(MailSeen::new(memory.clone()));
        let outside = Outside { outbound: outbound.clone(), mail: mail.clone(), metrics: metrics.clone(), loop_key };
        let in_force = build(config, None, &outside).map_err(|problems| problems.join("\n"))?;
        metrics.prepare(&in_force.config);
        let (trace, writer) =
            writer::start(trace_folder(&in_force.config), background::room(&in_force.config), metrics.clone())?;
        let current = Arc::new(ArcSwap::from_pointee(in_force));
        mail.current.get_or_init(|| current.clone());
        let strangers = Strangers::new(metrics.clone(), trace.clone());
        Ok((
            Self {
                metrics,
                current,
                spool,
                cluster,
                loop_key,
                outbound,
                mail,
                trace,
                memory,
                strangers,
                recently_good,
                logins,
            },
            writer,
        ))
    }

    fn parts(&self) -> dispatch::Parts {
        dispatch::Parts {
            current: self.current.clone(),
            spool: self.spool.clone(),
            outbound: self.outbound.clone(),
            memory: self.memory.clone(),
            metrics: self.metrics.clone(),
            trace: self.trace.clone(),
        }
    }

    /// Checks resources for more mail.
    fn watch(&self, pressure: Arc<Pressure>, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        pressure.watch(self.current.clone(), self.spool.clone(), self.metrics.clone(), stop)
    }

    fn services(&self, accepted: tokio::sync::mpsc::UnboundedSender<Handover>, pressure: Arc<Pressure>) -> Services {
        Services {
            current: self.current.clone(),
            spool: self.spool.clone(),
            accepted,
            outbound: self.outbound.clone(),
            rcpts_in_flight: RcptsInFlight::new(self.metrics.clone()),
            memory: self.memory.clone(),
            metrics: self.metrics.clone(),
            trace: self.trace.clone(),
            pressure,
            strangers: self.strangers.clone(),
            guesses: self.logins.table.clone(),
            answered: Arc::default(),
            hashing: Arc::default(),
        }
    }
}

/// What directories need from other parts.
struct Outside {
    outbound: Outbound,
    mail: Arc<MailSeen>,
    metrics: Metrics,
    /// The loop key of all nodes.
    loop_key: Option<[u8; 32]>,
}

/// Builds what decisions need; unchanged directories are reused.
fn build(config: Config, previous: Option<&InForce>, outside: &Outside) -> Result<InForce, Vec<String>> {
    let directories = previous.map(|previous| &**previous.resolver.directories());
    let prober: Arc<dyn Prober> = Arc::new(outside.outbound.clone());
    let mail: Arc<dyn Mail> = outside.mail.clone();
    let folder = config.server.state_dir.join("directories");
    let needs = Needs { prober: &prober, folder: Some(&folder), mail: Some(&mail), metrics: &outside.metrics };
    let directories = crate::directory::build(&config.directories, directories, &needs)?;
    let in_use = previous.map(|previous| InUse { files: &previous.config.loops.key_files, keys: &previous.keys });
    let mut keys = keys::load(&config.loops.key_files, in_use).map_err(|error| vec![error])?;
    if let Some(key) = outside.loop_key.filter(|_| shared::has_usual_key_file(&config)) {
        keys = keys.signing_with(key);
    }
    let resolver = crate::resolve::Resolver::new(config.routing.clone(), Arc::new(directories));
    Ok(InForce { config: Arc::new(config), resolver, keys: Arc::new(keys) })
}

/// A reload builds everything, then opens new listeners; if either fails nothing has changed.
fn reloader(file: &Path, ground: &Ground, listeners: Arc<Listeners>) -> Arc<Reloader> {
    let outside = Outside {
        outbound: ground.outbound.clone(),
        mail: ground.mail.clone(),
        metrics: ground.metrics.clone(),
        loop_key: ground.loop_key,
    };
    let make = move |config: Config, previous: &InForce| {
        let in_force = build(config, Some(previous), &outside)?;
        listeners.apply(&in_force.config).map_err(|error| vec![error.to_string()])?;
        Ok(in_force)
    };
    Reloader::new(file.to_owned(), ground.current.clone(), Box::new(make), ground.metrics.clone())
}

fn trace_folder(config: &Config) -> PathBuf {
    config.server.state_dir.join("trace")
}

/// Files of ours that the configuration names.
fn named_files(config: &Config) -> Vec<&Path> {
    let keys = config.loops.key_files.iter().map(PathBuf::as_path);
    keys.chain([&*config.admin.token_file]).collect()
}

/// Switches to `[server] user` after the listeners are bound. Files that this user cannot read are reported at once,
/// not by the first use.
fn give_up_root(config: &Config) -> Result<HashMap<SocketAddr, TcpListener>, String> {
    let bind = || Listeners::bind(config).map_err(|error| error.to_string());
    let Some(bound) = privileges::give_up(config, &named_files(config), bind)? else { return Ok(HashMap::new()) };
    let (refusals, warnings): (Vec<_>, Vec<_>) =
        preflight::out_of_reach(config).into_iter().partition(|remark| remark.weight == Weight::Refused);
    for Remark { what, obstacle, .. } in &warnings {
        tracing::warn!(alert = true, "{what}: {obstacle}");
    }
    let refusals: Vec<String> =
        refusals.iter().map(|Remark { what, obstacle, .. }| format!("{what}: {obstacle}")).collect();
    if refusals.is_empty() { Ok(bound) } else { Err(refusals.join("\n")) }
}

/// Checks and creates `state_dir`.
fn look_after(config: &Config) -> Result<(), String> {
    Ok(private::look_after(&config.server.state_dir, &named_files(config))?)
}
