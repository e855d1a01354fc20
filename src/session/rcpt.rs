//! What RCPT is answered: the decision, and where the next hop takes part, its word (DESIGN section 7, "Cut-through").
//!
//! "Unknown recipient" from a next hop is believed only after the directory was asked live, and a changed answer is
//! followed once; who is recently good is doubted for an hour (section 5, "Doubt is temporary").

use std::sync::PoisonError;

use super::Services;
use super::passing_on::passed_on;
use super::transaction::{Accepted, Transaction, because, domain_label, is_loop};
use crate::config::{Config, Delivery, Protocol};
use crate::delivery::cut_through::{Asked, Said, TakesPart, Vouched};
use crate::delivery::on_its_way::{Asker, ComesFrom, Key};
use crate::delivery::unreachable::{self, Client, Past, Unreachable};
use crate::message::envelope::RcptTo;
use crate::routing::verdict::{Decision, Freshness, Route, Verdict, Way};
use crate::smtp::reply::{self, Reply};
use crate::time::UnixTime;
use crate::trace::{Event, What};

/// What the next hop's answer comes to.
enum Heard {
    /// The recipient is in.
    In,
    /// It is refused with this.
    Refused(Reply),
    /// The next hop does not know it, and says so like this.
    Unknown(Reply),
}

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
        let (refusal, loops) = match decision.verdict {
            Verdict::Accept(route) => match self.accept(services, session, &rcpt, (route, &why)).await {
                Ok(()) => {
                    count(label);
                    return Some(reply::RECIPIENT_OK);
                }
                Err(refusal) => (refusal, false),
            },
            Verdict::Refuse(refusal) => {
                let doubted = self.recently_good(services, |good, now| match row {
                    Some(10) => good.returned(&rcpt.address, &refusal, now),
                    _ => good.doubted(&rcpt.address, &refusal, now),
                });
                (doubted.unwrap_or_else(|| refusal.clone()), is_loop(row, &refusal))
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
        session: &str,
        rcpt: &RcptTo,
        (mut route, why): (Route, &str),
    ) -> Result<(), Reply> {
        // RFC 5321 4.1.1.3 does not forbid it, and nobody wants two copies.
        if self.recipients.iter().any(|known| known.rcpt == *rcpt) {
            return Ok(());
        }
        let mut why = why.to_owned();
        let mut followed = false;
        loop {
            let unknown = match self.ask_next_hop(services, session, (rcpt, &route)).await? {
                Heard::In => {
                    self.recipients.push(Accepted { rcpt: rcpt.clone(), route, because: why });
                    return Ok(());
                }
                Heard::Refused(refusal) => return Err(refusal),
                Heard::Unknown(unknown) => unknown,
            };
            let live = self.decide_live(rcpt).await;
            match live.verdict {
                Verdict::Accept(other) if !followed && !other.is_same_way(&route) => {
                    (followed, why) = (true, because(&live.reasons));
                    route = other;
                }
                Verdict::Accept(_) => {
                    let doubt = self
                        .recently_good(services, |good, now| good.doubted(&rcpt.address, &reply::USER_UNKNOWN, now));
                    return Err(doubt.unwrap_or(unknown));
                }
                Verdict::Refuse(refusal) => {
                    let doubt = self.recently_good(services, |good, now| good.doubted(&rcpt.address, &refusal, now));
                    return Err(doubt.unwrap_or(refusal));
                }
            }
        }
    }

    async fn decide_live(&self, rcpt: &RcptTo) -> Decision {
        self.in_force.resolver.resolve(&self.origin, &rcpt.address, Freshness::Live, UnixTime::now()).await
    }

    /// What the next hop of this route says; mail for one that takes no part is queued.
    ///
    /// # Errors
    /// A RCPT for the same recipient is on its way there, and it is not sent.
    async fn ask_next_hop(
        &mut self,
        services: &Services,
        session: &str,
        (rcpt, route): (&RcptTo, &Route),
    ) -> Result<Heard, Reply> {
        let in_force = self.in_force.clone();
        let Some(part) = part(&in_force.config, route) else { return Ok(Heard::In) };
        let key =
            Key { connector: &route.connector, recipient: &rcpt.address, reverse_path: &self.sender.reverse_path };
        let from = ComesFrom::of(&self.origin, part.connector, &services.outbound.known_addresses(part.smtp));
        let (patience, mode) = (part.cut_through.patience, in_force.config.loops.mode);
        let asker = Asker { began: self.began, from, patience, mode };
        let on_the_way = services.on_its_way.enter(key, asker).await?;
        let past = match self.recently_good(services, |good, now| good.is_good(&rcpt.address, now)) {
            true => Past::Good,
            false => Past::Nothing,
        };
        let vouched = match (route.way, past) {
            (Way::Resolved | Way::RelayedVerified, _) | (_, Past::Good) => Vouched::ForBy(session),
            _ => Vouched::No,
        };
        let asked =
            Asked { at: self.recipients.len(), rcpt, route, origin: &self.origin, sender: &self.sender, vouched };
        let said = self.branches.ask(part, &asked).await;
        drop(on_the_way);
        let words = |reply: &Reply| passed_on(reply, part.connector, &self.origin);
        Ok(match said {
            Said::Accepted => Heard::In,
            Said::TooMany => Heard::Refused(reply::TOO_MANY_RECIPIENTS),
            Said::PassedOn(reply) => Heard::Refused(words(&reply)),
            Said::Unknown(reply) => {
                let words = words(&reply);
                Heard::Unknown(Reply { enhanced: reply::USER_UNKNOWN.enhanced, code: 550, text: words.text })
            }
            Said::Unreachable(why) => {
                let client = if self.origin.is_stranger() { Client::Stranger } else { Client::Known };
                match unreachable::policy(part.cut_through.when_unreachable, route.way, client, past) {
                    Unreachable::Queue => {
                        tracing::info!(recipient = %rcpt.address, send_connector = %route.connector, reason = %why,
                            "next hop out of reach: queued");
                        self.branches.join(part, &asked);
                        Heard::In
                    }
                    Unreachable::Defer => {
                        tracing::info!(recipient = %rcpt.address, send_connector = %route.connector, reason = %why,
                            "next hop out of reach: deferred");
                        Heard::Refused(reply::NEXT_HOP_UNREACHABLE)
                    }
                }
            }
        })
    }

    /// Looks an address up among those that are recently good.
    pub(super) fn recently_good<T>(
        &self,
        services: &Services,
        look: impl FnOnce(&mut crate::routing::recently_good::RecentlyGood, UnixTime) -> T,
    ) -> T {
        let mut good = services.recently_good.lock().unwrap_or_else(PoisonError::into_inner);
        look(&mut good, UnixTime::now())
    }
}
