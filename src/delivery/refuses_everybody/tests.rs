//! When the verdict changes, what does not count, and a comparison with a simple model.

use std::collections::BTreeSet;
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::routing::doubt::KnownBy;
use crate::time::QueueTime;

const NOBODY: Known = Known { by: KnownBy::Nobody, good_since: None, first_refused: None };
const RESOLVED: Known = Known { by: KnownBy::Directory, ..NOBODY };
const VERIFIED: Known = Known { by: KnownBy::VerifyWith, ..NOBODY };
const GOOD: Known = Known { good_since: Some(QueueTime(1)), ..NOBODY };
const DOUBTED: Known = Known { first_refused: Some(QueueTime(2)), ..RESOLVED };

fn hop(connector: &str, host: &str) -> Key {
    Key { connector: connector.into(), next_hop: host.into() }
}

fn recipient(number: usize) -> Address {
    Address::parse(&format!("user{number}@contoso.com")).unwrap()
}

/// A source with the domain and client of these numbers.
struct From {
    reverse_path: ReversePath,
    client: IpAddr,
}

impl From {
    fn new(domain: usize, client: usize) -> Self {
        let reverse_path = ReversePath::Address(Address::parse(&format!("s@d{domain}.example")).unwrap());
        Self { reverse_path, client: IpAddr::from([10, 0, 0, client as u8]) }
    }

    fn source(&self) -> Source<'_> {
        Source { reverse_path: &self.reverse_path, client: Some(self.client) }
    }
}

/// One of many next hops, and what happens to it.
struct HopUnderTest {
    all: RefusesEverybody,
    hop: Key,
}

impl HopUnderTest {
    /// After messages from this many domains and clients.
    fn after_messages(domains: usize, clients: usize) -> Self {
        let mut hop_under_test = Self { all: RefusesEverybody::default(), hop: hop("primary", "ex1.example") };
        (0..MESSAGES).for_each(|at| hop_under_test.message(at % domains, at % clients));
        hop_under_test
    }

    fn message(&mut self, domain: usize, client: usize) {
        self.all.message(&self.hop.connector, From::new(domain, client).source());
    }

    fn refused_at(&mut self, step: Step, number: usize, known: &Known, from: &From) -> Verdict {
        let recipient = recipient(number);
        self.all.refused(&self.hop, &Refusal { recipient: &recipient, known, source: from.source(), step })
    }

    fn refused(&mut self, number: usize, known: &Known, from: &From) -> Verdict {
        self.refused_at(Step::Rcpt, number, known, from)
    }

    /// Refuses recipients one after another, from this many domains and clients in turn; returns the number of the
    /// refusal that changed the verdict, counted from 1.
    fn shows(&mut self, recipients: Range<usize>, known: &Known, (domains, clients): (usize, usize)) -> Option<usize> {
        let mut shows = None;
        for (at, number) in recipients.enumerate() {
            let verdict = self.refused(number, known, &From::new(at % domains, at % clients));
            match (shows, verdict) {
                (None, Verdict::Believe) | (Some(_), Verdict::Unreachable(Change::Same)) => {}
                (None, Verdict::Unreachable(Change::News)) => shows = Some(at + 1),
                wrong => panic!("{wrong:?}"),
            }
        }
        shows
    }
}

#[test]
fn twenty_recipients_from_five_domains_and_five_clients_show_it() {
    for (name, before, recipients, sources, expected) in [
        ("twenty from five", (5, 5), 0..30, (5, 5), Some(20)),
        ("twenty from twenty", (50, 50), 0..30, (20, 20), Some(20)),
        ("nineteen", (5, 5), 0..19, (5, 5), None),
        ("many from one domain", (5, 5), 0..200, (1, 7), None),
        ("many from four domains", (5, 5), 0..200, (4, 7), None),
        ("many from one client", (5, 5), 0..200, (7, 1), None),
        ("many from four clients", (50, 50), 0..200, (7, 4), None),
        ("all come through one filter", (9, 1), 0..30, (5, 1), Some(20)),
        ("a filter, and too few domains", (9, 1), 0..200, (4, 1), None),
        ("three clients send all there is", (3, 3), 0..30, (3, 3), Some(20)),
        ("three clients, of which two meet it", (3, 3), 0..200, (3, 2), None),
        ("one domain, one client", (1, 1), 0..30, (1, 1), Some(20)),
    ] {
        let mut hop_under_test = HopUnderTest::after_messages(before.0, before.1);
        assert_eq!(hop_under_test.shows(recipients, &RESOLVED, sources), expected, "{name}");
    }
}

#[test]
fn the_last_hundred_messages_say_how_many_sources_there_are() {
    // Many clients once; then a hundred messages from one.
    for (messages, expected) in [(0, None), (99, None), (100, Some(20))] {
        let mut hop_under_test = HopUnderTest::after_messages(5, 5);
        (0..MESSAGES).for_each(|_| hop_under_test.message(7, 7));
        hop_under_test.message(8, 8);
        (0..messages).for_each(|_| hop_under_test.message(7, 7));
        assert_eq!(hop_under_test.shows(0..30, &RESOLVED, (1, 1)), expected, "{messages} messages");
    }
    // No messages at all: only the refusals are known.
    let mut hop_under_test = HopUnderTest { all: RefusesEverybody::default(), hop: hop("primary", "ex1.example") };
    assert_eq!(hop_under_test.shows(0..30, &RESOLVED, (1, 1)), Some(20));
    // Messages to another connector do not count.
    let mut hop_under_test = HopUnderTest::after_messages(5, 5);
    hop_under_test.hop = hop("secondary", "gw.example");
    (0..MESSAGES).for_each(|_| hop_under_test.message(7, 7));
    assert_eq!(hop_under_test.shows(0..30, &RESOLVED, (1, 1)), Some(20));
}

#[test]
fn who_counts_and_who_does_not() {
    for (name, known, expected) in [
        ("resolved", RESOLVED, Some(20)),
        ("without a tag", Known { by: KnownBy::DirectoryWithoutTag, ..NOBODY }, Some(20)),
        ("verified", VERIFIED, Some(20)),
        ("recently good", GOOD, Some(20)),
        ("nobody vouches", NOBODY, None),
        ("doubted already", DOUBTED, None),
        ("recently good and doubted", Known { first_refused: Some(QueueTime(2)), ..GOOD }, None),
    ] {
        assert_eq!(HopUnderTest::after_messages(5, 5).shows(0..40, &known, (5, 5)), expected, "{name}");
    }
    // The same recipient repeatedly, from twenty clients.
    let mut hop_under_test = HopUnderTest::after_messages(5, 5);
    for at in 0..200 {
        assert_eq!(hop_under_test.refused(at % 19, &RESOLVED, &From::new(at % 20, at % 20)), Verdict::Believe);
    }
}

#[test]
fn once_it_shows_it_holds_for_all_who_are_vouched_for_until_one_is_accepted() {
    let from = From::new(1, 1);
    for (name, known, step, expected) in [
        ("nobody vouches", NOBODY, Step::Dot, Change::Same),
        ("resolved", RESOLVED, Step::Rcpt, Change::News),
        ("verified", VERIFIED, Step::Dot, Change::News),
        ("recently good", GOOD, Step::Rcpt, Change::News),
        ("doubted", DOUBTED, Step::Rcpt, Change::News),
    ] {
        let mut hop_under_test = HopUnderTest::after_messages(5, 5);
        assert_eq!(hop_under_test.shows(0..20, &RESOLVED, (5, 5)), Some(20));
        for known in [RESOLVED, VERIFIED, GOOD, DOUBTED] {
            assert_eq!(hop_under_test.refused(99, &known, &from), Verdict::Unreachable(Change::Same), "{known:?}");
        }
        assert_eq!(hop_under_test.refused(99, &NOBODY, &from), Verdict::Believe, "nothing changes for a guess");
        assert_eq!(hop_under_test.all.accepted(&hop_under_test.hop, &known, step), expected, "{name}");
        assert_eq!(hop_under_test.all.accepted(&hop_under_test.hop, &known, step), Change::Same, "{name}");
        let again = hop_under_test.refused(99, &RESOLVED, &from);
        match expected {
            Change::News => {
                assert_eq!(again, Verdict::Believe, "{name}");
                assert_eq!(hop_under_test.shows(0..30, &RESOLVED, (5, 5)), Some(19), "{name}: it begins anew");
            }
            Change::Same => assert_eq!(again, Verdict::Unreachable(Change::Same), "{name}"),
        }
    }
}

#[test]
fn one_accepted_between_begins_anew_and_a_guess_does_not() {
    for (known, expected) in [(RESOLVED, None), (GOOD, None), (VERIFIED, None), (NOBODY, Some(1))] {
        let mut hop_under_test = HopUnderTest::after_messages(5, 5);
        assert_eq!(hop_under_test.shows(0..19, &RESOLVED, (5, 5)), None);
        assert_eq!(hop_under_test.all.accepted(&hop_under_test.hop, &known, Step::Rcpt), Change::Same);
        assert_eq!(hop_under_test.shows(19..38, &RESOLVED, (5, 5)), expected, "{known:?}");
    }
}

/// Exchange's filter on mailbox servers accepts all recipients at RCPT and refuses at the end of data.
#[test]
fn who_is_taken_at_rcpt_and_refused_at_the_dot_is_refused() {
    let mut hop_under_test = HopUnderTest::after_messages(5, 5);
    let mut last = Verdict::Believe;
    for number in 0..20 {
        assert_eq!(last, Verdict::Believe);
        assert_eq!(hop_under_test.all.accepted(&hop_under_test.hop, &RESOLVED, Step::Rcpt), Change::Same);
        last = hop_under_test.refused_at(Step::Dot, number, &RESOLVED, &From::new(number % 5, number % 5));
    }
    assert_eq!(last, Verdict::Unreachable(Change::News));
    assert_eq!(hop_under_test.all.accepted(&hop_under_test.hop, &RESOLVED, Step::Rcpt), Change::Same);
    assert_eq!(hop_under_test.refused(50, &RESOLVED, &From::new(0, 0)), Verdict::Unreachable(Change::Same));
    assert_eq!(hop_under_test.all.accepted(&hop_under_test.hop, &RESOLVED, Step::Dot), Change::News);
    assert!(hop_under_test.all.hops.is_empty());
}

#[test]
fn next_hops_are_apart_and_bounded() {
    let mut hop_under_test = HopUnderTest::after_messages(5, 5);
    assert_eq!(hop_under_test.shows(0..20, &RESOLVED, (5, 5)), Some(20));
    let refusing = std::mem::replace(&mut hop_under_test.hop, hop("primary", "ex2.example"));
    assert_eq!(hop_under_test.shows(0..19, &RESOLVED, (5, 5)), None, "the host beside it");
    for number in 0..=REMEMBERED {
        hop_under_test.hop = hop("primary", &format!("mx{number}.example"));
        assert_eq!(hop_under_test.refused(0, &RESOLVED, &From::new(0, 0)), Verdict::Believe);
    }
    assert!(hop_under_test.all.hops.len() <= REMEMBERED);
    hop_under_test.hop = refusing;
    assert_eq!(
        hop_under_test.refused(50, &RESOLVED, &From::new(0, 0)),
        Verdict::Unreachable(Change::Same),
        "what shows stays"
    );
}

#[test]
fn a_client_is_its_network_and_no_sender_is_a_domain() {
    for (clients, expected) in [
        (["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::"], 1),
        (["2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:1:1::1"], 3),
        (["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1"], 2),
    ] {
        let networks: BTreeSet<IpAddr> = clients.iter().map(|client| one_client(client.parse().unwrap())).collect();
        assert_eq!(networks.len(), expected, "{clients:?}");
    }
    let all = RefusesEverybody::default();
    let domain = |reverse_path: &ReversePath| all.hashes(Source { reverse_path, client: None }).domain;
    let address = |text| ReversePath::Address(Address::parse(text).unwrap());
    assert_eq!(domain(&address("a@D.example")), domain(&address("b@d.example")));
    assert_ne!(domain(&address("a@d.example")), domain(&ReversePath::Null));
}

#[derive(Debug, Clone)]
enum Happens {
    Message { domain: usize, client: usize },
    Refused { number: usize, known: usize, domain: usize, client: usize },
    Accepted { known: usize },
}

const KNOWN: [Known; 5] = [RESOLVED, GOOD, VERIFIED, DOUBTED, NOBODY];

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        30 => (0_usize..7, 0_usize..7).prop_map(|(domain, client)| Happens::Message { domain, client }),
        200 => (0_usize..30, 0_usize..5, 0_usize..7, 0_usize..7)
            .prop_map(|(number, known, domain, client)| Happens::Refused { number, known, domain, client }),
        1 => (0_usize..5).prop_map(|known| Happens::Accepted { known }),
    ]
}

proptest! {
    /// Compared with the rule, applied to the whole history.
    #[test]
    fn it_is_as_the_rule_says(all in proptest::collection::vec(happens(), 1..600)) {
        let mut hop_under_test = HopUnderTest { all: RefusesEverybody::default(), hop: hop("primary", "ex1.example") };
        let (mut messages, mut refusals, mut everybody) = (Vec::new(), Vec::new(), false);
        for happens in all {
            match happens {
                Happens::Message { domain, client } => {
                    messages.push((domain, client));
                    hop_under_test.message(domain, client);
                }
                Happens::Accepted { known } => {
                    let change = hop_under_test.all.accepted(&hop_under_test.hop, &KNOWN[known], Step::Rcpt);
                    let ends = everybody && known != 4;
                    prop_assert_eq!(change == Change::News, ends);
                    if known != 4 {
                        refusals.clear();
                        everybody = false;
                    }
                }
                Happens::Refused { number, known, domain, client } => {
                    let before = everybody;
                    if known < 3 {
                        refusals.push((number, domain, client));
                        let last = &messages[messages.len().saturating_sub(100)..];
                        let few = |all: BTreeSet<usize>| all.len().clamp(1, 5);
                        let domains = few(last.iter().map(|one| one.0).collect());
                        let clients = few(last.iter().map(|one| one.1).collect());
                        let of = |part: fn(&(usize, usize, usize)) -> usize| {
                            refusals.iter().map(part).collect::<BTreeSet<_>>().len()
                        };
                        everybody |= of(|one| one.0) >= 20 && of(|one| one.1) >= domains && of(|one| one.2) >= clients;
                    }
                    let expected = match (known, before, everybody) {
                        (4, ..) | (_, _, false) => Verdict::Believe,
                        (_, true, _) => Verdict::Unreachable(Change::Same),
                        (_, false, true) => Verdict::Unreachable(Change::News),
                    };
                    prop_assert_eq!(hop_under_test.refused(number, &KNOWN[known], &From::new(domain, client)), expected);
                }
            }
        }
    }
}
