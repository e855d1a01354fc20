//! Refused recipients, at RCPT or at the end of data: they are counted, logged and traced, and the reply is delayed for
//! a client that harvests addresses.
//!
//! Repeated events of strangers are logged as summaries ([`crate::strangers`]).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use super::Services;
use super::rcpt::{Decided, Refusal};
use super::transaction::{Answer, Transaction, domain_label, join_reasons};
use crate::one_client::{one_client, shown};
use crate::routing::loops::LoopRule;
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::reply::{self, Reply};
use crate::strangers::harvest::{Pace, Sends, Who};
use crate::strangers::sums::{About, Kind};
use crate::trace::{Event, What};

impl Transaction {
    /// Counts, logs and traces the reply to a RCPT.
    pub(super) fn record(
        &mut self,
        services: &Services,
        session: &Arc<str>,
        one: &Decided,
        answer: Result<(), Refusal>,
    ) -> Answer {
        let address = &one.rcpt.address;
        let domain = domain_label(&self.in_force.config.routing, address);
        let domain = services.metrics.counted_domains.label(&domain);
        let count = |label| services.metrics.recipients.with_label_values(&[domain, label]).inc();
        let Refusal { reply, row, loops } = match answer {
            Ok(()) => {
                count(one.decision.label());
                if self.is_looked_at() && services.strangers.accepted(self.who(), address.key()) {
                    self.counted += 1;
                }
                return Answer { reply: reply::RECIPIENT_OK, late: Duration::ZERO };
            }
            Err(refusal) => refusal,
        };
        count(if reply.is_permanent() { "refused" } else { "deferred" });
        if loops {
            services.metrics.loops.with_label_values(&["resolves-first"]).inc();
        }
        let why = &join_reasons(&one.decision.reasons);
        let detail = why.replace(address.as_str(), "");
        if self.is_told(services, Kind::RefusedRecipient, &detail, address, &reply) {
            tracing::info!(sender = %self.sender.reverse_path, recipient = %address, %reply,
                row = (!row.is_empty()).then_some(row), because = why, "recipient refused");
            let by = if row.is_empty() { String::new() } else { format!("refusal {row}; ") };
            services.trace.record(&Event {
                recipient: address.as_str().into(),
                detail: format!("{reply} ({by}{why})").into(),
                ..self.event(session, What::Refused)
            });
        }
        self.paced(services, session, address, reply)
    }

    /// Whether an event of a recipient is logged individually, not as part of a summary.
    pub(super) fn is_told(
        &self,
        services: &Services,
        what: Kind,
        detail: &str,
        address: &Address,
        reply: &Reply,
    ) -> bool {
        if !self.origin.is_stranger() {
            return true;
        }
        let enhanced = reply.enhanced.map(|enhanced| format!(" {enhanced}")).unwrap_or_default();
        let domain = domain_label(&self.in_force.config.routing, address);
        // Without the next hop's text, which may contain the address.
        let reason = format!("{}{enhanced}", reply.code);
        let about = About::new(what, self.client(), &reason);
        services.strangers.tells(&About { domain: &domain, detail, sample: address.as_str(), ..about })
    }

    /// Whether a loop of a message or recipient is logged individually.
    pub(super) fn is_loop_told(&self, services: &Services, rule: LoopRule) -> bool {
        self.tells(services, Kind::Looped, rule.label())
    }

    /// Whether an event of a whole message is logged individually; `reason` is one of a few.
    pub(super) fn tells(&self, services: &Services, what: Kind, reason: &str) -> bool {
        let about = About { sample: self.sender.reverse_path.as_str(), ..About::new(what, self.client(), reason) };
        !self.origin.is_stranger() || services.strangers.tells(&about)
    }

    /// A refusal and its delay: a client that harvests addresses waits.
    pub(super) fn paced(&self, services: &Services, session: &Arc<str>, address: &Address, reply: Reply) -> Answer {
        if !is_unknown(&reply) || !self.is_looked_at() {
            return Answer { reply, late: Duration::ZERO };
        }
        let limits = &self.connector.limits;
        match services.strangers.unknown(self.who(), session, address.key(), limits) {
            Pace::AtOnce => Answer { reply, late: Duration::ZERO },
            Pace::Later { news, times } => {
                services.metrics.unknown_delayed.with_label_values(&[&*self.connector.name]).inc();
                if news {
                    self.tell_harvest(services, session);
                }
                if services.strangers.one_session_begins(self.who()) {
                    self.tell_one_session(services, session);
                }
                Answer { reply, late: limits.unknown_delay.saturating_mul(times) }
            }
            Pace::Closed => Answer { reply: reply::TOO_MANY_UNKNOWN, late: Duration::ZERO },
        }
    }

    /// The reply at the end of data reveals that these recipients are unknown, which RCPT did not. Returns how long it
    /// is delayed.
    pub(super) fn paced_at_dot(
        &self,
        services: &Services,
        session: &Arc<str>,
        unknown: &[usize],
        reply: Reply,
    ) -> Answer {
        if let Some(credit) = self.credit(self.counted.saturating_sub(unknown.len())) {
            credit.give(services);
        }
        let mut late = Duration::ZERO;
        for at in unknown {
            let answer = self.paced(services, session, &self.recipients[*at].rcpt.address, reply.clone());
            if answer.reply != reply {
                return answer;
            }
            late = late.max(answer.late);
        }
        Answer { reply, late }
    }

    /// The client's credit if this many recipients are accepted in the end.
    pub(super) fn credit(&self, accepted: usize) -> Option<Credit> {
        let (who, counted) = (self.who(), self.counted);
        self.is_looked_at().then_some(Credit { who, counted, accepted })
    }

    /// The transaction was aborted: recipients without a message do not count as accepted.
    pub(super) fn abandoned(&self, services: &Services) {
        if let Some(credit) = self.credit(0) {
            credit.give(services);
        }
    }

    fn tell_harvest(&self, services: &Services, session: &str) {
        let limits = &self.connector.limits;
        let found = format!(
            "{} different recipients are unknown within {:?}, more than were accepted; refusals are told {:?} later",
            limits.unknown_recipients, limits.unknown_within, limits.unknown_delay
        );
        self.tell_limit(services, session, "later refusals: [receive_connector.limits]", &found);
    }

    fn tell_one_session(&self, services: &Services, session: &str) {
        let limits = &self.connector.limits;
        let found = format!(
            "{} different recipients are unknown within {:?}, ten times those accepted; it has one session at a time, and \
             hears 421 in others",
            limits.unknown_one_session, limits.unknown_within
        );
        self.tell_limit(services, session, "one session at a time: [receive_connector.limits]", &found);
    }

    /// A client has reached a limit; `reason` is used in summaries of such clients.
    fn tell_limit(&self, services: &Services, session: &str, reason: &str, found: &str) {
        let client = one_client(self.client());
        if !services.strangers.tells(&About::new(Kind::Harvester, client, reason)) {
            return;
        }
        let connector = &*self.connector.name;
        let detail = format!(
            "{} looks for addresses: {found} ([receive_connector.limits] of `{connector}` has the figures)",
            shown(client)
        );
        tracing::warn!("{detail}");
        services.trace.record(&Event { detail: detail.into(), ..self.event(session, What::Refused) });
    }

    /// Whether unknown recipients of this client count as harvesting.
    fn is_looked_at(&self) -> bool {
        self.origin.is_stranger() && self.connector.is_for_anybody()
    }

    /// Under which client its recipients are counted.
    fn who(&self) -> Who {
        let sends = match &self.sender.reverse_path {
            ReversePath::Null => Sends::Reports,
            ReversePath::Address(_) => Sends::Mail,
        };
        Who { client: one_client(self.client()), sends }
    }

    /// The client's address; reports of ours have none.
    fn client(&self) -> IpAddr {
        self.origin.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// Whether a refusal says that the recipient does not exist.
pub(super) fn is_unknown(reply: &Reply) -> bool {
    reply.is_permanent() && reply.enhanced == reply::USER_UNKNOWN.enhanced
}

/// Recipients of a message that are accepted in the end, for one client.
pub(super) struct Credit {
    who: Who,
    /// Those that have been counted already.
    counted: usize,
    accepted: usize,
}

impl Credit {
    /// Counts them, once the end of data has been answered.
    pub(super) fn give(self, services: &Services) {
        services.strangers.settled(self.who, self.counted, self.accepted);
    }
}
