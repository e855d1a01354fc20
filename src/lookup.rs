//! What a directory says of an address: the words that directories, routing and explanations share.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::one_client::one_client;
use crate::smtp::address::Address;

/// How fresh an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Whatever is at hand.
    Any,
    /// The directory itself is to be asked.
    Live,
}

/// One question to one directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The directory's name.
    pub directory: Arc<str>,
    /// The address to look up.
    pub address: Address,
    /// How fresh the answer has to be.
    pub freshness: Freshness,
}

/// On whose behalf a directory is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Behalf {
    /// Ours: the queue, a report, an operator.
    Ours,
    /// A client's: an IPv4 address, or the network of an IPv6 /64.
    Client(IpAddr),
    /// A sender domain's, where strangers' mail comes through a client that is none; empty: the null sender.
    Sender(Box<str>),
}

impl Behalf {
    /// The client at this address.
    #[must_use]
    pub fn client(address: IpAddr) -> Self {
        Self::Client(one_client(address))
    }
}

/// Whose questions come first where a directory cannot be asked much at once: the first one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Ours, an organization's, an authenticated client's, a partner's that may relay; and whoever asks for a recipient who
    /// had mail lately.
    Known,
    /// A known network's: a filter, by which strangers' mail comes too; and a client's whose mail was taken lately.
    Network,
    /// Whoever connects.
    Stranger,
}

/// What kind of entry owns the address (DESIGN section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Mailbox,
    /// A distribution or security group.
    Group,
    /// A mail-enabled public folder.
    PublicFolder,
    /// Known here, mailbox elsewhere, with an account.
    MailUser,
    /// Known here, mailbox elsewhere, without an account.
    Contact,
    /// An entry with neither mailbox nor target: as good as not found.
    NoMailbox,
}

impl Kind {
    /// In the order of explanations and errors.
    pub const ALL: [Self; 6] =
        [Self::Mailbox, Self::Group, Self::PublicFolder, Self::MailUser, Self::Contact, Self::NoMailbox];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default()
    }

    /// As written in logs, metrics and file directories.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mailbox => "mailbox",
            Self::Group => "group",
            Self::PublicFolder => "public-folder",
            Self::MailUser => "mail-user",
            Self::Contact => "contact",
            Self::NoMailbox => "no-mailbox",
        }
    }
}

/// One directory entry, as far as routing needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub kind: Kind,
    /// Where its mail is to go instead (mail users and contacts). A mail user or contact without one has a target of
    /// another kind than SMTP's, which its own system has the connector for.
    pub target: Option<Address>,
    /// The mail server that the entry names, as `mailbox_servers` matches it.
    pub mail_server: Option<Arc<str>>,
    /// The send connector that the entry itself names (file directories).
    pub send_connector: Option<Arc<str>>,
    /// Which entry it is, for people: a DN, or `file:line`.
    pub entry: Arc<str>,
    /// The rule that decided its kind, for people: `msExchRecipientTypeDetails = 1`.
    pub rule: Arc<str>,
}

/// The answer to one question. An outage cannot be mistaken for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// One entry has the address.
    Found(Arc<Recipient>),
    /// The directory was asked, answered cleanly, and has none.
    NotFound,
    /// Two or more entries claim it; the texts name them.
    Ambiguous(Arc<[String]>),
    /// The mail server that was asked takes mail for everybody, so that its yes proves nothing; the text says which one.
    AcceptsEverything(Arc<str>),
    /// The answer changed, as those of too many did: it is not believed until somebody says that it is meant
    /// (`hold_changes`). The text says what to do.
    Held(Arc<str>),
    /// No clean answer; the text says why, for the log.
    Unavailable(Arc<str>),
}

/// How fresh an answer is (DESIGN section 3, "live answer").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fresh {
    /// The directory itself was asked at most 5 s ago, or is a file.
    Live,
    /// From a cache or a snapshot.
    Cached,
}

/// A lookup and its freshness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was said.
    pub lookup: Lookup,
    /// How fresh it is.
    pub fresh: Fresh,
}
