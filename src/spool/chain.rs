//! Determines which segments belong to the log, and where each ends: every header names the previous segment. Pure;
//! `recover` calls it.

use std::collections::BTreeMap;

use super::header::Header;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub number: u32,
    /// `None`: its header cannot be read.
    pub header: Option<Header>,
    /// Where its acknowledged records end, as the next segment says, or itself if it was rewritten; `None`: unknown.
    pub end: Option<u64>,
}

/// The log that these segments make up, oldest first, and the numbers of those that are missing from it. Segments that
/// are found but not in the log were never in force, or are no longer needed.
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
                let rewritten = header.map(|header| header.rewritten_end).filter(|end| *end > 0);
                links.push(Link { number, header: *header, end: rewritten.or(end) });
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

    /// A segment from its number, the previous segment, where that ended, and the first segment that is needed.
    fn segment((number, previous, previous_end, first): (u32, u32, u64, u32)) -> (u32, Option<Header>) {
        let (last_id, mark) = (QueueId(0), [0; 8]);
        (number, Some(Header { format: 4, number, previous, previous_end, first, last_id, mark, rewritten_end: 0 }))
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
    fn one_that_was_rewritten_knows_its_own_end() {
        let mut found: BTreeMap<_, _> =
            [(1, 0, 0, 1), (2, 1, 500, 1), (4, 1, 500, 1), (5, 4, 900, 1)].into_iter().map(segment).collect();
        for number in [4, 5] {
            let header = found.get_mut(&number).and_then(Option::as_mut).unwrap();
            header.rewritten_end = u64::from(number) * 10;
        }
        let (links, missing) = chain(&found);
        let links: Vec<_> = links.into_iter().map(|link| (link.number, link.end)).collect();
        let all = vec![(1, Some(500)), (4, Some(40)), (5, Some(50))];
        assert_eq!((links, missing), (all, vec![]), "2 went into 4");
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
