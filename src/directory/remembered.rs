//! Which way mail for an address went when the directory last had it: what `hold_changes` counts over where a directory is
//! asked for each recipient (DESIGN section 5, "doubt is temporary"). Pure; time is an argument.
//!
//! `ldap` tells it every answer, and saves it. It holds hashes and times only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::known::Id;
use super::snapshot::guard::{Guard, Ruling};
use crate::config::HoldChanges;
use crate::recipient::{Kind, Lookup};
use crate::time::UnixTime;

/// For how long an address counts after it was last found.
const COUNTS: Duration = Duration::from_hours(7 * 24);
/// How many addresses are remembered.
const ENTRIES: usize = 200_000;

/// The addresses of one directory.
#[derive(Debug)]
pub struct Remembered {
    known: HashMap<Id, Seen>,
    /// Those whose way has changed, and whose mail waits.
    held: HashSet<Id>,
    guard: Guard,
    servers: HashMap<String, Arc<str>>,
    changes: u64,
}

/// Where mail for one address went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    way: Id,
    at: UnixTime,
}

/// What is saved of one address: its key and way, hashed, and when it was last found.
pub type Saved = (Id, Id, UnixTime);

impl Remembered {
    /// What was saved, or nothing. `servers` are the directory's `mailbox_servers`.
    #[must_use]
    pub fn new(limits: HoldChanges, servers: HashMap<String, Arc<str>>, saved: Vec<Saved>) -> Self {
        let known = saved.into_iter().map(|(key, way, at)| (key, Seen { way, at })).collect();
        Self { known, held: HashSet::new(), guard: Guard::new(limits), servers, changes: 0 }
    }

    /// Takes note of an answer. Says whether it is to be held: the way has changed, as those of too many have.
    pub fn is_held(&mut self, key: &str, lookup: &Lookup, now: UnixTime) -> bool {
        let key = Id::of(key.as_bytes());
        let Some(way) = self.way(lookup) else { return false };
        let before = self.known.get(&key).filter(|seen| now.since(seen.at) < COUNTS).map(|seen| seen.way);
        if before.is_none() || before == way {
            self.held.remove(&key);
            self.note(key, way, now);
            return false;
        }
        // Those that wait count together with this one.
        let together = self.held.len() + usize::from(!self.held.contains(&key));
        match self.guard.weigh(now, together, self.known.len()) {
            Ruling::Take => {
                self.guard.take(now, 1);
                self.held.remove(&key);
                self.note(key, way, now);
                false
            }
            Ruling::Hold => {
                self.held.insert(key);
                true
            }
        }
    }

    /// The directory was asked because a next hop does not know the address: its answer is never held.
    pub fn believe(&mut self, key: &str, lookup: &Lookup, now: UnixTime) {
        let key = Id::of(key.as_bytes());
        if let Some(way) = self.way(lookup) {
            self.held.remove(&key);
            self.note(key, way, now);
        }
    }

    /// Somebody says that the changes are meant: nothing counts that was before. Says how many waited.
    pub fn accept(&mut self) -> usize {
        let held = self.held.len();
        self.guard.accept();
        self.held.clear();
        self.known.clear();
        self.changes += 1;
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
    pub fn saved(&self) -> Vec<Saved> {
        self.known.iter().map(|(key, seen)| (*key, seen.way, seen.at)).collect()
    }

    fn note(&mut self, key: Id, way: Option<Id>, now: UnixTime) {
        let changed = match way {
            Some(way) => self.known.insert(key, Seen { way, at: now }) != Some(Seen { way, at: now }),
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
    fn way(&self, lookup: &Lookup) -> Option<Option<Id>> {
        match lookup {
            Lookup::NotFound => Some(None),
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Some(None),
            Lookup::Found(recipient) => {
                let target = recipient.target.as_ref().map(|target| format!("to {}", target.key()));
                let connector = || recipient.mail_server.as_deref().and_then(|server| self.servers.get(server));
                let way =
                    target.unwrap_or_else(|| connector().map_or_else(|| "here".to_owned(), |at| format!("at {at}")));
                Some(Some(Id::of(way.as_bytes())))
            }
            Lookup::Ambiguous(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) | Lookup::Unavailable(_) => None,
        }
    }
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
        let mut remembered = Remembered::new(limits, HashMap::new(), Vec::new());
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
        assert_eq!(remembered.accept(), 3);
        assert_eq!(ask(&mut remembered, 3..10, &Lookup::NotFound, 2_003), [false; 7]);
    }

    #[test]
    fn no_clean_answer_counts_and_what_a_next_hop_does_not_know_is_believed() {
        let mut remembered = with_ten();
        assert_eq!(ask(&mut remembered, 0..10, &Lookup::Unavailable("down".into()), 2_000), [false; 10]);
        ask(&mut remembered, 0..6, &Lookup::NotFound, 2_001);
        remembered.believe("u5@a.b", &Lookup::NotFound, UnixTime(2_002));
        assert_eq!(remembered.held(), 2);
        assert_eq!(ask(&mut remembered, 5..6, &Lookup::NotFound, 2_003), [false]);
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
        let mut remembered = Remembered::new(limits, HashMap::new(), Vec::new());
        for number in 0..=ENTRIES as u64 {
            remembered.is_held(&format!("u{number}@a.b"), &found(None), UnixTime(number));
        }
        assert!(remembered.len() <= ENTRIES / 2 + 1);
        assert!(remembered.known.contains_key(&Id::of(format!("u{ENTRIES}@a.b").as_bytes())));
    }
}
