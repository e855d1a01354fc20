//! Remembers the destination of each address when the directory last had it: `hold_changes` compares with it where a
//! directory is asked for each recipient (DESIGN section 5, "doubt is temporary"). Pure; time is an argument.
//!
//! `ldap` passes every answer to it, and saves it. It has hashes and times only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::expected::{Announced, Expected};
use super::known::Id;
use super::snapshot::guard::{Guard, Ruling};
use super::snapshot::served::{HeldAddress, HeldList};
use crate::config::HoldChanges;
use crate::keyed_hash::{HashKey, keyed_hash};
use crate::lookup::{Kind, Lookup};
use crate::time::{QueueTime, UnixTime};

/// How long an address counts after it was last found.
const COUNTS: Duration = Duration::from_hours(7 * 24);
/// The most addresses that are remembered.
const ENTRIES: usize = 200_000;

/// The destination "a mailbox here", before hashing.
const HERE: &str = "here";

/// The addresses of one directory.
#[derive(Debug)]
pub struct Remembered {
    /// A random key for the hashes, since strangers choose the addresses that are looked up.
    key: HashKey,
    known: HashMap<Id, Seen>,
    /// Addresses whose destination has changed, and whose mail waits.
    held: HashMap<Id, Waits>,
    /// Announced changes.
    expected: Expected,
    guard: Guard,
    /// Recently accepted changes with the state before: a return to that state is a correction.
    taken: HashMap<Id, (Seen, UnixTime)>,
    within: Duration,
    /// When an operator last accepted the directory as it is.
    accepted: Option<UnixTime>,
    servers: HashMap<String, Arc<str>>,
    changes: u64,
}

/// An address whose mail waits.
#[derive(Debug, Clone)]
struct Waits {
    /// When it was last looked up.
    asked: UnixTime,
    /// For the list of held addresses.
    row: HeldAddress,
}

/// The time of an answer, and what is known from mail.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// By the steady clock.
    pub now: UnixTime,
    /// By the wall clock, for display.
    pub day: UnixTime,
    /// By the queue's time, which announcements end by.
    pub at: QueueTime,
    /// The send connector of another organisation that accepted the last mail for the address, if this answer leads
    /// elsewhere.
    pub served_by: &'a dyn Fn() -> Option<Arc<str>>,
}

/// The destination of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// A mailbox here, or this target.
    way: Id,
    /// Its mail server among `mailbox_servers`; `None`: unknown.
    place: Option<Id>,
    /// When it was last found.
    at: UnixTime,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    key: HashKey,
    /// The `mailbox_servers` by which servers are distinguished, hashed.
    servers: Id,
    known: Vec<(Id, Seen)>,
    /// Recent changes: when, and how many.
    counted: Vec<(UnixTime, usize)>,
    /// Recently accepted changes with the state before.
    taken: Vec<(Id, (Seen, UnixTime))>,
    /// When an operator last accepted the directory as it is.
    accepted: Option<UnixTime>,
}

/// The first format: the key, the servers and the addresses.
pub type FirstSaved = (HashKey, Id, Vec<(Id, Seen)>);

impl Seen {
    fn is_like(&self, other: &Self) -> bool {
        self.way == other.way && (self.place == other.place || self.place.is_none() || other.place.is_none())
    }
}

impl Saved {
    /// Empty. The key is random.
    #[must_use]
    pub fn nobody(key: HashKey) -> Self {
        Self::first((key, Id(0), Vec::new()))
    }

    /// Converts the first format, which has no counted changes.
    #[must_use]
    pub fn first((key, servers, known): FirstSaved) -> Self {
        Self { key, servers, known, counted: Vec::new(), taken: Vec::new(), accepted: None }
    }

    /// Adapts times if the clock was put back: none is later than `now`, or it would count until then.
    #[must_use]
    pub fn by(mut self, now: UnixTime) -> Self {
        let times = self.known.iter_mut().map(|(_, seen)| &mut seen.at);
        let times = times.chain(self.counted.iter_mut().map(|(at, _)| at));
        let times = times.chain(self.taken.iter_mut().flat_map(|(_, (seen, at))| [&mut seen.at, at]));
        times.chain(self.accepted.as_mut()).for_each(|at| *at = now.min(*at));
        self
    }

    /// Two addresses, and a change.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let seen = |place| Seen { way: Id(7), place, at: UnixTime(1_800_000_000) };
        let known = vec![(Id(1), seen(None)), (Id(u64::MAX), seen(Some(Id(8))))];
        let (counted, taken) =
            (vec![(UnixTime(1_800_000_001), 3)], vec![(Id(2), (seen(None), UnixTime(1_800_000_001)))]);
        Self { counted, taken, accepted: Some(UnixTime(1_800_000_002)), ..Self::first(([9; 16], Id(5), known)) }
    }

    /// The same in the first format.
    #[cfg(test)]
    pub(crate) fn first_example() -> Self {
        let Self { key, servers, known, .. } = Self::example();
        Self::first((key, servers, known))
    }
}

impl Remembered {
    /// Continues from what was saved. `servers` are the directory's `mailbox_servers`; if they have changed, the saved
    /// servers are unknown, and any server counts as unchanged.
    #[must_use]
    pub fn new(limits: HoldChanges, servers: HashMap<String, Arc<str>>, saved: Saved) -> Self {
        let same = saved.servers == digest(&servers);
        let loaded = |seen: Seen| Seen { place: seen.place.filter(|_| same), ..seen };
        Self {
            key: saved.key,
            known: saved.known.into_iter().map(|(key, seen)| (key, loaded(seen))).collect(),
            held: HashMap::new(),
            expected: Expected::default(),
            guard: Guard::after(limits, saved.counted),
            taken: saved.taken.into_iter().map(|(key, (seen, at))| (key, (loaded(seen), at))).collect(),
            within: limits.within,
            accepted: saved.accepted,
            servers,
            changes: 0,
        }
    }

    /// Records an answer. Returns whether it is held: its destination changed, as those of too many have.
    pub fn is_held(&mut self, address: &str, lookup: &Lookup, with: Circumstances<'_>) -> bool {
        let now = with.now;
        let key = self.hash(address);
        let Some(way) = self.way(lookup, now) else {
            // The address still waits, and without a clean answer that cannot be decided.
            self.held.entry(key).and_modify(|waits| waits.asked = now);
            return false;
        };
        let before = self.known.get(&key).filter(|seen| now.since(seen.at) < COUNTS).copied();
        let same = |before: &Seen| way.is_some_and(|now| now.is_like(before));
        let is_put_right = self.is_put_right(key, way, now);
        let new = if before.is_none() && way.is_some() && !is_put_right { (with.served_by)() } else { None };
        self.expected.forget(with.at);
        if (before.as_ref().is_none_or(same) && new.is_none()) || is_put_right || self.expected.has(address) {
            self.held.remove(&key);
            self.note(key, way);
            return false;
        }
        self.forget_held(now);
        // Addresses that wait count together with this one.
        let together = self.held.len() + usize::from(!self.held.contains_key(&key));
        let announced = self.expected.any();
        let meant = self.accepted.is_some_and(|at| now.since(at) < self.within);
        match self.guard.weigh(now, together.saturating_sub(announced), self.known.len()) {
            Ruling::Hold if !meant => {
                let since = self.held.get(&key).map_or(with.day, |waits| waits.row.since);
                let row = self.row(address, before, lookup, since, new.as_deref());
                self.held.insert(key, Waits { asked: now, row });
                return true;
            }
            Ruling::Take if !meant && announced > 0 => self.expected.use_up(1),
            Ruling::Take if !meant => self.guard.take(now, 1),
            Ruling::Take | Ruling::Hold => {}
        }
        if let Some(before) = before {
            self.taken.entry(key).or_insert((before, now));
        }
        self.held.remove(&key);
        self.note(key, way);
        false
    }

    /// Whether the address has returned to its state before a recently accepted change.
    fn is_put_right(&mut self, key: Id, way: Option<Seen>, now: UnixTime) -> bool {
        let within = self.within;
        self.taken.retain(|_, (_, at)| now.since(*at) < within);
        let Some((was, _)) = self.taken.get(&key) else { return false };
        let is_back = way.is_some_and(|now| now.is_like(was));
        if is_back {
            self.taken.remove(&key);
        }
        is_back
    }

    fn row(
        &self,
        address: &str,
        before: Option<Seen>,
        now: &Lookup,
        since: UnixTime,
        new: Option<&str>,
    ) -> HeldAddress {
        let from = match before {
            None => "nobody",
            Some(seen) if seen.way == self.hash(HERE) => "mailbox",
            Some(_) => "another address",
        };
        let to = match now {
            Lookup::Found(recipient) if recipient.kind != Kind::NoMailbox => match &recipient.target {
                Some(target) => target.to_string(),
                None => "mailbox".to_owned(),
            },
            _ => "nobody".to_owned(),
        };
        let why = match new {
            Some(connector) => format!("new here; the last mail for it was accepted by {connector}"),
            None if to == "nobody" => "taken away".to_owned(),
            None => "turned".to_owned(),
        };
        HeldAddress { address: address.to_owned(), from: from.to_owned(), to, since, why, in_force: false }
    }

    /// Drops waiting addresses that have not been looked up within the time in which changes count together.
    pub fn forget_held(&mut self, now: UnixTime) {
        let within = self.within;
        self.held.retain(|_, waits| now.since(waits.asked) < within);
    }

    /// An operator accepts the directory as it is: no address waits any more, and changes that are found within the
    /// time in which changes count together are accepted as well, because it is unknown which addresses they concern.
    /// Returns how many waited.
    pub fn accept(&mut self, now: UnixTime) -> usize {
        let held = self.held.len();
        self.guard.accept();
        self.changes += 1;
        self.held.clear();
        if held > 0 {
            self.accepted = Some(now);
        }
        held
    }

    /// Accepts these addresses only, also if they are looked up later, until then.
    pub fn accept_only(&mut self, keys: Vec<String>, until: QueueTime) -> usize {
        let before = self.held.len();
        for key in &keys {
            let key = self.hash(key);
            self.held.remove(&key);
        }
        self.expected.announce(Announced::Only(keys), until);
        before - self.held.len()
    }

    /// Announced changes.
    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    pub fn expected_mut(&mut self) -> &mut Expected {
        &mut self.expected
    }

    /// The waiting addresses. Of those that changed before the limit was reached only hashes are kept.
    #[must_use]
    pub fn held_list(&self) -> HeldList {
        let mut addresses: Vec<HeldAddress> = self.held.values().map(|waits| waits.row.clone()).collect();
        addresses.sort_by(|one, other| one.place().cmp(&other.place()));
        HeldList { recipients: addresses.len(), addresses, resuming: false }
    }

    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many are remembered.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// A number that changes when there is something to save.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The state to save.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let known = self.known.iter().map(|(key, seen)| (*key, *seen)).collect();
        let (counted, taken) =
            (self.guard.taken().collect(), self.taken.iter().map(|(key, was)| (*key, *was)).collect());
        Saved { key: self.key, servers: digest(&self.servers), known, counted, taken, accepted: self.accepted }
    }

    fn note(&mut self, key: Id, way: Option<Seen>) {
        let changed = match way {
            Some(way) => self.known.insert(key, way) != Some(way),
            None => self.known.remove(&key).is_some(),
        };
        self.changes += u64::from(changed);
        if self.known.len() > ENTRIES {
            // Many may have the same time: they were seen within a second, or the clock was put back.
            let mut by_age: Vec<(UnixTime, Id)> = self.known.iter().map(|(key, seen)| (seen.at, *key)).collect();
            let (_, middle, _) = by_age.select_nth_unstable(ENTRIES / 2);
            let middle = *middle;
            self.known.retain(|key, seen| (seen.at, *key) > middle);
        }
    }

    /// The destination in an answer. `Some(None)`: none. `None`: no clean answer.
    fn way(&self, lookup: &Lookup, now: UnixTime) -> Option<Option<Seen>> {
        match lookup {
            Lookup::NotFound => Some(None),
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Some(None),
            Lookup::Found(recipient) => {
                let way = recipient.target.as_ref().map_or_else(|| HERE.to_owned(), |to| format!("to {}", to.key()));
                let server = recipient.mail_server.as_deref().filter(|_| recipient.target.is_none());
                let connector = server.and_then(|server| self.servers.get(server));
                let place = self.hash(connector.map_or("", |connector| connector));
                Some(Some(Seen { way: self.hash(&way), place: Some(place), at: now }))
            }
            Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) | Lookup::Unavailable(_) => None,
        }
    }

    fn hash(&self, text: &str) -> Id {
        Id(keyed_hash(&self.key, text.as_bytes()))
    }
}

/// Identifies a table of `mailbox_servers`.
fn digest(servers: &HashMap<String, Arc<str>>) -> Id {
    let mut all: Vec<_> = servers.iter().collect();
    all.sort_unstable();
    Id::of(format!("{all:?}").as_bytes())
}

#[cfg(test)]
mod tests;
