//! Addresses that several nodes know together: what one has learned for the others ([`News`]), and what all of them know
//! ([`Evidence`]). Before the last word about an address the others' evidence is taken in.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::super::doubt::KnownBy;
use super::super::first_refused::Refusals;
use super::super::ranks::Rank;
use super::super::relay_memory::Returned;
use super::{GOOD, Good, QUIET, RecentlyGood};
use crate::keyed_hash::HashKey;
use crate::smtp::address::Address;
use crate::time::QueueTime;

/// The nodes' times of the queue may be so far apart: two heartbeats. What is less apart counts as patience says.
pub const APART: Duration = Duration::from_secs(10);
/// The most news that wait to be written; further ones are not told to the others.
const MOST: usize = 200_000;
/// The most of them that are told at a start.
const AT_START: usize = 100_000;

/// Where all nodes' evidence is asked for. `None`: it cannot be had within a second.
pub trait SharedEvidence: Send + Sync {
    /// What any node knows under these names.
    fn ask(&self, names: SharedNames) -> BoxFuture<'_, Option<Evidence>>;

    /// Notes how often a message has come back to this node, and returns how often it has at all nodes together.
    fn returned(&self, returned: Returned, now: QueueTime) -> BoxFuture<'_, Option<usize>>;
}

/// The keyed hashes under which an address is known, the same at all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedNames {
    /// For its successes.
    pub address: u64,
    /// For its refusals; for an address with a tag, also for successes of its user.
    pub entry: u64,
}

/// What a node has learned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    Accepted {
        hash: u64,
        since: QueueTime,
        last: QueueTime,
        connector: Arc<str>,
    },
    Refused {
        hash: u64,
        first: QueueTime,
        last: QueueTime,
    },
    /// A refusal was believed: successes before do not count any more.
    Forgotten {
        hash: u64,
        at: QueueTime,
    },
}

/// What all nodes know of an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    pub accepted: Option<Accepted>,
    /// The last success under the name of its refusals.
    pub entry_accepted: Option<QueueTime>,
    /// The first and the last refusal.
    pub refused: Option<(QueueTime, QueueTime)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub since: QueueTime,
    pub last: QueueTime,
    /// Successes before this time do not count.
    pub forgotten: QueueTime,
    pub connector: String,
}

impl Accepted {
    /// Whether no refusal was believed since.
    fn counts(&self) -> bool {
        self.last.plus(APART) >= self.forgotten
    }
}

impl RecentlyGood {
    /// From now on keeps what it learns for other nodes too, and first all that is good.
    pub fn share(&mut self, now: QueueTime) {
        let good = self.order.iter().filter(|(rank, good)| *rank != Rank::Surplus && good.is_good(now));
        let told = good.filter_map(|(_, good)| self.accepted_news(good.hash, good)).take(AT_START).collect();
        self.news = Some(told);
    }

    /// What was learned since the last call.
    #[must_use]
    pub fn news(&mut self) -> Vec<News> {
        self.news.as_mut().map(std::mem::take).unwrap_or_default()
    }

    #[must_use]
    pub fn has_no_news(&self) -> bool {
        self.news.as_ref().is_none_or(Vec::is_empty)
    }

    /// Whether no address is good.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.len() == 0
    }

    /// News that could not be told come back.
    pub fn untold(&mut self, mut told: Vec<News>) {
        if let Some(news) = &mut self.news {
            told.append(news);
            told.truncate(MOST);
            *news = told;
        }
    }

    /// The key of the hashes.
    #[must_use]
    pub fn key(&self) -> HashKey {
        self.key
    }

    /// The names under which all nodes know an address; `by`: the source that says that it exists.
    #[must_use]
    pub fn shared_names(&self, address: &Address, by: KnownBy) -> SharedNames {
        let names = self.names(address, by);
        SharedNames { address: names.address, entry: names.entry }
    }

    /// Takes in what all nodes know. A success at any of them clears the refusals before it, and those of which it is
    /// not known which came first ([`APART`]).
    pub fn learn(&mut self, names: SharedNames, evidence: &Evidence, now: QueueTime) {
        if let Some(accepted) = &evidence.accepted {
            self.learn_success(names.address, accepted, now);
        }
        // Our own may not be written yet.
        let ours = self.known.get(&names.address).map(|slot| self.order.get(*slot).last_success);
        let theirs = evidence.accepted.as_ref().map(|accepted| accepted.last);
        let success = ours.max(theirs).max(evidence.entry_accepted);
        let is_cleared = |first: QueueTime| success.is_some_and(|success| success.plus(APART) >= first);
        let ours = self.refused.get(names.entry).copied();
        let counts = ours.filter(|ours| !is_cleared(ours.first) && self.refused.first(ours.hash, now).is_some());
        if counts.is_none() {
            self.refused.clear(names.entry);
        }
        if let Some((first, last)) = evidence.refused.filter(|(first, _)| !is_cleared(*first))
            && now.since(last) < QUIET
        {
            let last = counts.map_or(last, |ours| ours.last.max(last));
            self.refused.note(names.entry, first, last);
        }
    }

    fn learn_success(&mut self, hash: u64, accepted: &Accepted, now: QueueTime) {
        let known = self.known.get(&hash).map(|slot| (self.order.rank(*slot), *self.order.get(*slot)));
        let Accepted { since, last, forgotten, .. } = *accepted;
        if let Some(slot) = self.known.get(&hash)
            && self.order.get(*slot).last_success.plus(APART) < forgotten
        {
            self.order.get_mut(*slot).last_success = QueueTime::default();
        }
        let is_news = known.is_none_or(|(_, good)| good.last_success < last);
        if !is_news || !accepted.counts() || now.since(last) >= GOOD {
            return;
        }
        let since = known.filter(|(_, good)| good.is_good(now)).map_or(since, |(_, good)| good.since.min(since));
        let good = Good { hash, connector: self.number(&accepted.connector), last_success: last, since };
        let rank = known.map_or(good.rank(), |(rank, _)| rank.max(good.rank()));
        self.note(good, rank, now);
    }

    /// Keeps a success for the others.
    pub(super) fn tell_accepted(&mut self, address: &Address, good: Good) {
        if self.news.is_none() {
            return;
        }
        let of_address = self.accepted_news(good.hash, &good);
        // It clears the refusals of all tags of its user.
        let is_tagged = address.local().contains('+');
        let entry = is_tagged.then(|| self.names(address, KnownBy::DirectoryWithoutTag).entry);
        let of_entry = entry.and_then(|entry| self.accepted_news(entry, &good));
        of_address.into_iter().chain(of_entry).for_each(|news| self.tell(news));
    }

    fn accepted_news(&self, hash: u64, good: &Good) -> Option<News> {
        let connector = self.connectors.get(good.connector as usize)?.clone();
        Some(News::Accepted { hash, since: good.since, last: good.last_success, connector })
    }

    /// Keeps a refusal for the others.
    pub(super) fn tell_refused(&mut self, hash: u64) {
        if self.news.is_some()
            && let Some(Refusals { first, last, .. }) = self.refused.get(hash).copied()
        {
            self.tell(News::Refused { hash, first, last });
        }
    }

    /// Keeps for the others that earlier successes do not count.
    pub(super) fn tell_forgotten(&mut self, hash: u64, at: QueueTime) {
        self.tell(News::Forgotten { hash, at });
    }

    fn tell(&mut self, news: News) {
        if let Some(all) = self.news.as_mut().filter(|all| all.len() < MOST) {
            all.push(news);
        }
    }
}
