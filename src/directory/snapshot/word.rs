//! Operators' decisions about held changes, and storing them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::changes_file::has_room;
use super::journal::Journal;
use super::served::{HeldList, Now, Outcome, Served};
use super::{Accept, Snapshot};
use crate::directory::expected::Announced;
use crate::time::UnixTime;

impl Snapshot {
    /// An operator accepts changes. Returns how many recipients' destinations change.
    pub fn accept(&self, accept: &Accept) -> usize {
        let _turn = self.turn.lock();
        let mut served = self.serving();
        // Changes that are still unknown cannot be accepted.
        if !served.is_holding() || served.is_resuming() {
            return 0;
        }
        let turned = match accept {
            Accept::No => return 0,
            Accept::Yes => served.accept(),
            Accept::Only(keys) => served.accept_only(keys, self.now()),
        };
        // The directory has not confirmed it now: the snapshot becomes no fresher by that.
        self.take_word(served, turned);
        turned
    }

    /// Announces changes that are not counted or held, for this long.
    ///
    /// # Errors
    /// Nothing has been read yet, so that everything will be taken; or there is more than can be stored, and nothing is
    /// announced.
    pub fn announce(&self, announced: Announced, during: Duration) -> Result<(), String> {
        if self.served.load().is_none() {
            return Err("nothing was read yet; the first read is taken as it is".to_owned());
        }
        let _turn = self.turn.lock();
        let (mut served, now) = (self.serving(), self.now());
        let (before, until) = (served.held(), now.at.plus(during));
        let mut expected = served.expected().clone();
        expected.forget(now.at);
        expected.announce(announced.clone(), until);
        has_room(&expected)?;
        served.announce(announced, until, now);
        let turned = before.saturating_sub(served.held());
        self.take_word(served, turned);
        Ok(())
    }

    /// Puts an operator's decision in force and stores it.
    fn take_word(&self, mut served: Served, turned: usize) {
        self.keep(&mut served);
        if self.served.load().as_deref().is_some_and(Served::is_holding) && !served.is_holding() {
            self.file_is_behind.store(true, Ordering::Relaxed);
        }
        let outcome = if served.is_holding() { Outcome::Held(served.held()) } else { Outcome::Taken(turned) };
        self.publish(served, outcome);
    }

    /// Held changes, address by address.
    #[must_use]
    pub fn held_list(&self) -> HeldList {
        self.served.load().as_deref().map(Served::held_list).unwrap_or_default()
    }

    /// A successor stores recent changes from now on.
    pub fn give_way(&self) {
        self.changes.lock().give_way();
    }

    pub(super) fn now(&self) -> Now<'_> {
        Now { at: self.mail.now(), day: UnixTime::now(), mail: &*self.mail }
    }

    /// Stores the new state before the previous state is forgotten: otherwise a change could not be taken back after a
    /// crash.
    pub(super) fn keep(&self, served: &mut Served) {
        let unsaved = served.take_unsaved();
        if !unsaved.is_empty() {
            self.note(unsaved, None, self.contact.lock().confirmed().unwrap_or_else(UnixTime::steady));
            if let Some(Err(error)) = self.journal.lock().as_ref().map(Journal::sync) {
                tracing::warn!(directory = %self.name, file = %self.path.display(), "cannot be synced: {error}");
            }
        }
        let mut changes = self.changes.lock();
        if let Err(error) = changes.keep(served.kept()) {
            tracing::warn!(directory = %self.name, "what changed lately cannot be kept over a restart: {error}");
        }
    }
}
