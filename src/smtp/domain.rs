//! Mail domains as they are compared: lower case, IDN as A-labels (RFC 5890), literals as written.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A domain name or address literal in its one comparable form.
///
/// Names are lower case with A-labels (`xn--...`) and no final dot; literals keep their brackets
/// (`[192.0.2.1]`, `[ipv6:2001:db8::1]`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Domain(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    #[error("the domain is empty")]
    Empty,
    /// RFC 5321 4.5.3.1.2: 255 octets at most.
    #[error("the domain is longer than 255 octets")]
    TooLong,
    /// A label is empty, longer than 63 octets, or has a character no host name has.
    #[error("`{0}` is not a domain name")]
    Form(String),
    /// Brackets that do not hold an IP address (RFC 5321 4.1.3).
    #[error("`{0}` is not an address literal")]
    Literal(String),
}

impl Domain {
    /// Reads a domain in either IDN form, or an address literal in brackets.
    ///
    /// # Errors
    /// [`DomainError`]: what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if let Some(inner) = text.strip_prefix('[') {
            return Self::literal(text, inner);
        }
        let ascii: Cow<'_, str> = if !text.is_ascii() {
            idna::domain_to_ascii(text).map_err(|_| DomainError::Form(text.to_owned()))?.into()
        } else if text.bytes().any(|b| b.is_ascii_uppercase()) {
            text.to_ascii_lowercase().into()
        } else {
            text.into()
        };
        if ascii.len() > 255 {
            return Err(DomainError::TooLong);
        }
        if !ascii.split('.').all(is_label) {
            return Err(DomainError::Form(text.to_owned()));
        }
        Ok(Self(ascii.into()))
    }

    fn literal(text: &str, inner: &str) -> Result<Self, DomainError> {
        let bad = || DomainError::Literal(text.to_owned());
        let inner = inner.strip_suffix(']').ok_or_else(bad)?.to_ascii_lowercase();
        let valid = match inner.strip_prefix("ipv6:") {
            Some(six) => six.parse::<Ipv6Addr>().is_ok(),
            None => inner.parse::<Ipv4Addr>().is_ok(),
        };
        if !valid {
            return Err(bad());
        }
        Ok(Self(format!("[{inner}]").into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The address of a literal; `None` for a name.
    #[must_use]
    pub fn as_ip(&self) -> Option<IpAddr> {
        let inner = self.0.strip_prefix('[')?.strip_suffix(']')?;
        match inner.strip_prefix("ipv6:") {
            Some(six) => six.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => inner.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    /// The domains above this one, nearest first: `b.c`, `c` for `a.b.c`. None for a literal.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        let text: &str = if self.0.starts_with('[') { "" } else { &self.0 };
        text.match_indices('.').map(move |(at, _)| &text[at + 1..])
    }
}

/// Whether this can be a label of a host name. The underscore is not RFC 1123's, but Windows hosts have it.
fn is_label(label: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(known) && !label.starts_with('-') && !label.ends_with('-')
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Domain {
    type Error = DomainError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl Serialize for Domain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form() {
        for (written, form) in [
            ("Contoso.COM", "contoso.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[IPv6:2001:DB8::1]", "[ipv6:2001:db8::1]"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(Domain::parse(written).unwrap().as_str(), form, "{written}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", ".", "a..b", "-a.b", "a-.b", "a b.c", "a.b.", "[1.2.3]", "[1.2.3.4", "[::1]", "a\0b"] {
            assert!(Domain::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn parents_are_nearest_first() {
        let domain = Domain::parse("a.b.c").unwrap();
        assert_eq!(domain.parents().collect::<Vec<_>>(), ["b.c", "c"]);
        assert_eq!(Domain::parse("[192.0.2.1]").unwrap().parents().count(), 0);
    }
}
