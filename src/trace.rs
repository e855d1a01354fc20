//! The message trace: one record for each event, one file for each day below `state_dir/trace`, kept for `trace.days`.
//!
//! Lines have no format number; the stored examples have: format 1 had no `attempt`.
//!
//! `session` and `delivery` record through a [`Trace`]; [`writer`] appends events to the day's file; [`read`] searches
//! them for `fingerpost trace`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::UnixTime;

mod attempt;
mod files;
pub mod read;
pub mod room;
pub mod sum;
mod waiting;
pub mod writer;

pub use attempt::{Attempt, Last};
pub use sum::Sum;
use waiting::Waiting;

/// One event of a message, a line of JSON. Events that are read own their texts; recorded ones may borrow them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<'a> {
    pub at: UnixTime,
    /// Empty for a recipient that was refused before there was one.
    pub id: Cow<'a, str>,
    pub session: Cow<'a, str>,
    pub what: What,
    pub sender: Cow<'a, str>,
    /// Empty for `received`.
    pub recipient: Cow<'a, str>,
    /// Empty: unknown.
    pub message_id: Cow<'a, str>,
    /// The receive or send connector.
    pub connector: Cow<'a, str>,
    /// For people: the reason, the reply.
    pub detail: Cow<'a, str>,
    /// Set if it is a summary of many events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sum: Option<Sum<'a>>,
    /// The attempt of the queue that ended; `None`: the first, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
}

impl Event<'_> {
    /// One line for people: time, event, message, sender, recipient, connector, reason.
    #[must_use]
    pub fn line(&self) -> String {
        if let Some(sum) = &self.sum {
            let sample = if self.recipient.is_empty() { "" } else { ", among them " };
            let what = self.what.as_str();
            return format!("{} {what:<9} {:<13} {}{sample}{}", self.at, "sum", sum.line(), self.recipient);
        }
        let id = if self.id.is_empty() { "-" } else { &*self.id };
        let mut line = format!("{} {:<9} {id:<13} <{}>", self.at, self.what.as_str(), self.sender);
        for (before, text) in [(" -> <", &self.recipient), (" via ", &self.connector), (": ", &self.detail)] {
            if !text.is_empty() {
                line.push_str(before);
                line.push_str(text);
                line.push_str(if before.ends_with('<') { ">" } else { "" });
            }
        }
        line.push_str(&self.attempt.map(|attempt| attempt.words()).unwrap_or_default());
        line
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Received,
    /// A recipient was refused or deferred at RCPT.
    Refused,
    /// A recipient was routed as resolved.
    Resolved,
    /// A recipient was routed as relayed.
    Relayed,
    /// A next hop accepted it.
    Delivered,
    /// An attempt was deferred.
    Deferred,
    /// Delivery failed for good.
    Failed,
    Looped,
    Dsn,
}

impl Event<'_> {
    /// Appends the event as a line of JSON: the same text as by `Serialize`, several times as fast. A busy server
    /// writes four events for each message.
    fn write(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"at\":");
        line.extend_from_slice(self.at.0.to_string().as_bytes());
        for (name, text) in [
            (&b",\"id\":"[..], &*self.id),
            (b",\"session\":", &self.session),
            (b",\"what\":", self.what.as_str()),
            (b",\"sender\":", &self.sender),
            (b",\"recipient\":", &self.recipient),
            (b",\"message_id\":", &self.message_id),
            (b",\"connector\":", &self.connector),
            (b",\"detail\":", &self.detail),
        ] {
            line.extend_from_slice(name);
            write_text(text, line);
        }
        if let Some(sum) = &self.sum {
            line.extend_from_slice(b",\"sum\":");
            let _ = serde_json::to_writer(&mut *line, sum); // writing to memory cannot fail
        }
        if let Some(attempt) = &self.attempt {
            line.extend_from_slice(b",\"attempt\":");
            let _ = serde_json::to_writer(&mut *line, attempt);
        }
        line.extend_from_slice(b"}\n");
    }
}

/// A string in JSON (RFC 8259 7).
fn write_text(text: &str, line: &mut Vec<u8>) {
    // Without an early exit the loop handles sixteen octets and more at once.
    let odd = text.bytes().fold(false, |odd, b| odd | (b < b' ') | (b == b'"') | (b == b'\\'));
    if odd {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(line, text);
        return;
    }
    line.push(b'"');
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

impl What {
    /// The name in the files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Refused => "refused",
            Self::Resolved => "resolved",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Looped => "looped",
            Self::Dsn => "dsn",
        }
    }
}

/// Records events. Clones share it. Recording never waits for the disk and never fails. The default records nothing.
#[derive(Clone, Default)]
pub struct Trace {
    waiting: Option<Arc<Waiting>>,
}

impl Trace {
    /// Records an event. If the disk cannot keep up it is lost, and the writer counts and logs that: mail never waits
    /// for its trace.
    pub fn record(&self, event: &Event<'_>) {
        if let Some(waiting) = &self.waiting {
            waiting.put(event);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::formats::Format;

    pub(crate) fn event<'a>(at: u64, what: What, id: &'a str, recipient: &'a str) -> Event<'a> {
        Event {
            at: UnixTime(at),
            id: id.into(),
            session: "s1".into(),
            what,
            sender: "bob@sender.example".into(),
            recipient: recipient.into(),
            message_id: "".into(),
            connector: "".into(),
            detail: "".into(),
            sum: None,
            attempt: None,
        }
    }

    #[test]
    fn a_line_tells_what_is_known_and_no_more() {
        let mut event = event(1_795_235_940, What::Delivered, "0000000000001", "alice@contoso.com");
        event.connector = "exchange".into();
        event.detail = "250 2.0.0 ok".into();
        assert_eq!(
            event.line(),
            "2026-11-21T04:39:00Z delivered 0000000000001 <bob@sender.example> -> <alice@contoso.com> \
             via exchange: 250 2.0.0 ok"
        );
        (event.recipient, event.connector, event.detail) = Default::default();
        assert_eq!(event.line(), "2026-11-21T04:39:00Z delivered 0000000000001 <bob@sender.example>");
    }

    #[test]
    fn events_are_written_as_serde_would_write_them() {
        let plain = event(1_795_235_940, What::Delivered, "0000000000001", "alice@contoso.com");
        let odd = ["\"\\", "a\u{1}\n\t", "b\u{fc}cher \u{1f4ec}\u{7f}", ""].map(|text| Event {
            detail: text.into(),
            recipient: text.into(),
            ..plain.clone()
        });
        let sum = Sum { times: 7, client: "192.0.2.1".into(), domain: "a.b".into(), reason: "550 \"5.1.1\"".into() };
        let many = Event { sum: Some(sum), ..plain.clone() };
        let again = Some(Attempt { number: 8, again: true, last: None });
        let again = Event { attempt: again, ..many.clone() };
        for event in odd.into_iter().chain([plain, many, again]) {
            let mut line = Vec::new();
            event.write(&mut line);
            assert_eq!(String::from_utf8(line).unwrap(), serde_json::to_string(&event).unwrap() + "\n");
        }
    }

    #[test]
    fn its_format() {
        let what = [
            What::Received,
            What::Refused,
            What::Resolved,
            What::Relayed,
            What::Delivered,
            What::Deferred,
            What::Failed,
            What::Looped,
            What::Dsn,
        ];
        let attempt = |what| match what {
            What::Delivered => Attempt::number(9),
            What::Deferred => Some(Attempt { number: 8, again: true, last: None }),
            _ => None,
        };
        let events = what.map(|what| Event {
            attempt: attempt(what),
            message_id: "<1@x>".into(),
            connector: "exchange".into(),
            detail: "250 2.0.0 \"b\u{fc}cher\"".into(),
            ..event(1_795_235_940, what, "0000000000001", "alice@contoso.com")
        });
        let mut lines = Vec::new();
        events.iter().for_each(|event| event.write(&mut lines));
        let format = Format { name: "trace", extension: "jsonl", oldest: 1, current: 2 };
        format.check(&lines, |number, bytes| {
            let read: Vec<Event<'_>> =
                bytes.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
            // Format 1 had no attempts.
            let known = |event: Event<'static>| Event { attempt: event.attempt.filter(|_| number > 1), ..event };
            assert_eq!(read, events.clone().map(known));
        });
    }

    #[test]
    fn what_is_written_as_it_is_read() {
        for what in [What::Received, What::Refused, What::Looped, What::Dsn] {
            assert_eq!(serde_json::to_string(&what).unwrap(), format!("\"{}\"", what.as_str()));
        }
    }
}
