//! The last refusal of each recipient by a next hop, with its row in the table of refusals, for `fingerpost route`.
//! Pure.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use super::outcome::Outcome;
use crate::fast_map::FastMap;
use crate::smtp::address::Address;
use crate::smtp::reply::Reply;
use crate::time::UnixTime;

/// The most recipients that are remembered; the oldest are dropped first.
const REMEMBERED: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRefusal {
    pub at: UnixTime,
    /// `name[address]:port`.
    pub next_hop: Arc<str>,
    /// The next hop's reply, or ours in its place.
    pub reply: Reply,
    pub row: &'static str,
}

/// By hash of the recipient, so that no addresses are stored.
#[derive(Debug, Default)]
pub struct LastRefusals {
    known: FastMap<u64, LastRefusal>,
    order: VecDeque<u64>,
    hash: RandomState,
}

impl LastRefusals {
    /// Records an outcome that has a row.
    pub fn note(&mut self, address: &Address, outcome: &Outcome, at: UnixTime) {
        if outcome.row.is_empty() {
            return;
        }
        let hash = self.hash.hash_one(address.key());
        let (next_hop, reply, row) = (outcome.next_hop.clone(), outcome.reply.clone(), outcome.row);
        if self.known.insert(hash, LastRefusal { at, next_hop, reply, row }).is_some() {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(first) = self.order.pop_front()
        {
            self.known.remove(&first);
        }
    }

    #[must_use]
    pub fn of(&self, address: &Address) -> Option<&LastRefusal> {
        self.known.get(&self.hash.hash_one(address.key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::reply::USER_UNKNOWN;

    #[test]
    fn the_last_one_is_remembered_and_the_oldest_recipients_go() {
        let mut all = LastRefusals::default();
        let address = |number: usize| Address::parse(&format!("u{number}@contoso.com")).unwrap();
        let said = |row| Outcome::answered(USER_UNKNOWN, &"hop".into()).by(row);
        all.note(&address(0), &said(""), UnixTime(1));
        assert_eq!(all.of(&address(0)), None, "nothing was read");
        for (row, at) in [("first", 1), ("second", 2)] {
            all.note(&address(0), &said(row), UnixTime(at));
            let last = all.of(&address(0)).unwrap();
            assert_eq!((last.row, last.at), (row, UnixTime(at)));
        }
        (1..=REMEMBERED).for_each(|number| all.note(&address(number), &said("x"), UnixTime(3)));
        assert_eq!(all.of(&address(0)), None);
        assert!(all.of(&address(1)).is_some() && all.known.len() == REMEMBERED);
    }
}
