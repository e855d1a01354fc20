//! Whether a node's row says that it drains: each heartbeat writes it as the node knows it, so that a word that went
//! astray is put right. Pure.

use parking_lot::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    No,
    /// It is being asked whether it may: heartbeats leave the row alone.
    Asking,
    Yes,
}

#[derive(Debug)]
pub(super) struct Draining(Mutex<State>);

impl Draining {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State::No))
    }

    /// What a heartbeat writes; `None`: nothing.
    pub(super) fn to_write(&self) -> Option<bool> {
        match *self.0.lock() {
            State::No => Some(false),
            State::Asking => None,
            State::Yes => Some(true),
        }
    }

    /// Says that it drains: there is no way back.
    pub(super) fn begin(&self) {
        *self.0.lock() = State::Yes;
    }

    /// Asks whether it may.
    pub(super) fn ask(&self) -> Asking<'_> {
        let mut state = self.0.lock();
        if *state == State::No {
            *state = State::Asking;
        }
        Asking(self)
    }
}

/// A question whether the node may drain. Without [`Draining::begin`] meanwhile, it goes on as before.
pub(super) struct Asking<'a>(&'a Draining);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if *state == State::Asking {
            *state = State::No;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_is_taken_back() {
        let draining = Draining::new();
        assert_eq!(draining.to_write(), Some(false));
        let asking = draining.ask();
        assert_eq!(draining.to_write(), None);
        drop(asking);
        assert_eq!(draining.to_write(), Some(false));
        let asking = draining.ask();
        draining.begin();
        drop(asking);
        drop(draining.ask());
        assert_eq!(draining.to_write(), Some(true));
    }
}
