//! A directory entry as far as mail is concerned: the addresses that it claims, and its kind and target. Pure.
//!
//! `profile` makes it from an entry's attributes; [`lookup`] answers from such entries, and a snapshot stores them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::lookup::{Kind, Lookup, Recipient};
use crate::smtp::address::Address;

/// An entry, interpreted once for all its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The directory's own identifier (`objectGUID`, `entryUUID`), hashed; without one, its distinguished name in lower
    /// case.
    pub id: Id,
    pub dn: String,
    /// Its addresses, without duplicates.
    pub claims: Vec<Claim>,
    /// Its kind and target; or why they are unclear, for operators.
    pub meaning: Result<Meaning, String>,
}

/// An entry's identifier in eight octets: FNV-1a, stable because files contain it. Among a million entries a collision
/// has a probability of one in 37 million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id(pub u64);

impl Id {
    /// The id for a directory's identifier.
    #[must_use]
    pub fn of(written: &[u8]) -> Self {
        let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(written.iter().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// [`Address::key`], or a name without `@` that a profile uses.
    pub key: String,
    pub strength: Strength,
}

/// Whether a claim counts always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strength {
    /// It does.
    Certain,
    /// Only if no entry has a certain claim (`mail` in Active Directory).
    Fallback,
}

/// The kind and target of an entry, for mail to any of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    pub kind: Kind,
    pub target: Option<Address>,
    /// In lower case.
    pub mail_server: Option<String>,
    /// The rule that determined the kind, for operators.
    pub rule: String,
    /// The contradiction between its recipient type and its attributes, for the log; the type was used.
    pub at_odds: Option<String>,
}

/// The answer of these entries for the address with this key.
#[must_use]
pub fn lookup(entries: &[Known], key: &str) -> Lookup {
    match owners(entries, key).as_slice() {
        [] => Lookup::NotFound,
        [owner] => owner.answer(),
        owners => ambiguous(owners.iter().map(|owner| owner.dn.clone()).collect()),
    }
}

/// The answer if several entries own an address.
#[must_use]
pub fn ambiguous(mut names: Vec<String>) -> Lookup {
    names.sort();
    Lookup::Ambiguous(names.into())
}

/// The entries that own the address with this key.
#[must_use]
pub fn owners<'a>(entries: &'a [Known], key: &str) -> Vec<&'a Known> {
    let claiming = |strength| {
        let claims =
            move |known: &&Known| known.claims.iter().any(|claim| claim.strength == strength && claim.key == key);
        entries.iter().filter(claims).collect::<Vec<_>>()
    };
    owning(claiming(Strength::Certain), claiming(Strength::Fallback), |known| known.is_somebody())
}

/// The owners of an address among entries with a certain claim and with a fallback. An entry without mailbox and target
/// counts as not found and outvotes no other; if all are such, one of them is returned.
pub fn owning<T>(certain: Vec<T>, fallback: Vec<T>, is_somebody: impl Fn(&T) -> bool) -> Vec<T> {
    let (certain, nobody): (Vec<T>, Vec<T>) = certain.into_iter().partition(&is_somebody);
    if !certain.is_empty() {
        return certain;
    }
    let (fallback, neither): (Vec<T>, Vec<T>) = fallback.into_iter().partition(&is_somebody);
    if fallback.is_empty() { nobody.into_iter().chain(neither).take(1).collect() } else { fallback }
}

impl Known {
    /// The answer about an address that it owns.
    #[must_use]
    pub fn answer(&self) -> Lookup {
        match &self.meaning {
            Err(cause) => Lookup::Unavailable(format!("`{}`: {cause}", self.dn).into()),
            Ok(meaning) => Lookup::Found(Arc::new(Recipient {
                kind: meaning.kind,
                target: meaning.target.clone(),
                mail_server: meaning.mail_server.as_deref().map(Arc::from),
                send_connector: None,
                entry: self.dn.as_str().into(),
                rule: meaning.rule.as_str().into(),
            })),
        }
    }

    /// Whether it is, or may be, more than an entry without mailbox and target.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        self.meaning.as_ref().map_or(true, |meaning| meaning.kind != Kind::NoMailbox)
    }

    /// The relative name, and the rest with its comma (RFC 4514 2): `CN=Ann` and `,OU=Staff,DC=contoso`.
    #[must_use]
    pub fn relative_name(&self) -> (&str, &str) {
        let mut escaped = false;
        let end = self.dn.bytes().position(|octet| {
            let ends = octet == b',' && !escaped;
            escaped = octet == b'\\' && !escaped;
            ends
        });
        self.dn.split_at(end.unwrap_or(self.dn.len()))
    }
}

/// Adds a claim; of two with the same key the stronger one is kept.
pub fn claim(claims: &mut Vec<Claim>, key: &str, strength: Strength) {
    match claims.iter_mut().find(|claim| claim.key == key) {
        Some(claim) => claim.strength = claim.strength.min(strength),
        None => claims.push(Claim { key: key.to_owned(), strength }),
    }
}

#[cfg(test)]
pub(in crate::directory) mod tests {
    use super::*;

    pub(in crate::directory) fn mailbox() -> Meaning {
        Meaning { kind: Kind::Mailbox, target: None, mail_server: None, rule: "x".to_owned(), at_odds: None }
    }

    #[test]
    fn names_are_divided_at_the_first_comma_that_divides() {
        for (dn, name, parent) in [
            ("CN=Ann,OU=Staff,DC=contoso", "CN=Ann", ",OU=Staff,DC=contoso"),
            ("CN=Smith\\, Ann,DC=contoso", "CN=Smith\\, Ann", ",DC=contoso"),
            ("CN=back\\\\,DC=contoso", "CN=back\\\\", ",DC=contoso"),
            ("DC=contoso", "DC=contoso", ""),
            ("", "", ""),
        ] {
            let known = Known { id: Id::of(b"a"), dn: dn.to_owned(), claims: Vec::new(), meaning: Err(String::new()) };
            assert_eq!(known.relative_name(), (name, parent));
        }
    }

    #[test]
    fn who_is_nobody_outvotes_nobody() {
        let of = |owners: &[&str]| owners.iter().map(|owner| (*owner).to_owned()).collect::<Vec<_>>();
        for (certain, fallback, expected) in [
            (&["a"][..], &["b"][..], &["a"][..]),
            (&["a", "b"], &[], &["a", "b"]),
            (&["a", "-left"], &["b"], &["a"]),
            (&["-left"], &["b"], &["b"]),
            (&["-left"], &["b", "c", "-gone"], &["b", "c"]),
            (&["-left", "-gone"], &[], &["-left"]),
            (&["-left"], &["-gone"], &["-left"]),
            (&[], &["-gone"], &["-gone"]),
            (&[], &[], &[]),
        ] {
            let owners = owning(of(certain), of(fallback), |owner| !owner.starts_with('-'));
            assert_eq!(owners, of(expected), "{certain:?} {fallback:?}");
        }
    }

    #[test]
    fn ids_are_those_of_the_published_function() {
        // draft-eastlake-fnv, appendix C: "", "a", "foobar".
        for (written, id) in
            [(&b""[..], 0xcbf2_9ce4_8422_2325), (b"a", 0xaf63_dc4c_8601_ec8c), (b"foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(Id::of(written), Id(id));
        }
    }

    #[test]
    fn the_stronger_of_two_claims_stays() {
        let mut claims = Vec::new();
        claim(&mut claims, "a@b.c", Strength::Fallback);
        claim(&mut claims, "a@b.c", Strength::Certain);
        claim(&mut claims, "a@b.c", Strength::Fallback);
        assert_eq!(claims, [Claim { key: "a@b.c".to_owned(), strength: Strength::Certain }]);
    }
}
