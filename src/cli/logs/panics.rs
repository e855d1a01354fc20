//! Logs panics as errors: the standard library would write them to standard error itself, and could block there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tracing::Level;

use super::Shape;
use super::lines::{Lines, Room};
use super::values::Own;

/// The process may end after a panic; a reader that keeps up gets the line before.
const PATIENCE: Duration = Duration::from_millis(100);

/// From now on panics are logged, whatever the filter is.
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Sender, channel};

    use prometheus::IntCounter;

    use super::super::Text;
    use super::*;

    struct Reader(Sender<Vec<u8>>);

    impl io::Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let (written, read) = channel();
        let lost = IntCounter::new("lost", "lost").unwrap();
        let (lines, _flushed) = Lines::start(Reader(written), lost, Box::new(|_| String::new())).unwrap();
        tell_in(lines, Arc::new(Shape::Text(Text::default())));
        let panicking = thread::Builder::new().name("it".into()).spawn(|| panic!("on {}\n\u{202e}", "purpose"));
        let panicked = panicking.unwrap().join();
        drop(panic::take_hook());
        panicked.unwrap_err();
        let mut told = read.iter().map(|bytes| String::from_utf8(bytes).unwrap()); // other tests panic too
        let line = told.find(|line| line.contains("thread `it` panicked")).unwrap();
        assert!(line.contains(" ERROR fingerpost::panic: thread `it` panicked at src/cli/logs/panics.rs:"), "{line}");
        assert!(line.contains(": on purpose\\n\\u{202e}") && line.lines().count() == 1, "{line}");
    }
}
