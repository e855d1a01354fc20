//! Log lines as text, for files, journald and terminals: in the format of `tracing_subscriber`, at a third of the cost.
//! A busy server writes two lines for each message. Values are bounded, and control and direction characters are
//! escaped ([`printable`]).

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::clock::Clock;
use super::values::{self, Own};
use crate::printable::{self, Bounded};

/// The format: `TIME LEVEL span{fields}: target: message fields`.
#[derive(Default)]
pub(super) struct Text {
    /// Whether levels are coloured: only for terminals.
    pub(super) colours: bool,
    pub(super) clock: Clock,
}

impl Text {
    /// The beginning of a line: time and level.
    fn head(&self, level: Level) -> String {
        let mut line = String::with_capacity(384);
        self.clock.time(&mut line);
        let level_name = level.as_str();
        line.push_str(&"      "[level_name.len()..]);
        match self.colours {
            true => line.push_str(&format!("\u{1b}[{}m{level_name}\u{1b}[0m", colour(level))),
            false => line.push_str(level_name),
        }
        line.push(' ');
        line
    }

    /// A line without an event.
    pub(super) fn own(&self, own: &Own<'_>) -> String {
        let mut line = self.head(own.level);
        line.push_str(own.target);
        line.push_str(": ");
        values::bounded(&mut line, values::MOST, |to| to.write_str(own.message));
        for (name, number) in own.numbers {
            let _ = write!(line, " {name}={number}"); // writing to memory cannot fail
        }
        line.push('\n');
        line
    }
}

/// The colours of `tracing_subscriber` (ECMA-48 8.3.117).
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = self.head(*event.metadata().level());
        let before = line.len();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            line.push_str(span.name());
            let extensions = span.extensions();
            if let Some(fields) = extensions.get::<FormattedFields<N>>().filter(|fields| !fields.is_empty()) {
                line.push('{');
                line.push_str(&printable::line(&fields.fields));
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
        self.name(field);
        let (kept, more) = values::cut(text, values::limit(field));
        if kept.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
            self.0.push('"');
            self.0.push_str(kept);
            self.0.push('"');
        } else {
            let _ = write!(Bounded::new(self.0, usize::MAX), "{kept:?}"); // writing to memory cannot fail
        }
        values::sign(self.0, more);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field);
        values::bounded(self.0, values::limit(field), |to| write!(to, "{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::Dispatch;

    use super::super::captured_log::{CapturedLog, lines};

    use super::*;

    fn ours(to: CapturedLog) -> Dispatch {
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone());
        lines.event_format(Text::default()).into()
    }

    fn theirs(to: CapturedLog) -> Dispatch {
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
    fn what_strangers_choose_is_short_and_turns_nothing() {
        let long = format!("<{}\u{fc}@x.example>", "a".repeat(254));
        let lines = lines(ours, || {
            tracing::info!(message_id = long, reply = %"b".repeat(5_000), sender = %"c".repeat(320), "refused");
            tracing::info!(said = %"\u{202e}evil\u{2028}\u{85}", message_id = "\u{2066}x\u{61c}", "\u{200f}done");
        });
        let (message_id, reply, sender) = ("a".repeat(254), "b".repeat(256), "c".repeat(320));
        let cut =
            format!(": refused message_id=\"<{message_id}\"[+13 octets] reply={reply}[+4744 octets] sender={sender}");
        assert!(lines[0].ends_with(&cut), "{}", lines[0]);
        let escaped = ": \\u{200f}done said=\\u{202e}evil\\u{2028}\\u{85} message_id=\"\\u{2066}x\\u{61c}\"";
        assert!(lines[1].ends_with(escaped), "{}", lines[1]);
    }

    #[test]
    fn terminals_have_colours() {
        let coloured = |to: CapturedLog| -> Dispatch {
            let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || to.clone());
            lines.event_format(Text { colours: true, ..Text::default() }).into()
        };
        let lines = lines(coloured, || tracing::warn!(said = %"\u{1b}[31mred", "mind"));
        assert!(lines[0].starts_with("  \u{1b}[33mWARN\u{1b}[0m "), "{lines:?}");
        assert!(lines[0].ends_with("mind said=\\u{1b}[31mred"), "{lines:?}");
    }

    #[test]
    fn lines_of_ours_look_like_the_others() {
        let text = Text::default();
        let own = Own { level: Level::WARN, target: "fingerpost::log", message: "lost\n", numbers: &[("lines", 3)] };
        let line = text.own(&own);
        assert!(line.ends_with("Z  WARN fingerpost::log: lost\\n lines=3\n"), "{line}");
    }
}
