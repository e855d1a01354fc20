//! The types of a decision: answers, verdicts and their reasons (DESIGN section 5).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::accepted_domain::DomainType;
use super::table::DomainPattern;
use crate::lookup::{Answer, Fresh, Freshness, Kind, Lookup, Question, Recipient};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;
use crate::smtp::reply::Reply;

/// The answers so far, in the order in which they came. A later answer to the same question replaces an earlier one; a
/// live answer also answers the question that accepts any.
#[derive(Debug, Clone, Default)]
pub struct Answers(pub Vec<(Question, Answer)>);

impl Answers {
    /// The latest answer of a directory about an address, with its question and freshness: an answer to a question for
    /// a live one counts as live.
    #[must_use]
    pub fn latest(&self, directory: &str, address: &Address) -> Option<(&Question, &Lookup, Fresh)> {
        let about = |question: &Question| *question.directory == *directory && question.address == *address;
        let (question, answer) = self.0.iter().rev().find(|(question, _)| about(question))?;
        let fresh = match question.freshness {
            Freshness::Live => Fresh::Live,
            Freshness::Any => answer.fresh,
        };
        Some((question, &answer.lookup, fresh))
    }
}

/// The result of [`super::decide::decide`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Verdict(Decision),
    /// This question has to be answered first.
    Ask(Question),
}

/// A verdict and its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The address that was decided about, as received.
    pub address: Address,
    pub verdict: Verdict,
    /// Every rule that had a part in it, in order; the last one decided.
    pub reasons: Vec<Reason>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Accept(Route),
    /// Temporarily (4xx) or for good (5xx).
    Refuse(Reply),
}

/// The route of one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The send connector's name.
    pub connector: Arc<str>,
    /// What RCPT TO will carry.
    pub rcpt_to: Address,
    /// The domain whose MX is looked up where the connector delivers by the recipient's MX.
    pub next_hop_domain: Domain,
    pub way: RouteKind,
}

impl Route {
    /// Whether mail on both routes goes to the same recipient by the same connector.
    #[must_use]
    pub fn is_same_way(&self, other: &Self) -> bool {
        self.connector == other.connector && self.rcpt_to == other.rcpt_to
    }
}

/// The kind of a route: the `verdict` label of `recipients_total`, and which source says that the recipient exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// A directory has it: delivered by `deliver_to`.
    Resolved,
    /// No directory has it, and the domain is shared: relayed to the other organisation.
    Relayed,
    /// The same, and the directory in `verify_with` has it.
    RelayedVerified,
    /// A mail user's or contact's target address.
    Redirected,
    /// An external-relay domain, a foreign domain or a report.
    External,
}

impl RouteKind {
    /// The label of `recipients_total{verdict}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Relayed | Self::RelayedVerified | Self::External => "relayed",
            Self::Redirected => "redirected",
        }
    }
}

/// A rule that had a part in the decision. `Display` gives the sentence for operators; it is formatted only when
/// needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A row of the table in DESIGN section 5.
    Row {
        /// 0 to 11.
        row: u8,
        says: Says,
    },
    /// A directory's answer.
    Directory { directory: Arc<str>, address: Address, lookup: Lookup, fresh: Fresh },
    /// Anything else that explains the decision: a target address that was followed, postmaster's exception, plus
    /// addressing.
    Note(String),
}

/// What a row found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// Row 7, the usual one.
    Resolved { domain: DomainPattern, of_type: DomainType, kind: Kind, connector: Arc<str>, why: Named },
    /// Any other row, as text.
    Words(String),
}

/// Which setting names the send connector of a resolved recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    ByEntry,
    /// `mailbox_servers`, for this mail server.
    ForServer(Arc<str>),
    /// `deliver_to` of this directory.
    ByDirectory(Arc<str>),
    /// `deliver_to` of the domain.
    ByDomain,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { row, says } => {
                all(f, &["row ", itoa::Buffer::new().format(*row), ": "])?;
                says.fmt(f)
            }
            Self::Directory { directory, address, lookup, fresh } => {
                all(f, &["directory ", directory, ": "])?;
                write_lookup(f, address, lookup, *fresh)
            }
            Self::Note(says) => f.write_str(says),
        }
    }
}

impl fmt::Display for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolved { domain, of_type, kind, connector, why } => {
                domain.fmt(f)?;
                all(f, &[" is ", of_type.as_str(), ": a ", kind.as_str(), ", to ", connector, ", "])?;
                why.fmt(f)
            }
            Self::Words(words) => f.write_str(words),
        }
    }
}

impl From<String> for Says {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByEntry => f.write_str("which the entry names"),
            Self::ForServer(server) => all(f, &["for its mail server ", server]),
            Self::ByDirectory(directory) => all(f, &["`deliver_to` of directory ", directory]),
            Self::ByDomain => f.write_str("`deliver_to` of the domain"),
        }
    }
}

/// Writes texts one after the other; `write!` would take twice as long, and this runs for nearly every message.
fn all(f: &mut fmt::Formatter<'_>, texts: &[&str]) -> fmt::Result {
    texts.iter().try_for_each(|text| f.write_str(text))
}

/// Writes a directory's answer: kind, entry and rule; not found; or unavailable and why.
fn write_lookup(f: &mut fmt::Formatter<'_>, address: &Address, lookup: &Lookup, fresh: Fresh) -> fmt::Result {
    let how = match fresh {
        Fresh::Live => "",
        Fresh::Cached => " (cached)",
    };
    match lookup {
        Lookup::Found(recipient) => {
            let Recipient { kind, entry, rule, .. } = &**recipient;
            all(f, &[address.as_str(), " is a ", kind.as_str(), ": ", entry, ", by ", rule, how])
        }
        Lookup::NotFound => all(f, &[address.as_str(), " not found", how]),
        Lookup::Ambiguous(entries) => write!(f, "{address} is claimed by {} entries{how}", entries.len()),
        Lookup::AcceptsEverything(server) => write!(f, "unavailable: {server}"),
        Lookup::Held(why) => write!(f, "held: {why}"),
        Lookup::Unavailable(why) => write!(f, "unavailable: {why}"),
    }
}

impl Decision {
    /// The label of `recipients_total{verdict}`: the kind of route, `deferred` for 4xx, `refused` for 5xx.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match &self.verdict {
            Verdict::Accept(route) => route.way.label(),
            Verdict::Refuse(reply) if reply.is_transient() => "deferred",
            Verdict::Refuse(_) => "refused",
        }
    }

    /// The row that decided; `None`: no row did.
    #[must_use]
    pub fn row(&self) -> Option<u8> {
        self.reasons.iter().rev().find_map(|reason| match reason {
            Reason::Row { row, .. } => Some(*row),
            _ => None,
        })
    }
}
