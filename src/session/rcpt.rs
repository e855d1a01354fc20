//! What RCPT is answered: the decision, and where the next hop takes part, its word (DESIGN section 7, "Cut-through").
//!
//! "Unknown recipient" from a next hop is believed only after the directory was asked live, and a changed answer is
//! followed once; who is recently good is doubted for an hour (section 5, "Doubt is temporary").

use super::Services;
use super::passing_on::passed_on;
use super::transaction::{Accepted, Transaction, because, domain_label, is_loop};
use crate::config::{Config, Delivery, Protocol, WhenUnreachable};
use crate::delivery::cut_through::{Asked, TakesPart};
use crate::delivery::on_its_way::{Asker, ComesFrom, Key};
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refuses_everybody::{Source, Step};
use crate::delivery::unknown::{Judged, Unknown};
use crate::delivery::unreachable::{self, Client, Past, Unreachable};
use crate::message::envelope::RcptTo;
use crate::routing::doubt::{Believed, Doubt, Followed, KnownBy, Refused};
use crate::routing::verdict::{Freshness, Reason, Route, Verdict};
use crate::smtp::address::Address;
use crate::smtp::reply::{self, Reply};
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// How the next hop of a route takes part in the conversation; `None`: its mail is queued.
pub(super) fn part<'a>(config: &'a Config, route: &Route) -> Option<TakesPart<'a>> {
    let connector = config.send_connector(&route.connector)?;
    match (&connector.protocol, &connector.delivery) {
        (Protocol::Smtp(smtp), Delivery::CutThrough(cut_through)) => Some(TakesPart { connector, smtp, cut_through }),
        (Protocol::Smtp(_), Delivery::Queue) | (Protocol::Maildir(_), _) => None,
    }
}

impl Transaction {
    /// Waits for the oldest decision that is under way and says what RCPT is answered. `None`: none is.
    pub(super) async fn answer(&mut self, services: &Services, session: &str) -> Option<Reply> {
        let (rcpt, deciding) = self.asked.pop_front()?;
        let decision = match deciding.decided().await {
            Ok(decision) => decision,
            Err(error) => {
                tracing::error!(recipient = %rcpt.address, %error, "deciding about a recipient failed");
                return Some(reply::TRY_AGAIN); // anything not proven permanent is temporary
            }
        };
        let domain = domain_label(&self.in_force.config.routing, &rcpt.address);
        let count = |label| services.metrics.recipients.with_label_values(&[domain.as_str(), label]).inc();
        let (why, row, label) = (because(&decision.reasons), decision.row(), decision.label());
        let by = KnownBy::of(&decision);
        let (refusal, loops) = match decision.verdict {
            Verdict::Accept(route) => match self.accept(services, &rcpt, (route, &why)).await {
                Ok(()) => {
                    count(label);
                    return Some(reply::RECIPIENT_OK);
                }
                Err(refusal) => (refusal, false),
            },
            Verdict::Refuse(refusal) => {
                let refused = Refused::ByUs { row, reply: &refusal };
                let doubt = self.recently_good(services, |good, now| good.doubt(&rcpt.address, by, &refused, now));
                let loops = is_loop(row, &refusal);
                (if doubt == Doubt::Temporary { reply::UNKNOWN_JUST_NOW } else { refusal }, loops)
            }
        };
        count(if refusal.is_permanent() { "refused" } else { "deferred" });
        tracing::info!(sender = %self.sender.reverse_path, recipient = %rcpt.address, reply = %refusal, because = why,
            "recipient refused");
        if loops {
            services.metrics.loops.with_label_values(&["resolves-first"]).inc();
        }
        services.trace.record(&Event {
            recipient: rcpt.address.as_str().into(),
            detail: format!("{refusal} ({why})").into(),
            ..self.event(session, What::Refused)
        });
        Some(refusal)
    }

    /// Takes the recipient in, if its next hop does.
    ///
    /// # Errors
    /// What RCPT is answered instead.
    async fn accept(
        &mut self,
        services: &Services,
        rcpt: &RcptTo,
        (mut route, why): (Route, &str),
    ) -> Result<(), Reply> {
        // RFC 5321 4.1.1.3 does not forbid it, and nobody wants two copies.
        if self.recipients.iter().any(|known| known.rcpt == *rcpt) {
            return Ok(());
        }
        let mut why = why.to_owned();
        let mut followed = Followed::NotYet;
        loop {
            let outcome = self.ask_next_hop(services, (rcpt, &route)).await?;
            let words = match outcome.class {
                Class::Accepted => {
                    self.recipients.push(Accepted { rcpt: rcpt.clone(), route, because: why });
                    return Ok(());
                }
                Class::UnknownRecipient => self.words(&route, &outcome),
                Class::Deferred
                | Class::Refused
                | Class::TooManyRecipients
                | Class::Unreachable
                | Class::LeftToQueue
                | Class::InDoubt => return Err(self.words(&route, &outcome)),
            };
            match self.judge(services, &rcpt.address, (&route, followed), (&outcome, Step::Rcpt)).await {
                (Judged::Follow(other), reasons) => {
                    (followed, why) = (Followed::Already, because(&reasons));
                    route = other;
                }
                (Judged::Temporary, _) => return Err(reply::UNKNOWN_JUST_NOW),
                (Judged::Defer(reply) | Judged::Believe(Believed::Ourselves(reply)), _) => return Err(reply),
                (Judged::Believe(Believed::NextHop), _) => {
                    return Err(Reply { enhanced: reply::USER_UNKNOWN.enhanced, code: 550, text: words.text });
                }
                (Judged::Unreachable, _) => {
                    let Some(part) = part(&self.in_force.config, &route) else { return Err(reply::TRY_AGAIN) };
                    let otherwise = self.when_unreachable(services, (&rcpt.address, &route));
                    if otherwise == Unreachable::Defer {
                        return Err(reply::NEXT_HOP_UNREACHABLE);
                    }
                    let (at, origin, sender) = (self.recipients.len(), &*self.origin, &self.sender);
                    self.branches.join(part, &Asked { at, rcpt, route: &route, origin, sender, otherwise });
                    self.recipients.push(Accepted { rcpt: rcpt.clone(), route, because: why });
                    return Ok(());
                }
            }
        }
    }

    /// What becomes of a recipient that a next hop does not know, and what the directory, asked live, says.
    pub(super) async fn judge(
        &self,
        services: &Services,
        address: &Address,
        (route, followed): (&Route, Followed),
        (outcome, step): (&Outcome, Step),
    ) -> (Judged, Vec<Reason>) {
        let now = UnixTime::now();
        let live = self.in_force.resolver.resolve(&self.origin, address, Freshness::Live, now).await;
        let unknown = Unknown {
            address,
            route,
            followed,
            live: &live.verdict,
            by: KnownBy::of(&live),
            next_hop: &outcome.next_hop,
            step,
            said: &outcome.reply,
            source: Source { reverse_path: &self.sender.reverse_path, client: self.origin.client },
        };
        (services.memory.judge(&unknown, now), live.reasons)
    }

    /// An outcome as the client hears it: a next hop's own words as such.
    pub(super) fn words(&self, route: &Route, outcome: &Outcome) -> Reply {
        let connector = self.in_force.config.send_connector(&route.connector);
        match (outcome.class, connector) {
            (Class::Unreachable, _) => reply::NEXT_HOP_UNREACHABLE,
            (Class::InDoubt, _) => reply::OUTCOME_UNKNOWN,
            (Class::TooManyRecipients, Some(connector)) if outcome.is_in_its_words() => {
                let full = reply::TOO_MANY_RECIPIENTS.saying(outcome.reply.text.clone());
                passed_on(&full, connector, &self.origin)
            }
            (_, Some(connector)) if outcome.is_in_its_words() => passed_on(&outcome.reply, connector, &self.origin),
            _ => outcome.reply.clone(),
        }
    }

    /// What the next hop of this route says; mail for one that takes no part, or is out of reach, may be queued.
    ///
    /// # Errors
    /// A RCPT for the same recipient is on its way there, and it is not sent.
    async fn ask_next_hop(&mut self, services: &Services, (rcpt, route): (&RcptTo, &Route)) -> Result<Outcome, Reply> {
        let in_force = self.in_force.clone();
        let queued = || Outcome::ours(Class::Accepted, reply::RECIPIENT_OK);
        let Some(part) = part(&in_force.config, route) else { return Ok(queued()) };
        let key =
            Key { connector: &route.connector, recipient: &rcpt.address, reverse_path: &self.sender.reverse_path };
        let from = ComesFrom::of(&self.origin, part.connector, &services.outbound.known_addresses(part.smtp));
        let (patience, mode) = (part.cut_through.patience, in_force.config.loops.mode);
        let asker = Asker { began: self.began, from, patience, mode };
        let on_the_way = services.on_its_way.enter(key, asker).await?;
        let otherwise = self.when_unreachable(services, (&rcpt.address, route));
        if self.recently_good(services, |good, now| good.is_refused_at_dot(&rcpt.address, route, now)) {
            return Err(reply::USER_UNKNOWN);
        }
        let source = Source { reverse_path: &self.sender.reverse_path, client: self.origin.client };
        if !self.branches.has(route) {
            services.memory.everybody().message(&route.connector, source);
        }
        let asked =
            Asked { at: self.recipients.len(), rcpt, route, origin: &self.origin, sender: &self.sender, otherwise };
        let outcome = self.branches.ask(part, &asked).await;
        drop(on_the_way);
        if outcome.class == Class::Accepted {
            services.memory.taken(&rcpt.address, route, (&outcome.next_hop, Step::Rcpt));
        }
        if outcome.class != Class::Unreachable {
            return Ok(outcome);
        }
        let what = match otherwise {
            Unreachable::Queue => "queued",
            Unreachable::Defer => "deferred",
        };
        tracing::info!(recipient = %rcpt.address, send_connector = %route.connector, reason = %outcome.reply,
            "next hop out of reach: {what}");
        match otherwise {
            Unreachable::Queue => {
                self.branches.join(part, &asked);
                Ok(queued())
            }
            Unreachable::Defer => Ok(outcome),
        }
    }

    /// What becomes of a recipient whose next hop cannot be used.
    pub(super) fn when_unreachable(&self, services: &Services, (address, route): (&Address, &Route)) -> Unreachable {
        let when =
            part(&self.in_force.config, route).map_or(WhenUnreachable::Queue, |part| part.cut_through.when_unreachable);
        let client = if self.origin.is_stranger() { Client::Stranger } else { Client::Known };
        let past = match self.recently_good(services, |good, now| good.is_good(address, now)) {
            true => Past::Good,
            false => Past::Nothing,
        };
        unreachable::policy(when, route.way, client, past)
    }

    /// Looks an address up among those that are recently good.
    pub(super) fn recently_good<T>(
        &self,
        services: &Services,
        look: impl FnOnce(&mut crate::routing::recently_good::RecentlyGood, UnixTime) -> T,
    ) -> T {
        look(&mut services.memory.good(), UnixTime::now())
    }
}
