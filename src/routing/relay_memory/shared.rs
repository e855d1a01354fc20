//! Messages that come back to several nodes in turn: the names under which all of them know one. Each node remembers what
//! it relayed; what has come back to it is counted over all of them before it passes again.

use crate::keyed_hash::{HashKey, keyed_hash};
use crate::message::body::BodyDigest;
use crate::message::header::Head;
use crate::routing::loops::Relayed;
use crate::smtp::address::Address;

/// A message that seems to have come back for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// A keyed hash, the same at all nodes.
    pub hash: u64,
    /// How often it has come back to this node, this time included.
    pub times: usize,
    /// So often, at all nodes together, is a loop.
    pub loops_at: usize,
}

/// Makes the hashes by which all nodes know a message.
#[derive(Clone, Copy)]
pub struct Names(HashKey);

impl Names {
    /// With the key of all nodes.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        Self(key)
    }

    /// The hash of a relay's message, recipient and connector.
    #[must_use]
    pub fn relay(&self, relay: &Relayed<'_>) -> u64 {
        let Relayed { connector, recipient, reverse_path, facts, .. } = relay;
        let parts =
            [connector.as_bytes(), recipient.key().as_bytes(), reverse_path.key().as_bytes(), &facts.id_and_date];
        self.hash(b'i', &parts)
    }

    /// The hash of a message for one recipient and connector by its From, Date, Subject and body.
    #[must_use]
    pub fn content(&self, connector: &str, recipient: &Address, head: &Head<'_>, body: &BodyDigest) -> u64 {
        let (from, subject) = (head.from.unwrap_or_default(), head.subject.unwrap_or_default());
        self.hash(b'c', &[connector.as_bytes(), recipient.key().as_bytes(), from, head.date, subject, &body.0])
    }

    /// Each part is preceded by its length.
    fn hash(&self, kind: u8, parts: &[&[u8]]) -> u64 {
        let mut text = vec![kind];
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
        keyed_hash(&self.0, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::body::Beginning;
    use crate::message::header::examine;
    use crate::smtp::address::ReversePath;
    use crate::time::UnixTime;

    const MAIL: &str = "Message-ID: <1@a>\r\nDate: d\r\nFrom: a@b\r\nSubject: s\r\n";

    #[test]
    fn names_differ_in_every_part() {
        let [bob, eve] = ["bob@contoso.com", "eve@contoso.com"].map(|text| Address::parse(text).unwrap());
        let names = Names::new([7; 16]);
        let (facts, path) = (examine(MAIL.as_bytes()), ReversePath::Null);
        let relayed = |connector, recipient, facts| {
            let now = UnixTime(1);
            names.relay(&Relayed { connector, recipient, reverse_path: &path, facts, now })
        };
        let other = examine(MAIL.replace("<1@a>", "<2@a>").as_bytes());
        let (body, head) = (Beginning::default().digest(), facts.head().unwrap());
        let content = |connector, recipient, head| names.content(connector, recipient, head, &body);
        let grown = examine(MAIL.replace("Subject: s", "Subject: re s").as_bytes());
        let (same, grown) = (other.head().unwrap(), grown.head().unwrap());
        let mut all = vec![
            relayed("x", &bob, &facts.identity),
            relayed("y", &bob, &facts.identity),
            relayed("x", &eve, &facts.identity),
            relayed("x", &bob, &other.identity),
            content("x", &bob, &head),
            content("y", &bob, &head),
            content("x", &eve, &head),
            content("x", &bob, &grown),
        ];
        assert_eq!(all[0], relayed("x", &Address::parse("BOB@contoso.com").unwrap(), &facts.identity));
        assert_eq!(all[4], content("x", &bob, &same), "whatever its Message-ID");
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 8);
    }
}
