//! An entry as far as mail goes: the addresses that it claims, and what mail to any of them meets. Pure.
//!
//! `profile` makes it of an entry's attributes; [`lookup`] is what entries say of an address, and a snapshot keeps them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::lookup::{Kind, Lookup, Recipient};
use crate::smtp::address::Address;

/// One entry, read and judged once for all its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// What the directory knows it by, whatever it is called: `objectGUID`, `entryUUID`; where there is neither, its
    /// distinguished name in lower case.
    pub id: Id,
    /// Its distinguished name.
    pub dn: String,
    /// Its addresses, each once.
    pub claims: Vec<Claim>,
    /// What it means; else why that is unclear, for people.
    pub meaning: Result<Meaning, String>,
}

/// What a directory knows an entry by, in eight octets: FNV-1a, which files may hold. Of a million entries two have the
/// same with a probability of one in 37 million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id(pub u64);

impl Id {
    /// The id that a directory writes so.
    #[must_use]
    pub fn of(written: &[u8]) -> Self {
        let step = |hash: u64, octet: &u8| (hash ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        Self(written.iter().fold(0xcbf2_9ce4_8422_2325, step))
    }
}

/// An entry's claim to an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// [`Address::key`], or a name without `@` that a profile knows recipients by.
    pub key: String,
    /// How much it counts.
    pub strength: Strength,
}

/// How much a claim counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strength {
    /// Always.
    Certain,
    /// Where no entry has a certain claim (`mail` in Active Directory).
    Fallback,
}

/// What an entry means for mail to any of its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    pub kind: Kind,
    /// Where its mail goes instead.
    pub target: Option<Address>,
    /// The mail server that it names, in lower case.
    pub mail_server: Option<String>,
    /// The rule that decided, for people.
    pub rule: String,
    /// Its recipient type and its attributes contradict each other; the type decided. For the log.
    pub at_odds: Option<String>,
}

/// What entries say of the address with that key.
#[must_use]
pub fn lookup(entries: &[Known], key: &str) -> Lookup {
    match owners(entries, key).as_slice() {
        [] => Lookup::NotFound,
        [owner] => owner.answer(),
        owners => ambiguous(owners.iter().map(|owner| owner.dn.clone()).collect()),
    }
}

/// The answer where several entries own an address.
#[must_use]
pub fn ambiguous(mut names: Vec<String>) -> Lookup {
    names.sort();
    Lookup::Ambiguous(names.into())
}

/// The entries that own the address with that key.
#[must_use]
pub fn owners<'a>(entries: &'a [Known], key: &str) -> Vec<&'a Known> {
    let claiming = |strength| {
        let claims =
            move |known: &&Known| known.claims.iter().any(|claim| claim.strength == strength && claim.key == key);
        entries.iter().filter(claims).collect::<Vec<_>>()
    };
    owning(claiming(Strength::Certain), claiming(Strength::Fallback), |known| known.is_somebody())
}

/// Who owns an address, of those with a certain claim to it and those with a fallback. One without mailbox and target is
/// as good as not found, so it outvotes nobody: where all are, one of them stands for them.
pub fn owning<T>(certain: Vec<T>, fallback: Vec<T>, is_somebody: impl Fn(&T) -> bool) -> Vec<T> {
    let (certain, nobody): (Vec<T>, Vec<T>) = certain.into_iter().partition(&is_somebody);
    if !certain.is_empty() {
        return certain;
    }
    let (fallback, neither): (Vec<T>, Vec<T>) = fallback.into_iter().partition(&is_somebody);
    if fallback.is_empty() { nobody.into_iter().chain(neither).take(1).collect() } else { fallback }
}

impl Known {
    /// What it says of an address that it owns.
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

    /// Whether it is more than an entry without mailbox and target, or may be.
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

/// Puts a claim among others, unless it is there: the stronger one stays.
pub fn claim(claims: &mut Vec<Claim>, key: &str, strength: Strength) {
    match claims.iter_mut().find(|claim| claim.key == key) {
        Some(claim) => claim.strength = claim.strength.min(strength),
        None => claims.push(Claim { key: key.to_owned(), strength }),
    }
}

#[cfg(test)]
pub(in crate::directory) mod tests {
    use super::*;

    /// A plain one.
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
