//! What is answered from, and what waits beside it: changes that would turn the mail of too many around are held until
//! somebody accepts them (DESIGN section 5, "doubt is temporary"). Pure; time is an argument.
//!
//! `snapshot` publishes one, and makes the next from it.

use std::collections::HashMap;
use std::sync::Arc;

use super::guard::{Guard, Ruling};
use super::view::{Change, View, Way};
use crate::directory::conflicts::Listed;
use crate::directory::known::Known;
use crate::recipient::{Kind, Lookup};
use crate::time::UnixTime;

/// `mailbox_servers` of a directory, in lower case.
pub type MailboxServers = HashMap<String, Arc<str>>;

/// A directory's recipients.
#[derive(Debug, Clone)]
pub struct Served {
    current: View,
    held: Option<Held>,
    guard: Guard,
    servers: Arc<MailboxServers>,
}

/// What waits until somebody accepts it.
#[derive(Debug, Clone)]
struct Held {
    view: View,
    turned: usize,
}

/// What became of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// They are in force; so many recipients' mail takes another way, or none.
    Taken(usize),
    /// They wait: so many recipients' mail would.
    Held(usize),
}

impl Served {
    /// What is known at the start.
    #[must_use]
    pub fn new(current: View, guard: Guard, servers: Arc<MailboxServers>) -> Self {
        Self { current, held: None, guard, servers }
    }

    /// What the directory says of the address with that key. What is new is used though other changes are held.
    #[must_use]
    pub fn lookup(&self, key: &str) -> Lookup {
        match &self.held {
            Some(held) if self.current.way(key) == Way::Nowhere => held.view.lookup(key),
            Some(_) | None => self.current.lookup(key),
        }
    }

    /// What is answered from.
    #[must_use]
    pub fn current(&self) -> &View {
        &self.current
    }

    /// What the directory is known to hold: what is answered from, or what waits.
    #[must_use]
    pub fn latest(&self) -> &View {
        self.held.as_ref().map_or(&self.current, |held| &held.view)
    }

    /// Whether the directory, asked itself, says another way of the address with that key than it was known to.
    #[must_use]
    pub fn differs(&self, key: &str, live: &Lookup) -> bool {
        let live = match live {
            Lookup::NotFound => Way::Nowhere,
            Lookup::Found(recipient) if recipient.kind == Kind::NoMailbox => Way::Nowhere,
            Lookup::Found(recipient) => match &recipient.target {
                Some(target) => Way::Target(target.as_str()),
                None => Way::Here(recipient.mail_server.as_deref()),
            },
            Lookup::Ambiguous(_) | Lookup::Unavailable(_) | Lookup::AcceptsEverything(_) | Lookup::Held(_) => {
                return false;
            }
        };
        !same(&self.servers, self.latest().way(key), live)
    }

    /// How many recipients' mail would take another way, if what is held were accepted.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.turned)
    }

    /// The directory was read as a whole.
    pub fn read(&mut self, view: View, now: UnixTime) -> Outcome {
        let turned = self.turned_by(&view);
        self.rule(view, turned, now)
    }

    /// Some entries changed. Returns what of it changes something, and what became of that; what is held is no way round:
    /// whatever comes meanwhile goes there too, and may be what puts it right.
    pub fn changed(&mut self, changes: Vec<Change>, now: UnixTime) -> (Vec<Change>, Outcome) {
        let news = self.latest().news(changes);
        let mut view = self.latest().clone();
        news.iter().for_each(|(change, _)| view.apply(change.clone()));
        let turned = match &self.held {
            Some(_) => self.turned_by(&view),
            // Who had an address, and who shares one from now on.
            None => {
                let now = news.iter().filter_map(|(change, _)| match change {
                    Change::Put(known) => Some(known),
                    Change::Gone(_) => None,
                });
                let concerned = news.iter().filter_map(|(_, before)| before.as_ref()).chain(now);
                let keys = concerned.flat_map(|known| &known.claims).map(|claim| &*claim.key);
                self.current.turned_among(keys, &view, |old, new| same(&self.servers, old, new))
            }
        };
        let changes = news.into_iter().map(|(change, _)| change).collect();
        (changes, self.rule(view, turned, now))
    }

    /// Somebody says that the changes are meant. Says how many recipients' mail takes another way.
    pub fn accept(&mut self) -> usize {
        self.guard.accept();
        match self.held.take() {
            Some(held) => {
                self.current = held.view;
                held.turned
            }
            None => 0,
        }
    }

    fn rule(&mut self, view: View, turned: usize, now: UnixTime) -> Outcome {
        match self.guard.rule(now, turned, self.current.count_entries()) {
            Ruling::Take => {
                self.current = view;
                self.held = None;
                Outcome::Taken(turned)
            }
            Ruling::Hold => {
                self.held = Some(Held { view, turned });
                Outcome::Held(turned)
            }
        }
    }

    fn turned_by(&self, view: &View) -> usize {
        self.current.turned_by(view, |old, new| same(&self.servers, old, new))
    }
}

/// Whether both are the same way for mail: a server counts as far as `mailbox_servers` tells them apart.
fn same(servers: &MailboxServers, old: Way<'_>, new: Way<'_>) -> bool {
    let connector = |server: Option<&str>| servers.get(server?);
    match (old, new) {
        (Way::Here(old), Way::Here(new)) => connector(old) == connector(new),
        (Way::Target(old), Way::Target(new)) => old.eq_ignore_ascii_case(new),
        (old, new) => old == new,
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
