//! `fingerpost queue`: shows and handles queued mail through the running server.

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::client::{Client, NoAnswer, escaped};
use super::{Format, FormatArgument, Outcome, export, output};
use crate::admin::api::{Done, MOST_LISTED};
use crate::admin::queue::{Listed, Message};
use crate::message::queue_id::QueueId;
use crate::time::UnixTime;

#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// Queued messages, the oldest first
    List {
        /// At most so many
        #[arg(long, value_name = "MESSAGES", default_value_t = 1000)]
        limit: usize,
        /// Those behind this message
        #[arg(long, value_name = "ID")]
        after: Option<QueueId>,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// One message: envelope, recipients, how each stands
    Show {
        id: QueueId,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// Try again now
    Retry {
        #[command(flatten)]
        which: Which,
    },
    /// Drop a message: nobody is told
    Drop { id: QueueId },
    /// Write what waits to files, each message with its envelope, while the server is stopped
    Export {
        /// Read state_dir itself; there is no other way
        #[arg(long, required = true)]
        offline: bool,
        /// A new or an empty folder
        #[arg(value_name = "DIR")]
        to: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// This message
    id: Option<QueueId>,
    /// What waits for this send connector
    #[arg(long, value_name = "NAME")]
    connector: Option<String>,
    /// All messages
    #[arg(long)]
    all: bool,
}

/// Runs it. [`Outcome::No`]: there is no such message, or not all could be exported.
pub(super) async fn queue(config: &Path, command: QueueCommand) -> anyhow::Result<Outcome> {
    if let QueueCommand::Export { to, .. } = &command {
        return export::export(config, to);
    }
    match ask(&Client::new(config)?, command).await {
        Err(NoAnswer::Refused { status: 404, text }) => {
            eprintln!("fingerpost: {}", output::value(&text));
            Ok(Outcome::No)
        }
        other => Ok(other.map(|()| Outcome::Done)?),
    }
}

async fn ask(client: &Client, command: QueueCommand) -> Result<(), NoAnswer> {
    match command {
        QueueCommand::List { limit, after, output: FormatArgument { format } } => {
            let after = after.map(|id| format!("&after={id}")).unwrap_or_default();
            let listed: Listed = client.ask("GET", &format!("/api/queue?limit={limit}{after}")).await?;
            match format {
                Format::Json => output::json(&listed)?,
                Format::Text => output::text(&list(&listed, limit.min(MOST_LISTED), UnixTime::now())),
            }
        }
        QueueCommand::Show { id, output: FormatArgument { format } } => {
            let message: Message = client.ask("GET", &format!("/api/queue/{id}")).await?;
            match format {
                Format::Json => output::json(&message)?,
                Format::Text => output::text(&show(&message)),
            }
        }
        QueueCommand::Retry { which } => {
            let path = match (which.id, which.connector) {
                (Some(id), _) => format!("/api/queue/{id}/retry"),
                (None, Some(connector)) => format!("/api/queue/retry?connector={}", escaped(&connector)),
                (None, None) => "/api/queue/retry".into(),
            };
            let done: Done = client.ask("POST", &path).await?;
            let are = if done.messages == 1 { "message is" } else { "messages are" };
            output::text(&format!("{} {are} due now; reports still wait for their turn\n", done.messages));
        }
        QueueCommand::Drop { id } => {
            let _: Done = client.ask("DELETE", &format!("/api/queue/{id}")).await?;
            output::text(&format!("{id} is dropped; nobody is told\n"));
        }
        QueueCommand::Export { .. } => {} // asks no server
    }
    Ok(())
}

/// `limit`: the number that was requested.
fn list(listed: &Listed, limit: usize, now: UnixTime) -> String {
    if listed.total == 0 {
        return "the queue is empty\n".into();
    }
    let is_shared = listed.messages.iter().any(|message| message.node.is_some());
    let mut head = ["id", "age", "size", "from", "to", "connector", "how it stands"].map(str::to_owned).to_vec();
    if is_shared {
        head.insert(1, "node".into());
    }
    let mut rows = vec![head];
    for message in &listed.messages {
        for (at, recipient) in message.recipients.iter().enumerate() {
            let first = |text: String| if at == 0 { text } else { String::new() };
            let mut row = vec![
                first(message.id.to_string()),
                first(output::age(now.since(message.received_at).as_secs())),
                first(output::bytes(message.size)),
                first(format!("<{}>", message.sender)),
                recipient.address.clone(),
                recipient.connector.clone(),
                recipient.standing.line(),
            ];
            if is_shared {
                row.insert(1, first(message.node_in_words().to_owned()));
            }
            rows.push(row);
        }
    }
    let shown = match (listed.messages.len(), listed.messages.last()) {
        (shown, _) if shown == listed.total => String::new(),
        (_, None) => ", none of them behind that one".into(),
        (shown, Some(last)) if shown >= limit => {
            format!(", {shown} are shown; `--after {}` shows the next ones", last.id)
        }
        (shown, Some(_)) => format!(", the last {shown} are shown"),
    };
    format!("{}{} messages{shown}\n", output::columns(&rows), listed.total)
}

fn show(message: &Message) -> String {
    let origin = match message.receive_connector.as_str() {
        "" => "ourselves (a report)".into(),
        connector => format!("{} through receive connector {connector}", message.client),
    };
    let mut text = format!(
        "{}\n  received  {} from {origin}\n  sender    <{}>\n  message   {}\n  size      {}\n",
        message.id,
        message.received_at,
        output::value(&message.sender),
        output::value(&message.message_id),
        output::bytes(message.size)
    );
    if message.node.is_some() {
        text.push_str(&format!("  node      {}\n", output::value(message.node_in_words())));
    }
    for recipient in &message.recipients {
        let rcpt_to = match recipient.rcpt_to == recipient.address {
            true => String::new(),
            false => format!(" as <{}>", output::value(&recipient.rcpt_to)),
        };
        let address = output::value(&recipient.address);
        text.push_str(&format!("  recipient <{address}>{rcpt_to} by {}\n", recipient.connector));
        text.push_str(&format!("            {}\n", output::value(&recipient.standing.line())));
    }
    text
}
