//! Which recipients of a message share an attempt.

use crate::config::{Protocol, SendConnector};
use crate::delivery::branch::MAX_RECIPIENTS;
use crate::routing::verdict::Route;
use crate::spool::entry::Queued;

/// How recipients of one message on one connector share attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grouping {
    /// All together: the connector has smart hosts.
    Together,
    /// Those with the same next-hop domain: its MX is used.
    ByDomain,
    /// Each alone: a mailbox.
    Each,
}

impl Grouping {
    pub(super) fn of(connector: &SendConnector) -> Self {
        match &connector.protocol {
            Protocol::Smtp(smtp) if smtp.smart_hosts.is_empty() => Self::ByDomain,
            Protocol::Smtp(_) => Self::Together,
            Protocol::Maildir(_) => Self::Each,
        }
    }

    /// Whether two recipients on the same connector may share an attempt.
    pub(super) fn share(self, one: &Route, other: &Route) -> bool {
        match self {
            Self::Together => true,
            Self::ByDomain => one.next_hop_domain == other.next_hop_domain,
            Self::Each => false,
        }
    }
}

/// The positions of the first branch on `connector` among recipients that are `ready`.
pub(super) fn members(
    recipients: &[Queued],
    connector: &str,
    grouping: Grouping,
    ready: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let mut on_connector =
        recipients.iter().enumerate().filter(|(at, queued)| &*queued.route.connector == connector && ready(*at));
    let Some((first, leader)) = on_connector.next() else { return Vec::new() };
    let others = on_connector.filter(|(_, queued)| grouping.share(&leader.route, &queued.route)).map(|(at, _)| at);
    std::iter::once(first).chain(others).take(MAX_RECIPIENTS).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::routing::verdict::RouteKind;
    use crate::smtp::address::Address;
    use crate::smtp::envelope::RcptTo;
    use crate::spool::entry::RecipientState;
    use crate::time::UnixTime;

    fn queued(address: &str, connector: &str) -> Queued {
        let address = Address::parse(address).unwrap();
        let route = Route {
            connector: connector.into(),
            next_hop_domain: address.domain().clone(),
            rcpt_to: address.clone(),
            way: RouteKind::External,
        };
        Queued { rcpt: RcptTo { address, notify: None, orcpt: None }, route, state: RecipientState::due(UnixTime(0)) }
    }

    #[test]
    fn recipients_share_an_attempt_as_their_connector_allows() {
        let all = [queued("a@x.y", "one"), queued("b@x.y", "two"), queued("c@z.y", "one"), queued("d@x.y", "one")];
        for (connector, grouping, busy, expected) in [
            ("one", Grouping::Together, None, vec![0, 2, 3]),
            ("one", Grouping::ByDomain, None, vec![0, 3]),
            ("one", Grouping::ByDomain, Some(0), vec![2]),
            ("one", Grouping::Each, None, vec![0]),
            ("two", Grouping::Each, None, vec![1]),
            ("two", Grouping::Together, Some(1), vec![]),
            ("three", Grouping::Together, None, vec![]),
        ] {
            let found = members(&all, connector, grouping, |at| Some(at) != busy);
            assert_eq!(found, expected, "{connector} {grouping:?} {busy:?}");
        }
    }

    #[test]
    fn a_branch_has_at_most_a_hundred_recipients() {
        let all: Vec<_> = (0..250).map(|n| queued(&format!("u{n}@x.y"), "one")).collect();
        let mut done = HashSet::new();
        let mut sizes = Vec::new();
        loop {
            let branch = members(&all, "one", Grouping::Together, |at| !done.contains(&at));
            if branch.is_empty() {
                break;
            }
            sizes.push(branch.len());
            done.extend(branch);
        }
        assert_eq!(sizes, [100, 100, 50]);
    }
}
