//! Held changes of a directory: lists, accepts and announces them (`fingerpost directory held`, `refresh`, `expect`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::api::{Accept, Answer, Refusal, failed, no_snapshot};
use super::json::Json;
use super::{Parts, all_nodes};
use crate::cluster::requests::Request;
use crate::directory::{self, Announced, HeldList, Refreshed};
use crate::smtp::address::Address;

/// The largest list of addresses, in octets.
pub(super) const LONGEST: usize = 64 << 20;
/// The longest validity of an announcement.
const LONGEST_TIME: Duration = Duration::from_hours(7 * 24);
/// How long the other nodes of a cluster expect what was accepted here.
const ACCEPTED_ELSEWHERE: Duration = Duration::from_hours(1);

pub(super) async fn held(State(parts): State<Arc<Parts>>, Path(name): Path<String>) -> Answer<HeldList> {
    let in_force = parts.current.load_full();
    let of = name.clone();
    // Searching a million recipients takes a while.
    let list = tokio::task::spawn_blocking(move || in_force.resolver.directories().held(&of)).await;
    let list = list.map_err(|_| failed(StatusCode::INTERNAL_SERVER_ERROR, "the list broke off; see the log"))?;
    list.map(Json).ok_or_else(|| no_snapshot(&parts, &name))
}

#[derive(Deserialize)]
pub(super) struct Only {
    only: Option<String>,
}

/// `?accept` accepts held changes; with `&only` those of the addresses in the body, one on each line.
pub(super) async fn refresh(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    Query(accept): Query<Accept>,
    Query(Only { only }): Query<Only>,
    body: String,
) -> Answer<Refreshed> {
    let accept = match (accept.is_given()?, only) {
        (false, None) => directory::Accept::No,
        (true, None) => directory::Accept::Yes,
        (true, Some(_)) => directory::Accept::Only(keys(&parts, &name, &body)?),
        (false, Some(_)) => {
            return Err(failed(StatusCode::BAD_REQUEST, "`only` says what to accept: write ?accept&only"));
        }
    };
    match &accept {
        directory::Accept::No => info!(directory = name, "an operator asked for a whole read"),
        directory::Accept::Yes => {
            info!(directory = name, "an operator accepted what is held, and asked for a whole read")
        }
        directory::Accept::Only(keys) => {
            info!(directory = name, addresses = keys.len(), "an operator accepted what is held of some addresses");
        }
    }
    let in_force = parts.current.load_full();
    let elsewhere = for_other_nodes(&parts, &name, &accept).await?;
    let refreshed = in_force.resolver.directories().refresh(&name, accept).await;
    // What is accepted is so here even if the read failed.
    let told = match elsewhere.filter(|_| refreshed.is_some()) {
        Some(request) => all_nodes::announce_to_others(&parts, request).await,
        None => Ok(()),
    };
    match refreshed {
        Some(Ok(refreshed)) => told.map(|()| Json(refreshed)),
        Some(Err(cause)) => Err(failed(StatusCode::BAD_GATEWAY, format!("directory `{name}` was not read: {cause}"))),
        None => Err(no_snapshot(&parts, &name)),
    }
}

/// What is accepted at this node, as the other nodes of a cluster are told: some may hold the same changes, and some may
/// not have read them yet. `None`: there is no other, or nothing is accepted.
async fn for_other_nodes(
    parts: &Arc<Parts>,
    name: &str,
    accept: &directory::Accept,
) -> Result<Option<Request>, Refusal> {
    if parts.cluster.is_none() {
        return Ok(None);
    }
    let keys = match accept {
        directory::Accept::No => return Ok(None),
        directory::Accept::Only(keys) => keys.clone(),
        directory::Accept::Yes => {
            let Json(held) = held(State(parts.clone()), Path(name.to_owned())).await?;
            let addresses: Vec<String> = held.addresses.into_iter().map(|held| held.address).collect();
            if addresses.is_empty() {
                return Ok(None);
            }
            keys(parts, name, &addresses.join("\n"))?
        }
    };
    let seconds = ACCEPTED_ELSEWHERE.as_secs();
    Ok(Some(Request::Announce { directory: name.to_owned(), keys: Some(keys), count: 0, seconds }))
}

#[derive(Deserialize)]
pub(super) struct Announcement {
    only: Option<String>,
    count: Option<usize>,
    seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Expecting {
    /// Addresses, or recipients.
    pub expected: usize,
}

/// `?count=N&seconds=S`, or `?only&seconds=S` with the addresses in the body, one on each line.
pub(super) async fn expect(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    Query(Announcement { only, count, seconds }): Query<Announcement>,
    body: String,
) -> Answer<Expecting> {
    let during = Duration::from_secs(seconds);
    if during.is_zero() || during > LONGEST_TIME {
        return Err(failed(StatusCode::BAD_REQUEST, "an announcement holds for between a second and seven days"));
    }
    let announced = match (only, count) {
        (Some(_), None) => Announced::Only(keys(&parts, &name, &body)?),
        (None, Some(count)) => Announced::Any(count),
        _ => return Err(failed(StatusCode::BAD_REQUEST, "say either `only` or `count`")),
    };
    let expected = match &announced {
        Announced::Only(keys) => keys.len(),
        Announced::Any(count) => *count,
    };
    let (keys, count) = match &announced {
        Announced::Only(keys) => (Some(keys.clone()), 0),
        Announced::Any(count) => (None, *count),
    };
    let elsewhere = Request::Announce { directory: name.clone(), keys, count, seconds };
    let (in_force, of) = (parts.current.load_full(), name.clone());
    let taken =
        tokio::task::spawn_blocking(move || in_force.resolver.directories().announce(&of, announced, during)).await;
    match taken.map_err(|_| failed(StatusCode::INTERNAL_SERVER_ERROR, "the announcement broke off; see the log"))? {
        Some(Ok(())) => {
            info!(directory = name, expected, seconds, "an operator announced changes");
            all_nodes::announce_to_others(&parts, elsewhere).await?;
            Ok(Json(Expecting { expected }))
        }
        Some(Err(cause)) => Err(failed(StatusCode::CONFLICT, format!("directory `{name}`: {cause}"))),
        None => Err(no_snapshot(&parts, &name)),
    }
}

/// The keys of addresses, one on each line. Other names that `held` lists are used unchanged.
fn keys(parts: &Parts, name: &str, body: &str) -> Result<Vec<String>, Refusal> {
    let in_force = parts.current.load_full();
    let directories = in_force.resolver.directories();
    let key = |line: &str| match Address::parse(line) {
        Ok(address) => directories.key(name, &address).ok_or_else(|| no_snapshot(parts, name)),
        Err(error) => directories
            .key_of_name(name, line)
            .ok_or_else(|| failed(StatusCode::BAD_REQUEST, format!("`{line}` is not an address: {error}"))),
    };
    let keys = body.lines().map(str::trim).filter(|line| !line.is_empty()).map(key).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(failed(StatusCode::BAD_REQUEST, "the list has no address"));
    }
    Ok(keys)
}
