//! Whose mail was accepted within the last 7 days (DESIGN section 5, "doubt is temporary").
//!
//! A directory may lag behind what an administrator did, or forget what it should not. An address that is unknown all
//! of a sudden is doubted for an hour before the sender is told for good. Delivery notes what was accepted; it, and
//! `session` before our own `550 5.1.1`, ask here once the directory, asked live, has changed nothing.
//! `crate::state` saves it. It holds keyed hashes, connectors' names and times only; its owner keeps it behind a lock.

use std::sync::Arc;
use std::time::Duration;

use super::order::{Order, Slot};
use crate::fast_map::FastMap;
use crate::keyed_hash::{HashKey, keyed_hash};
use crate::smtp::address::Address;
use crate::smtp::reply::{self, Reply};
use crate::time::UnixTime;

mod saved;

pub use saved::Malformed;

/// For how long an address stays good.
const GOOD: Duration = Duration::from_hours(7 * 24);
/// For how long after its first refusal an address is doubted.
const DOUBTED: Duration = Duration::from_hours(1);
/// Who sends back what it took does so within this time.
const SETTLED: Duration = Duration::from_mins(5);
/// How many addresses are remembered.
const ENTRIES: usize = 200_000;

/// What is to be made of "unknown recipient" when the directory, asked live, changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is recently good: `451 4.3.0`; the queue tries again.
    Temporary,
    /// It is told for good.
    Believe,
}

/// At most 200,000 addresses, those whose last success is the oldest forgotten first.
#[derive(Debug)]
pub struct RecentlyGood {
    key: HashKey,
    known: FastMap<u64, Slot>,
    order: Order<Good>,
    /// Their names, as `Good::connector` counts them.
    connectors: Vec<Arc<str>>,
    changes: u64,
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Good {
    hash: u64,
    /// The connector of the last success.
    connector: u32,
    /// Never zero seconds but where "unknown recipient" was believed.
    last_success: UnixTime,
    /// The first success of those that followed each other within 7 days.
    since: UnixTime,
    /// Since the last success.
    first_refusal: Option<UnixTime>,
}

impl RecentlyGood {
    /// Nobody yet. The key makes the hashes of this installation its own: 16 random bytes.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            // Growing would hold up whoever happens to be there. Memory that is not used yet costs nothing.
            known: FastMap::with_capacity_and_hasher(ENTRIES, Default::default()),
            order: Order::with_capacity(ENTRIES),
            connectors: Vec::new(),
            changes: 0,
        }
    }

    /// Notes that mail for an address was accepted by a next hop of this send connector.
    pub fn accepted(&mut self, address: &Address, connector: &str, now: UnixTime) {
        let (hash, connector) = (self.hash(address), self.number(connector));
        let before = self.known.get(&hash).map(|slot| self.order.get(*slot)).filter(|good| good.is_good(now));
        let since = before.map_or(now, |good| good.since);
        self.note(Good { hash, connector, last_success: now, since, first_refusal: None });
    }

    fn note(&mut self, good: Good) {
        self.changes += 1;
        if let Some(slot) = self.known.get(&good.hash) {
            *self.order.get_mut(*slot) = good;
            self.order.renew(*slot);
            return;
        }
        let slot = if self.order.len() < ENTRIES {
            self.order.add(good)
        } else {
            let (slot, oldest) = self.order.replace_oldest(good);
            self.known.remove(&oldest.hash);
            slot
        };
        self.known.insert(good.hash, slot);
    }

    /// Whether any connector's next hop accepted mail for it within the last 7 days.
    #[must_use]
    pub fn is_good(&self, address: &Address, now: UnixTime) -> bool {
        self.last_success(address, now).is_some()
    }

    /// Which connector's next hop accepted mail for it last, and when, if that was within the last 7 days.
    #[must_use]
    pub fn last_success(&self, address: &Address, now: UnixTime) -> Option<(&Arc<str>, UnixTime)> {
        let good = self.order.get(*self.known.get(&self.hash(address))?);
        let connector = self.connectors.get(good.connector as usize)?;
        good.is_good(now).then_some((connector, good.last_success))
    }

    /// A next hop, or the directory, does not know the address, and a live answer of the directory changed nothing.
    /// What is believed once is believed until the next success: such an address is not good any more.
    pub fn refused(&mut self, address: &Address, now: UnixTime) -> Doubt {
        let Some(slot) = self.known.get(&self.hash(address)) else { return Doubt::Believe };
        let good = self.order.get_mut(*slot);
        if !good.is_good(now) {
            return Doubt::Believe;
        }
        self.changes += 1;
        let first_refusal = *good.first_refusal.get_or_insert(now);
        if now.since(first_refusal) < DOUBTED {
            return Doubt::Temporary;
        }
        good.last_success = UnixTime::default();
        Doubt::Believe
    }

    /// What to answer instead of our own `550 5.1.1` about an address; `None`: the refusal stands.
    pub fn doubted(&mut self, address: &Address, refusal: &Reply, now: UnixTime) -> Option<Reply> {
        if *refusal != reply::USER_UNKNOWN {
            return None;
        }
        match self.refused(address, now) {
            Doubt::Temporary => Some(reply::UNKNOWN_JUST_NOW),
            Doubt::Believe => None,
        }
    }

    /// The same where the organisation that took the mail sends it back, because it does not know the address either. One
    /// that took it a moment ago takes everything: that was no success, and a typing error is no user who was moved.
    pub fn returned(&mut self, address: &Address, refusal: &Reply, now: UnixTime) -> Option<Reply> {
        if let Some(slot) = self.known.get(&self.hash(address)) {
            let good = self.order.get_mut(*slot);
            if now.since(good.since) < SETTLED {
                good.last_success = UnixTime::default();
                self.changes += 1;
                return None;
            }
        }
        self.doubted(address, refusal, now)
    }

    /// How often it was changed. Equal counts: nothing new to save.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The number of a connector's name; there are a few, and most mail goes the way of the mail before it.
    fn number(&mut self, connector: &str) -> u32 {
        let known = self.connectors.iter().position(|known| **known == *connector);
        let number = known.unwrap_or_else(|| {
            self.connectors.push(connector.into());
            self.connectors.len() - 1
        });
        number as u32
    }

    /// Of the address as addresses are compared.
    fn hash(&self, address: &Address) -> u64 {
        keyed_hash(&self.key, address.key().as_bytes())
    }
}

impl Good {
    fn is_good(&self, now: UnixTime) -> bool {
        now.since(self.last_success) < GOOD
    }
}

#[cfg(test)]
mod tests;
