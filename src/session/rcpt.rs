//! Answers RCPT: by the routing decision and, where the next hop is part of the conversation, by its reply (DESIGN
//! section 7, "Cut-through").
//!
//! Pipelined RCPTs stay pipelined: [`Transaction::answer`] takes all that have been routed, sends them to the next hops
//! together, and answers them one after the other.

use std::sync::Arc;

use super::Services;
use super::answer::RefusedRcpt;
use super::transaction::{Accepted, Answer, Deciding, Transaction, is_loop};
use super::without_spool::can_keep;
use crate::config::{Config, Delivery, Protocol};
use crate::delivery::cut_through::{CutThroughRecipient, TakesPart};
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::rcpt_in_flight::{Asker, ComesFrom, Key, RcptInFlight};
use crate::delivery::refuses_everybody::Step;
use crate::delivery::slots::Vouched;
use crate::delivery::unknown::Judged;
use crate::delivery::unreachable::Unreachable;
use crate::pressure::held::cost;
use crate::routing::doubt::{Believed, Doubt, Followed, KnownBy, Refused};
use crate::routing::verdict::{Decision, Reason, Route, RouteKind, Verdict};
use crate::smtp::envelope::RcptTo;
use crate::smtp::reply::{self, Reply};
use crate::strangers::sums::Kind;

/// How the next hop of a route is part of the conversation; `None`: its mail is queued.
pub(super) fn part<'a>(config: &'a Config, route: &Route) -> Option<TakesPart<'a>> {
    let connector = config.send_connector(&route.connector)?;
    match (&connector.protocol, &connector.delivery) {
        (Protocol::Smtp(smtp), Delivery::CutThrough(cut_through)) => Some(TakesPart { connector, smtp, cut_through }),
        (Protocol::Smtp(_), Delivery::Queue) | (Protocol::Maildir(_), _) => None,
    }
}

/// The most RCPTs that are sent together.
const AT_ONCE: usize = 100;

/// A RCPT that has been routed.
pub(super) struct Decided {
    pub(super) rcpt: RcptTo,
    pub(super) decision: Decision,
}

/// The progress of a RCPT.
enum Stage {
    /// Its reply is known without the next hop.
    Answered(Result<(), Refusal>),
    /// It is sent to its next hop under this number.
    Asked(Route, usize, RcptInFlight),
}

pub(super) struct Refusal {
    pub(super) reply: Reply,
    /// The row of the table of refusals; empty: none.
    pub(super) row: &'static str,
    pub(super) loops: bool,
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self { reply, row: "", loops: false }
    }
}

impl Transaction {
    /// The reply to the oldest RCPT. RCPTs after it that have been routed are sent to their next hops together with it.
    /// `None`: no RCPT waits.
    pub(super) async fn answer(&mut self, services: &Services, session: &Arc<str>) -> Option<Answer> {
        if self.answers.is_empty() {
            let all = self.decided().await;
            self.answer_all(services, session, all).await;
        }
        self.answers.pop_front()
    }

    /// The oldest RCPT, once it is routed, and those after it that are routed by then.
    async fn decided(&mut self) -> Vec<Decided> {
        let mut all: Vec<Decided> = Vec::with_capacity(1);
        while let Some((rcpt, deciding)) = self.asked.front() {
            let again = all.iter().any(|one| one.rcpt == *rcpt);
            if again || !all.is_empty() && !deciding.is_decided() || all.len() == AT_ONCE {
                break;
            }
            let Some((rcpt, deciding)) = self.asked.pop_front() else { break };
            match deciding.decided().await {
                Ok(decision) => all.push(Decided { rcpt, decision }),
                Err(error) => {
                    tracing::error!(recipient = %rcpt.address, %error, "deciding about a recipient failed");
                    let verdict = Verdict::Refuse(reply::TRY_AGAIN); // anything not proven permanent is temporary
                    let decision = Decision { address: rcpt.address.clone(), verdict, reasons: Vec::new() };
                    all.push(Decided { rcpt, decision });
                }
            }
        }
        all
    }

    /// Asks the next hops about all that need it, then answers one after the other.
    async fn answer_all(&mut self, services: &Services, session: &Arc<str>, mut all: Vec<Decided>) {
        if services.memory.reports.are_many() && self.origin.is_stranger() {
            self.keep_to_one_system(&mut all);
        }
        let mut stages = Vec::with_capacity(all.len());
        for at in 0..all.len() {
            match self.stage(services, &mut all[at], at).await {
                Some(stage) => stages.push(stage),
                // It may have to wait for another session's question; nothing else is delayed by that.
                None => {
                    for later in all.split_off(at).into_iter().rev() {
                        self.asked.push_front((later.rcpt, Deciding::Made(later.decision)));
                    }
                    break;
                }
            }
        }
        let mut outcomes = self.ask_all(services, &all, &stages).await.into_iter();
        for (mut one, stage) in all.into_iter().zip(stages) {
            let answer = match stage {
                Stage::Answered(answer) => answer,
                Stage::Asked(route, number, on_the_way) => {
                    drop(on_the_way);
                    let outcome = outcomes.next().unwrap_or_else(Outcome::undone);
                    self.take(services, &mut one, number, route, outcome).await
                }
            };
            let answer = self.record(services, session, &one, answer);
            self.answers.push_back(answer);
        }
    }

    /// Defers recipients on another system than the first: one system's reply at the end of data can be passed on
    /// without a report.
    fn keep_to_one_system(&self, all: &mut [Decided]) {
        let system = |route: &Route| (route.connector.clone(), route.next_hop_domain.clone());
        let mut first = self.recipients.first().map(|accepted| system(&accepted.route));
        for Decided { decision, .. } in all {
            let Verdict::Accept(route) = &decision.verdict else { continue };
            if *first.get_or_insert_with(|| system(route)) != system(route) {
                decision.verdict = Verdict::Refuse(reply::TOO_MANY_RECIPIENTS);
            }
        }
    }

    /// The reply, if it is known without the next hop. `None`: only the first of several may wait for another session,
    /// and this one, with `before` others ahead, might have to.
    async fn stage(&mut self, services: &Services, one: &mut Decided, before: usize) -> Option<Stage> {
        let Decided { rcpt, decision } = one;
        let route = match &decision.verdict {
            Verdict::Accept(route) => route,
            Verdict::Refuse(reply) => {
                let refused = Refused::ByUs { row: decision.row(), reply };
                let by = KnownBy::of(decision);
                let doubt = services.memory.doubt(&rcpt.address, by, &refused).await;
                let loops = is_loop(decision.row(), reply);
                let reply = if doubt == Doubt::Temporary { reply::UNKNOWN_JUST_NOW } else { reply.clone() };
                return Some(Stage::Answered(Err(Refusal { reply, row: "", loops })));
            }
        };
        // RFC 5321 4.1.1.3 does not forbid duplicates, but nobody wants two copies.
        if self.recipients.iter().any(|known| known.rcpt == *rcpt) {
            return Some(Stage::Answered(Ok(())));
        }
        if !can_keep(services) {
            if before > 0 {
                return None; // one after the other: what may be taken depends on who was
            }
            if !self.goes_without_spool(rcpt, route) {
                return Some(Stage::Answered(Err(reply::TRY_AGAIN.into())));
            }
        }
        let in_force = self.in_force.clone();
        let Some(part) = part(&in_force.config, route) else {
            let number = self.next_number();
            self.accept(rcpt, number, route.clone(), std::mem::take(&mut decision.reasons));
            return Some(Stage::Answered(Ok(())));
        };
        match self.enter(services, rcpt, route, part, before).await? {
            Ok(on_the_way) => Some(Stage::Asked(route.clone(), self.next_number(), on_the_way)),
            Err(reply) => Some(Stage::Answered(Err(reply.into()))),
        }
    }

    /// Registers a RCPT before its next hop is asked; the same RCPT in another session may have to be waited for
    /// (DESIGN section 6, rule 2).
    async fn enter(
        &self,
        services: &Services,
        rcpt: &RcptTo,
        route: &Route,
        part: TakesPart<'_>,
        before: usize,
    ) -> Option<Result<RcptInFlight, Reply>> {
        if self.is_refused_at_dot(services, rcpt, route).await {
            return Some(Err(reply::USER_UNKNOWN));
        }
        let from = ComesFrom::of(&self.origin, part.connector, &services.outbound.known_addresses(part.smtp));
        if before > 0 && from == ComesFrom::NextHop {
            return None;
        }
        let (mode, patience) = (self.in_force.config.loops.mode, part.cut_through.patience);
        let key =
            Key { connector: &route.connector, recipient: &rcpt.address, reverse_path: &self.sender.reverse_path };
        Some(services.rcpts_in_flight.enter(key, Asker { began: self.began, from, mode, patience }).await)
    }

    /// The next hops' outcomes for those that are asked about, in their order.
    async fn ask_all(&mut self, services: &Services, all: &[Decided], stages: &[Stage]) -> Vec<Outcome> {
        let mut asked = Vec::with_capacity(all.len());
        for (one, stage) in all.iter().zip(stages) {
            if let Stage::Asked(route, number, _) = stage {
                asked.push((&one.rcpt, route, *number));
            }
        }
        self.ask_these(services, &asked).await
    }

    async fn ask_these(&mut self, services: &Services, all: &[(&RcptTo, &Route, usize)]) -> Vec<Outcome> {
        let in_force = self.in_force.clone();
        let mut asked = Vec::with_capacity(all.len());
        for (rcpt, route, at) in all.iter().copied() {
            let Some(part) = part(&in_force.config, route) else { continue };
            if !self.branches.has(route) {
                services.memory.everybody().message(&route.connector, self.source());
            }
            let vouched = match route.way {
                RouteKind::Resolved | RouteKind::Redirected | RouteKind::RelayedVerified => true,
                RouteKind::Relayed | RouteKind::External => {
                    self.recently_good(services, |good, now| good.is_good(&rcpt.address, now))
                }
            };
            let otherwise = self.otherwise(route, || vouched);
            let vouched = if vouched { Vouched::Yes } else { Vouched::No };
            let (origin, sender) = (&*self.origin, &self.sender);
            asked.push((part, CutThroughRecipient { at, rcpt, route, origin, sender, otherwise, vouched }));
        }
        self.branches.ask(&asked).await
    }

    /// Turns a next hop's outcome into a reply. "Unknown recipient" is believed only after the directory was asked
    /// live, and a changed answer is followed once.
    async fn take(
        &mut self,
        services: &Services,
        one: &mut Decided,
        mut number: usize,
        mut route: Route,
        mut outcome: Outcome,
    ) -> Result<(), Refusal> {
        let (rcpt, why) = (&one.rcpt, &mut one.decision.reasons);
        let mut followed = Followed::NotYet;
        loop {
            services.memory.refused(&rcpt.address, &outcome);
            match outcome.class {
                Class::Accepted => {
                    services.memory.taken(&rcpt.address, &route, &outcome.next_hop, Step::Rcpt);
                    self.accept(rcpt, number, route, std::mem::take(why));
                    return Ok(());
                }
                Class::Unreachable => return self.unreached(services, one, number, route, &outcome),
                Class::Refused if self.refuses_everybody(services, &rcpt.address, &route, &outcome) => {
                    return self.unreached(services, one, number, route, &outcome);
                }
                Class::UnknownRecipient => {}
                Class::Deferred | Class::Refused | Class::TooManyRecipients | Class::LeftToQueue | Class::InDoubt => {
                    let reply = self.words(&route, &outcome);
                    return Err(Refusal { row: outcome.row, ..reply.into() });
                }
            }
            let (address, route_now) = (&rcpt.address, &route);
            let refused = RefusedRcpt { address, route: route_now, followed, outcome: &outcome, step: Step::Rcpt };
            let (judged, reasons) = Box::pin(self.judge(services, refused)).await;
            let reply = match judged {
                Judged::Follow(other) => {
                    (followed, *why, route) = (Followed::Already, reasons, other);
                    number = self.next_number();
                    outcome = match part(&self.in_force.config, &route) {
                        Some(_) => Box::pin(self.ask_again(services, rcpt, &route, number)).await?,
                        None => Outcome::ours(Class::Accepted, reply::RECIPIENT_OK),
                    };
                    continue;
                }
                Judged::Unreachable => return self.unreached(services, one, number, route, &outcome),
                Judged::Temporary => reply::UNKNOWN_JUST_NOW,
                Judged::Defer(reply) | Judged::Believe(Believed::Ourselves(reply)) => reply,
                Judged::Believe(Believed::NextHop) => {
                    let text = self.words(&route, &outcome).text;
                    Reply { enhanced: reply::USER_UNKNOWN.enhanced, code: 550, text }
                }
            };
            return Err(Refusal { row: outcome.row, ..reply.into() });
        }
    }

    /// Asks about the same recipient by another route.
    async fn ask_again(
        &mut self,
        services: &Services,
        rcpt: &RcptTo,
        route: &Route,
        number: usize,
    ) -> Result<Outcome, Refusal> {
        let in_force = self.in_force.clone();
        let Some(part) = part(&in_force.config, route) else { return Ok(Outcome::undone()) };
        let entered = self.enter(services, rcpt, route, part, 0).await;
        let on_the_way = entered.unwrap_or(Err(reply::TRY_AGAIN))?;
        let outcome = self.ask_these(services, &[(rcpt, route, number)]).await.pop();
        drop(on_the_way);
        Ok(outcome.unwrap_or_else(Outcome::undone))
    }

    fn accept(&mut self, rcpt: &RcptTo, number: usize, route: Route, reasons: Vec<Reason>) {
        self.held.recipient(cost(&rcpt.address, rcpt.orcpt.as_deref()));
        self.recipients.push(Accepted { number, rcpt: rcpt.clone(), route, reasons });
    }

    fn next_number(&mut self) -> usize {
        self.last_number += 1;
        self.last_number
    }

    /// No next hop is reachable: the recipient is queued, or the client keeps it.
    fn unreached(
        &mut self,
        services: &Services,
        one: &mut Decided,
        at: usize,
        route: Route,
        outcome: &Outcome,
    ) -> Result<(), Refusal> {
        let (rcpt, why) = (&one.rcpt, &mut one.decision.reasons);
        let in_force = self.in_force.clone();
        let otherwise = match can_keep(services) {
            true => self.when_unreachable(services, &rcpt.address, &route),
            false => Unreachable::Defer,
        };
        let what = match otherwise {
            Unreachable::Queue => "queued",
            Unreachable::Defer => "deferred",
        };
        // Logged in either case: nothing is accepted yet, and RSET may follow.
        if self.is_told(services, Kind::OutOfReach, outcome.row, &rcpt.address, &outcome.reply) {
            tracing::info!(recipient = %rcpt.address, send_connector = %route.connector, reason = %outcome.reply,
                row = outcome.row_name(), "next hop out of reach: {what}");
        }
        match part(&in_force.config, &route) {
            Some(part) if otherwise == Unreachable::Queue => {
                let (origin, sender, vouched) = (&*self.origin, &self.sender, Vouched::No);
                self.branches
                    .join(part, &CutThroughRecipient { at, rcpt, route: &route, origin, sender, otherwise, vouched });
                self.accept(rcpt, at, route, std::mem::take(why));
                Ok(())
            }
            _ => Err(Refusal { row: outcome.row, ..reply::NEXT_HOP_UNREACHABLE.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::commit::tests::{services, transaction};

    #[tokio::test]
    async fn what_goes_to_one_system_needs_no_report() {
        let folder = tempfile::tempdir().unwrap();
        let (services, _committed) = services(folder.path());
        let accepted = transaction(&services, &["a@contoso.com", "b@contoso.com", "c@contoso.com"]).recipients;
        let mut all: Vec<Decided> = Vec::new();
        for (accepted, connector) in accepted.into_iter().zip(["exchange", "groupwise", "exchange"]) {
            let route = Route { connector: connector.into(), ..accepted.route };
            let address = accepted.rcpt.address.clone();
            let decision = Decision { address, verdict: Verdict::Accept(route), reasons: Vec::new() };
            all.push(Decided { rcpt: accepted.rcpt, decision });
        }
        let put_off = |all: &[Decided]| -> Vec<bool> {
            let later = Verdict::Refuse(reply::TOO_MANY_RECIPIENTS);
            all.iter().map(|one| one.decision.verdict == later).collect()
        };
        transaction(&services, &[]).keep_to_one_system(&mut all);
        assert_eq!(put_off(&all), [false, true, false], "RCPTs that came together");
        let mut behind = transaction(&services, &["d@contoso.com"]);
        behind.recipients[0].route.connector = "groupwise".into();
        behind.keep_to_one_system(&mut all);
        assert_eq!(put_off(&all), [true, true, true], "and those that came later");
    }
}
