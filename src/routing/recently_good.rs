//! Remembers addresses (DESIGN section 5, "doubt is temporary"): those for which mail was accepted within the last 7
//! days, the first refusal of others, and those that a next hop has just refused at the end of data.
//!
//! Delivery notes accepted mail. RCPT, the end of data and the queue call [`RecentlyGood::doubt`] with the directory's
//! live answer; [`doubt`] has the rule. `crate::state` saves it. It holds keyed hashes, connectors' names and times
//! only; its owner keeps it behind a lock.
//!
//! Where the next hop accepts every recipient, strangers can have mail accepted for any number of made-up addresses. So
//! when the table is full, addresses that a stranger brought beyond its share are replaced first, then those seen once,
//! and last those that a directory has or that had mail again a day later.

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
mod shared;
mod shares;

use shares::Shares;

pub use saved::Malformed;
pub use shared::{APART, Accepted, Evidence, News, SharedEvidence, SharedNames};

/// Nothing is remembered for longer.
pub const REMEMBERED: Duration = Duration::from_hours(7 * 24);
/// How long an address stays good after accepted mail.
const GOOD: Duration = REMEMBERED;
/// The first refusal is forgotten after this time without a refusal.
const QUIET: Duration = REMEMBERED;
/// The most refused addresses that are remembered.
const REFUSED: usize = 100_000;
/// How long RCPT repeats a refusal that a next hop gave at the end of data.
const AT_DOT: Duration = Duration::from_mins(10);
/// The most such addresses.
const REFUSED_AT_DOT: usize = 10_000;
/// The most addresses that are remembered as good.
const ENTRIES: usize = 200_000;

/// As long as the addresses seen once are fewer than this, they are not replaced by those of higher rank.
const NEWCOMERS: usize = 50_000;
/// An address that is accepted again after this time is proven.
const PROVEN: Duration = Duration::from_hours(24);

/// The memory of addresses: at most 200,000 good ones, and those that were refused.
#[derive(Debug)]
pub struct RecentlyGood {
    key: HashKey,
    known: FastMap<u64, Slot>,
    order: Ranks<Good>,
    shares: Shares,
    refused: FirstRefused,
    refused_at_dot: FirstRefused,
    /// Names of connectors; `Good::connector` is an index.
    connectors: Vec<Arc<str>>,
    changes: u64,
    /// For other nodes, if there are any.
    news: Option<Vec<News>>,
}

/// An address for which mail was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Good {
    hash: u64,
    /// The connector of the last success, an index into `connectors`.
    connector: u32,
    /// Zero seconds only where "unknown recipient" was believed since.
    last_success: QueueTime,
    /// The first of the successes that followed each other within 7 days.
    since: QueueTime,
}

/// How an address was brought.
#[derive(Debug, Clone, Copy, Default)]
pub struct Brought {
    /// The client, if it is a stranger that sends mail of its own.
    pub stranger: Option<IpAddr>,
    /// Whether a directory has the address.
    pub is_known: bool,
}

impl Brought {
    fn rank(self) -> Rank {
        if self.is_known { Rank::Proven } else { Rank::Newcomer }
    }
}

/// The hashes under which an address is remembered.
struct Names {
    /// For its successes.
    address: u64,
    /// For its refusals. An address that a directory has gets a key of its own: a refusal while no entry existed does
    /// not count against a user that has been created since. All tags of a user share one key, since strangers can make
    /// up any number of tags.
    entry: u64,
}

impl RecentlyGood {
    /// An empty memory. The key, 16 random bytes, makes the hashes specific to this installation.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            // Growing later would block the caller. Memory that is reserved and not used costs nothing.
            known: FastMap::with_capacity_and_hasher(ENTRIES, Default::default()),
            order: Ranks::with_capacity(ENTRIES),
            shares: Shares::default(),
            refused: FirstRefused::new(REFUSED, QUIET),
            refused_at_dot: FirstRefused::new(REFUSED_AT_DOT, AT_DOT),
            connectors: Vec::new(),
            changes: 0,
            news: None,
        }
    }

    /// Notes that a next hop of this send connector accepted mail for an address, from a client that is not a stranger.
    /// Earlier refusals are cleared.
    pub fn accepted(&mut self, address: &Address, connector: &str, now: QueueTime) {
        self.accepted_from(address, connector, Brought::default(), now);
    }

    /// The same for any client.
    pub fn accepted_from(&mut self, address: &Address, connector: &str, by: Brought, now: QueueTime) {
        self.clear_refusals(address, connector);
        let (hash, connector) = (self.hash(address), self.number(connector));
        let known = self.known.get(&hash).copied();
        let before = known.map(|slot| self.order.get(slot)).filter(|good| good.is_good(now));
        let since = before.map_or(now, |good| good.since);
        let good = Good { hash, connector, last_success: now, since };
        let (has, wants) = (known.map(|slot| self.order.rank(slot)), good.rank().max(by.rank()));
        let rank = match by.stranger {
            // The share is charged only where the rank rises.
            Some(client) if has.is_none_or(|has| has < wants) && !self.shares.take(client, now) => {
                has.unwrap_or(Rank::Surplus)
            }
            _ => has.map_or(wants, |has| has.max(wants)),
        };
        self.note(good, rank, now);
        if rank != Rank::Surplus {
            self.tell_accepted(address, good);
        }
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
            let Some((slot, oldest)) = from.and_then(|from| self.order.replace_oldest(from, rank, good)) else {
                return;
            };
            self.known.remove(&oldest.hash);
            slot
        };
        self.known.insert(good.hash, slot);
    }

    /// The rank from which an item may be replaced for one of this rank. `None`: there is none.
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

    /// Whether any next hop accepted mail for it within the last 7 days.
    #[must_use]
    pub fn is_good(&self, address: &Address, now: QueueTime) -> bool {
        self.last_success(address, now).is_some()
    }

    /// The connector whose next hop accepted mail for it last, and when; `None`: not within the last 7 days.
    #[must_use]
    pub fn last_success(&self, address: &Address, now: QueueTime) -> Option<(&Arc<str>, QueueTime)> {
        let good = self.order.get(*self.known.get(&self.hash(address))?);
        let connector = self.connectors.get(good.connector as usize)?;
        good.is_good(now).then_some((connector, good.last_success))
    }

    /// The evidence for an address; `by`: the source that says that it exists.
    #[must_use]
    pub fn known(&self, address: &Address, by: KnownBy, now: QueueTime) -> Known {
        self.known_as(&self.names(address, by), by, now)
    }

    fn known_as(&self, names: &Names, by: KnownBy, now: QueueTime) -> Known {
        let good = self.known.get(&names.address).map(|slot| self.order.get(*slot));
        let good_since = good.filter(|good| good.is_good(now)).map(|good| good.since);
        Known { by, good_since, first_refused: self.refused.first(names.entry, now) }
    }

    /// Applies the rule to a refusal: looks up the evidence, decides, and records the result.
    pub fn doubt(&mut self, address: &Address, by: KnownBy, refused: &Refused<'_>, now: QueueTime) -> doubt::Doubt {
        let names = self.names(address, by);
        let known = self.known_as(&names, by, now);
        let doubt = doubt::doubt(refused, &known, now);
        self.note_as(&names, &known, &doubt, now);
        doubt
    }

    /// Records the result of a refusal. Once a refusal is believed, the address is no longer good, so that it is
    /// believed until the next success. Addresses without evidence are not recorded: anybody can make them up.
    pub fn note_doubt(&mut self, address: &Address, known: &Known, doubt: &doubt::Doubt, now: QueueTime) {
        self.note_as(&self.names(address, known.by), known, doubt, now);
    }

    fn note_as(&mut self, names: &Names, known: &Known, doubt: &doubt::Doubt, now: QueueTime) {
        let first = match doubt {
            doubt::Doubt::Temporary => now,
            doubt::Doubt::Believe(_) if known.is_vouched_for() => {
                if let Some(slot) = self.known.get(&names.address) {
                    self.order.get_mut(*slot).last_success = QueueTime::default();
                    self.tell_forgotten(names.address, now);
                }
                QueueTime(now.0.saturating_sub(DOUBTED.as_secs()))
            }
            doubt::Doubt::Believe(_) | doubt::Doubt::Follow(_) | doubt::Doubt::Defer(_) | doubt::Doubt::Stands => {
                return;
            }
        };
        self.changes += 1;
        self.refused.note(names.entry, first, now);
        self.tell_refused(names.entry);
    }

    /// Notes that a next hop's refusal of an unresolved address at the end of data was believed: RCPT repeats it for 10
    /// minutes. Resolved addresses are not noted.
    pub fn refused_at_dot(&mut self, address: &Address, route: &Route, now: QueueTime) {
        if is_unresolved(route) {
            self.refused_at_dot.note(self.hash_at_dot(address, &route.connector), now, now);
        }
    }

    /// Whether a next hop refused it at the end of data within the last 10 minutes.
    #[must_use]
    pub fn is_refused_at_dot(&self, address: &Address, route: &Route, now: QueueTime) -> bool {
        // A success that another node had is not cleared here.
        let is_latest =
            |refused| self.last_success(address, now).is_none_or(|(_, success)| success.plus(APART) < refused);
        self.refused_at_dot.len() > 0
            && is_unresolved(route)
            && self.refused_at_dot.first(self.hash_at_dot(address, &route.connector), now).is_some_and(is_latest)
    }

    /// A counter of changes; while it is unchanged there is nothing new to save.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The index of a connector's name. There are few, and most mail takes the connector of the message before.
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

    /// The keyed hash of the address's comparable form.
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

/// Whether no directory has the recipient of this route.
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
