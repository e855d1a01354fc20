//! Panics are told in the log, as an error: the standard library would write them to standard error itself, and wait
//! there for the reader of the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::Level;

use super::Shape;
use super::lines::{Lines, Room};
use super::values::Own;

/// What comes next may end the process; a reader that keeps up gets the line before.
const PATIENCE: Duration = Duration::from_millis(100);

/// From now on panics are told in the log, whatever its filter is.
pub(super) fn tell_in(lines: Lines, shape: Arc<Shape>) {
    panic::set_hook(Box::new(move |panicked| {
        let message = in_words(panicked, &Backtrace::capture());
        let own = Own { level: Level::ERROR, target: "fingerpost::panic", message: &message, numbers: &[] };
        let keeps_up = lines.keeps_up();
        lines.put(shape.own(&own).as_bytes(), Room::Alert);
        if keeps_up {
            lines.flush(PATIENCE);
        }
    }));
}

fn in_words(panicked: &PanicHookInfo<'_>, trace: &Backtrace) -> String {
    let said = panicked.payload_as_str().unwrap_or("a value that is no text");
    let thread = thread::current();
    let mut words = format!("thread `{}` panicked", thread.name().unwrap_or("without name"));
    if let Some(location) = panicked.location() {
        words.push_str(&format!(" at {location}"));
    }
    words.push_str(&format!(": {said}"));
    if trace.status() == BacktraceStatus::Captured {
        words.push_str(&format!("\n{trace}"));
    }
    words
}
