//! SMTP AUTH (RFC 4954) with PLAIN (RFC 4616) and LOGIN: what a client's lines say of its name and password.
//!
//! `command` reads the command, `server` leads the exchange line by line. Whether name and password are right is
//! asked elsewhere. Nothing here shows a password when it is printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::reply::{self, Reply};

/// The mechanisms that we offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Name and password at once.
    Plain,
    /// One after the other, as Outlook and Exchange have it.
    Login,
}

impl Mechanism {
    /// As EHLO offers them.
    pub const OFFERED: &str = "PLAIN LOGIN";

    /// By its name, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "PLAIN" => Some(Self::Plain),
            "LOGIN" => Some(Self::Login),
            _ => None,
        }
    }
}

/// What a client answers, as it stands on the line: base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Response(String);

impl Response {
    /// From the line.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// RFC 4954 4: `=` alone is an initial response of no octets, `*` alone gives up.
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

/// Who a client says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name; an address or a login name.
    pub name: String,
    /// The password; it may be empty.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    /// PLAIN's only response.
    Plain,
    /// LOGIN's name.
    LoginName,
    /// LOGIN's password, for this name.
    LoginPassword(String),
}

/// What a response leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum SaslStep {
    /// Another one.
    Challenge(Exchange),
    /// Nothing more: that is all.
    Whole(Credentials),
}

impl Exchange {
    /// Its beginning.
    #[must_use]
    pub fn of(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        }
    }

    /// What the client is asked: nothing, `Username:` or `Password:`.
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
    /// What the client is told; the exchange is over.
    pub fn take(self, response: &Response) -> Result<SaslStep, Reply> {
        let text = response.text()?;
        match self {
            Self::Plain => plain(&text).map(SaslStep::Whole),
            Self::LoginName => Ok(SaslStep::Challenge(Self::LoginPassword(text))),
            Self::LoginPassword(name) => Ok(SaslStep::Whole(Credentials { name, password: text })),
        }
    }
}

/// RFC 4616 2: `[authzid] NUL authcid NUL passwd`. Nobody may act for another.
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
