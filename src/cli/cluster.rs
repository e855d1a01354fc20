//! `fingerpost cluster`: makes the tables of the shared queue, moves mail, and shows who lives. It asks the database by
//! itself, so that it works while this node is down.

use std::path::Path;

use anyhow::anyhow;
use clap::Subcommand;
use serde::Serialize;

use super::{Format, FormatArgument, Outcome, output};
use crate::cluster::database::{Connection, Database, DatabaseError};
use crate::cluster::schema::{self, Made, SCHEMA};
use crate::cluster::settings::{self, has_standby_names};
use crate::cluster::status::{Answering, ClusterStatus, Node, SyncStandby, look};
use crate::config::check::load;
use crate::config::{Cluster, Standby};
use crate::time::UnixTime;

mod moves;

/// So much of a configuration's digest is shown to people.
const DIGEST: usize = 12;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Make the tables of the shared queue, or bring them to this version
    Init,
    /// Move what waits in this node's own spool into the shared queue; the server has to be down
    Import,
    /// Move all mail of the shared queue into this node's own spool; all servers have to be down
    Export,
    /// The nodes, their mail, and the database with its standby
    Status {
        #[command(flatten)]
        output: FormatArgument,
    },
}

/// Runs it. [`Outcome::No`]: an operator is needed.
pub(super) async fn cluster(config: &Path, command: ClusterCommand) -> anyhow::Result<Outcome> {
    let config = load(config, &std::collections::HashMap::new()).map_err(|_| {
        anyhow!("the configuration does not load, and says where the database is; see `fingerpost check`")
    })?;
    let state_dir = config.server.state_dir;
    let cluster = config.cluster.ok_or_else(|| {
        anyhow!(
            "the configuration has no table [cluster]: the queue is this node's own. docs/cluster.md says how several \
             nodes share one"
        )
    })?;
    let database = Database::new(&cluster).map_err(|error| anyhow!("[cluster] database: {error}"))?;
    let done = async {
        match command {
            ClusterCommand::Init => init(&database.connect().await?, &cluster).await,
            ClusterCommand::Import => {
                moves::as_owner(&state_dir)?;
                moves::import(&database, &cluster, &state_dir).await
            }
            ClusterCommand::Export => {
                moves::as_owner(&state_dir)?;
                moves::export(&database, &cluster, &state_dir).await
            }
            ClusterCommand::Status { output: FormatArgument { format } } => {
                status(&database.connect().await?, &cluster, format).await
            }
        }
    };
    done.await.map_err(|error: CommandError| match error {
        CommandError::Database(error) => told(&database.hosts(), &error),
        CommandError::Other(error) => error,
    })
}

#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// The error with where it was, and what to do.
fn told(hosts: &str, error: &DatabaseError) -> anyhow::Error {
    match error {
        DatabaseError::Away(why) => {
            anyhow!("no database at {hosts}: {why}; is one of them up, does it take writes, and does it let us in?")
        }
        DatabaseError::Said { .. } if error.is_forbidden() => {
            anyhow!("{error}, at {hosts}; the role needs the right CREATE on the database, or has to own its tables")
        }
        _ => anyhow!("{error}, at {hosts}"),
    }
}

async fn init(connection: &Connection, cluster: &Cluster) -> Result<Outcome, CommandError> {
    settings::check(connection).await?;
    if schema::number(connection).await? != Some(SCHEMA) {
        refuse_without_standby(connection).await?;
    }
    let text = match schema::init(connection).await? {
        Made::New => format!("the database has its tables now (schema {SCHEMA})"),
        Made::Upgraded(from) => format!("upgraded from schema {from} to {SCHEMA}"),
        Made::AlreadyThere => format!("nothing to do: schema {SCHEMA}"),
    };
    output::text(&format!("{text}\n"));
    if cluster.standby == Standby::Required && !has_standby_names(connection).await? {
        output::complain(
            "warning: synchronous_standby_names is empty, and without it no node accepts mail: name the standby, or set \
             [cluster] standby = \"preferred\"",
        );
    }
    Ok(Outcome::Done)
}

/// What waits for a standby that is not there would wait without a word.
async fn refuse_without_standby(connection: &Connection) -> Result<(), DatabaseError> {
    match settings::missing_standby(connection).await? {
        None => Ok(()),
        Some(missing) => Err(DatabaseError::Unfit(missing.to_string())),
    }
}

/// For scripts.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    status: &'a ClusterStatus,
    /// What needs an operator.
    problems: &'a [String],
}

async fn status(connection: &Connection, cluster: &Cluster, format: Format) -> Result<Outcome, CommandError> {
    let status = look(connection).await?;
    let problems = problems(&status, cluster.standby);
    match format {
        Format::Json => output::json(&Shown { status: &status, problems: &problems })?,
        Format::Text => output::text(&text(&status, &problems, UnixTime::now())),
    }
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::No })
}

/// What needs an operator.
fn problems(status: &ClusterStatus, standby: Standby) -> Vec<String> {
    let mut problems = Vec::new();
    if status.living().next().is_none() {
        problems.push("no node is running: nothing is accepted, and nothing is delivered".to_owned());
    }
    let Answering { synchronous_standby_names: names, synchronous_standby, .. } = &status.database;
    match (standby, names.trim().is_empty(), synchronous_standby) {
        (Standby::Preferred, true, _) | (_, false, SyncStandby::Connected | SyncStandby::Unknown) => {}
        (Standby::Required, true, _) => {
            problems
                .push("synchronous_standby_names is empty: no node accepts mail until it names a standby".to_owned());
        }
        // Commits wait for one that is named, whatever is configured here.
        (_, false, SyncStandby::None) => {
            problems.push(format!("no standby of \"{names}\" is connected: no node accepts mail until one is"));
        }
    }
    if !status.agrees() {
        problems.push(
            "the nodes have different configurations: compare their files, and reload; for [cluster], restart"
                .to_owned(),
        );
    }
    problems
}

fn text(status: &ClusterStatus, problems: &[String], now: UnixTime) -> String {
    let Answering { address, port, timeline, synchronous_standby_names: names, synchronous_standby } = &status.database;
    let at = match (address, port) {
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
        _ => "a local socket".to_owned(),
    };
    let connected = match synchronous_standby {
        SyncStandby::Connected => "connected",
        SyncStandby::None => "none is connected",
        SyncStandby::Unknown => "unknown (grant pg_monitor to see it)",
    };
    let mut text = format!(
        "database at {at}: timeline {timeline}, schema {}\n\
         synchronous standby: {connected}; synchronous_standby_names = \"{names}\"\n\n",
        status.schema
    );
    let head = ["node", "name", "epoch", "since", "version", "configuration", "messages"].map(str::to_owned);
    let rows = std::iter::once(head.to_vec()).chain(status.nodes.iter().map(|node| row(node, now)));
    text.push_str(&output::columns(&rows.collect::<Vec<_>>()));
    if status.nodes.is_empty() {
        text.push_str("no node has joined yet\n");
    }
    text.push_str(&format!(
        "\nwaiting to be taken over: {} messages of no running node\n",
        status.waiting_to_be_taken_over
    ));
    if status.being_moved > 0 {
        text.push_str(&format!(
            "being moved: {} messages of an import or export that has not ended\n",
            status.being_moved
        ));
    }
    problems.iter().for_each(|problem| text.push_str(&format!("problem: {problem}\n")));
    text
}

fn row(node: &Node, now: UnixTime) -> Vec<String> {
    let (number, name) = (node.number.to_string(), node.name.clone());
    let Some(running) = &node.running else {
        return vec![number, name, "not running".into()];
    };
    let epoch = if running.is_connected { running.epoch.to_string() } else { format!("{} (silent)", running.epoch) };
    let since = output::age(now.since(running.since).as_secs());
    let digest = running.configuration.chars().take(DIGEST).collect();
    vec![number, name, epoch, since, running.version.clone(), digest, running.messages.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::Running;

    fn node(number: i32, configuration: &str) -> Node {
        let running = Running {
            epoch: 7,
            since: UnixTime(100),
            version: "0.1.0".into(),
            configuration: configuration.into(),
            messages: 3,
            is_connected: true,
        };
        Node { number, name: format!("mx{number}"), running: Some(running) }
    }

    fn well() -> ClusterStatus {
        let database = Answering {
            address: Some("10.0.0.7".into()),
            port: Some(5432),
            timeline: 2,
            synchronous_standby_names: "db2".into(),
            synchronous_standby: SyncStandby::Connected,
        };
        let nodes = vec![node(0, "0123456789abcdef"), node(1, "0123456789abcdef")];
        ClusterStatus { schema: 1, database, nodes, waiting_to_be_taken_over: 4, being_moved: 0 }
    }

    #[test]
    fn what_needs_an_operator_is_a_problem() {
        type Change = fn(&mut ClusterStatus);
        let cases: [(&str, Change, [&[&str]; 2]); 9] = [
            ("all is well", |_| {}, [&[], &[]]),
            ("nobody", |status| status.nodes.clear(), [&["no node is running"]; 2]),
            ("all stopped", |status| stop(&mut status.nodes), [&["no node is running"]; 2]),
            ("one stopped", |status| stop(&mut status.nodes[1..]), [&[], &[]]),
            ("all silent", |status| silence(&mut status.nodes), [&["no node is running"]; 2]),
            (
                "no names",
                |status| status.database.synchronous_standby_names = " ".into(),
                [&["synchronous_standby_names is empty"], &[]],
            ),
            (
                "no standby",
                |status| status.database.synchronous_standby = SyncStandby::None,
                [&["no standby of \"db2\""]; 2],
            ),
            ("not to be seen", |status| status.database.synchronous_standby = SyncStandby::Unknown, [&[], &[]]),
            ("differ", |status| status.nodes[1] = node(1, "ffff"), [&["different configurations"]; 2]),
        ];
        for (what, change, expected) in cases {
            for (standby, expected) in [Standby::Required, Standby::Preferred].into_iter().zip(expected) {
                let mut status = well();
                change(&mut status);
                let found = problems(&status, standby);
                assert_eq!(found.len(), expected.len(), "{what}, {standby:?}: {found:?}");
                assert!(
                    found.iter().zip(expected).all(|(found, expected)| found.contains(expected)),
                    "{what}: {found:?}"
                );
            }
        }
    }

    fn stop(nodes: &mut [Node]) {
        nodes.iter_mut().for_each(|node| node.running = None);
    }

    fn silence(nodes: &mut [Node]) {
        nodes.iter_mut().filter_map(|node| node.running.as_mut()).for_each(|running| running.is_connected = false);
    }

    #[test]
    fn configurations_of_silent_nodes_do_not_count() {
        let mut status = well();
        status.nodes[1] = node(1, "ffff");
        silence(&mut status.nodes[1..]);
        assert!(status.agrees());
    }

    #[test]
    fn it_is_read_in_one_look() {
        let mut status = well();
        stop(&mut status.nodes[1..]);
        status.being_moved = 2;
        let expected = "database at 10.0.0.7:5432: timeline 2, schema 1\n\
             synchronous standby: connected; synchronous_standby_names = \"db2\"\n\n\
             node  name  epoch        since  version  configuration  messages\n\
             0     mx0   7            5m     0.1.0    0123456789ab   3\n\
             1     mx1   not running\n\n\
             waiting to be taken over: 4 messages of no running node\n\
             being moved: 2 messages of an import or export that has not ended\n\
             problem: one\n";
        assert_eq!(text(&status, &["one".to_owned()], UnixTime(400)), expected);
    }
}
