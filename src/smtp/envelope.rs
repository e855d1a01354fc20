//! A message's envelope: its sender, its recipients and their delivery options.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::smtp::address::{Address, ReversePath};

/// The BODY parameter (RFC 6152, RFC 3030).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Body {
    /// `7BIT`, or BODY was not given.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// RET (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ret {
    /// A report returns the whole message.
    Full,
    /// A report returns the header section only.
    Headers,
}

/// NOTIFY (RFC 3461 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Notify {
    /// `NEVER`.
    Never,
    /// At least one of the three.
    On { success: bool, failure: bool, delay: bool },
}

impl Notify {
    /// The same without SUCCESS; `Never` where nothing else was asked for.
    #[must_use]
    pub fn without_success(self) -> Self {
        match self {
            Self::Never | Self::On { failure: false, delay: false, .. } => Self::Never,
            Self::On { failure, delay, .. } => Self::On { success: false, failure, delay },
        }
    }
}

/// MAIL's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sender {
    pub reverse_path: ReversePath,
    /// SIZE as declared (RFC 1870), bytes.
    pub size: Option<u64>,
    pub body: Body,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    pub ret: Option<Ret>,
    /// ENVID as received, in xtext (RFC 3461 4.4).
    pub envid: Option<String>,
}

/// One RCPT's arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RcptTo {
    /// The forward-path's mailbox, as the client wrote it.
    pub address: Address,
    /// NOTIFY; `None`: not given.
    pub notify: Option<Notify>,
    /// ORCPT as received: `addr-type;xtext` (RFC 3461 4.2).
    pub orcpt: Option<String>,
}

/// Where a message came from, as far as routing and reports need it. It is stored with queued mail, so that a later
/// decision about it has the same arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The receive connector's name. For a report: the one of the message that it is about.
    pub receive_connector: Arc<str>,
    /// The connector's organisation, if this client belongs to it; empty: none.
    pub organization: Arc<str>,
    /// `resolves_first` of the receive connector: the client sends only mail for addresses that it has not found itself
    /// (shared domains).
    pub resolves_first: bool,
    /// Which domains the client may send to.
    pub relay: Relay,
    /// The client's address; `None` for reports that this program generates.
    pub client: Option<IpAddr>,
    /// The client's name in EHLO or HELO.
    pub helo: String,
    pub authenticated: bool,
    /// What chose the receive connector.
    #[serde(default)]
    pub chosen_by: ChosenBy,
    /// The client's TCP port.
    #[serde(default)]
    pub client_port: Option<u16>,
    /// HELO or EHLO; `None` for reports that this program generates.
    #[serde(default)]
    pub spoke: Option<Spoke>,
}

/// Whether a client greeted with HELO or EHLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spoke {
    /// SMTP: HELO.
    Smtp,
    /// ESMTP: EHLO.
    Esmtp,
}

/// How a client's receive connector was chosen among those of its listener.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ChosenBy {
    /// By the client's address.
    #[default]
    Network,
    /// By this name in the client's verified certificate.
    Certificate(String),
}

impl Origin {
    /// The origin of reports that this program generates (DESIGN section 6, rule 6).
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

    /// The origin of a report about a message from `about`. It keeps that message's receive connector, organisation,
    /// and whether its client authenticated.
    #[must_use]
    pub fn report_about(about: &Self) -> Self {
        Self {
            receive_connector: about.receive_connector.clone(),
            organization: about.organization.clone(),
            authenticated: about.authenticated,
            ..Self::report()
        }
    }

    /// Whether it is a report about a stranger's message. Reports stored in spool format 2 do not say so; for those the
    /// answer is no.
    #[must_use]
    pub fn is_strangers_report(&self) -> bool {
        self.relay == Relay::Report && !self.receive_connector.is_empty() && self.shown().is_stranger()
    }

    /// Whether it comes from a [stranger](Shown::is_stranger). Reports that this program generates do not.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.relay != Relay::Report && self.shown().is_stranger()
    }

    /// Whether its client is known or a stranger. Reports that this program generates count as known.
    #[must_use]
    pub fn whose(&self) -> Whose {
        if self.is_stranger() { Whose::Stranger } else { Whose::Known }
    }

    fn shown(&self) -> Shown<'_> {
        Shown { organization: &self.organization, authenticated: self.authenticated }
    }
}

/// What decides whether a client is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The organisation of the client, or of its message; empty: none.
    pub organization: &'a str,
    pub authenticated: bool,
}

impl Shown<'_> {
    /// Whether it is a stranger (DESIGN section 3): of no organisation, and not authenticated.
    ///
    /// A client belongs to an organisation if it was given a receive connector with one, by its network or by a name in
    /// its certificate. A name that a provider shares with all its customers, or a connector with `tenant`, does not
    /// prove that: the client is a stranger until a header section names the tenant, and then that message is not a
    /// stranger's. Connection slots are given out before any header section; for them a client that may send an
    /// organisation's messages counts as known (`Client::whose`). That is the only difference.
    ///
    /// Further exemptions from limits (partners with `relay = "anywhere"`, filters with narrow networks) depend on the
    /// connector, not on this.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.organization.is_empty() && !self.authenticated
    }
}

/// Whether a client, or a message, is a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// It belongs to an organisation, or the client authenticated.
    Known,
    Stranger,
}

impl From<Shown<'_>> for Whose {
    fn from(shown: Shown<'_>) -> Self {
        if shown.is_stranger() { Self::Stranger } else { Self::Known }
    }
}

/// Which domains a client may send to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relay {
    AcceptedDomains,
    /// Any domain that an address space covers.
    Anywhere,
    /// Of reports that this program generates: any domain, and the recipient's MX where no address space covers it.
    Report,
}
