//! Rewriting a segment does not change what the log means.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::entry::{Entry, HeldFor, Outcome};
use super::super::index::{Finished, Spot};
use super::super::record::{Frames, Statement};
use super::super::sample::entry;
use super::*;
use crate::time::UnixTime;

/// Encoded segments, and the expected state.
struct Log {
    segments: Vec<(Header, Vec<u8>)>,
    index: Index,
    next_id: u64,
}

impl Log {
    fn new() -> Self {
        let mut log = Self { segments: Vec::new(), index: Index::default(), next_id: 1 };
        log.begin();
        log
    }

    fn begin(&mut self) {
        let (previous, previous_end) =
            self.segments.last().map_or((0, 0), |(header, bytes)| (header.number, bytes.len() as u64));
        let number = previous + 1;
        let last_id = QueueId(self.next_id - 1);
        let mark = [u8::try_from(number).unwrap(); 8];
        let header =
            Header { format: FORMAT, number, previous, previous_end, first: 1, last_id, mark, rewritten_end: 0 };
        self.index.segments.begin(number, last_id);
        self.index.segments.grow(number, header::LENGTH as u64);
        self.segments.push((header, header.write()));
    }

    fn append(&mut self, logged: &Logged<'_>, contents: &[&[u8]]) {
        let (header, bytes) = self.segments.last_mut().unwrap();
        let from = bytes.len();
        let contents = record::write(header.mark, logged, contents, bytes).unwrap();
        let spot = Spot { segment: header.number, offset: four(from), contents: four(contents) };
        self.index.apply(logged, spot);
        self.index.segments.grow(header.number, (bytes.len() - from) as u64);
    }

    /// Appends new messages, or moved ones with their current state.
    fn state(&mut self, entries: Vec<Entry>) {
        let contents: Vec<Vec<u8>> = entries.iter().map(|entry| entry.id.to_string().into_bytes()).collect();
        let accepted = entries.into_iter().zip(&contents).map(|(entry, content)| Statement {
            entry: Cow::Owned(entry),
            content: Held::Here { length: four(content.len()), sum: crc32c::crc32c(content) },
        });
        let logged = Logged { accepted: accepted.collect(), changes: Vec::new().into() };
        self.append(&logged, &contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Accept(number) => {
                let ids = self.next_id..self.next_id + *number;
                self.next_id += number;
                self.state(ids.map(|id| entry(QueueId(id), 3)).collect());
            }
            Step::Change(changes) => {
                let change = |(id, recipient, kind): &(u64, usize, u8)| {
                    let state = match kind {
                        0 => RecipientState::due(UnixTime(7)),
                        1 => RecipientState::Held(HeldFor::Drop),
                        _ => RecipientState::Done(Outcome::Dropped),
                    };
                    Change { id: QueueId(1 + id % self.next_id), recipient: *recipient, state, route: None }
                };
                let changes: Vec<Change> = changes.iter().map(change).collect();
                self.append(&Logged { accepted: Vec::new(), changes: changes.into() }, &[]);
            }
            Step::Move(id) => {
                let live = read(&self.segments);
                let id = QueueId(1 + id % self.next_id);
                self.state(live.1.get(&id).cloned().into_iter().collect());
            }
            Step::Begin => self.begin(),
        }
    }

    /// Rewrites the second of these segments, together with the first if they differ.
    fn rewrite(&mut self, from: usize, at: usize) {
        let source = |(header, bytes): &(Header, Vec<u8>)| {
            let frames = Frames::new(header.mark, header.format, bytes, header::LENGTH).map(Result::unwrap);
            let records = frames.filter_map(|frame| needed(header, frame, &self.index)).collect();
            Source::new(*header, bytes, records)
        };
        let sources: Vec<Source> = self.segments[from..=at].iter().map(source).collect();
        let Rewritten { bytes, moves } = write(sources).unwrap().unwrap();
        let before = (from < at).then(|| self.segments[from].0.number);
        let sparse = super::super::index::Sparse { number: self.segments[at].0.number, before };
        assert!(self.index.has_all(sparse));
        self.index.rewritten(sparse, bytes.len() as u64, &moves);
        self.segments[at] = (Header::read(&bytes).unwrap(), bytes);
        self.segments.drain(from..at);
    }
}

/// What a start reads: the index, and the live messages.
fn read(segments: &[(Header, Vec<u8>)]) -> (Index, BTreeMap<QueueId, Entry>) {
    let (mut index, mut live) = (Index::default(), BTreeMap::new());
    for (header, bytes) in segments {
        index.segments.begin(header.number, header.last_id);
        index.segments.grow(header.number, bytes.len() as u64);
        for frame in Frames::new(header.mark, header.format, bytes, header::LENGTH) {
            let frame = frame.unwrap();
            let spot = Spot { segment: header.number, offset: four(frame.range.start), contents: four(frame.contents) };
            let over = index.apply(&frame.logged, spot);
            for statement in frame.logged.accepted {
                live.insert(statement.entry.id, statement.entry.into_owned());
            }
            for change in frame.logged.changes.iter() {
                if let Some(entry) = live.get_mut(&change.id) {
                    entry.apply(change);
                }
            }
            for Finished { id, .. } in over {
                live.remove(&id);
            }
        }
    }
    (index, live)
}

#[derive(Debug, Clone)]
enum Step {
    Accept(u64),
    Change(Vec<(u64, usize, u8)>),
    Move(u64),
    Begin,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let changes = prop::collection::vec((any::<u64>(), 0..2_usize, 0..5_u8), 1..4);
    let step = prop_oneof![
        4 => (1..4_u64).prop_map(Step::Accept),
        6 => changes.prop_map(Step::Change),
        1 => any::<u64>().prop_map(Step::Move),
        2 => Just(Step::Begin),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn a_log_says_the_same_whatever_of_it_is_rewritten(
        steps in steps(),
        rewritten in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..8),
    ) {
        let mut log = Log::new();
        let (early, late) = steps.split_at(steps.len() / 2);
        early.iter().for_each(|step| log.step(step));
        for (which, steps) in rewritten.iter().zip([&[], late].iter().cycle()) {
            let (at, merge) = (which.0.index(log.segments.len()), which.1);
            let (_, expected) = read(&log.segments);
            if at + 1 < log.segments.len() {
                log.rewrite(at - usize::from(merge && at > 0), at);
            }
            let (index, found) = read(&log.segments);
            prop_assert_eq!(&found, &expected);
            let places = |index: &Index| {
                let all = index.messages().map(|(id, kept)| (id, kept.at, kept.content, kept.changes.clone()));
                all.collect::<Vec<_>>()
            };
            prop_assert_eq!(places(&index), places(&log.index), "and the index knows where");
            steps.iter().for_each(|step| log.step(step));
        }
    }

    /// If a message was moved, the second copy may be rewritten after the message is finished.
    #[test]
    fn what_is_over_stays_over(merge in any::<bool>(), between in 0..3_usize) {
        let mut log = Log::new();
        log.step(&Step::Accept(1));
        log.step(&Step::Begin);
        log.step(&Step::Change(vec![(0, 0, 4)]));
        (0..between).for_each(|_| log.step(&Step::Begin));
        log.step(&Step::Move(0));
        log.step(&Step::Begin);
        log.step(&Step::Change(vec![(0, 1, 4)]));
        log.step(&Step::Begin);
        for at in (1..log.segments.len() - 1).rev() {
            if at < log.segments.len() - 1 {
                log.rewrite(at - usize::from(merge), at);
            }
            prop_assert!(read(&log.segments).1.is_empty());
        }
    }
}

#[test]
fn what_passed_leaves_nothing_and_a_run_becomes_one() {
    let mut log = Log::new();
    log.step(&Step::Accept(2));
    for _ in 0..3 {
        log.step(&Step::Begin);
        log.step(&Step::Accept(3));
        let ids: Vec<u64> = (log.next_id - 4..log.next_id - 1).collect();
        let changes = ids.iter().flat_map(|id| [(*id, 0, 4), (*id, 1, 4)]).collect();
        log.step(&Step::Change(changes));
    }
    log.step(&Step::Begin);
    for _ in 0..3 {
        let at = log.segments.len() - 2;
        log.rewrite(at - 1, at);
    }
    let [(first, _), (_, last)] = &log.segments[..] else { panic!("{} segments", log.segments.len()) };
    assert_eq!((first.number, first.previous, first.rewritten_end), (4, 0, log.segments[0].1.len() as u64));
    assert_eq!(last.len(), header::LENGTH);
    let mut alone = Log::new();
    alone.step(&Step::Accept(2));
    assert_eq!(log.segments[0].1.len(), alone.segments[0].1.len(), "the two that wait");
}
