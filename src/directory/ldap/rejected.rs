//! Tracks passwords that servers rejected, since repeated attempts with a wrong one lock the account.
//!
//! `opener` asks before each bind and records the result. Time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// A rejected password is not tried again for this long, the time over which account policies count (Active Directory's
/// default `lockoutObservationWindow`).
pub(super) const FOR: Duration = Duration::from_mins(30);
/// In that time this many servers of a directory are tried; policies lock an account after five or ten attempts.
const AT_MOST: usize = 3;
/// A bind without an answer may have been rejected, since servers delay that. It counts as rejected for this long,
/// unless it is answered, its connection is lost, or the password is accepted. Not longer, so that a server behind a
/// faulty network is used again soon.
pub(super) const UNANSWERED_FOR: Duration = Duration::from_secs(15);

const NO_ANSWER: &str = "no answer to the bind, three times; to keep the account from being locked in case that the password \
    is wrong, it is not sent again before one is answered, or for 15 seconds";

/// The rejected passwords of one directory.
#[derive(Default)]
pub(super) struct Rejected {
    password: String,
    /// By which server, when, and with which text.
    by: Vec<(Arc<str>, Instant, Arc<str>)>,
    /// Binds that were sent and not answered yet.
    unanswered: Vec<(Sent, Instant)>,
    last: u64,
}

/// A bind that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent(u64);

impl Rejected {
    /// Whether the password may be tried at the server.
    ///
    /// # Errors
    /// It may not; the text of the rejection.
    pub(super) fn may_try(&mut self, url: &str, password: &str, now: Instant) -> Result<(), Arc<str>> {
        if self.password != password {
            self.forget();
        }
        self.by.retain(|(_, at, _)| now.saturating_duration_since(*at) < FOR);
        self.unanswered.retain(|(_, at)| now.saturating_duration_since(*at) < UNANSWERED_FOR);
        if let Some((.., words)) = self.by.iter().find(|(by, ..)| **by == *url) {
            return Err(Arc::clone(words));
        }
        if self.by.len() + self.unanswered.len() < AT_MOST {
            return Ok(());
        }
        Err(self.by.last().map_or_else(|| NO_ANSWER.into(), |(.., words)| Arc::clone(words)))
    }

    pub(super) fn sent(&mut self, password: &str, now: Instant) -> Sent {
        if self.password != password {
            self.forget();
            password.clone_into(&mut self.password);
        }
        self.last += 1;
        self.unanswered.push((Sent(self.last), now));
        Sent(self.last)
    }

    /// The password was accepted, so unanswered binds cannot have been wrong.
    pub(super) fn accepted(&mut self, sent: Sent) {
        if self.settle(sent) {
            self.unanswered.clear();
        }
    }

    /// The bind will not be answered, or its answer says nothing about the password. Returns whether it was still
    /// counted.
    pub(super) fn settle(&mut self, sent: Sent) -> bool {
        let before = self.unanswered.len();
        self.unanswered.retain(|(other, _)| *other != sent);
        self.unanswered.len() < before
    }

    /// The password was rejected by this server with this text. Ignored if the password has changed since the bind.
    pub(super) fn rejected(&mut self, sent: Sent, url: &str, now: Instant, words: &Arc<str>) {
        if self.settle(sent) {
            self.by.push((url.into(), now, Arc::clone(words)));
        }
    }

    /// Whether a password was rejected or not answered, and this is another one.
    pub(super) fn is_another(&self, password: &str) -> bool {
        self.has_any() && self.password != password
    }

    /// Whether one was rejected, or may have been.
    pub(super) fn has_any(&self) -> bool {
        !self.by.is_empty() || !self.unanswered.is_empty()
    }

    /// An operator wants another attempt.
    pub(super) fn forget(&mut self) {
        self.by.clear();
        self.unanswered.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// The binds that are allowed if one is tried every minute at each server in turn, and all are rejected.
    fn binds(servers: &[&str], minutes: u32, password: impl Fn(u32) -> &'static str) -> Vec<(u32, String)> {
        let (mut rejected, start) = (Rejected::default(), Instant::now());
        let mut binds = Vec::new();
        for minute in 0..minutes {
            let (now, password) = (start + MINUTE * minute, password(minute));
            for server in servers {
                if rejected.may_try(server, password, now).is_ok() {
                    let sent = rejected.sent(password, now);
                    rejected.rejected(sent, server, now, &"no".into());
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
        let sent = rejected.sent("x", Instant::now());
        rejected.rejected(sent, "a", Instant::now(), &"no".into());
        assert!(rejected.is_another("y") && !rejected.is_another("x"));
        rejected.forget();
        assert_eq!(rejected.may_try("a", "x", Instant::now()), Ok(()), "an operator says so");
    }

    #[test]
    fn what_was_said_is_said_again() {
        let (mut rejected, now) = (Rejected::default(), Instant::now());
        for (server, words) in [("a", "locked"), ("b", "wrong"), ("c", "expired")] {
            let sent = rejected.sent("x", now);
            rejected.rejected(sent, server, now, &words.into());
        }
        for (server, words) in [("a", "locked"), ("b", "wrong"), ("d", "expired")] {
            assert_eq!(rejected.may_try(server, "x", now).unwrap_err().as_ref(), words);
        }
    }

    #[test]
    fn no_more_than_three_binds_wait_for_their_answers() {
        let (mut rejected, start) = (Rejected::default(), Instant::now());
        let mut binds = Vec::new();
        for seconds in 0..40 {
            let now = start + Duration::from_secs(seconds);
            if rejected.may_try("a", "x", now).is_ok() {
                rejected.sent("x", now);
                binds.push(seconds);
            }
        }
        assert_eq!(binds, [0, 1, 2, 15, 16, 17, 30, 31, 32]);
        assert!(rejected.may_try("b", "x", start + Duration::from_secs(40)).unwrap_err().contains("no answer"));
        assert!(rejected.is_another("y"));
        assert_eq!(rejected.may_try("a", "y", start + Duration::from_secs(40)), Ok(()), "another password");
    }

    #[test]
    fn an_answer_that_comes_late_counts() {
        let (mut rejected, now) = (Rejected::default(), Instant::now());
        let three: Vec<Sent> = (0..3).map(|_| rejected.sent("x", now)).collect();
        assert!(rejected.may_try("a", "x", now).is_err());
        assert!(rejected.settle(three[0]));
        assert_eq!(rejected.may_try("a", "x", now), Ok(()), "the connection was lost");
        rejected.accepted(three[1]);
        for _ in 0..2 {
            rejected.sent("x", now);
        }
        assert_eq!(rejected.may_try("a", "x", now), Ok(()), "one was accepted: the third was not wrong either");

        let sent = rejected.sent("old", now);
        rejected.sent("new", now);
        rejected.rejected(sent, "a", now, &"no".into());
        assert_eq!(rejected.may_try("a", "new", now), Ok(()), "the old one is no matter");
        let sent = rejected.sent("new", now);
        rejected.rejected(sent, "a", now, &"late".into());
        assert_eq!(&*rejected.may_try("a", "new", now).unwrap_err(), "late");
    }
}
