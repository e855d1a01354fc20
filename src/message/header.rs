//! Reads what loop rules, stamps and logs need from a message's header section (RFC 5322 2.2), as bytes.
//!
//! `session` calls [`examine`] and [`strip`]; the loop rules and stamps use the [`Facts`]. Nothing here rewrites, folds
//! or reorders a field; [`strip`] leaves fields out. Whatever the bytes are, the work is linear in their number.

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::authentication_results::claims;
use crate::smtp::domain::Domain;

/// Identifies a message: which of Message-ID, Date and From it has, and digests of their values (unfolded, each run of
/// white space as one space). Stamps carry it; the relay memory uses `id_and_date`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub message_id: bool,
    pub date: bool,
    pub from: bool,
    /// The first 16 bytes of SHA-256 over the three values, each preceded by its length.
    pub digest: [u8; 16],
    /// The same digest over Message-ID and Date alone.
    pub id_and_date: [u8; 16],
}

/// The values that an [`Identity`] digests: of the topmost field of each name, unfolded, trimmed, each run of white
/// space as one space. `None` where there is no such field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values {
    pub message_id: Option<Vec<u8>>,
    pub date: Option<Vec<u8>>,
    pub from: Option<Vec<u8>>,
}

/// What [`examine`] finds in a header section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The number of Received fields.
    pub received: usize,
    /// The values of all Fingerpost-Route fields, unfolded, top first.
    pub stamps: Vec<String>,
    pub identity: Identity,
    /// The values that [`Facts::identity`] digests: with them a stamp can be checked that was made before another
    /// system added a missing field.
    pub values: Values,
    /// The value of Subject, normalised as the others.
    pub subject: Option<Vec<u8>>,
    /// The value of Message-ID, unfolded, for logs and the trace; empty if there is none.
    pub message_id: String,
    pub ascii: bool,
}

/// From, Date and Subject: with a digest of the body they identify a message whose Message-ID changes each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head<'a> {
    pub from: Option<&'a [u8]>,
    pub date: &'a [u8],
    pub subject: Option<&'a [u8]>,
}

/// Octets of a Message-ID that logs, the trace and the queue contain.
const SHOWN: usize = 256;
/// Of those, the octets of the note that it was longer; a field has fewer than 10^9.
const SIGN: usize = "[+999999999 octets]".len();

impl Facts {
    /// The Message-ID for storage: a longer one is cut, and the number of missing octets is appended.
    #[must_use]
    pub fn message_id_shown(&self) -> String {
        if self.message_id.len() <= SHOWN {
            return self.message_id.clone();
        }
        let beginning = &self.message_id[..self.message_id.floor_char_boundary(SHOWN - SIGN)];
        format!("{beginning}[+{} octets]", self.message_id.len() - beginning.len())
    }

    /// From, Date and Subject. `None` without a Date: devices that write no Date send many messages that are alike.
    #[must_use]
    pub fn head(&self) -> Option<Head<'_>> {
        let Values { from, date, .. } = &self.values;
        let date = date.as_deref().filter(|date| !date.is_empty())?;
        Some(Head { from: from.as_deref(), date, subject: self.subject.as_deref() })
    }
}

impl Values {
    #[must_use]
    pub fn identity(&self) -> Identity {
        let [message_id, date, from] = self.all();
        Identity {
            message_id: message_id.is_some(),
            date: date.is_some(),
            from: from.is_some(),
            digest: digest(&[message_id, date, from]),
            id_and_date: digest(&[message_id, date]),
        }
    }

    /// Whether a stamp made for `made_for` belongs to this message: each field that it covers is there and unchanged.
    /// Fields that it does not cover may have been added by systems on the way. A stamp made for a message with none of
    /// the three fields would match every message; it matches only messages that still have none.
    #[must_use]
    pub fn fit(&self, made_for: &MadeFor) -> bool {
        if !(made_for.message_id || made_for.date || made_for.from) {
            return *self == Self::default();
        }
        let mut values = self.all();
        for (value, named) in values.iter_mut().zip([made_for.message_id, made_for.date, made_for.from]) {
            if named && value.is_none() {
                return false;
            }
            *value = value.filter(|_| named);
        }
        digest(&values) == made_for.digest
    }

    fn all(&self) -> [Option<&[u8]>; 3] {
        [self.message_id.as_deref(), self.date.as_deref(), self.from.as_deref()]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeFor {
    pub message_id: bool,
    pub date: bool,
    pub from: bool,
    /// [`Identity::digest`].
    pub digest: [u8; 16],
}

impl From<&Identity> for MadeFor {
    fn from(identity: &Identity) -> Self {
        let Identity { message_id, date, from, digest, .. } = *identity;
        Self { message_id, date, from, digest }
    }
}

/// The first 16 bytes of SHA-256 over the values, each preceded by its length.
fn digest(values: &[Option<&[u8]>]) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    for value in values {
        let bytes = value.unwrap_or_default();
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    let mut first = [0; 16];
    first.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    first
}

/// Reads a header section: everything before the empty line that ends it.
#[must_use]
pub fn examine(section: &[u8]) -> Facts {
    let mut received = 0;
    let mut stamps = Vec::new();
    let mut values = Values::default();
    let mut subject = None;
    for field in fields(section) {
        let Some((name, body)) = split(field) else { continue };
        if name.eq_ignore_ascii_case(b"Received") {
            received += 1;
        } else if name.eq_ignore_ascii_case(b"Fingerpost-Route") {
            stamps.push(String::from_utf8_lossy(&unfolded(body)).into_owned());
        } else if name.eq_ignore_ascii_case(b"Message-ID") {
            values.message_id.get_or_insert_with(|| unfolded(body));
        } else if name.eq_ignore_ascii_case(b"Date") {
            values.date.get_or_insert_with(|| unfolded(body));
        } else if name.eq_ignore_ascii_case(b"From") {
            values.from.get_or_insert_with(|| unfolded(body));
        } else if name.eq_ignore_ascii_case(b"Subject") {
            subject.get_or_insert_with(|| unfolded(body));
        }
    }
    let message_id = String::from_utf8_lossy(values.message_id.as_deref().unwrap_or_default()).into_owned();
    Facts { received, stamps, identity: values.identity(), values, subject, message_id, ascii: section.is_ascii() }
}

/// Returns the section without the fields that `what` names. The other fields keep every byte.
#[must_use]
pub fn strip(section: &[u8], what: &Strip<'_>) -> Vec<u8> {
    let mut kept = Vec::with_capacity(section.len());
    for field in fields(section) {
        let stripped = split(field).is_some_and(|(name, body)| what.takes(name, body));
        if !stripped {
            kept.extend_from_slice(field);
        }
    }
    kept
}

/// The bodies of all fields of this name, top first: unfolded, trimmed, each run of white space as one space.
pub fn values<'a>(section: &'a [u8], name: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
    let named = move |field| split(field).filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
    fields(section).filter_map(named).map(|(_, body)| unfolded(body))
}

/// Fields that are removed from strangers' messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strip<'a> {
    /// Field names, in any case; a final `*` matches any rest.
    pub names: &'a [String],
    /// Our host name: Authentication-Results fields that claim to come from it are removed too.
    pub results_of: Option<&'a Domain>,
}

impl Strip<'_> {
    fn takes(&self, name: &[u8], body: &[u8]) -> bool {
        let is_ours = |host| name.eq_ignore_ascii_case(b"Authentication-Results") && claims(body, host);
        self.names.iter().any(|pattern| matches(pattern, name)) || self.results_of.is_some_and(is_ours)
    }
}

/// Whether a pattern of [`Strip::names`] matches a field's name.
#[must_use]
pub fn matches(pattern: &str, name: &[u8]) -> bool {
    match pattern.as_bytes() {
        [start @ .., b'*'] => name.get(..start.len()).is_some_and(|n| n.eq_ignore_ascii_case(start)),
        whole => name.eq_ignore_ascii_case(whole),
    }
}

/// The fields with their continuation lines and line ends, in order; concatenated they are the section. A bare CR or LF
/// ends a line as CRLF does: BDAT may carry them, and a next hop may treat them so (`bare_lf = "crlf"` rewrites them to
/// CRLF).
fn fields(section: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = section;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2_iter(b'\r', b'\n', rest)
            .map(|at| at + 1)
            .find(|next| match rest.get(*next) {
                Some(b' ' | b'\t') => false,
                Some(b'\n') => rest[*next - 1] != b'\r',
                _ => true,
            })
            .unwrap_or(rest.len());
        let (field, after) = rest.split_at(end);
        rest = after;
        Some(field)
    })
}

/// A field's name and body. White space before the colon is obsolete but accepted (RFC 5322 4.5). `None`: this is no
/// field.
fn split(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', field)?;
    let name = field[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| (name, &field[colon + 1..]))
}

/// The body, trimmed, with each run of white space and line ends as one space.
fn unfolded(body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(body.len());
    for word in body.split(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).filter(|word| !word.is_empty()) {
        if !value.is_empty() {
            value.push(b' ');
        }
        value.extend_from_slice(word);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Received: from a\r\n\tby b;\r\n date\r\nRECEIVED : x\r\nFingerpost-Route: v=1;\r\n\ti=x\r\n\
        message-id:\r\n <1@a>\r\nDate: now\r\nFrom:  A  <a@b>,\r\n\tc@d\r\nMessage-ID: <second>\r\nSubject: h\xc3\xa4\r\n";

    #[test]
    fn names_have_no_case_and_values_no_folds() {
        let facts = examine(MAIL);
        assert_eq!(facts.received, 2);
        assert_eq!(facts.stamps, ["v=1; i=x"]);
        assert_eq!(facts.message_id, "<1@a>");
        assert_eq!(facts.subject.as_deref(), Some("hä".as_bytes()));
        assert_eq!(facts.values.from.as_deref(), Some(&b"A <a@b>, c@d"[..]));
        assert!(!facts.ascii && facts.identity.message_id && facts.identity.date && facts.identity.from);
    }

    #[test]
    fn the_identity_does_not_depend_on_folding_but_on_each_value() {
        let folded = examine(b"Message-ID:\r\n\t<1@a>\r\nDate: d\r\nFrom: a\r\n").identity;
        assert_eq!(folded, examine(b"from:a\r\ndate:d \r\nMESSAGE-ID: <1@a>\r\nX: y\r\n").identity);
        for other in [
            "Message-ID: <2@a>\r\nDate: d\r\nFrom: a\r\n",
            "Message-ID: <1@a>\r\nDate: e\r\nFrom: a\r\n",
            "Message-ID: <1@a>\r\nDate: d\r\nFrom: b\r\n",
            "Message-ID: <1@a>\r\nDate: da\r\nFrom: \r\n",
            "Date: d\r\nFrom: a\r\n",
        ] {
            assert_ne!(folded, examine(other.as_bytes()).identity, "{other}");
        }
        let other_sender = examine(b"From: b\r\nDate: d\r\nMessage-ID: <1@a>\r\n").identity;
        assert_eq!(folded.id_and_date, other_sender.id_and_date);
    }

    #[test]
    fn a_field_added_on_the_way_does_not_change_what_a_stamp_was_made_for() {
        let values = |text: &str| examine(text.as_bytes()).values;
        let made_for = |text: &str| MadeFor::from(&values(text).identity());
        let bare = made_for("From: a\r\n");
        assert!(values("From: a\r\nMessage-ID: <added>\r\nDate: added\r\n").fit(&bare));
        assert!(!values("From: b\r\n").fit(&bare));
        assert!(!values("Message-ID: <added>\r\n").fit(&bare));
        assert!(!values("From: a\r\n").fit(&made_for("From: a\r\nDate: d\r\n")));
        let nothing = made_for("Subject: x\r\n");
        assert!(values("Subject: y\r\n").fit(&nothing));
        assert!(!values("From: a\r\n").fit(&nothing));
    }

    #[test]
    fn stripping_keeps_every_other_byte() {
        let patterns = ["X-MS-Exchange-Organization-*".to_owned(), "Received".to_owned()];
        let section = b"x-ms-exchange-organization-SCL : -1\r\n more\r\nX-MS: a\r\n odd  \r\nno colon\r\n\
            Received: a\r\nReceived-SPF: b\nTo: \xff\0c\rX-MS-Exchange-Organization-AuthAs: Internal\r\tx\r";
        let kept = b"X-MS: a\r\n odd  \r\nno colon\r\nReceived-SPF: b\nTo: \xff\0c\r";
        assert_eq!(strip(section, &Strip { names: &patterns, results_of: None }), kept);
        assert_eq!(strip(section, &Strip::default()), section);
    }

    #[test]
    fn results_in_our_name_go_and_others_stay() {
        let host = Domain::parse("mx.contoso.com").unwrap();
        let ours = "Authentication-Results: mx.contoso.com; spf=pass\r\nAUTHENTICATION-RESULTS :\r\n\t(x)\r\n MX.contoso.com 1;\r\n dkim=pass\r\n";
        let others = "Authentication-Results: mx.fabrikam.com; spf=pass\r\nARC-Authentication-Results: i=1; mx.contoso.com; spf=pass\r\n\
            X-Authentication-Results: mx.contoso.com; spf=pass\r\nSubject: mx.contoso.com; spf=pass\r\n";
        let section = format!("{ours}{others}");
        let kept = |results_of| strip(section.as_bytes(), &Strip { names: &[], results_of });
        assert_eq!(kept(Some(&host)), others.as_bytes());
        assert_eq!(kept(None), section.as_bytes());
    }

    #[test]
    fn hostile_sections_are_read_in_linear_time() {
        for section in ["", "\r\n", ":", ": x\r\n", " Received: x\r\n", "\0\0:\0\r\n", "Rec eived: x\r\n", "\n\n\n"] {
            let facts = examine(section.as_bytes());
            assert_eq!((facts.received, facts.stamps.len()), (0, 0), "{section:?}");
        }
        assert_eq!(examine("Received: x\r\n".repeat(100_000).as_bytes()).received, 100_000);
        assert_eq!(examine(format!("Received: x\r\n{}", " y\r\n".repeat(100_000)).as_bytes()).received, 1);
        let many = "no colon here\r\n".repeat(100_000);
        assert_eq!(examine(many.as_bytes()).received, 0);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_and_none_is_lost(section in proptest::string::bytes_regex("(?s-u:[ -~\\r\\n\\x00\\xff]|Received: ?|From:){0,60}").unwrap()) {
            proptest::prop_assert!(examine(&section).received <= section.len());
            proptest::prop_assert_eq!(strip(&section, &Strip::default()), section);
        }
    }
}
