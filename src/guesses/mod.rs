//! Passwords that clients guess at AUTH: which are not asked again, which clients are told to come later, and how many
//! wrong ones reach an account of a directory. Pure; `session::login` asks it, `state::kept` keeps who logged in from
//! where.
//!
//! - A name and password that were refused are not asked again for ten minutes, whoever says them.
//! - From a client (an IPv4 address, or an IPv6 /64) of which 20 different ones failed within half an hour only users
//!   are asked about who logged in from there within 30 days.
//! - A directory is asked about an account with at most three wrong passwords within half an hour by all those who never
//!   logged in to it from where they are, and with three more from clients of which 20 failed: directories lock accounts
//!   (Active Directory after 5 to 10), and no stranger is to lock somebody out.
//!
//! Nothing here is a name or a password: all are keyed hashes.

use std::net::IpAddr;
use std::time::Duration;

use crate::fast_map::FastMap;
use crate::keyed_hash::{HashKey, keyed_hash};
use crate::one_client::one_client;
use crate::time::UnixTime;

mod aging;
mod saved;

use aging::Aging;
pub use saved::Malformed;

/// How long what was refused is not asked again.
const NOT_AGAIN: Duration = Duration::from_mins(10);
/// Within which time failures count.
const WITHIN: Duration = Duration::from_mins(30);
/// Failures of a client within that time from which on it is limited.
const FAILURES: usize = 20;
/// Wrong passwords that reach an account of a directory within that time.
const REACHING: usize = 3;
/// How long it counts that somebody logged in.
const KNOWN: Duration = Duration::from_hours(30 * 24);
/// How old a login has to be before another one is worth a change of the file.
const WORTH_SAVING: Duration = Duration::from_hours(1);
/// Entries of each table; beyond it the older half goes.
const ENTRIES: usize = 100_000;

/// What is known of passwords.
pub struct Guesses {
    key: HashKey,
    /// Names and passwords that were refused.
    refused: Aging<()>,
    /// What failed lately, for each client: each name and password, and when it last failed.
    failed: Aging<Vec<(u64, UnixTime)>>,
    /// When wrong passwords reached an account.
    reached: Aging<Vec<UnixTime>>,
    /// Which users logged in from which clients.
    known: Aging<()>,
    changes: u64,
}

/// One AUTH.
#[derive(Debug, Clone, Copy)]
pub struct Guess {
    /// The client.
    client: u64,
    /// The user at this client.
    user: u64,
    /// Name and password.
    pair: u64,
    /// The same, as asked of this source.
    asked: u64,
}

/// What is to be done about a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask.
    Ask,
    /// It is known to be wrong.
    Refuse,
    /// The client is limited, and the user has not logged in from there.
    Later,
}

/// A wrong password's place in the count of an account.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    account: u64,
    at: UnixTime,
}

/// Whether a client is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// As before.
    Unchanged,
    /// From now on.
    Begins,
}

impl Guesses {
    /// Without any.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            refused: Aging::new(NOT_AGAIN, ENTRIES),
            failed: Aging::new(WITHIN, ENTRIES),
            reached: Aging::new(WITHIN, ENTRIES),
            known: Aging::new(KNOWN, ENTRIES),
            changes: 0,
        }
    }

    /// What a client says. `source` is what is asked, with its state: what is refused by one may be right for another.
    #[must_use]
    pub fn guess(&self, client: IpAddr, source: &str, (name, password): (&str, &str)) -> Guess {
        let client = self.hash(&["client", &one_client(client).to_string()]);
        let name = name.to_lowercase();
        let pair = self.hash(&["pair", &name, password]);
        Guess {
            client,
            user: self.hash(&["user", &client.to_string(), &name]),
            pair,
            asked: self.hash(&["asked", source, &pair.to_string()]),
        }
    }

    /// What is to be done about it.
    #[must_use]
    pub fn step(&self, guess: &Guess, now: UnixTime) -> Step {
        if self.refused.get(guess.asked, now).is_some() {
            Step::Refuse
        } else if self.is_limited(guess, now) && !self.is_known(guess, now) {
            Step::Later
        } else {
            Step::Ask
        }
    }

    /// The directory is about to be asked about this account. `Err`: it must not be, for now. `Ok(None)`: it does not
    /// count. What counts does so from now on, and is [forgotten](Self::forget) when the password was not wrong.
    ///
    /// # Errors
    /// Enough wrong passwords have reached it.
    pub fn reach(&mut self, guess: &Guess, account: &str, now: UnixTime) -> Result<Option<Reach>, TooMany> {
        let from = match (self.is_known(guess, now), self.is_limited(guess, now)) {
            (true, false) => return Ok(None),
            // Strangers do not take from those who logged in.
            (true, true) => "known",
            (false, _) => "stranger",
        };
        let account = self.hash(&["account", from, account]);
        let reached = self.reached.touch(account, now);
        reached.retain(|at| now.since(*at) < WITHIN);
        if reached.len() >= REACHING {
            return Err(TooMany);
        }
        reached.push(now);
        Ok(Some(Reach { account, at: now }))
    }

    /// It was no wrong password.
    pub fn forget(&mut self, reach: Reach) {
        let Some(reached) = self.reached.get_mut(reach.account) else { return };
        if let Some(place) = reached.iter().position(|at| *at == reach.at) {
            reached.remove(place);
        }
    }

    /// Name and password are right.
    pub fn accepted(&mut self, guess: &Guess, now: UnixTime) {
        let new = self.known.age(guess.user, now).is_none_or(|age| age >= WORTH_SAVING);
        if new {
            self.known.insert(guess.user, (), now);
            self.changes += 1;
        }
    }

    /// They are wrong; also where that was known before.
    pub fn refused(&mut self, guess: &Guess, now: UnixTime) -> Limit {
        if self.refused.get(guess.asked, now).is_none() {
            self.refused.insert(guess.asked, (), now);
        }
        self.failed(guess, now)
    }

    /// They failed without anybody having been asked about them: too many wrong passwords had reached the account.
    pub fn failed(&mut self, guess: &Guess, now: UnixTime) -> Limit {
        let before = self.is_limited(guess, now);
        let failed = self.failed.touch(guess.client, now);
        failed.retain(|(pair, at)| *pair != guess.pair && now.since(*at) < WITHIN);
        if failed.len() >= FAILURES {
            failed.remove(0);
        }
        failed.push((guess.pair, now));
        match (before, self.is_limited(guess, now)) {
            (false, true) => Limit::Begins,
            _ => Limit::Unchanged,
        }
    }

    /// How often something happened that is to be saved.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn is_limited(&self, guess: &Guess, now: UnixTime) -> bool {
        let failed = self.failed.get(guess.client, now);
        let recent = failed.map(|failed| failed.iter().filter(|(_, at)| now.since(*at) < WITHIN).count());
        recent.is_some_and(|recent| recent >= FAILURES)
    }

    fn is_known(&self, guess: &Guess, now: UnixTime) -> bool {
        self.known.get(guess.user, now).is_some()
    }

    /// Of all parts and their lengths.
    fn hash(&self, parts: &[&str]) -> u64 {
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        keyed_hash(&self.key, &text)
    }
}

/// Enough wrong passwords have reached an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

#[cfg(test)]
mod tests;
