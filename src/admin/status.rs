//! The server in one look: what `GET /api/status`, `fingerpost status` and the status page show.

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

/// The server in one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// `[server] hostname`.
    pub hostname: String,
    pub started_at: UnixTime,
    /// `serving`, `starting`, `draining`, `back-pressure` or `spool-takes-nothing`.
    pub phase: String,
    /// The configuration in force.
    pub configuration: Configuration,
    pub receive_connectors: Vec<Door>,
    pub accepted_domains: Vec<Accepted>,
    /// Directories, in the order in which they are asked.
    pub directories: Vec<DirectoryStatus>,
    pub send_connectors: Vec<WayOut>,
    pub spool: SpoolSpace,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Digest over all its files.
    pub hash: String,
    /// When it was loaded.
    pub loaded_at: UnixTime,
    pub files: Vec<String>,
    /// What is allowed but worth a word, and certificates that are expired or not yet valid.
    pub warnings: Vec<String>,
    /// Why the last reload was not taken, one line a problem; empty where it was.
    pub not_taken: Vec<String>,
}

/// A receive connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    pub name: String,
    /// Where it listens.
    pub bind: Vec<String>,
    /// Its organisation; may be empty.
    pub organization: String,
    /// Connections now.
    pub connections: i64,
}

/// An accepted domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The domain or pattern.
    pub domain: String,
    pub r#type: String,
    /// Where resolved recipients go; may be empty.
    pub deliver_to: String,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryStatus {
    pub name: String,
    /// `file`, `ldap` or `call-ahead`.
    pub kind: String,
    /// Whether it answers.
    pub state: Health,
    /// Why it does not, or which of its servers do not.
    #[serde(default)]
    pub trouble: Vec<String>,
    /// How many addresses `fingerpost_directory_conflicts` counts for it.
    #[serde(default)]
    pub conflicts: i64,
    /// How fresh its snapshot is; `None`: it keeps none.
    pub snapshot: Option<SnapshotReport>,
}

/// A send connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayOut {
    pub name: String,
    /// Its organisation; may be empty.
    pub organization: String,
    /// `smtp` or `maildir`.
    pub protocol: String,
    /// Its next hops and whether they answer.
    pub next_hops: Vec<NextHop>,
    /// Recipients waiting.
    pub waiting: usize,
    /// Recipients held.
    pub held: usize,
    /// Age of the oldest of them, seconds.
    pub oldest_seconds: u64,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// As it was written.
    pub name: String,
    /// Whether it answered last time.
    pub state: Health,
}

/// Whether something answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    Up,
    /// It does not.
    Down,
}

impl Health {
    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }

    /// What a gauge says.
    pub(super) fn of(gauge: &prometheus::IntGauge) -> Self {
        if gauge.get() == 1 { Self::Up } else { Self::Down }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolSpace {
    /// Bytes free.
    pub free_bytes: i64,
    /// Below this mail is turned away.
    pub min_free: u64,
    /// Whether it is being turned away.
    pub back_pressure: bool,
    /// Whose, and for want of what, in words.
    pub turned_away: Vec<String>,
    /// What was held in memory at the last look, without what files have; octets.
    pub memory: i64,
    /// How much memory there is.
    pub memory_limit: i64,
    /// Reports that could not be delivered.
    pub dead_letters: i64,
    /// Why it takes nothing; empty: it does.
    pub takes_nothing: String,
    /// Segments that the disk does not give back.
    pub unreadable: Vec<Unreadable>,
}

/// Collects it. It reads the certificates that are shown, so it may block.
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

/// Why the last reload was not taken.
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
