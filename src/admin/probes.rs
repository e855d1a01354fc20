//! The metrics server: `/metrics`, `/healthz`, `/readyz`, nothing else, without authentication.
//!
//! `/healthz` answers while the process is alive; restart it when it does not. `/readyz` tells whether a load balancer
//! should send mail here: not before the listeners are open, not while draining, and neither while back-pressure
//! refuses all mail nor while the spool is unavailable, since most clients would get 45x and another node would accept
//! their mail. While only strangers are refused, our organisations' mail has to come here.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::{Mutex, watch};

use crate::delivery::dispatch::Delivery;
use crate::metrics::Metrics;
use crate::pressure::weigh::{TurnedAway, Want};
use crate::spool::condition::{Condition, Takes};

/// The phase of the server's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Serving,
    /// It accepts no more connections and ends those it has.
    Draining,
}

/// The services that the probes use.
#[derive(Clone)]
pub struct Probes {
    pub metrics: Metrics,
    pub phase: watch::Receiver<Phase>,
    /// The health of the spool.
    pub condition: Condition,
    /// The queue, once it runs, for current gauges.
    pub queue: Arc<OnceLock<Arc<Delivery>>>,
}

/// The routes of `metrics_bind`.
pub(super) fn router(probes: Probes) -> Router {
    let page = Page { probes: probes.clone(), latest: Arc::default() };
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(page);
    Router::new()
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(probes)
        .merge(metrics)
}

/// Whether the response takes work, by its path.
pub(super) fn is_work(path: &str) -> bool {
    path == "/metrics"
}

/// The last text of `/metrics`, and when it was begun.
#[derive(Clone)]
struct Page {
    probes: Probes,
    latest: Arc<Mutex<Option<(Instant, Bytes)>>>,
}

/// Which mail is refused, and for which shortage.
pub(super) fn turned_away(metrics: &Metrics) -> Vec<(Want, TurnedAway)> {
    let is_on = |want: Want, label| metrics.back_pressure.with_label_values(&[want.as_str(), label]).get() == 1;
    let level = |want| {
        let levels = TurnedAway::LABELS.into_iter().filter(|(label, _)| is_on(want, *label));
        levels.map(|(_, level)| level).max().map(|level| (want, level))
    };
    Want::ALL.into_iter().filter_map(level).collect()
}

/// The text is written on a separate thread, once for all requests that came before it was begun: concurrent requests
/// wait for one another, and delay nothing else.
async fn metrics(State(page): State<Page>) -> Response {
    let asked = Instant::now();
    let mut latest = page.latest.lock_owned().await;
    if let Some((_, text)) = latest.as_ref().filter(|(begun, _)| *begun > asked) {
        return shown(text.clone());
    }
    let write = move || {
        let begun = Instant::now();
        if let Some(queue) = page.probes.queue.get() {
            queue.show_gauges();
        }
        let text = Bytes::from(page.probes.metrics.encode());
        *latest = Some((begun, text.clone()));
        text
    };
    match tokio::task::spawn_blocking(write).await {
        Ok(text) => shown(text),
        Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written; see the log\n").into_response()
        }
    }
}

fn shown(text: Bytes) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    let phase = *probes.phase.borrow();
    let not_ready = |why: &str| (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"));
    match (phase, probes.condition.takes()) {
        (Phase::Starting, _) => not_ready("starting"),
        (Phase::Draining, _) => not_ready("draining"),
        (Phase::Serving, Takes::Nothing(why) | Takes::NothingMore(why)) => {
            not_ready(&format!("the spool takes nothing: {why}"))
        }
        (Phase::Serving, Takes::Records) => {
            let turned_away = turned_away(&probes.metrics);
            match turned_away.iter().find(|(_, level)| *level == TurnedAway::Everybody) {
                Some((want, _)) => not_ready(&format!("back-pressure, for want of {}", want.in_words())),
                None => (StatusCode::OK, "ready\n".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_phase_and_the_disk() {
        let metrics = Metrics::new();
        let (phase, receiver) = watch::channel(Phase::Starting);
        let condition = Condition::default();
        let probes =
            Probes { metrics: metrics.clone(), phase: receiver, condition: condition.clone(), queue: Arc::default() };
        let status = async || ready(State(probes.clone())).await.0;
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        phase.send_replace(Phase::Serving);
        assert_eq!(status().await, StatusCode::OK);
        let strangers = metrics.back_pressure.with_label_values(&["memory", "strangers"]);
        let everybody = metrics.back_pressure.with_label_values(&["memory", "everybody"]);
        for (figures, expected, level) in [
            ((1, 0), StatusCode::OK, Some(TurnedAway::Strangers)),
            ((1, 1), StatusCode::SERVICE_UNAVAILABLE, Some(TurnedAway::Everybody)),
            ((0, 0), StatusCode::OK, None),
        ] {
            strangers.set(figures.0);
            everybody.set(figures.1);
            assert_eq!(status().await, expected);
            let level: Vec<_> = level.map(|level| (Want::Memory, level)).into_iter().collect();
            assert_eq!(turned_away(&metrics), level);
        }
        phase.send_replace(Phase::Draining);
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
