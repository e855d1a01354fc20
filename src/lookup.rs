//! Questions to directories and their answers: the types that directories, routing and explanations share.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::one_client::one_client;
use crate::smtp::address::Address;

/// How fresh an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// A cached answer will do.
    Any,
    /// The directory itself has to be asked.
    Live,
}

/// A question to a directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub directory: Arc<str>,
    pub address: Address,
    pub freshness: Freshness,
}

/// On whose behalf a directory is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Behalf {
    /// On our own: for the queue, a report, an operator.
    Ours,
    /// For a client: an IPv4 address, or the network of an IPv6 /64.
    Client(IpAddr),
    /// For a sender domain, if a client that is not a stranger forwards strangers' mail; empty: the null sender.
    Sender(Box<str>),
}

impl Behalf {
    /// The client at this address.
    #[must_use]
    pub fn client(address: IpAddr) -> Self {
        Self::Client(one_client(address))
    }
}

/// The priority of questions where a directory's capacity is small: the first variant comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Our own questions, those of organizations, authenticated clients, and partners that may relay; and of any
    /// client, if the recipient had mail lately.
    Known,
    /// Questions of known networks, such as a filter that forwards strangers' mail; and of clients whose mail was
    /// accepted lately.
    Network,
    /// Questions of all other clients.
    Stranger,
}

/// The kind of a directory entry (DESIGN section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Mailbox,
    /// A distribution or security group.
    Group,
    /// A mail-enabled public folder.
    PublicFolder,
    /// Known here with an account; the mailbox is elsewhere.
    MailUser,
    /// Known here without an account; the mailbox is elsewhere.
    Contact,
    /// An entry with neither mailbox nor target, which counts as not found.
    NoMailbox,
}

impl Kind {
    /// In the order of explanations and errors.
    pub const ALL: [Self; 6] =
        [Self::Mailbox, Self::Group, Self::PublicFolder, Self::MailUser, Self::Contact, Self::NoMailbox];

    /// Its index in [`ALL`](Self::ALL).
    #[must_use]
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|kind| *kind == self).unwrap_or_default()
    }

    /// The name in logs, metrics and directory files.
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

/// The parts of a directory entry that routing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    pub kind: Kind,
    /// The target address of a mail user or contact. `None` for a mail user or contact: the target is not an SMTP
    /// address, and its own system has a connector for it.
    pub target: Option<Address>,
    /// The entry's mail server, for `mailbox_servers`.
    pub mail_server: Option<Arc<str>>,
    /// The send connector in the entry itself (file directories).
    pub send_connector: Option<Arc<str>>,
    /// Identifies the entry for operators: a DN, or `file:line`.
    pub entry: Arc<str>,
    /// The rule that determined its kind, for operators: `msExchRecipientTypeDetails = 1`.
    pub rule: Arc<str>,
}

/// The answer to a question. An outage cannot be mistaken for "not found".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// One entry has the address.
    Found(Arc<Recipient>),
    /// The directory answered, and no entry has it.
    NotFound,
    /// Two or more entries have it; the texts name them.
    Ambiguous(Arc<[String]>),
    /// The mail server that was asked accepts every recipient, so that its acceptance proves nothing; the text names
    /// it.
    AcceptsEverything(Arc<str>),
    /// The answer changed, together with too many others: it is not used until an operator accepts the change
    /// (`hold_changes`). The text says what to do.
    Held(Arc<str>),
    /// There is no clean answer; the text has the reason, for the log.
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub lookup: Lookup,
    pub fresh: Fresh,
}
