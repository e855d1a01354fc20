//! `check --connect`: tries everything in the configuration once; each finding has a remedy.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD};

use super::{
    Finding, call_ahead, certificates, database, directory, doors, next_hops, preflight, print, refuse, spool,
};
use crate::cli::{Format, Outcome, output};
use crate::config::check::load;
use crate::config::{Config, DirectoryConfig, DirectoryKind};
use crate::directory::call_ahead::prober::Prober;
use crate::directory::{Directories, Needs, build};
use crate::lookup::{Freshness, Lookup, Question};
use crate::metrics::Metrics;
use crate::spool::offline::Look;
use crate::time::UnixTime;

/// Tries everything. [`Outcome::No`]: something failed.
pub(in crate::cli) async fn everything(file: &Path, format: Format) -> anyhow::Result<Outcome> {
    let config = match load(file, &HashMap::new()) {
        Ok(config) => config,
        Err(problems) => return refuse(&problems, format),
    };
    let mut findings = preflight(file, &config).await;
    findings.extend(certificates::look(&config, UnixTime::now()));
    findings.extend(directories(&config).await);
    findings.extend(next_hops::visit_all(&config).await);
    findings.extend(doors::knock_at_all(&config).await);
    findings.extend(database::look(&config).await);
    findings.push(folder(&config.server.state_dir));
    findings.push(disk(&config.server.state_dir, config.min_free));
    findings.extend(spool::mark(&config).or_else(|| spool::look(&config, Look::Whole)));
    print(&config, findings, format)
}

async fn directories(config: &Config) -> Vec<Finding> {
    let (prober, metrics): (Arc<dyn Prober>, _) = (Arc::new(next_hops::way_out(config)), Metrics::new());
    let built =
        match build(&config.directories, None, &Needs { prober: &prober, folder: None, mail: None, metrics: &metrics })
        {
            Ok(built) => built,
            Err(problems) => {
                let cure = "correct the file; while it cannot be read the server does not start";
                return problems.into_iter().map(|problem| Finding::bad("directories", problem, cure)).collect();
            }
        };
    let mut findings = Vec::new();
    for directory in &config.directories {
        let answers = directory_answers(config, &built, directory).await;
        let examined = directory::examine(&built, directory).await;
        let servers = directory::servers(&built, directory, &answers).await;
        findings.extend([vec![answers], examined, servers].concat());
    }
    findings
}

/// Looks up a directory's probe, which needs a bind, a search and the right to read.
async fn directory_answers(config: &Config, built: &Directories, directory: &Arc<DirectoryConfig>) -> Finding {
    let what = format!("directory {}", directory.name);
    let ldap = match &directory.kind {
        DirectoryKind::File(file) => return Finding::well(what, format!("{} is read", file.path.display())),
        DirectoryKind::Ldap(ldap) => ldap,
        DirectoryKind::CallAhead(_) => return call_ahead::ask(what, config, built, directory).await,
    };
    let Some(probe) = &ldap.probe else {
        let cure = "name an address that must be found as `probe`: without one a lost read right looks like \"unknown \
                    recipient\"";
        return Finding::doubtful(what, "not asked, because it has no probe", cure);
    };
    let question = Question { directory: directory.name.clone(), address: probe.clone(), freshness: Freshness::Live };
    match built.ask(&question).await.lookup {
        Lookup::Found(recipient) => {
            Finding::well(what, format!("finds {probe} ({} at {})", recipient.kind.as_str(), recipient.entry))
        }
        Lookup::NotFound => Finding::bad(
            what,
            format!("does not find {probe}"),
            "see that base covers the entry, that bind_dn may read it, and that profile fits the directory",
        ),
        Lookup::Ambiguous(entries) => Finding::bad(
            what,
            format!("has {probe} twice: {}", entries.join(" and ")),
            "remove the address from one of them",
        ),
        Lookup::AcceptsEverything(why) | Lookup::Held(why) | Lookup::Unavailable(why) => {
            let cure = "see that urls, tls, base, bind_dn and password_file are right and that the server is up";
            Finding::bad(what, format!("gives no clean answer: {why}"), directory::cure(&why, cure))
        }
    }
}

/// Whether the current user may write there; not tried, because a check changes nothing.
fn folder(state_dir: &Path) -> Finding {
    let what = format!("state_dir {}", state_dir.display());
    let place = existing(state_dir);
    let written = rustix::fs::accessat(CWD, place, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
    match written {
        Ok(()) if place == state_dir => Finding::well(what, "is writable"),
        Ok(()) => Finding::well(what, format!("will be made in {}, which is writable", place.display())),
        Err(error) => {
            let cure = "make the folder and give it to the user that the server runs as";
            Finding::bad(what, format!("cannot be written in {}: {error}", place.display()), cure)
        }
    }
}

/// The folder itself, or its nearest existing parent.
fn existing(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(folder)
}

fn disk(state_dir: &Path, min_free: u64) -> Finding {
    let place = existing(state_dir);
    let what = format!("disk under {}", place.display());
    let free = match rustix::fs::statvfs(place) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            return Finding::bad(what, format!("cannot be asked: {error}"), "see that state_dir can be reached");
        }
    };
    let found = format!("{} free, mail is turned away below {}", output::bytes(free), output::bytes(min_free));
    match free {
        free if free < min_free => Finding::bad(what, found, "free some space, or lower [spool] min_free"),
        free if free < min_free.saturating_mul(2) => Finding::doubtful(what, found, "free some space soon"),
        _ => Finding::well(what, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Found;
    use super::*;

    #[test]
    fn a_folder_that_is_missing_is_judged_by_the_one_above_it() {
        let above = tempfile::tempdir().unwrap();
        let finding = folder(&above.path().join("a/b"));
        assert!(matches!(&finding.result, Found::Well { found } if found.contains("will be made")), "{finding:?}");
        assert!(matches!(folder(above.path()).result, Found::Well { .. }));
        assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_disk_is_held_against_min_free() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(disk(folder.path(), 1).result, Found::Well { .. }));
        assert!(matches!(disk(folder.path(), u64::MAX).result, Found::Bad { .. }));
    }
}
