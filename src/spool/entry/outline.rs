//! What the queue has to know of a message that waits, without its envelope: a million of them are to fit. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Change, Entry, HeldFor, State, Waiting, Why};
use crate::message::envelope::{Origin, Relay};
use crate::message::queue_id::QueueId;
use crate::routing::verdict::Route;
use crate::smtp::domain::Domain;
use crate::time::UnixTime;

/// One live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Its id.
    pub id: QueueId,
    /// Whose it is: a number that messages of one reverse-path share.
    pub sender: u32,
    /// What it is.
    pub kind: Kind,
    /// Octets of its content.
    pub size: u64,
    /// Its recipients that are not over, by position.
    pub open: Vec<Open>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A client's message.
    Mail,
    /// A report of ours that mail of our own organisations caused.
    Report,
    /// A report of ours that a stranger's message caused.
    StrangersReport,
}

/// One recipient that is not over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Its position in the entry.
    pub at: u32,
    /// The send connector of its way.
    pub connector: Arc<str>,
    /// The domain whose MX is its next hop, where its connector goes by MX.
    pub domain: Domain,
    /// How it stands.
    pub standing: Standing,
}

/// How a recipient stands that is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It waits.
    Waits(Waits),
    /// It is held.
    Held(HeldFor),
}

/// One that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waits {
    /// When it is due.
    pub due: UnixTime,
    /// Why it waits.
    pub why: Why,
    /// Attempts so far.
    pub attempts: u32,
    /// How often it may have arrived.
    pub in_doubt: u32,
}

/// Names that many outlines share, once each.
#[derive(Debug, Default)]
pub struct Names {
    connectors: HashSet<Arc<str>>,
    domains: HashSet<Domain>,
    /// For an outline that nobody keeps nothing is shared: strangers choose domains, and would fill this.
    keeps_none: bool,
}

impl Outline {
    /// Of a message as it stands.
    #[must_use]
    pub fn of(entry: &Entry, names: &mut Names) -> Self {
        let open = (0..).zip(&entry.recipients).filter_map(|(at, queued)| {
            let standing = Standing::of(&queued.state)?;
            let (connector, domain) = names.of(&queued.route);
            Some(Open { at, connector, domain, standing })
        });
        let sender = crc32c::crc32c(entry.sender.reverse_path.as_str().as_bytes());
        Self { id: entry.id, sender, kind: Kind::of(&entry.origin), size: entry.content.size, open: open.collect() }
    }

    /// Puts a change of this message in, as [`Entry::apply`] does.
    pub fn apply(&mut self, change: &Change, names: &mut Names) {
        let is_meant = |open: &Open| usize::try_from(open.at) == Ok(change.recipient);
        let Some(position) = self.open.iter().position(is_meant) else { return };
        let Some(standing) = Standing::of(&change.state) else {
            self.open.remove(position);
            return;
        };
        let open = &mut self.open[position];
        open.standing = standing;
        if let Some(route) = &change.route {
            (open.connector, open.domain) = names.of(route);
        }
    }
}

impl Names {
    /// For outlines that nobody keeps.
    #[must_use]
    pub fn none() -> Self {
        Self { keeps_none: true, ..Self::default() }
    }

    fn of(&mut self, route: &Route) -> (Arc<str>, Domain) {
        if self.keeps_none {
            return (route.connector.clone(), route.next_hop_domain.clone());
        }
        let connector = match self.connectors.get(&route.connector) {
            Some(known) => known.clone(),
            None => {
                self.connectors.insert(route.connector.clone());
                route.connector.clone()
            }
        };
        let domain = match self.domains.get(&route.next_hop_domain) {
            Some(known) => known.clone(),
            None => {
                self.domains.insert(route.next_hop_domain.clone());
                route.next_hop_domain.clone()
            }
        };
        (connector, domain)
    }
}

impl Kind {
    /// What a message from there is.
    #[must_use]
    pub fn of(origin: &Origin) -> Self {
        match origin {
            origin if origin.is_strangers_report() => Self::StrangersReport,
            origin if origin.relay == Relay::Report => Self::Report,
            _ => Self::Mail,
        }
    }
}

impl From<&Waiting> for Waits {
    fn from(waiting: &Waiting) -> Self {
        let Waiting { next_attempt: due, why, attempts, in_doubt, .. } = *waiting;
        Self { due, why, attempts, in_doubt }
    }
}

impl Standing {
    fn of(state: &State) -> Option<Self> {
        match state {
            State::Waiting(waiting) => Some(Self::Waits(waiting.into())),
            State::Held(why) => Some(Self::Held(*why)),
            State::Done(_) => None,
        }
    }
}
