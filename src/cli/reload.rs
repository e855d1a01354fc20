//! `fingerpost reload`: the server loads the changed configuration now, or reports why not.

use std::path::Path;

use super::client::Client;
use super::{Format, Outcome, output};
use crate::admin::api::ReloadAnswer;

/// Requests it. [`Outcome::No`]: it was refused or held; the old configuration stays in force.
pub(super) async fn reload(config: &Path, path: &str, format: Format) -> anyhow::Result<Outcome> {
    let answer: ReloadAnswer = Client::new(config)?.ask("POST", path).await?;
    if format == Format::Json {
        output::json(&answer)?;
    }
    let text = match &answer {
        ReloadAnswer::Applied { changes } => format!("applied\n{}", indented(changes)),
        ReloadAnswer::Unchanged => "unchanged: the files say what is in force already\n".into(),
        ReloadAnswer::Refused { problems } => {
            format!("refused, the old configuration stays:\n{}\n", problems.join("\n"))
        }
        ReloadAnswer::Held { vanishing } => format!(
            "held, the old configuration stays: {} domains would vanish; `fingerpost reload --accept` takes it\n{}",
            vanishing.len(),
            indented(vanishing)
        ),
    };
    if format == Format::Text {
        output::text(&text);
    }
    Ok(match answer {
        ReloadAnswer::Applied { .. } | ReloadAnswer::Unchanged => Outcome::Done,
        ReloadAnswer::Refused { .. } | ReloadAnswer::Held { .. } => Outcome::No,
    })
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}\n")).collect()
}
