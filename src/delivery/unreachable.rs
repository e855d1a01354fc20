//! Decides about a recipient whose next hop cannot be reached, or is slower than `cut_through_patience`: the key
//! `when_unreachable` (DESIGN section 7). Pure.
//!
//! Cut-through calls it before it answers RCPT, and after the end of data for a branch that broke.

use crate::config::WhenUnreachable;
use crate::routing::verdict::RouteKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    Queue,
    /// The client gets `451 4.4.1` and keeps it.
    Defer,
}

/// Whether the client is a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// No organisation, not authenticated.
    Stranger,
    /// Any other client, or ourselves.
    Known,
}

/// What is known of the recipient from earlier mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    Good,
    Nothing,
}

/// Queued or deferred. `Auto` defers recipients without evidence that they exist: if the next hop refused one later,
/// the report would go to a sender address that a stranger may have forged.
#[must_use]
pub fn policy(when: WhenUnreachable, way: RouteKind, client: Client, past: impl FnOnce() -> Past) -> Unreachable {
    match (when, way, client) {
        (WhenUnreachable::Auto, RouteKind::Relayed | RouteKind::External, Client::Stranger) => match past() {
            Past::Good => Unreachable::Queue,
            Past::Nothing => Unreachable::Defer,
        },
        (WhenUnreachable::Defer, ..) => Unreachable::Defer,
        (WhenUnreachable::Queue | WhenUnreachable::Auto, ..) => Unreachable::Queue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [RouteKind; 5] = [
        RouteKind::Resolved,
        RouteKind::Relayed,
        RouteKind::RelayedVerified,
        RouteKind::Redirected,
        RouteKind::External,
    ];

    #[test]
    fn auto_defers_what_nobody_vouches_for_and_the_others_do_as_they_say() {
        for way in WAYS {
            for client in [Client::Stranger, Client::Known] {
                for past in [Past::Good, Past::Nothing] {
                    let named = |when| policy(when, way, client, || past);
                    assert_eq!(named(WhenUnreachable::Queue), Unreachable::Queue, "{way:?} {client:?} {past:?}");
                    assert_eq!(named(WhenUnreachable::Defer), Unreachable::Defer, "{way:?} {client:?} {past:?}");
                }
            }
        }
        for (way, client, past, expected) in [
            (RouteKind::Resolved, Client::Stranger, Past::Nothing, Unreachable::Queue),
            (RouteKind::Redirected, Client::Stranger, Past::Nothing, Unreachable::Queue),
            (RouteKind::RelayedVerified, Client::Stranger, Past::Nothing, Unreachable::Queue),
            (RouteKind::Relayed, Client::Stranger, Past::Nothing, Unreachable::Defer),
            (RouteKind::External, Client::Stranger, Past::Nothing, Unreachable::Defer),
            (RouteKind::Relayed, Client::Stranger, Past::Good, Unreachable::Queue),
            (RouteKind::External, Client::Stranger, Past::Good, Unreachable::Queue),
            (RouteKind::Relayed, Client::Known, Past::Nothing, Unreachable::Queue),
            (RouteKind::External, Client::Known, Past::Nothing, Unreachable::Queue),
        ] {
            assert_eq!(policy(WhenUnreachable::Auto, way, client, || past), expected, "{way:?} {client:?} {past:?}");
        }
    }
}
