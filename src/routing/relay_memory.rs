//! Remembers the messages that went to next hops within the last 30 minutes (DESIGN section 6, rule 4).
//!
//! Delivery notes messages that a next hop accepted, by Message-ID and Date; the session notes messages that it
//! accepted, by From, Date and Subject, and returned ones by their body as well. [`super::loops`] reads the counts. It
//! holds hashes and times only; its owner keeps it behind a lock.

mod counted;
mod shared;

use std::hash::{BuildHasher as _, RandomState};

use super::loops::Relayed;
use crate::message::body::BodyDigest;
use crate::message::header::Head;
use crate::smtp::address::Address;
use crate::time::UnixTime;
pub use counted::KEPT;
use counted::{Counted, Hash};
pub use shared::{Names, Returned};

/// At most 100,000 relays of each kind; the oldest are forgotten first.
#[derive(Debug, Default)]
pub struct RelayMemory {
    /// By Message-ID and Date.
    relays: Counted,
    /// By From, Date and Subject.
    heads: Counted,
    /// By these and the body.
    contents: Counted,
    key: RandomState,
}

/// Identifies a message for one recipient by one connector by its From, Date and Subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentKey(Hash);

/// Identifies a message by its From, Date and Subject.
#[derive(Debug, Clone, Copy)]
pub struct HeadKey(Hash);

impl RelayMemory {
    /// Notes that a next hop accepted a message for a recipient: once for each message, not for attempts.
    pub fn note(&mut self, relay: &Relayed<'_>) {
        if let Some(hash) = self.hash(relay) {
            self.relays.note(hash, relay.now);
        }
    }

    /// How often it was noted.
    pub fn count(&mut self, relay: &Relayed<'_>) -> usize {
        self.hash(relay).map_or(0, |hash| self.relays.count(hash, relay.now))
    }

    /// `None`: a message without Message-ID is not remembered.
    fn hash(&self, relay: &Relayed<'_>) -> Option<Hash> {
        let Relayed { connector, recipient, reverse_path, facts, .. } = relay;
        let message = (reverse_path.key(), u128::from_ne_bytes(facts.id_and_date));
        facts.message_id.then(|| self.key.hash_one((connector, recipient.key(), message)))
    }

    /// The key of a message for all its recipients. It does not include the reverse-path, which forwarding systems
    /// rewrite.
    #[must_use]
    pub fn head_key(&self, head: &Head<'_>) -> HeadKey {
        HeadKey(self.key.hash_one(head))
    }

    /// The key of a message for one recipient and connector.
    #[must_use]
    pub fn content_key(&self, connector: &str, recipient: &Address, head: HeadKey) -> ContentKey {
        ContentKey(self.key.hash_one((connector, recipient.key(), head.0)))
    }

    /// Notes a message that was accepted, once for each message; with `body` if it came back.
    pub fn note_content(&mut self, key: ContentKey, body: Option<&BodyDigest>, now: UnixTime) {
        self.heads.note(key.0, now);
        if let Some(body) = body {
            self.contents.note(self.with_body(key, body), now);
        }
    }

    /// How often a message with this From, Date and Subject was noted, with any body.
    pub fn count_heads(&mut self, key: ContentKey, now: UnixTime) -> usize {
        self.heads.count(key.0, now)
    }

    /// The same with this body only.
    pub fn count_contents(&mut self, key: ContentKey, body: &BodyDigest, now: UnixTime) -> usize {
        self.contents.count(self.with_body(key, body), now)
    }

    fn with_body(&self, key: ContentKey, body: &BodyDigest) -> Hash {
        self.key.hash_one((key.0, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::body::Beginning;
    use crate::message::header::{Facts, examine};
    use crate::smtp::address::ReversePath;

    struct Mail {
        recipient: Address,
        reverse_path: ReversePath,
        facts: Facts,
    }

    fn mail(recipient: &str, sender: &str, section: &str) -> Mail {
        Mail {
            recipient: Address::parse(recipient).unwrap(),
            reverse_path: Address::parse(sender).map_or(ReversePath::Null, ReversePath::Address),
            facts: examine(section.as_bytes()),
        }
    }

    fn relayed<'a>(connector: &'a str, mail: &'a Mail, now: u64) -> Relayed<'a> {
        let Mail { recipient, reverse_path, facts } = mail;
        Relayed { connector, recipient, reverse_path, facts: &facts.identity, now: UnixTime(now) }
    }

    const ID: &str = "Message-ID: <1@a>\r\nDate: d\r\n";

    #[test]
    fn it_counts_what_is_the_same_in_every_part() {
        let known = mail("u@a.b", "s@c.d", ID);
        let mut memory = RelayMemory::default();
        memory.note(&relayed("x", &known, 100));
        memory.note(&relayed("x", &known, 200));
        let other_from = mail("U@A.b", "S@c.d", "From: y\r\nMessage-ID: <1@a>\r\nDate: d\r\n");
        assert_eq!(memory.count(&relayed("x", &other_from, 300)), 2);
        assert_eq!(memory.count(&relayed("y", &known, 300)), 0);
        for other in [
            mail("v@a.b", "s@c.d", ID),
            mail("u@a.b", "", ID),
            mail("u@a.b", "s@c.d", "Message-ID: <2@a>\r\nDate: d\r\n"),
            mail("u@a.b", "s@c.d", "Message-ID: <1@a>\r\nDate: e\r\n"),
        ] {
            assert_eq!(memory.count(&relayed("x", &other, 300)), 0);
        }
    }

    #[test]
    fn it_forgets_after_half_an_hour() {
        let known = mail("u@a.b", "s@c.d", ID);
        let mut memory = RelayMemory::default();
        memory.note(&relayed("x", &known, 100));
        memory.note(&relayed("x", &known, 1000));
        for (now, count) in [(1000, 2), (1899, 2), (1900, 1), (2799, 1), (2800, 0)] {
            assert_eq!(memory.count(&relayed("x", &known, now)), count, "{now}");
        }
    }

    #[test]
    fn a_message_without_message_id_is_not_remembered() {
        let anonymous = mail("u@a.b", "s@c.d", "Date: d\r\n");
        let mut memory = RelayMemory::default();
        memory.note(&relayed("x", &anonymous, 1));
        memory.note(&relayed("x", &anonymous, 1));
        assert_eq!(memory.count(&relayed("x", &anonymous, 1)), 0);
    }

    fn body(text: &str) -> BodyDigest {
        let mut beginning = Beginning::default();
        beginning.take(text.as_bytes());
        beginning.digest()
    }

    #[test]
    fn content_is_known_by_from_date_subject_and_body_whatever_else_changes() {
        let first = mail("u@a.b", "s@c.d", "From: f\r\nDate: d\r\nSubject: s\r\nMessage-ID: <1@a>\r\n");
        let mut memory = RelayMemory::default();
        let key = |memory: &RelayMemory, connector, mail: &Mail| {
            memory.content_key(connector, &mail.recipient, memory.head_key(&mail.facts.head().unwrap()))
        };
        let known = key(&memory, "x", &first);
        memory.note_content(known, None, UnixTime(100));
        memory.note_content(known, Some(&body("b")), UnixTime(200));
        let again = mail("U@A.b", "srs@e.f", "Subject:  s\r\nX: y\r\ndate: d\r\nFROM:\r\n f\r\nMessage-ID: <2@e>\r\n");
        let again = key(&memory, "x", &again);
        assert_eq!((memory.count_heads(again, UnixTime(300)), known), (2, again));
        assert_eq!(memory.count_contents(again, &body("b\r\n"), UnixTime(300)), 1);
        assert_eq!(memory.count_contents(again, &body("c"), UnixTime(300)), 0);
        assert_eq!(memory.count_contents(again, &body("b"), UnixTime(2000)), 0);
        for (connector, other) in [
            ("y", mail("u@a.b", "", "From: f\r\nDate: d\r\nSubject: s\r\n")),
            ("x", mail("v@a.b", "", "From: f\r\nDate: d\r\nSubject: s\r\n")),
            ("x", mail("u@a.b", "", "From: g\r\nDate: d\r\nSubject: s\r\n")),
            ("x", mail("u@a.b", "", "From: f\r\nDate: e\r\nSubject: s\r\n")),
            ("x", mail("u@a.b", "", "From: f\r\nDate: d\r\nSubject: t\r\n")),
            ("x", mail("u@a.b", "", "From: f\r\nDate: d\r\n")),
            ("x", mail("u@a.b", "", "Date: d\r\nSubject: fs\r\n")),
        ] {
            let other = key(&memory, connector, &other);
            assert_eq!(memory.count_heads(other, UnixTime(300)), 0);
            assert_eq!(memory.count_contents(other, &body("b"), UnixTime(300)), 0);
        }
        for without_date in ["From: f\r\nSubject: s\r\n", "From: f\r\nSubject: s\r\nDate: \r\n", ""] {
            assert!(examine(without_date.as_bytes()).head().is_none(), "{without_date:?}");
        }
    }
}
