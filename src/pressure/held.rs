//! Accounts for the memory of incoming messages: recipients, and content that is not in a file yet.
//!
//! Each may use a share in any case; while all together exceed the limit, none gets more than that. The limit is
//! enforced for strangers; others are only counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Pressure;
use crate::smtp::address::Address;

/// The limit for all sessions in octets; lower while memory is short.
pub const FOR_ALL: u64 = 128 * 1024 * 1024;
/// The share of each: a usual message with some recipients.
pub const FOR_ONE: u64 = 32 * 1024;
/// Memory for a recipient beside its address: reasons, replies, hashes.
const BESIDE: u64 = 512;
/// How many copies of an address are kept.
const FORMS: u64 = 4;

/// The approximate memory for a recipient.
#[must_use]
pub fn cost(address: &Address, orcpt: Option<&str>) -> u64 {
    BESIDE + FORMS * address.as_str().len() as u64 + orcpt.map_or(0, str::len) as u64
}

/// The memory of one transaction, until it is dropped.
#[derive(Debug)]
pub struct Held {
    pressure: Arc<Pressure>,
    recipients: u64,
    content: u64,
}

impl Held {
    pub(super) fn new(pressure: Arc<Pressure>) -> Self {
        Self { pressure, recipients: 0, content: 0 }
    }

    /// Whether this much more may be used.
    #[must_use]
    pub fn has_room(&self, more: u64) -> bool {
        self.octets().saturating_add(more) <= FOR_ONE || !self.pressure.is_short_of_memory(more)
    }

    pub fn recipient(&mut self, cost: u64) {
        self.recipients += cost;
        self.pressure.held.fetch_add(cost, Ordering::Relaxed);
    }

    /// Sets how much of the content is in memory.
    pub fn content(&mut self, octets: u64) {
        self.pressure.held.fetch_add(octets, Ordering::Relaxed);
        self.pressure.held.fetch_sub(std::mem::replace(&mut self.content, octets), Ordering::Relaxed);
    }

    fn octets(&self) -> u64 {
        self.recipients + self.content
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pressure.held.fetch_sub(self.octets(), Ordering::Relaxed);
    }
}

impl Pressure {
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        Held::new(self.clone())
    }

    /// Whether with this much more sessions would use too much memory.
    #[must_use]
    pub fn is_short_of_memory(&self, more: u64) -> bool {
        self.held.load(Ordering::Relaxed).saturating_add(more) > self.may_hold.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_recipients_cost_more() {
        let address = |local: usize| Address::parse(&format!("{}@c.test", "x".repeat(local))).unwrap();
        assert_eq!(cost(&address(13), None), 512 + 4 * 20);
        assert_eq!(cost(&address(240), Some(&"y".repeat(487))), 512 + 4 * 247 + 487);
    }

    #[test]
    fn beyond_what_there_is_each_has_its_share_only() {
        let pressure = Arc::new(Pressure::default());
        let mut many: Vec<Held> = (0..200).map(|_| pressure.hold()).collect();
        let mut refused = 0;
        for held in &mut many {
            for _ in 0..1024 {
                match held.has_room(1024) {
                    true => held.recipient(1024),
                    false => refused += 1,
                }
            }
        }
        let all = pressure.held.load(Ordering::Relaxed);
        assert_eq!(all, FOR_ALL + (200 - 128) * FOR_ONE);
        assert_eq!(refused, (200 - 128) * (1024 - FOR_ONE / 1024));
        // Content counts with its current size.
        let mut other = pressure.hold();
        assert!(other.has_room(FOR_ONE) && !other.has_room(FOR_ONE + 1));
        other.content(FOR_ONE);
        assert!(!other.has_room(1));
        other.content(10);
        assert_eq!(pressure.held.load(Ordering::Relaxed), all + 10);
        many.truncate(100);
        assert!(other.has_room(FOR_ONE + 1), "there is room again");
        drop((many, other));
        assert_eq!(pressure.held.load(Ordering::Relaxed), 0);
    }
}
