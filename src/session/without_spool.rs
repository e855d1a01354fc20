//! What is accepted while the spool is unavailable (DESIGN section 8): transactions that end with their next hop's
//! reply, so that nothing may have to be stored. They have one branch only, since two might answer differently; with
//! LMTP one recipient; and no request for reports of success.

use super::Services;
use super::loop_check::Passed;
use super::rcpt::part;
use super::transaction::Transaction;
use crate::config::Speaks;
use crate::delivery::branch::MAX_RECIPIENTS;
use crate::report::Action;
use crate::routing::verdict::Route;
use crate::smtp::envelope::RcptTo;
use crate::smtp::reply::{self, Reply};
use crate::spool::SpoolError;
use crate::strangers::sums::Kind;

/// Whether the spool is available.
pub(super) fn can_keep(services: &Services) -> bool {
    services.spool.condition().takes_records()
}

impl Transaction {
    /// Whether a recipient can be added although nothing can be stored.
    pub(super) fn goes_without_spool(&self, rcpt: &RcptTo, route: &Route) -> bool {
        let Some(part) = part(&self.in_force.config, route) else { return false };
        let others = self.recipients.len();
        let fits = match part.smtp.speaks {
            Speaks::Smtp => others == 0 || (others < MAX_RECIPIENTS && self.branches.has(route)),
            Speaks::Lmtp => others == 0,
        };
        fits && !wants_success(rcpt)
    }

    /// Whether a message can be sent to its next hops although nothing can be stored.
    pub(super) fn ends_without_spool(&self, passed: &Passed) -> bool {
        let mut recipients = self.recipients.iter();
        let speaks = |route: &Route| part(&self.in_force.config, route).map(|part| part.smtp.speaks);
        let each = recipients.all(|recipient| match speaks(&recipient.route) {
            Some(Speaks::Smtp) => !wants_success(&recipient.rcpt),
            Some(Speaks::Lmtp) => !wants_success(&recipient.rcpt) && self.recipients.len() == 1,
            None => false,
        });
        each && self.branches.count() == 1 && self.recipients.len() <= MAX_RECIPIENTS && passed.failed.is_empty()
    }
}

fn wants_success(rcpt: &RcptTo) -> bool {
    [Action::Delivered, Action::Relayed].iter().any(|action| action.is_wanted(rcpt.notify))
}

/// The client's reply if the message cannot be stored.
pub(super) fn cannot_keep(services: &Services, transaction: &Transaction, error: &SpoolError) -> Reply {
    let reason = match error {
        SpoolError::Full(_) => "full",
        SpoolError::Io(_) => "broken",
    };
    if transaction.tells(services, Kind::NotKept, reason) {
        tracing::error!(%error, "message refused: it cannot be kept");
    }
    match error {
        SpoolError::Full(_) => reply::INSUFFICIENT_STORAGE,
        SpoolError::Io(_) => reply::TRY_AGAIN,
    }
}
