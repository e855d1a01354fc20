//! Log lines as text, for files and journald: as `tracing_subscriber` writes them, at a third of the cost. A busy server
//! writes two lines a message. Control characters are escaped, so that nothing foreign begins a line.

use std::fmt::{self, Debug, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::time::UnixTime;

/// The format: `TIME LEVEL span{fields}: target: message fields`.
#[derive(Default)]
pub(super) struct Text {
    /// The second of the last line, and how it is written.
    second: Mutex<(UnixTime, String)>,
}

impl Text {
    fn time(&self, line: &mut String) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = UnixTime(now.as_secs());
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.0 != at {
            *second = (at, at.rfc3339());
        }
        line.push_str(second.1.trim_end_matches('Z'));
        drop(second);
        let mut digits = *b".000000Z";
        let mut left = now.subsec_micros();
        for digit in digits[1..7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or_default();
            left /= 10;
        }
        line.push_str(std::str::from_utf8(&digits).unwrap_or_default());
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(384);
        self.time(&mut line);
        let level = event.metadata().level().as_str();
        line.push_str(&"      "[level.len()..]);
        line.push_str(level);
        line.push(' ');
        let before = line.len();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            line.push_str(span.name());
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                line.push('{');
                line.push_str(&fields.fields);
                line.push('}');
            }
            line.push(':');
        }
        if line.len() > before {
            line.push(' ');
        }
        line.push_str(event.metadata().target());
        line.push(':');
        event.record(&mut Fields(&mut line));
        line.push('\n');
        to.write_str(&line)
    }
}

/// Appends ` message` and ` name=value`.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.0.push(' ');
        if field.name() != "message" {
            self.0.push_str(field.name());
            self.0.push('=');
        }
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, text: &str) {
        if text.bytes().any(|b| !(b == b' ' || b.is_ascii_graphic()) || b == b'"' || b == b'\\') {
            return self.record_debug(field, &text);
        }
        self.name(field);
        self.0.push('"');
        self.0.push_str(text);
        self.0.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        let from = self.0.len();
        let _ = write!(self.0, "{value:?}"); // writing to memory cannot fail
        if self.0[from..].contains(char::is_control) {
            let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
            let escaped: String = self.0[from..].chars().map(escape).collect();
            self.0.truncate(from);
            self.0.push_str(&escaped);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing::Dispatch;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `log` logs in this format, without the times.
    fn lines(format: impl FnOnce(Written) -> Dispatch, log: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        tracing::dispatcher::with_default(&format(written.clone()), log);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line["2026-11-21T04:39:00.123456Z".len()..].to_owned()).collect()
    }

    fn ours(to: Written) -> Dispatch {
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone());
        lines.event_format(Text::default()).into()
    }

    fn theirs(to: Written) -> Dispatch {
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone()).into()
    }

    fn log() {
        tracing::info!("started");
        tracing::warn!(number = 7, flag = true, text = "a\"b", "with fields: {}", 1);
        let session = tracing::info_span!("session", id = "1", client = %"127.0.0.1");
        let _in = session.enter();
        let bare = tracing::info_span!("bare");
        let _in_bare = bare.enter();
        let reply = "250 2.0.0 ok";
        tracing::error!(to = %"a@b", reply, umlaut = "\u{fc}", debug = ?Some(1), "delivered");
    }

    #[test]
    fn lines_are_those_of_tracing_subscriber() {
        let lines_of_ours = lines(ours, log);
        assert_eq!(lines_of_ours.len(), 3);
        assert_eq!(lines_of_ours, lines(theirs, log));
    }

    #[test]
    fn nothing_foreign_begins_a_line() {
        let lines = lines(ours, || tracing::info!(said = %"250 ok\r\n\u{1b}[1mERROR", "a\nb"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with(": a\\nb said=250 ok\\r\\n\\u{1b}[1mERROR"), "{lines:?}");
    }

    #[test]
    fn times_have_microseconds() {
        let mut line = String::new();
        Text::default().time(&mut line);
        assert_eq!(line.len(), "2026-11-21T04:39:00.123456Z".len(), "{line}");
    }
}
