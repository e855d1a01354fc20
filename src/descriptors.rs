//! Budgets file descriptors: the limit of this process (RLIMIT_NOFILE), the reserve for the spool, next hops and the
//! admin servers, and how many client connections the rest allows.
//!
//! `run` raises the limit and `listener` enforces it, so that clients never use descriptors that the queue needs;
//! `check` and the start warn if `max_connections` is too high.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// For a client's connection: its socket, and the file of a large message.
const PER_CONNECTION: usize = 2;
/// For a connection to a next hop: itself, an idle one, and the message that is read.
const PER_NEXT_HOP: usize = 3;
/// For a directory: its connections, and its file while it is written.
const PER_DIRECTORY: usize = 16;
/// For connections to `[admin]` `metrics_bind` and `bind`.
pub const ADMIN: usize = 384;
/// For the spool's segments, folders and lock.
const SPOOL: usize = 64;
/// For the runtime, the log, the trace, the DNS, and connections that are being closed.
const REST: usize = 64;
/// Clients get at least this part of the limit, even if the reserve is larger than the rest.
const LEAST: usize = 4;
/// The part for clients that read why they are refused, and as much for those whose load balancer has not sent its
/// header,
const PASSING: usize = 16;
/// but no more than this.
const MOST_PASSING: usize = 256;
/// The part of all connections for clients with an organization,
const RESERVED: usize = 10;
/// and the least number, up to half of them.
const LEAST_RESERVED: usize = 10;

/// The most client connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub all: usize,
    /// Those of receive connectors without an organization.
    pub strangers: usize,
}

impl Room {
    /// The limits for this configuration if `limit` descriptors may be open.
    #[must_use]
    pub fn of(config: &Config, limit: usize) -> Self {
        let left = limit.saturating_sub(set_aside(config, limit)).max(limit / LEAST);
        let all = (left / PER_CONNECTION).max(1);
        let organizations = config.receive_connectors.iter().any(|connector| !connector.organization.is_empty());
        let reserved = if organizations { reserved(all) } else { 0 };
        Self { all, strangers: all - reserved }
    }
}

/// How many of these slots are not for strangers.
#[must_use]
pub fn reserved(places: usize) -> usize {
    (places / RESERVED).max(LEAST_RESERVED).min(places / 2)
}

/// Descriptors that are not for clients.
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

/// How many refused clients may read the reply at the same time, and how many connections may wait for a load
/// balancer's header.
#[must_use]
pub fn passing(limit: usize) -> usize {
    (limit / PASSING).clamp(1, MOST_PASSING)
}

/// The remedy if the receive connectors' `max_connections` do not fit into `limit`; `None`: they do.
#[must_use]
pub fn warning(config: &Config, limit: usize) -> Option<String> {
    let connectors = config.receive_connectors.iter();
    let wanted = connectors.fold(0, |sum: usize, connector| sum.saturating_add(connector.max_connections));
    let aside = set_aside(config, limit);
    let clients = wanted.saturating_mul(PER_CONNECTION);
    if clients.saturating_add(aside) <= limit {
        return None;
    }
    // With a higher limit more is reserved.
    let needed = (0..8).fold(limit, |needed, _| clients.saturating_add(set_aside(config, needed)));
    Some(format!(
        "max_connections of all receive connectors is {wanted} together, of which {room} fit: {limit} descriptors may be \
         open (RLIMIT_NOFILE), {aside} of them are set aside, a connection takes {PER_CONNECTION}; write \
         LimitNOFILE={needed} in the unit, or lower max_connections",
        room = Room::of(config, limit).all
    ))
}

/// The current limit.
#[must_use]
pub fn limit() -> usize {
    as_number(getrlimit(Resource::Nofile).current)
}

/// The highest limit that this process may set.
#[must_use]
pub fn highest_limit() -> usize {
    as_number(getrlimit(Resource::Nofile).maximum)
}

/// Sets the limit as high as the system allows; a failure is logged and changes nothing.
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

/// `None` means no limit.
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
