//! Detects a next hop that refuses all recipients (DESIGN section 7): its own directory is broken, or it is the wrong
//! server. Two things distinguish it from one that refuses recipients who have left: there is evidence that the
//! recipients exist, and they were named by many senders, since one sender may use an old list. Pure.
//!
//! Its owner reports every message that is sent, recipients that are accepted, and those that are refused as unknown or
//! by a 5.7.x that no row matches, and follows the verdict. This is separate from `health`: such a next hop accepts
//! connections.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use super::health::Change;
use crate::fast_map::FastMap;
use crate::one_client::one_client;
use crate::routing::doubt::Known;
use crate::smtp::address::{Address, ReversePath};

/// Different recipients that have to be refused.
const RECIPIENTS: usize = 20;
/// They have to come from this many sender domains, and from this many clients, if there are as many.
const SOURCES: usize = 5;
/// How many there are is determined from this many messages.
const MESSAGES: usize = 100;
/// The most next hops that are remembered; beyond that those without a verdict are forgotten, or all.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub connector: Arc<str>,
    /// `name[address]:port`.
    pub next_hop: Arc<str>,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Its domain counts; `<>` counts as a domain.
    pub reverse_path: &'a ReversePath,
    /// `None`: a report of ours.
    pub client: Option<IpAddr>,
}

/// The step of a next hop's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Rcpt,
    /// At the end of data. A recipient that is accepted at RCPT may still be refused there.
    Dot,
}

/// A recipient that was refused as unknown, or by a 5.7.x that no row matches.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// As received.
    pub recipient: &'a Address,
    /// The evidence *before* this refusal.
    pub known: &'a Known,
    pub source: Source<'a>,
    pub step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The refusal may be right.
    Believe,
    /// The next hop is at fault: the recipient is treated as if its next hop were unreachable. [`Change::News`]: this
    /// is the first time.
    Unreachable(Change),
}

/// Next hops with refusals, and the sources of the last messages.
#[derive(Debug, Default)]
pub struct RefusesEverybody {
    /// Those with a refusal since they last accepted a recipient that is known to exist.
    hops: FastMap<Key, Hop>,
    /// By send connector.
    lately: FastMap<Arc<str>, VecDeque<Hashes>>,
    hash: RandomState,
}

/// The hashed domain and client of a source.
#[derive(Debug, Clone, Copy)]
struct Hashes {
    domain: u64,
    client: u64,
}

#[derive(Debug, Default)]
struct Hop {
    at_rcpt: Refused,
    at_dot: Refused,
}

/// The refusals at one step since such a recipient was accepted there.
#[derive(Debug, Default)]
struct Refused {
    /// The first few of each, without duplicates.
    recipients: Vec<u64>,
    domains: Vec<u64>,
    clients: Vec<u64>,
    /// Whether they were enough.
    everybody: bool,
}

impl RefusesEverybody {
    /// A message goes to this send connector: called once for each message, not for attempts, before its first reply.
    pub fn message(&mut self, connector: &Arc<str>, source: Source<'_>) {
        let hashes = self.hashes(source);
        let lately = match self.lately.get_mut(connector) {
            Some(lately) => lately,
            None => self.lately.entry(connector.clone()).or_default(),
        };
        if lately.len() == MESSAGES {
            lately.pop_front();
        }
        lately.push_back(hashes);
    }

    /// A recipient was refused. Without evidence that it exists the refusal proves nothing. A recipient that has been
    /// refused for a while (in doubt, or believed to be gone) proves nothing new.
    pub fn refused(&mut self, hop: &Key, refusal: &Refusal<'_>) -> Verdict {
        if !refusal.known.is_vouched_for() {
            return Verdict::Believe;
        }
        if self.hops.get(hop).is_some_and(Hop::refuses_everybody) {
            return Verdict::Unreachable(Change::Same);
        }
        if refusal.known.first_refused.is_some() {
            return Verdict::Believe;
        }
        let (recipient, source) = (self.hash.hash_one(refusal.recipient.key()), self.hashes(refusal.source));
        let needed = self.needed(&hop.connector);
        let hop = self.hop(hop);
        let refused = match refusal.step {
            Step::Rcpt => &mut hop.at_rcpt,
            Step::Dot => &mut hop.at_dot,
        };
        refused.add(recipient, source);
        refused.everybody = refused.recipients.len() >= RECIPIENTS
            && refused.domains.len() >= needed.domains
            && refused.clients.len() >= needed.clients;
        if refused.everybody { Verdict::Unreachable(Change::News) } else { Verdict::Believe }
    }

    /// Whether no next hop has a relevant refusal: an acceptance has no effect then.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.hops.is_empty()
    }

    /// A recipient was accepted. If it is known to exist, refusals are believed again; [`Change::News`]: they were not.
    pub fn accepted(&mut self, hop: &Key, known: &Known, step: Step) -> Change {
        if !known.is_vouched_for() {
            return Change::Same;
        }
        let Some(refused) = self.hops.get_mut(hop) else { return Change::Same };
        let before = refused.refuses_everybody();
        refused.at_rcpt = Refused::default();
        if step == Step::Dot || refused.at_dot.recipients.is_empty() {
            self.hops.remove(hop);
        }
        let after = self.hops.get(hop).is_some_and(Hop::refuses_everybody);
        if before && !after { Change::News } else { Change::Same }
    }

    fn hop(&mut self, key: &Key) -> &mut Hop {
        if self.hops.len() >= REMEMBERED && !self.hops.contains_key(key) {
            self.hops.retain(|_, hop| hop.refuses_everybody());
            if self.hops.len() >= REMEMBERED {
                self.hops.clear();
            }
        }
        self.hops.entry(key.clone()).or_default()
    }

    /// From how many sources refusals have to come: fewer if the last messages came from fewer.
    fn needed(&self, connector: &str) -> Needed {
        let distinct = |of: fn(&Hashes) -> u64| {
            let mut all: Vec<u64> = self.lately.get(connector).into_iter().flatten().map(of).collect();
            all.sort_unstable();
            all.dedup();
            all.len().clamp(1, SOURCES)
        };
        Needed { domains: distinct(|hashes| hashes.domain), clients: distinct(|hashes| hashes.client) }
    }

    fn hashes(&self, source: Source<'_>) -> Hashes {
        let domain = source.reverse_path.address().map(|address| address.domain().as_str());
        Hashes { domain: self.hash.hash_one(domain), client: self.hash.hash_one(source.client.map(one_client)) }
    }
}

struct Needed {
    domains: usize,
    clients: usize,
}

impl Hop {
    fn refuses_everybody(&self) -> bool {
        self.at_rcpt.everybody || self.at_dot.everybody
    }
}

impl Refused {
    fn add(&mut self, recipient: u64, source: Hashes) {
        for (all, one, enough) in [
            (&mut self.recipients, recipient, RECIPIENTS),
            (&mut self.domains, source.domain, SOURCES),
            (&mut self.clients, source.client, SOURCES),
        ] {
            if all.len() < enough && !all.contains(&one) {
                all.push(one);
            }
        }
    }
}

#[cfg(test)]
mod tests;
