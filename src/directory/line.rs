//! A fair queue for a few slots: who may have one, who is next, and whose question gives way to others.
//!
//! Known clients have reserved slots and go first; known networks, and clients whose mail was accepted lately, come
//! next; strangers share the rest. Within each class clients take turns: one without a slot in this round goes before
//! one that had a slot, however many questions wait. So no client waits for another one's long list.
//!
//! A server may delay an answer (Exchange's tarpit: 5 s and more before it refuses a recipient), and which ones is
//! unknown beforehand. So a slow question gives its slot to one that waits. Half of the slots are not given up, so that
//! the first slow questions get their answer in the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::lookup::{Behalf, Standing};

/// The most clients whose last turn is remembered; beyond that only those whose turn is not over are.
const REMEMBERED: usize = 4096;
const KINDS: [Standing; 3] = [Standing::Known, Standing::Network, Standing::Stranger];

/// The numbers of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    pub all: usize,
    /// For strangers and known networks together.
    pub networks: usize,
    pub strangers: usize,
    /// For each client.
    pub each: usize,
}

impl Most {
    /// The usual shares of `all` slots: two thirds for strangers, a sixth for one client.
    #[must_use]
    pub const fn of(all: usize) -> Self {
        Self { all, networks: all * 5 / 6, strangers: all * 2 / 3, each: all / 6 }
    }

    /// The most slots for this standing.
    #[must_use]
    pub fn for_kind(&self, standing: Standing) -> usize {
        match standing {
            Standing::Known => self.all,
            Standing::Network => self.networks,
            Standing::Stranger => self.strangers,
        }
    }
}

pub(super) struct Line {
    most: Most,
    state: Mutex<LineState>,
    kinds: [Kind; 3],
}

/// The slow questions of one standing.
struct Kind {
    /// A question with one of these does not give way any more.
    lasting: Semaphore,
    /// One for each of `waiting` for which no question has given way yet.
    wanted: Semaphore,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct LineState {
    running: [usize; 3],
    queues: [Queue; 3],
    last_number: u64,
}

/// The waiting questions of one standing.
#[derive(Default)]
struct Queue {
    /// By round and number.
    waiting: BTreeMap<(u64, u64), oneshot::Sender<LinePermit>>,
    /// The round of the last question that got a slot.
    round: u64,
    /// The round of each client's last turn, past or future.
    last: HashMap<Behalf, u64>,
}

/// A slot; dropping it frees it.
pub(super) struct LinePermit {
    line: Arc<Line>,
    standing: Standing,
}

impl Line {
    pub(super) fn new(most: Most) -> Arc<Self> {
        let kinds = KINDS.map(|standing| Kind {
            lasting: Semaphore::new(most.for_kind(standing) / 2),
            wanted: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
        });
        Arc::new(Self { most, state: Mutex::default(), kinds })
    }

    /// Waits for a slot; `None`: there was none by `until`.
    pub(super) async fn take(
        self: &Arc<Self>,
        behalf: &Behalf,
        standing: Standing,
        until: Instant,
    ) -> Option<LinePermit> {
        let (key, receiver) = {
            let mut state = self.state.lock();
            let key = (state.queues[standing as usize].turn(behalf), state.next_number());
            let queue = &mut state.queues[standing as usize];
            if queue.waiting.is_empty() && state.has_room(standing, &self.most) {
                return Some(self.begin(&mut state, standing, key.0));
            }
            let (sender, receiver) = oneshot::channel();
            state.queues[standing as usize].waiting.insert(key, sender);
            (key, receiver)
        };
        let _waits = Waits::new(self, standing, key);
        let place = timeout_at(until, receiver).await.ok()?.ok()?;
        // A slot that becomes free when the time is up is not used.
        (Instant::now() < until).then_some(place)
    }

    fn begin(self: &Arc<Self>, state: &mut LineState, standing: Standing, round: u64) -> LinePermit {
        state.running[standing as usize] += 1;
        state.queues[standing as usize].round = round;
        LinePermit { line: Arc::clone(self), standing }
    }

    /// Gives free slots to the next in line.
    fn go_on(self: &Arc<Self>) {
        let mut next = Vec::new();
        let mut state = self.state.lock();
        while let Some((standing, round, sender)) = state.next(&self.most) {
            next.push((sender, self.begin(&mut state, standing, round)));
        }
        drop(state);
        for (sender, place) in next {
            // If the receiver is gone, the slot goes to the next.
            let _ = sender.send(place);
        }
    }

    fn kind(&self, standing: Standing) -> &Kind {
        &self.kinds[standing as usize]
    }
}

impl LineState {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn has_room(&self, standing: Standing, most: &Most) -> bool {
        let [known, networks, strangers] = self.running;
        let all = known + networks + strangers < most.all;
        match standing {
            Standing::Known => all,
            Standing::Network => all && networks + strangers < most.networks,
            Standing::Stranger => all && networks + strangers < most.networks && strangers < most.strangers,
        }
    }

    fn next(&mut self, most: &Most) -> Option<(Standing, u64, oneshot::Sender<LinePermit>)> {
        KINDS.into_iter().find_map(|standing| {
            if !self.has_room(standing, most) {
                return None;
            }
            let ((round, _), sender) = self.queues[standing as usize].waiting.pop_first()?;
            Some((standing, round, sender))
        })
    }
}

impl Queue {
    /// The next round for this client.
    fn turn(&mut self, behalf: &Behalf) -> u64 {
        let round = self.round;
        if self.last.len() >= REMEMBERED {
            self.last.retain(|_, last| *last > round);
        }
        let turn = self.last.get(behalf).map_or(round, |last| round.max(last + 1));
        self.last.insert(behalf.clone(), turn);
        turn
    }
}

impl LinePermit {
    /// Completes when the question, which is slow, has to give way to another of the same standing or a better one.
    pub(super) async fn gives_way(&self) {
        let wanted = |standing: Standing| async move {
            match standing <= self.standing {
                true => match self.line.kind(standing).wanted.acquire().await {
                    Ok(wanted) => wanted.forget(),
                    Err(_) => std::future::pending().await,
                },
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Ok(_lasting) = self.line.kind(self.standing).lasting.acquire() => std::future::pending().await,
            () = wanted(Standing::Known) => {}
            () = wanted(Standing::Network) => {}
            () = wanted(Standing::Stranger) => {}
        }
    }
}

impl Drop for LinePermit {
    fn drop(&mut self) {
        self.line.state.lock().running[self.standing as usize] -= 1;
        self.line.go_on();
    }
}

/// A question that waits for a slot.
struct Waits<'a> {
    line: &'a Arc<Line>,
    standing: Standing,
    key: (u64, u64),
}

impl<'a> Waits<'a> {
    fn new(line: &'a Arc<Line>, standing: Standing, key: (u64, u64)) -> Self {
        let kind = line.kind(standing);
        kind.waiting.fetch_add(1, Ordering::SeqCst);
        kind.wanted.add_permits(1);
        Self { line, standing, key }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let gone = self.line.state.lock().queues[self.standing as usize].waiting.remove(&self.key);
        drop(gone);
        let kind = self.line.kind(self.standing);
        let others = kind.waiting.fetch_sub(1, Ordering::SeqCst) - 1;
        if kind.wanted.available_permits() > others {
            kind.wanted.forget_permits(1);
        }
    }
}

#[cfg(test)]
mod tests;
