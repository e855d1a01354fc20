//! Logging to standard error, as text or JSON. Only `run` and `demo` log; other commands print.
//!
//! Logging never waits for the reader of standard error; [`lines`] handles a slow reader.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::JsonFields;

use super::LogFormat;
use crate::metrics::log_lines_lost;

mod clock;
mod json;
mod lines;
mod panics;
mod text;
mod values;
#[cfg(test)]
mod captured_log;

use json::Json;
pub(super) use lines::Flushed;
use lines::{Lines, Lost, Room};
use text::Text;
use values::Own;

/// The format of lines without an event.
enum Shape {
    Text(Text),
    Json(Json),
}

impl Shape {
    fn of(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text(text()),
            LogFormat::Json => Self::Json(Json::default()),
        }
    }

    fn own(&self, own: &Own<'_>) -> String {
        match self {
            Self::Text(text) => text.own(own),
            Self::Json(json) => json.own(own),
        }
    }

    fn lost(&self, lost: Lost) -> String {
        let message = "log lines were lost here: the log is not read, or cannot be written, as fast as they come";
        let numbers = [("lines", lost.lines), ("warnings", lost.warnings)];
        self.own(&Own { level: Level::WARN, target: "fingerpost::log", message, numbers: &numbers })
    }
}

fn text() -> Text {
    Text { colours: std::io::stderr().is_terminal(), ..Text::default() }
}

/// Starts logging, including panics. All lines are written when the returned value is dropped, unless the reader has
/// stalled.
///
/// # Errors
/// The filter cannot be parsed.
pub(super) fn start(format: LogFormat, filter: &str) -> anyhow::Result<Flushed> {
    // `directory` logs the LDAP library's errors itself, with what to do.
    let filter = EnvFilter::try_new(format!("ldap3=off,{filter}"))
        .with_context(|| format!("`--log {filter}` is not a filter; write a level or TARGET=LEVEL, such as `info`"))?;
    let shape = Arc::new(Shape::of(format));
    let of_thread = shape.clone();
    let started = Lines::start(std::io::stderr(), log_lines_lost(), Box::new(move |lost| of_thread.lost(lost)));
    let (to, flushed) = started.context("cannot start a thread for the log")?;
    panics::tell_in(to.clone(), shape);
    // The subscriber would write its own errors directly to standard error.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to).log_internal_errors(false);
    let lines = lines.with_ansi(false); // names and values of spans; `Text` has colours of its own
    match format {
        LogFormat::Text => lines.event_format(text()).init(),
        LogFormat::Json => lines.fmt_fields(JsonFields::new()).event_format(Json::default()).init(),
    }
    Ok(flushed)
}

/// Writes a last text to standard error, with a limit on the wait for its reader.
pub(super) fn say_last(text: &str) {
    match Lines::start(std::io::stderr(), log_lines_lost(), Box::new(|_| String::new())) {
        Ok((lines, _flushed)) => lines.put(text.as_bytes(), Room::Alert),
        Err(_) => eprint!("{text}"),
    }
}
