//! A next hop that refuses everybody (DESIGN section 7): its own directory is broken, or it is not the server that it
//! should be. It is told from one that refuses those who are gone by who vouches for them, and by how many senders it
//! takes to show it: one with an old list proves nothing. Pure.
//!
//! Whoever speaks to next hops keeps one for all of them, tells it of every message that goes to one, of recipients that
//! are accepted, and of those that are refused as unknown or by a 5.7.x that no row of the table has, and obeys its
//! verdict. The health of a next hop is no business of this: it takes connections, and refuses.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use super::health::Change;
use crate::fast_map::FastMap;
use crate::one_client::one_client;
use crate::routing::doubt::Known;
use crate::smtp::address::{Address, ReversePath};

/// So many different recipients.
const RECIPIENTS: usize = 20;
/// From so many sender domains, and from so many clients, where there are as many.
const SOURCES: usize = 5;
/// Which is seen by so many messages.
const MESSAGES: usize = 100;
/// Next hops that are remembered; beyond it those of which nothing is known yet are forgotten, or all.
const REMEMBERED: usize = 10_000;

/// A next hop, by the names that its answers carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The send connector.
    pub connector: Arc<str>,
    /// `name[address]:port`.
    pub next_hop: Arc<str>,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// Whose domain counts; `<>` is one of its own.
    pub reverse_path: &'a ReversePath,
    /// The client; `None`: a report of ours.
    pub client: Option<IpAddr>,
}

/// When a next hop answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Rcpt,
    /// At the dot. Who is accepted at RCPT only may still be refused there.
    Dot,
}

/// A recipient was refused as unknown, or by a 5.7.x that no row has.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// The recipient as received.
    pub recipient: &'a Address,
    /// What was known of it *before* this refusal.
    pub known: &'a Known,
    /// Where its message comes from.
    pub source: Source<'a>,
    pub step: Step,
}

/// What a refusal comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be right.
    Believe,
    /// It is the next hop: the recipient is to be treated as if it were out of reach. [`Change::News`]: now it shows.
    Unreachable(Change),
}

/// All next hops that refused somebody lately, and where the last messages came from.
#[derive(Debug, Default)]
pub struct RefusesEverybody {
    /// Those with a refusal since they accepted anybody who is vouched for.
    hops: FastMap<Key, Hop>,
    /// By send connector.
    lately: FastMap<Arc<str>, VecDeque<Hashes>>,
    hash: RandomState,
}

/// A source's domain and client.
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
    /// The first few of each, all different.
    recipients: Vec<u64>,
    domains: Vec<u64>,
    clients: Vec<u64>,
    /// Whether they were enough.
    everybody: bool,
}

impl RefusesEverybody {
    /// A message goes to this send connector: to be told once a message, not once an attempt, before its first answer.
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

    /// A recipient was refused. Nobody vouches for it: that shows nothing, and nothing changes for it. It is known to be
    /// refused for a while (doubted, or believed to be gone): that shows nothing new.
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

    /// Whether no next hop has refused anybody who is vouched for: an acceptance changes nothing then.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.hops.is_empty()
    }

    /// A recipient was accepted. If somebody vouches for it, refusals are believed again; [`Change::News`]: they were not.
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

    /// From how many sources refusals have to come: fewer where the last messages came from fewer.
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
