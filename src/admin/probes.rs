//! The metrics server: `/metrics`, `/healthz`, `/readyz`, nothing else, for anybody who reaches `metrics_bind`.
//!
//! `/healthz` says that the process lives; restart it when it does not answer. `/readyz` says whether a load balancer
//! should send mail here: not before the listeners are open, not while draining, and not under back-pressure, when
//! every client is told 452 and another node would do better.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::delivery::dispatch::Delivery;
use crate::metrics::Metrics;

/// How far the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its listeners are not open yet.
    Starting,
    /// It takes mail.
    Serving,
    /// It takes no more connections and ends those it has.
    Draining,
}

/// What the probes look at.
#[derive(Clone)]
pub struct Probes {
    /// All metrics.
    pub metrics: Metrics,
    /// How far the server is.
    pub phase: watch::Receiver<Phase>,
    /// The queue, once it runs: its gauges are those of the moment in which they are asked for.
    pub queue: Arc<OnceLock<Arc<Delivery>>>,
}

/// The paths that `metrics_bind` serves.
pub(super) fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .with_state(probes)
}

/// Whether mail is turned away for want of space.
pub(super) fn is_back_pressure(metrics: &Metrics) -> bool {
    metrics.back_pressure.with_label_values::<&str>(&[]).get() == 1
}

async fn metrics(State(probes): State<Probes>) -> Response {
    if let Some(queue) = probes.queue.get() {
        queue.show_gauges();
    }
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], probes.metrics.encode()).into_response()
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, &'static str) {
    let phase = *probes.phase.borrow();
    match phase {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting\n"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n"),
        Phase::Serving if is_back_pressure(&probes.metrics) => {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: back-pressure, the spool's disk is nearly full\n")
        }
        Phase::Serving => (StatusCode::OK, "ready\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_follows_the_phase_and_the_disk() {
        let metrics = Metrics::new();
        let (phase, receiver) = watch::channel(Phase::Starting);
        let probes = Probes { metrics: metrics.clone(), phase: receiver, queue: Arc::default() };
        let status = async || ready(State(probes.clone())).await.0;
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        phase.send_replace(Phase::Serving);
        assert_eq!(status().await, StatusCode::OK);
        metrics.back_pressure.with_label_values::<&str>(&[]).set(1);
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
        metrics.back_pressure.with_label_values::<&str>(&[]).set(0);
        assert_eq!(status().await, StatusCode::OK);
        phase.send_replace(Phase::Draining);
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
