//! LDAP search filters (RFC 4515), built as a tree so that no character of an address can change their meaning.
//!
//! `profile` builds them, `ldap` sends them. Attribute names are constants or were checked with the configuration, as
//! was an operator's own filter; every value is escaped.

use std::fmt;

/// The filters that recipient lookups need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter<'a> {
    /// `(attribute=value)`: equality with exactly these octets; `*` is no wildcard.
    Equals {
        attribute: &'a str,
        /// Not escaped.
        value: String,
    },
    /// `(attribute=*)`.
    Present(&'a str),
    /// `(attribute>=number)`.
    AtLeast(&'a str, u64),
    /// `(|...)`.
    Any(Vec<Filter<'a>>),
    /// `(&(operator's)(ours))`: the operator's filter, which [`parse`](ldap3::parse_filter) has accepted, and ours.
    Narrowed(&'a str, Box<Filter<'a>>),
}

impl<'a> Filter<'a> {
    /// `(attribute=value)`.
    #[must_use]
    pub fn equals(attribute: &'a str, value: impl Into<String>) -> Self {
        Self::Equals { attribute, value: value.into() }
    }

    /// Its attribute; empty if there are several.
    #[must_use]
    pub fn attribute(&self) -> &str {
        match self {
            Self::Equals { attribute, .. } | Self::Present(attribute) | Self::AtLeast(attribute, _) => attribute,
            Self::Narrowed(_, filter) => filter.attribute(),
            Self::Any(_) => "",
        }
    }
}

impl fmt::Display for Filter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equals { attribute, value } => {
                write!(f, "({attribute}=")?;
                value.bytes().try_for_each(|octet| write_octet(f, octet))?;
                f.write_str(")")
            }
            Self::Present(attribute) => write!(f, "({attribute}=*)"),
            Self::AtLeast(attribute, number) => write!(f, "({attribute}>={number})"),
            Self::Any(filters) => {
                f.write_str("(|")?;
                filters.iter().try_for_each(|filter| filter.fmt(f))?;
                f.write_str(")")
            }
            Self::Narrowed(written, filter) => write!(f, "(&{written}{filter})"),
        }
    }
}

/// RFC 4515 section 3 allows any octet to be written as `\xx`; all but the plainest are.
fn write_octet(f: &mut fmt::Formatter<'_>, octet: u8) -> fmt::Result {
    if octet.is_ascii_alphanumeric() || b"@.-_+:".contains(&octet) {
        write!(f, "{}", char::from(octet))
    } else {
        write!(f, "\\{octet:02x}")
    }
}

#[cfg(test)]
mod tests {
    use ldap3::asn1::{PL, StructureTag, TagClass};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_escaped() {
        for (value, written) in [
            ("alice@contoso.com", "(mail=alice@contoso.com)"),
            ("*", "(mail=\\2a)"),
            ("a)(uid=*", "(mail=a\\29\\28uid\\3d\\2a)"),
            ("a\\2a\0", "(mail=a\\5c2a\\00)"),
            ("rené@a.b", "(mail=ren\\c3\\a9@a.b)"),
        ] {
            assert_eq!(Filter::equals("mail", value).to_string(), written);
        }
        let any = Filter::Any(vec![Filter::equals("mail", "a"), Filter::equals("uid", "b")]);
        assert_eq!(any.to_string(), "(|(mail=a)(uid=b))");
    }

    /// The BER of RFC 4511 4.5.1: `and [0]`, `or [1]`, `equalityMatch [3]`.
    fn expected(filter: &Filter<'_>) -> StructureTag {
        let octets =
            |text: &str| StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(text.as_bytes().to_vec()) };
        let (id, inner) = match filter {
            Filter::Equals { attribute, value } => (3, vec![octets(attribute), octets(value)]),
            Filter::Present(_) => unreachable!("not made here"),
            Filter::Narrowed(_, filter) => {
                (0, vec![expected(&Filter::equals("objectClass", "person")), expected(filter)])
            }
            Filter::AtLeast(attribute, number) => (5, vec![octets(attribute), octets(&number.to_string())]),
            Filter::Any(filters) => (1, filters.iter().map(expected).collect()),
        };
        StructureTag { class: TagClass::Context, id, payload: PL::C(inner) }
    }

    proptest! {
        #[test]
        fn any_text_is_one_value(
            first in any::<String>(),
            second in "[()*\\\\&|!=~<>:\\x00a-f0-9]{0,20}",
            number in any::<u64>(),
        ) {
            let (first, second) = (Filter::equals("proxyAddresses", first), Filter::equals("mail", second));
            let filter = Filter::Any(vec![first, second, Filter::AtLeast("uSNChanged", number)]);
            let filter = Filter::Narrowed("(objectClass=person)", Box::new(filter));
            let parsed = ldap3::parse_filter(filter.to_string()).map(ldap3::asn1::ASNTag::into_structure);
            prop_assert_eq!(parsed, Ok(expected(&filter)));
        }
    }
}
