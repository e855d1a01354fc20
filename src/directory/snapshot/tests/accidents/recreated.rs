//! Entries that are recreated with another id, entries that change back and forth, and directories without a limit.

use super::*;

/// A recreated entry with the addresses of this recipient.
fn anew(number: usize, fate: Fate) -> Change {
    Change::Put(Known { id: Id(500_000 + number as u64), ..known(number, fate) })
}

impl Lab {
    fn anew(&mut self, numbers: std::ops::Range<usize>, fate: Fate) -> Outcome {
        let changes = numbers.map(|number| anew(number, fate)).collect();
        self.second += 1;
        self.with(|served, now| served.changed(changes, now)).1
    }
}

#[test]
fn who_was_made_anew_counts_and_goes_back() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.happens((0..150).map(|n| (n, Fate::Gone)), 50, 1), Outcome::Taken(50));
    assert_eq!(lab.anew(0..150, Fate::Lives), Outcome::Taken(0));
    assert_eq!(lab.count(0..150, Fate::Lives), 150);
    // A script writes a target into all of them, and into more.
    assert_eq!(lab.anew(0..150, Fate::Moved), Outcome::Taken(150));
    assert_eq!(lab.happens((150..201).map(|n| (n, Fate::Moved)), 51, 1), Outcome::Held(201));
    assert_eq!(lab.count(0..201, Fate::Lives), 201);
    assert!((0..201).all(|n| lab.named().0.contains(&key(n))), "the list names everybody");
    assert_eq!(lab.served.accept(), 201);
    assert_eq!(lab.count(0..201, Fate::Moved), 201);
}

#[test]
fn who_was_made_anew_at_another_place_counts() {
    let mut lab = Lab::new(1);
    lab.happens((0..150).map(|n| (n, Fate::Gone)), 50, 1);
    lab.anew(0..150, Fate::Moved);
    assert_eq!(lab.happens((150..201).map(|n| (n, Fate::Moved)), 51, 1), Outcome::Held(201));
    assert_eq!(lab.count(0..201, Fate::Lives), 201);
}

#[test]
fn who_was_made_anew_counts_after_the_window_of_the_deletion() {
    let mut lab = Lab::new(1);
    lab.happens((0..150).map(|n| (n, Fate::Gone)), 150, 0);
    lab.second = 3_000;
    lab.anew(0..150, Fate::Lives);
    lab.second = 3_700;
    assert_eq!(lab.anew(0..150, Fate::Moved), Outcome::Taken(150));
    assert_eq!(lab.happens((150..201).map(|n| (n, Fate::Moved)), 51, 1), Outcome::Held(201));
    assert_eq!(lab.count(0..201, Fate::Lives), 201);
}

#[test]
fn new_recipients_and_whole_moves_are_no_part_of_the_window() {
    let mut lab = Lab::new(1);
    assert_eq!(lab.happens((20_000..21_000).map(|n| (n, Fate::Lives)), 500, 1), Outcome::Taken(0));
    let moved = (0..1_000).flat_map(|n| [change(n, Fate::Gone), anew(n, Fate::Lives)]).collect();
    assert_eq!(lab.with(|served, now| served.changed(moved, now)).1, Outcome::Taken(0));
    assert!(lab.served.kept().undos.is_empty());
}

#[test]
fn who_goes_back_and_forth_does_not_grow_the_window() {
    let mut lab = Lab::new(1);
    for _ in 0..20 {
        lab.happens((0..10).flat_map(|n| [(n, Fate::Moved), (n, Fate::Lives)]), 1, 1);
        assert!(lab.served.kept().undos.len() <= 20);
    }
    lab.happens((0..10).map(|n| (n, Fate::Moved)), 10, 1);
    assert_eq!(lab.happens((10..201).map(|n| (n, Fate::Moved)), 191, 1), Outcome::Held(201));
    assert_eq!(lab.count(0..201, Fate::Lives), 201);
}

#[test]
fn without_a_limit_nothing_is_kept() {
    let mut lab = Lab::new(1);
    let limits = HoldChanges { share_millionths: 1_000_000, ..LIMITS };
    lab.served = Served::nobody(Rules { name: "ad".into(), limits, servers: Arc::default() });
    lab.read(View::new(table(1_000)));
    lab.happens((0..1_000).map(|n| (n, Fate::Moved)), 100, 1);
    assert_eq!((lab.count(0..1_000, Fate::Moved), lab.served.kept().undos.len()), (1_000, 0));
}

#[test]
fn who_is_withheld_is_over_a_restart() {
    let mut lab = Lab::of(table(2_000));
    lab.seen.elsewhere = (200_000..202_300).map(key).collect();
    assert_eq!(lab.happens((200_000..202_300).map(|n| (n, Fate::Lives)), 2_300, 1), Outcome::Held(2_300));
    let (in_force, latest) = (lab.served.current().clone(), lab.served.latest().clone());
    lab.restart(in_force);
    for number in 200_000..202_300 {
        assert!(lab.served.withholds(&key(number)), "{number} is not asked for");
        assert_eq!(lab.fate(number), Fate::Gone);
    }
    assert!(!lab.served.withholds(&key(300_000)), "others that are new are");
    assert_eq!(lab.happens([(0, Fate::Moved)], 1, 1), Outcome::Held(1), "what came while it was away is not known yet");
    assert!(lab.served.withholds(&key(200_000)));
    assert_eq!(lab.read(latest), Outcome::Held(2_300));
    assert_eq!(lab.count(200_000..202_300, Fate::Wiped), 2_300);
}
