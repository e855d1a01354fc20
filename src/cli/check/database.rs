//! Looks at the database of `[cluster]` as a start would, and further: each host, who takes writes, the tables, the settings,
//! the role's rights, and the standby. Nothing is changed.

use std::path::Path;

use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;

use super::Finding;
use crate::cluster::database::{Connection, Database, DatabaseError, Role, Visited};
use crate::cluster::schema::{self, SCHEMA};
use crate::cluster::settings;
use crate::cluster::status::{self, Answering, SyncStandby};
use crate::cluster::timelines;
use crate::config::{Cluster, Config, Standby};

const DATABASE: &str = "[cluster] database";
const SYNCHRONOUS: &str = "synchronous standby";
/// Commits wait, and nodes take nothing.
const NO_STANDBY: &str = "get the standby going, or have the database's manager name another";

/// Without `[cluster]` there is nothing to look at.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let Some(cluster) = &config.cluster else { return Vec::new() };
    let database = match Database::new(cluster) {
        Ok(database) => database,
        Err(why) => {
            return vec![Finding::bad(DATABASE, why, "see that `ca` names the CAs as PEM, readable for this user")];
        }
    };
    let visited = match database.visit_all().await {
        Ok(visited) => visited,
        Err(error) => return vec![bad(DATABASE, &error)],
    };
    let mut findings = hosts(&visited, cluster, &database);
    findings.extend(replaced(&visited, &config.server.state_dir.join("node/timeline")));
    let primaries = visited.into_iter().filter_map(|host| match host.answer {
        Ok(Role::Primary(connection)) => Some(connection),
        _ => None,
    });
    if let Some(primary) = primaries.max_by_key(Connection::timeline) {
        findings.extend(primary_findings(&primary, cluster).await);
    }
    findings
}

/// A line for each host; and one where none, or more than one, takes writes.
fn hosts(visited: &[Visited], cluster: &Cluster, database: &Database) -> Vec<Finding> {
    let primaries: Vec<_> = visited.iter().filter_map(timeline).collect();
    let way = match (database.is_in_clear(), goes_out(cluster)) {
        (false, _) => Way::Verified,
        (true, false) => Way::ClearWithin,
        (true, true) => Way::ClearOut,
    };
    let mut findings: Vec<_> = visited.iter().map(|host| of_host(host, way, &primaries)).collect();
    match primaries.as_slice() {
        [_] => {}
        [] => findings.push(Finding::bad(
            DATABASE,
            format!("no host of {} takes writes: the server does not start", database.hosts()),
            match visited.iter().all(|host| host.answer.is_ok()) {
                true => {
                    "promote the synchronous standby, or get the primary going; name every host that may be the primary"
                }
                false => "see to the hosts above first: one of them may be the primary, and must not be replaced then",
            },
        )),
        several => findings.push(Finding::bad(
            DATABASE,
            format!("{} hosts take writes, on timelines {several:?}: one of them was replaced", several.len()),
            "stop all but the one that the database's manager believes in, and make standbys of them",
        )),
    }
    findings
}

/// This node has seen a primary that replaced those which take writes now; `file`: where it keeps that.
fn replaced(visited: &[Visited], file: &Path) -> Option<Finding> {
    let saved = match timelines::saved(file) {
        Ok(saved) => saved,
        Err(why) => return Some(Finding::bad(DATABASE, why, "or let this user read it")),
    };
    let highest = visited.iter().filter_map(timeline).max()?;
    (highest < saved).then(|| {
        let found = format!("timeline {highest} takes writes, and this node has seen timeline {saved}, which replaced it");
        let cure = format!(
            "stop that server, and start the one that replaced it; where the database was restored or upgraded (pg_upgrade), \
             remove {} at each node",
            file.display()
        );
        Finding::bad(DATABASE, found, cure)
    })
}

/// Of a host that takes writes.
fn timeline(host: &Visited) -> Option<u32> {
    match &host.answer {
        Ok(Role::Primary(connection)) => Some(connection.timeline()),
        _ => None,
    }
}

/// How safe what is said to a host is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Verified,
    ClearWithin,
    ClearOut,
}

/// `primaries`: the timelines of those that take writes.
fn of_host(Visited { host, answer }: &Visited, way: Way, primaries: &[u32]) -> Finding {
    let what = format!("database {host}");
    let found = match answer {
        Ok(Role::Primary(connection)) => format!("takes writes, on timeline {}", connection.timeline()),
        Ok(Role::Standby) => "is a standby".to_owned(),
        Ok(Role::ReadOnly) => {
            let cure = "switch default_transaction_read_only off, if it should be the primary";
            return Finding::doubtful(what, "is no standby, and takes no writes", cure);
        }
        // The others do its work; what keeps it from letting us in will keep it from being used when it is the primary.
        Err(error) if !primaries.is_empty() && matches!(error, DatabaseError::Away(_)) => {
            let cure = format!("{}; without it there is nobody to take over", cure(error));
            return Finding::doubtful(what, error.to_string(), cure);
        }
        Err(error) => return bad(what, error),
    };
    match way {
        Way::Verified => Finding::well(what, format!("{found}; by TLS, verified")),
        Way::ClearWithin => Finding::well(what, format!("{found}; in clear, on this machine")),
        Way::ClearOut => Finding::doubtful(
            what,
            format!("{found}; in clear: all queued mail crosses the network readable, and the password can be guessed"),
            "take sslmode=disable out of [cluster] database, unless that network is safe",
        ),
    }
}

/// Whether any host is on another machine, as far as its name tells.
fn goes_out(cluster: &Cluster) -> bool {
    let url: Result<tokio_postgres::Config, _> = cluster.database.parse();
    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()),
    };
    url.is_ok_and(|url| !url.get_hosts().iter().all(is_here))
}

async fn primary_findings(primary: &Connection, cluster: &Cluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    match schema::number(primary).await.map(schema::obstacle) {
        Ok(None) => findings.push(tables(primary).await),
        Ok(Some(obstacle)) => findings.push(Finding::bad("tables", obstacle.found, obstacle.cure)),
        Err(error) => findings.push(bad("tables", &error)),
    }
    match settings::obstacles(primary).await {
        Ok(obstacles) if obstacles.is_empty() => findings.push(Finding::well(
            "database settings",
            "fsync, full_page_writes, version and clock are as they should be, and no pooler is in between",
        )),
        Ok(obstacles) => findings.extend(
            obstacles.into_iter().map(|obstacle| Finding::bad("database settings", obstacle.found, obstacle.cure)),
        ),
        Err(error) => findings.push(bad("database settings", &error)),
    }
    match status::answering(primary).await {
        Ok(answering) => findings.push(standby(&answering, cluster.standby)),
        Err(error) => findings.push(bad(SYNCHRONOUS, &error)),
    }
    findings
}

/// The tables are there: whether the role may use them.
async fn tables(primary: &Connection) -> Finding {
    let statement = "SELECT string_agg(c.relname, ', ' ORDER BY c.relname) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = 'fingerpost' AND c.relkind = 'r' AND NOT (has_table_privilege(c.oid, 'SELECT') \
             AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') \
             AND has_table_privilege(c.oid, 'DELETE'))";
    match primary.client().query_one(statement, &[]).await {
        Err(error) => bad("tables", &error.into()),
        Ok(row) => match row.get::<_, Option<String>>(0) {
            None => Finding::well("tables", format!("schema {SCHEMA}, and the role may use them")),
            Some(closed) => Finding::bad("tables", format!("the role may not use all of them: {closed}"), OWN),
        },
    }
}

/// What a role without rights needs.
const OWN: &str = "let the role of [cluster] database own the schema fingerpost and its tables (ALTER ... OWNER TO)";

fn standby(answering: &Answering, wanted: Standby) -> Finding {
    let names = answering.synchronous_standby_names.trim();
    match (names, answering.synchronous_standby, wanted) {
        ("", _, Standby::Required) => Finding::bad(
            SYNCHRONOUS,
            "synchronous_standby_names is empty: no node accepts mail that has to be kept",
            "name the standby there (Patroni: synchronous_mode), or set [cluster] standby = \"preferred\"",
        ),
        ("", _, Standby::Preferred) => Finding::doubtful(
            SYNCHRONOUS,
            "synchronous_standby_names is empty: one machine alone has what is accepted",
            "name the standby there (Patroni: synchronous_mode)",
        ),
        (_, SyncStandby::Connected, _) => Finding::well(SYNCHRONOUS, format!("\"{names}\" is connected")),
        (_, SyncStandby::None, _) => Finding::bad(
            SYNCHRONOUS,
            format!("no standby of \"{names}\" is connected: commits wait, and no node accepts mail"),
            NO_STANDBY,
        ),
        (_, SyncStandby::Unknown, _) => Finding::doubtful(
            SYNCHRONOUS,
            format!("\"{names}\" is named; whether it is connected this role may not see"),
            "GRANT pg_monitor to the role",
        ),
    }
}

fn bad(what: impl Into<String>, error: &DatabaseError) -> Finding {
    Finding::bad(what, error.to_string(), cure(error))
}

fn cure(error: &DatabaseError) -> &'static str {
    match error {
        DatabaseError::Away(why) if why.contains("certificate") => {
            "see that `ca` has the CA of its certificate, and that this is good for the name in [cluster] database"
        }
        DatabaseError::Away(why) if why.contains("TLS") => {
            "switch TLS on at the server (ssl = on), or, within one machine, write ?sslmode=disable"
        }
        DatabaseError::Away(_) => {
            "see that the server is up, that it listens there, and that no firewall is in between"
        }
        DatabaseError::Said { code, .. } if *code == SqlState::INVALID_PASSWORD => {
            "see that password_file has the role's password"
        }
        DatabaseError::Said { code, .. } if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "make the role (CREATE ROLE ... LOGIN), and a hostssl line for this address in pg_hba.conf"
        }
        DatabaseError::Said { code, .. } if *code == SqlState::INVALID_CATALOG_NAME => {
            "make the database (CREATE DATABASE ... OWNER ...)"
        }
        DatabaseError::Said { code, .. } if *code == SqlState::TOO_MANY_CONNECTIONS => {
            "raise max_connections: each node has [cluster] connections of them, and a few more"
        }
        DatabaseError::Said { .. } if error.is_forbidden() => OWN,
        DatabaseError::Said { .. } | DatabaseError::Ended => "see the database's log",
        DatabaseError::Unfit(_) => "the server does not start before this is mended",
    }
}
