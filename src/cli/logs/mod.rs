//! Where log lines go: standard error, as text or JSON. Only `run` and `demo` log; other commands print.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::LogFormat;

mod lines;
mod text;

pub(super) use lines::Flushed;
use lines::Lines;
use text::Text;

/// Starts logging. What is logged is written out at the latest when the returned value is dropped.
///
/// # Errors
/// The filter cannot be read.
pub(super) fn start(format: LogFormat, filter: &str) -> anyhow::Result<Flushed> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("`--log {filter}` is not a filter; write a level or TARGET=LEVEL, such as `info`"))?;
    let (to, flushed) = Lines::start(std::io::stderr()).context("cannot start a thread for the log")?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to);
    // Colours are for terminals: journald and files would keep them as escapes.
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text if std::io::stderr().is_terminal() => lines.init(),
        LogFormat::Text => lines.event_format(Text::default()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(flushed)
}
