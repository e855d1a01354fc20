//! Where the changes of one message are. Pure. Compact, because up to a million messages may wait; most have no change
//! or one.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    pub recipient: u32,
    pub segment: u32,
    pub offset: u32,
    /// Whether it has a route.
    pub(super) rerouted: bool,
}

/// The changes that still matter, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Changes {
    #[default]
    None,
    /// One, in compact form.
    One(Packed),
    Many(Box<Vec<Changed>>),
}

/// A [`Changed`] in twelve bytes: the highest bit of the recipient's position says whether it has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packed([u32; 3]);

const REROUTED: u32 = 1 << 31;

impl Changes {
    /// Adds a change; earlier ones of the same recipient that it supersedes are removed.
    pub(super) fn add(&mut self, changed: Changed) {
        let mut all: Vec<Changed> = self.iter().collect();
        all.retain(|known| known.recipient != changed.recipient || (known.rerouted && !changed.rerouted));
        all.push(changed);
        *self = match (Packed::of(changed), &*all) {
            (Some(packed), [_]) => Self::One(packed),
            _ => Self::Many(Box::new(all)),
        };
    }

    /// Updates positions of records that were moved.
    pub(super) fn moved(&mut self, to: impl Fn(u32, u32) -> Option<(u32, u32)>) {
        let now = |changed: Changed| match to(changed.segment, changed.offset) {
            Some((segment, offset)) => Changed { segment, offset, ..changed },
            None => changed,
        };
        match self {
            Self::None => {}
            Self::One(packed) => *packed = Packed::of(now(packed.changed())).unwrap_or(*packed),
            Self::Many(all) => all.iter_mut().for_each(|changed| *changed = now(*changed)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Changed> {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(packed) => (Some(packed.changed()), &[][..]),
            Self::Many(all) => (None, &all[..]),
        };
        one.into_iter().chain(many.iter().copied())
    }
}

impl Packed {
    fn of(Changed { recipient, segment, offset, rerouted }: Changed) -> Option<Self> {
        let flag = if rerouted { REROUTED } else { 0 };
        (recipient < REROUTED).then_some(Self([recipient | flag, segment, offset]))
    }

    fn changed(self) -> Changed {
        let [recipient, segment, offset] = self.0;
        Changed { recipient: recipient & !REROUTED, segment, offset, rerouted: recipient & REROUTED != 0 }
    }
}
