//! Queued mail as operators see and handle it: with `[cluster]` that of all nodes, asked at any of them, else this node's
//! own. The API and the page call it. What is to be done with mail of another node is asked of that node.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::Parts;
use super::api::{Done, Refusal, failed, from_disk};
use super::json::Json;
use super::queue::{Listed, Message};
use super::requests::perform;
use crate::cluster::ClusterSpool;
use crate::cluster::database::DatabaseError;
use crate::cluster::listing::{Found, Owner, OwnerNode};
use crate::cluster::requests::{Asked, Reply, Request};
use crate::message::queue_id::QueueId;

/// How long the database, and another node, may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a message that is on its way to another node is looked at again.
const AGAIN: Duration = Duration::from_millis(200);

/// Queued messages after this one, oldest first.
pub(super) async fn list(parts: &Parts, after: Option<QueueId>, most: usize) -> Result<Listed, Refusal> {
    let Some(cluster) = &parts.cluster else {
        return from_disk(parts, move |delivery| delivery.list(after, most)).await.map(Listed::of);
    };
    let listing = in_time(cluster.list_all(after, most)).await?;
    let message = |Found { entry, owner }| {
        let loaded = match &owner {
            Owner::Node(node) if node.epoch == cluster.epoch().id => parts.delivery.loaded(entry.id),
            _ => None,
        };
        Message::of(&loaded.unwrap_or(entry)).at(owner.name())
    };
    Ok(Listed { total: listing.total, messages: listing.messages.into_iter().map(message).collect() })
}

/// One message.
pub(super) async fn show(parts: &Parts, id: QueueId) -> Result<Message, Refusal> {
    let own = from_disk(parts, move |delivery| delivery.show(id));
    let Some(cluster) = &parts.cluster else {
        return own.await?.as_ref().map(Message::of).ok_or_else(|| no_such_message(id));
    };
    let late = |_| failed(StatusCode::SERVICE_UNAVAILABLE, format!("the database does not answer within {PATIENCE:?}"));
    if let Some(entry) = timeout(PATIENCE, own).await.map_err(late)?? {
        return Ok(Message::of(&entry).at(&cluster.epoch().name));
    }
    let found = in_time(cluster.find(id)).await?.ok_or_else(|| no_such_message(id))?;
    Ok(Message::of(&found.entry).at(found.owner.name()))
}

/// Has this done with a message by the node that has it.
pub(super) async fn about(parts: &Parts, id: QueueId, request: &Request) -> Result<Done, Refusal> {
    let until = Instant::now() + PATIENCE;
    let mut asked_before: Option<String> = None;
    loop {
        match here(parts, request).await {
            Reply::NotMine => {}
            reply => return done(reply),
        }
        let Some(cluster) = &parts.cluster else { return Err(no_such_message(id)) };
        let node = match (in_time(cluster.owner(id)).await?, asked_before.take()) {
            (None, None) => return Err(no_such_message(id)),
            (None, Some(name)) => return Err(has_gone(id, &name)),
            (Some(Owner::Nobody), _) => return Err(waits(id)),
            (Some(Owner::Node(node)), _) => node,
        };
        if node.epoch != cluster.epoch().id {
            match cluster.ask(node.epoch, request, until).await {
                Ok(Asked::Answered(Reply::NotMine)) => {}
                Ok(Asked::Answered(Reply::Done { messages })) => return Ok(Done { messages }),
                // It may have been done; whoever has the message now is asked.
                Ok(Asked::OwnerEnded) => asked_before = Some(node.name.clone()),
                asked => return Err(failed(StatusCode::BAD_GATEWAY, not_done(&node, asked))),
            }
        }
        if Instant::now() >= until {
            let text = format!("node {} has message {id}, and does not know it yet: ask again", node.name);
            return Err(failed(StatusCode::CONFLICT, text));
        }
        sleep(AGAIN).await;
    }
}

/// Makes due what waits for this connector, or all. An error says also what was done.
pub(super) async fn retry_all(parts: &Parts, connector: Option<String>) -> Result<Done, Refusal> {
    let request = Request::RetryAll { connector };
    let mut done = done(here(parts, &request).await)?;
    let Some(cluster) = &parts.cluster else { return Ok(done) };
    let others = in_time(cluster.others()).await.map_err(|(status, Json(why))| {
        let own = done.messages;
        failed(status, format!("{own} messages of this node are due now; other nodes were not asked: {}", why.error))
    })?;
    let (messages, problems) = ask_all(cluster, &others, &request).await;
    done.messages += messages;
    if problems.is_empty() {
        return Ok(done);
    }
    let text = format!("{} messages are due now, but {}", done.messages, problems.join("; "));
    Err(failed(StatusCode::BAD_GATEWAY, text))
}

/// Has it done at this node. What waits for a database that hangs goes on, and its outcome is not waited for.
async fn here(parts: &Parts, request: &Request) -> Reply {
    let (own, cluster, request) = (parts.own(), parts.cluster.clone(), request.clone());
    let done = tokio::spawn(async move { perform(&own, cluster.as_deref(), &request).await });
    match timeout(PATIENCE, done).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(panicked)) => Reply::Failed { error: panicked.to_string() },
        Err(_) => {
            Reply::Failed { error: format!("the database does not answer within {PATIENCE:?}: it may still be done") }
        }
    }
}

/// Has changes of a directory announced at all other nodes. Those at this node are announced, or accepted, already.
pub(super) async fn announce_to_others(parts: &Parts, request: Request) -> Result<(), Refusal> {
    let Some(cluster) = &parts.cluster else { return Ok(()) };
    let not_all = |status, why: String| failed(status, format!("it is done at this node, but {why}"));
    let others = in_time(cluster.others()).await;
    let others =
        others.map_err(|(status, Json(why))| not_all(status, format!("others were not asked: {}", why.error)))?;
    let (_, problems) = ask_all(cluster, &others, &request).await;
    if problems.is_empty() { Ok(()) } else { Err(not_all(StatusCode::BAD_GATEWAY, problems.join("; "))) }
}

/// Asks all these nodes at once. Returns how many messages it was done with, and who has not done it.
async fn ask_all(cluster: &ClusterSpool, others: &[OwnerNode], request: &Request) -> (usize, Vec<String>) {
    let until = Instant::now() + PATIENCE;
    let asked = join_all(others.iter().map(|other| cluster.ask(other.epoch, request, until))).await;
    let (mut all, mut problems) = (0, Vec::new());
    for (other, asked) in others.iter().zip(asked) {
        match asked {
            Ok(Asked::Answered(Reply::Done { messages })) => all += messages,
            Ok(Asked::Answered(Reply::NotMine) | Asked::OwnerEnded) => {} // its mail is tried by whoever takes it over
            asked => problems.push(not_done(other, asked)),
        }
    }
    (all, problems)
}

fn done(reply: Reply) -> Result<Done, Refusal> {
    match reply {
        Reply::Done { messages } => Ok(Done { messages }),
        Reply::NotMine => Ok(Done { messages: 0 }),
        Reply::Failed { error } => Err(failed(StatusCode::INTERNAL_SERVER_ERROR, error)),
    }
}

/// Why another node has not done what was asked, and what is known of that.
fn not_done(node: &OwnerNode, asked: Result<Asked, DatabaseError>) -> String {
    let name = &node.name;
    match asked {
        Ok(Asked::Answered(Reply::Failed { error })) => format!("node {name} says: {error}"),
        Ok(Asked::Withdrawn) => format!(
            "node {name} did not answer within {PATIENCE:?}: nothing was done there; `fingerpost cluster status` shows \
             the nodes"
        ),
        Ok(_) => format!("node {name} did not answer within {PATIENCE:?}: it may still do it"),
        Err(error) => format!("{error}; node {name} may still do it"),
    }
}

fn no_such_message(id: QueueId) -> Refusal {
    failed(StatusCode::NOT_FOUND, format!("there is no message {id} in the queue; `fingerpost trace` may know it"))
}

fn has_gone(id: QueueId, node: &str) -> Refusal {
    let text = format!("node {node} ended before it answered, and message {id} is not in the queue any more");
    failed(StatusCode::NOT_FOUND, text)
}

fn waits(id: QueueId) -> Refusal {
    let text = format!(
        "message {id} waits to be taken over: its node has ended. Ask again in a few seconds. If `fingerpost cluster status` \
         says that messages are being moved, an import or export has it"
    );
    failed(StatusCode::CONFLICT, text)
}

/// What the database answers in time.
pub(super) async fn in_time<T>(asked: impl Future<Output = Result<T, DatabaseError>>) -> Result<T, Refusal> {
    let late = |_| DatabaseError::Away(format!("no answer within {PATIENCE:?}"));
    let answer = timeout(PATIENCE, asked).await.map_err(late).flatten();
    answer.map_err(|error| failed(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}
