//! The background tasks of a [`Node`](super::Node): after a reload, watching files, removing old traces.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Ground, directory_reads, shared};
use crate::admin;
use crate::cluster::ClusterSpool;
use crate::cluster::living::Living;
use crate::config::Config;
use crate::delivery::attempt::Outbound;
use crate::delivery::dispatch::Delivery;
use crate::descriptors;
use crate::in_force::Current;
use crate::listener::Listeners;
use crate::metrics::Metrics;
use crate::pressure::Pressure;
use crate::reload::Reloader;
use crate::time::UnixTime;
use crate::trace::room::Room;
use crate::trace::writer;

/// Parts that have to know of a new configuration.
pub(super) struct AfterReload {
    pub(super) metrics: Metrics,
    pub(super) outbound: Outbound,
    pub(super) delivery: Arc<Delivery>,
    pub(super) cluster: Option<Arc<ClusterSpool>>,
}

impl AfterReload {
    pub(super) fn new(ground: &Ground, delivery: Arc<Delivery>) -> Self {
        let (metrics, outbound, cluster) = (ground.metrics.clone(), ground.outbound.clone(), ground.cluster.clone());
        Self { metrics, outbound, delivery, cluster }
    }

    /// Updates them for the configuration in force.
    pub(super) fn take_note(&self, config: &Config, listeners: &Listeners) {
        self.metrics.prepare(config);
        self.outbound.set_own_listeners(listeners.local_addrs());
        self.delivery.configuration_changed();
        if let Some(cluster) = &self.cluster {
            cluster.set_configuration(config.common_digest());
        }
    }

    /// What the node has to do with the cluster's other nodes while it runs.
    pub(super) fn live_with_others(&self, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
        let (cluster, delivery, outbound) = (self.cluster.clone(), self.delivery.clone(), self.outbound.clone());
        async move {
            let Some(cluster) = cluster else { return };
            let limits = divide(&cluster, &outbound, || delivery.limits_changed());
            tokio::join!(adopt(&cluster, &delivery, &stop), stop.run_until_cancelled(limits));
        }
    }

    /// Updates them after every reload.
    pub(super) async fn watch(
        self,
        reloader: Arc<Reloader>,
        current: Arc<Current>,
        listeners: Arc<Listeners>,
        stop: CancellationToken,
    ) {
        let mut applied = reloader.applied();
        let (admin, cluster) = {
            let config = &current.load().config;
            (config.admin.clone(), config.cluster.clone())
        };
        while let Some(Ok(())) = stop.run_until_cancelled(applied.changed()).await {
            let config = current.load().config.clone();
            self.take_note(&config, &listeners);
            descriptors::warning(&config, descriptors::limit()).iter().for_each(|warning| tracing::warn!("{warning}"));
            if config.cluster != cluster {
                tracing::warn!("[cluster] has changed; it takes effect with the next start");
            }
            if config.admin != admin {
                tracing::warn!("[admin] has changed; its addresses and token take effect with the next start");
            }
        }
    }
}

/// The tasks that need nothing but the ground and the queue.
pub(super) fn spawn(
    ground: &Ground,
    delivery: &Arc<Delivery>,
    pressure: Arc<Pressure>,
    background: &TaskTracker,
    stop: &CancellationToken,
) {
    background.spawn(ground.watch(pressure, stop.clone()));
    background.spawn(ground.recently_good.clone().keep_saving(stop.clone()));
    background.spawn(ground.strangers.clone().tell_sums(stop.clone()));
    background.spawn(ground.logins.clone().keep_saving(stop.clone()));
    let Some(cluster) = &ground.cluster else { return };
    let own = admin::requests::Own { delivery: delivery.clone(), current: ground.current.clone() };
    background.spawn(admin::requests::answer(cluster.clone(), own, stop.clone()));
    let table = ground.recently_good.table.clone();
    background.spawn(shared::keep_telling(cluster.clone(), table, stop.clone()));
    background.spawn(directory_reads::read_together(cluster.clone(), ground.current.clone(), stop.clone()));
}

/// Hands mail that other nodes left to the queue.
async fn adopt(cluster: &ClusterSpool, delivery: &Delivery, stop: &CancellationToken) {
    let Some(mut adopted) = cluster.take_over() else { return };
    while let Some(Some(outlines)) = stop.run_until_cancelled(adopted.recv()).await {
        delivery.adopt(outlines);
    }
}

/// Keeps the limits divided between the nodes; `changed` is called when other nodes live, and with each turn.
async fn divide(cluster: &ClusterSpool, outbound: &Outbound, changed: impl Fn()) {
    let (mut known, mut turn) = (None, 0);
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        let (living, share) = (cluster.living(), cluster.share());
        outbound.divide(share);
        let (before, last) = (known.replace((living.rank, living.nodes)), std::mem::replace(&mut turn, share.turn()));
        if before != known {
            let Living { rank, nodes, .. } = living;
            tracing::info!(nodes, rank, "limits are divided between the nodes that live");
        }
        if (before, last) != (known, turn) {
            changed();
        }
    }
}

/// Reloads when files change.
pub(super) async fn watch_files(reloader: Arc<Reloader>, stop: CancellationToken) {
    let watching = reloader.watch();
    stop.cancelled().await;
    watching.abort();
}

/// The limits of the trace in this configuration.
pub(super) fn room(config: &Config) -> Room {
    Room { max_size: config.trace.max_size, min_free: config.min_free }
}

/// Sets the limits of the trace, and removes old files; at start and every minute.
pub(super) async fn keep_trace(current: Arc<Current>, its: Arc<Mutex<Room>>, stop: CancellationToken) {
    let mut minutes = tokio::time::interval(Duration::from_mins(1));
    while stop.run_until_cancelled(minutes.tick()).await.is_some() {
        let config = current.load().config.clone();
        *its.lock() = room(&config);
        let expire = move || writer::expire(&super::trace_folder(&config), config.trace.days, UnixTime::at_least());
        if let Err(error) = tokio::task::spawn_blocking(expire).await {
            tracing::warn!(%error, "old trace files could not be removed");
        }
    }
}
