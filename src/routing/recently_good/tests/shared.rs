//! Several nodes know of addresses what one would.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What is in the database, as its statements write it.
#[derive(Default)]
struct Told {
    accepted: HashMap<u64, Accepted>,
    refused: HashMap<u64, (QueueTime, QueueTime)>,
}

impl Told {
    fn write(&mut self, news: Vec<News>) {
        for news in news {
            match news {
                News::Accepted { hash, since, last, connector } => {
                    let known = self.accepted.get(&hash);
                    let counts = |known: &&Accepted| {
                        last.since(known.last) < REMEMBERED
                            && known.last.plus(super::super::shared::APART) >= known.forgotten
                    };
                    let since = known.filter(counts).map_or(since, |known| known.since.min(since));
                    let last = known.map_or(last, |known| known.last.max(last));
                    let forgotten = known.map_or(QueueTime::default(), |known| known.forgotten);
                    let accepted = Accepted { since, last, forgotten, connector: connector.to_string() };
                    self.accepted.insert(hash, accepted);
                }
                News::Forgotten { hash, at } => {
                    if let Some(known) = self.accepted.get_mut(&hash) {
                        known.forgotten = known.forgotten.max(at);
                    }
                }
                News::Refused { hash, first, last } => drop(self.refused.insert(hash, (first, last))),
            }
        }
    }

    fn evidence(&self, names: SharedNames) -> Evidence {
        Evidence {
            accepted: self.accepted.get(&names.address).cloned(),
            entry_accepted: self.accepted.get(&names.entry).map(|accepted| accepted.last),
            refused: self.refused.get(&names.entry).copied(),
        }
    }
}

struct Nodes {
    all: Vec<RecentlyGood>,
    told: Told,
}

impl Nodes {
    fn new(count: usize) -> Self {
        let node = |_| {
            let mut node = RecentlyGood::new(KEY);
            node.share(at(0));
            node
        };
        Self { all: (0..count).map(node).collect(), told: Told::default() }
    }

    fn accepted(&mut self, node: usize, address: &Address, now: QueueTime) {
        self.all[node].accepted(address, "secondary", now);
        self.told.write(self.all[node].news());
    }

    fn doubt(&mut self, node: usize, address: &Address, by: KnownBy, now: QueueTime) -> doubt::Doubt {
        let names = self.all[node].shared_names(address, by);
        self.all[node].learn(names, &self.told.evidence(names), now);
        let doubt = refused(&mut self.all[node], address, by, now);
        self.told.write(self.all[node].news());
        doubt
    }
}

fn refused(node: &mut RecentlyGood, address: &Address, by: KnownBy, now: QueueTime) -> doubt::Doubt {
    node.doubt(address, by, &Refused::ByUs { row: Some(9), reply: &reply::USER_UNKNOWN }, now)
}

#[test]
fn a_success_at_one_node_counts_at_the_other_and_so_does_the_hour_of_doubt() {
    let (mut nodes, bob) = (Nodes::new(2), address("bob@contoso.com"));
    nodes.accepted(0, &bob, at(0));
    assert_eq!(nodes.doubt(1, &bob, KnownBy::Nobody, at(DAY)), doubt::Doubt::Temporary);
    assert_eq!(nodes.doubt(0, &bob, KnownBy::Nobody, at(DAY + HOUR - 1)), doubt::Doubt::Temporary);
    assert!(matches!(nodes.doubt(0, &bob, KnownBy::Nobody, at(DAY + HOUR)), doubt::Doubt::Believe(_)));
    assert!(matches!(nodes.doubt(1, &bob, KnownBy::Nobody, at(DAY + HOUR + 1)), doubt::Doubt::Believe(_)));
    nodes.accepted(1, &bob, at(2 * DAY));
    assert_eq!(nodes.doubt(0, &bob, KnownBy::Nobody, at(2 * DAY + 1)), doubt::Doubt::Temporary, "a new hour begins");
}

#[test]
fn nodes_of_one_memory_alone_tell_nobody() {
    let mut alone = RecentlyGood::new(KEY);
    alone.accepted(&address("bob@contoso.com"), "secondary", at(0));
    assert_eq!(alone.news(), []);
    alone.share(at(1));
    assert_eq!(alone.news().len(), 1, "what was known before is told first");
    alone.accepted(&address("bob@contoso.com"), "secondary", at(2));
    let news = alone.news();
    assert_eq!(news.len(), 1);
    alone.accepted(&address("eve@contoso.com"), "secondary", at(3));
    alone.untold(news);
    assert_eq!(alone.news().len(), 2, "what could not be written comes again, and first");
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Accepted,
    Refused(KnownBy),
}

fn events() -> impl Strategy<Value = Vec<(usize, usize, Event, u64)>> {
    let by = prop_oneof![Just(KnownBy::Nobody), Just(KnownBy::Directory), Just(KnownBy::DirectoryWithoutTag)];
    let event = prop_oneof![2 => Just(Event::Accepted), 3 => by.prop_map(Event::Refused)];
    let later = prop_oneof![11..60_u64, Just(HOUR / 2), Just(HOUR), Just(DAY), Just(3 * DAY), Just(7 * DAY)];
    prop::collection::vec((0..3_usize, 0..3_usize, event, later), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))] // each takes four memories of full size

    #[test]
    fn three_nodes_doubt_as_one_does(events in events()) {
        let addresses = ["bob@contoso.com", "bob+a@contoso.com", "bob+b@contoso.com"].map(address);
        let (mut one, mut nodes, mut now) = (RecentlyGood::new(KEY), Nodes::new(3), 0);
        for (node, which, event, later) in events {
            now += later;
            let (address, time) = (&addresses[which], at(now));
            match event {
                Event::Accepted => {
                    one.accepted(address, "secondary", time);
                    nodes.accepted(node, address, time);
                }
                Event::Refused(by) => {
                    let is_tagged = address.local().contains('+');
                    let by = if is_tagged || by != KnownBy::DirectoryWithoutTag { by } else { KnownBy::Directory };
                    let expected = refused(&mut one, address, by, time);
                    prop_assert_eq!(nodes.doubt(node, address, by, time), expected, "{} at {}", address, now);
                }
            }
        }
    }
}
