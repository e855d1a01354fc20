//! Which mail is accepted, by the last check and by what has come since.

use super::*;

use crate::pressure::weigh::Inodes;

/// The error if there is not enough space.
const FULL: &str = "less than 800 bytes free";

fn free(pressure: &Pressure, free: u64, min_free: u64) {
    pressure.look(&Figures { free, ..Figures::default() }, Bounds { min_free, max_messages: None });
}

#[test]
fn strangers_are_the_first_to_be_turned_away() {
    let pressure = Arc::new(Pressure::default());
    let bounds = Bounds { min_free: 100, max_messages: Some(1000) };
    for (messages, stranger, known) in
        [(0, true, true), (1000, false, true), (1125, false, false), (900, false, true), (874, true, true)]
    {
        pressure.look(&Figures { free: 500, messages, ..Figures::default() }, bounds);
        assert_eq!(pressure.has_room(Whose::Stranger, 400), stranger, "{messages}");
        assert_eq!(pressure.has_room(Whose::Known, 400), known, "{messages}");
        assert!(!pressure.has_room(Whose::Known, 401), "nor does the disk give more");
        assert_eq!(pressure.share(10).take_room(0), Ok(()), "what is coming in has its room on the disk");
    }
}

#[test]
fn files_that_are_being_made_count() {
    let pressure = Arc::new(Pressure::default());
    let look = |free| {
        let inodes = Some(Inodes { free, total: 1_000_000 });
        pressure.look(&Figures { free: 1 << 40, inodes, ..Figures::default() }, Bounds::default())
    };
    look(1026);
    let mut open: Vec<Share> = (0..3).map(|_| pressure.share(1 << 20)).collect();
    let taken: Vec<bool> = open.iter_mut().map(|share| share.take_room(20_000).is_ok()).collect();
    assert_eq!(taken, [true, true, false], "two more than the least");
    assert_eq!(open[0].take_room(20_000), Ok(()), "it has its file");
}

#[test]
fn where_memory_is_short_sessions_hold_little() {
    let pressure = Arc::new(Pressure::default());
    let mib = |mib: u64| mib << 20;
    for (anonymous, limit, messages, may) in [
        (mib(30), mib(400), 0, mib(50)),
        (mib(300), mib(400), 0, mib(50)), // nothing waits: a directory has it, and will have it for ever
        (mib(340), mib(400), 0, mib(30)),
        (mib(401), mib(400), 0, 0),
        (mib(295), mib(400), 100_000, mib(50)),
        (mib(300), mib(400), 100_000, 0),
        (mib(299), mib(400), 0, mib(50)),
        (1, 1 << 40, 0, held::FOR_ALL),
    ] {
        let memory = Some(Memory { anonymous, limit });
        pressure.look(&Figures { memory, messages, ..Figures::default() }, Bounds::default());
        assert!(!pressure.is_short_of_memory(may) && pressure.is_short_of_memory(may + 1), "{anonymous} of {limit}");
        let is_queue = messages > 0 && anonymous >= mib(300);
        assert_eq!(pressure.turns_away(Whose::Stranger), is_queue, "{anonymous} of {limit}, {messages} wait");
    }
}

#[test]
fn messages_that_are_coming_in_count() {
    let pressure = Arc::new(Pressure::default());
    assert!(pressure.has_room(Whose::Stranger, u64::MAX), "nobody has looked yet");
    free(&pressure, 1000, 800);
    let room = |size| pressure.has_room(Whose::Stranger, size);
    assert!(room(200) && !room(201));
    let mut small = pressure.share(10_000);
    assert!(room(200), "who has only said that he will send much takes nothing");
    small.received(50);
    assert!(room(100) && !room(101), "as much again is expected");
    let mut announced = pressure.share(60);
    announced.received(50);
    assert!(room(40) && !room(41), "no more than was announced");
    announced.received(20);
    assert!(room(30) && !room(31), "but what has come has come");
    drop(small);
    assert!(room(130) && !room(131));
    assert_eq!(announced.take_room(70), Ok(()));
    assert!(room(130) && !room(131), "it is on the disk, and nobody has looked since");
    assert_eq!(announced.take_room(131), Err(FULL.to_owned()));
    assert!(room(130) && !room(131), "what was not written takes nothing");
    drop(announced);
    assert!(room(130) && !room(131), "what was written is there until somebody has looked");
    let mut failed = pressure.share(100);
    failed.received(100);
    assert_eq!(failed.take_room(100), Ok(()));
    assert!(room(30) && !room(31));
    failed.thrown_away();
    assert!(room(130) && !room(131));
    free(&pressure, 799, 800);
    assert!(!room(0));
    assert_eq!(pressure.share(10).take_room(0), Err(FULL.to_owned()));
}

#[test]
fn what_is_written_may_be_more_than_what_came() {
    let pressure = Arc::new(Pressure::default());
    free(&pressure, 10_000_000, 1000);
    let mut share = pressure.share(1);
    share.received(300_000);
    assert_eq!(share.take_room(300_200), Ok(()));
    share.received(1);
    assert!(pressure.has_room(Whose::Stranger, 1), "nothing more is to come, and much is free");
}
