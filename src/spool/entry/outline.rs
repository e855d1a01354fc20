//! What the queue needs of a waiting message, without its envelope, in little memory: there may be a million. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Change, Entry, HeldFor, RecipientState, Waiting, Why};
use crate::message::queue_id::QueueId;
use crate::routing::verdict::Route;
use crate::smtp::domain::Domain;
use crate::smtp::envelope::{Origin, Relay};
use crate::time::UnixTime;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    pub id: QueueId,
    /// The reverse-path, as a number that its messages share.
    pub sender: u32,
    pub kind: Kind,
    /// Octets of its content, at most 4 GiB.
    pub size: u32,
    /// Recipients that are not done.
    pub open: Vec<Open>,
}

/// Who caused a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A client.
    Mail,
    /// A report of ours about mail of our own organisations.
    Report,
    /// A report of ours about a stranger's message.
    StrangersReport,
}

/// A recipient that is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its position in the entry.
    pub at: u32,
    pub connector: Arc<str>,
    /// The [`group`] of the domain whose MX is its next hop, where its connector delivers by MX.
    pub domain: u32,
    pub standing: Standing,
}

/// The state of a recipient that is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Waits(Waits),
    Held(HeldFor),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    pub due: UnixTime,
    pub why: Why,
    pub attempts: u32,
    /// How often it was sent with an unknown outcome.
    pub in_doubt: u32,
}

/// The outlines of all live messages, from reading the log until the queue takes them over one by one, oldest first.
/// They take some forty octets for each recipient that is not done.
#[derive(Debug, Default)]
pub struct Outlines {
    open: BTreeMap<Key, Packed>,
    connectors: Vec<Arc<str>>,
    /// Index of each connector.
    numbers: HashMap<Arc<str>, u32>,
}

/// A message's id, in halves so that alignment wastes no octets, and the recipient's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    high: u32,
    low: u32,
    at: u32,
}

/// One [`Open`], and its message's properties.
#[derive(Debug, Clone, Copy)]
struct Packed {
    due: [u32; 2],
    sender: u32,
    size: u32,
    domain: u32,
    connector: u32,
    attempts: u32,
    in_doubt: u8,
    kind: Kind,
    stands: Stands,
}

/// A [`Standing`] without its numbers.
#[derive(Debug, Clone, Copy)]
enum Stands {
    Waits(Why),
    Held(HeldFor),
}

/// The number of a domain; domains with the same number share connection limits. Never 0.
#[must_use]
pub fn group(domain: &Domain) -> u32 {
    crc32c::crc32c(domain.as_str().as_bytes()).max(1)
}

impl Outline {
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        let open = (0..).zip(&entry.recipients).filter_map(|(at, queued)| {
            let standing = Standing::of(&queued.state)?;
            let Route { connector, next_hop_domain, .. } = &queued.route;
            Some(Open { at, connector: connector.clone(), domain: group(next_hop_domain), standing })
        });
        let sender = crc32c::crc32c(entry.sender.reverse_path.as_str().as_bytes());
        let size = u32::try_from(entry.content.size).unwrap_or(u32::MAX);
        Self { id: entry.id, sender, kind: Kind::of(&entry.origin), size, open: open.collect() }
    }
}

impl Outlines {
    /// Inserts a message with its current state; replaces what was known of it.
    pub fn insert(&mut self, entry: &Entry) {
        let [first, last] = [0, u32::MAX].map(|at| Key::new(entry.id, at));
        let before: Vec<Key> = self.open.range(first..=last).map(|(key, _)| *key).collect();
        for key in before {
            self.open.remove(&key);
        }
        let Outline { id, sender, kind, size, open } = Outline::of(entry);
        for Open { at, connector, domain, standing } in open {
            let connector = self.number(&connector);
            let nothing = Packed {
                due: [0; 2],
                sender,
                size,
                domain,
                connector,
                attempts: 0,
                in_doubt: 0,
                kind,
                stands: Stands::Held(HeldFor::NoConnector),
            };
            self.open.insert(Key::new(id, at), nothing.standing(standing));
        }
    }

    /// Applies a change as [`Entry::apply`] does.
    pub fn apply(&mut self, change: &Change) {
        let Ok(at) = u32::try_from(change.recipient) else { return };
        let key = Key::new(change.id, at);
        let Some(standing) = Standing::of(&change.state) else {
            self.open.remove(&key);
            return;
        };
        let number = change.route.as_ref().map(|route| (self.number(&route.connector), group(&route.next_hop_domain)));
        if let Some(open) = self.open.get_mut(&key) {
            *open = open.standing(standing);
            (open.connector, open.domain) = number.unwrap_or((open.connector, open.domain));
        }
    }

    /// The number of recipients.
    #[must_use]
    pub fn recipients(&self) -> usize {
        self.open.len()
    }

    fn number(&mut self, connector: &Arc<str>) -> u32 {
        if let Some(number) = self.numbers.get(connector) {
            return *number;
        }
        let number = u32::try_from(self.connectors.len()).unwrap_or(u32::MAX); // there are never so many
        self.connectors.push(connector.clone());
        self.numbers.insert(connector.clone(), number);
        number
    }
}

impl Iterator for Outlines {
    type Item = Outline;

    fn next(&mut self) -> Option<Outline> {
        let (key, first) = self.open.first_key_value()?;
        let id = key.id();
        let mut outline = Outline { id, sender: first.sender, kind: first.kind, size: first.size, open: Vec::new() };
        while let Some(entry) = self.open.first_entry().filter(|entry| entry.key().id() == id) {
            let (Key { at, .. }, packed) = entry.remove_entry();
            let connector = self.connectors.get(packed.connector as usize).cloned().unwrap_or_default();
            outline.open.push(Open { at, connector, domain: packed.domain, standing: packed.unpacked() });
        }
        Some(outline)
    }
}

impl Key {
    fn new(QueueId(id): QueueId, at: u32) -> Self {
        let [high, low] = halves(id);
        Self { high, low, at }
    }

    fn id(&self) -> QueueId {
        QueueId(whole([self.high, self.low]))
    }
}

fn halves(number: u64) -> [u32; 2] {
    [number >> 32, number & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or_default())
}

fn whole([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

impl Packed {
    /// The same recipient with this state.
    fn standing(self, standing: Standing) -> Self {
        match standing {
            Standing::Held(why) => Self { stands: Stands::Held(why), ..self },
            Standing::Waits(Waits { due, why, attempts, in_doubt }) => {
                // More copies are never sent.
                let in_doubt = u8::try_from(in_doubt).unwrap_or(u8::MAX);
                Self { due: halves(due.0), stands: Stands::Waits(why), attempts, in_doubt, ..self }
            }
        }
    }

    fn unpacked(&self) -> Standing {
        let Self { due, attempts, in_doubt, stands, .. } = *self;
        match stands {
            Stands::Held(why) => Standing::Held(why),
            Stands::Waits(why) => {
                Standing::Waits(Waits { due: UnixTime(whole(due)), why, attempts, in_doubt: in_doubt.into() })
            }
        }
    }
}

impl Kind {
    /// By a message's origin.
    #[must_use]
    pub fn of(origin: &Origin) -> Self {
        match origin {
            origin if origin.is_strangers_report() => Self::StrangersReport,
            origin if origin.relay == Relay::Report => Self::Report,
            _ => Self::Mail,
        }
    }
}

impl From<&Waiting> for Waits {
    fn from(waiting: &Waiting) -> Self {
        let Waiting { next_attempt: due, why, attempts, in_doubt, .. } = *waiting;
        Self { due, why, attempts, in_doubt }
    }
}

impl Standing {
    fn of(state: &RecipientState) -> Option<Self> {
        match state {
            RecipientState::Waiting(waiting) => Some(Self::Waits(waiting.into())),
            RecipientState::Held(why) => Some(Self::Held(*why)),
            RecipientState::Done(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::entry::Outcome;
    use crate::spool::sample::entry;

    fn waits(due: u64, in_doubt: u32) -> RecipientState {
        let (attempts, why) = (u32::MAX, Why::InDoubt);
        RecipientState::Waiting(Waiting { next_attempt: UnixTime(due), attempts, in_doubt, why, ..Waiting::default() })
    }

    #[test]
    fn a_million_outlines_are_small() {
        assert_eq!(size_of::<(Key, Packed)>(), 44);
    }

    /// After any sequence of operations the outlines are equal to those made from the entries.
    #[test]
    fn outlines_are_those_of_the_entries_by_age() {
        let mut outlines = Outlines::default();
        let ids = [7, 5 << 32, u64::MAX, 0, 6, 1 << 20];
        let mut entries: BTreeMap<QueueId, Entry> =
            ids.map(|id| (QueueId(id), entry(QueueId(id), u64::from(u32::MAX) + id.min(9) - 7))).into();
        entries.values().for_each(|entry| outlines.insert(entry));
        let mut route = entries[&QueueId(6)].recipients[0].route.clone();
        (route.connector, route.next_hop_domain) = ("other".into(), Domain::parse("elsewhere.test").unwrap());
        let done = RecipientState::Done(Outcome::Dropped);
        for (id, recipient, state, route) in [
            (6, 1, waits(u64::MAX, 3), None),
            (6, 0, RecipientState::Held(HeldFor::NoConnector), Some(route.clone())),
            (7, 0, done.clone(), None),
            (7, 0, waits(9, 0), None),
            (7, 2, waits(9, 0), None),
            (0, 0, RecipientState::Held(HeldFor::Drop), None),
            (0, 0, waits(1 << 33, 0), Some(route)),
            (1 << 20, 1, done.clone(), None),
            (1 << 20, 0, done.clone(), None),
            (8, 0, waits(9, 0), None),
        ] {
            let change = Change { id: QueueId(id), recipient, state, route };
            if let Some(entry) = entries.get_mut(&change.id) {
                entry.apply(&change);
            }
            outlines.apply(&change);
        }
        // A moved message is there once, with its current state.
        let moved = entries.get_mut(&QueueId(5 << 32)).unwrap();
        moved.recipients[0].state = done;
        outlines.insert(moved);
        let live = entries.values().filter(|entry| !entry.is_finished());
        let expected: Vec<Outline> = live.map(Outline::of).collect();
        assert_eq!(outlines.recipients(), 8);
        assert_eq!(outlines.collect::<Vec<_>>(), expected);
    }
}
