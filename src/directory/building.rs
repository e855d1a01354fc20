//! Builds the directories of a configuration, keeps those whose configuration has not changed, and counts conflicts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::call_ahead::CallAheadDirectory;
use super::call_ahead::prober::Prober;
use super::conflicts::{self, Listed};
use super::file::{self, FileDirectory};
use super::ldap::LdapDirectory;
use super::mail::{Mail, NoMail};
use super::snapshot::Room;
use super::{AnyDirectory, Built, Directories};
use crate::config::{DirectoryConfig, DirectoryKind};
use crate::lookup::Kind;
use crate::metrics::{LOOKUPS, Metrics};
use crate::routing::table::DirectoryRules;

/// The services that directories use.
#[derive(Clone, Copy)]
pub struct Needs<'a> {
    /// Asks mail servers about addresses.
    pub prober: &'a Arc<dyn Prober>,
    /// The folder for snapshots; `None`: no snapshots are made, and the directory is asked for each recipient.
    pub folder: Option<&'a Path>,
    /// Recently accepted mail; `None`: unknown.
    pub mail: Option<&'a Arc<dyn Mail>>,
    pub metrics: &'a Metrics,
}

/// Builds the directories of a configuration, within a tokio runtime. Directories with an unchanged configuration are
/// taken from `previous`, with their connections and caches.
///
/// # Errors
/// Why a directory cannot be used at all (a file that cannot be read or parsed), with directory, file and line.
pub fn build(
    configured: &[Arc<DirectoryConfig>],
    previous: Option<&Directories>,
    needs: &Needs<'_>,
) -> Result<Directories, Vec<String>> {
    let previous = previous.map_or(&[][..], |previous| &previous.built);
    let (mut built, mut problems) = (Vec::new(), Vec::new());
    for config in configured {
        let same = |built: &&Built| built.name == config.name && built.kind == config.kind;
        match previous.iter().find(same) {
            Some(same) => built.push(same.clone()),
            None => match open(config, previous, needs) {
                Ok(directory) => {
                    built.push(Built { name: Arc::clone(&config.name), kind: config.kind.clone(), directory });
                }
                Err(wrong) => problems.extend(wrong.into_iter().map(|w| format!("directory `{}`: {w}", config.name))),
            },
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    forget(previous, &built, needs.metrics);
    let files: Vec<_> = built.iter().filter_map(Built::file).collect();
    let rules = configured.iter().map(|config| config.rules.clone()).collect();
    let counting = tokio::spawn(count_conflicts(built.clone(), rules, needs.metrics.clone()));
    let watches = vec![tokio::spawn(file::watch(files)), counting].into_iter().map(AbortOnDropHandle::new).collect();
    let by_name = built.iter().map(|built| (Arc::clone(&built.name), built.shared())).collect();
    Ok(Directories { by_name, built, _watches: watches })
}

/// How often to check whether conflicts have to be counted again; less often if counting takes long.
const COUNT_EVERY: Duration = Duration::from_secs(2);

/// Counts conflicts whenever a directory's content has changed.
async fn count_conflicts(built: Vec<Built>, rules: Arc<[DirectoryRules]>, metrics: Metrics) {
    let mut counted = None;
    loop {
        let versions: Vec<u64> = built.iter().map(|built| built.shared().version()).collect();
        let begun = tokio::time::Instant::now();
        if counted.as_ref() != Some(&versions) {
            let (all, rules) = (listed(&built), Arc::clone(&rules));
            let names: Vec<Arc<str>> = all.iter().map(|(name, _)| Arc::clone(name)).collect();
            match tokio::task::spawn_blocking(move || conflicts::count(&all, &rules)).await {
                Ok(counts) => names.iter().zip(counts).for_each(|(name, count)| {
                    let gauge = metrics.directory_conflicts.with_label_values(&[&**name]);
                    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
                }),
                Err(error) => tracing::error!("counting the conflicts of directories failed: {error}"),
            }
            counted = Some(versions);
        }
        tokio::time::sleep(COUNT_EVERY.max(begun.elapsed() * 20)).await;
    }
}

/// Directories whose whole content is in memory, with their current content.
pub(super) fn listed(built: &[Built]) -> Vec<(Arc<str>, Arc<dyn Listed>)> {
    let now = |built: &Built| {
        let listed: Arc<dyn Listed> = match &built.directory {
            AnyDirectory::File(file) => file.listed(),
            AnyDirectory::Ldap(ldap) => ldap.served()?,
            AnyDirectory::CallAhead(_) => return None,
        };
        Some((Arc::clone(&built.name), listed))
    };
    built.iter().filter_map(now).collect()
}

fn open(config: &DirectoryConfig, previous: &[Built], needs: &Needs<'_>) -> Result<AnyDirectory, Vec<String>> {
    let Needs { prober, folder, mail, metrics } = *needs;
    let name = &config.name;
    let mut before = None;
    for built in previous.iter().filter(|built| built.name == *name) {
        if let AnyDirectory::Ldap(ldap) = &built.directory {
            ldap.save();
            before = Some(&**ldap);
        }
    }
    for result in LOOKUPS {
        metrics.directory_lookups.with_label_values(&[&**name, result]).inc_by(0);
    }
    metrics.directory_conflicts.with_label_values(&[&**name]).set(0);
    metrics.directory_accepts_everything.with_label_values(&[&**name]).set(0);
    match &config.kind {
        DirectoryKind::File(file) => Ok(AnyDirectory::File(Arc::new(FileDirectory::open(name, file, metrics)?))),
        DirectoryKind::Ldap(ldap) => {
            let nobody: Arc<dyn Mail> = Arc::new(NoMail);
            let room = folder.map(|folder| Room { folder, metrics, mail: mail.unwrap_or(&nobody) });
            Ok(AnyDirectory::Ldap(Arc::new(LdapDirectory::open_after(before, name, ldap, room, metrics)?)))
        }
        DirectoryKind::CallAhead(asked) => {
            let directory = CallAheadDirectory::open(name, asked, prober, metrics)?;
            Ok(AnyDirectory::CallAhead(Arc::new(directory)))
        }
    }
}

/// Removes the gauges of directories that are gone.
fn forget(previous: &[Built], built: &[Built], metrics: &Metrics) {
    for gone in previous.iter().filter(|previous| built.iter().all(|built| built.name != previous.name)) {
        let gauges = [
            &metrics.directory_up,
            &metrics.directory_conflicts,
            &metrics.directory_snapshot_age,
            &metrics.directory_changes_held,
            &metrics.directory_accepts_everything,
            &metrics.directory_contradictions,
        ];
        // It fails if the series was never used.
        gauges.into_iter().for_each(|gauge| _ = gauge.remove_label_values(&[&*gone.name]));
        for kind in Kind::ALL {
            let _ = metrics.directory_recipients.remove_label_values(&[&*gone.name, kind.as_str()]);
        }
    }
}
