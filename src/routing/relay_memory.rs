//! What next hops accepted within the last 30 minutes (DESIGN section 6, rule 4).
//!
//! Delivery notes, `loops::remembered` counts. It holds hashes and times only; its owner keeps it behind a lock.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::loops::Relayed;
use crate::fast_map::FastMap;
use crate::time::UnixTime;

const KEPT: Duration = Duration::from_mins(30);
const ENTRIES: usize = 100_000;

/// At most 100,000 relays, the oldest forgotten first. Hashes only.
#[derive(Debug, Default)]
pub struct RelayMemory {
    /// Every relay, oldest first.
    order: VecDeque<(UnixTime, Hash)>,
    relays: FastMap<Hash, Times>,
    /// What makes the hashes: two of 64 bits with keys that nobody knows, so that no two relays are taken for one.
    keys: [RandomState; 2],
}

type Hash = [u64; 2];

/// When a relay was noted: the last two times are all that anybody asks about.
#[derive(Debug, Clone, Copy)]
struct Times {
    last: UnixTime,
    before: Option<UnixTime>,
    /// How often it stands in `order`.
    kept: usize,
}

impl RelayMemory {
    /// Notes that a next hop accepted a message for a recipient: once a message, never an attempt.
    pub fn note(&mut self, relay: &Relayed<'_>) {
        let Some(hash) = self.hash(relay) else { return };
        self.forget(relay.now);
        self.order.push_back((relay.now, hash));
        self.relays
            .entry(hash)
            .and_modify(|times| *times = Times { last: relay.now, before: Some(times.last), kept: times.kept + 1 })
            .or_insert(Times { last: relay.now, before: None, kept: 1 });
    }

    /// How often it is there, where two stands for all above.
    #[must_use]
    pub fn count(&self, relay: &Relayed<'_>) -> usize {
        let Some(times) = self.hash(relay).and_then(|hash| self.relays.get(&hash)) else { return 0 };
        let recent = [Some(times.last), times.before].into_iter().flatten().filter(|at| relay.now.since(*at) < KEPT);
        recent.count().min(times.kept)
    }

    /// `None` for a message without Message-ID: it is not remembered.
    fn hash(&self, relay: &Relayed<'_>) -> Option<Hash> {
        let Relayed { connector, recipient, reverse_path, facts, .. } = relay;
        let parts = (connector, recipient.key(), reverse_path.key(), facts.id_and_date);
        facts.message_id.then(|| self.keys.each_ref().map(|key| key.hash_one(parts)))
    }

    /// Drops what is too old, and the oldest if the memory is full.
    fn forget(&mut self, now: UnixTime) {
        while let Some((at, hash)) = self.order.front().copied() {
            if now.since(at) < KEPT && self.order.len() < ENTRIES {
                return;
            }
            self.order.pop_front();
            if let Some(times) = self.relays.get_mut(&hash) {
                times.kept -= 1;
                if times.kept == 0 {
                    self.relays.remove(&hash);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::header::{Identity, examine};
    use crate::smtp::address::{Address, ReversePath};

    struct Mail {
        recipient: Address,
        reverse_path: ReversePath,
        identity: Identity,
    }

    fn mail(recipient: &str, sender: &str, section: &str) -> Mail {
        Mail {
            recipient: Address::parse(recipient).unwrap(),
            reverse_path: Address::parse(sender).map_or(ReversePath::Null, ReversePath::Address),
            identity: examine(section.as_bytes()).identity,
        }
    }

    fn relayed<'a>(connector: &'a str, mail: &'a Mail, now: u64) -> Relayed<'a> {
        let Mail { recipient, reverse_path, identity } = mail;
        Relayed { connector, recipient, reverse_path, facts: identity, now: UnixTime(now) }
    }

    const ID: &str = "Message-ID: <1@a>\r\nDate: d\r\n";

    #[test]
    fn it_counts_what_is_the_same_in_every_part() {
        let known = mail("u@a.b", "s@c.d", ID);
        let mut memory = RelayMemory::default();
        memory.note(&relayed("x", &known, 100));
        memory.note(&relayed("x", &known, 200));
        let other_from = mail("U@A.b", "S@c.d", "From: y\r\nMessage-ID: <1@a>\r\nDate: d\r\n");
        assert_eq!(memory.count(&relayed("x", &other_from, 300)), 2);
        assert_eq!(memory.count(&relayed("y", &known, 300)), 0);
        for other in [
            mail("v@a.b", "s@c.d", ID),
            mail("u@a.b", "", ID),
            mail("u@a.b", "s@c.d", "Message-ID: <2@a>\r\nDate: d\r\n"),
            mail("u@a.b", "s@c.d", "Message-ID: <1@a>\r\nDate: e\r\n"),
        ] {
            assert_eq!(memory.count(&relayed("x", &other, 300)), 0);
        }
    }

    #[test]
    fn it_forgets_after_half_an_hour() {
        let known = mail("u@a.b", "s@c.d", ID);
        let mut memory = RelayMemory::default();
        memory.note(&relayed("x", &known, 100));
        memory.note(&relayed("x", &known, 1000));
        for (now, count) in [(1000, 2), (1899, 2), (1900, 1), (2799, 1), (2800, 0)] {
            assert_eq!(memory.count(&relayed("x", &known, now)), count, "{now}");
        }
        memory.note(&relayed("x", &known, 5000));
        assert_eq!((memory.order.len(), memory.relays.len()), (1, 1));
        assert_eq!(memory.count(&relayed("x", &known, 5000)), 1);
    }

    #[test]
    fn a_message_without_message_id_is_not_remembered() {
        let anonymous = mail("u@a.b", "s@c.d", "Date: d\r\n");
        let mut memory = RelayMemory::default();
        memory.note(&relayed("x", &anonymous, 1));
        memory.note(&relayed("x", &anonymous, 1));
        assert_eq!((memory.count(&relayed("x", &anonymous, 1)), memory.order.len()), (0, 0));
    }

    #[test]
    fn it_is_bounded_and_the_oldest_go() {
        let mut memory = RelayMemory::default();
        let mails: Vec<Mail> = (0..=ENTRIES).map(|n| mail(&format!("u{n}@a.b"), "", ID)).collect();
        memory.note(&relayed("x", &mails[0], 1));
        for mail in &mails {
            memory.note(&relayed("x", mail, 1));
        }
        assert_eq!((memory.order.len(), memory.relays.len()), (ENTRIES, ENTRIES));
        assert_eq!(memory.count(&relayed("x", &mails[0], 1)), 0);
        assert_eq!(memory.count(&relayed("x", &mails[1], 1)), 1);
        assert_eq!(memory.count(&relayed("x", &mails[ENTRIES], 1)), 1);
    }
}
