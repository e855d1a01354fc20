//! Who looks for addresses: a client of whose recipients many are unknown, and more than are known. Pure.
//!
//! A newsletter of 5,000 recipients, one in twenty unknown, is none: it is the share that shows a harvester. Who is found
//! out hears each further refusal later; who goes on has one session at a time.
//!
//! Reports (the null sender) stand by themselves. Whoever forges senders has an honest partner send us reports for addresses
//! that nobody has: its other mail is not slowed down by them, nor its sessions ended. A harvester who calls himself a
//! reporter gains nothing: all his sessions together have a refusal for each `unknown_delay`.

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

/// More sessions than this do not make each of them slower: clients wait for minutes, but not for many.
const MOST_TIMES: u32 = 60;

/// Whose recipients are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Who {
    /// The client, as [`one_client`](crate::one_client::one_client) says.
    pub client: IpAddr,
    pub sends: Sends,
}

/// What a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sends {
    /// Mail of somebody's.
    Mail,
    /// Reports, with the null sender.
    Reports,
}

/// Of somebody's mail.
impl From<IpAddr> for Who {
    fn from(client: IpAddr) -> Self {
        Self { client, sends: Sends::Mail }
    }
}

/// How refusals are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    AtOnce,
    /// After `unknown_delay`. `news`: for the first time.
    Later {
        /// It has just been found out.
        news: bool,
        /// As many times: sessions that hear such refusals by turns.
        times: u32,
    },
    /// The session is over: another one of this client's goes on.
    Closed,
}

/// All clients.
#[derive(Debug, Default)]
pub struct Harvest {
    clients: FastMap<Who, Client>,
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
    /// Those that have heard refusals of reports.
    sessions: Vec<Arc<str>>,
    /// It was found out, and has not been quiet since.
    known: bool,
    /// It has one session only.
    one_session: OneSession,
}

impl Harvest {
    /// A recipient was refused as unknown.
    pub fn unknown(
        &mut self,
        who: impl Into<Who>,
        (session, recipient): (&Arc<str>, &str),
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

    /// A recipient was accepted, at RCPT. Whether that counts before the dot: the same one again and again does not.
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

    /// The dot was answered: so many recipients are accepted in the end, of whom `counted` have been counted.
    pub fn settled(&mut self, who: impl Into<Who>, (counted, accepted): (u64, u64), now: UnixTime) {
        let client = self.client(who.into(), now);
        client.add(accepted.saturating_sub(counted), now);
        client.take_back(counted.saturating_sub(accepted));
    }

    /// Whether this client has just come to have one session only; once, until it has more again.
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

    /// The half that was not seen for the longest time.
    fn forget_some(&mut self) {
        let mut seen: Vec<UnixTime> = self.clients.values().map(|client| client.seen).collect();
        let (_, median, _) = seen.select_nth_unstable(CLIENTS / 2);
        let median = *median;
        self.clients.retain(|_, client| client.seen > median);
    }
}

impl Client {
    /// Notes whether it has one session only.
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
mod tests;
