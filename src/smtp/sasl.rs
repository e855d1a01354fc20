//! SMTP AUTH (RFC 4954) with PLAIN (RFC 4616) and LOGIN: reads name and password from a client's lines.
//!
//! `command` parses the command, `server` runs the exchange line by line; `session` has the password checked. `Debug`
//! output never contains a password.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reply::{self, Reply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616: name and password in one response.
    Plain,
    /// Name and password in two responses, as Outlook and Exchange send them.
    Login,
}

impl Mechanism {
    /// The mechanisms as the reply to EHLO lists them.
    pub const OFFERED: &str = "PLAIN LOGIN";

    /// The mechanism of this name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "PLAIN" => Some(Self::Plain),
            "LOGIN" => Some(Self::Login),
            _ => None,
        }
    }
}

/// A client's response as received, in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Response(String);

impl Response {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The decoded text. RFC 4954 4: `=` alone is an empty initial response, `*` alone cancels.
    fn text(&self) -> Result<String, Reply> {
        match self.0.as_str() {
            "*" => Err(reply::AUTH_CANCELLED),
            "=" => Ok(String::new()),
            base64 => {
                let octets = STANDARD.decode(base64).map_err(|_| reply::BAD_AUTH_LINE)?;
                String::from_utf8(octets).map_err(|_| reply::BAD_AUTH_LINE)
            }
        }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Response(..)")
    }
}

/// A client's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// An address or a login name.
    pub name: String,
    /// May be empty.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Which response is expected next.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    Plain,
    LoginName,
    /// LOGIN's password, for this name.
    LoginPassword(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum SaslStep {
    /// Another response is needed.
    Challenge(Exchange),
    /// The exchange is complete.
    Whole(Credentials),
}

impl Exchange {
    /// The first step of a mechanism's exchange.
    #[must_use]
    pub fn of(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        }
    }

    /// The 334 reply that asks for the response: empty, `Username:` or `Password:`.
    #[must_use]
    pub fn challenge(&self) -> Reply {
        Reply::bare(
            334,
            match self {
                Self::Plain => "".into(),
                Self::LoginName => "VXNlcm5hbWU6".into(),
                Self::LoginPassword(_) => "UGFzc3dvcmQ6".into(),
            },
        )
    }

    /// Takes a response.
    ///
    /// # Errors
    /// The reply for the client; the exchange has failed.
    pub fn take(self, response: &Response) -> Result<SaslStep, Reply> {
        let text = response.text()?;
        match self {
            Self::Plain => plain(&text).map(SaslStep::Whole),
            Self::LoginName => Ok(SaslStep::Challenge(Self::LoginPassword(text))),
            Self::LoginPassword(name) => Ok(SaslStep::Whole(Credentials { name, password: text })),
        }
    }
}

/// RFC 4616 2: `[authzid] NUL authcid NUL passwd`. An authzid other than the authcid is refused.
fn plain(text: &str) -> Result<Credentials, Reply> {
    let parts: Vec<&str> = text.split('\0').collect();
    match parts.as_slice() {
        [_, "", _] => Err(reply::BAD_AUTH_LINE),
        [acts_for, name, password] if acts_for.is_empty() || acts_for == name => {
            Ok(Credentials { name: (*name).to_owned(), password: (*password).to_owned() })
        }
        [_, _, _] => Err(reply::AUTH_FAILED),
        _ => Err(reply::BAD_AUTH_LINE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(name: &str, password: &str) -> Result<SaslStep, Reply> {
        Ok(SaslStep::Whole(Credentials { name: name.into(), password: password.into() }))
    }

    #[test]
    fn plain_has_name_and_password_and_acts_for_nobody_else() {
        for (text, expected) in [
            ("\0alice\0secret", whole("alice", "secret")),
            ("alice\0alice\0secret", whole("alice", "secret")),
            ("\0rené@a.b\0pä ss", whole("rené@a.b", "pä ss")),
            ("\0alice\0", whole("alice", "")),
            ("bob\0alice\0secret", Err(reply::AUTH_FAILED)),
            ("\0\0secret", Err(reply::BAD_AUTH_LINE)),
            ("alice\0secret", Err(reply::BAD_AUTH_LINE)),
            ("\0alice\0sec\0ret", Err(reply::BAD_AUTH_LINE)),
            ("", Err(reply::BAD_AUTH_LINE)),
        ] {
            let response = Response::new(&STANDARD.encode(text));
            assert_eq!(Exchange::Plain.take(&response), expected, "{text:?}");
        }
    }

    #[test]
    fn login_asks_twice() {
        let name = Exchange::LoginName.take(&Response::new("YWxpY2U=")).unwrap();
        let SaslStep::Challenge(exchange) = name else { panic!("{name:?}") };
        assert_eq!(exchange.challenge().text, "UGFzc3dvcmQ6");
        assert_eq!(exchange.take(&Response::new("c2VjcmV0")), whole("alice", "secret"));
    }

    #[test]
    fn what_is_no_response_ends_the_exchange() {
        for (line, told) in [
            ("*", reply::AUTH_CANCELLED),
            ("=", reply::BAD_AUTH_LINE),
            ("a", reply::BAD_AUTH_LINE),
            ("YWxpY2U", reply::BAD_AUTH_LINE),
            ("/w==", reply::BAD_AUTH_LINE),
            ("é", reply::BAD_AUTH_LINE),
        ] {
            assert_eq!(Exchange::Plain.take(&Response::new(line)), Err(told), "{line}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let credentials = Credentials { name: "alice".into(), password: "secret".into() };
        let printed = format!("{credentials:?} {:?}", Response::new("c2VjcmV0"));
        assert!(printed.contains("alice") && !printed.contains("ecret") && !printed.contains("c2V"), "{printed}");
    }
}
