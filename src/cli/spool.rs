//! `fingerpost spool`: lists and gives up segments that the disk cannot read, through the running server or without it.

use std::path::Path;

use clap::Subcommand;

use super::client::{Client, NoAnswer};
use super::{Format, FormatArgument, Outcome, output};
use crate::admin::spool::{Released, Segments};
use crate::config::check::load;
use crate::spool::release::{LetGo, release};
use crate::time::UnixTime;

#[derive(Debug, Subcommand)]
pub(super) enum SpoolCommand {
    /// Segments that cannot be read, or not all of them
    Unreadable {
        #[command(flatten)]
        output: FormatArgument,
    },
    /// Let a segment go that cannot be read: what is left in it leaves the queue, and nobody is told
    Release {
        /// Its number: 7 for segments/00000007.seg
        #[arg(value_name = "SEGMENT")]
        segment: u32,
        /// Without the server, where it does not start for it
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        output: FormatArgument,
    },
}

/// Runs it. [`Outcome::No`]: there is no such segment.
pub(super) async fn spool(config: &Path, command: SpoolCommand) -> anyhow::Result<Outcome> {
    if let SpoolCommand::Release { segment, offline: true, output: FormatArgument { format } } = command {
        return offline(config, segment, format);
    }
    match ask(&Client::new(config)?, command).await {
        Err(NoAnswer::Refused { status: 404, text }) => {
            eprintln!("fingerpost: {}", output::value(&text));
            Ok(Outcome::No)
        }
        other => Ok(other.map(|()| Outcome::Done)?),
    }
}

async fn ask(client: &Client, command: SpoolCommand) -> Result<(), NoAnswer> {
    match command {
        SpoolCommand::Unreadable { output: FormatArgument { format } } => {
            let segments: Segments = client.ask("GET", "/api/spool/unreadable").await?;
            match format {
                Format::Json => output::json(&segments)?,
                Format::Text => output::text(&list(&segments, UnixTime::now())),
            }
        }
        SpoolCommand::Release { segment, output: FormatArgument { format }, .. } => {
            let path = format!("/api/spool/segments/{segment}/release");
            let released: Released = client.ask("POST", &path).await?;
            match format {
                Format::Json => output::json(&released)?,
                Format::Text => output::text(&gone(&released)),
            }
        }
    }
    Ok(())
}

fn list(segments: &Segments, now: UnixTime) -> String {
    if segments.unreadable.is_empty() {
        return "all segments can be read\n".into();
    }
    let mut rows = vec![["segment", "since", "messages", "why"].map(str::to_owned).to_vec()];
    rows.extend(segments.unreadable.iter().map(|one| {
        let age = output::age(now.since(one.since).as_secs());
        vec![one.segment.to_string(), age, one.messages.to_string(), one.why.clone()]
    }));
    output::columns(&rows)
}

fn gone(released: &Released) -> String {
    let mut rows = vec![["id", "from", "to"].map(str::to_owned).to_vec()];
    for message in &released.messages {
        let to: Vec<&str> = message.recipients.iter().map(|one| &*one.address).collect();
        rows.push(vec![message.id.to_string(), format!("<{}>", message.sender), to.join(" ")]);
    }
    rows.extend(released.unknown.iter().map(|id| vec![id.to_string(), "unknown".into(), "unknown".into()]));
    let many = released.messages.len() + released.unknown.len();
    format!(
        "{}segment {} is kept in the spool's aside/; its {many} messages left the queue, nobody is told\n",
        output::columns(&rows),
        released.segment
    )
}

fn offline(config: &Path, segment: u32, format: Format) -> anyhow::Result<Outcome> {
    let config = load(config, &std::collections::HashMap::new()).map_err(|_| {
        anyhow::anyhow!("the configuration does not load, and says where the spool is; see `fingerpost check`")
    })?;
    let let_go = release(&config.server.state_dir.join("spool"), segment)?;
    match (&let_go, format) {
        (LetGo::Nothing, _) => {
            eprintln!("fingerpost: the disk gives all of segment {segment}: nothing of it is let go");
            return Ok(Outcome::No);
        }
        (LetGo::Bytes { bytes, aside, messages }, Format::Text) => {
            let mut rows = vec![["id", "from", "to"].map(str::to_owned).to_vec()];
            rows.extend(
                messages.iter().map(|one| vec![one.id.to_string(), one.sender.clone(), one.recipients.join(" ")]),
            );
            output::text(&format!(
                "{}{bytes} bytes are let go; the segment as it was is {}. What else it says can be read by the next \
                 start. Messages that are older may be sent again if their outcomes stood there; those above stood in \
                 what can be read\n",
                output::columns(&rows),
                aside.display()
            ));
        }
        (LetGo::Bytes { .. }, Format::Json) => output::json(&let_go)?,
    }
    Ok(Outcome::Done)
}
