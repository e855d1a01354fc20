//! Who looks for addresses: a client of whose recipients many are unknown, and more than are known. Pure.
//!
//! A newsletter of 5,000 recipients, one in twenty unknown, is none: it is the share that shows a harvester. Who is found
//! out hears each further refusal later; who goes on has one session at a time.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Limits, MOST_UNKNOWN};
use crate::fast_map::FastMap;
use crate::time::UnixTime;

/// How many clients are remembered; those that were seen last.
const CLIENTS: usize = 5_000;
/// So many recipients that were accepted last do not count again before a message to them is accepted.
const NAMED: usize = 64;
/// For how long accepted ones are counted: no window is longer.
pub(crate) const MINUTES: usize = 60;

/// How refusals are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    AtOnce,
    /// After `unknown_delay`. `news`: for the first time.
    Later {
        /// It has just been found out.
        news: bool,
    },
    /// The session is over: another one of this client's goes on.
    Closed,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Harvest {
    clients: FastMap<IpAddr, Client>,
    hash: RandomState,
}

/// Whether a client has one session only.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum OneSession {
    #[default]
    No,
    /// Nobody was told so far.
    News,
    Told,
}

#[derive(Debug, Default)]
struct Client {
    seen: UnixTime,
    /// Distinct unknown recipients and when each was named first, oldest first.
    unknown: VecDeque<(UnixTime, u64)>,
    /// How many were accepted, by minute, oldest first.
    accepted: VecDeque<(u64, u64)>,
    /// Who was accepted last, at RCPT.
    named: VecDeque<u64>,
    /// The one session that it has left.
    session: Option<Arc<str>>,
    /// It was found out, and has not been quiet since.
    known: bool,
    /// It has one session only.
    one_session: OneSession,
}

impl Harvest {
    /// A recipient was refused as unknown.
    pub fn unknown(
        &mut self,
        client: IpAddr,
        (session, recipient): (&Arc<str>, &str),
        limits: &Limits,
        now: UnixTime,
    ) -> Pace {
        if limits.unknown_recipients == 0 {
            return Pace::AtOnce;
        }
        let hash = self.hash.hash_one(recipient);
        let client = self.client(client, now);
        client.forget(limits.unknown_within, now);
        if client.unknown.len() < MOST_UNKNOWN && !client.unknown.iter().any(|(_, known)| *known == hash) {
            client.unknown.push_back((now, hash));
        }
        match (client.is_barred(limits), client.one_session) {
            (false, _) => client.one_session = OneSession::No,
            (true, OneSession::No) => client.one_session = OneSession::News,
            (true, OneSession::News | OneSession::Told) => {}
        }
        if client.one_session != OneSession::No {
            let one = client.session.get_or_insert_with(|| session.clone());
            if one != session {
                return Pace::Closed;
            }
        }
        if !client.harvests(limits) {
            client.known = false;
            return Pace::AtOnce;
        }
        Pace::Later { news: !std::mem::replace(&mut client.known, true) }
    }

    /// A recipient was accepted, at RCPT. Whether that counts before the dot: the same one again and again does not.
    pub fn accepted(&mut self, client: IpAddr, recipient: &str, now: UnixTime) -> bool {
        let hash = self.hash.hash_one(recipient);
        let client = self.client(client, now);
        if client.named.contains(&hash) {
            return false;
        }
        if client.named.len() >= NAMED {
            client.named.pop_front();
        }
        client.named.push_back(hash);
        client.add(1, now);
        true
    }

    /// The dot was answered: so many recipients are accepted in the end, of whom `counted` have been counted.
    pub fn settled(&mut self, client: IpAddr, (counted, accepted): (u64, u64), now: UnixTime) {
        let client = self.client(client, now);
        client.add(accepted.saturating_sub(counted), now);
        client.take_back(counted.saturating_sub(accepted));
    }

    /// Whether this client has just come to have one session only; once, until it has more again.
    pub fn one_session_begins(&mut self, client: IpAddr) -> bool {
        let Some(client) = self.clients.get_mut(&client) else { return false };
        let begins = client.one_session == OneSession::News;
        if begins {
            client.one_session = OneSession::Told;
        }
        begins
    }

    /// Whether this client may have one session only.
    pub fn has_one_session(&mut self, client: IpAddr, limits: &Limits, now: UnixTime) -> bool {
        let Some(client) = self.clients.get_mut(&client) else { return false };
        client.forget(limits.unknown_within, now);
        limits.unknown_recipients > 0 && client.is_barred(limits)
    }

    /// A session has ended.
    pub fn left(&mut self, client: IpAddr, session: &Arc<str>) {
        if let Some(client) = self.clients.get_mut(&client)
            && client.session.as_ref() == Some(session)
        {
            client.session = None;
        }
    }

    fn client(&mut self, client: IpAddr, now: UnixTime) -> &mut Client {
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&client) {
            self.forget_some();
        }
        let client = self.clients.entry(client).or_default();
        client.seen = now;
        client
    }

    /// The half that was not seen for the longest time.
    fn forget_some(&mut self) {
        let mut seen: Vec<UnixTime> = self.clients.values().map(|client| client.seen).collect();
        let (_, median, _) = seen.select_nth_unstable(CLIENTS / 2);
        let median = *median;
        self.clients.retain(|_, client| client.seen > median);
    }
}

impl Client {
    fn forget(&mut self, window: Duration, now: UnixTime) {
        let old = |at: UnixTime| now.since(at) >= window || at.since(now) >= window;
        while self.unknown.front().is_some_and(|(at, _)| old(*at)) {
            self.unknown.pop_front();
        }
        while self.accepted.front().is_some_and(|(minute, _)| old(UnixTime((minute + 1) * 60))) {
            self.accepted.pop_front();
        }
    }

    fn add(&mut self, accepted: u64, now: UnixTime) {
        let minute = now.0 / 60;
        match self.accepted.back_mut() {
            _ if accepted == 0 => {}
            Some((last, times)) if *last == minute => *times += accepted,
            _ => self.accepted.push_back((minute, accepted)),
        }
        if self.accepted.len() > MINUTES {
            self.accepted.pop_front();
        }
    }

    /// The latest first: they were counted when the message's recipients were named.
    fn take_back(&mut self, mut accepted: u64) {
        for (_, times) in self.accepted.iter_mut().rev() {
            let taken = accepted.min(*times);
            *times -= taken;
            accepted -= taken;
        }
    }

    fn accepted(&self) -> u64 {
        self.accepted.iter().map(|(_, times)| times).sum()
    }

    fn harvests(&self, limits: &Limits) -> bool {
        // More of them are not counted: then many more have to be accepted.
        let unknown = self.unknown.len() as u64 * if self.unknown.len() >= MOST_UNKNOWN { 10 } else { 1 };
        self.unknown.len() >= limits.unknown_recipients && unknown > self.accepted()
    }

    fn is_barred(&self, limits: &Limits) -> bool {
        self.unknown.len() >= limits.unknown_one_session
            && self.unknown.len() as u64 >= self.accepted().saturating_mul(10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        unknown_recipients: 20,
        unknown_delay: Duration::from_secs(1),
        unknown_one_session: 200,
        unknown_within: Duration::from_mins(10),
    };
    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const LATER: Pace = Pace::Later { news: false };

    /// What becomes of these: `a` accepted, `u` another unknown one, `o` the first unknown one once more.
    fn paces(harvest: &mut Harvest, what: &str, now: u64) -> Vec<Pace> {
        let session: Arc<str> = "1".into();
        let mut paces = Vec::new();
        for (at, letter) in what.chars().enumerate() {
            let recipient = if letter == 'o' { "o".to_owned() } else { format!("{now} {at}") };
            if letter == 'a' {
                harvest.accepted(CLIENT, &recipient, UnixTime(now));
            } else {
                paces.push(harvest.unknown(CLIENT, (&session, &recipient), &LIMITS, UnixTime(now)));
            }
        }
        paces
    }

    #[test]
    fn twenty_different_ones_and_more_than_were_accepted_show_a_harvester() {
        for (what, late) in [
            ("u".repeat(19), 0),
            ("u".repeat(20), 1),
            ("u".repeat(25), 6),
            ("o".repeat(100), 0),
            ("a".repeat(19) + &"u".repeat(20), 1),
            ("a".repeat(20) + &"u".repeat(20), 0),
            (("a".repeat(19) + "u").repeat(250), 0),
            ("au".repeat(100), 0),
            ("u".repeat(20) + &"a".repeat(20) + "u", 2),
            ("a".repeat(1000) + &"u".repeat(510), 11),
            ("a".repeat(9500) + &"u".repeat(510), 0),
        ] {
            let paces = paces(&mut Harvest::default(), &what, 600);
            assert_eq!(paces.iter().filter(|pace| **pace != Pace::AtOnce).count(), late, "{what}");
        }
        let paces = paces(&mut Harvest::default(), &"u".repeat(22), 600);
        assert_eq!(paces[18..], [Pace::AtOnce, Pace::Later { news: true }, LATER, LATER]);
    }

    #[test]
    fn ten_minutes_are_looked_at() {
        let mut harvest = Harvest::default();
        paces(&mut harvest, &"u".repeat(19), 600);
        assert_eq!(paces(&mut harvest, "u", 1199), [Pace::Later { news: true }]);
        assert_eq!(paces(&mut harvest, "u", 1200), [Pace::AtOnce]);
        let mut harvest = Harvest::default();
        paces(&mut harvest, &("a".repeat(50) + &"u".repeat(19)), 600);
        assert_eq!(paces(&mut harvest, &"u".repeat(30), 1190), [Pace::AtOnce; 30]);
        assert_eq!(paces(&mut harvest, "u", 1260), [Pace::Later { news: true }], "what was accepted is forgotten too");
        let mut harvest = Harvest::default();
        paces(&mut harvest, &("a".repeat(4750) + &"u".repeat(250)), 659);
        assert!(!harvest.has_one_session(CLIENT, &LIMITS, UnixTime(1200)), "a newsletter, not its unknown ones alone");
    }

    #[test]
    fn after_two_hundred_one_session_is_left_until_it_ends() {
        let (mut harvest, now) = (Harvest::default(), UnixTime(600));
        assert!(!harvest.has_one_session(CLIENT, &LIMITS, now));
        assert_eq!(paces(&mut harvest, &"u".repeat(199), 600).last(), Some(&LATER));
        assert!(!harvest.has_one_session(CLIENT, &LIMITS, now) && !harvest.one_session_begins(CLIENT));
        assert_eq!(paces(&mut harvest, "uu", 601), [LATER; 2]);
        assert!(harvest.one_session_begins(CLIENT) && !harvest.one_session_begins(CLIENT), "once");
        assert!(harvest.has_one_session(CLIENT, &LIMITS, now));
        let (first, second): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
        let mut says = |session| harvest.unknown(CLIENT, (session, "x"), &LIMITS, now);
        assert_eq!((says(&second), says(&first)), (Pace::Closed, LATER));
        harvest.left(CLIENT, &second);
        harvest.left(CLIENT, &first);
        assert_eq!(harvest.unknown(CLIENT, (&second, "x"), &LIMITS, now), LATER);
        assert!(!harvest.has_one_session(CLIENT, &LIMITS, UnixTime(1200)));
        let mut harvest = Harvest::default();
        paces(&mut harvest, &("a".repeat(21) + &"u".repeat(209)), 600);
        assert!(!harvest.has_one_session(CLIENT, &LIMITS, now), "ten times those accepted");
        paces(&mut harvest, "u", 601);
        assert!(harvest.has_one_session(CLIENT, &LIMITS, now));
    }

    /// Counts after each: `a` somebody else accepted at RCPT, `o` the same one again; `+` and `-` the dot, for all of them.
    #[test]
    fn what_counts_is_settled_at_the_dot() {
        for (what, expected) in [
            ("aaa", &[1, 2, 3][..]),
            ("ooo", &[1, 1, 1]),
            ("ao+", &[1, 2, 2]),
            ("aa-", &[1, 2, 0]),
            ("o+o+o+", &[1, 1, 1, 2, 2, 3]),
            ("o+o-o-", &[1, 1, 1, 1, 1, 1]),
            ("aa+aa-aa-", &[1, 2, 2, 3, 4, 2, 3, 4, 2]),
        ] {
            let (mut harvest, mut counted, mut named, mut counts) = (Harvest::default(), 0, 0, Vec::new());
            for (at, letter) in what.chars().enumerate() {
                let now = UnixTime(600 + 40 * at as u64);
                match letter {
                    '+' | '-' => {
                        harvest.settled(CLIENT, (counted, if letter == '+' { named } else { 0 }), now);
                        (counted, named) = (0, 0);
                    }
                    _ => {
                        let recipient = if letter == 'o' { "o".to_owned() } else { at.to_string() };
                        counted += u64::from(harvest.accepted(CLIENT, &recipient, now));
                        named += 1;
                    }
                }
                counts.push(harvest.clients[&CLIENT].accepted());
            }
            assert_eq!(counts, expected, "{what}");
        }
        let mut harvest = Harvest::default();
        harvest.settled(CLIENT, (5, 0), UnixTime(600));
        assert_eq!(harvest.clients[&CLIENT].accepted(), 0, "it was forgotten meanwhile");
    }

    #[test]
    fn of_any_number_of_clients_some_are_remembered() {
        let mut harvest = Harvest::default();
        for number in 0..20_000_u32 {
            harvest.accepted(IpAddr::V4(number.into()), "a", UnixTime(u64::from(number)));
            assert!(harvest.clients.len() <= CLIENTS);
        }
        assert!(harvest.clients.contains_key(&IpAddr::V4(19_000.into())));
        let nobody = Limits { unknown_recipients: 0, ..LIMITS };
        let session: Arc<str> = "1".into();
        for number in 0..100 {
            let pace = harvest.unknown(CLIENT, (&session, &number.to_string()), &nobody, UnixTime(1));
            assert_eq!(pace, Pace::AtOnce);
        }
    }
}
