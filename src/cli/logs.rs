//! Where log lines go: standard error, as text or JSON. Only `run` and `demo` log; other commands print.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use super::LogFormat;

/// Starts logging.
///
/// # Errors
/// The filter cannot be read.
pub(super) fn start(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("`--log {filter}` is not a filter; write a level or TARGET=LEVEL, such as `info`"))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Colours are for terminals: journald and files would keep them as escapes.
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
