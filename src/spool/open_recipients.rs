//! The recipients of a message that are not done, as bits. Pure; `index` has one for each live message.

use super::entry::{Entry, RecipientState};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OpenRecipients {
    Few(u64),
    #[expect(clippy::box_collection, reason = "a pointer of eight octets: there may be a million")]
    Many(Box<Vec<u64>>),
}

impl OpenRecipients {
    pub(super) fn of(entry: &Entry) -> Self {
        let mut words = vec![0_u64; entry.recipients.len().div_ceil(64)];
        for (at, queued) in entry.recipients.iter().enumerate() {
            words[at / 64] |= u64::from(!matches!(queued.state, RecipientState::Done(_))) << (at % 64);
        }
        if words.len() > 1 {
            Self::Many(Box::new(words))
        } else {
            Self::Few(words.first().copied().unwrap_or_default())
        }
    }

    fn words(&self) -> &[u64] {
        match self {
            Self::Few(word) => std::slice::from_ref(word),
            Self::Many(words) => words,
        }
    }

    /// Whether this recipient is open.
    pub(super) fn has(&self, recipient: usize) -> bool {
        self.words().get(recipient / 64).is_some_and(|word| word >> (recipient % 64) & 1 == 1)
    }

    /// This recipient is done.
    pub(super) fn close(&mut self, recipient: usize) {
        let word = match self {
            Self::Few(word) => Some(word),
            Self::Many(words) => words.get_mut(recipient / 64),
        };
        if let Some(word) = word {
            *word &= !(1 << (recipient % 64));
        }
    }

    /// The positions of open recipients.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.words().len() * 64).filter(|recipient| self.has(*recipient))
    }

    /// Whether none is open.
    pub(super) fn is_empty(&self) -> bool {
        self.words().iter().all(|word| *word == 0)
    }
}
