//! Which segments make up the log, and where each ends: every header names the one before. Pure; `recover` calls it.

use std::collections::BTreeMap;

use super::header::Header;

/// One segment of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub number: u32,
    /// What it says of itself, if that can be read.
    pub header: Option<Header>,
    /// Where its acknowledged records end, if the next one says so.
    pub end: Option<u64>,
}

/// The log that these segments make up, oldest first, and the numbers of those that are missing from it. What is found
/// and not in the log was never in force, or is not needed any more.
#[must_use]
pub fn chain(found: &BTreeMap<u32, Option<Header>>) -> (Vec<Link>, Vec<u32>) {
    let first = found.values().flatten().map(|header| header.first).max().unwrap_or_default();
    let (mut links, mut missing) = (Vec::new(), Vec::new());
    let before = |number: u32| found.range(..number).next_back().map(|(number, _)| *number);
    let (mut next, mut end) = (found.keys().next_back().copied(), None);
    while let Some(number) = next.filter(|number| *number >= first) {
        (next, end) = match found.get(&number) {
            None => {
                missing.push(number);
                (before(number), None)
            }
            Some(header) => {
                links.push(Link { number, header: *header, end });
                match header {
                    Some(header) if header.previous == 0 || header.previous >= number => (None, None),
                    Some(header) => (Some(header.previous), Some(header.previous_end)),
                    None => (before(number), None),
                }
            }
        };
    }
    links.reverse();
    (links, missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::queue_id::QueueId;

    /// A segment: its number, the one before, where that ended, and the first that is needed.
    fn segment((number, previous, previous_end, first): (u32, u32, u64, u32)) -> (u32, Option<Header>) {
        (number, Some(Header { format: 4, number, previous, previous_end, first, last_id: QueueId(0), mark: [0; 8] }))
    }

    #[test]
    fn each_header_names_the_one_before() {
        for (what, found, links, missing) in [
            ("nothing", vec![], vec![], vec![]),
            ("one", vec![(1, 0, 0, 1)], vec![(1, None)], vec![]),
            ("two", vec![(1, 0, 0, 1), (2, 1, 500, 1)], vec![(1, Some(500)), (2, None)], vec![]),
            (
                "one that was never in force",
                vec![(1, 0, 0, 1), (2, 1, 900, 1), (3, 1, 500, 1)],
                vec![(1, Some(500)), (3, None)],
                vec![],
            ),
            (
                "old ones that came back",
                vec![(2, 1, 5, 1), (4, 3, 6, 2), (5, 4, 7, 4)],
                vec![(4, Some(7)), (5, None)],
                vec![],
            ),
            (
                "one is gone",
                vec![(1, 0, 0, 1), (2, 1, 5, 1), (4, 3, 7, 1)],
                vec![(1, Some(5)), (2, None), (4, None)],
                vec![3],
            ),
        ] {
            let found = found.into_iter().map(segment).collect();
            let (chain, gone) = chain(&found);
            let chain: Vec<_> = chain.into_iter().map(|link| (link.number, link.end)).collect();
            assert_eq!((chain, gone), (links, missing), "{what}");
        }
    }

    #[test]
    fn a_damaged_header_hides_nothing() {
        let mut found: BTreeMap<_, _> = [(1, 0, 0, 1), (2, 1, 5, 1), (3, 2, 6, 1)].into_iter().map(segment).collect();
        found.insert(2, None);
        let (links, missing) = chain(&found);
        let links: Vec<_> = links.into_iter().map(|link| (link.number, link.end)).collect();
        assert_eq!((links, missing), (vec![(1, None), (2, Some(6)), (3, None)], vec![]));
    }
}
