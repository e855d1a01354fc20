//! The state of the server for `GET /api/status`, `fingerpost status` and the status page.

use serde::{Deserialize, Serialize};

use super::Parts;
use super::probes::Phase;
use crate::config::{Config, Protocol};
use crate::descriptors;
use crate::directory::SnapshotReport;
use crate::reload::Reloaded;
use crate::spool::condition::{Takes, Unreadable};
use crate::time::UnixTime;
use crate::tls::serve;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub hostname: String,
    pub started_at: UnixTime,
    /// `serving`, `starting`, `draining`, `back-pressure` or `spool-takes-nothing`.
    pub phase: String,
    pub configuration: Configuration,
    pub receive_connectors: Vec<Door>,
    pub accepted_domains: Vec<Accepted>,
    /// In the order in which they are asked.
    pub directories: Vec<DirectoryStatus>,
    pub send_connectors: Vec<WayOut>,
    pub spool: SpoolSpace,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub hash: String,
    pub loaded_at: UnixTime,
    pub files: Vec<String>,
    /// Settings that are allowed but questionable, and certificates that are expired or not yet valid.
    pub warnings: Vec<String>,
    /// Why the last reload was refused, a line for each problem; empty: it was not.
    pub not_taken: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    pub name: String,
    pub bind: Vec<String>,
    /// Empty: none.
    pub organization: String,
    pub connections: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub domain: String,
    pub r#type: String,
    /// For resolved recipients; empty: none.
    pub deliver_to: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    pub name: String,
    /// `file`, `ldap` or `call-ahead`.
    pub kind: String,
    pub state: Health,
    /// Why it does not answer, or which of its servers do not.
    #[serde(default)]
    pub trouble: Vec<String>,
    /// The value of `fingerpost_directory_conflicts`.
    #[serde(default)]
    pub conflicts: i64,
    /// `None`: it has no snapshot.
    pub snapshot: Option<SnapshotReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOut {
    pub name: String,
    /// Empty: none.
    pub organization: String,
    /// `smtp` or `maildir`.
    pub protocol: String,
    pub next_hops: Vec<NextHop>,
    /// In recipients.
    pub waiting: usize,
    /// In recipients.
    pub held: usize,
    /// The age of the oldest of both, in seconds.
    pub oldest_seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// As configured.
    pub name: String,
    /// By its last attempt.
    pub state: Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    Up,
    Down,
}

impl Health {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// The state by a gauge.
    pub(super) fn of(gauge: &prometheus::IntGauge) -> Self {
        if gauge.get() == 1 { Self::Up } else { Self::Down }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolSpace {
    pub free_bytes: i64,
    /// With less free space mail is refused.
    pub min_free: u64,
    pub back_pressure: bool,
    /// Which mail is refused and why, as text.
    pub turned_away: Vec<String>,
    /// Memory at the last check in octets, without mapped files.
    pub memory: i64,
    /// In octets.
    pub memory_limit: i64,
    pub dead_letters: i64,
    /// Why the spool accepts no records; empty: it does.
    pub takes_nothing: String,
    /// Segments that the disk cannot read.
    pub unreadable: Vec<Unreadable>,
}

/// Collects the state. Blocks, since it reads certificates.
#[must_use]
pub fn collect(parts: &Parts, now: UnixTime) -> Status {
    let in_force = parts.current.load_full();
    let config = &in_force.config;
    let metrics = &parts.metrics;
    let turned_away: Vec<String> = super::probes::turned_away(metrics)
        .into_iter()
        .map(|(want, whose)| format!("{} for want of {}", whose.in_words(), want.in_words()))
        .collect();
    let back_pressure = !turned_away.is_empty();
    let condition = parts.spool.condition();
    let takes_nothing = match condition.takes() {
        Takes::Records => String::new(),
        Takes::Nothing(why) | Takes::NothingMore(why) => why,
    };
    let phase = match *parts.phase.borrow() {
        Phase::Serving if !takes_nothing.is_empty() => "spool-takes-nothing",
        Phase::Serving if back_pressure => "back-pressure",
        Phase::Serving => "serving",
        Phase::Starting => "starting",
        Phase::Draining => "draining",
    };
    let none: &[&str] = &[];
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        hostname: config.server.hostname.to_string(),
        started_at: parts.started_at.by_day(),
        phase: phase.into(),
        configuration: configuration(parts, config, now),
        receive_connectors: doors(parts, config),
        accepted_domains: domains(config),
        directories: directories(parts, config),
        send_connectors: ways(parts, config, now),
        spool: SpoolSpace {
            free_bytes: metrics.spool_free.with_label_values(none).get(),
            min_free: config.min_free,
            back_pressure,
            turned_away,
            memory: metrics.memory_anonymous.with_label_values(none).get(),
            memory_limit: metrics.memory_limit.with_label_values(none).get(),
            dead_letters: metrics.dead_letters.with_label_values(none).get(),
            takes_nothing,
            unreadable: condition.unreadable(),
        },
    }
}

fn configuration(parts: &Parts, config: &Config, now: UnixTime) -> Configuration {
    let descriptors = descriptors::warning(config, descriptors::limit());
    let out_of_time = serve::out_of_time(config, now).map(|serve::OutOfTime { of, file, why }| {
        format!("certificate of {of}: {} {why}; {}", file.display(), serve::RENEW)
    });
    let loaded_at = parts.metrics.config_last_reload.with_label_values::<&str>(&[]).get();
    Configuration {
        hash: config.hash.clone(),
        loaded_at: UnixTime(u64::try_from(loaded_at).unwrap_or_default()),
        files: config.files.iter().map(|file| file.display().to_string()).collect(),
        warnings: config.warnings.iter().cloned().chain(descriptors).chain(out_of_time).collect(),
        not_taken: parts.reloader.last().map(|(_, last)| not_taken(&last)).unwrap_or_default(),
    }
}

/// Why the last reload was refused.
fn not_taken(last: &Reloaded) -> Vec<String> {
    match last {
        Reloaded::Applied { .. } | Reloaded::Unchanged => Vec::new(),
        Reloaded::Refused(problems) => problems.iter().map(super::api::problem_line).collect(),
        Reloaded::Held { vanishing } => vec![format!(
            "{} domains would vanish ({}); `fingerpost reload --accept` takes it",
            vanishing.len(),
            vanishing.join(", ")
        )],
    }
}

fn doors(parts: &Parts, config: &Config) -> Vec<Door> {
    let door = |connector: &std::sync::Arc<crate::config::ReceiveConnector>| Door {
        name: connector.name.to_string(),
        bind: connector.bind.iter().map(ToString::to_string).collect(),
        organization: connector.organization.to_string(),
        connections: parts.metrics.connections.with_label_values(&[&*connector.name]).get(),
    };
    config.receive_connectors.iter().map(door).collect()
}

fn domains(config: &Config) -> Vec<Accepted> {
    let accepted = |domain: crate::routing::accepted_domain::Accepted<'_>| Accepted {
        domain: domain.pattern.to_string(),
        r#type: domain.kind.as_str().into(),
        deliver_to: domain.deliver_to.map_or_else(String::new, ToString::to_string),
    };
    config.routing.accepted.iter().map(accepted).collect()
}

fn directories(parts: &Parts, config: &Config) -> Vec<DirectoryStatus> {
    let asked = |directory: &std::sync::Arc<crate::config::DirectoryConfig>| DirectoryStatus {
        name: directory.name.to_string(),
        kind: directory.kind.name().to_owned(),
        state: Health::of(&parts.metrics.directory_up.with_label_values(&[&*directory.name])),
        trouble: parts.current.load().resolver.directories().problems(&directory.name),
        conflicts: parts.metrics.directory_conflicts.with_label_values(&[&*directory.name]).get(),
        snapshot: parts.current.load().resolver.directories().snapshot(&directory.name),
    };
    config.directories.iter().map(asked).collect()
}

fn ways(parts: &Parts, config: &Config, now: UnixTime) -> Vec<WayOut> {
    let sums = parts.delivery.sums();
    let way = |connector: &std::sync::Arc<crate::config::SendConnector>| {
        let of = sums.iter().find(|sum| sum.connector == *connector.name);
        let (protocol, next_hops) = match &connector.protocol {
            Protocol::Smtp(smtp) => {
                let hop = |host: &crate::config::SmartHost| {
                    let name = host.to_string();
                    let state = Health::of(&parts.metrics.next_hop_up.with_label_values(&[&*connector.name, &name]));
                    NextHop { name, state }
                };
                (smtp.speaks.name(), smtp.smart_hosts.iter().map(hop).collect())
            }
            Protocol::Maildir(_) => ("maildir", Vec::new()),
        };
        WayOut {
            name: connector.name.to_string(),
            organization: connector.organization.to_string(),
            protocol: protocol.into(),
            next_hops,
            waiting: of.map_or(0, |of| of.waiting),
            held: of.map_or(0, |of| of.held),
            oldest_seconds: of.and_then(|of| of.oldest).map_or(0, |oldest| now.since(oldest).as_secs()),
        }
    };
    config.send_connectors.iter().map(way).collect()
}
