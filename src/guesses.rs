//! Limits on guessing passwords at AUTH: which attempts are refused without asking, which clients have to wait, and how
//! many wrong passwords reach a directory account. Pure; `session::login` uses it, `state::saved_table` stores
//! successful logins.
//! - A name and password that were refused are refused without asking for ten minutes, from any client.
//! - From a client (an IPv4 address, or an IPv6 /64) with 20 different failed attempts within half an hour, only users
//!   who logged in from there within 30 days may try.
//! - At most three wrong passwords within half an hour reach a directory account from clients that never logged in to
//!   it, and three more from clients with 20 failures: directories lock accounts (Active Directory after 5 to 10
//!   attempts), and strangers must not be able to lock users out. An attempt that was sent and never answered counts as
//!   wrong.
//!
//! Attempts in progress may fail. If their failure would exceed a limit, the next attempt waits for an answer: so
//! concurrent attempts do not circumvent the limits, and right ones are not refused because there are many.
//! It has no names or passwords, only keyed hashes.

use std::net::IpAddr;
use std::time::Duration;

use crate::fast_map::FastMap;
use crate::keyed_hash::{HashKey, keyed_hash};
use crate::one_client::one_client;
use crate::time::UnixTime;

mod aging;
mod saved;
mod under_way;

use aging::Aging;
pub use saved::Malformed;
use under_way::UnderWay;

/// How long a refused attempt is not asked again.
const NOT_AGAIN: Duration = Duration::from_mins(10);
/// The time over which failures count.
const WITHIN: Duration = Duration::from_mins(30);
/// A client with this many failures in that time is limited.
const FAILURES: usize = 20;
/// Wrong passwords that reach a directory account in that time.
const REACHING: usize = 3;
/// How long a successful login counts.
const KNOWN: Duration = Duration::from_hours(30 * 24);
/// A repeated login is saved only if the previous one is older than this.
const WORTH_SAVING: Duration = Duration::from_hours(1);
/// The most entries of each table; beyond that the older half is dropped.
const ENTRIES: usize = 100_000;

pub struct Guesses {
    key: HashKey,
    /// Refused pairs of name and password.
    refused: Aging<()>,
    /// Recent failures by client: each pair of name and password, and when it last failed.
    failed: Aging<Vec<(u64, UnixTime)>>,
    /// Passwords that reached an account and were not right.
    reached: Aging<Vec<Reached>>,
    under_way: UnderWay,
    /// Users who logged in, by client.
    known: Aging<()>,
    changes: u64,
}

/// An attempt at AUTH.
#[derive(Debug, Clone, Copy)]
pub struct Guess {
    client: u64,
    /// The user at this client.
    user: u64,
    /// Name and password.
    pair: u64,
    /// Name, password and the source that is asked.
    asked: u64,
}

/// What to do with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Ask,
    /// It is known to be wrong.
    Refuse,
    /// The client is limited, and the user has not logged in from there.
    Later,
    /// Try again after another attempt is answered.
    Wait(Awaited),
}

/// Identifies what is awaited: what [ends](Guesses::end) or is [settled](Guesses::settle) has the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited(pub u64);

/// A password that reaches an account.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// The count that it adds to; `None`: none.
    counts: Option<u64>,
    /// All counts of this account.
    all: [u64; 2],
    asked: u64,
}

/// The result of a password that reached an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Right,
    Wrong,
    /// It was not sent, or the directory answered that it did not check it.
    NotLookedAt,
    /// It was sent and not answered: the directory may have counted it as wrong.
    Unanswered,
}

/// Why an account must not be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Name and password were refused meanwhile.
    Refused,
    /// Enough wrong passwords have reached it.
    Wrong,
    /// The same, some of which were never answered.
    Unanswered,
    /// Attempts in progress may use up the limit: try again after one is answered.
    Wait(Awaited),
}

/// A password that was not right, as far as is known.
struct Reached {
    at: UnixTime,
    /// If it was never answered: name, password and source.
    doubt: Option<u64>,
}

/// Whether a client is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    Unchanged,
    Begins,
}

impl Guesses {
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self {
            key,
            refused: Aging::new(NOT_AGAIN, ENTRIES),
            failed: Aging::new(WITHIN, ENTRIES),
            reached: Aging::new(WITHIN, ENTRIES),
            under_way: UnderWay::default(),
            known: Aging::new(KNOWN, ENTRIES),
            changes: 0,
        }
    }

    /// An attempt. `source` names what is asked, with its version: a password that one refused may be right for
    /// another.
    #[must_use]
    pub fn guess(&self, client: IpAddr, source: &str, name: &str, password: &str) -> Guess {
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

    /// Decides about an attempt. If it is to be asked, it is in progress until its [end](Self::end).
    pub fn begin(&mut self, guess: &Guess, now: UnixTime) -> Step {
        let step = self.step(guess, now);
        if step == Step::Ask {
            self.under_way.begin(guess.client, guess.user, guess.pair);
        }
        step
    }

    /// The attempt is not in progress any more, with any result.
    pub fn end(&mut self, guess: &Guess) -> Awaited {
        self.under_way.end(guess.client, guess.pair);
        Awaited(guess.client)
    }

    /// A user who logged in from there before waits only for other passwords for the same name: of many users behind
    /// one address each has its own.
    fn step(&self, guess: &Guess, now: UnixTime) -> Step {
        let (client, failures) = (guess.client, self.failures(guess, now));
        let (is_known, all) = (self.is_known(guess, now), failures + self.under_way.of_client(client));
        let waits = match is_known {
            true => all >= FAILURES && self.under_way.has_another(client, guess.user, guess.pair),
            // The same attempt is in progress already: its result will be known in a moment.
            false => all >= FAILURES || self.under_way.has(client, guess.pair),
        };
        if self.refused.get(guess.asked, now).is_some() {
            Step::Refuse
        } else if failures >= FAILURES {
            if is_known { Step::Ask } else { Step::Later }
        } else if waits {
            Step::Wait(Awaited(client))
        } else {
            Step::Ask
        }
    }

    /// Called before the directory is asked about this account. The result has to be [settled](Self::settle).
    ///
    /// # Errors
    /// It must not be asked, or not yet.
    pub fn reach(&mut self, guess: &Guess, account: &str, now: UnixTime) -> Result<Reach, Closed> {
        if self.refused.get(guess.asked, now).is_some() {
            return Err(Closed::Refused);
        }
        let all = ["stranger", "known"].map(|from| self.hash(&["account", from, account]));
        let counts = match (self.is_known(guess, now), self.is_limited(guess, now)) {
            (true, false) => None,
            // Strangers' attempts do not use up the limit of users who logged in before.
            (true, true) => Some(all[1]),
            (false, _) => Some(all[0]),
        };
        let reach = Reach { counts, all, asked: guess.asked };
        let Some(account) = counts else { return Ok(reach) };
        let recent = |reached: &&Reached| now.since(reached.at) < WITHIN;
        let reached: Vec<&Reached> = self.reached.get(account, now).into_iter().flatten().filter(recent).collect();
        if reached.len() >= REACHING {
            let doubts = reached.iter().any(|reached| reached.doubt.is_some());
            return Err(if doubts { Closed::Unanswered } else { Closed::Wrong });
        }
        if reached.len() + self.under_way.of_account(account) >= REACHING {
            return Err(Closed::Wait(Awaited(account)));
        }
        self.under_way.reach(account);
        Ok(reach)
    }

    /// Records the result. A wrong password counts from now on, since the directory counted it earlier.
    pub fn settle(&mut self, reach: Reach, outcome: Outcome, now: UnixTime) -> Option<Awaited> {
        if outcome == Outcome::Right {
            self.was_right(reach);
        }
        let account = reach.counts?;
        self.under_way.leave(account);
        let doubt = match outcome {
            Outcome::Right | Outcome::NotLookedAt => return Some(Awaited(account)),
            Outcome::Wrong => None,
            Outcome::Unanswered => Some(reach.asked),
        };
        let reached = self.reached.touch(account, now);
        reached.retain(|reached| now.since(reached.at) < WITHIN);
        reached.push(Reached { at: now, doubt });
        Some(Awaited(account))
    }

    /// Earlier unanswered attempts with it were not wrong either.
    fn was_right(&mut self, reach: Reach) {
        for account in reach.all {
            if let Some(reached) = self.reached.get_mut(account) {
                reached.retain(|reached| reached.doubt != Some(reach.asked));
            }
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

    /// They are wrong, or known to be.
    pub fn refused(&mut self, guess: &Guess, now: UnixTime) -> Limit {
        if self.refused.get(guess.asked, now).is_none() {
            self.refused.insert(guess.asked, (), now);
        }
        self.failed(guess, now)
    }

    /// They failed without being asked: too many wrong passwords had reached the account.
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

    /// Changes whenever there is something to save.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    fn is_limited(&self, guess: &Guess, now: UnixTime) -> bool {
        self.failures(guess, now) >= FAILURES
    }

    /// How many of its client's attempts have failed lately.
    fn failures(&self, guess: &Guess, now: UnixTime) -> usize {
        let failed = self.failed.get(guess.client, now).into_iter().flatten();
        failed.filter(|(_, at)| now.since(*at) < WITHIN).count()
    }

    /// Whether its user logged in from there before.
    pub(crate) fn is_known(&self, guess: &Guess, now: UnixTime) -> bool {
        self.known.get(guess.user, now).is_some()
    }

    /// The hash of all parts and their lengths.
    fn hash(&self, parts: &[&str]) -> u64 {
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        keyed_hash(&self.key, &text)
    }
}

#[cfg(test)]
mod tests;
