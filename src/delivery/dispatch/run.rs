//! One attempt on one branch: routes its recipients again, sends, and makes the outcome durable.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::basis::Basis;
use super::branch::Grouping;
use super::queue::{Known, Picked, Update};
use super::redecide::{self, Now};
use super::settle::{AttemptOutcome, Attempted};
use super::{QueueShared, commit, content, record};
use crate::config::{Protocol, SendConnector, SmtpOut};
use crate::delivery::attempt::{GivesPlace, Reach};
use crate::delivery::branch::{NOT_OURS, QueuedBranch};
use crate::delivery::concurrently::concurrently;
use crate::delivery::maildir::{self, Delivered, Letter};
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refuses_everybody::{Source, Step};
use crate::delivery::unknown::{Judged, Unknown};
use crate::delivery::{memory, stamping};
use crate::in_force::InForce;
use crate::lookup::Freshness;
use crate::report::Action;
use crate::routing::doubt::Followed;
use crate::routing::verdict::{Route, Verdict};
use crate::smtp::reply::{Enhanced, NEXT_HOP_UNREACHABLE, Reply, UNKNOWN_JUST_NOW};
use crate::spool::entry::{Entry, HeldFor, Queued, RecipientState, Waiting};
use crate::time::UnixTime;

/// The reply for delivery to a Maildir.
const IN_MAILBOX: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "delivered to the mailbox");
/// For the queue, and for reports of delay, if a mailbox cannot be written.
const MAILBOX_UNWRITABLE: Reply = Reply::fixed(451, Enhanced(4, 2, 0), "the mailbox cannot be written now");

/// The result of routing again.
#[derive(Default)]
struct Plan {
    /// Recipients to be tried now.
    going: Vec<Attempted>,
    /// Recipients that are finished without an attempt.
    over: Vec<Attempted>,
    /// Recipients that get another route, or wait as before.
    elsewhere: Vec<Update>,
}

/// Makes the attempt. Returns the result for each recipient that was tried or is finished; the others have been
/// returned to the queue.
pub(super) async fn run(
    shared: &QueueShared,
    in_force: &Arc<InForce>,
    picked: &Picked,
    gives: &Arc<GivesPlace>,
) -> Vec<Attempted> {
    let plan = plan(in_force, picked, UnixTime::now()).await;
    if !plan.elsewhere.is_empty() {
        commit::move_elsewhere(shared, &picked.entry, plan.elsewhere).await;
    }
    let mut ended = plan.over;
    if let Some(connector) = in_force.config.send_connector(&picked.connector).filter(|_| !plan.going.is_empty()) {
        let started = Instant::now();
        let sending = Sending { shared, in_force, connector, entry: &picked.entry, gives };
        let tried = sending.send(plan.going).await;
        record::took(&shared.parts.metrics, connector, started.elapsed());
        ended.extend(judge(shared, in_force, &picked.entry, tried).await);
    }
    ended
}

async fn plan(in_force: &Arc<InForce>, picked: &Picked, now: UnixTime) -> Plan {
    let mut plan = Plan::default();
    let basis = Basis::of(in_force);
    let recipients =
        picked.recipients.iter().filter_map(|(at, known)| Some((at, picked.entry.recipients.get(*at)?, known)));
    let decided = recipients.map(|(recipient, queued, known)| async move {
        let decided = redecide::redecide(in_force, &picked.entry, queued, known, now).await;
        (recipient, queued, known, decided)
    });
    for (recipient, queued, known, decided) in concurrently(decided.collect()).await {
        let known = match decided {
            Some(_) => Known { basis: Some(basis.clone()), ..known.clone() },
            None => known.clone(),
        };
        let attempted = |route: &Route, refused_now| Attempted {
            recipient: *recipient,
            known: known.clone(),
            route: route.clone(),
            refused_now,
            tries: queued.state.tries(),
            outcome: Outcome::undone(),
            counts: true,
            end: AttemptOutcome::Deferred,
        };
        match decided.unwrap_or_else(|| Now::Try(queued.route.clone())) {
            Now::Try(route) => plan.go(in_force, picked, attempted(&route, None)),
            Now::TryOld(route, reply) => plan.go(in_force, picked, attempted(&route, Some(reply))),
            Now::Hold if queued.state == RecipientState::Held(HeldFor::NoConnector) => {
                plan.elsewhere.push(Update {
                    recipient: *recipient,
                    state: queued.state.clone(),
                    route: queued.route.clone(),
                    known,
                });
            }
            Now::Hold => plan.over.push(Attempted { end: AttemptOutcome::Held, ..attempted(&queued.route, None) }),
            Now::NoWay(reply) => {
                let end = if reply.is_permanent() { AttemptOutcome::Refused } else { AttemptOutcome::Deferred };
                let outcome = Outcome::answered(reply, &"".into());
                plan.over.push(Attempted { outcome, end, ..attempted(&queued.route, None) });
            }
        }
    }
    plan
}

impl Plan {
    /// Adds a recipient: it is tried now if its route is still on this connector and in the same branch; else it is
    /// queued there.
    fn go(&mut self, in_force: &InForce, picked: &Picked, attempted: Attempted) {
        let Some(queued) = picked.entry.recipients.get(attempted.recipient) else { return };
        let mine = attempted.route.connector == picked.connector && matches!(queued.state, RecipientState::Waiting(_));
        let grouping = in_force.config.send_connector(&picked.connector).map(|connector| Grouping::of(connector));
        let together = match (self.going.first(), grouping) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(first), Some(grouping)) => grouping.share(&first.route, &attempted.route),
        };
        if mine && together {
            self.going.push(attempted);
            return;
        }
        let state = match &queued.state {
            // It is due there as it was here.
            RecipientState::Waiting(waiting) => RecipientState::Waiting(Waiting {
                next_attempt: waiting.next_attempt.min(UnixTime::steady()),
                ..waiting.clone()
            }),
            RecipientState::Held(_) | RecipientState::Done(_) => RecipientState::due(UnixTime::steady()),
        };
        let known = Known { fresh: true, ..attempted.known };
        self.elsewhere.push(Update { recipient: attempted.recipient, state, route: attempted.route, known });
    }
}

/// A branch on its way.
struct Sending<'a> {
    shared: &'a QueueShared,
    in_force: &'a InForce,
    connector: &'a Arc<SendConnector>,
    entry: &'a Entry,
    gives: &'a Arc<GivesPlace>,
}

impl Sending<'_> {
    /// Sends the branch by the connector's protocol; returns each recipient's outcome.
    async fn send(&self, going: Vec<Attempted>) -> Vec<Attempted> {
        let Self { shared, connector, entry, .. } = *self;
        let outcomes = match &connector.protocol {
            Protocol::Smtp(smtp) => self.by_smtp(smtp, &going).await,
            Protocol::Maildir(root) => {
                let mut outcomes = Vec::with_capacity(going.len());
                for attempted in &going {
                    outcomes.push(self.to_mailbox(root, attempted).await);
                }
                outcomes
            }
        };
        let tries = shared.parts.outbound.tries(&connector.name);
        let tried = |(attempted, outcome): (Attempted, Outcome)| {
            // An attempt counts if a next hop was really tried since the last one.
            let before = entry.recipients.get(attempted.recipient).map_or(0, |queued| queued.state.tries());
            let counts = outcome.class != Class::Unreachable || (tries != 0 && tries != before);
            Attempted { tries, outcome, counts, ..attempted }
        };
        going.into_iter().zip(outcomes).map(tried).collect()
    }

    async fn by_smtp(&self, smtp: &Arc<SmtpOut>, going: &[Attempted]) -> Vec<Outcome> {
        let Self { shared, in_force, connector, entry, gives } = *self;
        let Some(leader) = going.first() else { return Vec::new() };
        let body = match content::open(shared, entry).await {
            Ok(body) => body,
            Err(outcome) => return vec![outcome; going.len()],
        };
        let read = body.clone();
        let recipients = going.iter().filter_map(|attempted| {
            let queued = entry.recipients.get(attempted.recipient)?;
            Some((queued.rcpt.clone(), attempted.route.rcpt_to.clone()))
        });
        let identity = &entry.content.identity;
        let branch = QueuedBranch {
            connector,
            smtp,
            next_hop_domain: &leader.route.next_hop_domain,
            reach: Reach::of(&entry.origin, &in_force.config.reports),
            origin: &entry.origin,
            sender: &entry.sender,
            content: &entry.content,
            fields: &|connector, named| stamping::stamp(in_force, connector, identity, named),
            body,
            is_ours: &|| shared.parts.spool.may_send(),
            place: Some(gives.clone()),
            recipients: recipients.collect(),
        };
        let outcomes = shared.parts.outbound.send(&in_force.config.server.hostname, branch).await;
        content::look(shared, entry, &read).await;
        outcomes
    }

    async fn to_mailbox(&self, root: &Path, attempted: &Attempted) -> Outcome {
        let Self { shared, in_force, entry, .. } = *self;
        let body = match content::open(shared, entry).await {
            Ok(body) => body,
            Err(outcome) => return outcome,
        };
        let read = body.clone();
        let host = &in_force.config.server.hostname;
        let letter = Letter {
            root: root.to_owned(),
            mailbox: attempted.route.rcpt_to.clone(),
            reverse_path: entry.sender.reverse_path.clone(),
            name: format!("{}.{}R{}.{host}", entry.received_at.0, entry.id, attempted.recipient),
            body,
        };
        let spool = shared.parts.spool.clone();
        let written = tokio::task::spawn_blocking(move || maildir::deliver(letter, || spool.may_send())).await;
        let error = match written {
            Ok(Ok(Delivered::NotOurs)) => return Outcome::ours(Class::LeftToQueue, NOT_OURS),
            Ok(Ok(Delivered::InMailbox)) => {
                let success = Some(Action::Delivered);
                return Outcome { success, ..Outcome::said(Class::Accepted, IN_MAILBOX, &"maildir".into()) };
            }
            Ok(Err(error)) if read.is_damaged() => {
                content::look(shared, entry, &read).await;
                return Outcome::unreadable(&error);
            }
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.to_string(),
        };
        let folder = maildir::folder(root, &attempted.route.rcpt_to);
        tracing::warn!(queue_id = %entry.id, folder = %folder.display(), error, "a mailbox cannot be written");
        Outcome::ours(Class::Deferred, MAILBOX_UNWRITABLE)
    }
}

/// Notes the outcomes for later decisions, asks directories where necessary, and returns the results.
pub(super) async fn judge(
    shared: &QueueShared,
    in_force: &Arc<InForce>,
    entry: &Entry,
    tried: Vec<Attempted>,
) -> Vec<Attempted> {
    remember(shared, in_force, entry, &tried);
    let ends = tried.into_iter().map(|tried| end(shared, in_force, entry, tried));
    concurrently(ends.collect()).await
}

/// Notes accepted mail.
fn remember(shared: &QueueShared, in_force: &InForce, entry: &Entry, tried: &[Attempted]) {
    let mut connectors = in_force.config.receive_connectors.iter();
    let connector = connectors.find(|connector| connector.name == entry.origin.receive_connector);
    let stranger = memory::stranger(&entry.origin, connector.map(|connector| &**connector));
    let memories = &shared.parts.memory;
    let taken = tried.iter().filter(|attempted| attempted.outcome.class == Class::Accepted);
    let taken = taken.filter_map(|attempted| {
        let address = &entry.recipients.get(attempted.recipient)?.rcpt.address;
        Some((address, attempted))
    });
    let ways = taken.clone().map(|(address, attempted)| (address, &attempted.route));
    memories.accepted(&entry.sender.reverse_path, &entry.content.identity, stranger, ways);
    for (address, attempted) in taken {
        memories.taken(address, &attempted.route, &attempted.outcome.next_hop, Step::Dot);
    }
}

/// The result for one recipient. "Unknown recipient" is believed only after the directory was asked live, and a changed
/// answer is followed once; if nothing changed, a recipient that a directory has or that is recently good is in doubt
/// for an hour (DESIGN section 5, "doubt is temporary").
async fn end(shared: &QueueShared, in_force: &Arc<InForce>, entry: &Entry, attempted: Attempted) -> Attempted {
    if let Some(queued) = entry.recipients.get(attempted.recipient) {
        shared.parts.memory.refused(&queued.rcpt.address, &attempted.outcome);
    }
    let end = match attempted.outcome.class {
        Class::Accepted => AttemptOutcome::Delivered,
        Class::Refused if refuses_everybody(shared, entry, &attempted) => {
            return instead(&NEXT_HOP_UNREACHABLE, attempted);
        }
        Class::Refused => AttemptOutcome::Refused,
        Class::Deferred | Class::TooManyRecipients | Class::Unreachable | Class::LeftToQueue | Class::InDoubt => {
            AttemptOutcome::Deferred
        }
        Class::UnknownRecipient => return Box::pin(unknown(shared, in_force, entry, attempted)).await,
    };
    Attempted { end, ..attempted }
}

/// Whether a next hop that refuses a recipient by an unknown policy refuses all recipients.
fn refuses_everybody(shared: &QueueShared, entry: &Entry, attempted: &Attempted) -> bool {
    let Some(queued) = entry.recipients.get(attempted.recipient) else { return false };
    let (route, outcome) = (&attempted.route, &attempted.outcome);
    let source = Source { reverse_path: &entry.sender.reverse_path, client: entry.origin.client };
    shared.parts.memory.refuses_by_policy(&queued.rcpt.address, route, outcome, Step::Rcpt, source)
}

/// The next hop says that the recipient is unknown.
async fn unknown(shared: &QueueShared, in_force: &Arc<InForce>, entry: &Entry, attempted: Attempted) -> Attempted {
    let Some(queued) = entry.recipients.get(attempted.recipient) else { return attempted };
    let already_followed = matches!(&queued.state, RecipientState::Waiting(waiting) if waiting.followed);
    let queued = Queued { route: attempted.route.clone(), ..queued.clone() };
    let now = UnixTime::now();
    let (decided, by) = redecide::decide(in_force, entry, &queued, Freshness::Live, now).await;
    let live = match decided {
        Ok(route) => Verdict::Accept(route),
        Err(reply) => Verdict::Refuse(reply),
    };
    let unknown = Unknown {
        address: &queued.rcpt.address,
        route: &queued.route,
        followed: if already_followed { Followed::Already } else { Followed::NotYet },
        live: &live,
        by,
        next_hop: &attempted.outcome.next_hop,
        // Or at the end of data; no client waits, so nothing is remembered for others.
        step: Step::Rcpt,
        said: &attempted.outcome.reply,
        source: Source { reverse_path: &entry.sender.reverse_path, client: entry.origin.client },
    };
    match shared.parts.memory.judge(&unknown).await {
        Judged::Follow(route) => Attempted { end: AttemptOutcome::Follow(route), ..attempted },
        Judged::Temporary => instead(&UNKNOWN_JUST_NOW, attempted),
        Judged::Defer(reply) => instead(&reply, attempted),
        Judged::Unreachable => instead(&NEXT_HOP_UNREACHABLE, attempted),
        Judged::Believe(_) => Attempted { end: AttemptOutcome::Refused, ..attempted },
    }
}

/// Deferred with this reply instead of the next hop's.
fn instead(reply: &Reply, attempted: Attempted) -> Attempted {
    let reply = reply.saying(format!("{} (the next hop said: {})", reply.text, attempted.outcome.reply));
    let outcome = Outcome { class: Class::Deferred, reply, ..attempted.outcome };
    Attempted { end: AttemptOutcome::Deferred, outcome, ..attempted }
}
