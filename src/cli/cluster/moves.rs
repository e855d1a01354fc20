//! `fingerpost cluster import` and `export`: this node's own mail into the shared queue, and all mail of that into this
//! node's own spool. No server may run here meanwhile: both lock what one would use.

use std::path::Path;

use anyhow::anyhow;

use super::{CommandError, Outcome, output, refuse_without_standby};
use crate::cluster::database::{Connection, Database, DatabaseError};
use crate::cluster::epoch::SILENT;
use crate::cluster::export::{self, Exported};
use crate::cluster::import::{self, Imported};
use crate::cluster::moving::MoveError;
use crate::cluster::settings::{self, has_standby_names};
use crate::cluster::{schema, stopped};
use crate::config::{Cluster, Standby};
use crate::metrics::Metrics;
use crate::run::privileges;
use crate::spool::store::LogStore;
use crate::spool::{NodeFolder, Sizes, Spool};

impl From<MoveError> for CommandError {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Database(error) => Self::Database(error),
            MoveError::Refused(text) => Self::Other(anyhow!(text)),
            other => Self::Other(anyhow!("{other}; what is moved already stays so, and the same command goes on")),
        }
    }
}

pub(super) async fn import(database: &Database, cluster: &Cluster, state_dir: &Path) -> Result<Outcome, CommandError> {
    let (_node, connection) = connect(database, state_dir).await?;
    let connection = &connection;
    if cluster.standby == Standby::Required && !has_standby_names(connection).await? {
        let text = "synchronous_standby_names is empty, and mail is to be on two machines: name the standby first";
        return Err(DatabaseError::Unfit(text.into()).into());
    }
    refuse_without_standby(connection).await?;
    let folder = state_dir.join("spool");
    if !folder.is_dir() {
        let text = format!("there is no spool in {}: nothing to move", folder.display());
        return Err(anyhow!(text).into());
    }
    let spool = LogStore::open(&folder, Sizes::default(), Metrics::new()).map_err(anyhow::Error::from)?;
    let Imported { moved, damaged } =
        import::import(connection, &cluster.node, cluster.standby, &folder, &spool).await?;
    for message in &damaged {
        output::complain(&format!("message {} is not moved: {}", message.id, message.why));
    }
    output::text(&format!(
        "{moved} messages are in the shared queue now, and the nodes take them over within seconds; the node's own \
         spool is not used any more\n"
    ));
    Ok(if damaged.is_empty() { Outcome::Done } else { Outcome::No })
}

/// The node's folder, for as long as the command runs, and the primary that a server here would believe.
async fn connect(database: &Database, state_dir: &Path) -> Result<(NodeFolder, Connection), CommandError> {
    let node = NodeFolder::open(state_dir.join("node")).map_err(anyhow::Error::from)?;
    database.timelines().keep_in(&node.file("timeline")).map_err(anyhow::Error::msg)?;
    let connection = database.connect().await?;
    schema::check(&connection).await?;
    settings::check(&connection).await?;
    Ok((node, connection))
}

pub(super) async fn export(database: &Database, cluster: &Cluster, state_dir: &Path) -> Result<Outcome, CommandError> {
    let (node, connection) = connect(database, state_dir).await?;
    refuse_without_standby(&connection).await?;
    let folder = state_dir.join("spool");
    let spool = LogStore::open(&folder, Sizes::default(), Metrics::new()).map_err(anyhow::Error::from)?;
    let unended = stopped::unended(&connection, node.epoch(), &cluster.node).await?;
    if !unended.is_empty() {
        let names: Vec<&str> = unended.iter().map(|node| node.name.as_str()).collect();
        output::complain(&format!(
            "these nodes have not left the cluster: {}. Looking for {} s whether they run",
            names.join(", "),
            SILENT.as_secs()
        ));
    }
    stopped::end(&connection, &unended).await?;
    let exported = export::export(database, &folder, &spool).await?;
    let here = spool.live_messages();
    drop(spool); // and with it the queue's time is saved
    Ok(told(&exported, here))
}

/// Says what was done; [`Outcome::No`] where messages stay in the database.
fn told(exported: &Exported, here: usize) -> Outcome {
    let Exported { moved, damaged, of_other_moves, later } = exported;
    for message in damaged {
        output::complain(&format!("message {} stays in the database: {}", message.id, message.why));
    }
    if *of_other_moves > 0 {
        output::complain(&format!(
            "{of_other_moves} messages stay in the database: they belong to an import or export of another node that \
             broke off. Run the same command there again, and then this one"
        ));
    }
    if *later > 0 {
        output::complain(&format!(
            "{later} messages stay in the database: a node has accepted them meanwhile. Stop all nodes, and run this \
             command again"
        ));
    }
    let is_all = damaged.is_empty() && *of_other_moves == 0 && *later == 0;
    let next = match is_all {
        true => "Remove [cluster] from the configuration, and start the server",
        false => {
            "Before [cluster] is removed see to what stays: a node that is started with [cluster] takes over what is \
             damaged, and `fingerpost queue drop` or a report to its sender ends it"
        }
    };
    output::text(&format!("{moved} messages were moved; {here} wait in this node's own spool now. {next}\n"));
    if is_all { Outcome::Done } else { Outcome::No }
}

/// As root, goes on as the user who has `state_dir`: the server could not use files of root's.
pub(super) fn as_owner(state_dir: &Path) -> Result<(), CommandError> {
    Ok(privileges::become_owner_of(state_dir).map_err(|why| anyhow!(why))?)
}
