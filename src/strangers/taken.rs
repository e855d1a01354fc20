//! Clients whose mail was accepted lately: where not all strangers can be served, they have priority over those that
//! never sent any. Pure.

use std::net::IpAddr;
use std::time::Duration;

use crate::fast_map::FastMap;
use crate::one_client::one_client;
use crate::time::UnixTime;

/// How long accepted mail counts.
const LATELY: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most clients that are remembered.
const CLIENTS: usize = 50_000;
/// Clients that have sent mail over a longer time than this are kept when there is no room: that cannot be achieved
/// quickly.
const STAYS: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub struct Taken(FastMap<IpAddr, Mail>);

#[derive(Debug, Clone, Copy)]
struct Mail {
    first: UnixTime,
    last: UnixTime,
}

impl Taken {
    /// A message of this client was accepted.
    pub fn took(&mut self, client: IpAddr, now: UnixTime) {
        let client = one_client(client);
        if self.0.len() >= CLIENTS && !self.0.contains_key(&client) {
            self.make_room(now);
        }
        let mail = self.0.entry(client).or_insert(Mail { first: now, last: now });
        if now.since(mail.last) >= LATELY {
            mail.first = now;
        }
        mail.last = now;
    }

    /// Whether one was accepted lately.
    #[must_use]
    pub fn knows(&self, client: IpAddr, now: UnixTime) -> bool {
        self.0.get(&one_client(client)).is_some_and(|mail| now.since(mail.last) < LATELY)
    }

    /// Drops the new ones; if that is not enough, the older half of the others.
    fn make_room(&mut self, now: UnixTime) {
        self.0.retain(|_, mail| now.since(mail.last) < LATELY && mail.last.since(mail.first) >= STAYS);
        if self.0.len() > CLIENTS / 2 {
            let mut times: Vec<UnixTime> = self.0.values().map(|mail| mail.last).collect();
            let (_, median, _) = times.select_nth_unstable(CLIENTS / 4);
            let median = *median;
            self.0.retain(|_, mail| mail.last > median);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sent_over_some_time_stays_whoever_comes_and_for_a_week() {
        let mut taken = Taken::default();
        let honest = IpAddr::from([192, 0, 2, 1]);
        let start = UnixTime(1_000_000);
        assert!(!taken.knows(honest, start));
        taken.took(honest, start);
        assert!(taken.knows(honest, start), "one is enough");
        let now = start.plus(STAYS);
        taken.took(honest, now);
        for number in 0..200_000_u32 {
            taken.took(std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into(), now);
            assert!(taken.0.len() <= CLIENTS);
        }
        assert!(taken.knows(honest, now));
        assert!(!taken.knows(honest, now.plus(LATELY)));
    }
}
