//! The settings of a session from its beginning, and the client's greeting.

use super::AuthState;
use crate::smtp::extension::Dsn;

/// Whether TLS is available, required or active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsState {
    /// There is no certificate, so STARTTLS is not offered.
    Unavailable,
    Offered,
    /// STARTTLS is offered, and required before MAIL.
    Required,
    Active,
}

/// The settings of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// This server's name in the greeting and the reply to EHLO.
    pub hostname: String,
    /// SIZE in the reply to EHLO, octets.
    pub max_message_size: u64,
    pub tls: TlsState,
    pub auth: AuthState,
    /// DSN for a client that has not authenticated.
    pub dsn: Dsn,
}

impl Profile {
    /// Whether DSN is offered: a client that has authenticated is not a stranger.
    pub(super) fn dsn(&self) -> Dsn {
        if self.auth == AuthState::Done { Dsn::Offered } else { self.dsn }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    Helo(String),
    Ehlo(String),
}

impl Hello {
    /// The client's name; characters that cannot stand in a Received field are `?`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Helo(name) | Self::Ehlo(name) => name,
        }
    }
}
