//! Detects harvesting of addresses: a client with many unknown recipients, and more unknown than known ones. Pure.
//!
//! A newsletter to 5,000 recipients of which one in twenty is unknown is not harvesting: the share matters. Each
//! further refusal to a harvester is delayed; if it goes on, it may have one session at a time only.
//!
//! Reports (the null sender) are counted separately. When senders are forged, honest partners send us reports for
//! non-existent addresses: their other mail is not delayed by that, and their sessions are not ended. A harvester that
//! uses the null sender gains nothing: all its sessions together get one refusal for each `unknown_delay`.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Limits, MOST_UNKNOWN};
use crate::fast_map::FastMap;
use crate::time::UnixTime;

/// The most clients that are remembered, by their last event.
const CLIENTS: usize = 5_000;
/// The last accepted recipients of a client, this many, do not count again before a message to them is accepted.
const NAMED: usize = 64;
/// How long accepted recipients are counted, in minutes; no window is longer.
pub(crate) const MINUTES: usize = 60;

/// Delays grow with the number of sessions up to this: a client should wait for minutes, but not for many.
const MOST_TIMES: u32 = 60;

/// Whose recipients are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Who {
    /// By [`one_client`](crate::one_client::one_client).
    pub client: IpAddr,
    pub sends: Sends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sends {
    /// Mail with a sender.
    Mail,
    /// Reports, with the null sender.
    Reports,
}

/// Mail with a sender.
impl From<IpAddr> for Who {
    fn from(client: IpAddr) -> Self {
        Self { client, sends: Sends::Mail }
    }
}

/// How refusals are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    AtOnce,
    /// After `unknown_delay`.
    Later {
        /// Whether this is the first time.
        news: bool,
        /// The factor of the delay: the number of sessions that take turns.
        times: u32,
    },
    /// The session ends: another one of this client continues.
    Closed,
}

#[derive(Debug, Default)]
pub struct Harvest {
    clients: FastMap<Who, Client>,
    hash: RandomState,
}

/// Whether a client may have one session only.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum OneSession {
    #[default]
    No,
    /// It may, and that has not been logged.
    News,
    Told,
}

#[derive(Debug, Default)]
struct Client {
    seen: UnixTime,
    /// Distinct unknown recipients with the time of their first refusal, oldest first.
    unknown: VecDeque<(UnixTime, u64)>,
    /// The number of accepted recipients by minute, oldest first.
    accepted: VecDeque<(u64, u64)>,
    /// Recipients that were accepted last at RCPT.
    named: VecDeque<u64>,
    /// The only session that it may have.
    session: Option<Arc<str>>,
    /// Sessions that got refusals for reports.
    sessions: Vec<Arc<str>>,
    /// Whether it was detected, and has not been quiet since.
    known: bool,
    one_session: OneSession,
}

impl Harvest {
    /// A recipient was refused as unknown.
    pub fn unknown(
        &mut self,
        who: impl Into<Who>,
        session: &Arc<str>,
        recipient: &str,
        limits: &Limits,
        now: UnixTime,
    ) -> Pace {
        if limits.unknown_recipients == 0 {
            return Pace::AtOnce;
        }
        let (hash, who) = (self.hash.hash_one(recipient), who.into());
        let client = self.client(who, now);
        client.forget(limits.unknown_within, now);
        if client.unknown.len() < MOST_UNKNOWN && !client.unknown.iter().any(|(_, known)| *known == hash) {
            client.unknown.push_back((now, hash));
        }
        if who.sends == Sends::Reports {
            if !client.sessions.contains(session) {
                client.sessions.push(session.clone());
            }
        } else {
            client.note_whether_barred(limits);
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
        let times = u32::try_from(client.sessions.len()).unwrap_or(u32::MAX).clamp(1, MOST_TIMES);
        Pace::Later { news: !std::mem::replace(&mut client.known, true), times }
    }

    /// A recipient was accepted at RCPT. Returns whether that counts before the end of data: the same one again does
    /// not.
    pub fn accepted(&mut self, who: impl Into<Who>, recipient: &str, now: UnixTime) -> bool {
        let hash = self.hash.hash_one(recipient);
        let client = self.client(who.into(), now);
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

    /// The end of data was answered: `accepted` recipients are accepted in the end, of which `counted` have been
    /// counted.
    pub fn settled(&mut self, who: impl Into<Who>, counted: u64, accepted: u64, now: UnixTime) {
        let client = self.client(who.into(), now);
        client.add(accepted.saturating_sub(counted), now);
        client.take_back(counted.saturating_sub(accepted));
    }

    /// Whether this client has just been limited to one session; true once, until the limit ends.
    pub fn one_session_begins(&mut self, who: impl Into<Who>) -> bool {
        let Some(client) = self.clients.get_mut(&who.into()) else { return false };
        let begins = client.one_session == OneSession::News;
        if begins {
            client.one_session = OneSession::Told;
        }
        begins
    }

    /// Whether this client may have one session only.
    pub fn has_one_session(&mut self, client: IpAddr, limits: &Limits, now: UnixTime) -> bool {
        let Some(client) = self.clients.get_mut(&client.into()) else { return false };
        client.forget(limits.unknown_within, now);
        limits.unknown_recipients > 0 && client.is_barred(limits)
    }

    /// A session has ended.
    pub fn left(&mut self, client: IpAddr, session: &Arc<str>) {
        if let Some(client) = self.clients.get_mut(&client.into())
            && client.session.as_ref() == Some(session)
        {
            client.session = None;
        }
        if let Some(reports) = self.clients.get_mut(&Who { client, sends: Sends::Reports }) {
            reports.sessions.retain(|one| one != session);
        }
    }

    fn client(&mut self, who: Who, now: UnixTime) -> &mut Client {
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&who) {
            self.forget_some();
        }
        let client = self.clients.entry(who).or_default();
        client.seen = now;
        client
    }

    /// Drops the half without events for the longest time.
    fn forget_some(&mut self) {
        let mut seen: Vec<UnixTime> = self.clients.values().map(|client| client.seen).collect();
        let (_, median, _) = seen.select_nth_unstable(CLIENTS / 2);
        let median = *median;
        self.clients.retain(|_, client| client.seen > median);
    }
}

impl Client {
    /// Records whether it may have one session only.
    fn note_whether_barred(&mut self, limits: &Limits) {
        match (self.is_barred(limits), self.one_session) {
            (false, _) => self.one_session = OneSession::No,
            (true, OneSession::No) => self.one_session = OneSession::News,
            (true, OneSession::News | OneSession::Told) => {}
        }
    }

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
        // No more unknown ones are counted: then many more accepted ones are needed.
        let unknown = self.unknown.len() as u64 * if self.unknown.len() >= MOST_UNKNOWN { 10 } else { 1 };
        self.unknown.len() >= limits.unknown_recipients && unknown > self.accepted()
    }

    fn is_barred(&self, limits: &Limits) -> bool {
        self.unknown.len() >= limits.unknown_one_session
            && self.unknown.len() as u64 >= self.accepted().saturating_mul(10)
    }
}

#[cfg(test)]
mod tests;
