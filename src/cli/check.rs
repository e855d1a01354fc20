//! `fingerpost check`: checks the configuration, and with `--connect` everything that it names.
//!
//! Without `--connect` only files are read; it also reports what a start on this host would refuse. Nothing is changed.
//! With it [`connect`] also tries everything that the configuration names.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::client::Client;
use super::{Format, Outcome, output};
use crate::admin::api::problem_line;
use crate::admin::status::Status;
use crate::config::check::{Problem, load, render};
use crate::config::{Config, Protocol};
use crate::descriptors;
use crate::obstacle::Obstacle;
use crate::run::preflight::{self, Remark, Weight};
use crate::spool::offline::Look;
use crate::time::UnixTime;

mod call_ahead;
mod certificates;
pub(super) mod connect;
mod database;
mod directory;
mod doors;
pub(super) mod next_hops;
mod source_routes;
mod spool;

/// The result for scripts.
#[derive(Serialize)]
struct Report {
    problems: Vec<String>,
    warnings: Vec<String>,
    findings: Vec<Finding>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    #[serde(flatten)]
    result: Found,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
enum Found {
    /// As it should be.
    Well { found: String },
    /// It works, with a reservation.
    Doubtful { found: String, cure: String },
    /// It does not work.
    Bad { found: String, cure: String },
}

impl Finding {
    fn well(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), result: Found::Well { found: found.into() } }
    }

    fn doubtful(what: impl Into<String>, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), result: Found::Doubtful { found: found.into(), cure: cure.into() } }
    }

    fn bad(what: impl Into<String>, found: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { what: what.into(), result: Found::Bad { found: found.into(), cure: cure.into() } }
    }

    fn is_bad(&self) -> bool {
        matches!(self.result, Found::Bad { .. })
    }

    /// The line, and the remedy on another one.
    fn says(&self, why: &str) -> bool {
        matches!(&self.result, Found::Bad { found, .. } if found.contains(why))
    }

    fn text(&self) -> String {
        match &self.result {
            Found::Well { found } => format!("ok      {}: {found}\n", self.what),
            Found::Doubtful { found, cure } => format!("warning {}: {found}\n        {cure}\n", self.what),
            Found::Bad { found, cure } => format!("FAILED  {}: {found}\n        {cure}\n", self.what),
        }
    }
}

/// Checks the configuration without connecting. [`Outcome::No`]: it would not load.
pub(super) async fn form(file: &Path, format: Format) -> anyhow::Result<Outcome> {
    match load(file, &HashMap::new()) {
        Ok(config) => {
            let mut findings = preflight(file, &config).await;
            findings.extend(certificates::out_of_time(&config, UnixTime::now()));
            findings.extend(spool::mark(&config));
            findings.extend(spool::look(&config, Look::Headers));
            print(&config, findings, format)
        }
        Err(problems) => refuse(&problems, format),
    }
}

/// What a start on this host would refuse; and, if a server runs, a reload.
async fn preflight(file: &Path, config: &Config) -> Vec<Finding> {
    let finding = |Remark { what, weight, obstacle: Obstacle { found, cure } }| match weight {
        Weight::Refused => Finding::bad(what, found, cure),
        Weight::Doubtful | Weight::NotChecked => Finding::doubtful(what, found, cure),
    };
    let mut remarks = preflight::look(config);
    if let Some(open) = open_binds(file, config).await {
        remarks.extend(preflight::new_privileged_binds(config, &open));
    }
    remarks.into_iter().map(finding).collect()
}

/// The listeners of the running server, if they are needed; `None`: none runs, or it does not answer.
async fn open_binds(file: &Path, config: &Config) -> Option<Vec<String>> {
    config.server.user.as_ref()?;
    let status: Status = Client::new(file).ok()?.ask("GET", "/api/status").await.ok()?;
    Some(status.receive_connectors.into_iter().flat_map(|connector| connector.bind).collect())
}

/// Prints why the configuration would not load. That is the answer of `check`, not an error of usage.
fn refuse(problems: &[Problem], format: Format) -> anyhow::Result<Outcome> {
    match format {
        Format::Json => {
            let problems = problems.iter().map(problem_line).collect();
            output::json(&Report { problems, warnings: Vec::new(), findings: Vec::new() })?;
        }
        Format::Text => output::text(&format!("{}\n", render(problems).trim_end())),
    }
    Ok(Outcome::No)
}

fn print(config: &Config, findings: Vec<Finding>, format: Format) -> anyhow::Result<Outcome> {
    let outcome = if findings.iter().any(Finding::is_bad) { Outcome::No } else { Outcome::Done };
    // The unit's limits apply to its ExecStartPre= as well.
    let descriptors = descriptors::warning(config, descriptors::highest_limit());
    let warnings: Vec<String> = config.warnings.iter().cloned().chain(descriptors).collect();
    if format == Format::Json {
        output::json(&Report { problems: Vec::new(), warnings, findings })?;
        return Ok(outcome);
    }
    for warning in &warnings {
        output::text(&format!("warning {warning}\n"));
    }
    for finding in &findings {
        output::text(&finding.text());
    }
    output::text(&format!("{}\n", summary(config)));
    if outcome == Outcome::No {
        let failed = findings.iter().filter(|finding| finding.is_bad()).count();
        output::text(&format!("{failed} of {} checks failed\n", findings.len()));
    }
    Ok(outcome)
}

/// A summary of the configuration in one line.
fn summary(config: &Config) -> String {
    let smtp = config.send_connectors.iter().filter(|connector| matches!(connector.protocol, Protocol::Smtp(_)));
    format!(
        "the configuration is good: {} accepted domains, {} directories, {} receive connectors, {} send connectors \
         ({} by smtp)",
        config.routing.accepted.count(),
        config.directories.len(),
        config.receive_connectors.len(),
        config.send_connectors.len(),
        smtp.count(),
    )
}
