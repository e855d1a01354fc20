//! Records that are cut off or damaged anywhere.

use super::*;
use crate::message::queue_id::QueueId;
use crate::spool::entry::{HeldFor, RecipientState};
use crate::spool::header::FORMAT;
use crate::spool::sample::entry;
use proptest::prelude::*;

const MARK: Mark = *b"\xf1mark\xf2\xf3\xf4";

/// A record of one message with this content, and one change.
fn record(n: u64, content: &[u8]) -> (Logged<'static>, Vec<u8>) {
    let here = Held::Here { length: u32::try_from(content.len()).unwrap(), sum: crc32c::crc32c(content) };
    let statement = Statement { entry: Cow::Owned(entry(QueueId(n), content.len() as u64)), content: here };
    let change =
        Change { id: QueueId(7), recipient: 1, state: RecipientState::Held(HeldFor::NoConnector), route: None };
    (Logged { accepted: vec![statement], changes: vec![change].into() }, content.to_vec())
}

fn three() -> (Vec<u8>, Vec<usize>, Vec<Logged<'static>>) {
    let (mut bytes, mut ends, mut records) = (vec![9; 10], vec![10], Vec::new());
    for n in 0..3 {
        let (logged, content) = record(n, &[b'a' + u8::try_from(n).unwrap(); 60]);
        write(MARK, &logged, &[&content], &mut bytes).unwrap();
        ends.push(bytes.len());
        records.push(logged);
    }
    (bytes, ends, records)
}

fn good(bytes: &[u8]) -> Vec<Logged<'static>> {
    Frames::new(MARK, FORMAT, bytes, 10).flatten().map(|frame| frame.logged).collect()
}

#[test]
fn a_record_reads_as_it_was_written_and_says_where_its_contents_are() {
    let (bytes, ends, records) = three();
    let frames: Vec<Frame> = Frames::new(MARK, FORMAT, &bytes, 10).map(Result::unwrap).collect();
    assert_eq!(frames.iter().map(|frame| frame.logged.clone()).collect::<Vec<_>>(), records);
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!(frame.range, ends[n]..ends[n + 1]);
        assert_eq!(bytes[frame.contents..frame.range.end - 8], [b'a' + u8::try_from(n).unwrap(); 60]);
    }
}

#[test]
fn a_log_cut_anywhere_reads_as_its_whole_records_and_a_torn_tail() {
    let (bytes, ends, records) = three();
    for length in 10..=bytes.len() {
        let cut = &bytes[..length];
        let whole = ends.iter().filter(|end| **end <= length).count() - 1;
        assert_eq!(good(cut), records[..whole], "cut at {length}");
        let bad: Vec<_> = Frames::new(MARK, FORMAT, cut, 10).filter_map(Result::err).collect();
        assert_eq!(bad.len(), usize::from(ends[whole] != length), "cut at {length}");
        assert!(bad.iter().all(|bad| is_torn(MARK, cut, &bad.range)), "cut at {length}");
    }
}

#[test]
fn a_flipped_bit_costs_at_most_the_record_that_it_is_in_and_is_no_torn_tail() {
    let (bytes, ends, records) = three();
    for at in 10..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let hit = ends.iter().filter(|end| **end <= at).count() - 1;
            let good = good(&bytes);
            for n in (0..3).filter(|n| *n != hit) {
                assert!(good.contains(&records[n]), "record {n} with bit {bit} of byte {at} flipped");
            }
            assert!(good.iter().all(|read| records.contains(read)), "nothing is made up");
            for unused in [0, 5000] {
                bytes.resize(bytes.len() + unused, 0);
                let bad: Vec<_> = Frames::new(MARK, FORMAT, &bytes, 10).filter_map(Result::err).collect();
                let mut bad = bad.iter().filter(|bad| !is_unused(&bytes, &bad.range));
                assert!(bad.all(|bad| !is_torn(MARK, &bytes, &bad.range)), "bit {bit} of byte {at}");
            }
        }
    }
}

#[test]
fn what_an_interrupted_write_leaves_is_torn() {
    let (bytes, ends, _) = three();
    let record = &bytes[ends[0]..ends[1]];
    let (large, content) = self::record(5, &[b'x'; 3000]);
    let mut hole = Vec::new();
    write(MARK, &large, &[&content], &mut hole).unwrap();
    hole[1000..1600].fill(0);
    let mut begun = record.to_vec();
    begun[..100].fill(0);
    let unused = [record[..40].to_vec(), vec![0; 5000]].concat();
    let with_head = [record[..record.len() - 30].to_vec(), vec![0; 5000]].concat();
    for (what, tail) in [
        ("half a record before what is unused", &unused[..]),
        ("one that lacks its end, before what is unused", &with_head),
        ("noise", b"12\0\0\n\0"),
        ("zeros", &[0; 5000]),
        ("half a record", &record[..40]),
        ("its first block missing", &begun),
        ("a block in its midst missing", &hole),
    ] {
        let mut torn = bytes.clone();
        torn.extend_from_slice(tail);
        let bad: Vec<_> = Frames::new(MARK, FORMAT, &torn, 10).filter_map(Result::err).collect();
        assert_eq!(bad[0].range.start, bytes.len(), "{what}");
        assert!(is_torn(MARK, &torn, &bad[0].range), "{what}");
        assert!(bad.iter().skip(1).all(|bad| is_unused(&torn, &bad.range)), "{what}");
    }
}

#[test]
fn mail_that_looks_like_a_record_is_none() {
    let (inner, content) = record(1, b"forged");
    let mut forged = Vec::new();
    write(*b"guessed!", &inner, &[&content], &mut forged).unwrap();
    let (outer, content) = record(2, &forged);
    let mut bytes = vec![9; 10];
    write(MARK, &outer, &[&content], &mut bytes).unwrap();
    bytes[30] ^= 1; // the record itself cannot be read any more
    assert!(good(&bytes).is_empty());
}

proptest! {
    #[test]
    fn noise_is_no_record(noise in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = MARK.to_vec();
        bytes.extend(noise);
        prop_assert!(Frames::new(MARK, FORMAT, &bytes, 0).all(|read| read.is_err()));
    }
}
