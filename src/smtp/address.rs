//! Mailbox addresses and reverse-paths (RFC 5321 4.1.2, RFC 6531 3.3), parsed when they enter the program.
//!
//! An [`Address`] keeps the text that the sender wrote, which goes on the wire, and a key, by which two addresses are
//! compared: the local part without needless quotes, in lower case and NFC, and the domain as A-labels.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::domain::{Domain, DomainError};

/// A mailbox: `local-part@domain`. Equality and hashing use [`Address::key`]. Cloning is cheap (a reference count): one
/// decision clones an address several times.
///
/// ```
/// use fingerpost::smtp::address::Address;
///
/// let address = Address::parse("Alice@Bücher.example")?;
/// assert_eq!(address.as_str(), "Alice@Bücher.example"); // goes on the wire
/// assert_eq!(address.key(), "alice@xn--bcher-kva.example"); // is compared
/// assert_eq!(address.domain().as_str(), "xn--bcher-kva.example");
/// assert_eq!(address, Address::parse("\"alice\"@xn--bcher-kva.example")?);
/// assert!(Address::parse("alice").is_err());
/// # Ok::<(), fingerpost::smtp::address::AddressError>(())
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    written: Box<str>,
    /// Octet offset of the `@` in `written`.
    at: usize,
    domain: Domain,
    /// `None`: the key is equal to `written`.
    key: Option<Box<str>>,
}

/// The longest local part that is accepted, in octets. RFC 5321 4.5.3.1.1 asks every server to take 64, and more where
/// it can: bounce addresses of mailing services and Exchange's encapsulated addresses (IMCEAEX) are longer, and other
/// mail systems accept them.
const MAX_LOCAL: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@` outside quotes.
    #[error("there is no domain")]
    NoDomain,
    /// The local part is empty, with or without quotes.
    #[error("the local part is empty")]
    EmptyLocal,
    /// The local part is longer than `MAX_LOCAL`.
    #[error("the local part is longer than {MAX_LOCAL} octets")]
    LongLocal,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("the local part is neither a dot-string nor a quoted string")]
    LocalForm,
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl Address {
    /// Reads `local@domain`, without angle brackets or a source route.
    ///
    /// # Errors
    /// An [`AddressError`] that says which part is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = local_end(text)?;
        let (local, rest) = text.split_at(at);
        if local.len() > MAX_LOCAL {
            return Err(AddressError::LongLocal);
        }
        let domain = Domain::parse(&rest[1..])?;
        let plain = plain_local(local)?;
        let key = [&*fold(&plain), "@", domain.as_str()].concat();
        let key = (key != text).then(|| key.into());
        Ok(Self(Arc::new(Parts { written: text.into(), at, domain, key })))
    }

    /// As the sender wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.written
    }

    /// The local part as the sender wrote it, quotes included.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.0.written[..self.0.at]
    }

    /// The local part as it is compared: without needless quotes, lower case, NFC.
    #[must_use]
    pub fn local_key(&self) -> &str {
        let key = self.key();
        &key[..key.len() - self.domain().as_str().len() - 1]
    }

    /// The domain in its comparable form.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// What two addresses are compared by.
    #[must_use]
    pub fn key(&self) -> &str {
        self.0.key.as_deref().unwrap_or(&self.0.written)
    }

    /// Whether it can be sent without SMTPUTF8 (RFC 6531). A domain written as U-labels counts as not ASCII.
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.0.written.is_ascii()
    }

    /// `postmaster@domain` (RFC 5321 4.5.1).
    #[must_use]
    pub fn postmaster(domain: &Domain) -> Self {
        let (written, at) = (format!("postmaster@{domain}").into(), "postmaster".len());
        Self(Arc::new(Parts { written, at, domain: domain.clone(), key: None }))
    }

    /// Whether the local part is `postmaster`, in any case (RFC 5321 4.5.1).
    #[must_use]
    pub fn is_postmaster(&self) -> bool {
        self.local_key() == "postmaster"
    }
}

/// Offset of the `@` that ends the local part; an `@` within quotes does not count.
pub(super) fn local_end(text: &str) -> Result<usize, AddressError> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '@' if !quoted => {
                return if at == 0 { Err(AddressError::EmptyLocal) } else { Ok(at) };
            }
            _ => {}
        }
    }
    Err(AddressError::NoDomain)
}

/// The local part as it is compared: unchanged for a dot-string, the unescaped content for a quoted string that did not
/// need its quotes, else the quoted string in its shortest form.
fn plain_local(local: &str) -> Result<String, AddressError> {
    if is_dot_string(local) {
        return Ok(local.to_owned());
    }
    let inner = local.strip_prefix('"').and_then(|l| l.strip_suffix('"'));
    let content = unescape(inner.ok_or(AddressError::LocalForm)?)?;
    if content.is_empty() {
        return Err(AddressError::EmptyLocal);
    }
    if is_dot_string(&content) {
        return Ok(content);
    }
    let escaped = content.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{escaped}\""))
}

/// The content of a quoted string (RFC 5321 4.1.2: qtextSMTP and quoted-pairSMTP; RFC 6531 adds UTF-8).
fn unescape(inner: &str) -> Result<String, AddressError> {
    let mut content = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '\\' => chars.next().ok_or(AddressError::LocalForm)?,
            '"' => return Err(AddressError::LocalForm),
            c => c,
        };
        if c.is_control() {
            return Err(AddressError::LocalForm);
        }
        content.push(c);
    }
    Ok(content)
}

pub(super) fn is_dot_string(text: &str) -> bool {
    !text.is_empty() && text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 3.2.3 atext, and RFC 6531's UTF-8 without control characters.
pub(super) fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn fold(local: &str) -> String {
    if local.is_ascii() {
        return local.to_ascii_lowercase();
    }
    local.to_lowercase().nfc().collect()
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.key() == other.key()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// MAIL's reverse-path: where delivery failures are reported to, `<>` or an address (RFC 5321 4.5.5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReversePath {
    /// `<>`: reports and other mail that must not be answered.
    Null,
    Address(Address),
}

impl ReversePath {
    /// The address's key; empty for `<>`.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Address(address) => address.key(),
        }
    }

    /// The address as written; empty for `<>`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Address(address) => address.as_str(),
        }
    }

    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_key() {
        for (written, key) in [
            ("Alice@Contoso.COM", "alice@contoso.com"),
            ("\"alice\"@contoso.com", "alice@contoso.com"),
            ("\"al\\ice\"@contoso.com", "alice@contoso.com"),
            ("\"a b\"@contoso.com", "\"a b\"@contoso.com"),
            ("\"a@b\"@contoso.com", "\"a@b\"@contoso.com"),
            ("René@contoso.com", "rené@contoso.com"),
            ("rene\u{301}@contoso.com", "rené@contoso.com"),
            ("a%b!c@contoso.com", "a%b!c@contoso.com"),
            ("u@Bücher.example", "u@xn--bcher-kva.example"),
            ("u@[IPv6:::1]", "u@[ipv6:::1]"),
            (&format!("{}@a.b", "x".repeat(255)), &format!("{}@a.b", "x".repeat(255))),
        ] {
            let address = Address::parse(written).unwrap();
            assert_eq!(address.key(), key, "{written}");
            assert_eq!(address.as_str(), written);
        }
        assert_ne!(Address::parse("rené@a.b").unwrap(), Address::parse("rene@a.b").unwrap());
    }

    #[test]
    fn wrong_addresses_say_why() {
        for (written, error) in [
            ("@contoso.com", AddressError::EmptyLocal),
            ("\"\"@contoso.com", AddressError::EmptyLocal),
            ("alice", AddressError::NoDomain),
            ("\"a@contoso.com", AddressError::NoDomain),
            ("a..b@contoso.com", AddressError::LocalForm),
            (".a@contoso.com", AddressError::LocalForm),
            ("a b@contoso.com", AddressError::LocalForm),
            ("a\"b\"@contoso.com", AddressError::LocalForm),
            ("alice@", AddressError::Domain(DomainError::Empty)),
        ] {
            assert_eq!(Address::parse(written).unwrap_err(), error, "{written}");
        }
        assert_eq!(Address::parse(&format!("{}@a.b", "x".repeat(256))).unwrap_err(), AddressError::LongLocal);
    }

    #[test]
    fn postmaster_is_known_in_any_case() {
        assert!(Address::parse("PostMaster@a.b").unwrap().is_postmaster());
        assert!(!Address::parse("postmaster2@a.b").unwrap().is_postmaster());
    }
}
