//! The API: JSON over HTTP, for the command line and for scripts. Paths and answers are listed in `docs/commands.md`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::directory::{self, Looked, Stats};
use super::explain::{Explained, explain, refusal_in_words};
use super::json::{Json, escaped};
use super::queue::{Listed, Message};
use super::status::{Status, collect};
use super::{Parts, all_nodes, drain, held, spool};
use crate::cluster::requests::Request;
use crate::config::check::{Problem, render};
use crate::delivery::dispatch::Delivery;
use crate::directory::Conflict;
use crate::message::queue_id::QueueId;
use crate::reload::{Consent, Reloaded};
use crate::smtp::address::Address;
use crate::spool::SpoolError;
use crate::time::UnixTime;
use crate::trace::read;

/// The API's routes; the token has been checked before.
pub(super) fn router(parts: Arc<Parts>) -> Router {
    Router::new()
        .route("/api/status", get(server_status))
        .route("/api/directories", get(directory_stats))
        .route("/api/directories/conflicts", get(directory_conflicts))
        .route("/api/directories/lookup", get(directory_lookup))
        .route("/api/queue", get(queue_list))
        .route("/api/queue/retry", post(queue_retry_all))
        .route("/api/queue/{id}", get(queue_show).delete(queue_drop))
        .route("/api/queue/{id}/retry", post(queue_retry))
        .route("/api/spool/unreadable", get(spool::unreadable))
        .route("/api/spool/segments/{segment}/release", post(spool::release))
        .route("/api/directories/{name}/refresh", post(held::refresh).layer(DefaultBodyLimit::max(held::LONGEST)))
        .route("/api/directories/{name}/held", get(held::held))
        .route("/api/directories/{name}/expect", post(held::expect).layer(DefaultBodyLimit::max(held::LONGEST)))
        .route("/api/directories/{name}/export", get(directory_export))
        .route("/api/drain", post(drain::drain))
        .route("/api/reload", post(reload))
        .route("/api/route", get(route))
        .route("/api/trace", get(trace))
        .with_state(parts)
}

/// A request's error: one line in lower case, with what to do.
#[derive(Debug, Serialize, Deserialize)]
pub struct Failed {
    pub error: String,
}

/// The most queued messages in one response.
pub(crate) const MOST_LISTED: usize = 10_000;

/// An error response.
pub(super) type Refusal = (StatusCode, Json<Failed>);

/// A response, or an error.
pub(super) type Answer<T> = Result<Json<T>, Refusal>;

pub(super) fn failed(status: StatusCode, error: impl Into<String>) -> Refusal {
    (status, Json(Failed { error: error.into() }))
}

async fn server_status(State(parts): State<Arc<Parts>>) -> Json<Status> {
    Json(status_now(parts).await)
}

/// For the status page, which shows the API's data.
pub(super) async fn status_now(parts: Arc<Parts>) -> Status {
    let collected = {
        let parts = parts.clone();
        tokio::task::spawn_blocking(move || collect(&parts, UnixTime::now()))
    };
    match collected.await {
        Ok(status) => status,
        Err(_) => collect(&parts, UnixTime::now()), // the runtime is ending
    }
}

#[derive(Deserialize)]
struct Part {
    limit: Option<usize>,
    after: Option<QueueId>,
}

async fn queue_list(State(parts): State<Arc<Parts>>, Query(Part { limit, after }): Query<Part>) -> Answer<Listed> {
    let most = limit.unwrap_or(1_000).min(MOST_LISTED);
    all_nodes::list(&parts, after, most).await.map(Json)
}

/// Runs a question that may read from the disk on a blocking thread.
pub(super) async fn from_disk<T: Send + 'static>(
    parts: &Parts,
    ask: impl FnOnce(&Delivery) -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, (StatusCode, Json<Failed>)> {
    let delivery = parts.delivery.clone();
    let read = tokio::task::spawn_blocking(move || ask(&delivery)).await;
    let broken = |error: String| failed(StatusCode::INTERNAL_SERVER_ERROR, error);
    read.map_err(|panicked| broken(panicked.to_string()))?.map_err(|error| broken(error.to_string()))
}

/// Parses the id in a path.
fn id_of(text: &str) -> Result<QueueId, (StatusCode, Json<Failed>)> {
    text.parse()
        .map_err(|error: crate::message::queue_id::NotAQueueId| failed(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn queue_show(State(parts): State<Arc<Parts>>, Path(id): Path<String>) -> Answer<Message> {
    all_nodes::show(&parts, id_of(&id)?).await.map(Json)
}

/// How many messages a command changed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    pub messages: usize,
}

async fn queue_retry(State(parts): State<Arc<Parts>>, Path(id): Path<String>) -> Answer<Done> {
    let id = id_of(&id)?;
    all_nodes::about(&parts, id, &Request::Retry { id }).await.map(Json)
}

#[derive(Deserialize)]
struct Of {
    connector: Option<String>,
}

async fn queue_retry_all(State(parts): State<Arc<Parts>>, Query(Of { connector }): Query<Of>) -> Answer<Done> {
    if let Some(connector) = &connector
        && parts.current.load().config.send_connector(connector).is_none()
    {
        let error = format!("there is no send connector `{connector}`; `fingerpost status` lists them");
        return Err(failed(StatusCode::NOT_FOUND, error));
    }
    all_nodes::retry_all(&parts, connector).await.map(Json)
}

async fn queue_drop(State(parts): State<Arc<Parts>>, Path(id): Path<String>) -> Answer<Done> {
    let id = id_of(&id)?;
    all_nodes::about(&parts, id, &Request::Drop { id }).await.map(Json)
}

/// The result of a reload.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum ReloadAnswer {
    /// The new configuration is in force.
    Applied {
        changes: Vec<String>,
    },
    Unchanged,
    /// It has errors; the old one stays in force.
    Refused {
        /// As `fingerpost check` prints them.
        problems: Vec<String>,
    },
    /// Accepted domains would vanish; `--accept` applies it all the same.
    Held {
        vanishing: Vec<String>,
    },
}

impl From<Reloaded> for ReloadAnswer {
    fn from(reloaded: Reloaded) -> Self {
        match reloaded {
            Reloaded::Applied { changes } => Self::Applied { changes },
            Reloaded::Unchanged => Self::Unchanged,
            Reloaded::Refused(problems) => Self::Refused { problems: problems.iter().map(problem_line).collect() },
            Reloaded::Held { vanishing } => Self::Held { vanishing },
        }
    }
}

/// As `fingerpost check` prints it.
pub(crate) fn problem_line(problem: &Problem) -> String {
    render(std::slice::from_ref(problem)).trim_end().to_owned()
}

#[derive(Deserialize)]
pub(super) struct Accept {
    accept: Option<String>,
}

impl Accept {
    /// Whether `?accept` is given: without a value, or with a positive one.
    pub(super) fn is_given(&self) -> Result<bool, Refusal> {
        is_given("accept", self.accept.as_deref())
    }
}

/// Whether this key of a query is given: without a value, or with a positive one.
pub(super) fn is_given(key: &str, value: Option<&str>) -> Result<bool, Refusal> {
    match value {
        Some("" | "1" | "true" | "yes") => Ok(true),
        None | Some("0" | "false" | "no") => Ok(false),
        Some(other) => Err(failed(
            StatusCode::BAD_REQUEST,
            format!("`{key}={other}` is neither yes nor no; write {key} or leave it out"),
        )),
    }
}

async fn reload(State(parts): State<Arc<Parts>>, Query(accept): Query<Accept>) -> Answer<ReloadAnswer> {
    let consent = if accept.is_given()? { Consent::Given } else { Consent::NotGiven };
    Ok(Json(parts.reloader.reload(consent).await.into()))
}

#[derive(Deserialize)]
struct RouteQuery {
    address: String,
    from: Option<IpAddr>,
}

fn address_of(text: &str) -> Result<Address, (StatusCode, Json<Failed>)> {
    let wrong = |error| failed(StatusCode::BAD_REQUEST, format!("`{text}` is not an address: {error}"));
    Address::parse(text).map_err(wrong)
}

async fn directory_stats(State(parts): State<Arc<Parts>>) -> Json<Vec<Stats>> {
    Json(directory::stats(&parts))
}

async fn directory_lookup(State(parts): State<Arc<Parts>>, Query(asked): Query<RouteQuery>) -> Answer<Looked> {
    let address = address_of(&asked.address)?;
    let looked = directory::look_up(&parts.current.load_full(), &address).await;
    looked.map(Json).map_err(|error| failed(StatusCode::UNPROCESSABLE_ENTITY, error))
}

async fn directory_conflicts(
    State(parts): State<Arc<Parts>>,
    Query(Part { limit, .. }): Query<Part>,
) -> Answer<Vec<Conflict>> {
    let in_force = parts.current.load_full();
    // Searching a million recipients takes a while.
    let found = move || {
        let directories = &in_force.config.routing.directories;
        in_force.resolver.directories().conflicts(directories, limit.unwrap_or(1_000))
    };
    let found = tokio::task::spawn_blocking(found).await;
    found.map(Json).map_err(|_| failed(StatusCode::INTERNAL_SERVER_ERROR, "looking for conflicts failed; see the log"))
}

pub(super) fn no_snapshot(parts: &Parts, name: &str) -> (StatusCode, Json<Failed>) {
    let is_there = parts.current.load().config.directories.iter().any(|directory| *directory.name == *name);
    if is_there {
        return failed(StatusCode::CONFLICT, format!("directory `{name}` is not kept in memory"));
    }
    failed(StatusCode::NOT_FOUND, format!("there is no directory `{name}`; `fingerpost directory stats` lists them"))
}

/// One JSON object on each line, one for each entry.
async fn directory_export(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
) -> Result<Vec<u8>, (StatusCode, Json<Failed>)> {
    let in_force = parts.current.load_full();
    let Some(served) = in_force.resolver.directories().entries(&name) else { return Err(no_snapshot(&parts, &name)) };
    let written = tokio::task::spawn_blocking(move || escaped(directory::exported(served.current()))).await;
    written.map_err(|_| failed(StatusCode::INTERNAL_SERVER_ERROR, "the export broke off; see the log"))
}

async fn route(State(parts): State<Arc<Parts>>, Query(asked): Query<RouteQuery>) -> Answer<Explained> {
    let address = address_of(&asked.address)?;
    let in_force = parts.current.load_full();
    let explained = explain(&in_force.config, &in_force.resolver, &address, asked.from).await;
    let mut explained = explained.map_err(|error| failed(StatusCode::UNPROCESSABLE_ENTITY, error))?;
    explained.last_refusal = parts.delivery.last_refusal(&address).as_ref().map(refusal_in_words);
    Ok(Json(explained))
}

async fn trace(State(parts): State<Arc<Parts>>, Query(query): Query<read::Query>) -> Answer<read::Found> {
    let folder = parts.trace_folder.clone();
    let found = tokio::task::spawn_blocking(move || read::find(&folder, &query)).await;
    found.map(Json).map_err(|_| failed(StatusCode::INTERNAL_SERVER_ERROR, "the trace could not be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_is_told_by_its_result() {
        let json = |answer: ReloadAnswer| serde_json::to_string(&answer).unwrap();
        assert_eq!(json(Reloaded::Unchanged.into()), r#"{"result":"unchanged"}"#);
        assert_eq!(
            json(Reloaded::Held { vanishing: vec!["a.example".into()] }.into()),
            r#"{"result":"held","vanishing":["a.example"]}"#
        );
        assert_eq!(json(Reloaded::Refused(vec![]).into()), r#"{"result":"refused","problems":[]}"#);
    }
}
