//! Chooses the next turn: mail first, each connector by itself; then reports; last those about strangers' messages, at
//! their pace.

use std::sync::Arc;

use super::hints::Due;
use super::lane::KINDS;
use super::live::Taken;
use super::{Picked, Queue, Rules, Turn};
use crate::spool::entry::Why;
use crate::spool::entry::outline::{Kind, Outline};
use crate::time::UnixTime;

impl Queue {
    /// Takes slots for what is due, up to each connector's limit. The branch is determined when the message is in
    /// memory: [`Queue::take`].
    pub(in crate::delivery::dispatch) fn pick(&mut self, rules: impl Fn(&str) -> Rules, now: UnixTime) -> Vec<Turn> {
        let mut turns = Vec::new();
        for kind in [Kind::Mail, Kind::Report] {
            for connector in self.connectors() {
                let rules = rules(&connector);
                while let Some(turn) = self.turn(&connector, kind, rules, now) {
                    turns.push(turn);
                }
            }
        }
        self.pace.forget_old(now);
        let mut left = self.connectors();
        while !left.is_empty() {
            left.retain(|connector| {
                let rules = rules(connector);
                let may = rules.reports_per_minute.is_none_or(|number| self.pace.has_room(number));
                let turn = if may { self.turn(connector, Kind::StrangersReport, rules, now) } else { None };
                let Some(turn) = turn else { return false };
                if rules.reports_per_minute.is_some() {
                    self.pace.begins(now);
                }
                turns.push(turn);
                true
            });
        }
        turns
    }

    fn connectors(&self) -> Vec<Arc<str>> {
        self.lanes.keys().cloned().collect()
    }

    fn turn(&mut self, connector: &Arc<str>, kind: Kind, rules: Rules, now: UnixTime) -> Option<Turn> {
        let lane = self.lanes.get_mut(connector)?;
        let hint = lane.take(kind, rules, now)?;
        lane.begun(kind, hint.group);
        *self.turns.entry(hint.id).or_default() += 1;
        let ticket = self.last_ticket.next();
        Some(Turn { ticket, id: hint.id, kind, connector: connector.clone(), group: hint.group, due: hint.due })
    }

    /// The branch for a turn, made busy; `None`: nothing is due there any more. Its message is in memory.
    pub(in crate::delivery::dispatch) fn take(&mut self, turn: &Turn, rules: Rules, now: UnixTime) -> Option<Picked> {
        let live = self.live.get_mut(&turn.id)?;
        let Taken { recipients, rest } = live.take(turn, rules, now);
        let entry = live.entry.clone();
        if recipients.is_empty() {
            // Its hint is gone, so what waits for a later time needs a new one.
            let outline = Outline::of(&entry);
            let waits: Vec<bool> = live.wait_after(now).collect();
            self.enter(&outline, |recipient| waits.get(recipient).copied().unwrap_or_default());
            return None;
        }
        if rest {
            let lane = self.lanes.entry(turn.connector.clone()).or_default();
            lane.hint_now(turn.kind, turn.id, turn.due);
        }
        Some(Picked { entry, connector: turn.connector.clone(), recipients })
    }

    /// When the next turn is due, among connectors with a free slot.
    pub(in crate::delivery::dispatch) fn next_due(&self, rules: impl Fn(&str) -> Rules) -> Option<UnixTime> {
        let mut next: Option<UnixTime> = None;
        for (connector, lane) in &self.lanes {
            let rules = rules(connector);
            for kind in KINDS {
                let pace = rules.reports_per_minute.filter(|_| kind == Kind::StrangersReport);
                let waits_for_pace =
                    pace.filter(|_| lane.is_ready(kind, rules)).map(|number| self.pace.room_at(number));
                let due =
                    lane.next_due(kind, rules).map(|due| pace.map_or(due, |number| due.max(self.pace.room_at(number))));
                next = [next, due, waits_for_pace].into_iter().flatten().min();
            }
        }
        next
    }

    /// A turn had no branch: a report that was not sent does not count.
    pub(in crate::delivery::dispatch) fn led_nowhere(&mut self, turn: &Turn) {
        if turn.kind == Kind::StrangersReport {
            self.pace.took_back();
        }
    }

    /// A message cannot be read now: its turn comes again at this time.
    pub(in crate::delivery::dispatch) fn again(&mut self, turn: &Turn, at: UnixTime) {
        let lane = self.lanes.entry(turn.connector.clone()).or_default();
        let due = Due::at(at);
        lane.push(turn.kind, super::hints::Hint { due, id: turn.id, group: turn.group, sender: 0 }, Why::Deferred);
    }
}
