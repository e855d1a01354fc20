//! Why a next hop could not be used: the reply for the queue, whether to raise an alert, and whether other mail for it
//! has to wait too.

use std::sync::Arc;

use super::connection::{Broken, Connection};
use crate::delivery::outcome::{Class, Outcome};
use crate::delivery::refusal::read::{Meaning, Reading};
use crate::delivery::refusal::row::{Row, Subject};
use crate::delivery::refusal::{Alert, Step};
use crate::smtp::reply::{Enhanced, Reply};

/// RFC 3463 3.5, X.4.1: no answer from host.
pub(super) const NO_ANSWER: Enhanced = Enhanced(4, 4, 1);
/// X.4.2: bad connection.
pub(super) const BAD_CONNECTION: Enhanced = Enhanced(4, 4, 2);
/// X.4.3: directory server failure; here DNS.
pub(super) const NO_DNS: Enhanced = Enhanced(4, 4, 3);
/// X.4.6: routing loop.
pub(super) const LOOP: Enhanced = Enhanced(4, 4, 6);
/// X.7.4: security features not supported.
pub(super) const NO_SECURITY: Enhanced = Enhanced(4, 7, 4);
/// X.7.5: cryptographic failure.
pub(super) const BAD_SECURITY: Enhanced = Enhanced(4, 7, 5);

/// What the error concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The host: no connection became ready for MAIL. It counts as a failure of the host.
    Host,
    /// The host accepts no more connections, or messages, for now. It is healthy.
    Crowded,
    /// Possibly the host: an established connection broke. The host is tested.
    Suspect,
    /// This message only; the host is healthy.
    Message,
    /// Not the host: the wait was for us, or ended for another reason.
    Ours,
}

/// Why a next hop could not be used; the next one is tried.
#[derive(Debug, Clone)]
pub(crate) struct NextHopError {
    /// Empty if none was reached.
    pub next_hop: Arc<str>,
    /// For the queue: always 4xx.
    pub reply: Reply,
    pub scope: Scope,
    /// Whether an operator has to look at it.
    pub alert: Alert,
    /// The step at which it happened; `None`: before the greeting.
    pub step: Option<Step>,
    /// The row of the table of refusals, if it is a refusal.
    pub row: Option<&'static Row>,
}

impl NextHopError {
    /// The host could not be reached.
    #[must_use]
    pub(super) fn unreached(enhanced: Enhanced, text: String) -> Self {
        let reply = Reply { code: 451, enhanced: Some(enhanced), text: text.into() };
        Self { next_hop: "".into(), reply, scope: Scope::Host, alert: Alert::No, step: None, row: None }
    }

    /// At a next hop that was reached.
    #[must_use]
    pub(super) fn at(next_hop: &Arc<str>, enhanced: Enhanced, text: &str) -> Self {
        let unreached = Self::unreached(enhanced, format!("{next_hop}: {text}"));
        Self { next_hop: next_hop.clone(), ..unreached }
    }

    /// The same with an alert.
    #[must_use]
    pub(super) fn alerting(self) -> Self {
        Self { alert: Alert::Yes, ..self }
    }

    /// The same with the step.
    #[must_use]
    pub(super) fn at_step(self, step: Step) -> Self {
        Self { step: Some(step), ..self }
    }

    /// The conversation broke.
    #[must_use]
    pub(super) fn broken(connection: &Connection, broken: &Broken, step: Step) -> Self {
        let enhanced = match broken {
            Broken::TimedOut(_) | Broken::Silent(_) | Broken::BlackHole(_) => NO_ANSWER,
            Broken::Closed | Broken::Io(_) | Broken::Reply(_) => BAD_CONNECTION,
        };
        let scope = match (step, broken) {
            _ if is_before_mail(step) => Scope::Host,
            // A server may delay its reply about a recipient (Exchange's tarpit): that does not make it unhealthy.
            (Step::Rcpt, Broken::TimedOut(_)) => Scope::Message,
            _ => Scope::Suspect,
        };
        let error = Self::at(&connection.next_hop, enhanced, &format!("{} {broken}", during(step))).at_step(step);
        Self { scope, ..error }
    }

    /// A reply that concerns neither sender nor recipient, by the table in `refusal`. The queue shows its text, always
    /// as a 4xx.
    #[must_use]
    pub(super) fn said(connection: &Connection, step: Step, reply: &Reply, reading: Reading) -> Self {
        let enhanced = reply.enhanced.filter(|_| !reply.is_positive());
        let Enhanced(_, subject, detail) = enhanced.unwrap_or(NO_ANSWER);
        let text = format!("{} the next hop said: {reply}", during(step));
        let error = Self::at(&connection.next_hop, Enhanced(4, subject, detail), &text);
        let scope = match reading.meaning {
            Meaning::Throttled => Scope::Crowded,
            _ if step == Step::Greeting && reply.code == 421 => Scope::Crowded,
            _ if is_before_mail(step) => Scope::Host,
            _ if reading.row.subject == Subject::Relaying => Scope::Message,
            Meaning::AboutUs | Meaning::OutOfStep => Scope::Suspect,
            _ if reply.code == 421 => Scope::Suspect,
            // Other messages may be accepted.
            _ => Scope::Message,
        };
        let alert = match reading.meaning {
            Meaning::Unreachable(alert) => alert,
            Meaning::Throttled => Alert::No,
            _ => Alert::Yes,
        };
        Self { scope, alert, row: Some(reading.row), ..error.at_step(step) }
    }

    /// Whether it concerns one recipient, and the transaction goes on.
    #[must_use]
    pub(crate) fn is_about_a_recipient(&self) -> bool {
        self.step == Some(Step::Rcpt) && self.scope == Scope::Message
    }

    /// Caused by us: no next hop is to blame.
    #[must_use]
    pub(super) fn ours(text: String) -> Self {
        Self { scope: Scope::Ours, ..Self::unreached(NO_ANSWER, text) }
    }

    /// The outcome for a recipient that no next hop accepted because of it.
    #[must_use]
    pub(crate) fn outcome(&self) -> Outcome {
        let outcome = Outcome::said(Class::Unreachable, self.reply.clone(), &self.next_hop);
        Outcome { row: self.row.map_or("", |row| row.name), ..outcome }
    }
}

/// Whether the step comes before a transaction.
fn is_before_mail(step: Step) -> bool {
    matches!(step, Step::Greeting | Step::Ehlo | Step::StartTls | Step::Auth)
}

fn during(step: Step) -> &'static str {
    match step {
        Step::Greeting => "instead of a greeting:",
        Step::Ehlo => "at EHLO:",
        Step::StartTls => "at STARTTLS:",
        Step::Auth => "at AUTH:",
        Step::Mail => "at MAIL:",
        Step::Rcpt => "at RCPT:",
        Step::Data => "at DATA, before the final dot:",
        Step::Dot => "after the final dot:",
    }
}
