//! The attempt of the queue that an event ends. Of attempts that are deferred repeatedly for the same reason only a few
//! are recorded, with their numbers; reading combines them into one event with a count.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Event, What};
use crate::time::UnixTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1; includes attempts that were not recorded.
    pub number: u32,
    /// Whether it was deferred for the same reason as the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// When read: the last of a series that was deferred for this reason, if this is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

/// The last attempt of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    pub number: u32,
    /// When it ended; if it was not recorded, when the next one ended, in another way.
    pub until: UnixTime,
}

impl Attempt {
    /// A single attempt; `None` for the first.
    #[must_use]
    pub fn number(number: u32) -> Option<Self> {
        (number > 1).then_some(Self { number, again: false, last: None })
    }

    /// How often it was deferred for this reason.
    #[must_use]
    pub fn times(&self) -> u32 {
        self.last.map_or(1, |last| (last.number - self.number.min(last.number)).saturating_add(1))
    }

    /// For people: ` (37 times until 2026-11-21T04:39:00Z)`, ` (attempt 38)`.
    pub(super) fn words(&self) -> String {
        match self.last {
            Some(last) => format!(" ({} times until {})", self.times(), last.until),
            None if self.number > 1 => format!(" (attempt {})", self.number),
            None => String::new(),
        }
    }
}

/// Combines events about the same deferrals of a recipient.
pub(super) fn in_rows(events: Vec<Event<'static>>) -> Vec<Event<'static>> {
    let mut rows: Vec<Event<'static>> = Vec::with_capacity(events.len());
    let mut open: HashMap<(String, String), usize> = HashMap::new();
    for event in events {
        let whose = || (event.id.clone().into_owned(), event.recipient.clone().into_owned());
        match (event.what, event.attempt) {
            (What::Deferred, Some(Attempt { again: true, number, .. })) => {
                if let Some(row) = open.get(&whose()).and_then(|at| rows.get_mut(*at)) {
                    go_on(row, number, event.at);
                    row.detail = event.detail;
                    continue;
                }
            }
            (What::Deferred | What::Delivered | What::Failed, _) => {
                // Attempts before it that were not recorded had the same result as the recorded one.
                let before = event.attempt.map_or(0, |attempt| attempt.number.saturating_sub(1));
                if let Some(row) = open.remove(&whose()).and_then(|at| rows.get_mut(at)) {
                    go_on(row, before, event.at);
                }
            }
            _ => {}
        }
        if event.what == What::Deferred {
            open.insert(whose(), rows.len());
        }
        rows.push(event);
    }
    rows
}

fn go_on(row: &mut Event<'_>, number: u32, until: UnixTime) {
    let attempt = row.attempt.get_or_insert(Attempt { number: 1, again: false, last: None });
    if number > attempt.last.map_or(attempt.number, |last| last.number) {
        attempt.last = Some(Last { number, until });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::event;
    use super::*;

    #[allow(clippy::fn_params_excessive_bools, reason = "a table of them")]
    fn at(at: u64, what: What, number: u32, again: bool) -> Event<'static> {
        let attempt = (again || number > 1).then_some(Attempt { number, again, last: None });
        Event { attempt, detail: format!("said {number}").into(), ..event(at, what, "A", "alice@contoso.com") }
    }

    fn deferrals(events: Vec<Event<'static>>) -> Vec<(u64, u32, Option<u64>)> {
        let rows = in_rows(events).into_iter().filter(|event| event.what == What::Deferred);
        let told = |event: &Event<'_>| {
            let attempt = event.attempt.unwrap_or(Attempt { number: 1, again: false, last: None });
            (event.at.0, attempt.times(), attempt.last.map(|last| last.until.0))
        };
        rows.map(|event| told(&event)).collect()
    }

    #[test]
    fn deferrals_for_one_reason_are_one_event_with_a_count() {
        use What::{Deferred, Delivered};
        let first = at(60, Deferred, 1, false);
        let row = || vec![first.clone(), at(120, Deferred, 2, true), at(240, Deferred, 4, true)];
        assert_eq!(deferrals(row()), [(60, 4, Some(240))]);
        let till_the_end = [row(), vec![at(400, Delivered, 7, false)]].concat();
        assert_eq!(deferrals(till_the_end.clone()), [(60, 6, Some(400))], "what was not recorded counts");
        let rows = in_rows(till_the_end);
        assert_eq!((&*rows[0].detail, rows.len()), ("said 4", 2));
        assert!(rows[0].line().ends_with(": said 4 (6 times until 1970-01-01T00:06:40Z)"), "{}", rows[0].line());
        assert!(rows[1].line().ends_with(": said 7 (attempt 7)"), "{}", rows[1].line());
        let another = [row(), vec![at(400, Deferred, 6, false), at(500, Deferred, 8, true)]].concat();
        assert_eq!(deferrals(another), [(60, 5, Some(400)), (400, 3, Some(500))]);
        assert_eq!(deferrals(vec![first.clone(), at(90, Delivered, 2, false)]), [(60, 1, None)]);
    }

    #[test]
    fn rows_are_of_one_recipient_and_what_began_before_is_looked_for_later() {
        use What::{Deferred, Delivered};
        let other = |event: Event<'static>| Event { recipient: "bob@contoso.com".into(), ..event };
        let mixed = vec![at(60, Deferred, 1, false), other(at(60, Deferred, 1, false)), at(90, Deferred, 2, true)];
        assert_eq!(deferrals(mixed), [(60, 2, Some(90)), (60, 1, None)]);
        assert_eq!(deferrals(vec![at(90, Deferred, 8, true), at(99, Delivered, 12, false)]), [(90, 4, Some(99))]);
        // A later process counted from 1 again, because the connector was gone meanwhile.
        let anew = vec![at(60, Deferred, 8, true), at(90, Deferred, 1, false), at(99, Deferred, 2, true)];
        assert_eq!(deferrals(anew), [(60, 1, None), (90, 2, Some(99))]);
    }
}
