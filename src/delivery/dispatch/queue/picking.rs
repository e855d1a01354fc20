//! Which branches go now, and when the next one may: mail first, each connector by itself; then reports that strangers
//! caused, the one that has been due longest, as the pace allows.

use std::collections::HashMap;
use std::sync::Arc;

use super::lane::Lane;
use super::live::{Live, Taken};
use super::{Picked, Queue, Rank, Rules, Ticket};
use crate::message::queue_id::QueueId;
use crate::time::UnixTime;

/// What a hint led to.
enum Led {
    /// A branch.
    To(Box<Picked>),
    /// Nothing: it was old, or its domain has no room.
    Nowhere,
}

impl Queue {
    /// Takes what is due, as far as each connector's limit allows.
    pub(in crate::delivery::dispatch) fn pick(&mut self, rules: impl Fn(&str) -> Rules, now: UnixTime) -> Vec<Picked> {
        let mut picked = Vec::new();
        for (connector, lane) in &mut self.lanes {
            let rules = rules(connector);
            while let Some(led) =
                take(&mut self.live, &mut self.last_ticket, (connector, lane), Rank::Mail, (rules, now))
            {
                picked.extend(led.picked());
            }
        }
        self.pace.forget_old(now);
        while let Some((connector, rules)) = self.next_report(&rules, now) {
            let Some(lane) = self.lanes.get_mut(&connector) else { break };
            let rank = Rank::StrangersReport;
            let led = take(&mut self.live, &mut self.last_ticket, (&connector, lane), rank, (rules, now));
            if let Some(report) = led.and_then(Led::picked) {
                if rules.reports_per_minute.is_some() {
                    self.pace.begins(now);
                }
                picked.push(report);
            }
        }
        picked
    }

    /// The lane with the report of a stranger's that has been due longest, if one may go.
    fn next_report(&self, rules: impl Fn(&str) -> Rules, now: UnixTime) -> Option<(Arc<str>, Rules)> {
        let rank = Rank::StrangersReport;
        let first = |(connector, lane): (&Arc<str>, &Lane)| {
            let rules = rules(connector);
            let may = rules.reports_per_minute.is_none_or(|number| self.pace.has_room(number));
            let hint = lane.first(rank, rules.limit, now).filter(|_| may && lane.has_place(rank, rules.limit))?;
            Some((hint, connector.clone(), rules))
        };
        let oldest = self.lanes.iter().filter_map(first).min_by_key(|(hint, ..)| *hint);
        oldest.map(|(_, connector, rules)| (connector, rules))
    }

    /// When the next one is due, among connectors that have room.
    pub(in crate::delivery::dispatch) fn next_due(&self, rules: impl Fn(&str) -> Rules) -> Option<UnixTime> {
        let of = |(connector, lane): (&Arc<str>, &Lane), rank| {
            let rules = rules(connector);
            let due = lane.next_due(rank).filter(|_| lane.has_place(rank, rules.limit))?;
            let per_minute = rules.reports_per_minute.filter(|_| rank == Rank::StrangersReport);
            Some(per_minute.map_or(due, |number| due.max(self.pace.room_at(number))))
        };
        let ranks = [Rank::Mail, Rank::StrangersReport];
        self.lanes.iter().flat_map(|lane| ranks.map(|rank| of(lane, rank))).flatten().min()
    }
}

impl Led {
    fn picked(self) -> Option<Picked> {
        match self {
            Self::To(picked) => Some(*picked),
            Self::Nowhere => None,
        }
    }
}

/// Follows a lane's first hint of this rank; `None`: there is none, or no place.
fn take(
    live: &mut HashMap<QueueId, Live>,
    last_ticket: &mut Ticket,
    (connector, lane): (&Arc<str>, &mut Lane),
    rank: Rank,
    (rules, now): (Rules, UnixTime),
) -> Option<Led> {
    if !lane.has_place(rank, rules.limit) {
        return None;
    }
    let hint = lane.take(rank, rules.limit, now)?;
    let Some(live) = live.get_mut(&hint.1) else { return Some(Led::Nowhere) };
    let ticket = last_ticket.next();
    let Taken { recipients, full, rest } = live.take(connector, lane, (rules, now), ticket);
    full.into_iter().for_each(|domain| lane.park(rank, domain, hint));
    if rest {
        lane.push(rank, hint);
    }
    let Some((first, _)) = recipients.first() else { return Some(Led::Nowhere) };
    let domain = live.entry.recipients.get(*first).filter(|_| rules.by_domain());
    let domain = domain.map(|queued| queued.route.next_hop_domain.clone());
    lane.begun(rank, domain.as_ref());
    let (entry, connector) = (live.entry.clone(), connector.clone());
    Some(Led::To(Box::new(Picked { ticket, entry, rank, connector, domain, recipients })))
}
