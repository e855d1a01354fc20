//! Detaches a branch that the client no longer waits for: what has begun continues in the background.

use tokio::time::Instant;

use super::{Branch, Dot, Line};
use crate::delivery::attempt::checkout::Checkout;
use crate::delivery::attempt::conversation::Patience;
use crate::delivery::outcome::{Class, Outcome};
use crate::smtp::reply::{Enhanced, Reply};

const PARTED: Reply =
    Reply::fixed(451, Enhanced(4, 4, 1), "the next hop was slower than the sender could wait; the queue goes on");

/// A message whose end of data has been sent and not answered.
pub(crate) struct InFlight {
    /// The recipients' numbers.
    pub(crate) recipients: Vec<usize>,
    checkout: Box<Checkout>,
    until: Instant,
}

impl Branch {
    /// Detaches from the client: returns outcomes so far, and what continues. Where the end of data was not sent,
    /// nothing was accepted, and the connection is closed.
    pub(crate) fn part(&mut self, until: Instant) -> (Vec<(usize, Outcome)>, Option<InFlight>) {
        let mut outcomes = std::mem::take(&mut self.ended);
        let line = std::mem::replace(&mut self.line, Line::Away);
        let left = Outcome::ours(Class::LeftToQueue, PARTED);
        outcomes.extend(self.later.drain(..).map(|member| (member.at, left.clone())));
        if let (Line::Open(mut checkout), Dot::Out) = (line, self.dot) {
            let answers = checkout.take_outcomes();
            self.members.retain(|member| !answers.iter().any(|(at, _)| *at == member.at));
            outcomes.extend(answers);
            // All recipients have an outcome, and only the reply to RSET is missing.
            if checkout.has_nobody() || self.members.is_empty() {
                outcomes.extend(self.members.drain(..).map(|member| (member.at, in_doubt(&checkout))));
                return (outcomes, None);
            }
            let recipients = self.members.drain(..).map(|member| member.at).collect();
            return (outcomes, Some(InFlight { recipients, checkout, until }));
        }
        outcomes.extend(self.members.drain(..).map(|member| (member.at, left.clone())));
        (outcomes, None)
    }
}

impl InFlight {
    /// The final outcomes of the recipients.
    pub(crate) async fn land(mut self) -> Vec<(usize, Outcome)> {
        let ended = self.checkout.verdict(Patience::Until(self.until)).await;
        let mut outcomes = self.checkout.take_outcomes();
        self.checkout.error();
        for at in self.recipients {
            if !outcomes.iter().any(|(answers, _)| *answers == at) {
                outcomes.push((at, in_doubt(&self.checkout)));
            }
        }
        self.checkout.give_back(ended);
        outcomes
    }
}

fn in_doubt(checkout: &Checkout) -> Outcome {
    Outcome::in_doubt(&checkout.next_hop(), "it did not answer for everybody")
}
