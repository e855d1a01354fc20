//! Where queued mail is: the node's own spool, or the queue that the nodes of a cluster share.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cluster::{ClusterSpool, import};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::spool::moved::{Moved, State};
use crate::spool::store::LogStore;
use crate::spool::{Sizes, Spool};

/// Opens the node's own spool, or joins the cluster.
pub(super) async fn open(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Arc<dyn Spool>, Option<Arc<ClusterSpool>>), String> {
    let (folder, mark) = (config.server.state_dir.join("spool"), look_at_mark(config)?);
    let Some(cluster) = &config.cluster else { return Ok((Arc::new(own(folder, metrics).await?), None)) };
    if mark.is_none() {
        let waiting = own(folder, metrics).await?.live_messages();
        if waiting > 0 {
            return Err(format!(
                "{waiting} messages wait in the node's own spool, which [cluster] does not look after: run `fingerpost \
                 cluster import`, which moves them"
            ));
        }
    }
    let folder = config.server.state_dir.join("node");
    let joined = ClusterSpool::open(cluster, folder, &config.common_digest(), metrics.clone()).await;
    let joined = Arc::new(joined.map_err(|error| error.to_string())?);
    if let Some(mark) = mark {
        import::finish(&joined, mark).await.map_err(|error| error.to_string())?;
    }
    Ok((joined.clone(), Some(joined)))
}

async fn own(folder: PathBuf, metrics: &Metrics) -> Result<LogStore, String> {
    let metrics = metrics.clone();
    let opened = tokio::task::spawn_blocking(move || LogStore::open(&folder, Sizes::default(), metrics)).await;
    opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Whether the mail of the node's own spool was moved to a cluster, or is being moved.
///
/// # Errors
/// With this configuration a start is refused; what to do.
pub(crate) fn look_at_mark(config: &Config) -> Result<Option<Moved>, String> {
    let folder = config.server.state_dir.join("spool");
    let mark = Moved::read(&folder).map_err(|error| error.to_string())?;
    match (mark.map(|moved| moved.state), &config.cluster) {
        (Some(State::Importing), _) => {
            Err("the mail in the node's own spool is being moved to the cluster's database: run \
             `fingerpost cluster import` again until it says that all is there"
                .into())
        }
        (Some(State::Emptying | State::Exporting), _) => {
            Err("the mail in the cluster's database is being moved to the node's own spool: run \
             `fingerpost cluster export` again until it is done, with [cluster] in the configuration"
                .into())
        }
        (Some(State::Imported), None) => Err(format!(
            "the mail in {0} was moved to a cluster's database and is the cluster's: start with [cluster]; or have all mail \
             of the cluster moved here, with `fingerpost cluster export`; or, to begin with an empty spool, move {0} away",
            folder.display()
        )),
        (Some(State::Imported), Some(_)) | (None, _) => Ok(mark),
    }
}
