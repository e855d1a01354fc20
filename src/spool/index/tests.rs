//! What is live, what is over, and which segments are needed for it.

use std::borrow::Cow;

use super::*;
use crate::message::queue_id::CLUSTERED;
use crate::spool::entry::{HeldFor, Outcome};
use crate::spool::record::Statement;
use crate::spool::sample::entry;
use crate::time::UnixTime;

const SIZES: Sizes = Sizes { segment: 32_000, slack: 100_000, reserve: 0 };

fn accepted(ids: &[u64], length: u32) -> Logged<'static> {
    let content = Held::Here { length, sum: 9 };
    let statement = |id: &u64| Statement { entry: Cow::Owned(entry(QueueId(*id), u64::from(length))), content };
    Logged { accepted: ids.iter().map(statement).collect(), changes: Cow::Borrowed(&[]) }
}

fn changed(id: u64, recipient: usize, state: RecipientState) -> Logged<'static> {
    let change = Change { id: QueueId(id), recipient, state, route: None };
    Logged { accepted: Vec::new(), changes: vec![change].into() }
}

fn done() -> RecipientState {
    RecipientState::Done(Outcome::Dropped)
}

fn spot(segment: u32, offset: u32) -> Spot {
    Spot { segment, offset, contents: offset + 100 }
}

#[test]
fn contents_lie_one_behind_the_other() {
    let mut index = Index::default();
    assert_eq!(index.apply(&accepted(&[1, 2], 50), spot(3, 10)), []);
    let place = |id| index.get(QueueId(id)).unwrap().content;
    assert_eq!(place(1), ContentPlace::Segment { offset: 110, length: 50, sum: 9 });
    assert_eq!(place(2), ContentPlace::Segment { offset: 160, length: 50, sum: 9 });
    assert_eq!(index.get(QueueId(2)).unwrap().at, At { segment: 3, offset: 10, nth: 1 });
}

#[test]
fn what_is_over_stays_over() {
    let mut index = Index::default();
    index.apply(&accepted(&[1], 50), spot(1, 0));
    assert_eq!(index.apply(&changed(1, 0, done()), spot(1, 200)), []);
    let after_one = index.get(QueueId(1)).unwrap().clone();
    for late in [done(), RecipientState::due(UnixTime(1)), RecipientState::Held(HeldFor::Drop)] {
        assert_eq!(index.apply(&changed(1, 0, late), spot(1, 300)), [], "one of two is over, once");
        assert_eq!(index.get(QueueId(1)), Some(&after_one));
    }
    assert_eq!(index.apply(&changed(1, 7, done()), spot(1, 300)), [], "there is no such recipient");
    let place = after_one.content;
    assert_eq!(index.apply(&changed(1, 1, done()), spot(1, 400)), [Finished { id: QueueId(1), content: place }]);
    for late in [done(), RecipientState::due(UnixTime(1))] {
        assert_eq!(index.apply(&changed(1, 1, late), spot(1, 500)), []);
        assert!(index.get(QueueId(1)).is_none());
    }
}

#[test]
fn every_recipient_counts_however_many_there_are() {
    let mut index = Index::default();
    let mut logged = accepted(&[1], 0);
    let one = logged.accepted[0].entry.recipients[0].clone();
    logged.accepted[0].entry.to_mut().recipients = vec![one; 200];
    index.apply(&logged, spot(1, 0));
    for recipient in 0..199 {
        assert_eq!(index.apply(&changed(1, recipient, done()), spot(1, 100)), []);
    }
    assert_eq!(index.apply(&changed(1, 199, done()), spot(1, 100)).len(), 1);
}

#[test]
fn of_many_changes_those_are_remembered_that_mean_something() {
    let mut index = Index::default();
    index.apply(&accepted(&[1], 50), spot(1, 0));
    for n in 0..10 {
        index.apply(&changed(1, 0, RecipientState::due(UnixTime(n))), spot(2, 0));
    }
    let mut rerouted = changed(1, 0, RecipientState::due(UnixTime(1)));
    rerouted.changes.to_mut()[0].route = Some(entry(QueueId(1), 0).recipients[0].route.clone());
    index.apply(&rerouted, spot(3, 0));
    index.apply(&changed(1, 0, RecipientState::due(UnixTime(2))), spot(4, 0));
    index.apply(&changed(1, 0, RecipientState::due(UnixTime(3))), spot(5, 0));
    let places: Vec<_> = index.get(QueueId(1)).unwrap().changes.iter().map(|changed| changed.segment).collect();
    assert_eq!(places, [3, 5], "its way and its state");
    index.apply(&accepted(&[1], 50), spot(6, 0));
    assert_eq!(index.get(QueueId(1)).unwrap().changes, Changes::None, "a statement holds what was changed before it");
}

/// Segments of these sizes with this many messages of about 1,100 bytes; the last one grows.
fn log(segments: &[(u64, u64)]) -> Index {
    let mut index = Index::default();
    for (number, (size, messages)) in (1..).zip(segments) {
        index.segments.grow(number, *size);
        for n in 0..*messages {
            index.apply(&accepted(&[u64::from(number) * 1000 + n], 1000), spot(number, 0));
        }
    }
    index
}

#[test]
fn segments_are_given_up_in_their_order() {
    for (segments, first, bytes, spent) in [
        (&[(32_000, 5), (32_000, 0), (10, 0)][..], 1, 0, 0),
        (&[(32_000, 0), (32_000, 1), (10, 0)], 2, 32_000, 1),
        (&[(32_000, 0), (32_000, 0), (10, 0)], 3, 64_000, 2),
        (&[(10, 0)], 1, 0, 0),
    ] {
        let mut index = log(segments);
        assert_eq!(index.segments.first_needed(), (first, Spent { bytes, segments: spent }), "{segments:?}");
        assert_eq!(index.segments.forget_before(first), (1..first).collect::<Vec<_>>());
        assert_eq!(index.segments.first_needed(), (first, Spent::default()));
    }
}

#[test]
fn what_is_too_much_or_cannot_be_rewritten_is_cleaned_from_the_front() {
    let dense = (32_000, 29);
    for (what, segments, expected) in [
        ("all dense", vec![dense, dense, (32_000, 5)], None),
        ("the first is sparse: it is rewritten", vec![(32_000, 5), dense, dense], None),
        ("only the one being written is", vec![(32_000, 5)], None),
        ("too short to be worth it", vec![(900, 0), (999, 0), dense], None),
        ("more than twice what is live", vec![dense, (32_000, 0), (32_000, 0), (32_000, 0), (10, 0)], Some(1)),
        ("hundreds of short ones", vec![(200, 1); 100], Some(1)),
    ] {
        assert_eq!(log(&segments).segments.to_clean(&SIZES), expected, "{what}");
    }
    for (what, segments, dense_at, expected) in [
        ("the first", vec![(32_000, 5), dense, dense], 1, Some(1)),
        ("an empty one is passed over", vec![(32_000, 0), (32_000, 5), dense], 2, Some(2)),
        ("one behind the first", vec![dense, (32_000, 5), dense], 2, None),
    ] {
        let mut index = log(&segments);
        index.segments.is_dense(dense_at);
        assert_eq!(index.segments.to_clean(&SIZES), expected, "{what} cannot be rewritten");
    }
}

#[test]
fn a_checkpoint_is_for_what_is_dense_and_complete() {
    let dense = (32_000, 29);
    let mut index = log(&[dense, (32_000, 5), dense, dense, dense]);
    assert_eq!(index.segments.without_checkpoint(&SIZES), [3, 1]);
    index.segments.has_checkpoint(3, 100);
    assert_eq!(index.segments.without_checkpoint(&SIZES), [1]);
}

#[test]
fn what_is_sparse_is_rewritten_with_a_short_one_before_it() {
    let (dense, sparse, growing) = ((32_000, 29), (32_000, 5), (10, 0));
    for (what, segments, expected) in [
        ("all dense", vec![dense, dense, dense, growing], None),
        ("the first", vec![sparse, dense, dense, growing], Some((1, None))),
        ("one behind it", vec![dense, sparse, dense, growing], Some((2, None))),
        ("nothing is left of it", vec![dense, (32_000, 0), dense, growing], Some((2, None))),
        ("the last two may soon be over", vec![dense, dense, (32_000, 0), growing], None),
        ("too short to be worth it", vec![dense, (900, 0), dense, growing], None),
        ("with a short one before it", vec![dense, (5_000, 4), sparse, dense, growing], Some((3, Some(2)))),
        ("also if that is the first", vec![(5_000, 4), sparse, dense, growing], Some((2, Some(1)))),
        ("never with more than it has itself", vec![dense, (5_000, 4), (3_000, 0), dense, growing], Some((3, None))),
    ] {
        let expected = expected.map(|(number, before)| Sparse { number, before });
        assert_eq!(log(&segments).segments.to_rewrite(&SIZES, 2), expected, "{what}");
    }
    let last = Sparse { number: 2, before: None };
    assert_eq!(log(&[dense, sparse, growing]).segments.to_rewrite(&SIZES, 1), Some(last), "it is over");
}

#[test]
fn outcomes_of_what_came_before_and_changes_of_what_waits_keep_a_segment() {
    let dense = (32_000, 29);
    let waits = || RecipientState::due(UnixTime(1));
    let clustered = CLUSTERED | 5000;
    let all = [
        ("stated in it", 999, 5000, done(), false),
        ("stated earlier", 9999, 5000, done(), true),
        ("it waits", 0, 5000, waits(), true),
        ("it came from a cluster", 999, clustered, done(), true),
    ];
    for (what, last_id, first, state, is_kept) in all {
        let mut index = log(&[dense, (32_000, 0), dense, (10, 0)]);
        index.segments.begin(2, QueueId(last_id));
        for id in first..first + 200 {
            index.apply(&accepted(&[id], 10), spot(1, 0));
            (0..2).for_each(|recipient| drop(index.apply(&changed(id, recipient, state.clone()), spot(2, 0))));
        }
        assert_eq!(index.segments.to_rewrite(&SIZES, 2).is_none(), is_kept, "{what}");
    }
}

#[test]
fn what_went_into_a_file_that_may_not_be_there_stays_with_all_behind_it() {
    let mut index = log(&[(5_000, 0), (32_000, 5), (32_000, 29), (10, 0)]);
    index.segments.rewritten(Sparse { number: 2, before: Some(1) }, 6_000);
    assert_eq!((index.segments.first_needed().0, index.segments.first_needed_or(9)), (2, 2));
    index.segments.hold(1);
    assert_eq!((index.segments.first_needed().0, index.segments.first_needed_or(9)), (1, 1));
    let grown = 10 * SIZES.slack;
    index.segments.grow(4, grown);
    assert_eq!(index.segments.to_clean(&SIZES), None, "there is nothing in it to be moved");
    assert!(index.segments.forget_before(1).is_empty() && index.segments.end_of(1) == Some(0));
}
