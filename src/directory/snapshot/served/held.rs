//! Held changes, and their list. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Served;
use crate::directory::known::Id;
use crate::directory::snapshot::view::{Destination, View};
use crate::directory::snapshot::window::Window;
use crate::fast_map::{FastMap, FastSet};
use crate::lookup::Lookup;
use crate::time::UnixTime;

#[derive(Debug, Clone)]
pub(super) struct Held {
    /// The directory's content.
    pub(super) view: View,
    /// Each address that waits, by a hash of its key.
    pub(super) waits: FastMap<Id, Waits>,
    /// Addresses that are new and not used yet, with the send connector that accepted the last mail for each.
    pub(super) withheld: FastMap<String, Arc<str>>,
    /// Recipients that had mail at their new destination: they keep it.
    pub(super) stayed: Window,
    pub(super) began: UnixTime,
    /// Whether the program was restarted, so that the directory's content is still unknown.
    pub(super) is_resuming: bool,
}

/// An address that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waits {
    pub(super) recipient: Id,
    /// When it changed.
    pub(super) since: UnixTime,
}

impl Held {
    /// Begins holding, with the changes that are taken back.
    pub(super) fn new(view: View, back: &Window, stayed: Window, began: UnixTime) -> Self {
        let mut waits = FastMap::default();
        for undo in back.undos() {
            for key in &undo.keys {
                waits.entry(hash(key)).or_insert(Waits { recipient: undo.id, since: undo.since });
            }
        }
        Self { view, waits, withheld: FastMap::default(), stayed, began, is_resuming: false }
    }

    /// How many recipients are concerned.
    pub(super) fn recipients(&self) -> usize {
        (self.turned() + self.stayed.ids().len()).max(1)
    }

    /// How many recipients wait.
    pub(super) fn turned(&self) -> usize {
        self.waits.values().map(|waits| waits.recipient).collect::<FastSet<Id>>().len()
    }

    /// The recipient that waits with the address with this key.
    fn recipient_of(&self, key: &str) -> Option<Id> {
        self.waits.get(&hash(key)).map(|waits| waits.recipient)
    }

    /// When the address with this key changed.
    pub(super) fn since_of(&self, key: &str) -> UnixTime {
        self.waits.get(&hash(key)).map_or(self.began, |waits| waits.since)
    }
}

/// The hash that identifies a waiting address.
pub(super) fn hash(key: &str) -> Id {
    Id::of(key.as_bytes())
}

/// Held changes, address by address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeldList {
    /// Recipients concerned; each may have several addresses.
    pub recipients: usize,
    /// By address. A recipient's other names are listed after the addresses only if none of its addresses is in the
    /// list: a recipient is accepted as a whole, and deleting all its addresses from the list has to exclude it.
    pub addresses: Vec<HeldAddress>,
    /// Whether the program was restarted, so that the directory's content and the held changes are still unknown.
    #[serde(default)]
    pub resuming: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAddress {
    pub address: String,
    /// Its destination now, or before: `mailbox`, an address, `nobody`.
    pub from: String,
    /// Its new destination.
    pub to: String,
    /// When it changed.
    pub since: UnixTime,
    /// Why it is listed, as text.
    pub why: String,
    /// Whether it keeps its new destination, because mail arrives there.
    pub in_force: bool,
}

impl HeldAddress {
    /// The order in the list: names that are not addresses after addresses, and changes in force last.
    #[must_use]
    pub fn place(&self) -> impl Ord + '_ {
        (self.in_force, !self.is_address(), &self.address)
    }

    fn is_address(&self) -> bool {
        is_address(&self.address)
    }
}

impl Served {
    /// All addresses whose destination would change, and those that have had mail at their new one.
    #[must_use]
    pub fn held_list(&self) -> HeldList {
        let Some(held) = &self.held else { return HeldList::default() };
        let mut addresses = Vec::new();
        let row = |key: &str, from: Destination<'_>, to: Destination<'_>, why: String| HeldAddress {
            address: key.to_owned(),
            from: from.to_string(),
            to: to.to_string(),
            since: held.since_of(key),
            why,
            in_force: false,
        };
        self.current.each_key(&mut |key| {
            let (from, to) = (self.current.way(key), held.view.way(key));
            if !matches!(from, Destination::Nowhere | Destination::Doubtful) && !self.rules.same(from, to) {
                addresses.push(row(key, from, to, why(to, &held.view.lookup(key))));
            }
        });
        for (key, connector) in &held.withheld {
            let why = format!("new here; the last mail for it was accepted by {connector}");
            addresses.push(row(key, Destination::Nowhere, held.view.way(key), why));
        }
        let listed: FastSet<Id> =
            addresses.iter().filter(|row| row.is_address()).filter_map(|row| held.recipient_of(&row.address)).collect();
        let is_listed = |row: &HeldAddress| held.recipient_of(&row.address).is_some_and(|id| listed.contains(&id));
        addresses.retain(|row| row.is_address() || !is_listed(row));
        let before = held.stayed.before(&self.current);
        for undo in held.stayed.undos() {
            let has_address = undo.keys.iter().any(|key| is_address(key));
            for key in undo.keys.iter().filter(|key| is_address(key) || !has_address) {
                let why = "in force: mail was accepted there since".to_owned();
                let of = row(key, before.way(key), self.current.way(key), why);
                addresses.push(HeldAddress { since: undo.since, in_force: true, ..of });
            }
        }
        addresses.sort_by(|one, other| one.place().cmp(&other.place()));
        addresses.dedup_by(|one, other| one.address == other.address && one.in_force == other.in_force);
        HeldList { recipients: held.recipients(), addresses, resuming: held.is_resuming }
    }
}

/// Whether a key is an address, or another name.
fn is_address(key: &str) -> bool {
    key.contains('@')
}

fn why(to: Destination<'_>, latest: &Lookup) -> String {
    match (to, latest) {
        (Destination::Nowhere, _) => "taken away".to_owned(),
        (Destination::Here(_) | Destination::Target(_), _) => "turned".to_owned(),
        (Destination::Doubtful, Lookup::Ambiguous(entries)) => format!("{} entries have it now", entries.len()),
        (Destination::Doubtful, Lookup::Unavailable(why)) => why.to_string(),
        (Destination::Doubtful, _) => "its entry is unclear".to_owned(),
    }
}
