//! The recipients in force, and held changes: if the destinations of too many would change, the changes are held until
//! an operator accepts them (DESIGN section 5, "doubt is temporary"). Pure; time is an argument.
//!
//! `snapshot` publishes one, and makes the next from it. `ruling` decides about changes.

use std::collections::HashMap;
use std::sync::Arc;

use self::held::Held;
use super::kept::{Holding, SnapshotState};
use super::view::{Change, Destination, View};
use super::window::Window;
use crate::config::HoldChanges;
use crate::directory::conflicts::Listed;
use crate::directory::expected::Expected;
use crate::directory::known::Known;
use crate::directory::mail::Mail;
use crate::lookup::{Kind, Lookup, Recipient};
use crate::time::{QueueTime, UnixTime};

mod held;
mod ruling;

pub use self::held::{HeldAddress, HeldList};

/// Send connectors by mail server, in lower case: `mailbox_servers` of a directory.
pub type MailboxServers = HashMap<String, Arc<str>>;

#[derive(Debug, Clone)]
pub struct Served {
    rules: Rules,
    /// Without a table nothing has been read yet, and no address counts as new.
    current: View,
    was_read: bool,
    held: Option<Held>,
    /// Recent changes; while changes are held, those that were taken back.
    window: Window,
    expected: Expected,
    /// Changes in force that the file does not have.
    unsaved: Vec<Change>,
}

/// The settings for judging changes.
#[derive(Debug, Clone)]
pub struct Rules {
    pub name: Arc<str>,
    pub limits: HoldChanges,
    pub servers: Arc<MailboxServers>,
}

/// The time of changes, and what is known from mail.
#[derive(Clone, Copy)]
pub struct Now<'a> {
    /// The queue's time, by which ages are counted.
    pub at: QueueTime,
    /// The wall clock, for display.
    pub day: UnixTime,
    pub mail: &'a dyn Mail,
}

/// The result for changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They are in force; this many recipients' destinations changed.
    Taken(usize),
    /// They are held; this many recipients' destinations would change.
    Held(usize),
}

impl Served {
    /// Empty.
    #[must_use]
    pub fn nobody(rules: Rules) -> Self {
        let current = View::new(Arc::default());
        let (window, expected) = (Window::default(), Expected::default());
        Self { rules, current, was_read: false, held: None, window, expected, unsaved: Vec::new() }
    }

    /// Continues after a restart with the recipients in force and the stored state. If changes were held, those that
    /// were taken back are taken back again, and holding goes on until the directory has been read completely.
    #[must_use]
    pub fn resumed(self, current: View, kept: SnapshotState) -> Self {
        let SnapshotState { undos, holding, expected } = kept;
        let window = Window::new(undos);
        let mut served = Self { was_read: true, current, window, expected, ..self };
        if let Some(Holding { began, stayed, withheld }) = holding {
            let (stayed, back) = served.window.undos().iter().cloned().partition(|undo| stayed.contains(&undo.id));
            served.window = Window::new(back);
            served.current = served.window.before(&served.current);
            let held = Held::new(served.current.clone(), &served.window, Window::new(stayed), began);
            served.held = Some(Held { is_resuming: true, withheld: withheld.into_iter().collect(), ..held });
        }
        served
    }

    /// The same before anything was read: only announcements matter.
    #[must_use]
    pub fn expecting(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    #[must_use]
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// The state that has to survive a restart.
    #[must_use]
    pub fn kept(&self) -> SnapshotState {
        let mut undos = self.window.undos().to_vec();
        let holding = self.held.as_ref().map(|held| {
            undos.extend_from_slice(held.stayed.undos());
            let mut stayed: Vec<_> = held.stayed.ids().into_iter().collect();
            stayed.sort_unstable();
            let mut withheld: Vec<_> =
                held.withheld.iter().map(|(key, connector)| (key.clone(), Arc::clone(connector))).collect();
            withheld.sort_unstable();
            Holding { began: held.began, stayed, withheld }
        });
        SnapshotState { undos, holding, expected: self.expected.clone() }
    }

    /// The answer about the address with this key. Of held changes, new addresses are used.
    #[must_use]
    pub fn lookup(&self, key: &str) -> Lookup {
        let Some(held) = &self.held else { return self.current.lookup(key) };
        if let Some(connector) = held.withheld.get(key) {
            return withheld(held.view.lookup(key), connector);
        }
        let (way, latest) = (self.current.way(key), held.view.way(key));
        match self.current.lookup(key) {
            _ if way == Destination::Nowhere => held.view.lookup(key),
            Lookup::Found(recipient) if !self.rules.same(way, latest) => {
                let since = held.since_of(key);
                let now = match latest {
                    Destination::Doubtful => "what the directory has now is unclear".to_owned(),
                    latest => format!("the directory has {latest} now"),
                };
                let rule = format!("{}; held since {since}: {now}", recipient.rule);
                Lookup::Found(Arc::new(Recipient { rule: rule.into(), ..Recipient::clone(&recipient) }))
            }
            lookup => lookup,
        }
    }

    /// Whether the address with this key is new and not used yet.
    #[must_use]
    pub fn withholds(&self, key: &str) -> bool {
        self.held.as_ref().is_some_and(|held| held.withheld.contains_key(key))
    }

    /// The recipients in force.
    #[must_use]
    pub fn current(&self) -> &View {
        &self.current
    }

    /// The directory's content as known: the recipients in force, or the held state.
    #[must_use]
    pub fn latest(&self) -> &View {
        self.held.as_ref().map_or(&self.current, |held| &held.view)
    }

    /// The directory's own answer about the address with this key, unless its known owner lacks attributes that similar
    /// entries have. The directory cannot find such an owner by an address that may not be read, so its "not found" is
    /// no answer then, nor is another entry without mail. This applies to held changes as well.
    #[must_use]
    pub fn unless_unread(&self, key: &str, live: Lookup) -> Lookup {
        let found = match &live {
            Lookup::NotFound => None,
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Some(&*recipient.entry),
            _ => return live,
        };
        let latest = self.latest();
        let known = latest.lookup(key);
        let is_no_answer = matches!(known, Lookup::Unavailable(_) | Lookup::Ambiguous(_)) && latest.lacks(key);
        // The owner's own new state is an answer.
        let is_itself = || latest.owned_by(key).iter().any(|owner| Some(&*owner.dn) == found);
        if is_no_answer && !is_itself() { known } else { live }
    }

    /// Whether the directory's own answer about the address has another destination than the known content.
    #[must_use]
    pub fn differs(&self, key: &str, live: &Lookup) -> bool {
        let live = match live {
            Lookup::NotFound => Destination::Nowhere,
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Destination::Nowhere,
            Lookup::Found(recipient) => match &recipient.target {
                Some(target) => Destination::Target(target.as_str()),
                None => Destination::Here(recipient.mail_server.as_deref()),
            },
            Lookup::Ambiguous(_) | Lookup::Unavailable(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) => {
                return false;
            }
        };
        !self.rules.same(self.latest().way(key), live)
    }

    /// How many recipients are concerned by held changes: those whose change waits, and those that keep their new state
    /// because their mail arrives there. Zero: no changes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.as_ref().map_or(0, Held::recipients)
    }

    /// Whether changes are held that are still unknown, because the program was restarted.
    #[must_use]
    pub fn is_resuming(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_resuming)
    }

    /// Whether changes are held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the changes in force that the file does not have.
    pub fn take_unsaved(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.unsaved)
    }
}

/// The answer "not found" with the reason.
fn withheld(lookup: Lookup, connector: &str) -> Lookup {
    let Lookup::Found(recipient) = lookup else { return Lookup::NotFound };
    let rule = format!("held: it is new here, and the last mail for it was accepted by {connector}").into();
    let recipient = Recipient { kind: Kind::NoMailbox, target: None, rule, ..Recipient::clone(&recipient) };
    Lookup::Found(Arc::new(recipient))
}

impl Rules {
    /// Whether both are the same destination: servers differ only if `mailbox_servers` distinguishes them.
    fn same(&self, old: Destination<'_>, new: Destination<'_>) -> bool {
        let connector = |server: Option<&str>| self.servers.get(server?);
        match (old, new) {
            (Destination::Here(old), Destination::Here(new)) => connector(old) == connector(new),
            (Destination::Target(old), Destination::Target(new)) => old.eq_ignore_ascii_case(new),
            (old, new) => old == new,
        }
    }
}

impl Listed for Served {
    fn each(&self, see: &mut dyn FnMut(&str)) {
        for known in self.current.entries() {
            known.claims.iter().for_each(|claim| see(&claim.key));
        }
    }

    fn claims(&self, key: &str) -> Vec<(Kind, String)> {
        let kind = |known: &Known| known.meaning.as_ref().map_or(Kind::NoMailbox, |meaning| meaning.kind);
        self.current.owned_by(key).into_iter().map(|known| (kind(&known), known.dn)).collect()
    }

    fn owners(&self, key: &str) -> usize {
        self.current.count_owners(key)
    }
}
