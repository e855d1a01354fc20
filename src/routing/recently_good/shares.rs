//! Limits how many addresses each stranger may bring in a day that can displace others. Pure.

use std::net::IpAddr;

use crate::fast_map::FastMap;
use crate::one_client::one_client;
use crate::time::QueueTime;

/// Addresses a client and day.
pub(super) const SHARE: u32 = 1000;
/// The most clients that are counted; further ones have no share that day.
const CLIENTS: usize = 50_000;
const DAY: u64 = 24 * 3600;

/// The shares of the current day.
#[derive(Debug, Default)]
pub(super) struct Shares {
    day: u64,
    brought: FastMap<IpAddr, u32>,
}

impl Shares {
    /// Takes one from the client's share; `false`: it is used up.
    pub(super) fn take(&mut self, client: IpAddr, now: QueueTime) -> bool {
        if self.day != now.0 / DAY {
            (self.day, self.brought) = (now.0 / DAY, FastMap::default());
        }
        let client = one_client(client);
        if self.brought.len() >= CLIENTS && !self.brought.contains_key(&client) {
            return false;
        }
        let brought = self.brought.entry(client).or_default();
        *brought = brought.saturating_add(1);
        *brought <= SHARE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_share_of_a_day() {
        let mut shares = Shares::default();
        let client = |number: u32| IpAddr::V4(number.into());
        for number in 1..=2 {
            assert_eq!((0..2 * SHARE).filter(|_| shares.take(client(number), QueueTime(DAY))).count(), SHARE as usize);
        }
        assert!(shares.take(client(1), QueueTime(2 * DAY)), "the next day");
        let with_one =
            (0..2 * CLIENTS as u32).filter(|number| shares.take(client(*number), QueueTime(3 * DAY))).count();
        assert_eq!((with_one, shares.brought.len()), (CLIENTS, CLIENTS), "memory is bounded");
    }
}
