//! Finds the recipients of a message that are in a loop (DESIGN section 6, rules 3 to 5).
//!
//! `session` calls it when the header section is complete, the queue when it routes again. They choose the reply, and
//! handle `mode = "report"`.

use std::time::Duration;

use crate::message::body::BodyDigest;
use crate::message::header::Facts;
use crate::message::stamp::{self, Ignored, Stamp};
use crate::routing::relay_memory::{ContentKey, RelayMemory};
use crate::routing::verdict::Route;
use crate::smtp::address::{Address, ReversePath};
use crate::smtp::envelope::Origin;
use crate::time::UnixTime;

/// The greatest age of a stamp when its message comes in (rules 3 and 5).
const STAMP_COUNTS: Duration = Duration::from_hours(1);
/// How many of the newest stamps are counted as passes; more stamps in a message cause no more work.
const PASSES_LOOKED_AT: usize = 100;

/// The settings of the loop rules.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// `installation`.
    pub installation: &'a str,
    /// All loop keys.
    pub keys: &'a [stamp::Key],
    /// `max_received`.
    pub max_received: usize,
    pub max_passes: usize,
}

/// The stamps of a message, sorted by whether they count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Genuine, and made for this message.
    pub valid: Vec<Stamp>,
    /// Genuine, for whichever message they were made; without duplicates.
    pub passes: Vec<Stamp>,
    /// Why the others are ignored.
    pub ignored: Vec<Ignored>,
}

/// The rule that found a loop: the label of `loops_total{rule}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoopRule {
    /// The next hop asks us about a recipient while we ask it about the same one.
    InFlight,
    /// A stamp names the recipient and the connector.
    Stamp,
    /// The relay memory has the message twice.
    RelayMemory,
    /// Too many Received fields; refused in every mode.
    Received,
    /// Too many of our own stamps; refused in every mode.
    Passes,
}

impl LoopRule {
    /// Whether it refuses with `mode = "report"` as well: hop counts do, since otherwise nothing would end a loop.
    #[must_use]
    pub fn is_hop_count(self) -> bool {
        matches!(self, Self::Received | Self::Passes)
    }

    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::InFlight => "in-flight",
            Self::Stamp => "stamp",
            Self::RelayMemory => "relay-memory",
            Self::Received => "received",
            Self::Passes => "passes",
        }
    }
}

/// Verifies the stamps of a message, top first, until there are too many for any recipient (rule 5).
#[must_use]
pub fn see(rules: &Rules<'_>, facts: &Facts) -> Seen {
    let mut seen = Seen::default();
    let mut macs = Vec::new();
    for value in &facts.stamps {
        if seen.valid.len() > rules.max_passes {
            break;
        }
        let fitting = stamp::prove(rules.keys, rules.installation, value).and_then(|proven| {
            if macs.len() < PASSES_LOOKED_AT && !macs.contains(&proven.mac) {
                macs.push(proven.mac);
                seen.passes.push(proven.stamp.clone());
            }
            proven.fitting(&facts.values)
        });
        match fitting {
            Ok(stamp) => seen.valid.push(stamp),
            Err(ignored) => seen.ignored.push(ignored),
        }
    }
    seen
}

/// Whether the message has too many hops (rule 5); this concerns all its recipients.
#[must_use]
pub fn too_many_hops(rules: &Rules<'_>, facts: &Facts, seen: &Seen) -> Option<LoopRule> {
    if facts.received > rules.max_received {
        Some(LoopRule::Received)
    } else if seen.valid.len() > rules.max_passes {
        Some(LoopRule::Passes)
    } else {
        None
    }
}

/// Whether this recipient has passed too often (rule 5). A system that changes each message, for example its
/// Message-ID, returns stamps that no longer match the message, but they were returned. Counts those that name the
/// recipient from the hour before `received_at`; a single one proves nothing.
#[must_use]
pub fn passed_too_often(rules: &Rules<'_>, seen: &Seen, address: &Address, received_at: UnixTime) -> bool {
    if seen.passes.len() <= rules.max_passes {
        return false;
    }
    let young = |stamp: &&Stamp| received_at.since(stamp.time) <= STAMP_COUNTS;
    let passes = seen.passes.iter().filter(young).filter(|stamp| stamp.names(rules.keys, address));
    passes.count() > rules.max_passes
}

/// Whether a stamp says that this recipient was sent by this connector within the hour before `received_at` (rule 3).
/// Before the caller refuses, it asks the directory live.
#[must_use]
pub fn stamped(keys: &[stamp::Key], valid: &[Stamp], address: &Address, route: &Route, received_at: UnixTime) -> bool {
    valid
        .iter()
        .filter(|stamp| stamp.via == *route.connector && received_at.since(stamp.time) <= STAMP_COUNTS)
        .any(|stamp| stamp.names(keys, address))
}

/// The receive connectors by which mail that a send connector sent out may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door<'a> {
    /// Any: the send connector's organisation has no receive connector.
    Any,
    /// The receive connectors of this organisation.
    Of(&'a str),
}

/// How often a message may be relayed (rule 4).
pub const RELAYS: usize = 2;

/// How often a message has come back that the relay memory has: 0 unless it comes in where a loop would. [`RELAYS`] times
/// is a loop (rule 4).
#[must_use]
pub fn returns(memory: &mut RelayMemory, relay: &Relayed<'_>, origin: &Origin, door: Door<'_>) -> usize {
    let counts = match door {
        Door::Any => true,
        Door::Of(organization) => same_organization(&origin.organization, organization),
    };
    if counts { memory.count(relay) } else { 0 }
}

/// How often the same content may pass (rule 4).
pub const CONTENT_PASSES: usize = 8;

/// Whether the relay memory shows a loop by content (rule 4), for a message that comes in from the connector's
/// organisation. The body was noted at returns only.
#[must_use]
pub fn content_remembered(memory: &mut RelayMemory, key: ContentKey, body: &BodyDigest, now: UnixTime) -> bool {
    memory.count_heads(key, now) >= CONTENT_PASSES && memory.count_contents(key, body, now) + 1 >= CONTENT_PASSES
}

/// Whether both are the same organisation; an empty name is equal to nothing, not even itself (DESIGN section 4).
#[must_use]
pub fn same_organization(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}

/// The relay of a message to one recipient, as the relay memory stores it.
#[derive(Debug, Clone, Copy)]
pub struct Relayed<'a> {
    /// The send connector's name.
    pub connector: &'a str,
    /// The recipient as received.
    pub recipient: &'a Address,
    pub reverse_path: &'a ReversePath,
    /// Identifies the message; one without Message-ID is not remembered.
    pub facts: &'a crate::message::header::Identity,
    pub now: UnixTime,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::body::Beginning;
    use crate::message::header::examine;
    use crate::message::stamp::{NewStamp, sign};
    use crate::routing::verdict::RouteKind;

    const KEY: [u8; 32] = [7; 32];

    fn keys() -> [stamp::Key; 1] {
        [stamp::Key::new(KEY)]
    }

    fn rules(keys: &[stamp::Key]) -> Rules<'_> {
        Rules { installation: "mx", keys, max_received: 3, max_passes: 2 }
    }
    const MAIL: &str = "Message-ID: <1@a>\r\nDate: d\r\nFrom: a@b\r\n";

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn signed(via: &str, time: u64) -> String {
        let recipients = &[&address("alice@contoso.com"), &address("alice@b.example")];
        let identity = &examine(MAIL.as_bytes()).identity;
        sign(&keys()[0], &NewStamp { installation: "mx", via, time: UnixTime(time), recipients, identity })
    }

    fn seen(fields: &str) -> (Facts, Seen) {
        let facts = examine(format!("{fields}{MAIL}").as_bytes());
        let seen = see(&rules(&keys()), &facts);
        (facts, seen)
    }

    #[test]
    fn a_recipient_is_looped_by_the_same_connector_within_the_hour() {
        let (_, seen) = seen(&(signed("b", 10_000) + "Fingerpost-Route: forged\r\n"));
        assert_eq!((seen.valid.len(), seen.ignored.as_slice()), (1, &[Ignored::Form][..]));
        for (recipient, connector, received_at, looped) in [
            ("alice@contoso.com", "b", 10_000, true),
            ("ALICE@contoso.com", "b", 13_600, true),
            ("alice@b.example", "b", 10_001, true),
            ("alice@contoso.com", "b", 9_000, true), // another node's clock is ahead
            ("alice@contoso.com", "b", 13_601, false),
            ("alice@contoso.com", "a", 10_001, false),
            ("bob@contoso.com", "b", 10_001, false),
        ] {
            let address = address(recipient);
            let next_hop_domain = address.domain().clone();
            let route = Route {
                connector: connector.into(),
                rcpt_to: address.clone(),
                next_hop_domain,
                way: RouteKind::Relayed,
            };
            let at = UnixTime(received_at);
            assert_eq!(stamped(&keys(), &seen.valid, &address, &route, at), looped, "{recipient} {connector} {at:?}");
        }
    }

    #[test]
    fn hops_are_counted_with_valid_stamps_only() {
        let (hop, forged) = ("Received: x\r\n", "Fingerpost-Route: v=1; i=mx\r\n");
        for (fields, rule) in [
            (hop.repeat(3) + &signed("b", 1).repeat(2) + &forged.repeat(9), None),
            (hop.repeat(4), Some(LoopRule::Received)),
            (signed("b", 1).repeat(3), Some(LoopRule::Passes)),
        ] {
            let (facts, seen) = seen(&fields);
            assert_eq!(too_many_hops(&rules(&keys()), &facts, &seen), rule, "{fields}");
        }
    }

    /// A stamp for alice and her other address, made for another message.
    fn rewritten(number: u64, time: u64) -> String {
        stamp_by(&keys()[0], "mx", number, time)
    }

    fn stamp_by(key: &stamp::Key, installation: &str, number: u64, time: u64) -> String {
        let recipients = &[&address("alice@contoso.com"), &address("alice@b.example")];
        let identity = &examine(format!("Message-ID: <{number}@rewriter>\r\n").as_bytes()).identity;
        sign(key, &NewStamp { installation, via: "b", time: UnixTime(time), recipients, identity })
    }

    #[test]
    fn stamps_that_fit_no_more_are_passes_of_those_whom_they_name() {
        let all = |times: &[u64]| {
            let stamp = |(number, time): (usize, &u64)| rewritten(number as u64, *time);
            times.iter().enumerate().map(stamp).collect::<String>()
        };
        let forged = stamp_by(&stamp::Key::new([8; 32]), "mx", 1, 10_000);
        let foreign = stamp_by(&keys()[0], "elsewhere", 1, 10_000);
        let alice = "alice@contoso.com";
        // `max_passes` is 2, and the time is 10,000.
        for (what, fields, recipient, looped) in [
            ("as many as may be", all(&[9_990, 9_980]), alice, false),
            ("one more", all(&[9_990, 9_980, 9_970]), alice, true),
            ("as sent", all(&[9_990, 9_980, 9_970]), "ALICE@b.example", true),
            ("within one second", all(&[9_990, 9_990, 9_990]), alice, true),
            ("somebody else", all(&[9_990, 9_980, 9_970]), "bob@contoso.com", false),
            ("an hour old", all(&[9_990, 9_980, 6_400]), alice, true),
            ("older", all(&[9_990, 9_980, 6_399, 1]), alice, false),
            ("another node's clock is ahead", all(&[9_990, 9_980, 10_100]), alice, true),
            ("the same one copied", rewritten(1, 9_990).repeat(50), alice, false),
            ("two copied", (rewritten(1, 9_990) + &rewritten(2, 9_990)).repeat(20), alice, false),
            ("forged", all(&[9_990, 9_980]) + &forged.repeat(9), alice, false),
            ("another installation's", all(&[9_990, 9_980]) + &foreign.repeat(9), alice, false),
            ("one that fits is a pass too", all(&[9_990, 9_980]) + &signed("b", 9_970), alice, true),
            ("what an attacker wrote in front", forged.repeat(200) + &all(&[9_990, 9_980, 9_970]), alice, true),
        ] {
            let (facts, seen) = seen(&fields);
            let keys = keys();
            let rules = &rules(&keys);
            assert_eq!(passed_too_often(rules, &seen, &address(recipient), UnixTime(10_000)), looped, "{what}");
            assert_eq!(too_many_hops(rules, &facts, &seen), None, "{what}: nobody else is concerned");
        }
    }

    #[test]
    fn a_stamp_that_fits_no_more_is_counted_as_ignored_and_refuses_nobody_by_itself() {
        let (_, seen) = seen(&rewritten(1, 10_000).repeat(3));
        assert_eq!((seen.valid.len(), seen.passes.len(), seen.ignored.as_slice()), (0, 1, &[Ignored::Identity; 3][..]));
        let (_, many) = self::seen(&(0..300).map(|number| rewritten(number, 10_000)).collect::<String>());
        assert_eq!((many.passes.len(), many.ignored.len()), (PASSES_LOOKED_AT, 300));
    }

    #[test]
    fn the_same_content_may_pass_eight_times() {
        let bodies = ["the same", "another"].map(|text| {
            let mut beginning = Beginning::default();
            beginning.take(text.as_bytes());
            beginning.digest()
        });
        let facts = examine(MAIL.as_bytes());
        // How often the same body, another one and none were noted at its return; when; and whether that is a loop.
        for (same, another, none, at, looped) in [
            (7, 0, 1, 900, true),
            (6, 0, 1, 900, false),
            (6, 0, 2, 900, false), // of two that came in alike, one has been seen again
            (6, 2, 1, 900, false),
            (7, 5, 1, 900, true),
            (9, 0, 0, 900, true),
            (7, 0, 0, 900, false),
            (0, 0, 20, 900, false), // nobody brought it back
            (7, 0, 1, 1_900, false),
        ] {
            let mut memory = RelayMemory::default();
            let head = memory.head_key(&facts.head().unwrap());
            let key = memory.content_key("b", &address("alice@contoso.com"), head);
            for (times, body) in [(none, None), (another, Some(&bodies[1])), (same, Some(&bodies[0]))] {
                (0..times).for_each(|_| memory.note_content(key, body, UnixTime(100)));
            }
            let remembered = content_remembered(&mut memory, key, &bodies[0], UnixTime(at));
            assert_eq!(remembered, looped, "{same} {another} {none} {at}");
        }
    }

    #[test]
    fn the_memory_is_believed_the_second_time_and_only_where_a_loop_would_come_in() {
        let mut memory = RelayMemory::default();
        let identity = examine(MAIL.as_bytes()).identity;
        let (recipient, reverse_path) = (&address("alice@contoso.com"), &ReversePath::Null);
        let relay = Relayed { connector: "b", recipient, reverse_path, facts: &identity, now: UnixTime(1) };
        let from = |organization: &str| Origin { organization: organization.into(), ..Origin::report() };
        memory.note(&relay);
        assert!(returns(&mut memory, &relay, &from("b"), Door::Of("b")) < RELAYS);
        memory.note(&relay);
        for (organization, door, looped) in [
            ("b", Door::Of("b"), true),
            ("", Door::Of("b"), false),
            ("a", Door::Of("b"), false),
            ("", Door::Of(""), false),
            ("", Door::Any, true),
            ("a", Door::Any, true),
        ] {
            let returns = returns(&mut memory, &relay, &from(organization), door);
            assert_eq!(returns >= RELAYS, looped, "{organization} {door:?}");
        }
    }
}
