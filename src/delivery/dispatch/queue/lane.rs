//! One send connector's part of the queue: what is due, and how many attempts are in progress. `queue` keeps one for
//! each connector; no I/O.
//!
//! Where recipients' domains share a connector's slots (it delivers by MX), one domain may have half of the slots that
//! others leave free, so that a domain whose server takes minutes for each message delays no other. Domains that could
//! not be reached lately share a quarter of the slots. Reports about strangers' messages have at most half of the
//! slots, so that servers which are slow on purpose do not block other mail.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::Rules;
use super::hints::{Due, Hint, Hints};
use crate::delivery::dispatch::branch::Grouping;
use crate::message::queue_id::QueueId;
use crate::spool::entry::Why;
use crate::spool::entry::outline::Kind;
use crate::time::UnixTime;

/// A next hop that could not be reached for this long was out; after a shorter failure nothing is hastened.
const OUTAGE: Duration = Duration::from_secs(30);

/// The most domains that are remembered as unreachable; others are found out again.
const DOWN: usize = 10_000;

/// The kinds of mail by priority.
pub(super) const KINDS: [Kind; 3] = [Kind::Mail, Kind::Report, Kind::StrangersReport];

#[derive(Default)]
pub(super) struct Lane {
    hints: [Hints; 3],
    running: usize,
    /// Of these, attempts on reports about strangers' messages.
    running_reports: usize,
    /// Attempts in progress by domain, where domains share slots. No number is 0.
    running_for: HashMap<u32, usize>,
    /// Domains that could not be reached, and since when; 0 where the connector has smart hosts.
    down: HashMap<u32, UnixTime>,
    /// Domains whose next hops answer again after an outage (0: the connector's), and how many concurrent attempts they
    /// may have until the usual limit is reached.
    gentle: HashMap<u32, usize>,
    /// Messages to be tried, by age.
    pub(super) waiting: BTreeSet<QueueId>,
    /// Reports about strangers' messages, to be sent when it is their turn.
    pub(super) reports: BTreeSet<QueueId>,
    /// Held messages, by age.
    pub(super) held: BTreeSet<QueueId>,
}

impl Lane {
    fn of(&mut self, kind: Kind) -> &mut Hints {
        &mut self.hints[kind as usize]
    }

    /// Waiting messages of this kind.
    pub(super) fn those_that_wait(&mut self, kind: Kind) -> &mut BTreeSet<QueueId> {
        match kind {
            Kind::Mail | Kind::Report => &mut self.waiting,
            Kind::StrangersReport => &mut self.reports,
        }
    }

    /// Whether this message waits.
    pub(super) fn waits(&self, id: QueueId) -> bool {
        self.waiting.contains(&id) || self.reports.contains(&id)
    }

    /// Something in this message may be due.
    pub(super) fn push(&mut self, kind: Kind, hint: Hint, why: Why) {
        self.of(kind).push(hint, why);
    }

    /// Takes the next hint for which there is a slot. Hints of messages that are gone are skipped.
    pub(super) fn take(&mut self, kind: Kind, rules: Rules, now: UnixTime) -> Option<Hint> {
        let limit = self.limit(rules);
        let by_domain = rules.by_domain();
        self.of(kind).ripen(now, rules.grouping);
        self.of(kind).feed(limit, rules.grouping);
        loop {
            if !self.has_place(kind, limit) {
                return None;
            }
            let Self { hints, running, running_for, down, gentle, .. } = self;
            let is_gentle = |group| {
                let its = running_for.get(&group).copied().unwrap_or(0);
                gentle.get(&group).is_none_or(|most| its < *most)
            };
            let has_room =
                |group| !by_domain || has_room(*running, running_for, down, group, limit) && is_gentle(group);
            let hint = hints[kind as usize].take(has_room)?;
            if self.waits(hint.id) || self.held.contains(&hint.id) {
                return Some(hint);
            }
        }
    }

    fn limit(&self, rules: Rules) -> usize {
        // The lane may have had smart hosts when that began.
        self.gentle.get(&0).filter(|_| !rules.by_domain()).map_or(rules.limit, |most| rules.limit.min(*most))
    }

    /// Whether another attempt may begin.
    fn has_place(&self, kind: Kind, limit: usize) -> bool {
        self.running < limit
            && match kind {
                Kind::Mail | Kind::Report => true,
                Kind::StrangersReport => self.running_reports < (limit / 2).max(1),
            }
    }

    /// When the next hint of this kind is due, if it would have a slot. Hints that are due without a slot are woken by
    /// an attempt that ends.
    pub(super) fn next_due(&self, kind: Kind, rules: Rules) -> Option<UnixTime> {
        self.hints[kind as usize].next_due().filter(|_| self.has_place(kind, self.limit(rules)))
    }

    /// Whether hints of this kind are due.
    pub(super) fn is_ready(&self, kind: Kind, rules: Rules) -> bool {
        self.hints[kind as usize].is_ready() && self.has_place(kind, self.limit(rules))
    }

    pub(super) fn begun(&mut self, kind: Kind, group: u32) {
        self.running += 1;
        self.running_reports += usize::from(kind == Kind::StrangersReport);
        *self.running_for.entry(group).or_default() += 1;
    }

    pub(super) fn finished(&mut self, kind: Kind, group: u32) {
        self.running = self.running.saturating_sub(1);
        self.running_reports = self.running_reports.saturating_sub(usize::from(kind == Kind::StrangersReport));
        if let Some(running) = self.running_for.get_mut(&group) {
            *running -= 1;
            if *running == 0 {
                self.running_for.remove(&group);
            }
        }
    }

    /// Its next hop (with MX, this domain's) answered: after an outage what waited for it is due, a few at a time.
    pub(super) fn answered(&mut self, group: u32, rules: Rules, now: UnixTime) {
        let its = if rules.by_domain() { group } else { 0 };
        if let Some(most) = self.gentle.get_mut(&its) {
            *most += 1;
            if *most >= rules.limit {
                self.gentle.remove(&its);
            }
        }
        self.is_back(group, rules, now);
    }

    /// The same, if others than its own attempts found out.
    pub(super) fn is_back(&mut self, group: u32, rules: Rules, now: UnixTime) {
        let group = if rules.by_domain() { group } else { 0 };
        let Some(since) = self.down.remove(&group) else { return };
        if now.since(since) >= OUTAGE {
            let of = rules.by_domain().then_some(group);
            let hastened: usize = self.hints.iter_mut().map(|hints| hints.hop_is_back(of)).sum();
            if hastened > rules.limit {
                self.gentle.insert(group, 1);
            }
        }
    }

    pub(super) fn unreachable(&mut self, group: u32, rules: Rules, now: UnixTime) {
        let group = if rules.by_domain() { group } else { 0 };
        self.is_down(group, now);
        let of = rules.by_domain().then_some(group);
        self.hints.iter_mut().for_each(|hints| hints.hop_is_gone(of));
        if !self.hints.iter().any(Hints::hastens) {
            self.gentle.clear();
        }
    }

    fn is_down(&mut self, group: u32, since: UnixTime) {
        if self.down.len() >= DOWN {
            self.down.clear();
        }
        self.down.entry(group).or_insert(since);
    }

    /// Mail is added that waits because its next hop could not be reached, since an unknown time: the first answer
    /// makes it due.
    pub(super) fn was_unreachable(&mut self, group: u32) {
        for group in [0, group] {
            self.is_down(group, UnixTime(0));
        }
    }

    /// Everything is due for this reason, a few at a time. Returns the messages.
    pub(super) fn retry(&mut self, due: Due) -> Vec<QueueId> {
        let ids: Vec<QueueId> = self.hints.iter_mut().flat_map(|hints| hints.retry(due)).collect();
        ids.into_iter().filter(|id| self.waits(*id)).collect()
    }

    /// This message is finished; its recipients' states are unknown.
    pub(super) fn forget(&mut self, kind: Kind, id: QueueId) {
        self.those_that_wait(kind).remove(&id);
        self.held.remove(&id);
    }

    /// This message is due.
    pub(super) fn hint_now(&mut self, kind: Kind, id: QueueId, due: Due) {
        self.push(kind, Hint { due, id, group: 0, sender: 0 }, Why::New);
    }
}

/// Whether a domain may have another slot.
fn has_room(
    running: usize,
    running_for: &HashMap<u32, usize>,
    down: &HashMap<u32, UnixTime>,
    group: u32,
    limit: usize,
) -> bool {
    let its = running_for.get(&group).copied().unwrap_or(0);
    let others = running.saturating_sub(its);
    let in_vain =
        || running_for.iter().filter(|(group, _)| down.contains_key(group)).map(|(_, running)| running).sum::<usize>();
    its < (limit.saturating_sub(others) / 2).max(1) && (!down.contains_key(&group) || in_vain() < (limit / 4).max(1))
}

impl Rules {
    /// Whether domains share the slots.
    pub(super) fn by_domain(self) -> bool {
        self.grouping == Grouping::ByDomain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_half_of_what_others_leave() {
        for (limit, others, its, room) in [
            (20, 0, 9, true),
            (20, 0, 10, false),
            (20, 10, 4, true),
            (20, 10, 5, false),
            (20, 15, 2, false),
            (20, 19, 0, true),
            (20, 18, 1, false),
            (3, 0, 1, false),
            (1, 0, 0, true),
        ] {
            let running_for = HashMap::from([(1, its), (2, others)]);
            let room_now = has_room(its + others, &running_for, &HashMap::new(), 1, limit);
            assert_eq!(room_now, room, "{limit} {others} {its}");
        }
    }

    #[test]
    fn domains_that_are_out_of_reach_share_a_quarter() {
        let down = HashMap::from([(1, UnixTime(0)), (2, UnixTime(0))]);
        for (of_one, of_two, room) in [(0, 0, true), (2, 2, true), (3, 2, false), (0, 5, false)] {
            let running_for = HashMap::from([(1, of_one), (2, of_two)]);
            assert_eq!(has_room(of_one + of_two, &running_for, &down, 1, 20), room, "{of_one} {of_two}");
        }
    }
    /// When our own network was down, many domains answer again at once. Here the first does not answer.
    #[test]
    fn each_domain_that_is_back_is_met_gently_and_waits_for_no_other() {
        let rules = Rules { limit: 8, grouping: Grouping::ByDomain, reports_per_minute: None };
        let (mut lane, now) = (Lane::default(), UnixTime(1000));
        for id in 0..60 {
            let group = if id < 30 { 1 } else { 2 };
            lane.waiting.insert(QueueId(id));
            lane.push(
                Kind::Mail,
                Hint { due: Due::at(UnixTime(9000)), id: QueueId(id), group, sender: 0 },
                Why::Unreachable,
            );
        }
        for group in [1, 2] {
            lane.was_unreachable(group);
            lane.is_back(group, rules, now);
        }
        let (mut slow, mut rounds) = (0, Vec::new());
        loop {
            let begun: Vec<u32> = std::iter::from_fn(|| {
                let group = lane.take(Kind::Mail, rules, now)?.group;
                lane.begun(Kind::Mail, group);
                Some(group)
            })
            .collect();
            let others = begun.iter().filter(|group| **group == 2).count();
            slow += begun.len() - others;
            if others == 0 {
                break;
            }
            rounds.push(others);
            for _ in 0..others {
                lane.finished(Kind::Mail, 2);
                lane.answered(2, rules, now);
            }
        }
        assert_eq!((slow, &rounds[..3], rounds.iter().sum::<usize>()), (1, &[1, 2, 3][..], 30), "{rounds:?}");
    }

    #[test]
    fn nothing_begins_while_other_nodes_have_all_connections() {
        for grouping in [Grouping::Together, Grouping::ByDomain] {
            let of = |limit| Rules { limit, grouping, reports_per_minute: None };
            let (mut lane, now) = (Lane::default(), UnixTime(1000));
            for id in 0..3 {
                lane.waiting.insert(QueueId(id));
                lane.push(Kind::Mail, Hint { due: Due::at(now), id: QueueId(id), group: 1, sender: 0 }, Why::New);
            }
            assert!(lane.take(Kind::Mail, of(0), now).is_none());
            assert_eq!((lane.next_due(Kind::Mail, of(0)), lane.is_ready(Kind::Mail, of(0))), (None, false));
            assert!(lane.take(Kind::Mail, of(1), now).is_some());
        }
    }

    #[test]
    fn a_gentle_beginning_ends_with_the_smart_hosts_that_it_was_for() {
        let [together, by_domain] = [Grouping::Together, Grouping::ByDomain].map(|grouping| Rules {
            limit: 2,
            grouping,
            reports_per_minute: None,
        });
        let mut lane = Lane::default();
        for id in 0..9 {
            let hint = Hint { due: Due::at(UnixTime(9000)), id: QueueId(id), group: 1, sender: 0 };
            lane.push(Kind::Mail, hint, Why::Unreachable);
        }
        lane.was_unreachable(1);
        lane.is_back(0, together, UnixTime(1000));
        assert_eq!((lane.limit(together), lane.limit(by_domain)), (1, 2));
    }
}
