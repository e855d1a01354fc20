//! The interfaces of the running server for operators, scripts and Prometheus.
//!
//! Two HTTP servers: [`probes`] on `metrics_bind` without authentication, [`api`] and `page` on `bind` behind
//! [`guard`]'s token. `run` starts both before the listeners and stops them last.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderName, WWW_AUTHENTICATE};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::ClusterSpool;
use crate::delivery::dispatch::Delivery;
use crate::descriptors;
use crate::in_force::Current;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::spool::Spool;
use crate::time::UnixTime;

mod all_nodes;
pub mod api;
pub mod directory;
pub mod drain;
pub mod explain;
pub mod guard;
pub mod held;
mod http;
mod json;
mod page;
mod connection_slots;
pub mod probes;
pub mod queue;
pub mod requests;
pub mod spool;
pub mod status;

// Both servers together have no more connections than descriptors are reserved for.
const _: () = assert!(2 * connection_slots::Limits::DEFAULT.sum() <= descriptors::ADMIN);

/// The services that the API and the page show.
pub struct Parts {
    pub current: Arc<Current>,
    pub delivery: Arc<Delivery>,
    pub spool: Arc<dyn Spool>,
    pub cluster: Option<Arc<ClusterSpool>>,
    pub reloader: Arc<Reloader>,
    pub metrics: Metrics,
    pub phase: watch::Receiver<probes::Phase>,
    /// Where an operator asks for a drain.
    pub drain: watch::Sender<Option<drain::Pause>>,
    pub trace_folder: PathBuf,
    pub started_at: UnixTime,
}

impl Parts {
    /// What requests are about.
    fn own(&self) -> requests::Own {
        requests::Own { delivery: self.delivery.clone(), current: self.current.clone() }
    }
}

/// A listening socket that is not served yet.
pub struct Door {
    listener: TcpListener,
    address: SocketAddr,
}

impl Door {
    /// Opens it. `key` is its key in `[admin]`, for errors.
    ///
    /// # Errors
    /// The address cannot be listened on.
    #[allow(clippy::unused_async, reason = "it needs the runtime")]
    pub async fn open(bind: SocketAddr, key: &str) -> Result<Self, String> {
        let failed = |error| format!("cannot listen on {bind}: {error}; choose another address for [admin] {key}");
        let listener = listen(bind).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Serves `/metrics`, `/healthz` and `/readyz`.
    #[must_use]
    pub fn serve_probes(self, probes: probes::Probes) -> Served {
        self.serve(probes::router(probes), probes::is_work)
    }

    /// Serves the API and the page.
    #[must_use]
    pub fn serve_admin(self, token: guard::Token, parts: Arc<Parts>) -> Served {
        let guarded = Arc::new(Guarded { token, bind: self.address });
        let api = api::router(parts.clone()).route_layer(from_fn_with_state(guarded.clone(), with_bearer));
        let page = Router::new().route("/", get(page::show)).with_state(parts);
        let page = page.route_layer(from_fn_with_state(guarded.clone(), with_password));
        // Without the token the response is short and immediate.
        self.serve(Router::new().merge(api).merge(page).layer(from_fn_with_state(guarded, for_us)), |_| true)
    }

    fn serve(self, router: Router, is_work: fn(&str) -> bool) -> Served {
        let stop = CancellationToken::new();
        let task = tokio::spawn(http::serve(self.listener, router, http::Limits::of(is_work), stop.clone()));
        Served { stop, task }
    }
}

/// The backlog: a client that finds it full waits for a second before it tries again.
const COME: u32 = 4_096;

fn listen(bind: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if bind.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(bind)?;
    socket.listen(COME)
}

pub struct Served {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    /// Accepts no more requests and ends. Connections that have not ended within half a second are closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if tokio::time::timeout(std::time::Duration::from_millis(500), &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// What requests are checked against.
struct Guarded {
    token: guard::Token,
    bind: SocketAddr,
}

/// Checks the Host field of every request, and adds security headers to the response.
async fn for_us(State(guarded): State<Arc<Guarded>>, request: Request, next: Next) -> Response {
    if !guard::host_is_ours(request.headers(), guarded.bind) {
        return (StatusCode::MISDIRECTED_REQUEST, "this host name is not ours; use the address of [admin] bind\n")
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
        (
            HeaderName::from_static("content-security-policy"),
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
    ] {
        headers.insert(name, axum::http::HeaderValue::from_static(value));
    }
    response
}

async fn with_bearer(State(guarded): State<Arc<Guarded>>, request: Request, next: Next) -> Response {
    if guarded.token.is_bearer_of(request.headers()) {
        return next.run(request).await;
    }
    let error = api::Failed { error: "the token is missing or wrong; it stands in [admin] token_file".into() };
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], json::Json(error)).into_response()
}

async fn with_password(State(guarded): State<Arc<Guarded>>, request: Request, next: Next) -> Response {
    if guarded.token.is_password_of(request.headers()) {
        return next.run(request).await;
    }
    let challenge = "Basic realm=\"fingerpost: the password is the token\", charset=\"UTF-8\"";
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)], "the password is the token of [admin] token_file\n")
        .into_response()
}
