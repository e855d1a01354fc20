//! Levels over consecutive checks.

use super::TurnedAway::{Everybody, Nobody, Strangers};
use super::*;

const MIB: u64 = 1 << 20;

/// Consecutive checks: figures, and the expected level for this resource; no mail is refused for any other.
fn looks(want: Want, bounds: Bounds, figures: &[(Figures, TurnedAway)]) {
    let mut levels = Levels::default();
    for (at, (figures, expected)) in figures.iter().enumerate() {
        levels = weigh(figures, bounds, levels);
        assert_eq!(levels.of(want), *expected, "{want:?}, look {at}: {figures:?}");
        assert_eq!(levels.worst(), *expected, "{want:?}, look {at}: {figures:?}");
    }
}

#[test]
fn who_is_concerned() {
    for (turned_away, stranger, known) in [(Nobody, false, false), (Strangers, true, false), (Everybody, true, true)] {
        assert_eq!(turned_away.concerns(Whose::Stranger), stranger);
        assert_eq!(turned_away.concerns(Whose::Known), known);
    }
}

#[test]
fn the_disk_is_everybodys() {
    let looked = [
        (1000, Nobody),
        (800, Nobody),
        (799, Everybody),
        (899, Everybody),
        (900, Nobody),
        (800, Nobody),
        (0, Everybody),
    ];
    let bounds = Bounds { min_free: 800, max_messages: None };
    looks(Want::Disk, bounds, &looked.map(|(free, who)| (Figures { free, ..Figures::default() }, who)));
}

#[test]
fn memory_is_strangers_first() {
    // Of 800 MiB three quarters are 600, 85 percent 680; an eighth less is 525 and 595.
    let looked = [
        (599, Nobody),
        (600, Strangers),
        (526, Strangers),
        (524, Nobody),
        (679, Strangers),
        (680, Everybody),
        (596, Everybody),
        (594, Strangers),
        (900, Everybody),
        (0, Nobody),
    ];
    let figures = |anonymous| Figures {
        memory: Some(Memory { anonymous: anonymous * MIB, limit: 800 * MIB }),
        messages: 200_000,
        ..Figures::default()
    };
    looks(Want::Memory, Bounds::default(), &looked.map(|(anonymous, who)| (figures(anonymous), who)));
}

#[test]
fn of_little_memory_a_segment_is_left() {
    for (limit, strangers, everybody) in
        [(1000, 750, 850), (500, 375, 425), (400, 296, 336), (200, 116, 136), (100, 40, 50), (0, 0, 0)]
    {
        let memory = Memory { anonymous: 0, limit: limit * MIB };
        let near = |octets: u64| octets.div_ceil(MIB);
        assert_eq!((near(memory.strangers_at()), near(memory.everybody_at())), (strangers, everybody), "{limit}");
    }
}

#[test]
fn what_a_start_would_take_counts() {
    let memory = Some(Memory { anonymous: 100 * MIB, limit: 400 * MIB });
    let figures = |messages| Figures { memory, messages, ..Figures::default() };
    let looked = [(700_000, Nobody), (743_100, Strangers), (862_000, Strangers), (863_000, Everybody), (0, Nobody)];
    looks(Want::Memory, Bounds::default(), &looked.map(|(messages, who)| (figures(messages), who)));
}

#[test]
fn a_queue_that_is_small_is_never_what_takes_the_memory() {
    let limit = 400 * MIB;
    let always = Memory { anonymous: 0, limit }.always();
    assert_eq!(always, 87_381);
    let figures =
        |messages| Figures { memory: Some(Memory { anonymous: limit, limit }), messages, ..Figures::default() };
    let looked =
        [(0, Nobody), (always - 1, Nobody), (always, Everybody), (always * 7 / 8 + 1, Everybody), (76_000, Nobody)];
    looks(Want::Memory, Bounds::default(), &looked.map(|(messages, who)| (figures(messages), who)));
    let unknown = Figures { messages: 5_000_000, ..Figures::default() };
    looks(Want::Memory, Bounds::default(), &[(unknown, Nobody)]);
}

#[test]
fn inodes_are_strangers_first() {
    for (total, looked) in [
        (1_000_000, [(2048, Nobody), (2047, Strangers), (2303, Strangers), (1023, Everybody), (1151, Everybody)]),
        (2000, [(200, Nobody), (199, Strangers), (224, Strangers), (99, Everybody), (111, Everybody)]),
    ] {
        let figures = |free| Figures { inodes: Some(Inodes { free, total }), ..Figures::default() };
        let mut looked = looked.map(|(free, who)| (figures(free), who)).to_vec();
        looked.extend([(figures(looked.len() as u64 * total), Nobody), (Figures::default(), Nobody)]);
        looks(Want::Inodes, Bounds::default(), &looked);
    }
}

#[test]
fn messages_are_strangers_first() {
    let looked = [
        (999, Nobody),
        (1000, Strangers),
        (1124, Strangers),
        (1125, Everybody),
        (985, Everybody),
        (984, Strangers),
        (875, Strangers),
        (874, Nobody),
    ];
    let bounds = Bounds { min_free: 0, max_messages: Some(1000) };
    let figures = |messages| Figures { messages, ..Figures::default() };
    looks(Want::Messages, bounds, &looked.map(|(messages, who)| (figures(messages), who)));
    looks(Want::Messages, Bounds::default(), &[(figures(u64::MAX), Nobody)]);
    // The smallest limit that can be configured, and one that was lowered below what waits.
    looks(
        Want::Messages,
        Bounds { min_free: 0, max_messages: Some(1) },
        &[(figures(0), Nobody), (figures(1), Everybody)],
    );
}

#[test]
fn a_refresh_neither_begins_nor_ends_it() {
    for (anonymous, refresh, last, counts) in [
        (250, 0, 200, 250),
        (200, 0, 250, 200),
        (200, 100, 200, 200), // it has only begun
        (280, 100, 200, 200),
        (300, 100, 200, 200),
        (320, 100, 200, 220), // the rest is somebody else's
        (150, 100, 200, 150), // what others gave back
        (50, 100, 0, 0),      // the first look
    ] {
        assert_eq!(without_refresh(anonymous, refresh, last), counts, "{anonymous} {refresh} {last}");
    }
}
