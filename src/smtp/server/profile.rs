//! What a session is from its beginning, and how the client introduced itself.

use super::AuthState;
use crate::smtp::extension::Dsn;

/// Whether TLS is there, and has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsState {
    /// No certificate, no STARTTLS.
    Unavailable,
    /// STARTTLS is offered.
    Offered,
    /// STARTTLS is offered, and demanded before MAIL.
    Required,
    /// The session is encrypted.
    Active,
}

/// What a session is from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Our name in the greeting and EHLO.
    pub hostname: String,
    /// The SIZE that EHLO offers.
    pub max_message_size: u64,
    pub tls: TlsState,
    pub auth: AuthState,
    /// DSN, as long as the client has not authenticated.
    pub dsn: Dsn,
}

impl Profile {
    /// Whether DSN is offered: once it has authenticated a client is no stranger.
    pub(super) fn dsn(&self) -> Dsn {
        if self.auth == AuthState::Done { Dsn::Offered } else { self.dsn }
    }
}

/// How the client introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// With HELO and this name.
    Helo(String),
    /// With EHLO and this name.
    Ehlo(String),
}

impl Hello {
    /// The name, fit for a Received field.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Helo(name) | Self::Ehlo(name) => name,
        }
    }
}
