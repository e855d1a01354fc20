//! Passwords that servers did not accept: who asks again and again with a wrong one locks the account.
//!
//! `opener` asks before each bind and tells what came of it. Time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A password that was rejected is not tried again for so long: account policies count in such a time (Active Directory's
/// default, `lockoutObservationWindow`).
pub(super) const FOR: Duration = Duration::from_mins(30);
/// So many servers of a directory are asked with it meanwhile; policies lock an account after five, or ten.
const AT_MOST: usize = 3;

/// What was rejected of one directory.
#[derive(Default)]
pub(super) struct Rejected {
    password: String,
    /// By which server, when, and with which words.
    by: Vec<(Arc<str>, Instant, Arc<str>)>,
}

impl Rejected {
    /// Whether the password may be tried at the server; else what was said of it.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn may_try(&mut self, url: &str, password: &str, now: Instant) -> Result<(), Arc<str>> {
        if self.password != password {
            self.by.clear();
        }
        self.by.retain(|(_, at, _)| now.saturating_duration_since(*at) < FOR);
        let by_it = self.by.iter().find(|(by, ..)| **by == *url);
        match by_it.or_else(|| self.by.last().filter(|_| self.by.len() >= AT_MOST)) {
            Some((.., words)) => Err(Arc::clone(words)),
            None => Ok(()),
        }
    }

    /// It was rejected.
    pub(super) fn rejected(&mut self, url: &str, password: &str, (now, words): (Instant, &Arc<str>)) {
        if self.password != password {
            self.by.clear();
            password.clone_into(&mut self.password);
        }
        self.by.push((url.into(), now, Arc::clone(words)));
    }

    /// Whether a password was rejected, and this is another one.
    pub(super) fn is_another(&self, password: &str) -> bool {
        !self.by.is_empty() && self.password != password
    }

    /// Whether one was.
    pub(super) fn has_any(&self) -> bool {
        !self.by.is_empty()
    }

    /// An operator has it tried again.
    pub(super) fn forget(&mut self) {
        self.by.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// How many binds there were of one every minute at each server in turn, each of which is rejected.
    fn binds(servers: &[&str], minutes: u32, password: impl Fn(u32) -> &'static str) -> Vec<(u32, String)> {
        let (mut rejected, start) = (Rejected::default(), Instant::now());
        let mut binds = Vec::new();
        for minute in 0..minutes {
            let (now, password) = (start + MINUTE * minute, password(minute));
            for server in servers {
                if rejected.may_try(server, password, now).is_ok() {
                    rejected.rejected(server, password, (now, &"no".into()));
                    binds.push((minute, (*server).to_owned()));
                }
            }
        }
        binds
    }

    #[test]
    fn one_bind_a_server_and_three_a_directory_in_half_an_hour() {
        let at = |minute, servers: &[&str]| servers.iter().map(|it| (minute, (*it).to_owned())).collect::<Vec<_>>();
        assert_eq!(binds(&["a"], 60, |_| "x"), [at(0, &["a"]), at(30, &["a"])].concat());
        assert_eq!(binds(&["a", "b"], 31, |_| "x"), [at(0, &["a", "b"]), at(30, &["a", "b"])].concat());
        let three = ["a", "b", "c"];
        assert_eq!(binds(&["a", "b", "c", "d", "e"], 31, |_| "x"), [at(0, &three), at(30, &three)].concat());
    }

    #[test]
    fn another_password_is_tried_at_once() {
        let servers: Vec<u32> =
            binds(&["a"], 10, |minute| if minute < 5 { "old" } else { "new" }).iter().map(|(at, _)| *at).collect();
        assert_eq!(servers, [0, 5]);
        let mut rejected = Rejected::default();
        assert!(!rejected.is_another("x"), "nothing was rejected");
        rejected.rejected("a", "x", (Instant::now(), &"no".into()));
        assert!(rejected.is_another("y") && !rejected.is_another("x"));
        rejected.forget();
        assert_eq!(rejected.may_try("a", "x", Instant::now()), Ok(()), "an operator says so");
    }

    #[test]
    fn what_was_said_is_said_again() {
        let (mut rejected, now) = (Rejected::default(), Instant::now());
        for (server, words) in [("a", "locked"), ("b", "wrong"), ("c", "expired")] {
            rejected.rejected(server, "x", (now, &words.into()));
        }
        for (server, words) in [("a", "locked"), ("b", "wrong"), ("d", "expired")] {
            assert_eq!(rejected.may_try(server, "x", now).unwrap_err().as_ref(), words);
        }
    }
}
