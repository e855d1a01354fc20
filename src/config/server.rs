//! The tables that exist once: `[server]`, `[admin]`, `[reports]`, `[loop_detection]`, `[spool]`, `[trace]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::reader::{Reader, name};
use super::units::domain_name;
use super::value_error::ValueError;
use super::{Admin, AllowPrivate, Cluster, LoopDetection, LoopMode, Reports, Server, Standby, Trace};
use crate::smtp::address::Address;
use crate::smtp::domain::Domain;

const DEFAULT_STATE_DIR: &str = "/var/lib/fingerpost";
/// Bytes.
pub(super) const DEFAULT_MIN_FREE: u64 = 1 << 30;
/// Bytes.
pub(super) const DEFAULT_TRACE_SIZE: u64 = 4 << 30;
const DEFAULT_REPORTS_PER_MINUTE: usize = 60;
const DEFAULT_DEAD_LETTERS: usize = 1000;
const DEFAULT_DEAD_LETTERS_KEPT: Duration = Duration::from_hours(30 * 24);
/// The least `[trace] max_size`, bytes.
const LEAST_TRACE_SIZE: u64 = 64 << 20;
/// For what a node does at the same time, and one that reads.
const LEAST_CONNECTIONS: u64 = 7;
const DEFAULT_CONNECTIONS: usize = 10;
pub(super) const DEFAULT_TRACE_DAYS: u32 = 14;

/// `[reports]` without its defaults, which depend on the accepted domains.
#[derive(Debug, Default)]
pub(super) struct WrittenReports {
    pub(super) from: Option<Address>,
    pub(super) deliver_to: Option<Arc<str>>,
    per_minute: Option<usize>,
    allow_private: AllowPrivate,
    max_dead_letters: Option<usize>,
    keep_dead_letters: Option<Duration>,
}

impl WrittenReports {
    /// Adds the defaults. `first` is the first accepted domain, or our host name: reports come from its postmaster.
    pub(super) fn used(self, first: &Domain) -> Reports {
        Reports {
            from: self.from.unwrap_or_else(|| Address::postmaster(first)),
            deliver_to: self.deliver_to,
            per_minute: self.per_minute.unwrap_or(DEFAULT_REPORTS_PER_MINUTE),
            allow_private: self.allow_private,
            max_dead_letters: self.max_dead_letters.unwrap_or(DEFAULT_DEAD_LETTERS),
            keep_dead_letters: self.keep_dead_letters.unwrap_or(DEFAULT_DEAD_LETTERS_KEPT),
        }
    }
}

/// The program itself takes this much, bytes.
const LEAST_MEMORY: u64 = 16 << 20;

/// `[server]`, and the patterns of `include`.
pub(super) fn server(reader: &mut Reader<'_>) -> (Server, Vec<String>) {
    reader.require("hostname", "the name that this host calls itself, such as \"mx.contoso.com\"");
    // The substitute is never used: a missing host name is an error.
    let hostname = reader.text("hostname", domain_name).unwrap_or_else(stand_in_domain);
    let installation = reader.optional("installation", name);
    let memory_limit = reader.size("memory_limit");
    if memory_limit.is_some_and(|limit| limit < LEAST_MEMORY) {
        reader.problem("memory_limit", "must be at least 16MiB: below it all mail would be turned away for ever");
    }
    let server = Server {
        installation: installation.map_or_else(|| hostname.to_string(), |name| name.to_string()),
        hostname,
        state_dir: reader.path("state_dir").unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
        user: reader.optional("user", name),
        drain_timeout: reader.duration("drain_timeout").unwrap_or(Duration::from_secs(30)),
        memory_limit,
    };
    let include = reader.list("include", pattern).unwrap_or_default();
    (server, include)
}

#[expect(clippy::expect_used, reason = "`localhost` is a domain name")]
fn stand_in_domain() -> Domain {
    Domain::parse("localhost").expect("a domain name")
}

/// Wildcards are allowed in the file's name only, so that one folder has to be watched.
fn pattern(text: &str) -> Result<String, ValueError> {
    let folder = text.rsplit_once('/').map_or("", |(folder, _)| folder);
    if text.is_empty() || text.ends_with('/') {
        return Err("expected files such as \"domains.d/*.toml\"".into());
    }
    if folder.contains(['*', '?']) {
        return Err("`*` and `?` may stand in the file's name only, not in its folder's".into());
    }
    Ok(text.to_owned())
}

/// `[admin]`.
pub(super) fn admin(reader: &mut Reader<'_>, state_dir: &Path) -> Admin {
    let bind = reader.text("bind", |text| match socket_address(text)? {
        // Every request carries the token, and the API speaks plain HTTP.
        address if !address.ip().is_loopback() => Err(ValueError::Other(format!(
            "`{text}` is not a loopback address, and the token would cross the network in clear text; \
             bind to 127.0.0.1 and use a tunnel or a TLS proxy on this host"
        ))),
        address => Ok(address),
    });
    Admin {
        metrics_bind: reader.text("metrics_bind", socket_address).unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9925))),
        bind: bind.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8025))),
        token_file: reader.path_below("token_file", state_dir).unwrap_or_else(|| state_dir.join("admin.token")),
    }
}

/// An address and a port to listen on.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, ValueError> {
    text.parse().map_err(|_| format!("`{text}` is not ADDRESS:PORT, such as 127.0.0.1:25 or [::1]:25").into())
}

/// `[reports]`.
pub(super) fn reports(reader: &mut Reader<'_>) -> WrittenReports {
    let address = |text: &str| Address::parse(text).map_err(|error| format!("`{text}` is not an address: {error}"));
    WrittenReports {
        from: reader.optional("from", address),
        deliver_to: reader.optional("deliver_to", name),
        per_minute: reader.number("per_minute", 1),
        allow_private: match reader.flag("allow_private") {
            Some(true) => AllowPrivate::Yes,
            Some(false) | None => AllowPrivate::No,
        },
        max_dead_letters: reader.number("max_dead_letters", 1),
        keep_dead_letters: reader.positive("keep_dead_letters"),
    }
}

/// `[loop_detection]`.
pub(super) fn loop_detection(reader: &mut Reader<'_>, state_dir: &Path) -> LoopDetection {
    let mode = reader.choice("mode", &[("refuse", LoopMode::Refuse), ("report", LoopMode::Report)]);
    let key_files: Option<Vec<PathBuf>> = reader.paths_below("key_files", state_dir);
    reader.require_some("key_files", "the first key file signs the stamps");
    LoopDetection {
        mode: mode.unwrap_or(LoopMode::Refuse),
        max_received: reader.number("max_received", 1).unwrap_or(50),
        max_passes: reader.number("max_passes", 1).unwrap_or(8),
        key_files: key_files.unwrap_or_else(|| vec![state_dir.join("loop.key")]),
    }
}

/// `[cluster]`. Where `node` is not written it is empty, and becomes our host name.
pub(super) fn cluster(reader: &mut Reader<'_>) -> Cluster {
    reader.require("database", "where the queue is, such as \"postgresql://fingerpost@db1,db2/fingerpost\"");
    let connections = reader.number("connections", LEAST_CONNECTIONS);
    let standby = reader.choice("standby", &[("required", Standby::Required), ("preferred", Standby::Preferred)]);
    Cluster {
        database: reader.text("database", database).unwrap_or_default(),
        password_file: reader.path("password_file"),
        ca: reader.path("ca"),
        node: reader.name_or_variable("node").map(|name| name.to_string()).unwrap_or_default(),
        connections: connections.unwrap_or(DEFAULT_CONNECTIONS),
        standby: standby.unwrap_or(Standby::Required),
    }
}

/// A URL that can be used, without a password.
fn database(text: &str) -> Result<String, ValueError> {
    use tokio_postgres::config::SslMode;
    let url: tokio_postgres::Config = text.parse().map_err(|error| format!("it cannot be used: {error}"))?;
    if url.get_password().is_some() {
        return Err("it has a password, and this file is read by many: write password_file".into());
    }
    if url.get_hosts().is_empty() || url.get_dbname().is_none() || url.get_user().is_none() {
        return Err("expected \"postgresql://USER@HOST[:PORT][,HOST[:PORT]]/DATABASE\"".into());
    }
    // The library's default would accept a server that has no TLS.
    if url.get_ssl_mode() == SslMode::Prefer && text.contains("sslmode") {
        return Err("sslmode is \"require\", the default, with a verified certificate, or \"disable\"".into());
    }
    Ok(text.to_owned())
}

/// `[spool]`: `min_free` in bytes, and `max_messages`. That has no default: memory is watched, and how many messages
/// fit depends on its size.
pub(super) fn spool(reader: &mut Reader<'_>) -> (u64, Option<u64>) {
    (reader.size("min_free").unwrap_or(DEFAULT_MIN_FREE), reader.number("max_messages", 1))
}

/// `[trace]`.
pub(super) fn trace(reader: &mut Reader<'_>) -> Trace {
    let max_size = reader.size("max_size").unwrap_or(DEFAULT_TRACE_SIZE);
    if max_size < LEAST_TRACE_SIZE {
        reader.problem("max_size", "expected at least \"64MiB\": what comes within a moment is written in one go");
    }
    Trace { days: reader.number("days", 1).unwrap_or(DEFAULT_TRACE_DAYS), max_size }
}
