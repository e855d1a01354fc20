//! Waiting transactions of one class: clients take turns. Pure.
//!
//! `queue` has one for each class. Each waiting client has a turn number. The lowest is served and goes to the end; a
//! client that comes, or comes again, goes to the end. A client that is skipped because only transactions with
//! [`Vouched::Yes`] may be served keeps its number.

use std::collections::BTreeMap;

use super::applicant::{ByVouched, Client, Vouched};

const KINDS: [Vouched; 2] = [Vouched::Yes, Vouched::No];

/// Waiting transactions by client.
#[derive(Debug, Clone)]
pub(super) struct Turns<W> {
    clients: BTreeMap<Client, Waiting<W>>,
    /// The clients with such a transaction, by turn number.
    order: ByVouched<BTreeMap<u64, Client>>,
    count: ByVouched<usize>,
    /// The highest number.
    end: u64,
}

/// One client's waiting transactions.
#[derive(Debug, Clone)]
struct Waiting<W> {
    turn: u64,
    /// By order of arrival.
    transactions: ByVouched<BTreeMap<u64, W>>,
}

/// Which transactions may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    ToAll,
    /// Those with [`Vouched::Yes`].
    ToVouched,
}

impl Open {
    fn is_to(self, vouched: Vouched) -> bool {
        self == Self::ToAll || vouched == Vouched::Yes
    }
}

impl<W> Default for Turns<W> {
    fn default() -> Self {
        Self { clients: BTreeMap::new(), order: ByVouched::default(), count: ByVouched::default(), end: 0 }
    }
}

impl<W> Turns<W> {
    /// How many transactions wait.
    pub(super) fn count(&self, vouched: Vouched) -> usize {
        *self.count.of(vouched)
    }

    /// Adds a transaction; `number` is greater than all before.
    pub(super) fn push(&mut self, client: Client, vouched: Vouched, number: u64, waiter: W) {
        let waiting = self.clients.entry(client).or_insert_with(|| {
            self.end += 1;
            Waiting { turn: self.end, transactions: ByVouched::default() }
        });
        waiting.transactions.of_mut(vouched).insert(number, waiter);
        self.order.of_mut(vouched).insert(waiting.turn, client);
        *self.count.of_mut(vouched) += 1;
    }

    /// Removes a transaction; `None`: it did not wait.
    pub(super) fn remove(&mut self, client: Client, vouched: Vouched, number: u64) -> Option<W> {
        let waiting = self.clients.get_mut(&client)?;
        let transactions = waiting.transactions.of_mut(vouched);
        let removed = transactions.remove(&number)?;
        *self.count.of_mut(vouched) -= 1;
        if transactions.is_empty() {
            self.order.of_mut(vouched).remove(&waiting.turn);
        }
        if KINDS.iter().all(|kind| waiting.transactions.of(*kind).is_empty()) {
            self.clients.remove(&client);
        }
        Some(removed)
    }

    /// The next client's oldest transaction among those that may be served.
    pub(super) fn pop(&mut self, open: Open) -> Option<(W, Vouched)> {
        let kinds = || KINDS.into_iter().filter(|kind| open.is_to(*kind));
        let (_, client) = kinds().filter_map(|kind| self.order.of(kind).first_key_value()).min()?;
        let client = *client;
        let transactions = &self.clients.get(&client)?.transactions;
        let oldest = |kind| Some((*transactions.of(kind).first_key_value()?.0, kind));
        let (number, vouched) = kinds().filter_map(oldest).min_by_key(|(number, _)| *number)?;
        let waiter = self.remove(client, vouched, number)?;
        self.send_to_end(client);
        Some((waiter, vouched))
    }

    fn send_to_end(&mut self, client: Client) {
        let Some(waiting) = self.clients.get_mut(&client) else { return };
        self.end += 1;
        for kind in KINDS {
            if self.order.of_mut(kind).remove(&waiting.turn).is_some() {
                self.order.of_mut(kind).insert(self.end, client);
            }
        }
        waiting.turn = self.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(letter: char) -> Client {
        Client::at(std::net::Ipv4Addr::from_bits(u32::from(letter.to_ascii_uppercase())).into())
    }

    /// Each letter is a transaction of that client, in lower case without evidence; returns the order in which they are
    /// served.
    fn served(waiting: &str, open: Open) -> String {
        let mut turns = Turns::default();
        for (number, letter) in (0..).zip(waiting.chars()) {
            let vouched = if letter.is_lowercase() { Vouched::No } else { Vouched::Yes };
            turns.push(client(letter), vouched, number, letter);
        }
        std::iter::from_fn(|| turns.pop(open)).map(|(letter, _)| letter).collect()
    }

    #[test]
    fn clients_are_served_in_turn_each_with_its_oldest() {
        for (waiting, all, vouched) in [
            ("", "", ""),
            ("A", "A", "A"),
            ("AAAAB", "ABAAA", "ABAAA"),
            ("AAABBC", "ABCABA", "ABCABA"),
            ("aAbB", "abAB", "AB"),
            ("aaaaaB", "aBaaaa", "B"),
            ("abcC", "abcC", "C"),
            ("aaABBb", "aBaBAb", "ABB"),
        ] {
            assert_eq!(served(waiting, Open::ToAll), all, "{waiting}");
            assert_eq!(served(waiting, Open::ToVouched), vouched, "{waiting}");
        }
    }

    #[test]
    fn who_was_passed_over_keeps_his_turn_and_who_comes_again_has_a_new_one() {
        let mut turns = Turns::default();
        for (number, letter) in (0..).zip(['a', 'B', 'C']) {
            let vouched = if letter == 'a' { Vouched::No } else { Vouched::Yes };
            turns.push(client(letter), vouched, number, letter);
        }
        assert_eq!(turns.pop(Open::ToVouched), Some(('B', Vouched::Yes)));
        turns.push(client('B'), Vouched::Yes, 3, 'B');
        assert_eq!(turns.pop(Open::ToAll), Some(('a', Vouched::No)));
        assert_eq!(turns.remove(client('C'), Vouched::Yes, 2), Some('C'));
        assert_eq!(turns.remove(client('C'), Vouched::Yes, 2), None);
        turns.push(client('C'), Vouched::Yes, 4, 'C');
        assert_eq!(turns.pop(Open::ToAll), Some(('B', Vouched::Yes)));
        assert_eq!(turns.pop(Open::ToAll), Some(('C', Vouched::Yes)));
        assert_eq!(turns.pop(Open::ToAll), None);
        assert!(
            turns.clients.is_empty()
                && turns.order.of(Vouched::Yes).is_empty()
                && turns.order.of(Vouched::No).is_empty()
        );
        assert_eq!(turns.count.total(), 0);
    }
}
