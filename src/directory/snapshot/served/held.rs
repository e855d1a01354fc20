//! What waits until somebody accepts it, and the list of it. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Served;
use crate::directory::known::Id;
use crate::directory::snapshot::view::{View, Way};
use crate::directory::snapshot::window::Window;
use crate::fast_map::FastMap;
use crate::time::UnixTime;

/// What waits.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// What the directory has.
    pub(super) view: View,
    /// So many recipients wait.
    pub(super) turned: usize,
    /// Addresses that are new and not used yet, each with the send connector that accepted the last mail for it.
    pub(super) withheld: FastMap<String, Arc<str>>,
    /// Those who had mail at their new place: they stay there.
    pub(super) stayed: Window,
    /// When it began.
    pub(super) began: UnixTime,
    /// When each address that waits changed, by a hash of its key.
    pub(super) since: FastMap<Id, UnixTime>,
    /// The program was started again, and what the directory has is not known yet.
    pub(super) is_resuming: bool,
}

impl Held {
    /// From now on.
    pub(super) fn new(view: View, stayed: Window, began: UnixTime) -> Self {
        let (withheld, since) = (FastMap::default(), FastMap::default());
        Self { view, turned: 0, withheld, stayed, began, since, is_resuming: false }
    }

    /// As it was before a restart; so many recipients are known to wait.
    pub(super) fn resumed(view: View, (turned, stayed): (usize, Window), began: UnixTime) -> Self {
        Self { turned, is_resuming: true, ..Self::new(view, stayed, began) }
    }

    /// How many recipients are concerned.
    pub(super) fn recipients(&self) -> usize {
        (self.turned + self.stayed.ids().len()).max(1)
    }

    /// When the address with that key changed.
    pub(super) fn since_of(&self, key: &str) -> UnixTime {
        self.since.get(&Id::of(key.as_bytes())).copied().unwrap_or(self.began)
    }
}

/// What is held, address by address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeldList {
    /// So many recipients are concerned; each may have several addresses.
    pub recipients: usize,
    /// By address.
    pub addresses: Vec<HeldAddress>,
}

/// One address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAddress {
    /// The address.
    pub address: String,
    /// Where its mail goes, or went: `mailbox`, an address, `nobody`.
    pub from: String,
    /// Where it would go.
    pub to: String,
    /// When it changed.
    pub since: UnixTime,
    /// Why it is here, in words.
    pub why: String,
    /// Its mail goes the new way already, and stays there.
    pub in_force: bool,
}

impl Served {
    /// All addresses whose mail would take another way or none, and those who had mail at their new place since.
    #[must_use]
    pub fn held_list(&self) -> HeldList {
        let Some(held) = &self.held else { return HeldList::default() };
        let mut addresses = Vec::new();
        let row = |key: &str, from: Way<'_>, to: Way<'_>, why: String| HeldAddress {
            address: key.to_owned(),
            from: from.to_string(),
            to: to.to_string(),
            since: held.since_of(key),
            why,
            in_force: false,
        };
        self.current.each_key(&mut |key| {
            let (from, to) = (self.current.way(key), held.view.way(key));
            if !matches!(from, Way::Nowhere | Way::Doubtful) && !self.rules.same(from, to) {
                addresses.push(row(key, from, to, why(to).to_owned()));
            }
        });
        for (key, connector) in &held.withheld {
            let why = format!("new here; the last mail for it was accepted by {connector}");
            addresses.push(row(key, Way::Nowhere, held.view.way(key), why));
        }
        let before = held.stayed.before(&self.current);
        for undo in held.stayed.undos() {
            for key in &undo.keys {
                let why = "in force: mail was accepted there since".to_owned();
                let of = row(key, before.way(key), self.current.way(key), why);
                addresses.push(HeldAddress { since: undo.since, in_force: true, ..of });
            }
        }
        addresses.sort_by(|one, other| (one.in_force, &one.address).cmp(&(other.in_force, &other.address)));
        addresses.dedup_by(|one, other| one.address == other.address && one.in_force == other.in_force);
        HeldList { recipients: held.recipients(), addresses }
    }
}

fn why(to: Way<'_>) -> &'static str {
    match to {
        Way::Nowhere => "taken away",
        Way::Doubtful => "several entries have it, or its entry is unclear",
        Way::Here(_) | Way::Target(_) => "turned",
    }
}
