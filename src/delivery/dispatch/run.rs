//! One attempt on one branch, from the decision made again to the outcome made durable.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use super::Shared;
use super::basis::Basis;
use super::branch::Grouping;
use super::queue::{Known, Picked, Update};
use super::redecide::{self, Now};
use super::settle::{Attempted, End};
use super::tell;
use crate::config::{Protocol, SendConnector, SmtpOut};
use crate::delivery::attempt::{Branch, Handed, HandedResult, Target};
use crate::delivery::concurrently::concurrently;
use crate::delivery::maildir::{self, Letter};
use crate::delivery::stamping;
use crate::in_force::InForce;
use crate::routing::loops::Relayed;
use crate::routing::recently_good::{Doubt, RecentlyGood};
use crate::routing::verdict::{Freshness, Route};
use crate::smtp::address::Address;
use crate::smtp::reply::{Enhanced, Reply, TRY_AGAIN, UNKNOWN_JUST_NOW};
use crate::spool::entry::{Entry, Queued, State};
use crate::time::UnixTime;

/// What Maildirs answer.
const IN_MAILBOX: Reply = Reply::fixed(250, Enhanced(2, 0, 0), "delivered to the mailbox");
/// What the queue shows, and the sender of a delayed message reads, when a mailbox cannot be written.
const MAILBOX_UNWRITABLE: Reply = Reply::fixed(451, Enhanced(4, 2, 0), "the mailbox cannot be written now");

/// What the decision made again comes to.
#[derive(Default)]
struct Plan {
    /// These are tried now.
    going: Vec<Attempted>,
    /// These are over without having been tried.
    over: Vec<Attempted>,
    /// These go another way, or wait as before.
    elsewhere: Vec<Update>,
}

/// Makes the attempt. Returns how it ended for each recipient that was tried or is over; the others went back to the
/// queue already.
pub(super) async fn run(shared: &Shared, in_force: &Arc<InForce>, picked: &Picked) -> Vec<Attempted> {
    let plan = plan(in_force, picked, UnixTime::now()).await;
    shared.queue().update(picked.entry.id, plan.elsewhere);
    shared.wake.notify_one();
    let mut ended = plan.over;
    if let Some(connector) = in_force.config.send_connector(&picked.connector).filter(|_| !plan.going.is_empty()) {
        let started = Instant::now();
        let tried = send(shared, in_force, connector, (&picked.entry, plan.going)).await;
        tell::took(&shared.parts.metrics, connector, started.elapsed());
        note_good(shared, &picked.entry, connector, &tried);
        let told = tried.into_iter().map(|tried| end(shared, in_force, (&picked.entry, connector), tried));
        ended.extend(concurrently(told.collect()).await);
    }
    ended
}

async fn plan(in_force: &Arc<InForce>, picked: &Picked, now: UnixTime) -> Plan {
    let mut plan = Plan::default();
    let basis = Basis::of(in_force);
    let recipients =
        picked.recipients.iter().filter_map(|(at, known)| Some((at, picked.entry.recipients.get(*at)?, known)));
    let decided = recipients.map(|(recipient, queued, known)| async move {
        let decided = redecide::redecide(in_force, &picked.entry, (queued, known), now).await;
        (recipient, queued, known, decided)
    });
    for (recipient, queued, known, decided) in concurrently(decided.collect()).await {
        let known = match decided {
            Some(_) => Known { basis: Some(basis.clone()), ..known.clone() },
            None => known.clone(),
        };
        let attempted = |route: &Route, refused_now| Attempted {
            recipient: *recipient,
            known: Known { rerouted: known.rerouted || *route != queued.route, ..known.clone() },
            route: route.clone(),
            refused_now,
            next_hop: "".into(),
            reply: TRY_AGAIN,
            end: End::Deferred,
        };
        match decided.unwrap_or_else(|| Now::Try(queued.route.clone())) {
            Now::Try(route) => plan.go(in_force, picked, attempted(&route, None), now),
            Now::TryOld(route, reply) => plan.go(in_force, picked, attempted(&route, Some(reply)), now),
            Now::Hold(why) if queued.state == State::Held(why.clone()) => {
                plan.elsewhere.push(Update {
                    recipient: *recipient,
                    state: queued.state.clone(),
                    route: queued.route.clone(),
                    known,
                });
            }
            Now::Hold(why) => plan.over.push(Attempted { end: End::Held(why), ..attempted(&queued.route, None) }),
            Now::NoWay(reply) => {
                let end = if reply.is_permanent() { End::Refused } else { End::Deferred };
                plan.over.push(Attempted { reply, end, ..attempted(&queued.route, None) });
            }
        }
    }
    plan
}

impl Plan {
    /// It is tried now if its way is still on this connector, in the same branch as the others; else it is queued there.
    fn go(&mut self, in_force: &InForce, picked: &Picked, attempted: Attempted, now: UnixTime) {
        let Some(queued) = picked.entry.recipients.get(attempted.recipient) else { return };
        let mine = attempted.route.connector == picked.connector && matches!(queued.state, State::Waiting { .. });
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
            State::Waiting { .. } => queued.state.clone(),
            State::Held(_) | State::Done(_) => State::due(now),
        };
        let known = Known { fresh: true, ..attempted.known };
        self.elsewhere.push(Update { recipient: attempted.recipient, state, route: attempted.route, known });
    }
}

/// Tries the branch the connector's way; each recipient with its answer.
async fn send(
    shared: &Shared,
    in_force: &InForce,
    connector: &SendConnector,
    (entry, going): (&Entry, Vec<Attempted>),
) -> Vec<(Attempted, Handed)> {
    let handed = match &connector.protocol {
        Protocol::Smtp(smtp) => by_smtp(shared, in_force, (connector, smtp), (entry, &going)).await,
        Protocol::Maildir(root) => {
            let mut handed = Vec::with_capacity(going.len());
            for attempted in &going {
                handed.push(to_mailbox(shared, in_force, root, (entry, attempted)).await);
            }
            handed
        }
    };
    let no_answer = || Handed { next_hop: "".into(), result: HandedResult::Deferred(TRY_AGAIN) };
    let mut handed = handed.into_iter();
    going.into_iter().map(|attempted| (attempted, handed.next().unwrap_or_else(no_answer))).collect()
}

async fn by_smtp(
    shared: &Shared,
    in_force: &InForce,
    (connector, smtp): (&SendConnector, &Arc<SmtpOut>),
    (entry, going): (&Entry, &[Attempted]),
) -> Vec<Handed> {
    let with_route = |attempted: &Attempted| {
        let queued = entry.recipients.get(attempted.recipient)?;
        Some(Queued { route: attempted.route.clone(), ..queued.clone() })
    };
    let queued: Vec<Queued> = going.iter().filter_map(with_route).collect();
    let Some(leader) = queued.first() else { return Vec::new() };
    let body = match shared.parts.spool.open(entry.id) {
        Ok(body) => body,
        Err(error) => return vec![unreadable(entry, &error); going.len()],
    };
    let named: Vec<_> = queued.iter().map(|queued| (&queued.rcpt.address, &queued.route.rcpt_to)).collect();
    let prefix = stamping::stamp(in_force, connector, &entry.content.identity, &named);
    let targets: Vec<Target<'_>> =
        queued.iter().map(|queued| Target { rcpt_to: &queued.route.rcpt_to, rcpt: &queued.rcpt }).collect();
    let branch = Branch {
        connector,
        smtp,
        next_hop_domain: &leader.route.next_hop_domain,
        origin: &entry.origin,
        sender: &entry.sender,
        content: &entry.content,
        prefix: prefix.as_bytes(),
        body,
        recipients: &targets,
    };
    let handed = shared.parts.outbound.send(&in_force.config.server.hostname, branch).await;
    remember(shared, connector, entry, (&queued, &handed));
    handed
}

/// What a next hop took is noted once a message (DESIGN section 6, rule 4).
fn remember(shared: &Shared, connector: &SendConnector, entry: &Entry, (queued, handed): (&[Queued], &[Handed])) {
    let now = UnixTime::now();
    let accepted = |handed: &Handed| matches!(handed.result, HandedResult::Accepted { .. });
    let mut memory = shared.parts.relay_memory.lock().unwrap_or_else(PoisonError::into_inner);
    for (queued, _) in queued.iter().zip(handed).filter(|(_, handed)| accepted(handed)) {
        memory.note(&Relayed {
            connector: &connector.name,
            recipient: &queued.rcpt.address,
            reverse_path: &entry.sender.reverse_path,
            facts: &entry.content.identity,
            now,
        });
    }
}

/// Whose mail was accepted is recently good (DESIGN section 5).
fn note_good(shared: &Shared, entry: &Entry, connector: &SendConnector, tried: &[(Attempted, Handed)]) {
    let now = UnixTime::now();
    let mut good = recently_good(shared);
    for (attempted, handed) in tried {
        if let (HandedResult::Accepted { .. }, Some(queued)) =
            (&handed.result, entry.recipients.get(attempted.recipient))
        {
            good.accepted(&queued.rcpt.address, &connector.name, now);
        }
    }
}

fn recently_good(shared: &Shared) -> MutexGuard<'_, RecentlyGood> {
    shared.parts.recently_good.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn to_mailbox(
    shared: &Shared,
    in_force: &InForce,
    root: &std::path::Path,
    (entry, attempted): (&Entry, &Attempted),
) -> Handed {
    let body = match shared.parts.spool.open(entry.id) {
        Ok(body) => body,
        Err(error) => return unreadable(entry, &error),
    };
    let host = &in_force.config.server.hostname;
    let letter = Letter {
        root: root.to_owned(),
        mailbox: attempted.route.rcpt_to.clone(),
        reverse_path: entry.sender.reverse_path.clone(),
        name: format!("{}.{}R{}.{host}", entry.received_at.0, entry.id, attempted.recipient),
        body,
    };
    let written = tokio::task::spawn_blocking(move || maildir::deliver(letter)).await;
    let error = match written {
        Ok(Ok(())) => {
            let result = HandedResult::Accepted { reply: IN_MAILBOX, dsn: false };
            return Handed { next_hop: "maildir".into(), result };
        }
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    let folder = maildir::folder(root, &attempted.route.rcpt_to);
    tracing::warn!(queue_id = %entry.id, folder = %folder.display(), error, "a mailbox cannot be written");
    Handed { next_hop: "".into(), result: HandedResult::Deferred(MAILBOX_UNWRITABLE) }
}

fn unreadable(entry: &Entry, error: &crate::spool::SpoolError) -> Handed {
    tracing::error!(queue_id = %entry.id, %error, "queued content cannot be read; delivery is tried again later");
    Handed { next_hop: "".into(), result: HandedResult::Deferred(TRY_AGAIN) }
}

/// How it ended for one recipient. "Unknown recipient" is believed only after the directory was asked live, and a
/// changed answer is followed once; where nothing changed, a recently good address is doubted for an hour (DESIGN
/// section 5, "doubt is temporary").
async fn end(
    shared: &Shared,
    in_force: &Arc<InForce>,
    (entry, connector): (&Entry, &SendConnector),
    (attempted, handed): (Attempted, Handed),
) -> Attempted {
    let (end, reply) = End::of(&handed, connector);
    let attempted = Attempted { next_hop: handed.next_hop.clone(), reply: reply.clone(), ..attempted };
    if let Some(end) = end {
        return Attempted { end, ..attempted };
    }
    let Some(queued) = entry.recipients.get(attempted.recipient) else { return attempted };
    let queued = Queued { route: attempted.route.clone(), ..queued.clone() };
    match redecide::decide(in_force, entry, &queued, Freshness::Live, UnixTime::now()).await {
        Ok(route) if attempted.known.followed || route.is_same_way(&queued.route) => {
            unknown(shared, &queued.rcpt.address, attempted)
        }
        Ok(route) => Attempted { end: End::Follow(route), ..attempted },
        Err(refused) if refused.is_permanent() => unknown(shared, &queued.rcpt.address, attempted),
        Err(refused) => instead(&refused, attempted),
    }
}

/// The next hop does not know it, and the directory knows nothing better.
fn unknown(shared: &Shared, address: &Address, attempted: Attempted) -> Attempted {
    let doubt = recently_good(shared).refused(address, UnixTime::now());
    match doubt {
        Doubt::Temporary => instead(&UNKNOWN_JUST_NOW, attempted),
        Doubt::Believe => Attempted { end: End::Refused, ..attempted },
    }
}

/// Deferred with this, whatever the next hop said.
fn instead(reply: &Reply, attempted: Attempted) -> Attempted {
    let reply = reply.saying(format!("{} (the next hop said: {})", reply.text, attempted.reply));
    Attempted { end: End::Deferred, reply, ..attempted }
}
