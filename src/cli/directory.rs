//! `fingerpost directory`: the directories' content and answers, through the running server.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;

use super::client::{Client, escaped};
use super::held::{Announced, ListFormat, addresses, duration, expect, held};
use super::{Format, FormatArgument, Outcome, address_of, output};
use crate::admin::directory::{Answered, Looked, LookupAnswer, Stats};
use crate::directory::{Conflict, Refreshed, SnapshotReport};
use crate::printable;

/// How often progress is printed.
const TELL_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(super) enum DirectoryCommand {
    /// What each directory holds, and how it has answered since the start
    Stats {
        #[command(flatten)]
        output: FormatArgument,
    },
    /// What each directory, asked itself, says of an address, and the decision
    Lookup {
        #[arg(value_name = "ADDRESS")]
        address: String,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// Reads a directory that is kept in memory as a whole, now
    Refresh {
        #[arg(value_name = "DIRECTORY")]
        name: String,
        /// Take the changes that are held
        #[arg(long)]
        accept: bool,
        /// Of them those of the addresses in this file, one a line; the output of `held --format csv` will do
        #[arg(long, value_name = "FILE", requires = "accept")]
        only: Option<PathBuf>,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// Which changes of a directory are held, and why
    Held {
        #[arg(value_name = "DIRECTORY")]
        name: String,
        /// For people, for scripts, or for a spreadsheet
        #[arg(long, value_enum, default_value_t = ListFormat::Text)]
        format: ListFormat,
    },
    /// Announces changes: for a while they neither count nor are held
    Expect {
        #[arg(value_name = "DIRECTORY")]
        name: String,
        #[command(flatten)]
        what: Announced,
        /// For how long, such as `2h`
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        during: Duration,
    },
    /// Every entry of a directory that is kept in memory, one JSON object a line
    Export {
        #[arg(value_name = "DIRECTORY")]
        name: String,
    },
    /// Addresses that more than one entry has
    Conflicts {
        /// At most so many
        #[arg(long, value_name = "ADDRESSES", default_value_t = 1000)]
        limit: usize,
        #[command(flatten)]
        output: FormatArgument,
    },
}

/// Runs it. [`Outcome::No`]: no entry has the address; changes are held; there are conflicts.
pub(super) async fn directory(config: &Path, command: DirectoryCommand) -> anyhow::Result<Outcome> {
    let client = Client::new(config)?;
    match command {
        DirectoryCommand::Stats { output: FormatArgument { format } } => {
            let stats: Vec<Stats> = client.ask("GET", "/api/directories").await?;
            print(format, &stats, |stats| table(stats))?;
            Ok(Outcome::Done)
        }
        DirectoryCommand::Lookup { address, output: FormatArgument { format } } => {
            let address = address_of(&address)?;
            let path = format!("/api/directories/lookup?address={}", escaped(address.as_str()));
            let looked: Looked = client.ask("GET", &path).await?;
            print(format, &looked, looked_up)?;
            let found = looked.answers.iter().any(|answer| matches!(answer.said, LookupAnswer::Found { .. }));
            Ok(if found { Outcome::Done } else { Outcome::No })
        }
        DirectoryCommand::Refresh { name, accept, only, output: FormatArgument { format } } => {
            let (query, list) = match (accept, &only) {
                (false, _) => ("", String::new()),
                (true, None) => ("?accept", String::new()),
                (true, Some(file)) => ("?accept&only", addresses(file)?),
            };
            let path = format!("/api/directories/{}/refresh{query}", escaped(&name));
            let refreshed: Refreshed = with_progress(&client, &name, client.send(&path, &list)).await?;
            print(format, &refreshed, |refreshed| read(&name, refreshed))?;
            if let Some(file) = only.filter(|_| refreshed.turned == 0 && refreshed.held > 0) {
                eprintln!(
                    "fingerpost: nothing of {} was taken: none of the addresses in it is held, or the directory had not \
                     been read since the start",
                    file.display()
                );
            }
            Ok(if refreshed.held == 0 { Outcome::Done } else { Outcome::No })
        }
        DirectoryCommand::Held { name, format } => held(&client, &name, format).await,
        DirectoryCommand::Expect { name, what, during } => expect(&client, &name, &what, during).await,
        DirectoryCommand::Export { name } => {
            let lines = client.body("GET", &format!("/api/directories/{}/export", escaped(&name))).await?;
            let escaped = std::str::from_utf8(&lines).map(printable::json);
            std::io::stdout().write_all(escaped.as_ref().map_or(&lines, |text| text.as_bytes()))?;
            Ok(Outcome::Done)
        }
        DirectoryCommand::Conflicts { limit, output: FormatArgument { format } } => {
            let conflicts: Vec<Conflict> =
                client.ask("GET", &format!("/api/directories/conflicts?limit={limit}")).await?;
            print(format, &conflicts, |conflicts| listed(conflicts))?;
            Ok(if conflicts.is_empty() { Outcome::Done } else { Outcome::No })
        }
    }
}

fn print<T: serde::Serialize>(format: Format, value: &T, text: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(value)?,
        Format::Text => output::text(&text(value)),
    }
    Ok(())
}

/// Prints the progress of a read, on a terminal.
async fn with_progress<T>(client: &Client, name: &str, read: impl Future<Output = T>) -> T {
    let mut read = std::pin::pin!(read);
    loop {
        if let Ok(read) = tokio::time::timeout(TELL_EVERY, &mut read).await {
            return read;
        }
        if std::io::stderr().is_terminal()
            && let Ok(stats) = client.ask::<Vec<Stats>>("GET", "/api/directories").await
            && let Some(entries) =
                stats.iter().find(|one| one.name == name).and_then(|one| one.snapshot.as_ref()?.reading)
        {
            eprintln!("{entries} entries so far");
        }
    }
}

fn read(name: &str, refreshed: &Refreshed) -> String {
    let Refreshed { recipients, turned, held } = refreshed;
    let mut text = format!("{name}: {recipients} recipients, mail for {turned} of them takes another way or none\n");
    if *held > 0 {
        text.push_str(&format!(
            "held: it would for {held} more; see fingerpost directory held {name}, look at the directory, and if that is \
             meant: fingerpost directory refresh {name} --accept\n"
        ));
    }
    text
}

fn table(stats: &[Stats]) -> String {
    let mut rows = vec![vec![
        "directory".to_owned(),
        "kind".into(),
        "state".into(),
        "holds".into(),
        "has said".into(),
        "snapshot".into(),
    ]];
    for one in stats {
        let some = |(name, count): (&String, i64)| (count > 0).then(|| format!("{count} {name}"));
        let holds: Vec<String> = one.recipients.iter().filter_map(|(name, count)| some((name, *count))).collect();
        let lookups = one.lookups.iter().map(|(name, count)| (name, i64::try_from(*count).unwrap_or(i64::MAX)));
        let mut said: Vec<String> = lookups.filter_map(some).collect();
        let odd = [(one.conflicts, "conflicts"), (one.contradictions, "contradictions")];
        said.extend(odd.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")));
        rows.push(vec![
            one.name.clone(),
            one.kind.clone(),
            if one.accepts_everything { "accepts everything" } else { one.state.as_str() }.to_owned(),
            joined(&holds),
            joined(&said),
            one.snapshot.as_ref().map_or_else(|| "-".to_owned(), SnapshotReport::to_string),
        ]);
    }
    output::columns(&rows)
}

fn joined(parts: &[String]) -> String {
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn looked_up(looked: &Looked) -> String {
    let rows: Vec<Vec<String>> = looked.answers.iter().map(answer).collect();
    format!("{}\n{}", output::columns(&rows), looked.decision.text())
}

fn answer(answered: &Answered) -> Vec<String> {
    let said = match &answered.said {
        LookupAnswer::Found { entry, kind, rule, target, mail_server, send_connector } => {
            let mut text = format!("{kind}: {entry}, by {rule}");
            let others = [("target", target), ("mail server", mail_server), ("send connector", send_connector)];
            for (name, value) in others {
                if let Some(value) = value {
                    text.push_str(&format!("; {name} {value}"));
                }
            }
            text
        }
        LookupAnswer::NotFound => "not found".to_owned(),
        LookupAnswer::Ambiguous { entries } => format!("ambiguous: {}", entries.join("; ")),
        LookupAnswer::AcceptsEverything { server: why } | LookupAnswer::Unavailable { why } => {
            format!("unavailable: {why}")
        }
    };
    vec![answered.directory.clone(), said]
}

fn listed(conflicts: &[Conflict]) -> String {
    if conflicts.is_empty() {
        return "no address has more than one entry\n".to_owned();
    }
    let mut rows = vec![vec!["address".to_owned(), "decides".into(), "entries".into()]];
    for conflict in conflicts {
        let decides = conflict.decides.clone().unwrap_or_else(|| "nobody: 451".to_owned());
        rows.push(vec![conflict.address.clone(), decides, conflict.entries.join("; ")]);
    }
    output::columns(&rows)
}
