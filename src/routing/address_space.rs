//! Address spaces: which send connector serves a domain (DESIGN section 3).

use std::sync::Arc;

use crate::fast_map::FastMap;
use crate::smtp::domain::Domain;

/// An address space of a send connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressSpace {
    /// `None`: `*`, every domain that is not accepted.
    pub domain: Option<Domain>,
    /// Whether it includes subdomains.
    pub subdomains: bool,
    /// Among equally specific address spaces the lowest cost wins.
    pub cost: u32,
}

/// The address spaces of all connectors. The most specific wins, then the lowest cost, then the connector's name in
/// alphabetical order.
#[derive(Debug, Clone, Default)]
pub struct AddressSpaces {
    exact: FastMap<Domain, Winner>,
    below: FastMap<Domain, Winner>,
    any: Option<Winner>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Winner {
    cost: u32,
    connector: Arc<str>,
}

impl AddressSpaces {
    /// Indexes pairs of a connector's name and one of its address spaces.
    pub fn new<'a>(spaces: impl IntoIterator<Item = (&'a Arc<str>, &'a AddressSpace)>) -> Self {
        let mut index = Self::default();
        for (connector, space) in spaces {
            let winner = Winner { cost: space.cost, connector: connector.clone() };
            let Some(domain) = &space.domain else {
                index.any = Some(index.any.map_or(winner.clone(), |old| old.min(winner)));
                continue;
            };
            keep_best(&mut index.exact, domain, &winner);
            if space.subdomains {
                keep_best(&mut index.below, domain, &winner);
            }
        }
        index
    }

    /// The connector that serves an accepted domain; `*` is not considered.
    #[must_use]
    pub fn for_accepted(&self, domain: &Domain) -> Option<&Arc<str>> {
        let above = || domain.parents().find_map(|parent| self.below.get(parent));
        self.exact.get(domain).or_else(above).map(|winner| &winner.connector)
    }

    /// The connector that serves a domain that is not accepted.
    #[must_use]
    pub fn for_foreign(&self, domain: &Domain) -> Option<&Arc<str>> {
        self.for_accepted(domain).or(self.any.as_ref().map(|winner| &winner.connector))
    }
}

fn keep_best(map: &mut FastMap<Domain, Winner>, domain: &Domain, winner: &Winner) {
    let best = map.entry(domain.clone()).or_insert_with(|| winner.clone());
    if *winner < *best {
        *best = winner.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spaces(written: &[(&str, &str, bool, u32)]) -> AddressSpaces {
        let one = |(connector, domain, subdomains, cost): &(&str, &str, bool, u32)| {
            let domain = (*domain != "*").then(|| Domain::parse(domain).unwrap());
            (Arc::<str>::from(*connector), AddressSpace { domain, subdomains: *subdomains, cost: *cost })
        };
        let spaces: Vec<_> = written.iter().map(one).collect();
        AddressSpaces::new(spaces.iter().map(|(connector, space)| (connector, space)))
    }

    #[test]
    fn the_most_specific_then_the_cheapest_then_the_first_name_wins() {
        let spaces = spaces(&[
            ("out", "*", false, 1),
            ("dear", "a.example", true, 20),
            ("cheap", "a.example", true, 10),
            ("b", "b.a.example", false, 50),
            ("z", "c.example", false, 5),
            ("y", "c.example", false, 5),
        ]);
        for (domain, accepted, foreign) in [
            ("a.example", Some("cheap"), Some("cheap")),
            ("x.a.example", Some("cheap"), Some("cheap")),
            ("b.a.example", Some("b"), Some("b")),
            ("x.b.a.example", Some("cheap"), Some("cheap")),
            ("c.example", Some("y"), Some("y")),
            ("x.c.example", None, Some("out")),
            ("[192.0.2.1]", None, Some("out")),
        ] {
            let domain = Domain::parse(domain).unwrap();
            assert_eq!(spaces.for_accepted(&domain).map(|name| &**name), accepted, "{domain}");
            assert_eq!(spaces.for_foreign(&domain).map(|name| &**name), foreign, "{domain}");
        }
    }
}
