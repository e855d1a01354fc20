//! Log lines as JSON, one object on each line: the keys and values that `tracing_subscriber` writes with events
//! flattened. Values are bounded, and control and direction characters are escaped ([`printable`]).

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::clock::Clock;
use super::values::{self, Own};
use crate::printable;

/// The format: `{"timestamp", "level", fields, "target", "span", "spans"}`. It is used with
/// [`JsonFields`](tracing_subscriber::fmt::format::JsonFields).
#[derive(Default)]
pub(super) struct Json {
    pub(super) clock: Clock,
}

impl Json {
    /// The beginning of a line: time and level.
    fn head(&self, level: tracing::Level) -> String {
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        self.clock.time(&mut line);
        line.push_str("\",\"level\":\"");
        line.push_str(level.as_str());
        line.push('"');
        line
    }

    /// A line without an event.
    pub(super) fn own(&self, own: &Own<'_>) -> String {
        let mut line = self.head(own.level);
        let (message, more) = values::cut(own.message, values::MOST);
        pair(&mut line, "message", message, more);
        for (name, number) in own.numbers {
            let _ = write!(line, ",\"{name}\":{number}"); // writing to memory cannot fail
        }
        pair(&mut line, "target", own.target, 0);
        line.push_str("}\n");
        line
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = self.head(*event.metadata().level());
        let mut fields = Fields { line: &mut line, log_target: None };
        event.record(&mut fields);
        let target = fields.log_target;
        pair(&mut line, "target", target.as_deref().unwrap_or(event.metadata().target()), 0);
        let spans: Vec<_> = context.event_scope().into_iter().flat_map(|scope| scope.from_root()).collect();
        if let Some(innermost) = spans.last() {
            line.push_str(",\"span\":");
            object_of::<S, N>(&mut line, innermost);
            line.push_str(",\"spans\":[");
            for (at, span) in spans.iter().enumerate() {
                line.push_str(if at == 0 { "" } else { "," });
                object_of::<S, N>(&mut line, span);
            }
            line.push(']');
        }
        line.push_str("}\n");
        to.write_str(&line)
    }
}

/// Appends a span's fields, which are JSON, and its name.
fn object_of<S, N>(line: &mut String, span: &SpanRef<'_, S>)
where
    S: for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let extensions = span.extensions();
    let fields = extensions.get::<FormattedFields<N>>().map_or("", |fields| fields.fields.as_str());
    let fields = fields.strip_suffix('}').unwrap_or("{");
    line.push_str(&printable::json(fields));
    line.push_str(if fields.len() > 1 { ",\"name\":" } else { "\"name\":" });
    text(line, span.name(), 0);
    line.push('}');
}

/// Appends `,"name":"value"`.
fn pair(line: &mut String, name: &str, value: &str, more: usize) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":");
    text(line, value, more);
}

/// Appends a string (RFC 8259 7), with a note of its length if it was cut.
fn text(line: &mut String, text: &str, more: usize) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if printable::is_unsafe(c) => {
                let _ = write!(line, "\\u{:04x}", u32::from(c)); // all of them are below U+10000
            }
            c => line.push(c),
        }
    }
    values::sign(line, more);
    line.push('"');
}

/// Appends `,"name":value`.
struct Fields<'a> {
    line: &'a mut String,
    /// The target of a record of the `log` crate: its event has the target and the source location as fields.
    log_target: Option<String>,
}

impl Fields<'_> {
    /// A value without quotes.
    fn bare(&mut self, field: &Field, value: &dyn fmt::Display) {
        if field.name() == "log.line" {
            return;
        }
        let _ = write!(self.line, ",\"{}\":{value}", field.name()); // writing to memory cannot fail
    }
}

impl Visit for Fields<'_> {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, &value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.bare(field, &format_args!("{value:?}")),
            false => self.bare(field, &"null"), // JSON has no other word for it
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "log.target" => return self.log_target = Some(value.to_owned()),
            name if name.starts_with("log.") => return,
            _ => {}
        }
        let (kept, more) = values::cut(value, values::limit(field));
        pair(self.line, field.name(), kept, more);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut written = TruncatedText { text: String::new(), room: values::limit(field), more: 0 };
        let _ = write!(written, "{value:?}"); // writing to memory cannot fail
        pair(self.line, field.name(), &written.text, written.more);
    }
}

/// Keeps the first octets unchanged; they are escaped when they are put into the line.
struct TruncatedText {
    text: String,
    room: usize,
    more: usize,
}

impl fmt::Write for TruncatedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (kept, more) = if self.more > 0 { ("", text.len()) } else { values::cut(text, self.room) };
        self.text.push_str(kept);
        self.room -= kept.len();
        self.more += more;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tracing::Dispatch;
    use tracing_subscriber::fmt::format::JsonFields;

    use super::super::captured_log::{CapturedLog, raw};
    use super::*;

    fn ours(to: CapturedLog) -> Dispatch {
        let lines = tracing_subscriber::fmt().with_writer(move || to.clone());
        lines.fmt_fields(JsonFields::new()).event_format(Json::default()).into()
    }

    fn theirs(to: CapturedLog) -> Dispatch {
        tracing_subscriber::fmt().with_writer(move || to.clone()).json().flatten_event(true).into()
    }

    fn log() {
        tracing::info!("started");
        let text = "a\"b\\\u{fc}\u{1}\r\n\t";
        tracing::warn!(number = 7, minus = -7, real = 1.0, nothing = f64::NAN, flag = true, text, "fields: {}", 1);
        let session = tracing::info_span!("session", id = "1", client = %"127.0.0.1", port = 25);
        let _in = session.enter();
        let bare = tracing::info_span!("bare");
        let _in_bare = bare.enter();
        tracing::error!(to = %"a@b", umlaut = "\u{fc}", debug = ?Some("x"), none = None::<u64>, "delivered");
    }

    /// The lines without their times.
    fn lines(format: impl FnOnce(CapturedLog) -> Dispatch, log: impl FnOnce()) -> Vec<String> {
        let without_time = |line: &str| line["{\"timestamp\":\"2026-11-21T04:39:00.123456Z\"".len()..].to_owned();
        raw(format, log).lines().map(without_time).collect()
    }

    #[test]
    fn lines_are_those_of_tracing_subscriber() {
        let lines_of_ours = lines(ours, log);
        assert_eq!(lines_of_ours.len(), 3);
        assert_eq!(lines_of_ours, lines(theirs, log));
    }

    #[test]
    fn what_strangers_choose_is_short_and_turns_nothing() {
        let text = raw(ours, || {
            let session = tracing::info_span!("session", client = "\u{202e}");
            let _in = session.enter();
            let long = "\u{2028}".repeat(200);
            tracing::info!(message_id = long, reply = %"b".repeat(5_000), to = %"\u{202e}\u{85}\u{7f}", "refused");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(printable::is_unsafe), "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message_id"], format!("{}[+345 octets]", "\u{2028}".repeat(85)));
        assert_eq!(line["reply"], format!("{}[+4744 octets]", "b".repeat(256)));
        assert_eq!((&line["to"], &line["span"]["client"]), (&"\u{202e}\u{85}\u{7f}".into(), &"\u{202e}".into()));
    }

    #[test]
    fn lines_of_ours_look_like_the_others() {
        let own = Own {
            level: tracing::Level::WARN,
            target: "fingerpost::log",
            message: "lost \u{202e}",
            numbers: &[("lines", 3)],
        };
        let line: Value = serde_json::from_str(&Json::default().own(&own)).unwrap();
        assert_eq!(line["lines"], 3);
        assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"lost \u{202e}".into()));
    }
}
