//! Descriptors: how many this process may have (RLIMIT_NOFILE), what of them is set aside for the spool, next hops and
//! the admin side, and how many connections of clients the rest is enough for.
//!
//! `run` raises the limit and `listener` keeps to it, so that no crowd of clients takes what the queue needs; `check`
//! and the start warn where `max_connections` does not fit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// What a client's connection takes: its socket, and the file of a large message.
const PER_CONNECTION: usize = 2;
/// What a connection to a next hop takes: itself, one that lies idle beside it, and the message that is read.
const PER_NEXT_HOP: usize = 3;
/// A directory's connections, and its file while it is written.
const PER_DIRECTORY: usize = 16;
/// Connections to `[admin]` `metrics_bind` and `bind`.
pub const ADMIN: usize = 384;
/// The spool's segments, folders and lock.
const SPOOL: usize = 64;
/// The runtime, the log, the trace, the DNS, and connections on their way out.
const REST: usize = 64;
/// Where all that is more than there is, clients have one of so many still.
const LEAST: usize = 4;
/// Those who read why they are turned away, and those whose balancer has not said who they are: one of so many each,
const PASSING: usize = 16;
/// but no more than these.
const MOST_PASSING: usize = 256;
/// Of all connections one of so many is for clients with an organization,
const RESERVED: usize = 10;
/// and so many at least, up to half of them.
const LEAST_RESERVED: usize = 10;

/// How many connections of clients there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub all: usize,
    /// Of clients of receive connectors without an organization.
    pub strangers: usize,
}

impl Room {
    /// What there is for clients of this configuration where `limit` descriptors may be open.
    #[must_use]
    pub fn of(config: &Config, limit: usize) -> Self {
        let left = limit.saturating_sub(set_aside(config, limit)).max(limit / LEAST);
        let all = (left / PER_CONNECTION).max(1);
        let organizations = config.receive_connectors.iter().any(|connector| !connector.organization.is_empty());
        let reserved = if organizations { reserved(all) } else { 0 };
        Self { all, strangers: all - reserved }
    }
}

/// How many of so many places are not for strangers.
#[must_use]
pub fn reserved(places: usize) -> usize {
    (places / RESERVED).max(LEAST_RESERVED).min(places / 2)
}

/// Descriptors that clients never get.
fn set_aside(config: &Config, limit: usize) -> usize {
    let binds: usize = config.receive_connectors.iter().map(|connector| connector.bind.len()).sum();
    let next_hops: usize = config.send_connectors.iter().map(|connector| connector.max_connections).sum();
    let each = [
        (1, binds),
        (PER_NEXT_HOP, next_hops),
        (PER_DIRECTORY, config.directories.len()),
        (1, ADMIN + SPOOL + REST),
        (2, passing(limit)),
    ];
    each.iter().fold(0, |sum: usize, (each, number)| sum.saturating_add(each.saturating_mul(*number)))
}

/// How many may read at once why they are turned away, and how many may be waited for whose balancer has not said who
/// they are.
#[must_use]
pub fn passing(limit: usize) -> usize {
    (limit / PASSING).clamp(1, MOST_PASSING)
}

/// What to do where the receive connectors' `max_connections` do not fit into `limit`; `None`: they do.
#[must_use]
pub fn warning(config: &Config, limit: usize) -> Option<String> {
    let connectors = config.receive_connectors.iter();
    let wanted = connectors.fold(0, |sum: usize, connector| sum.saturating_add(connector.max_connections));
    let aside = set_aside(config, limit);
    let clients = wanted.saturating_mul(PER_CONNECTION);
    if clients.saturating_add(aside) <= limit {
        return None;
    }
    // More is set aside of a higher limit.
    let needed = (0..8).fold(limit, |needed, _| clients.saturating_add(set_aside(config, needed)));
    Some(format!(
        "max_connections of all receive connectors is {wanted} together, of which {room} fit: {limit} descriptors may be \
         open (RLIMIT_NOFILE), {aside} of them are set aside, a connection takes {PER_CONNECTION}; write \
         LimitNOFILE={needed} in the unit, or lower max_connections",
        room = Room::of(config, limit).all
    ))
}

/// How many descriptors this process may have now.
#[must_use]
pub fn limit() -> usize {
    as_number(getrlimit(Resource::Nofile).current)
}

/// How many it could have.
#[must_use]
pub fn highest_limit() -> usize {
    as_number(getrlimit(Resource::Nofile).maximum)
}

/// Takes as many as the system allows. It is left as it is where that fails, which is told.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = ?current, to = ?maximum, "the limit of descriptors was raised"),
        Err(error) => tracing::warn!(%error, from = ?current, to = ?maximum, "the limit of descriptors stays as it is"),
    }
}

/// `None` is no limit.
fn as_number(limit: Option<u64>) -> usize {
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::check::load_text;

    const MINIMAL: &str = include_str!("../conf/minimal.toml");

    fn config(text: &str) -> Config {
        load_text(text, Path::new("/etc/fingerpost/fingerpost.toml")).unwrap()
    }

    #[test]
    fn clients_get_what_is_not_set_aside() {
        let config = config(MINIMAL);
        let (binds, next_hops) = (2, 3 * 20);
        let fixed = binds + 3 * next_hops + 16 + 384 + 64 + 64;
        for (limit, passing) in [(2048, 128), (4096, 256), (65_536, 256), (1 << 30, 256)] {
            assert_eq!(set_aside(&config, limit), fixed + 2 * passing, "{limit}");
            assert_eq!(Room::of(&config, limit).all, (limit - fixed - 2 * passing) / 2, "{limit}");
        }
        for (limit, all) in [(256, 32), (64, 8), (8, 1), (0, 1)] {
            assert_eq!(Room::of(&config, limit).all, all, "{limit}: what there is cannot be enough");
        }
        assert!(Room::of(&config, usize::MAX).all > 1 << 40);
    }

    #[test]
    fn the_last_places_are_for_organizations() {
        let door = "[[receive_connector]]\nname = \"secondary\"\nbind = [\"0.0.0.0:25\"]\n\
                    remote_networks = [\"10.0.0.6\"]\norganization = \"secondary\"\n";
        let with = format!("{MINIMAL}{door}");
        for (limit, reserved) in [(65_536, 3215), (256, 10), (64, 4), (8, 0)] {
            let Room { all, strangers } = Room::of(&config(&with), limit);
            assert_eq!(all - strangers, reserved, "{limit}: {all}");
        }
        let Room { all, strangers } = Room::of(&config(MINIMAL), 65_536);
        assert_eq!(all, strangers, "nobody has an organization");
    }

    #[test]
    fn what_does_not_fit_is_told_with_a_number_that_does() {
        let config = config(MINIMAL);
        for limit in [64, 1024, 4096, 10_000] {
            let told = warning(&config, limit).unwrap();
            let needed = told.split("LimitNOFILE=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert!(needed > 10_000, "{told}");
            assert!(told.contains("is 5000 together") && told.contains("lower max_connections"), "{told}");
            assert_eq!((warning(&config, needed), warning(&config, needed - 1).is_some()), (None, true), "{limit}");
        }
        assert_eq!(warning(&config, usize::MAX), None);
    }
}
