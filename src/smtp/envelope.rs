//! A message's envelope: who it is from, who it is for, and what the client asked of its delivery.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::smtp::address::{Address, ReversePath};

/// The BODY parameter (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Body {
    /// Not written, or `7BIT`.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// RET (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message comes back with a report.
    Full,
    /// Its header section only.
    Headers,
}

/// NOTIFY (RFC 3461 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Notify {
    /// `NEVER`.
    Never,
    /// Any of the three.
    On {
        /// `SUCCESS`.
        success: bool,
        /// `FAILURE`.
        failure: bool,
        /// `DELAY`.
        delay: bool,
    },
}

impl Notify {
    /// What is left where nobody is told of success. Who wants to hear of nothing else wants to hear of nothing then.
    #[must_use]
    pub fn without_success(self) -> Self {
        match self {
            Self::Never | Self::On { failure: false, delay: false, .. } => Self::Never,
            Self::On { failure, delay, .. } => Self::On { success: false, failure, delay },
        }
    }
}

/// What MAIL said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    pub reverse_path: ReversePath,
    /// SIZE as declared (RFC 1870), bytes.
    pub size: Option<u64>,
    pub body: Body,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    pub ret: Option<Ret>,
    /// ENVID as written, in xtext (RFC 3461 4.4).
    pub envid: Option<String>,
}

/// What one RCPT said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RcptTo {
    /// The forward-path's mailbox, as the client wrote it.
    pub address: Address,
    /// NOTIFY; `None` where it was not written.
    pub notify: Option<Notify>,
    /// ORCPT as written: `addr-type;xtext` (RFC 3461 4.2).
    pub orcpt: Option<String>,
}

/// Where a message came from, as far as routing and reports need it. It is stored with queued mail,
/// so that a decision made again later is made with the same words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The receive connector's name; of our own reports: the name of the one by which the message came that it is about.
    pub receive_connector: Arc<str>,
    /// That connector's organisation, where it is this client's; empty: none.
    pub organization: Arc<str>,
    /// Whether these hosts send us only what they did not find themselves (shared domains).
    pub resolves_first: bool,
    /// For which domains the client may send.
    pub relay: Relay,
    /// The client's address; `None` for our own reports.
    pub client: Option<IpAddr>,
    /// What the client said in EHLO or HELO.
    pub helo: String,
    /// Whether the client authenticated.
    pub authenticated: bool,
    /// What chose the receive connector.
    #[serde(default)]
    pub chosen_by: ChosenBy,
    /// The port that the client connected from.
    #[serde(default)]
    pub client_port: Option<u16>,
    /// What the client spoke; `None` for our own reports.
    #[serde(default)]
    pub spoke: Option<Spoke>,
}

/// What a client spoke, by its greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoke {
    /// SMTP: HELO.
    Smtp,
    /// ESMTP: EHLO.
    Esmtp,
}

/// What chose a client's receive connector among those of its bind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ChosenBy {
    /// The client's address.
    #[default]
    Network,
    /// This name in its verified certificate.
    Certificate(String),
}

impl Origin {
    /// Ourselves: reports (DESIGN section 6, rule 6).
    #[must_use]
    pub fn report() -> Self {
        Self {
            receive_connector: "".into(),
            organization: "".into(),
            resolves_first: false,
            relay: Relay::Report,
            client: None,
            helo: String::new(),
            authenticated: false,
            chosen_by: ChosenBy::Network,
            client_port: None,
            spoke: None,
        }
    }

    /// Ourselves, for a report about a message from there. Whose mail caused it goes with it: the receive connector,
    /// the organisation and whether the client authenticated.
    #[must_use]
    pub fn report_about(about: &Self) -> Self {
        Self {
            receive_connector: about.receive_connector.clone(),
            organization: about.organization.clone(),
            authenticated: about.authenticated,
            ..Self::report()
        }
    }

    /// Whether it is a report about a stranger's message. Those that a spool of format 2 holds do not say
    /// so, and are none.
    #[must_use]
    pub fn is_strangers_report(&self) -> bool {
        self.relay == Relay::Report && !self.receive_connector.is_empty() && self.shown().is_stranger()
    }

    /// Whether it is a [stranger](Shown::is_stranger)'s. Our own reports are not.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.relay != Relay::Report && self.shown().is_stranger()
    }

    /// Whose it is. Our own reports are of one that is known.
    #[must_use]
    pub fn whose(&self) -> Whose {
        if self.is_stranger() { Whose::Stranger } else { Whose::Known }
    }

    fn shown(&self) -> Shown<'_> {
        Shown { organization: &self.organization, authenticated: self.authenticated }
    }
}

/// What a client has shown of itself: all that decides whether it is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The organisation that it, or its message, is of; empty: none.
    pub organization: &'a str,
    /// Whether it has authenticated.
    pub authenticated: bool,
}

impl Shown<'_> {
    /// Whether it is a stranger (DESIGN section 3): of no organisation, and not authenticated.
    ///
    /// Of an organisation is who was given a receive connector that has one, by its network or by a name in its
    /// certificate. Names that a provider shares with all its customers, and connectors with `tenant`, say nothing at
    /// first: the client is a stranger until a header section names the tenant, and then that message is not a
    /// stranger's. For its connection's place that would be too late, and there the organisation's are also those
    /// who may bring its messages (`Client::whose`): the only difference.
    ///
    /// Who is exempt from a limit beside those (partners with `relay = "anywhere"`, filters with narrow networks) is
    /// a matter of the connector, and none of this.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.organization.is_empty() && !self.authenticated
    }
}

/// Whose a connection, or a message, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// An organization's, or of one that has authenticated.
    Known,
    /// A stranger's.
    Stranger,
}

impl From<Shown<'_>> for Whose {
    fn from(shown: Shown<'_>) -> Self {
        if shown.is_stranger() { Self::Stranger } else { Self::Known }
    }
}

/// What a client may relay to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relay {
    /// Accepted domains only.
    AcceptedDomains,
    /// Any domain that an address space covers.
    Anywhere,
    /// A report of ours: anywhere, to the recipient's MX where no address space covers it.
    Report,
}
