//! Accidents in a directory of 100,000 recipients, and what of them takes effect: the table in
//! docs/directories/snapshots.md. Time is simulated.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::config::HoldChanges;
use crate::directory::expected::Announced;
use crate::directory::known::{Claim, Id, Known, Meaning, Strength};
use crate::directory::mail::{Asked, Mail};
use crate::directory::snapshot::guard;
use crate::directory::snapshot::served::{Now, Outcome, Rules, Served};
use crate::directory::snapshot::table::{Builder, Sizes, Table};
use crate::directory::snapshot::view::{Change, View};
use crate::recipient::{Kind, Lookup};
use crate::smtp::address::Address;
use crate::time::{QueueTime, UnixTime};

const ALL: usize = 100_000;
const LIMITS: HoldChanges = HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_hours(1) };
const START: u64 = 1_000_000;

/// Whose mail was accepted, on the way that the directory means since, or elsewhere.
#[derive(Default)]
struct Seen {
    arrived: HashSet<String>,
    elsewhere: HashSet<String>,
}

impl Mail for Seen {
    fn now(&self) -> QueueTime {
        QueueTime(START)
    }

    fn arrived(&self, asked: &Asked<'_>, _: QueueTime) -> bool {
        self.arrived.contains(asked.key)
    }

    fn serves_elsewhere(&self, asked: &Asked<'_>) -> Option<Arc<str>> {
        self.elsewhere.contains(asked.key).then(|| "secondary".into())
    }
}

/// What happened to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Gone,
    Wiped,
    Moved,
    Lives,
}

fn key(number: usize) -> String {
    format!("u{number}@contoso.test")
}

fn known(number: usize, fate: Fate) -> Known {
    let claims =
        [key(number), format!("first.last{number}@contoso.test")].map(|key| Claim { key, strength: Strength::Certain });
    let target = (fate == Fate::Moved).then(|| Address::parse(&format!("u{number}@fabrikam.test")).unwrap());
    let kind = match fate {
        Fate::Lives => Kind::Mailbox,
        Fate::Moved => Kind::MailUser,
        Fate::Gone | Fate::Wiped => Kind::NoMailbox,
    };
    let meaning = Meaning { kind, target, mail_server: None, rule: "test".into(), at_odds: None };
    Known {
        id: Id(number as u64 + 1),
        dn: format!("CN=u{number},OU=Staff"),
        claims: claims.to_vec(),
        meaning: Ok(meaning),
    }
}

fn change(number: usize, fate: Fate) -> Change {
    if fate == Fate::Gone { Change::Gone(Id(number as u64 + 1)) } else { Change::Put(known(number, fate)) }
}

fn table(entries: usize) -> Arc<Table> {
    let mut sizes = Sizes::default();
    (0..entries).for_each(|number| sizes.add(&known(number, Fate::Lives)));
    let mut builder = Builder::new(sizes);
    (0..entries).for_each(|number| builder.add(&known(number, Fate::Lives)).unwrap());
    builder.finish().into()
}

/// A directory, what mail says, and the time.
struct Lab {
    served: Served,
    seen: Seen,
    second: u64,
}

impl Lab {
    fn of(table: Arc<Table>) -> Self {
        let rules = Rules { name: "ad".into(), limits: LIMITS, servers: Arc::default() };
        let mut lab = Self { served: Served::nobody(rules), seen: Seen::default(), second: 0 };
        assert_eq!(lab.read(View::new(table)), Outcome::Taken(0));
        lab
    }

    fn new() -> Self {
        static TABLE: LazyLock<Arc<Table>> = LazyLock::new(|| table(ALL));
        Self::of(Arc::clone(&TABLE))
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Served, Now<'_>) -> T) -> T {
        let now = Now { at: QueueTime(START + self.second), day: UnixTime(START + self.second), mail: &self.seen };
        act(&mut self.served, now)
    }

    fn read(&mut self, view: View) -> Outcome {
        self.with(|served, now| served.read(view, now))
    }

    /// So many a batch, a batch every so many seconds.
    fn happens(&mut self, to: impl IntoIterator<Item = (usize, Fate)>, batch: usize, every: u64) -> Outcome {
        let to: Vec<(usize, Fate)> = to.into_iter().collect();
        let mut last = Outcome::Taken(0);
        for some in to.chunks(batch) {
            let changes = some.iter().map(|(number, fate)| change(*number, *fate)).collect();
            last = self.with(|served, now| served.changed(changes, now)).1;
            self.second += every;
        }
        last
    }

    /// How mail for somebody goes now.
    fn fate(&self, number: usize) -> Fate {
        let both =
            [key(number), format!("first.last{number}@contoso.test")].map(|key| match self.served.lookup(&key) {
                Lookup::NotFound => Fate::Gone,
                Lookup::Found(recipient) => match (&recipient.target, recipient.kind) {
                    (Some(_), _) => Fate::Moved,
                    (None, Kind::NoMailbox) => Fate::Wiped,
                    (None, _) => Fate::Lives,
                },
                other => panic!("{number}: {other:?}"),
            });
        assert_eq!(both[0], both[1], "{number}");
        both[0]
    }

    fn count(&self, numbers: impl IntoIterator<Item = usize>, fate: Fate) -> usize {
        numbers.into_iter().filter(|number| self.fate(*number) == fate).count()
    }

    /// Those whom the list names, waiting and in force.
    fn named(&self) -> (HashSet<String>, HashSet<String>) {
        let (stayed, waits): (Vec<_>, Vec<_>) =
            self.served.held_list().addresses.into_iter().partition(|held| held.in_force);
        let addresses = |rows: Vec<crate::directory::HeldAddress>| rows.into_iter().map(|row| row.address).collect();
        (addresses(waits), addresses(stayed))
    }

    /// The same program, started again: the file has what was in force, as it was noted.
    fn restart(&mut self, in_force: View) {
        let rules = Rules { name: "ad".into(), limits: LIMITS, servers: Arc::default() };
        self.served = Served::nobody(rules).resumed(in_force, self.served.kept());
    }
}

#[test]
fn of_2101_streamed_deletions_none_stays_in_force() {
    let mut lab = Lab::new();
    // As slapd told them: 1,960 before the limit of 2,000 was passed by a batch.
    assert_eq!(lab.happens((0..1_960).map(|n| (n, Fate::Gone)), 98, 1), Outcome::Taken(98));
    assert_eq!(lab.count(0..2_101, Fate::Gone), 1_960, "up to the limit it is like any change");
    assert_eq!(lab.happens((1_960..2_101).map(|n| (n, Fate::Gone)), 98, 1), Outcome::Held(2_101));
    assert_eq!(lab.count(0..2_101, Fate::Lives), 2_101);
    let list = lab.served.held_list();
    assert_eq!((list.recipients, list.addresses.len()), (2_101, 2 * 2_101));
    let first = list.addresses.iter().find(|held| held.address == key(0)).unwrap();
    assert_eq!((&*first.from, &*first.to, &*first.why), ("mailbox", "nobody", "taken away"));
    assert_eq!(first.since, UnixTime(START), "when it was deleted, not when it was taken back");
    let Lookup::Found(shown) = lab.served.lookup(&key(0)) else { panic!() };
    assert_eq!(&*shown.rule, "test; held since 1970-01-12T13:46:40Z: the directory has nobody now");
    // Somebody puts it right, one by one: nothing of the rest takes effect meanwhile.
    assert_eq!(lab.happens((0..2_050).map(|n| (n, Fate::Lives)), 410, 1), Outcome::Held(51));
    assert_eq!(lab.count(0..2_101, Fate::Lives), 2_101);
    assert_eq!(lab.happens((2_050..2_101).map(|n| (n, Fate::Lives)), 51, 1), Outcome::Taken(0));
    assert!(!lab.served.is_holding() && lab.served.held_list().addresses.is_empty());
}

#[test]
fn a_wiped_attribute_is_taken_back_slow_or_fast() {
    // Five a second as Active Directory is asked every 10 s; everything between two looks.
    for (batch, every) in [(50, 10), (2_500, 10)] {
        let mut lab = Lab::new();
        assert_eq!(lab.happens((0..2_500).map(|n| (n, Fate::Wiped)), batch, every), Outcome::Held(2_500));
        assert_eq!(lab.count(0..2_500, Fate::Lives), 2_500);
        let (waits, stayed) = lab.named();
        assert_eq!((waits.len(), stayed.len()), (5_000, 0));
    }
}

#[test]
fn what_is_older_than_the_window_was_no_accident() {
    let mut lab = Lab::new();
    for hour in 0..2 {
        lab.second = hour * 3_600;
        let deleted = (hour as usize * 1_900..(hour as usize + 1) * 1_900).map(|n| (n, Fate::Gone));
        assert_eq!(lab.happens(deleted, 1_900, 0), Outcome::Taken(1_900));
    }
    assert_eq!(lab.happens((5_000..5_101).map(|n| (n, Fate::Gone)), 101, 0), Outcome::Held(2_001));
    assert_eq!((lab.count(0..1_900, Fate::Gone), lab.count(1_900..3_800, Fate::Lives)), (1_900, 1_900));
}

#[test]
fn who_is_deleted_and_put_back_within_the_window_does_not_count() {
    let mut lab = Lab::new();
    for round in 0..3 {
        let numbers = round * 1_500..(round + 1) * 1_500;
        assert_eq!(lab.happens(numbers.clone().map(|n| (n, Fate::Gone)), 1_500, 60), Outcome::Taken(1_500));
        assert_eq!(lab.happens(numbers.map(|n| (n, Fate::Lives)), 1_500, 60), Outcome::Taken(0));
    }
}

#[test]
fn small_firms_reach_the_limit_too() {
    let mut lab = Lab::of(table(68));
    assert_eq!(guard::most(&LIMITS, 68), 6);
    assert_eq!(lab.happens((0..45).map(|n| (n, Fate::Wiped)), 1, 1), Outcome::Held(45));
    assert_eq!(lab.count(0..68, Fate::Lives), 68);
}

#[test]
fn mailboxes_for_people_of_the_other_side_are_not_used() {
    let mut lab = Lab::new();
    let limit = guard::most(&LIMITS, ALL);
    assert_eq!(limit, 2_000);
    // With the usual limits 300 are none too many of 100,000; of 2,000 recipients 50 may change.
    let mut small = Lab::of(table(2_000));
    for lab in [&mut lab, &mut small] {
        lab.seen.elsewhere = (200_000..200_300).map(key).collect();
    }
    assert_eq!(lab.happens((200_000..200_300).map(|n| (n, Fate::Lives)), 100, 1), Outcome::Taken(100));
    assert_eq!(small.happens((200_000..200_300).map(|n| (n, Fate::Lives)), 10, 1), Outcome::Held(300));
    for number in 200_000..200_300 {
        assert_eq!(small.fate(number), Fate::Wiped);
        let Lookup::Found(recipient) = small.served.lookup(&key(number)) else { panic!("{number}") };
        assert_eq!(recipient.kind, Kind::NoMailbox, "as good as not found, with the reason: {}", recipient.rule);
        assert!(recipient.rule.contains("held: it is new here") && recipient.rule.contains("secondary"));
    }
    let list = small.served.held_list();
    assert_eq!((list.recipients, list.addresses.len()), (300, 600));
    assert_eq!(list.addresses[0].why, "new here; the last mail for it was accepted by secondary");
    // Others that are new are used at once, and these once somebody says so.
    small.happens([(300_000, Fate::Lives)], 1, 1);
    assert_eq!(small.fate(300_000), Fate::Lives);
    small.with(|served, now| served.accept_only(&[key(200_007)], now));
    assert_eq!(small.fate(200_007), Fate::Lives);
    assert_eq!(small.served.held(), 299);
    assert_eq!(small.served.accept(), 299);
    assert_eq!(small.count(200_000..200_300, Fate::Lives), 300);
}

#[test]
fn of_those_moved_only_whose_mail_arrived_stay() {
    let mut lab = Lab::new();
    lab.happens((0..1_990).map(|n| (n, Fate::Moved)), 199, 60);
    // 700 had mail at their new place since.
    lab.seen.arrived = (0..700).map(key).collect();
    assert_eq!(lab.happens((1_990..2_010).map(|n| (n, Fate::Moved)), 5, 1), Outcome::Held(2_010));
    assert_eq!((lab.count(0..700, Fate::Moved), lab.count(700..2_010, Fate::Lives)), (700, 1_310));
    let (waits, stayed) = lab.named();
    assert_eq!((waits.len(), stayed.len()), (2 * 1_310, 2 * 700));
    assert!((0..2_010).all(|n| waits.contains(&key(n)) || stayed.contains(&key(n))), "the list names everybody");
    // Accepting half takes that half, and one address of somebody takes all of his.
    let half: Vec<String> = (700..1_355).map(key).collect();
    assert_eq!(lab.with(|served, now| served.accept_only(&half, now)), 655);
    assert_eq!((lab.count(700..1_355, Fate::Moved), lab.count(1_355..2_010, Fate::Lives)), (655, 655));
    assert_eq!(lab.served.held(), 655 + 700);
    // What one of those who stayed is moved back to is taken: that is no accident.
    assert_eq!(lab.happens([(0, Fate::Lives)], 1, 1), Outcome::Held(655 + 699));
    assert_eq!(lab.fate(0), Fate::Lives);
    // A read of everything changes nothing of it.
    let latest = lab.served.latest().clone();
    assert_eq!(lab.read(latest), Outcome::Held(655 + 699));
    assert_eq!(lab.served.accept(), 655);
    assert_eq!(lab.count(1..2_010, Fate::Moved), 2_009);
}

#[test]
fn a_restart_forgets_neither_what_changed_nor_what_is_held() {
    let mut lab = Lab::new();
    lab.happens((0..1_990).map(|n| (n, Fate::Gone)), 199, 60);
    let in_force = lab.served.current().clone();
    lab.restart(in_force.clone());
    assert_eq!(lab.happens((1_990..2_010).map(|n| (n, Fate::Gone)), 20, 1), Outcome::Held(2_010));
    let latest = lab.served.latest().clone();
    // What waits is nothing that the file has: it has what was in force when the limit was passed.
    lab.restart(in_force);
    assert!(lab.served.is_holding() && lab.served.held() > 0);
    assert_eq!(lab.count(0..2_010, Fate::Lives), 2_010);
    assert_eq!(lab.read(latest.clone()), Outcome::Held(2_010));
    assert_eq!(
        lab.served.held_list().addresses.iter().find(|held| held.address == key(0)).unwrap().since,
        UnixTime(START)
    );
    // Few wait, and no limit lets them through.
    let most: Vec<String> = (0..2_000).map(key).collect();
    assert_eq!(lab.with(|served, now| served.accept_only(&most, now)), 2_000);
    let in_force = lab.served.current().clone();
    lab.restart(in_force);
    assert_eq!(lab.read(latest), Outcome::Held(10));
    assert_eq!((lab.count(0..2_000, Fate::Gone), lab.count(2_000..2_010, Fate::Lives)), (2_000, 10));
}

#[test]
fn what_is_announced_neither_counts_nor_is_held() {
    let mut lab = Lab::new();
    let announced = Announced::Only((0..5_000).map(key).collect());
    lab.with(|served, now| served.announce(announced, QueueTime(START + 7_200), now));
    assert_eq!(lab.happens((0..5_000).map(|n| (n, Fate::Moved)), 1_000, 1), Outcome::Taken(0));
    assert_eq!(lab.count(0..5_000, Fate::Moved), 5_000);
    // An accident beside it, which does not touch them.
    assert_eq!(lab.happens((5_000..7_001).map(|n| (n, Fate::Gone)), 1_000, 1), Outcome::Held(2_001));
    assert_eq!((lab.count(0..5_000, Fate::Moved), lab.count(5_000..7_001, Fate::Lives)), (5_000, 2_001));
    lab.happens((4_000..5_000).map(|n| (n, Fate::Lives)), 1_000, 1);
    assert_eq!(lab.count(4_000..5_000, Fate::Lives), 1_000, "while changes are held too");
    // What is announced while it is held goes through.
    let announced = Announced::Only(vec![key(5_000)]);
    lab.with(|served, now| served.announce(announced, QueueTime(START + 7_200), now));
    assert_eq!((lab.fate(5_000), lab.served.held()), (Fate::Gone, 2_000));
}

#[test]
fn a_number_is_announced_and_used_up() {
    let mut lab = Lab::new();
    lab.with(|served, now| served.announce(Announced::Any(3_000), QueueTime(START + 7_200), now));
    assert_eq!(lab.happens((0..3_000).map(|n| (n, Fate::Moved)), 1_000, 1), Outcome::Taken(1_000));
    assert_eq!(lab.happens((3_000..5_000).map(|n| (n, Fate::Moved)), 1_000, 1), Outcome::Taken(1_000));
    assert_eq!(lab.happens([(5_000, Fate::Moved)], 1, 1), Outcome::Held(2_001), "the limit stands beyond it");
    assert_eq!((lab.count(0..3_000, Fate::Moved), lab.count(3_000..5_001, Fate::Lives)), (3_000, 2_001));
}
