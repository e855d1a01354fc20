//! `POST /api/drain`: the node says that it is draining, goes on for a pause in which a load balancer goes away, and then
//! stops as by SIGTERM; other nodes of the cluster take over what it has in the queue.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::Parts;
use super::all_nodes::in_time;
use super::api::{Answer, failed, is_given};
use super::json::Json;
use super::probes::Phase;
use crate::cluster::draining::Alone;

/// The longest pause.
const LONGEST: Duration = Duration::from_hours(1);

/// How long the node goes on after it has said that it is draining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause(pub Duration);

/// The response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    /// Queued messages of this node; those that it still delivers, or accepts, are among them or come to them.
    pub messages: usize,
    /// The nodes that take them over. Empty: none lives, and they wait in the database.
    pub nodes: Vec<String>,
    /// Seconds until it stops.
    pub pause: u64,
    /// `drain_timeout` in seconds: so long sessions and attempts may take to end.
    pub drain_timeout: u64,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    /// In seconds.
    pause: u64,
    /// Also if no other node lives.
    alone: Option<String>,
}

pub(super) async fn drain(State(parts): State<Arc<Parts>>, Query(wanted): Query<Wanted>) -> Answer<Draining> {
    let refused = |why: &str| Err(failed(StatusCode::CONFLICT, why));
    let Some(cluster) = &parts.cluster else {
        return refused(
            "without [cluster] there is nobody to hand the queue over to: `systemctl stop fingerpost` stops this node, \
             and its mail waits on its disk",
        );
    };
    if *parts.phase.borrow() != Phase::Serving {
        return refused("it is draining or starting already");
    }
    let pause = Duration::from_secs(wanted.pause).min(LONGEST);
    let may_be_alone = is_given("alone", wanted.alone.as_deref())?;
    let alone = if may_be_alone { Alone::Too } else { Alone::Never };
    let nodes = match (in_time(cluster.drain(alone)).await, may_be_alone) {
        (Ok(others), _) => others.into_iter().map(|other| other.name).collect(),
        (Err(_), true) => Vec::new(),
        (Err(why), false) => return Err(why),
    };
    if nodes.is_empty() && !may_be_alone {
        return refused(
            "no other node is running, or all others drain: mail would neither be accepted nor delivered; start another one, or say --alone",
        );
    }
    let messages = parts.delivery.total();
    info!(messages, nodes = nodes.join(" "), ?pause, "an operator asked for a drain");
    parts.drain.send_replace(Some(Pause(pause)));
    let drain_timeout = parts.current.load().config.server.drain_timeout.as_secs();
    Ok(Json(Draining { messages, nodes, pause: pause.as_secs(), drain_timeout }))
}
