//! The signed loop header `Fingerpost-Route` (DESIGN section 6, rule 3).
//!
//! Delivery signs one for each transaction; `routing::loops` verifies what comes back. The field's value is `v=1;
//! i=INSTALLATION; via=CONNECTOR; t=UNIX; r=TAG,TAG; m=NAMES:DIGEST; s=MAC`, in this order and nothing else. Names are
//! percent-encoded, so no value has white space: any white space is folding, and the MAC is computed over the value up
//! to `;s=` without it. Tags and digests are base64url.
//!
//! ```
//! use fingerpost::message::{header::examine, stamp::{self, Ignored, Key, NewStamp}};
//! use fingerpost::{smtp::address::Address, time::UnixTime};
//!
//! let keys = [Key::new([7; 32])];
//! let (alice, bob) = (Address::parse("alice@contoso.com")?, Address::parse("bob@contoso.com")?);
//! let message = "Message-ID: <1@a.example>\r\nFrom: a@a.example\r\n";
//! let identity = &examine(message.as_bytes()).identity;
//! let (via, time, recipients) = ("to-secondary", UnixTime(1_800_000_000), &[&alice][..]);
//! let field = stamp::sign(&keys[0], &NewStamp { installation: "mx", via, time, recipients, identity });
//!
//! let back = examine(format!("{field}{message}").as_bytes());
//! let stamp = stamp::verify(&keys, "mx", &back.values, &back.stamps[0]).expect("our own stamp");
//! assert_eq!((&*stamp.via, stamp.time), (via, time));
//! assert!(stamp.names(&keys, &alice) && !stamp.names(&keys, &bob));
//!
//! let other = examine(format!("{field}Message-ID: <2@a.example>\r\n").as_bytes());
//! assert_eq!(stamp::verify(&keys, "mx", &other.values, &other.stamps[0]), Err(Ignored::Identity));
//! # Ok::<(), fingerpost::smtp::address::AddressError>(())
//! ```

mod text;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::header::{Identity, MadeFor, Values};
use crate::smtp::address::Address;
use crate::time::UnixTime;
use text::{decoded, encoded, folded};

#[derive(Clone)]
pub struct Key {
    octets: [u8; 32],
    hmac: hmac::Key,
}

impl Key {
    #[must_use]
    pub fn new(octets: [u8; 32]) -> Self {
        Self { octets, hmac: hmac::Key::new(HMAC_SHA256, &octets) }
    }

    /// The octets that the key's file holds.
    #[must_use]
    pub fn octets(&self) -> &[u8; 32] {
        &self.octets
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// The content of a new stamp.
#[derive(Debug, Clone)]
pub struct NewStamp<'a> {
    /// `i=`: this installation's name.
    pub installation: &'a str,
    /// `via=`: the send connector's name.
    pub via: &'a str,
    /// `t=`: when it is signed.
    pub time: UnixTime,
    /// `r=`: the recipients of this transaction, as received and, if different, as sent.
    pub recipients: &'a [&'a Address],
    /// `m=`: which message it is for.
    pub identity: &'a Identity,
}

/// The content of a stamp. Those that are genuine and belong to their message are stored with queued mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The send connector that the message took.
    pub via: String,
    pub time: UnixTime,
    /// The recipients, as tags.
    pub tags: Vec<[u8; 8]>,
}

/// A stamp with a valid MAC, for whichever message it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    pub stamp: Stamp,
    /// Its MAC; a field that was copied has the same.
    pub mac: [u8; 32],
    made_for: MadeFor,
}

/// Why a stamp is ignored. It is only counted: no message is refused for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It cannot be parsed.
    Form,
    /// Another installation made it.
    Installation,
    /// No key of ours gives this MAC.
    Mac,
    /// It was made for another message. It still counts as a pass of the recipients that it names (rule 5), and proves
    /// nothing else.
    Identity,
}

impl Ignored {
    /// The label of `stamps_ignored_total{reason}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Installation => "installation",
            Self::Mac => "mac",
            Self::Identity => "identity",
        }
    }
}

/// Signs a stamp and returns the whole field, folded, with its final CRLF.
#[must_use]
pub fn sign(key: &Key, stamp: &NewStamp<'_>) -> String {
    let mut tags: Vec<String> = Vec::with_capacity(stamp.recipients.len());
    for address in stamp.recipients {
        let tag = BASE64.encode(tag(key, stamp.time, address));
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let made_for = MadeFor::from(stamp.identity);
    let names = [(made_for.message_id, "message-id"), (made_for.date, "date"), (made_for.from, "from")];
    let names: Vec<&str> = names.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    let mut value = [
        "v=1;i=",
        &encoded(stamp.installation),
        ";via=",
        &encoded(stamp.via),
        ";t=",
        &stamp.time.0.to_string(),
        ";r=",
        &tags.join(","),
        ";m=",
        &names.join(","),
        ":",
        &BASE64.encode(made_for.digest),
    ]
    .concat();
    let mac = signature(key, &value);
    value.push_str(";s=");
    BASE64.encode_string(mac, &mut value);
    folded(&value)
}

/// Verifies the unfolded value of a field, and that it was made for the message with these values.
///
/// # Errors
/// Why the stamp is ignored.
pub fn verify(keys: &[Key], installation: &str, message: &Values, value: &str) -> Result<Stamp, Ignored> {
    prove(keys, installation, value)?.fitting(message)
}

/// Verifies the unfolded value of a field, for whichever message it was made.
///
/// # Errors
/// Any of [`Ignored`] but [`Ignored::Identity`].
pub fn prove(keys: &[Key], installation: &str, value: &str) -> Result<Proven, Ignored> {
    let value: String = value.split_ascii_whitespace().collect();
    let written = UnverifiedStamp::read(&value).ok_or(Ignored::Form)?;
    if written.installation != installation {
        return Err(Ignored::Installation);
    }
    let made_by = |key: &Key| {
        let mac = signature(key, written.signed);
        aws_lc_rs::constant_time::verify_slices_are_equal(&mac, &written.mac).is_ok()
    };
    if !keys.iter().any(made_by) {
        return Err(Ignored::Mac);
    }
    Ok(Proven { stamp: written.stamp, mac: written.mac, made_for: written.made_for })
}

impl Proven {
    /// The stamp, if it was made for this message.
    ///
    /// # Errors
    /// [`Ignored::Identity`]: it was made for another message, or this one has been changed since.
    pub fn fitting(self, message: &Values) -> Result<Stamp, Ignored> {
        if message.fit(&self.made_for) { Ok(self.stamp) } else { Err(Ignored::Identity) }
    }
}

impl Stamp {
    /// Whether it names this recipient under any of the keys.
    #[must_use]
    pub fn names(&self, keys: &[Key], address: &Address) -> bool {
        keys.iter().any(|key| self.tags.contains(&tag(key, self.time, address)))
    }
}

/// A stamp that has been parsed and not verified.
struct UnverifiedStamp<'a> {
    signed: &'a str,
    mac: [u8; 32],
    installation: String,
    made_for: MadeFor,
    stamp: Stamp,
}

impl<'a> UnverifiedStamp<'a> {
    fn read(value: &'a str) -> Option<Self> {
        let (signed, mac) = value.rsplit_once(";s=")?;
        let mut parts = signed.split(';');
        let mut next = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
        (next("v")? == "1").then_some(())?;
        let installation = decoded(next("i")?)?;
        let via = decoded(next("via")?)?;
        let time = UnixTime(next("t")?.parse().ok()?);
        let tags = next("r")?.split(',').map(exactly).collect::<Option<_>>()?;
        let made_for = read_made_for(next("m")?)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self { signed, mac: exactly(mac)?, installation, made_for, stamp: Stamp { via, time, tags } })
    }
}

fn read_made_for(text: &str) -> Option<MadeFor> {
    let (names, digest) = text.split_once(':')?;
    let mut made_for = MadeFor { message_id: false, date: false, from: false, digest: exactly(digest)? };
    for name in names.split(',').filter(|name| !name.is_empty()) {
        match name {
            "message-id" => made_for.message_id = true,
            "date" => made_for.date = true,
            "from" => made_for.from = true,
            _ => return None,
        }
    }
    Some(made_for)
}

/// Decodes base64url of exactly this many bytes.
fn exactly<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// The first 8 bytes of HMAC(key, "tag", time, address): the word "tag" keeps tags and MACs of stamps apart.
fn tag(key: &Key, time: UnixTime, address: &Address) -> [u8; 8] {
    let mut context = hmac::Context::with_key(&key.hmac);
    context.update(b"fingerpost tag\0");
    context.update(&time.0.to_be_bytes());
    context.update(address.key().as_bytes());
    let mut first = [0; 8];
    first.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
    first
}

fn signature(key: &Key, signed: &str) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&key.hmac);
    context.update(b"fingerpost stamp\0");
    context.update(signed.as_bytes());
    let mut mac = [0; 32];
    mac.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::header::examine;

    const KEY: [u8; 32] = [7; 32];

    fn keys<const N: usize>(octets: [[u8; 32]; N]) -> [Key; N] {
        octets.map(Key::new)
    }
    const MAIL: &str = "Message-ID: <1@a>\r\nDate: d\r\nFrom: a@b\r\n";

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn signed(installation: &str, via: &str, recipients: &[&Address]) -> String {
        let identity = &examine(MAIL.as_bytes()).identity;
        let time = UnixTime(1_795_235_940);
        sign(&Key::new(KEY), &NewStamp { installation, via, time, recipients, identity })
    }

    /// Verifies a stamp on a message that comes back with it.
    fn back(field: &str, mail: &str, keys: &[Key]) -> Result<Stamp, Ignored> {
        let facts = examine(format!("{field}{mail}").as_bytes());
        assert_eq!(facts.stamps.len(), 1, "{field}");
        verify(keys, "mx.contoso.com", &facts.values, &facts.stamps[0])
    }

    #[test]
    fn a_stamp_names_its_recipients_and_nobody_else() {
        let (alice, target) = (address("Alice@contoso.com"), address("alice@b.example"));
        let field = signed("mx.contoso.com", "to secondary; ü", &[&alice, &target, &alice]);
        let stamp = back(&field, MAIL, &keys([[1; 32], KEY])).unwrap();
        assert_eq!((stamp.via.as_str(), stamp.time), ("to secondary; ü", UnixTime(1_795_235_940)));
        assert_eq!(stamp.tags.len(), 2);
        assert!(
            stamp.names(&keys([[1; 32], KEY]), &address("aLICE@Contoso.com")) && stamp.names(&keys([KEY]), &target)
        );
        assert!(!stamp.names(&keys([KEY]), &address("bob@contoso.com")) && !stamp.names(&keys([[1; 32]]), &alice));
    }

    #[test]
    fn what_proves_nothing_says_why() {
        let alice = address("alice@contoso.com");
        let good = signed("mx.contoso.com", "b", &[&alice]);
        let other_mail = MAIL.replace("<1@a>", "<2@a>");
        let mail_without = MAIL.replace("Date: d\r\n", "");
        for (field, mail, octets, ignored) in [
            (good.clone(), other_mail.as_str(), [KEY], Ignored::Identity),
            (good.clone(), mail_without.as_str(), [KEY], Ignored::Identity),
            (good.clone(), MAIL, [[8; 32]], Ignored::Mac),
            (good.replace("via=b", "via=c"), MAIL, [KEY], Ignored::Mac),
            (good.replace("t=1795", "t=1796"), MAIL, [KEY], Ignored::Mac),
            (good.replace("m=message-id,", "m="), MAIL, [KEY], Ignored::Mac),
            (good.replace("r=", "r=AAAAAAAAAAA,"), MAIL, [KEY], Ignored::Mac),
            (good.replace("i=mx", "i=mz"), MAIL, [KEY], Ignored::Installation),
            (good.replace("v=1", "v=2"), MAIL, [KEY], Ignored::Form),
            (good.replace("t=1795", "x=1; t=1795"), MAIL, [KEY], Ignored::Form),
            (good.replace("s=", "x=1; s="), MAIL, [KEY], Ignored::Form),
            (good.replace("r=", "r=AA,"), MAIL, [KEY], Ignored::Form),
            (good.trim_end().to_owned() + "; x=1\r\n", MAIL, [KEY], Ignored::Form),
            ("Fingerpost-Route: \0\r\n".to_owned(), MAIL, [KEY], Ignored::Form),
            ("Fingerpost-Route: v=1;i=%;via=%zz;t=-1;r=;m=;s=\r\n".to_owned(), MAIL, [KEY], Ignored::Form),
        ] {
            assert_eq!(back(&field, mail, &keys(octets)), Err(ignored), "{field}");
        }
    }

    #[test]
    fn lines_are_short_and_folding_does_not_matter() {
        let recipients: Vec<Address> = (0..100).map(|n| address(&format!("user{n}@contoso.com"))).collect();
        let recipients: Vec<&Address> = recipients.iter().collect();
        let field = signed("mx.contoso.com", &"long ".repeat(300), &recipients);
        assert!(field.lines().all(|line| line.len() < 78), "{field}");
        assert!(field.ends_with("\r\n") && !field.contains("\t\r\n"));
        let stamp = back(&field, MAIL, &keys([KEY])).unwrap();
        assert!(recipients.iter().all(|recipient| stamp.names(&keys([KEY]), recipient)));
        let refolded = field.replace("\r\n\t", "").replace(',', ",\r\n  ");
        assert_eq!(back(&refolded, MAIL, &keys([KEY])), Ok(stamp));
    }

    #[test]
    fn the_form_is_the_one_that_is_documented() {
        let alice = address("alice@contoso.com");
        assert!(
            signed("mx.contoso.com", "b", &[&alice])
                .starts_with("Fingerpost-Route: v=1; i=mx.contoso.com; via=b; t=1795235940; r=")
        );
    }
}
