//! Searches the message trace, for the API and `fingerpost trace`.
//!
//! Blocking; callers on the runtime go through `spawn_blocking`. Malformed lines (after a crash) are skipped.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::{self, day};
use super::sum::{InSums, Searched};
use super::{Event, attempt};
use crate::time::UnixTime;

/// The criteria. Texts match any part in any case; an empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    pub recipient: String,
    /// In the reverse-path.
    pub sender: String,
    pub message_id: String,
    pub since: UnixTime,
    /// The most events, the newest ones; 0: 1,000.
    pub limit: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Matching events, oldest first.
    pub events: Vec<Event<'static>>,
    /// Summaries that do not match but may include the recipient.
    pub in_sums: Option<InSums>,
}

/// The events that match, oldest first: of each matching message, the events of the message as a whole and those of
/// matching recipients.
#[must_use]
pub fn find(folder: &Path, query: &Query) -> Found {
    let wanted = Wanted::new(query);
    let from = day(query.since);
    let files: Vec<_> = files::all(folder).into_iter().filter(|file| file.day >= from).collect();
    let events = || files.iter().flat_map(|file| events(&file.path)).filter(|event| event.at >= query.since);
    // Message-ID and recipient are in different events of a message: first finds the messages, then their events.
    let mut ids = Matching::default();
    events().for_each(|event| ids.note(&event, &wanted));
    // Refused recipients have no Message-ID.
    let mut sums = Searched::new(&wanted.recipient);
    let is_asked = !wanted.recipient.is_empty() && wanted.message_id.is_empty();
    let mut found = Vec::new();
    for event in events() {
        if ids.want(&event, &wanted) {
            found.push(event);
        } else if is_asked {
            sums.note(&event);
        }
    }
    let in_sums = sums.found();
    let mut found = attempt::in_rows(found);
    let limit = if query.limit == 0 { 1_000 } else { query.limit };
    found.drain(..found.len().saturating_sub(limit));
    Found { events: found, in_sums }
}

fn events(path: &Path) -> impl Iterator<Item = Event<'static>> + use<> {
    let lines = File::open(path).into_iter().flat_map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok));
    lines.filter_map(|line| serde_json::from_slice(&line).ok())
}

/// The query's texts in lower case.
struct Wanted {
    recipient: String,
    sender: String,
    message_id: String,
}

impl Wanted {
    fn new(query: &Query) -> Self {
        Self {
            recipient: query.recipient.to_lowercase(),
            sender: query.sender.to_lowercase(),
            message_id: query.message_id.to_lowercase(),
        }
    }

    fn recipient(&self, event: &Event<'_>) -> bool {
        let searched = Searched::new(&self.recipient);
        let whole = |sum| searched.is_domain() && searched.may_be_in(sum, &event.recipient);
        event.recipient.to_lowercase().contains(&self.recipient) || event.sum.as_ref().is_some_and(whole)
    }
}

/// Queue ids of messages with a matching event.
#[derive(Default)]
struct Matching {
    recipient: HashSet<String>,
    message_id: HashSet<String>,
}

impl Matching {
    fn note(&mut self, event: &Event<'_>, wanted: &Wanted) {
        if event.id.is_empty() {
            return;
        }
        if wanted.recipient(event) {
            self.recipient.insert(event.id.to_string());
        }
        if event.message_id.to_lowercase().contains(&wanted.message_id) {
            self.message_id.insert(event.id.to_string());
        }
    }

    fn want(&self, event: &Event<'_>, wanted: &Wanted) -> bool {
        let recipient = wanted.recipient(event) || (event.recipient.is_empty() && self.recipient.contains(&*event.id));
        let message_id = wanted.message_id.is_empty() || self.message_id.contains(&*event.id);
        recipient && message_id && event.sender.to_lowercase().contains(&wanted.sender)
    }
}

#[cfg(test)]
mod tests {
    use super::super::What;
    use super::super::tests::event;
    use super::*;

    fn folder() -> tempfile::TempDir {
        let mut received = event(10, What::Received, "A", "");
        received.message_id = "<1@x>".into();
        let events = [
            received,
            event(11, What::Delivered, "A", "alice@contoso.com"),
            event(12, What::Delivered, "A", "bob@contoso.com"),
            event(13, What::Refused, "", "nobody@contoso.com"),
            event(14, What::Received, "B", ""),
            event(15, What::Delivered, "B", "Alice@Contoso.com"),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut lines: Vec<_> = events.iter().map(|event| serde_json::to_string(event).unwrap()).collect();
        lines.insert(2, "{\"at\":1".into());
        std::fs::write(folder.path().join("1970-01-01.jsonl"), lines.join("\n")).unwrap();
        folder
    }

    #[test]
    fn a_query_finds_whole_messages_and_no_others() {
        let folder = folder();
        let times =
            |query: Query| find(folder.path(), &query).events.iter().map(|event| event.at.0).collect::<Vec<_>>();
        let all = Query::default();
        assert_eq!(times(all.clone()), [10, 11, 12, 13, 14, 15]);
        assert_eq!(times(Query { recipient: "ALICE@".into(), ..all.clone() }), [10, 11, 14, 15]);
        assert_eq!(times(Query { message_id: "1@X".into(), ..all.clone() }), [10, 11, 12]);
        assert_eq!(times(Query { recipient: "bob@".into(), message_id: "1@x".into(), ..all.clone() }), [10, 12]);
        assert_eq!(times(Query { sender: "carol@".into(), ..all.clone() }), [0u64; 0]);
        assert_eq!(times(Query { since: UnixTime(14), ..all.clone() }), [14, 15]);
        assert_eq!(times(Query { limit: 2, ..all }), [14, 15]);
    }
}
