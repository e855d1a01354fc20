//! What is remembered of addresses (DESIGN section 5, "doubt is temporary"): whose mail was accepted within the last 7
//! days; who was refused first when; whom a next hop refused at the dot a moment ago.
//!
//! Delivery notes what was accepted. RCPT, the dot and the queue ask [`RecentlyGood::doubt`] once the directory, asked
//! live, has said what it knows; the rule is [`doubt`]'s. `crate::state` saves it. It holds keyed hashes, connectors'
//! names and times only; its owner keeps it behind a lock.
//!
//! Strangers can have mail accepted for any number of made-up recipients where the next hop takes whatever it is asked.
//! So places are taken first from what one of them brought beyond his share, then from those seen once, and last from
//! those whom a directory has or who had mail again a day later.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::doubt::{self, DOUBTED, Known, KnownBy, Refused};
use super::first_refused::FirstRefused;
use super::order::Slot;
use super::ranks::{Rank, Ranks};
use super::verdict::{Route, RouteKind};
use crate::fast_map::FastMap;
use crate::keyed_hash::{HashKey, keyed_hash};
use crate::smtp::address::Address;
use crate::time::QueueTime;

mod saved;
mod shares;

use shares::Shares;

pub use saved::Malformed;

/// For how long an address stays good.
const GOOD: Duration = Duration::from_hours(7 * 24);
/// Without a refusal for so long, the first one is forgotten.
const QUIET: Duration = Duration::from_hours(7 * 24);
/// How many refused addresses are remembered.
const REFUSED: usize = 100_000;
/// For how long RCPT is answered what a next hop said at the dot.
const AT_DOT: Duration = Duration::from_mins(10);
/// For how many addresses.
const REFUSED_AT_DOT: usize = 10_000;
/// How many addresses are remembered.
const ENTRIES: usize = 200_000;

/// Of them, those that were seen once lose no place to the others as long as they are fewer.
const NEWCOMERS: usize = 50_000;
/// Accepted again so much later, an address is proven.
const PROVEN: Duration = Duration::from_hours(24);

/// At most 200,000 addresses; and those that were refused.
#[derive(Debug)]
pub struct RecentlyGood {
    key: HashKey,
    known: FastMap<u64, Slot>,
    order: Ranks<Good>,
    /// Not saved.
    shares: Shares,
    refused: FirstRefused,
    /// Not saved.
    refused_at_dot: FirstRefused,
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
    last_success: QueueTime,
    /// The first success of those that followed each other within 7 days.
    since: QueueTime,
}

/// Who brought mail for an address, and whether anybody could name it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Brought {
    /// The client, where it is a stranger who brings his own mail.
    pub stranger: Option<IpAddr>,
    /// Whether a directory has the recipient.
    pub is_known: bool,
}

impl Brought {
    fn rank(self) -> Rank {
        if self.is_known { Rank::Proven } else { Rank::Newcomer }
    }
}

/// Under what an address is remembered.
struct Names {
    /// Its successes.
    address: u64,
    /// Its refusals. An entry of a directory has its own: what was refused while nobody had the address says nothing about
    /// somebody who was created since. All tags of a user are one entry: strangers can make any number of them.
    entry: u64,
}

impl RecentlyGood {
    /// Nobody yet. The key makes the hashes of this installation its own: 16 random bytes.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            // Growing would hold up whoever happens to be there. Memory that is not used yet costs nothing.
            known: FastMap::with_capacity_and_hasher(ENTRIES, Default::default()),
            order: Ranks::with_capacity(ENTRIES),
            shares: Shares::default(),
            refused: FirstRefused::new(REFUSED, QUIET),
            refused_at_dot: FirstRefused::new(REFUSED_AT_DOT, AT_DOT),
            connectors: Vec::new(),
            changes: 0,
        }
    }

    /// Notes that mail for an address was accepted by a next hop of this send connector, from a client that is no
    /// stranger: what was refused before counts no more.
    pub fn accepted(&mut self, address: &Address, connector: &str, now: QueueTime) {
        self.accepted_from(address, (connector, Brought::default()), now);
    }

    /// The same of any client.
    pub fn accepted_from(&mut self, address: &Address, (connector, by): (&str, Brought), now: QueueTime) {
        self.clear_refusals(address, connector);
        let (hash, connector) = (self.hash(address), self.number(connector));
        let known = self.known.get(&hash).copied();
        let before = known.map(|slot| self.order.get(slot)).filter(|good| good.is_good(now));
        let since = before.map_or(now, |good| good.since);
        let good = Good { hash, connector, last_success: now, since };
        let (has, wants) = (known.map(|slot| self.order.rank(slot)), good.rank().max(by.rank()));
        let rank = match by.stranger {
            // Only what rises takes from the share.
            Some(client) if has.is_none_or(|has| has < wants) && !self.shares.take(client, now) => {
                has.unwrap_or(Rank::Surplus)
            }
            _ => has.map_or(wants, |has| has.max(wants)),
        };
        self.note(good, rank, now);
    }

    fn note(&mut self, good: Good, rank: Rank, now: QueueTime) {
        self.changes += 1;
        if let Some(slot) = self.known.get(&good.hash) {
            *self.order.get_mut(*slot) = good;
            self.order.renew(*slot, rank);
            return;
        }
        let slot = if self.order.len() < ENTRIES {
            self.order.add(rank, good)
        } else {
            let from = self.gives_way(rank, now);
            let Some((slot, oldest)) = from.and_then(|from| self.order.replace_oldest(from, (rank, good))) else {
                return;
            };
            self.known.remove(&oldest.hash);
            slot
        };
        self.known.insert(good.hash, slot);
    }

    /// From which rank a place is taken for one of this rank. `None`: from none.
    fn gives_way(&self, rank: Rank, now: QueueTime) -> Option<Rank> {
        let is_over = |rank: &Rank| self.order.oldest(*rank).is_some_and(|oldest| !oldest.is_good(now));
        if let Some(over) = Rank::ALL.into_iter().find(is_over) {
            return Some(over);
        }
        match rank {
            _ if self.order.len_of(Rank::Surplus) > 0 => Some(Rank::Surplus),
            Rank::Surplus => None,
            Rank::Newcomer | Rank::Proven if self.order.len_of(Rank::Newcomer) >= NEWCOMERS => Some(Rank::Newcomer),
            Rank::Newcomer | Rank::Proven => Some(Rank::Proven),
        }
    }

    /// Whether any connector's next hop accepted mail for it within the last 7 days.
    #[must_use]
    pub fn is_good(&self, address: &Address, now: QueueTime) -> bool {
        self.last_success(address, now).is_some()
    }

    /// Which connector's next hop accepted mail for it last, and when, if that was within the last 7 days.
    #[must_use]
    pub fn last_success(&self, address: &Address, now: QueueTime) -> Option<(&Arc<str>, QueueTime)> {
        let good = self.order.get(*self.known.get(&self.hash(address))?);
        let connector = self.connectors.get(good.connector as usize)?;
        good.is_good(now).then_some((connector, good.last_success))
    }

    /// What is known of an address, where these say that it exists.
    #[must_use]
    pub fn known(&self, address: &Address, by: KnownBy, now: QueueTime) -> Known {
        self.known_as(&self.names(address, by), by, now)
    }

    fn known_as(&self, names: &Names, by: KnownBy, now: QueueTime) -> Known {
        let good = self.known.get(&names.address).map(|slot| self.order.get(*slot));
        let good_since = good.filter(|good| good.is_good(now)).map(|good| good.since);
        Known { by, good_since, first_refused: self.refused.first(names.entry, now) }
    }

    /// What becomes of an address that was refused, all at once: what is known of it, the rule, and what it came to.
    pub fn doubt(&mut self, address: &Address, by: KnownBy, refused: &Refused<'_>, now: QueueTime) -> doubt::Doubt {
        let names = self.names(address, by);
        let known = self.known_as(&names, by, now);
        let doubt = doubt::doubt(refused, &known, now);
        self.note_as(&names, &known, &doubt, now);
        doubt
    }

    /// Notes what a refusal came to. What is believed once is believed until the next success: such an address is not
    /// good any more. Of those of whom nobody says that they exist nothing is noted: anybody can name them.
    pub fn note_doubt(&mut self, address: &Address, known: &Known, doubt: &doubt::Doubt, now: QueueTime) {
        self.note_as(&self.names(address, known.by), known, doubt, now);
    }

    fn note_as(&mut self, names: &Names, known: &Known, doubt: &doubt::Doubt, now: QueueTime) {
        let first = match doubt {
            doubt::Doubt::Temporary => now,
            doubt::Doubt::Believe(_) if known.is_vouched_for() => {
                if let Some(slot) = self.known.get(&names.address) {
                    self.order.get_mut(*slot).last_success = QueueTime::default();
                }
                QueueTime(now.0.saturating_sub(DOUBTED.as_secs()))
            }
            doubt::Doubt::Believe(_) | doubt::Doubt::Follow(_) | doubt::Doubt::Defer(_) | doubt::Doubt::Stands => {
                return;
            }
        };
        self.changes += 1;
        self.refused.note(names.entry, first, now);
    }

    /// A next hop on this way has refused an unresolved address as unknown at the dot, and is believed: RCPT says so for 10
    /// minutes. Others are not noted.
    pub fn refused_at_dot(&mut self, address: &Address, route: &Route, now: QueueTime) {
        if is_unresolved(route) {
            self.refused_at_dot.note(self.hash_at_dot(address, &route.connector), now, now);
        }
    }

    /// Whether that happened within the last 10 minutes.
    #[must_use]
    pub fn is_refused_at_dot(&self, address: &Address, route: &Route, now: QueueTime) -> bool {
        self.refused_at_dot.len() > 0
            && is_unresolved(route)
            && self.refused_at_dot.first(self.hash_at_dot(address, &route.connector), now).is_some()
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

    fn clear_refusals(&mut self, address: &Address, connector: &str) {
        if self.refused.len() > 0 {
            let Names { address: nobodys, entry } = self.names(address, KnownBy::Directory);
            self.refused.clear(nobodys);
            self.refused.clear(entry);
            if address.local().contains('+') {
                self.refused.clear(self.names(address, KnownBy::DirectoryWithoutTag).entry);
            }
        }
        if self.refused_at_dot.len() > 0 {
            self.refused_at_dot.clear(self.hash_at_dot(address, connector));
        }
    }

    /// Of the address as addresses are compared.
    fn hash(&self, address: &Address) -> u64 {
        keyed_hash(&self.key, address.key().as_bytes())
    }

    fn names(&self, address: &Address, by: KnownBy) -> Names {
        let hash = self.hash(address);
        let entry = match by {
            KnownBy::Nobody => hash,
            KnownBy::Directory | KnownBy::VerifyWith => !hash,
            KnownBy::DirectoryWithoutTag => {
                let user = address.key().split_inclusive('+').next().unwrap_or_default();
                !keyed_hash(&self.key, format!("{user}@{}", address.domain()).as_bytes())
            }
        };
        Names { address: hash, entry }
    }

    fn hash_at_dot(&self, address: &Address, connector: &str) -> u64 {
        keyed_hash(&self.key, format!("{connector} {}", address.key()).as_bytes())
    }
}

/// Whether no directory has the recipient of this way.
fn is_unresolved(route: &Route) -> bool {
    match route.way {
        RouteKind::Relayed | RouteKind::External => true,
        RouteKind::Resolved | RouteKind::RelayedVerified | RouteKind::Redirected => false,
    }
}

impl Good {
    fn is_good(&self, now: QueueTime) -> bool {
        now.since(self.last_success) < GOOD
    }

    fn rank(&self) -> Rank {
        if self.last_success.since(self.since) >= PROVEN { Rank::Proven } else { Rank::Newcomer }
    }
}

#[cfg(test)]
mod flood;
#[cfg(test)]
mod tests;
