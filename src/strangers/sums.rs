//! Summaries of repeated events of strangers: the first ones are logged individually, the rest in summaries, so that
//! neither log nor trace grows with an attack. Pure.
//!
//! In each minute 100 events of each kind, and 10 of one client, are logged individually; also 20, and 5 of one client,
//! with a detail that is new in this minute, such as why a directory is unavailable. A summary is for a minute, kind,
//! client, domain and reason, and has a few addresses as a sample.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::fast_map::FastMap;
use crate::one_client::{one_client, shown};
use crate::time::UnixTime;

/// Events of each kind that are logged individually each minute.
const SINGLY: u32 = 100;
/// The same of one client.
const OF_ONE_CLIENT: u32 = 10;
/// Beyond those, events of each kind with a detail that is new in this minute.
const NEWS: usize = 20;
/// The same of one client.
const NEWS_OF_ONE_CLIENT: u32 = 5;
/// The most summaries of one minute and kind; further events go into one of `many`.
const SUMS: usize = 100;
/// Addresses in a summary.
const SAMPLE: usize = 3;
/// The octets of an address, a domain or a reason that are kept: all kinds together stay below 1 MiB a minute.
const KEPT: usize = 100;
const MINUTE: u64 = 60;

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RCPT or the end of data was answered 4xx or 5xx.
    RefusedRecipient,
    /// A recipient's next hop is unreachable.
    OutOfReach,
    Looped,
    /// A client certificate was presented, valid or not; or the header section named no tenant.
    Certificate,
    /// A message could not be stored: the disk is full or faulty.
    NotKept,
    /// A client harvests addresses.
    Harvester,
    /// A connection was refused.
    TurnedAway,
    /// An idle client was disconnected.
    SentAway,
    /// A session broke: its handshake, or its connection.
    Broken,
    /// A wrong name or password.
    Authentication,
    /// A client guesses passwords.
    Guesser,
}

impl Kind {
    // From the last variant, so that an added one cannot be forgotten here.
    const COUNT: usize = Self::Guesser as usize + 1;

    /// The name in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RefusedRecipient => "refused-recipients",
            Self::OutOfReach => "out-of-reach",
            Self::Looped => "loops",
            Self::Certificate => "certificates",
            Self::NotKept => "not-kept",
            Self::Harvester => "harvesters",
            Self::TurnedAway => "turned-away",
            Self::SentAway => "sent-away",
            Self::Broken => "broken-sessions",
            Self::Authentication => "failed-authentications",
            Self::Guesser => "guessers",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub what: Kind,
    /// By [`one_client`].
    pub client: IpAddr,
    /// The recipient's accepted domain as a pattern; empty: there is no recipient.
    pub domain: &'a str,
    /// One of a few texts, never one that a client or a next hop can choose.
    pub reason: &'a str,
    /// Details for operators, without the address; empty: none.
    pub detail: &'a str,
    /// For the sample: an address, a name; empty: none.
    pub sample: &'a str,
}

impl<'a> About<'a> {
    /// An event without a recipient, of the client at this address.
    #[must_use]
    pub fn new(what: Kind, address: IpAddr, reason: &'a str) -> Self {
        Self { what, client: one_client(address), domain: "", reason, detail: "", sample: "" }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub what: Kind,
    /// `many`: further clients, domains and reasons together.
    pub client: String,
    /// Of the recipients.
    pub domain: String,
    pub reason: String,
    /// Events that were not logged individually.
    pub times: u64,
    /// The first few.
    pub sample: Vec<String>,
    /// When the first one happened.
    pub since: UnixTime,
}

/// The current minute's events.
#[derive(Debug, Default)]
pub struct Sums {
    minute: u64,
    told: [Told; Kind::COUNT],
    sums: FastMap<Key, Sum>,
    /// Summaries of previous minutes that have not been taken yet.
    over: Vec<Sum>,
}

#[derive(Debug, Default)]
struct Told {
    all: u32,
    by_client: FastMap<IpAddr, OfClient>,
    details: HashSet<String>,
    sums: usize,
}

#[derive(Debug, Default)]
struct OfClient {
    told: u32,
    news: u32,
}

impl Told {
    /// Whether the event is logged individually.
    fn takes(&mut self, about: &About<'_>) -> bool {
        let is_news = !about.detail.is_empty() && self.details.len() < NEWS;
        if self.all >= SINGLY && !is_news {
            return false;
        }
        let of_client = self.by_client.entry(about.client).or_default();
        if self.all < SINGLY && of_client.told < OF_ONE_CLIENT {
            of_client.told += 1;
            self.all += 1;
            self.details.extend(Some(kept(about.detail)).filter(|_| self.details.len() < NEWS));
            return true;
        }
        if !is_news || of_client.news >= NEWS_OF_ONE_CLIENT {
            return false;
        }
        let is_new = self.details.insert(kept(about.detail));
        of_client.news += u32::from(is_new);
        is_new
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    what: Kind,
    client: Option<IpAddr>,
    domain: String,
    reason: String,
}

impl Sums {
    /// Counts an event. Returns whether to log it individually; if not, it is in a summary.
    pub fn take(&mut self, about: &About<'_>, now: UnixTime) -> bool {
        self.turn(now);
        let told = &mut self.told[about.what as usize];
        if told.takes(about) {
            return true;
        }
        let mut key = Key {
            what: about.what,
            client: Some(about.client),
            domain: kept(about.domain),
            reason: kept(about.reason),
        };
        if told.sums >= SUMS && !self.sums.contains_key(&key) {
            key = Key { client: None, domain: String::new(), reason: String::new(), ..key };
        }
        let sum = self.sums.entry(key).or_insert_with_key(|key| {
            told.sums += 1;
            let client = key.client.map_or_else(|| "many".to_owned(), shown);
            let (domain, reason) = (key.domain.clone(), key.reason.clone());
            Sum { what: key.what, client, domain, reason, times: 0, sample: Vec::new(), since: now }
        });
        sum.times += 1;
        if sum.sample.len() < SAMPLE && !about.sample.is_empty() {
            sum.sample.push(kept(about.sample));
        }
        false
    }

    /// The summaries of minutes that are over.
    pub fn due(&mut self, now: UnixTime) -> Vec<Sum> {
        self.turn(now);
        std::mem::take(&mut self.over)
    }

    /// All summaries; called at the end.
    pub fn rest(&mut self) -> Vec<Sum> {
        self.over.extend(std::mem::take(&mut self.sums).into_values());
        std::mem::take(&mut self.over)
    }

    /// Begins another minute. Summaries that are not taken are dropped after one more, since they would grow with an
    /// attack.
    fn turn(&mut self, now: UnixTime) {
        if now.0 / MINUTE == self.minute {
            return;
        }
        self.minute = now.0 / MINUTE;
        self.told = Default::default();
        self.over = std::mem::take(&mut self.sums).into_values().collect();
        self.over.sort_by(|one, other| other.times.cmp(&one.times).then_with(|| one.client.cmp(&other.client)));
    }
}

/// The beginning of a text.
fn kept(text: &str) -> String {
    text[..text.floor_char_boundary(KEPT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about<'a>(client: u32, reason: &'a str, sample: &'a str) -> About<'a> {
        let client = IpAddr::V4(client.into());
        About { what: Kind::RefusedRecipient, client, domain: "contoso.com", reason, detail: "", sample }
    }

    #[test]
    fn ten_of_a_client_and_a_hundred_in_all_are_told_and_the_rest_are_sums() {
        let mut sums = Sums::default();
        let told = (0..1000).filter(|n| sums.take(&about(1, "550 5.1.1", &format!("u{n}@contoso.com")), UnixTime(600)));
        assert_eq!(told.count(), 10);
        let told = (0..1000).filter(|n| sums.take(&about(n + 2, "550 5.1.1", ""), UnixTime(659)));
        assert_eq!(told.count(), 90, "a hundred in all");
        let other = About { what: Kind::TurnedAway, ..about(1, "max-connections", "") };
        assert!(sums.take(&other, UnixTime(659)), "each kind has its own");
        assert!(sums.due(UnixTime(659)).is_empty());
        let due = sums.due(UnixTime(660));
        assert_eq!(due.iter().map(|sum| sum.times).sum::<u64>(), 990 + 910);
        let sample: Vec<String> = (10..13).map(|n| format!("u{n}@contoso.com")).collect();
        let first = Sum {
            what: Kind::RefusedRecipient,
            client: "0.0.0.1".into(),
            domain: "contoso.com".into(),
            reason: "550 5.1.1".into(),
            times: 990,
            sample,
            since: UnixTime(600),
        };
        assert_eq!(due[0], first);
        assert!(sums.take(&about(1, "550 5.1.1", ""), UnixTime(660)), "a minute later the first are told again");
        assert!(sums.due(UnixTime(661)).is_empty());
    }

    #[test]
    fn what_is_new_is_told_by_itself() {
        let mut sums = Sums::default();
        let mut take =
            |client: u32, detail: &str| sums.take(&About { detail, ..about(client, "451 4.4.3", "") }, UnixTime(60));
        for _ in 0..10 {
            assert!(take(1, "directory ad: answered 49"));
        }
        assert!(
            !take(1, "directory ad: answered 49")
                && take(1, "directory ad: no answer")
                && !take(1, "directory ad: no answer")
        );
        for number in 0..4 {
            assert!(take(1, &format!("other {number}")));
        }
        assert!(!take(1, "too many of one client"));
        let told = (2..200).filter(|number| take(2, &format!("another {number}"))).count();
        assert_eq!(told, 14, "ten as any client, and four of the twenty that are new");
        assert!((0..1000).filter(|number| take(number + 3, &format!("client {number}"))).count() <= 100);
    }

    #[test]
    fn nothing_grows_with_an_attack() {
        let mut sums = Sums::default();
        for number in 0..100_000 {
            let long = format!("{number}{}", "\u{fc}".repeat(1000));
            sums.take(&About { domain: &long, ..about(number, &long, &long) }, UnixTime(60));
        }
        let rest = sums.rest();
        assert_eq!(rest.len(), SUMS + 1);
        let octets: usize = rest.iter().map(|sum| format!("{sum:?}").len()).sum();
        assert!(octets < 100 << 10, "{octets}");
        assert_eq!(rest.iter().map(|sum| sum.times).sum::<u64>(), 100_000 - 100);
        assert_eq!(rest.iter().filter(|sum| sum.client == "many").count(), 1);
    }
}
