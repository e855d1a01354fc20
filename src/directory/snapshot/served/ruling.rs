//! What becomes of changes: they are taken, or, once too many recipients' mail would take another way, held, with all that
//! changed lately taken back. Pure.
//!
//! Holding goes on until everything is put right or accepted: what a limit lets through while somebody is putting things
//! right would be the rest of the accident.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::held::Held;
use super::{Now, Outcome, Served};
use crate::directory::expected::Announced;
use crate::directory::known::Id;
use crate::directory::mail::Asked;
use crate::directory::snapshot::guard::most;
use crate::directory::snapshot::view::{Change, View, Way};
use crate::directory::snapshot::window::Undo;
use crate::fast_map::FastMap;
use crate::time::QueueTime;

/// Of so many recipients as may change all addresses are noted, as long as they have no more than so many each.
const KEYS_OF_ONE: usize = 200;

/// What the directory has told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Whole,
    Some,
}

/// Which addresses may be concerned.
enum Scope {
    All,
    Keys(Vec<String>),
}

/// How two views differ for mail.
#[derive(Default)]
struct Difference {
    /// The recipients: who had the address, or who has it now where nobody had.
    recipients: HashSet<Id>,
    /// The addresses.
    keys: Vec<String>,
    /// Of them those that are new, with the send connector of another organisation that served them.
    new: FastMap<String, Arc<str>>,
}

impl Served {
    /// The directory was read as a whole. The first time everything is taken as it is.
    pub fn read(&mut self, view: View, now: Now<'_>) -> Outcome {
        if !self.was_read {
            (self.current, self.was_read) = (view, true);
            return Outcome::Taken(0);
        }
        if let Some(held) = &mut self.held {
            held.view = view;
            return self.go_on(Read::Whole, now);
        }
        self.rule(view, Scope::All, now)
    }

    /// Some entries changed. Returns what of it changes something, and what became of that; what is held is no way round:
    /// whatever comes meanwhile goes there too, and may be what puts it right.
    pub fn changed(&mut self, changes: Vec<Change>, now: Now<'_>) -> (Vec<Change>, Outcome) {
        let news = self.latest().news(changes);
        self.was_read = true;
        let mut view = self.latest().clone();
        news.iter().for_each(|(change, _)| view.apply(change.clone()));
        // Who had an address, and who shares one from now on.
        let after = news.iter().filter_map(|(change, _)| match change {
            Change::Put(known) => Some(known),
            Change::Gone(_) => None,
        });
        let concerned = news.iter().filter_map(|(_, before)| before.as_ref()).chain(after);
        let keys = concerned.flat_map(|known| &known.claims).map(|claim| claim.key.clone()).collect();
        let changes: Vec<Change> = news.into_iter().map(|(change, _)| change).collect();
        let outcome = match &mut self.held {
            Some(held) if changes.is_empty() => Outcome::Held(held.recipients()),
            Some(held) => {
                held.view = view;
                self.go_on(Read::Some, now)
            }
            None if changes.is_empty() => Outcome::Taken(0),
            None => self.rule(view, Scope::Keys(keys), now),
        };
        (changes, outcome)
    }

    /// Somebody says that the changes are meant. Says how many recipients' mail takes another way.
    pub fn accept(&mut self) -> usize {
        self.window.clear();
        let Some(held) = self.held.take() else { return 0 };
        self.current = held.view;
        held.turned
    }

    /// Somebody says that the changes of these addresses are meant: the entries that have or had them are taken as they are.
    /// Says how many recipients' mail takes another way.
    pub fn accept_only(&mut self, keys: &[String], now: Now<'_>) -> usize {
        let Some(held) = &mut self.held else { return 0 };
        let meant: HashSet<&String> = keys.iter().collect();
        held.stayed.retain(|undo| !undo.keys.iter().any(|key| meant.contains(key)));
        let before = held.turned;
        self.take_keys(keys);
        self.go_on(Read::Some, now);
        before.saturating_sub(self.held.as_ref().map_or(0, |held| held.turned))
    }

    /// Takes an announcement until then. What it concerns is held no longer.
    pub fn announce(&mut self, announced: Announced, until: QueueTime, now: Now<'_>) {
        self.expected.announce(announced, until);
        if self.held.is_some() {
            self.go_on(Read::Some, now);
        }
    }

    fn rule(&mut self, view: View, scope: Scope, now: Now<'_>) -> Outcome {
        self.expected.forget(now.at);
        self.window.forget(self.rules.limits.within, now.at);
        let before = self.window.before(&self.current);
        let scope = match scope {
            Scope::Keys(keys) => Scope::Keys(keys.into_iter().chain(self.window.keys().map(str::to_owned)).collect()),
            Scope::All => Scope::All,
        };
        let most = most(&self.rules.limits, before.count_entries()) + self.expected.any();
        let difference = self.difference((&before, &view), &scope, now, most);
        if difference.recipients.len() > most {
            return self.hold(before, view, now);
        }
        let turned = self.note(&view, difference, now);
        self.current = view;
        Outcome::Taken(turned)
    }

    /// Notes how the entries are that change. Says how many recipients' mail takes another way.
    fn note(&mut self, view: &View, difference: Difference, now: Now<'_>) -> usize {
        let mut recipients: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        for key in difference.keys {
            let is_new = difference.new.contains_key(&key) && self.current.way(&key) == Way::Nowhere;
            if is_new || self.turns(&self.current, view, &key) {
                let recipient = self.current.owner_ids(&key).chain(view.owner_ids(&key)).next();
                recipient.map(|id| recipients.entry(id).or_default().push(key));
            }
        }
        let turned = recipients.len();
        let announced = self.expected.any().min(turned);
        self.expected.use_up(announced);
        let mut entries: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        for key in recipients.into_values().skip(announced).flatten() {
            let owners: HashSet<Id> = self.current.owner_ids(&key).chain(view.owner_ids(&key)).collect();
            owners.into_iter().for_each(|id| entries.entry(id).or_default().push(key.clone()));
        }
        if !entries.is_empty() {
            self.window.note(&self.current, entries.into_iter().collect(), (now.at, now.day));
        }
        turned
    }

    /// From now on changes are held. All that changed lately goes back, but for those whose mail arrives at their new place.
    fn hold(&mut self, before: View, view: View, now: Now<'_>) -> Outcome {
        let stay: HashSet<Id> =
            self.window.undos().iter().filter(|undo| self.stays(undo, &before, now)).map(|u| u.id).collect();
        let (mut stayed, mut since) = (self.window.clone(), FastMap::default());
        stayed.retain(|undo| stay.contains(&undo.id));
        self.window.retain(|undo| !stay.contains(&undo.id));
        for undo in self.window.undos() {
            for key in &undo.keys {
                since.entry(Id::of(key.as_bytes())).or_insert(undo.since);
            }
        }
        let mut current = before;
        current.take_from(&self.current, &stay);
        self.current = current;
        self.held = Some(Held { since, ..Held::new(view, stayed, now.day) });
        self.go_on(Read::Whole, now)
    }

    /// Whether mail for one of its addresses was accepted at the new place since.
    fn stays(&self, undo: &Undo, before: &View, now: Now<'_>) -> bool {
        undo.keys.iter().any(|key| {
            let way = self.current.way(key);
            let moved = matches!(way, Way::Here(_) | Way::Target(_)) && !self.rules.same(before.way(key), way);
            moved && {
                let answer = self.current.lookup(key);
                now.mail.arrived(&Asked { directory: &self.rules.name, key, answer: &answer }, undo.at)
            }
        })
    }

    /// Goes on holding, unless there is nothing left to hold.
    fn go_on(&mut self, read: Read, now: Now<'_>) -> Outcome {
        self.expected.forget(now.at);
        let expected: Vec<String> = self.expected.keys().map(str::to_owned).collect();
        self.take_keys(&expected);
        self.take_what_is_put_right();
        let Some(held) = &self.held else { return Outcome::Taken(0) };
        let default = if held.is_resuming { held.began } else { now.day };
        let mut since = FastMap::default();
        let difference = self.difference_seen((&self.current, &held.view), &Scope::All, now, &mut |key| {
            let key = Id::of(key.as_bytes());
            since.insert(key, held.since.get(&key).copied().unwrap_or(default));
        });
        let Some(held) = &mut self.held else { return Outcome::Taken(0) };
        (held.turned, held.withheld, held.since) = (difference.recipients.len(), difference.new, since);
        held.is_resuming &= read == Read::Some;
        if held.turned > 0 || held.is_resuming {
            return Outcome::Held(held.recipients());
        }
        // Those who stayed count still, for as long as they would have.
        self.window = std::mem::take(&mut held.stayed);
        self.current = held.view.clone();
        self.held = None;
        Outcome::Taken(0)
    }

    /// Takes the entries that have or had these addresses as the directory has them. Others are not concerned.
    fn take_keys(&mut self, keys: &[String]) {
        let Some(held) = &self.held else { return };
        let concerned =
            keys.iter().filter(|key| held.withheld.contains_key(*key) || self.turns(&self.current, &held.view, key));
        let ids: HashSet<Id> =
            concerned.flat_map(|key| self.current.owner_ids(key).chain(held.view.owner_ids(key))).collect();
        if ids.is_empty() {
            return;
        }
        self.window.retain(|undo| !ids.contains(&undo.id));
        self.unsaved.extend(self.current.take_from(&held.view, &ids));
    }

    /// Of those that stayed at their new place some may be back where they were: that is no accident.
    fn take_what_is_put_right(&mut self) {
        let Some(held) = &mut self.held else { return };
        if held.stayed.is_empty() || held.is_resuming {
            return;
        }
        let before = held.stayed.before(&self.current);
        let (rules, view) = (&self.rules, &held.view);
        let is_back = |undo: &Undo| undo.keys.iter().all(|key| rules.same(view.way(key), before.way(key)));
        let back: HashSet<Id> = held.stayed.undos().iter().filter(|undo| is_back(undo)).map(|undo| undo.id).collect();
        if !back.is_empty() {
            self.unsaved.extend(self.current.take_from(view, &back));
            held.stayed.retain(|undo| !back.contains(&undo.id));
        }
    }

    /// How they differ; no addresses where there are more recipients than that.
    fn difference(&self, views: (&View, &View), scope: &Scope, now: Now<'_>, most: usize) -> Difference {
        let mut keys = HashSet::new();
        let mut recipients = 0;
        let mut difference = self.difference_seen(views, scope, now, &mut |key| {
            recipients += 1;
            if recipients <= most.saturating_mul(KEYS_OF_ONE) {
                keys.insert(key.to_owned());
            }
        });
        difference.keys = keys.into_iter().collect();
        difference
    }

    /// How they differ; `see` is shown each address.
    fn difference_seen(
        &self,
        (from, to): (&View, &View),
        scope: &Scope,
        now: Now<'_>,
        see: &mut dyn FnMut(&str),
    ) -> Difference {
        let mut difference = Difference::default();
        // All addresses of somebody of whom one is announced are.
        let announced: HashSet<Id> =
            self.expected.keys().flat_map(|key| from.owner_ids(key).chain(to.owner_ids(key))).collect();
        let is_announced = |key: &str| {
            !announced.is_empty() && from.owner_ids(key).chain(to.owner_ids(key)).any(|id| announced.contains(&id))
        };
        let mut look = |key: &str| {
            if from.way(key) == Way::Nowhere {
                let Some(connector) = self.serves_elsewhere(to, key, now).filter(|_| !is_announced(key)) else {
                    return;
                };
                difference.new.insert(key.to_owned(), connector);
                difference.recipients.extend(to.owner_ids(key));
            } else if self.turns(from, to, key) && !is_announced(key) {
                difference.recipients.extend(from.owner_ids(key));
            } else {
                return;
            }
            see(key);
        };
        match scope {
            Scope::Keys(keys) => keys.iter().for_each(|key| look(key)),
            Scope::All => {
                from.each_key(&mut look);
                to.each_key(&mut |key| {
                    if from.way(key) == Way::Nowhere {
                        look(key);
                    }
                });
            }
        }
        difference
    }

    /// Whether mail for an address that somebody had takes another way, or none. What nobody had, or was in doubt about,
    /// may become anything.
    fn turns(&self, from: &View, to: &View, key: &str) -> bool {
        match (from.way(key), to.way(key)) {
            (Way::Nowhere | Way::Doubtful, _) => false,
            (old, now) => !self.rules.same(old, now),
        }
    }

    /// The send connector of another organisation that accepted the last mail for an address, where its mail would go
    /// another way.
    fn serves_elsewhere(&self, to: &View, key: &str, now: Now<'_>) -> Option<Arc<str>> {
        if !matches!(to.way(key), Way::Here(_) | Way::Target(_)) {
            return None;
        }
        let answer = to.lookup(key);
        now.mail.serves_elsewhere(&Asked { directory: &self.rules.name, key, answer: &answer })
    }
}
