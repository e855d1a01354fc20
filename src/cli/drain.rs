//! `fingerpost drain`: the node leaves the cluster and ends; other nodes take over its mail.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde::Deserialize;

use super::client::{Client, NoAnswer};
use super::held::duration;
use super::{Outcome, output};
use crate::admin::drain::Draining;
use crate::time::UnixTime;

/// How often it is asked whether it still runs.
const AGAIN: Duration = Duration::from_millis(300);
/// How long it may take beside its pause and `drain_timeout`: the last transactions, and leaving the cluster.
const MORE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct DrainArguments {
    /// Go on for so long after /readyz has said `draining`, so that a load balancer has seen it
    #[arg(long, value_name = "TIME", default_value = "7s", value_parser = duration)]
    pause: Duration,
    /// Also if no other node runs: its mail waits in the database
    #[arg(long)]
    alone: bool,
}

/// What tells one run of the server from the next.
#[derive(Deserialize, PartialEq, Eq)]
struct Run {
    started_at: UnixTime,
}

/// Asks for it, says what is handed over, and waits for the end.
pub(super) async fn drain(config: &Path, arguments: &DrainArguments) -> anyhow::Result<Outcome> {
    let client = Client::new(config)?;
    let run: Run = client.ask("GET", "/api/status").await?;
    let alone = if arguments.alone { "&alone" } else { "" };
    let path = format!("/api/drain?pause={}{alone}", arguments.pause.as_secs());
    let draining: Draining = client.ask("POST", &path).await?;
    output::text(&text(&draining));
    let began = Instant::now();
    let patience = Duration::from_secs(draining.pause + draining.drain_timeout) + MORE;
    loop {
        tokio::time::sleep(AGAIN).await;
        match client.ask::<Run>("GET", "/api/status").await {
            Ok(now) if now == run => {}
            // Another run, which something has started.
            Ok(_) => break,
            Err(NoAnswer::Unreachable(_, error)) if error.kind() == ErrorKind::ConnectionRefused => break,
            Err(_) => {} // it broke off: it is ending
        }
        if began.elapsed() > patience {
            bail!("it has not ended within {} s: see its log", patience.as_secs());
        }
    }
    output::text("it has ended; `fingerpost cluster status` at another node says whether its mail is taken over\n");
    Ok(Outcome::Done)
}

fn text(draining: &Draining) -> String {
    let to = match draining.nodes.as_slice() {
        [] => "the database, where they wait for a node".to_owned(),
        nodes => nodes.join(", "),
    };
    format!(
        "draining: what is left of {} messages goes to {to}; it stops in {} s, and ends within {} s after that\n",
        draining.messages, draining.pause, draining.drain_timeout
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_goes_where() {
        let mut draining =
            Draining { messages: 3, nodes: vec!["mx2".into(), "mx3".into()], pause: 7, drain_timeout: 30 };
        let expected = "draining: what is left of 3 messages goes to mx2, mx3; it stops in 7 s, and ends within 30 s \
             after that\n";
        assert_eq!(text(&draining), expected);
        draining.nodes.clear();
        assert!(text(&draining).contains("goes to the database, where they wait for a node;"));
    }
}
