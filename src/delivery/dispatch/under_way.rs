//! Messages that a session hands over, and their recipients that are under way: the end of data was sent to the next
//! hop while the client waited, and its reply comes after the client's 250 (DESIGN section 7, "After the dot").
//!
//! Until then the queue treats them like recipients in an attempt of its own, and settles the outcome in the same way.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::attempt::Hold;
use super::queue::{Held, Known};
use super::settle::{AttemptOutcome, Attempted};
use super::{QueueShared, commit, drops, run};
use crate::delivery::outcome::Outcome;
use crate::spool::entry::{Entry, Queued, RecipientState};

#[derive(Debug)]
pub struct Handover {
    /// As in the spool.
    pub entry: Entry,
    /// Recipients that are under way, one item for each branch.
    pub under_way: Vec<UnderWay>,
}

/// Recipients that share one transaction with a next hop which has not replied. In the entry they wait with one attempt
/// made, until the time of the next; that applies if the process ends before the reply.
#[derive(Debug)]
pub struct UnderWay {
    pub recipients: Vec<usize>,
    /// The outcomes. For recipients that are missing, and for all if the sender is dropped, the outcome is unknown.
    pub outcomes: oneshot::Receiver<Vec<(usize, Outcome)>>,
}

impl From<Entry> for Handover {
    /// With no recipient under way.
    fn from(entry: Entry) -> Self {
        Self { entry, under_way: Vec::new() }
    }
}

/// Waits for the outcomes and settles them. Whatever happens, the recipients are free afterwards.
pub(super) async fn follow(shared: Arc<QueueShared>, held: Held, outcomes: oneshot::Receiver<Vec<(usize, Outcome)>>) {
    let hold = Hold { shared: &shared, id: held.id, ticket: held.ticket };
    let outcomes = outcomes.await.unwrap_or_default();
    let Some(entry) = shared.queue.lock().get(held.id) else { return };
    let tried = attempted(&entry, &held, &outcomes);
    let entry = before_it(entry, &tried);
    let in_force = shared.parts.current.load_full();
    let ended = run::judge(&shared, &in_force, &entry, tried).await;
    let _durable = commit::commit(&shared, &in_force, &entry, ended).await;
    drop(hold);
    drops::go_on(shared, held.id).await;
}

fn attempted(entry: &Entry, held: &Held, outcomes: &[(usize, Outcome)]) -> Vec<Attempted> {
    let attempted = |(at, known): &(usize, Known)| {
        let queued = entry.recipients.get(*at)?;
        let outcome = outcomes.iter().find(|(of, _)| of == at).map(|(_, outcome)| outcome.clone());
        Some(Attempted {
            recipient: *at,
            known: known.clone(),
            route: queued.route.clone(),
            refused_now: None,
            tries: queued.state.tries(),
            outcome: outcome.unwrap_or_else(|| unheard(queued)),
            counts: true,
            end: AttemptOutcome::Deferred,
        })
    };
    held.recipients.iter().filter_map(attempted).collect()
}

/// The outcome is unknown.
fn unheard(queued: &Queued) -> Outcome {
    let in_doubt = Outcome::in_doubt(&queued.route.connector, "nobody heard the answer");
    Outcome { next_hop: "".into(), ..in_doubt }
}

/// The entry before the attempt that is settled now, which is counted in it already.
fn before_it(mut entry: Entry, tried: &[Attempted]) -> Entry {
    for attempted in tried {
        if let Some(Queued { state: RecipientState::Waiting(waiting), .. }) =
            entry.recipients.get_mut(attempted.recipient)
        {
            waiting.attempts = waiting.attempts.saturating_sub(1);
            waiting.tried = waiting.tried.saturating_sub(1);
            waiting.in_doubt = waiting.in_doubt.saturating_sub(1);
        }
    }
    entry
}
