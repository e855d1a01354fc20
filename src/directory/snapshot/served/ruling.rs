//! Decides about changes: they are taken or, once the destinations of too many recipients would change, held, and all
//! recent changes are taken back. Pure.
//!
//! Holding goes on until everything is corrected or accepted: if the limit let changes through while an administrator
//! corrects an accident, those would be the rest of it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::held::{Held, Waits, hash};
use super::{Now, Outcome, Served};
use crate::directory::expected::Announced;
use crate::directory::known::{Claim, Id};
use crate::directory::mail::AnsweredAddress;
use crate::directory::snapshot::guard::{is_unlimited, most};
use crate::directory::snapshot::view::{Change, Destination, View};
use crate::directory::snapshot::window::Undo;
use crate::fast_map::{FastMap, FastSet};
use crate::time::{QueueTime, UnixTime};

/// Which addresses may be concerned.
enum Scope {
    All,
    Keys(Vec<String>),
}

/// The difference between two views for mail.
#[derive(Default)]
struct Difference {
    recipients: FastSet<Id>,
    /// The addresses, unless there are too many.
    keys: HashSet<String>,
    /// Those of them that are new.
    new: HashSet<String>,
}

/// An address whose destination would change.
struct Turned<'a> {
    key: &'a str,
    /// Its owner before, or now if there was none.
    recipient: Id,
    /// If it is new: the send connector of another organisation that accepted its mail.
    served_by: Option<&'a Arc<str>>,
}

impl Served {
    /// The directory was read completely. The first time everything is taken.
    pub fn read(&mut self, view: View, now: Now<'_>) -> Outcome {
        if !self.was_read {
            (self.current, self.was_read) = (view, true);
            return Outcome::Taken(0);
        }
        if let Some(held) = &mut self.held {
            (held.view, held.is_resuming) = (view, false);
            return self.go_on(Scope::All, now);
        }
        self.rule(view, Scope::All, now)
    }

    /// Some entries changed. Returns the changes that have an effect, and what became of them. While changes are held,
    /// further ones are added to them; they may be corrections.
    pub fn changed(&mut self, changes: Vec<Change>, now: Now<'_>) -> (Vec<Change>, Outcome) {
        let news = self.latest().news(changes);
        self.was_read = true;
        let mut view = self.latest().clone();
        news.iter().for_each(|(change, _)| view.apply(change.clone()));
        // Owners of an address, and entries that will share one.
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
                self.go_on(Scope::Keys(keys), now)
            }
            None if changes.is_empty() => Outcome::Taken(0),
            None => self.rule(view, Scope::Keys(keys), now),
        };
        (changes, outcome)
    }

    /// An operator accepts all changes. Returns how many recipients' destinations change.
    pub fn accept(&mut self) -> usize {
        let Some(held) = self.held.take() else {
            self.window.clear();
            return 0;
        };
        let turned = held.turned();
        self.end(held);
        self.window.clear();
        turned
    }

    /// An operator accepts the changes of these addresses: entries that have or had them are taken. Returns how many
    /// recipients' destinations change.
    pub fn accept_only(&mut self, keys: &[String], now: Now<'_>) -> usize {
        let Some(held) = &mut self.held else { return 0 };
        let meant: HashSet<&String> = keys.iter().collect();
        held.stayed.retain(|undo| !undo.keys.iter().any(|key| meant.contains(key)));
        let before = held.turned();
        self.take_keys(keys);
        self.go_on(Scope::All, now);
        before.saturating_sub(self.held.as_ref().map_or(0, Held::turned))
    }

    /// Adds an announcement that is valid until then. Announced changes that are held are taken.
    pub fn announce(&mut self, announced: Announced, until: QueueTime, now: Now<'_>) {
        self.expected.announce(announced, until);
        if self.held.is_some() {
            self.go_on(Scope::All, now);
        }
    }

    fn rule(&mut self, view: View, scope: Scope, now: Now<'_>) -> Outcome {
        self.expected.forget(now.at);
        if is_unlimited(&self.rules.limits) {
            // Without a limit nothing is ever taken back, so nothing has to be remembered.
            self.window.clear();
            self.current = view;
            return Outcome::Taken(0);
        }
        self.window.forget(self.rules.limits.within, now.at);
        let before = self.window.before(&self.current);
        let scope = match scope {
            Scope::Keys(keys) => Scope::Keys(keys.into_iter().chain(self.window.keys().map(str::to_owned)).collect()),
            Scope::All => Scope::All,
        };
        let most = most(&self.rules.limits, before.count_roughly()).saturating_add(self.expected.any());
        let difference = self.difference(&before, &view, &scope, now, most);
        if difference.recipients.len() > most {
            return self.hold(before, view, now);
        }
        self.note_owners(&before, &view);
        let turned = self.note(&view, difference, now);
        self.current = view;
        Outcome::Taken(turned)
    }

    /// Records entries that gain or lose an address of an entry that might be taken back, even if their own destination
    /// is unchanged: otherwise an entry that was taken back would share the address with its new owner, and the address
    /// would be ambiguous. Both are forgotten at the same time.
    fn note_owners(&mut self, before: &View, view: &View) {
        let mut entries: BTreeMap<Id, (Vec<String>, (QueueTime, UnixTime))> = BTreeMap::new();
        for undo in self.window.undos() {
            for Claim { key, .. } in undo.before.iter().flat_map(|known| &known.claims) {
                let owners = |view: &View| view.owner_ids(key).collect::<FastSet<Id>>();
                let (now, then) = (owners(&self.current), owners(view));
                if now == then || !before.owner_ids(key).any(|id| id == undo.id) {
                    continue;
                }
                for id in now.union(&then) {
                    let (keys, at) = entries.entry(*id).or_insert_with(|| (Vec::new(), (undo.at, undo.since)));
                    if !keys.contains(key) {
                        keys.push(key.clone());
                    }
                    *at = (*at).max((undo.at, undo.since));
                }
            }
        }
        if !entries.is_empty() {
            let entries = entries.into_iter().map(|(id, (keys, at))| (id, keys, at)).collect();
            self.window.note(&self.current, entries);
        }
    }

    /// Records the previous state of changing entries. Returns how many recipients' destinations change.
    fn note(&mut self, view: &View, difference: Difference, now: Now<'_>) -> usize {
        let mut recipients: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        for key in difference.keys {
            let is_new = difference.new.contains(&key) && self.current.way(&key) == Destination::Nowhere;
            if is_new || self.turns(&self.current, view, &key) {
                let recipient = self.current.owner_ids(&key).chain(view.owner_ids(&key)).next();
                if let Some(id) = recipient {
                    recipients.entry(id).or_default().push(key);
                }
            }
        }
        let turned = recipients.len();
        let announced = self.expected.any().min(turned);
        self.expected.use_up(announced);
        let mut entries: BTreeMap<Id, Vec<String>> = BTreeMap::new();
        for key in recipients.into_values().skip(announced).flatten() {
            let owners: FastSet<Id> = self.current.owner_ids(&key).chain(view.owner_ids(&key)).collect();
            owners.into_iter().for_each(|id| entries.entry(id).or_default().push(key.clone()));
        }
        if !entries.is_empty() {
            let at = (now.at, now.day);
            self.window.note(&self.current, entries.into_iter().map(|(id, keys)| (id, keys, at)).collect());
        }
        turned
    }

    /// Begins holding: takes back all recent changes, except those of recipients whose mail arrives at the new
    /// destination.
    fn hold(&mut self, before: View, view: View, now: Now<'_>) -> Outcome {
        let stay: FastSet<Id> =
            self.window.undos().iter().filter(|undo| self.stays(undo, &before, now)).map(|u| u.id).collect();
        let mut stayed = self.window.clone();
        stayed.retain(|undo| stay.contains(&undo.id));
        self.window.retain(|undo| !stay.contains(&undo.id));
        let mut current = before;
        current.take_from(&self.current, &stay);
        self.current = current;
        self.held = Some(Held::new(view, &self.window, stayed, now.day));
        self.go_on(Scope::All, now)
    }

    /// Whether mail for one of its addresses was accepted at the new destination since.
    fn stays(&self, undo: &Undo, before: &View, now: Now<'_>) -> bool {
        undo.keys.iter().any(|key| {
            let way = self.current.way(key);
            let moved =
                matches!(way, Destination::Here(_) | Destination::Target(_)) && !self.rules.same(before.way(key), way);
            moved && {
                let answer = self.current.lookup(key);
                now.mail.arrived(&AnsweredAddress { directory: &self.rules.name, key, answer: &answer }, undo.at)
            }
        })
    }

    /// Goes on holding, unless nothing is left to hold. Only the addresses in `scope` may be concerned.
    fn go_on(&mut self, scope: Scope, now: Now<'_>) -> Outcome {
        self.expected.forget(now.at);
        let expected: Vec<String> = self.expected.keys().map(str::to_owned).collect();
        let took = self.take_keys(&expected) | self.take_what_is_put_right();
        let scope = if took { Scope::All } else { scope };
        let Some(held) = &self.held else { return Outcome::Taken(0) };
        let (mut waits, mut withheld) = match &scope {
            Scope::All => (FastMap::default(), FastMap::default()),
            Scope::Keys(keys) => {
                let (mut waits, mut withheld) = (held.waits.clone(), held.withheld.clone());
                for key in keys {
                    waits.remove(&hash(key));
                    withheld.remove(key);
                }
                (waits, withheld)
            }
        };
        let default = if held.is_resuming { held.began } else { now.day };
        self.differ(&self.current, &held.view, &scope, now, &mut |turned| {
            let key = hash(turned.key);
            let since = held.waits.get(&key).map_or(default, |waits| waits.since);
            waits.insert(key, Waits { recipient: turned.recipient, since });
            turned.served_by.map(|connector| withheld.insert(turned.key.to_owned(), Arc::clone(connector)));
        });
        let Some(held) = &mut self.held else { return Outcome::Taken(0) };
        if !held.is_resuming {
            (held.waits, held.withheld) = (waits, withheld);
        }
        if !held.waits.is_empty() || held.is_resuming {
            return Outcome::Held(held.recipients());
        }
        if let Some(held) = self.held.take() {
            self.end(held);
        }
        Outcome::Taken(0)
    }

    /// Takes the directory's content. The state in force before is in the file, and is not taken back any more.
    fn end(&mut self, held: Held) {
        let ids: FastSet<Id> = self.window.ids().union(&held.stayed.ids()).copied().collect();
        self.unsaved.extend(self.current.take_from(&held.view, &ids));
        self.current = held.view;
        // Recipients that kept their new destination still count, for as long as they would have.
        self.window = held.stayed;
    }

    /// Takes the directory's state of entries that have or had these addresses; returns whether there are any.
    fn take_keys(&mut self, keys: &[String]) -> bool {
        let Some(held) = &self.held else { return false };
        let concerned =
            keys.iter().filter(|key| held.withheld.contains_key(*key) || self.turns(&self.current, &held.view, key));
        let ids: FastSet<Id> =
            concerned.flat_map(|key| self.current.owner_ids(key).chain(held.view.owner_ids(key))).collect();
        if ids.is_empty() {
            return false;
        }
        self.window.retain(|undo| !ids.contains(&undo.id));
        self.unsaved.extend(self.current.take_from(&held.view, &ids));
        true
    }

    /// Recipients that kept their new destination may have been moved back since, which is taken as a correction.
    fn take_what_is_put_right(&mut self) -> bool {
        let Some(held) = &mut self.held else { return false };
        if held.stayed.is_empty() || held.is_resuming {
            return false;
        }
        let before = held.stayed.before(&self.current);
        let (rules, view) = (&self.rules, &held.view);
        let is_back = |undo: &Undo| undo.keys.iter().all(|key| rules.same(view.way(key), before.way(key)));
        let back: FastSet<Id> = held.stayed.undos().iter().filter(|undo| is_back(undo)).map(|undo| undo.id).collect();
        if back.is_empty() {
            return false;
        }
        self.unsaved.extend(self.current.take_from(view, &back));
        held.stayed.retain(|undo| !back.contains(&undo.id));
        true
    }

    /// The differences; with some addresses only, if there are more recipients than `most`.
    fn difference(&self, from: &View, to: &View, scope: &Scope, now: Now<'_>, most: usize) -> Difference {
        let mut difference = Difference::default();
        self.differ(from, to, scope, now, &mut |turned| {
            difference.recipients.insert(turned.recipient);
            if difference.recipients.len() <= most {
                difference.keys.insert(turned.key.to_owned());
                turned.served_by.map(|_| difference.new.insert(turned.key.to_owned()));
            }
        });
        difference
    }

    /// Calls `see` for each address that differs, some of them twice.
    fn differ(&self, from: &View, to: &View, scope: &Scope, now: Now<'_>, see: &mut dyn FnMut(Turned<'_>)) {
        // If one address of a recipient is announced, all of them are.
        let announced: FastSet<Id> =
            self.expected.keys().flat_map(|key| from.owner_ids(key).chain(to.owner_ids(key))).collect();
        let owners = |key: &str| from.owner_ids(key).chain(to.owner_ids(key)).collect::<Vec<Id>>();
        let mut look = |key: &str| {
            let is_new = from.way(key) == Destination::Nowhere;
            let served_by = if is_new { self.serves_elsewhere(to, key, now) } else { None };
            let is_turned = if is_new { served_by.is_some() } else { self.turns(from, to, key) };
            if !is_turned || (!announced.is_empty() && owners(key).iter().any(|id| announced.contains(id))) {
                return;
            }
            let owner = if is_new { to.owner_ids(key).next() } else { from.owner_ids(key).next() };
            let Some(recipient) = owner else { return };
            let Some(served_by) = &served_by else { return see(Turned { key, recipient, served_by: None }) };
            // All new addresses of an entry are treated alike.
            let claims = to.owned_by(key).into_iter().flat_map(|known| known.claims);
            for claim in claims.filter(|claim| from.way(&claim.key) == Destination::Nowhere) {
                see(Turned { key: &claim.key, recipient, served_by: Some(served_by) });
            }
        };
        match scope {
            Scope::Keys(keys) => keys.iter().for_each(|key| look(key)),
            Scope::All => {
                from.each_key(&mut look);
                to.each_key(&mut |key| {
                    if from.way(key) == Destination::Nowhere {
                        look(key);
                    }
                });
            }
        }
    }

    /// Whether the destination of an address changes. An address that had no owner, or an ambiguous one, may become
    /// anything.
    fn turns(&self, from: &View, to: &View, key: &str) -> bool {
        match (from.way(key), to.way(key)) {
            (Destination::Nowhere | Destination::Doubtful, _) => false,
            (old, now) => !self.rules.same(old, now),
        }
    }

    /// The send connector of another organisation that accepted the last mail for an address, if its destination would
    /// change.
    fn serves_elsewhere(&self, to: &View, key: &str, now: Now<'_>) -> Option<Arc<str>> {
        if !matches!(to.way(key), Destination::Here(_) | Destination::Target(_)) {
            return None;
        }
        let answer = to.lookup(key);
        now.mail.serves_elsewhere(&AnsweredAddress { directory: &self.rules.name, key, answer: &answer })
    }
}
