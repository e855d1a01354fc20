//! Which way mail for an address went when the directory last had it: what `hold_changes` counts over where a directory is
//! asked for each recipient (DESIGN section 5, "doubt is temporary"). Pure; time is an argument.
//!
//! `ldap` tells it every answer, and saves it. It holds hashes and times only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::known::Id;
use super::snapshot::guard::{Guard, Ruling};
use crate::config::HoldChanges;
use crate::keyed_hash::{HashKey, keyed_hash};
use crate::recipient::{Kind, Lookup};
use crate::time::UnixTime;

/// For how long an address counts after it was last found.
const COUNTS: Duration = Duration::from_hours(7 * 24);
/// How many addresses are remembered.
const ENTRIES: usize = 200_000;

/// The addresses of one directory.
#[derive(Debug)]
pub struct Remembered {
    /// Makes the hashes of this installation its own: strangers choose the addresses that are asked about.
    key: HashKey,
    known: HashMap<Id, Seen>,
    /// Those whose way has changed, and whose mail waits; when each was last asked about.
    held: HashMap<Id, UnixTime>,
    guard: Guard,
    within: Duration,
    /// When somebody last said that the directory is right as it is.
    accepted: Option<UnixTime>,
    servers: HashMap<String, Arc<str>>,
    changes: u64,
}

/// Where mail for one address went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Here, or to that target.
    way: Id,
    /// By which of `mailbox_servers`; `None`: nobody knows.
    place: Option<Id>,
    /// When it was last found.
    at: UnixTime,
}

/// What is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Of the hashes.
    key: HashKey,
    /// The `mailbox_servers` by which places were told apart, hashed.
    servers: Id,
    known: Vec<(Id, Seen)>,
}

impl Seen {
    fn is_like(&self, other: &Self) -> bool {
        self.way == other.way && (self.place == other.place || self.place.is_none() || other.place.is_none())
    }
}

impl Saved {
    /// Nobody yet. The key is random.
    #[must_use]
    pub fn nobody(key: HashKey) -> Self {
        Self { key, servers: Id(0), known: Vec::new() }
    }

    /// Two addresses.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        let seen = |place| Seen { way: Id(7), place, at: UnixTime(1_800_000_000) };
        let known = vec![(Id(1), seen(None)), (Id(u64::MAX), seen(Some(Id(8))))];
        Self { key: [9; 16], servers: Id(5), known }
    }
}

impl Remembered {
    /// What was saved. `servers` are the directory's `mailbox_servers`; where they were others, it is not known any more by
    /// which of them mail went, and any is as good.
    #[must_use]
    pub fn new(limits: HoldChanges, servers: HashMap<String, Arc<str>>, saved: Saved) -> Self {
        let same = saved.servers == digest(&servers);
        let loaded = |seen: Seen| Seen { place: seen.place.filter(|_| same), ..seen };
        Self {
            key: saved.key,
            known: saved.known.into_iter().map(|(key, seen)| (key, loaded(seen))).collect(),
            held: HashMap::new(),
            guard: Guard::new(limits),
            within: limits.within,
            accepted: None,
            servers,
            changes: 0,
        }
    }

    /// Takes note of an answer. Says whether it is to be held: the way has changed, as those of too many have.
    pub fn is_held(&mut self, key: &str, lookup: &Lookup, now: UnixTime) -> bool {
        let key = self.hash(key);
        let Some(way) = self.way(lookup, now) else {
            // Somebody waits still, and nobody can say whether rightly.
            self.held.entry(key).and_modify(|asked| *asked = now);
            return false;
        };
        let before = self.known.get(&key).filter(|seen| now.since(seen.at) < COUNTS);
        let same = |before: &Seen| way.is_some_and(|now| now.is_like(before));
        if before.is_none_or(same) {
            self.held.remove(&key);
            self.note(key, way);
            return false;
        }
        self.forget_held(now);
        // Those that wait count together with this one.
        let together = self.held.len() + usize::from(!self.held.contains_key(&key));
        let meant = self.accepted.is_some_and(|at| now.since(at) < self.within);
        match self.guard.weigh(now, together, self.known.len()) {
            Ruling::Hold if !meant => {
                self.held.insert(key, now);
                return true;
            }
            Ruling::Take if !meant => self.guard.take(now, 1),
            Ruling::Take | Ruling::Hold => {}
        }
        self.held.remove(&key);
        self.note(key, way);
        false
    }

    /// Those whom nobody has asked about for so long as changes count together wait no more.
    pub fn forget_held(&mut self, now: UnixTime) {
        let within = self.within;
        self.held.retain(|_, asked| now.since(*asked) < within);
    }

    /// Somebody has looked at the directory and says that it is right as it is: nothing waits, and whatever shows within the
    /// time in which changes count together is taken, because nobody can say which addresses it concerns. Says how many
    /// waited.
    pub fn accept(&mut self, now: UnixTime) -> usize {
        let held = self.held.len();
        self.guard.accept();
        self.held.clear();
        if held > 0 {
            self.accepted = Some(now);
        }
        held
    }

    /// How many wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// A number that changes when there is something to save.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// What is to be saved.
    #[must_use]
    pub fn saved(&self) -> Saved {
        let known = self.known.iter().map(|(key, seen)| (*key, *seen)).collect();
        Saved { key: self.key, servers: digest(&self.servers), known }
    }

    fn note(&mut self, key: Id, way: Option<Seen>) {
        let changed = match way {
            Some(way) => self.known.insert(key, way) != Some(way),
            None => self.known.remove(&key).is_some(),
        };
        self.changes += u64::from(changed);
        if self.known.len() > ENTRIES {
            let mut times: Vec<UnixTime> = self.known.values().map(|seen| seen.at).collect();
            let (_, middle, _) = times.select_nth_unstable(ENTRIES / 2);
            let middle = *middle;
            self.known.retain(|_, seen| seen.at > middle);
        }
    }

    /// `Some(None)`: nowhere. `None`: no clean answer.
    fn way(&self, lookup: &Lookup, now: UnixTime) -> Option<Option<Seen>> {
        match lookup {
            Lookup::NotFound => Some(None),
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Some(None),
            Lookup::Found(recipient) => {
                let way = recipient.target.as_ref().map_or_else(|| "here".to_owned(), |to| format!("to {}", to.key()));
                let server = recipient.mail_server.as_deref().filter(|_| recipient.target.is_none());
                let connector = server.and_then(|server| self.servers.get(server));
                let place = self.hash(connector.map_or("", |connector| connector));
                Some(Some(Seen { way: self.hash(&way), place: Some(place), at: now }))
            }
            Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) | Lookup::Unavailable(_) => None,
        }
    }

    fn hash(&self, text: &str) -> Id {
        Id(keyed_hash(&self.key, text.as_bytes()))
    }
}

/// What tells one table of `mailbox_servers` from another.
fn digest(servers: &HashMap<String, Arc<str>>) -> Id {
    let mut all: Vec<_> = servers.iter().collect();
    all.sort_unstable();
    Id::of(format!("{all:?}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipient::Recipient;
    use crate::smtp::address::Address;

    fn found(target: Option<&str>) -> Lookup {
        Lookup::Found(Arc::new(Recipient {
            kind: if target.is_some() { Kind::MailUser } else { Kind::Mailbox },
            target: target.map(|target| Address::parse(target).unwrap()),
            mail_server: None,
            send_connector: None,
            entry: "e".into(),
            rule: "r".into(),
        }))
    }

    fn with_ten() -> Remembered {
        let limits = HoldChanges { share_millionths: 0, at_least: 3, within: Duration::from_hours(1) };
        let mut remembered = Remembered::new(limits, HashMap::new(), Saved::nobody([7; 16]));
        for number in 0..10 {
            assert!(!remembered.is_held(&format!("u{number}@a.b"), &found(None), UnixTime(1_000)));
        }
        remembered
    }

    fn ask(remembered: &mut Remembered, numbers: std::ops::Range<u32>, lookup: &Lookup, at: u64) -> Vec<bool> {
        numbers.map(|number| remembered.is_held(&format!("u{number}@a.b"), lookup, UnixTime(at))).collect()
    }

    #[test]
    fn beyond_the_limit_whose_way_changed_waits() {
        for changed in [Lookup::NotFound, found(Some("x@y.z"))] {
            let mut remembered = with_ten();
            let said = ask(&mut remembered, 0..6, &changed, 2_000);
            assert_eq!(said, [false, false, false, true, true, true], "{changed:?}");
            assert_eq!(remembered.held(), 3);
            // Asked again it waits still, and what was taken stays; who is as before is not concerned.
            assert_eq!(ask(&mut remembered, 2..5, &changed, 2_001), [false, true, true]);
            assert_eq!(ask(&mut remembered, 6..10, &found(None), 2_002), [false; 4]);
            assert_eq!(remembered.held(), 3);
        }
    }

    #[test]
    fn put_right_or_accepted_nothing_waits() {
        let mut remembered = with_ten();
        ask(&mut remembered, 0..6, &Lookup::NotFound, 2_000);
        assert_eq!(ask(&mut remembered, 3..6, &found(None), 2_001), [false; 3]);
        assert_eq!(remembered.held(), 0);
        ask(&mut remembered, 3..6, &Lookup::NotFound, 2_002);
        assert_eq!(remembered.accept(UnixTime(2_002)), 3);
        assert_eq!(ask(&mut remembered, 3..10, &Lookup::NotFound, 2_003), [false; 7]);
    }

    #[test]
    fn no_clean_answer_counts() {
        let mut remembered = with_ten();
        assert_eq!(ask(&mut remembered, 0..10, &Lookup::Unavailable("down".into()), 2_000), [false; 10]);
        assert_eq!(ask(&mut remembered, 0..3, &Lookup::NotFound, 2_001), [false; 3]);
    }

    #[test]
    fn who_is_not_asked_about_any_more_does_not_wait() {
        let mut remembered = with_ten();
        ask(&mut remembered, 0..6, &Lookup::NotFound, 2_000);
        ask(&mut remembered, 5..6, &Lookup::NotFound, 2_600);
        assert_eq!(remembered.held(), 3);
        ask(&mut remembered, 4..5, &Lookup::Unavailable("down".into()), 2_700);
        remembered.forget_held(UnixTime(2_000 + 3_600));
        assert_eq!(remembered.held(), 2);
    }

    #[test]
    fn once_accepted_what_shows_later_is_taken_too_and_counts_again_afterwards() {
        let mut remembered = with_ten();
        remembered.accept(UnixTime(1_500)); // nobody waits, so nothing was said
        let said = ask(&mut remembered, 0..5, &Lookup::NotFound, 2_000);
        assert_eq!(said, [false, false, false, true, true]);
        remembered.accept(UnixTime(2_100));
        assert_eq!(ask(&mut remembered, 3..5, &Lookup::NotFound, 2_101), [false; 2]);
        assert_eq!(ask(&mut remembered, 5..10, &found(Some("x@y.z")), 2_102), [false; 5]);
        // Those are known as they are now.
        let later = 2_100 + 3_600;
        assert_eq!(ask(&mut remembered, 5..10, &Lookup::NotFound, later), [false, false, false, true, true]);
    }

    #[test]
    fn other_names_for_mail_servers_hold_nobody_and_other_servers_do() {
        let limits = HoldChanges { share_millionths: 0, at_least: 0, within: Duration::from_hours(1) };
        let servers = |connector: &str| HashMap::from([("ex1".to_owned(), connector.into())]);
        let on = |server: &str| match found(None) {
            Lookup::Found(recipient) => {
                let mail_server = Some(server.into());
                Lookup::Found(Arc::new(Recipient { mail_server, ..Recipient::clone(&recipient) }))
            }
            other => other,
        };
        let mut remembered = Remembered::new(limits, servers("old"), Saved::nobody([7; 16]));
        assert!(!remembered.is_held("a@b.c", &on("ex1"), UnixTime(1_000)));
        let saved = remembered.saved();
        let mut same = Remembered::new(limits, servers("old"), saved.clone());
        assert!(same.is_held("a@b.c", &on("ex2"), UnixTime(1_001)));
        let mut renamed = Remembered::new(limits, servers("new"), saved);
        assert!(!renamed.is_held("a@b.c", &on("ex1"), UnixTime(1_001)));
        assert!(renamed.is_held("a@b.c", &on("ex2"), UnixTime(1_002)));
        assert!(renamed.is_held("a@b.c", &Lookup::NotFound, UnixTime(1_003)));
    }

    #[test]
    fn it_comes_back_as_it_was_saved_and_forgets_after_a_week() {
        let limits = HoldChanges { share_millionths: 0, at_least: 0, within: Duration::from_hours(1) };
        let mut again = Remembered::new(limits, HashMap::new(), with_ten().saved());
        assert_eq!(ask(&mut again, 0..1, &Lookup::NotFound, 2_000), [true]);
        assert_eq!(ask(&mut again, 1..2, &Lookup::NotFound, 1_000 + COUNTS.as_secs()), [false]);
    }

    #[test]
    fn it_is_bounded() {
        let limits = HoldChanges { share_millionths: 0, at_least: 0, within: Duration::from_hours(1) };
        let mut remembered = Remembered::new(limits, HashMap::new(), Saved::nobody([7; 16]));
        for number in 0..=ENTRIES as u64 {
            remembered.is_held(&format!("u{number}@a.b"), &found(None), UnixTime(number));
        }
        assert!(remembered.len() <= ENTRIES / 2 + 1);
        assert!(remembered.known.contains_key(&remembered.hash(&format!("u{ENTRIES}@a.b"))));
    }
}
