//! Sends a message again to one recipient after the other, if it was refused because of an unspecified one of several.

use std::time::Duration;

use tokio::time::Instant;

use super::content::Message;
use crate::delivery::outcome::{Class, Outcome};
use crate::smtp::reply::{Enhanced, Reply};

/// The time limit for sending to recipients one by one.
const WITHIN: Duration = Duration::from_secs(60);

/// The outcome of recipients that are left then.
pub(super) const ONE_BY_ONE: Reply =
    Reply::fixed(451, Enhanced(4, 4, 1), "the message goes to one recipient after the other; the queue goes on");

/// Whether the whole message was refused because of an unspecified recipient of several.
pub(super) fn are_unknown(answers: &[(usize, Outcome)]) -> bool {
    answers.len() > 1 && answers.iter().all(|(_, outcome)| outcome.class == Class::UnknownRecipient)
}

/// Sends the content again for each recipient.
pub(super) struct OneByOne {
    recipients: usize,
    octets: u64,
    until: Instant,
}

impl OneByOne {
    pub(super) fn begin(message: &Message<'_>) -> Self {
        let until = Instant::now() + WITHIN;
        let until = message.waits.last_dot().map_or(until, |last| last.min(until));
        Self { recipients: 20, octets: 64 << 20, until }
    }

    /// Whether there is time for one more.
    pub(super) fn goes_on(&mut self, message: &Message<'_>) -> bool {
        let enough = self.recipients > 0 && self.octets >= message.content.size && Instant::now() < self.until;
        self.recipients = self.recipients.saturating_sub(1);
        self.octets = self.octets.saturating_sub(message.content.size);
        enough
    }
}
