//! Does what operators ask of this node, of its queued mail and its directories: here, and by a task that `run` starts,
//! from other nodes of the cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cluster::ClusterSpool;
use crate::cluster::database::DatabaseError;
use crate::cluster::requests::{LOOK, Reply, Request, Taken};
use crate::delivery::dispatch::Delivery;
use crate::directory::Announced;
use crate::in_force::Current;
use crate::message::queue_id::QueueId;

/// How long the database may take to hand requests out.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a stop waits for what is being done.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What requests are about.
#[derive(Clone)]
pub struct Own {
    pub delivery: Arc<Delivery>,
    pub current: Arc<Current>,
}

/// Does this at this node. A drop is durable then.
pub(super) async fn perform(own: &Own, cluster: Option<&ClusterSpool>, request: &Request) -> Reply {
    let reply = perform_unless_ended(own, request).await;
    // Outcomes of an epoch that has ended are not written, and no error.
    if cluster.is_some_and(ClusterSpool::has_ended) {
        return Reply::Failed { error: format!("{}: ask again, at another node", DatabaseError::Ended) };
    }
    reply
}

async fn perform_unless_ended(own: &Own, request: &Request) -> Reply {
    let delivery = &own.delivery;
    match request {
        Request::Retry { id } => retry(delivery, *id).await,
        Request::RetryAll { connector } => {
            let messages = delivery.retry_all(connector.as_deref());
            match connector {
                Some(connector) => {
                    info!(messages, connector, "an operator asked for another attempt of what waits for a connector");
                }
                None => info!(messages, "an operator asked for another attempt of all"),
            }
            Reply::Done { messages }
        }
        Request::Drop { id } => match delivery.drop_message(*id).await {
            Ok(true) => {
                info!(queue_id = %id, "an operator dropped the message");
                Reply::Done { messages: 1 }
            }
            Ok(false) => Reply::NotMine,
            Err(error) => Reply::Failed { error },
        },
        Request::Announce { directory, keys, count, seconds } => {
            let announced = keys.clone().map_or(Announced::Any(*count), Announced::Only);
            announce(own, directory, announced, Duration::from_secs(*seconds)).await
        }
    }
}

async fn announce(own: &Own, directory: &str, announced: Announced, during: Duration) -> Reply {
    let (in_force, of) = (own.current.load_full(), directory.to_owned());
    let announced =
        tokio::task::spawn_blocking(move || in_force.resolver.directories().announce(&of, announced, during)).await;
    match announced {
        Ok(Some(Ok(()))) => {
            info!(directory, "changes are announced that an operator announced or accepted at another node");
            Reply::Done { messages: 0 }
        }
        Ok(Some(Err(error))) => Reply::Failed { error },
        Ok(None) => Reply::Failed { error: format!("no directory `{directory}` of which changes are counted") },
        Err(panicked) => Reply::Failed { error: panicked.to_string() },
    }
}

async fn retry(delivery: &Arc<Delivery>, id: QueueId) -> Reply {
    let asked = delivery.clone();
    match tokio::task::spawn_blocking(move || asked.show(id)).await {
        Ok(Ok(Some(_))) => {
            let messages = usize::from(delivery.retry(id));
            info!(queue_id = %id, "an operator asked for another attempt");
            Reply::Done { messages }
        }
        Ok(Ok(None)) => Reply::NotMine,
        Ok(Err(error)) => Reply::Failed { error: error.to_string() },
        Err(panicked) => Reply::Failed { error: panicked.to_string() },
    }
}

/// Does what is asked of this node at others, until `stop`.
pub async fn answer(cluster: Arc<ClusterSpool>, own: Own, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    while stop.run_until_cancelled(looks.tick()).await.is_some() && !cluster.has_ended() {
        while under_way.try_join_next().is_some() {}
        match stop.run_until_cancelled(timeout(PATIENCE, cluster.take_requests())).await {
            Some(Ok(Ok(taken))) => taken.into_iter().for_each(|taken| {
                under_way.spawn(answer_one(cluster.clone(), own.clone(), taken));
            }),
            Some(Ok(Err(error))) => tracing::debug!(%error, "requests of other nodes cannot be read"),
            Some(Err(_)) | None => {}
        }
    }
    let rest = async { while under_way.join_next().await.is_some() {} };
    let _ = timeout(LAST_MOMENT, rest).await; // the asker says then that it is not known
}

async fn answer_one(cluster: Arc<ClusterSpool>, own: Own, taken: Taken) {
    let reply = match &taken.request {
        Some(request) => perform(&own, Some(&cluster), request).await,
        None => Reply::Failed { error: "the request cannot be read: is this node another version?".into() },
    };
    if let Err(error) = cluster.reply(&taken, &reply).await {
        warn!(%error, request = ?taken.request, ?reply, "another node's operator does not hear of this");
    }
}
