//! What is known of addresses from accepted mail, for directories (`hold_changes`): which next hop accepted it lately,
//! and which route a directory's answer means.

use std::sync::{Arc, OnceLock};

use crate::delivery::memory::Memory;
use crate::directory::mail::{AnsweredAddress, Mail};
use crate::in_force::{Current, InForce};
use crate::lookup::{Answer, Fresh, Lookup};
use crate::routing::decide::decide;
use crate::routing::loops::same_organization;
use crate::routing::verdict::{Answers, Step, Verdict};
use crate::smtp::address::Address;
use crate::smtp::envelope::{Origin, Relay};
use crate::time::{QueueTime, UnixTime};

/// The most questions that a decision about one address may ask.
const QUESTIONS: usize = 32;

pub(super) struct MailSeen {
    memory: Memory,
    /// The configuration in force; not set while the first one is built.
    pub(super) current: OnceLock<Arc<Current>>,
}

impl MailSeen {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, current: OnceLock::new() }
    }

    /// The send connector that accepted the last mail for an address, and when.
    fn last(&self, address: &Address) -> Option<(Arc<str>, QueueTime)> {
        let good = self.memory.good();
        good.last_success(address, self.memory.queue_time()).map(|(connector, at)| (Arc::clone(connector), at))
    }

    fn in_force(&self) -> Option<Arc<InForce>> {
        Some(self.current.get()?.load_full())
    }
}

impl Mail for MailSeen {
    fn now(&self) -> QueueTime {
        self.memory.queue_time()
    }

    fn arrived(&self, asked: &AnsweredAddress<'_>, since: QueueTime) -> bool {
        let Ok(address) = Address::parse(asked.key) else { return false };
        let Some((connector, at)) = self.last(&address) else { return false };
        at >= since && self.in_force().is_some_and(|now| connector_of(&now, asked, &address) == Some(connector))
    }

    fn serves_elsewhere(&self, asked: &AnsweredAddress<'_>) -> Option<Arc<str>> {
        let address = Address::parse(asked.key).ok()?;
        let (connector, _) = self.last(&address)?;
        let in_force = self.in_force()?;
        let organization = |name: &str| Some(&*in_force.config.send_connector(name)?.organization);
        let theirs = organization(&connector)?;
        let meant = connector_of(&in_force, asked, &address)?;
        let ours = organization(&meant)?;
        (connector != meant && !same_organization(theirs, ours)).then_some(connector)
    }
}

/// The send connector for mail to the address by this answer, as far as that alone decides.
fn connector_of(in_force: &InForce, asked: &AnsweredAddress<'_>, address: &Address) -> Option<Arc<str>> {
    let origin = Origin { relay: Relay::AcceptedDomains, ..Origin::report() };
    let mut answers = Answers::default();
    while answers.0.len() < QUESTIONS {
        match decide(&in_force.config.routing, &origin, address, &answers, UnixTime::steady()) {
            Step::Verdict(decision) => {
                return match decision.verdict {
                    Verdict::Accept(route) => Some(route.connector),
                    Verdict::Refuse(_) => None,
                };
            }
            Step::Ask(question) => {
                let is_it = *question.directory == *asked.directory && question.address.key() == address.key();
                let lookup = if is_it { asked.answer.clone() } else { Lookup::NotFound };
                answers.0.push((question, Answer { lookup, fresh: Fresh::Live }));
            }
        }
    }
    None
}
