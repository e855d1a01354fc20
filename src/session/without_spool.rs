//! What is taken while the spool takes nothing (DESIGN section 8): a transaction that ends with its next hop's word, and of
//! which nothing may have to be kept. One branch only, for two may answer differently; with LMTP one recipient; and nobody
//! who wants to hear of success, which may have to be reported.

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

/// Whether records can be kept.
pub(super) fn can_keep(services: &Services) -> bool {
    services.spool.condition().takes_records()
}

impl Transaction {
    /// Whether a recipient can be taken beside those there are, though nothing can be kept.
    pub(super) fn goes_without_spool(&self, rcpt: &RcptTo, route: &Route) -> bool {
        let Some(part) = part(&self.in_force.config, route) else { return false };
        let others = self.recipients.len();
        let fits = match part.smtp.speaks {
            Speaks::Smtp => others == 0 || (others < MAX_RECIPIENTS && self.branches.has(route)),
            Speaks::Lmtp => others == 0,
        };
        fits && !wants_success(rcpt)
    }

    /// Whether a message can be handed to its next hops, though nothing can be kept.
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

/// What the client hears when the message cannot be kept.
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
