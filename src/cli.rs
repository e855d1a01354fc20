//! The command line (DESIGN section 9): arguments here, then one file a command.
//!
//! `main` calls [`execute`]. Output goes to standard output; errors go to standard error as one line with what to do
//! next, and end with code 2.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::printable;
use crate::smtp::address::Address;

mod check;
mod client;
mod cluster;
mod demo;
mod directory;
mod drain;
mod export;
mod held;
mod logs;
mod output;
mod queue;
mod reload;
mod route;
mod spool;
mod status;
mod trace;

/// An SMTP routing proxy for one mail domain that lives on two mail systems.
#[derive(Debug, Parser)]
#[command(name = "fingerpost", version, about, max_term_width = 100)]
pub struct Arguments {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/fingerpost/fingerpost.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The server
    Run(LogArguments),
    /// Check the configuration, and with --connect everything it names
    Check {
        /// Also certificates, directories, next hops, the spool's folder and its disk
        #[arg(long)]
        connect: bool,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// What would happen to mail for these addresses, and why
    Route {
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// As if it came from this client; without it: from a stranger
        #[arg(long, value_name = "IP")]
        from: Option<IpAddr>,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// The running server in one look
    Status {
        #[command(flatten)]
        output: FormatArgument,
    },
    /// Take the changed configuration now
    Reload {
        /// Also if more than a tenth of the domains vanish
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        output: FormatArgument,
    },
    /// What the directories hold and say
    Directory {
        #[command(subcommand)]
        command: directory::DirectoryCommand,
    },
    /// Queued mail
    Queue {
        #[command(subcommand)]
        command: queue::QueueCommand,
    },
    /// What the disk does not give back
    Spool {
        #[command(subcommand)]
        command: spool::SpoolCommand,
    },
    /// The queue that several nodes share
    Cluster {
        #[command(subcommand)]
        command: cluster::ClusterCommand,
    },
    /// Leave the cluster and end: other nodes take over the mail of this one
    Drain(drain::DrainArguments),
    /// What became of a message
    Trace(trace::TraceArguments),
    /// Everything on one machine: two organisations, Fingerpost between them, sample mail
    Demo {
        /// End when the sample mail has arrived (code 1 if it has not)
        #[arg(long)]
        once: bool,
        /// What to log, such as `info` or `fingerpost=debug`
        #[arg(long, value_name = "FILTER", default_value = "off")]
        log: String,
    },
}

/// How `run` logs.
#[derive(Debug, Args)]
struct LogArguments {
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What to log, such as `info` or `info,fingerpost::session=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, Args)]
struct FormatArgument {
    /// For people or for scripts
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// How a command ended, unless it could not be done at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done: exit code 0.
    Done,
    /// The answer is no: a failed check, a refused recipient. Exit code 1.
    No,
}

/// Runs the command in the arguments.
///
/// # Errors
/// It could not be done: usage or configuration, exit code 2.
pub async fn execute(arguments: Arguments) -> anyhow::Result<Outcome> {
    let config = arguments.config.as_path();
    match arguments.command {
        Command::Run(log) => {
            let _flushed = logs::start(log.log_format, &log.log)?;
            crate::run::run(config).await.map_err(anyhow::Error::msg)?;
            Ok(Outcome::Done)
        }
        Command::Check { connect: false, output } => check::form(config, output.format).await,
        Command::Check { connect: true, output } => check::connect::everything(config, output.format).await,
        Command::Route { addresses, from, output } => route::route(config, &addresses, from, output.format).await,
        Command::Status { output } => status::status(config, output.format).await,
        Command::Reload { accept: false, output } => reload::reload(config, "/api/reload", output.format).await,
        Command::Reload { accept: true, output } => reload::reload(config, "/api/reload?accept", output.format).await,
        Command::Directory { command } => directory::directory(config, command).await,
        Command::Queue { command } => queue::queue(config, command).await,
        Command::Spool { command } => spool::spool(config, command).await,
        Command::Cluster { command } => cluster::cluster(config, command).await,
        Command::Drain(arguments) => drain::drain(config, &arguments).await,
        Command::Trace(arguments) => trace::trace(config, &arguments).await,
        Command::Demo { once, log } => {
            let _flushed = logs::start(LogFormat::Text, &log)?;
            let then = if once { demo::Then::End } else { demo::Then::StayUp };
            demo::demo(then).await
        }
    }
}

/// Prints on standard error why a command could not be done: one line, or one for each problem of a configuration. A
/// stalled reader does not keep the program from ending.
pub fn complain(error: &anyhow::Error) {
    let text = format!("{error:#}");
    logs::say_last(&format!("fingerpost: {}\n", printable::lines(text.trim_end())));
}

/// An address from the arguments.
fn address_of(text: &str) -> anyhow::Result<Address> {
    Address::parse(text).map_err(|error| anyhow::anyhow!("`{text}` is not an address: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_configuration_may_be_named_before_or_after_the_command() {
        for line in ["fingerpost --config a.toml status", "fingerpost status --config a.toml"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(arguments.config, PathBuf::from("a.toml"));
        }
        let arguments = Arguments::try_parse_from(["fingerpost", "status"]).unwrap();
        assert_eq!(arguments.config, PathBuf::from("/etc/fingerpost/fingerpost.toml"));
    }
}
