//! Simulates accidents in a directory, and checks how much of them takes effect: the table in
//! docs/directories/snapshots.md. Time is simulated.
//!
//! With 10,000 recipients; with 100,000, and ten times as many of everything, as in the table: `cargo test --lib
//! accidents -- --ignored`.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::config::HoldChanges;
use crate::directory::expected::Announced;
use crate::directory::known::{Claim, Id, Known, Meaning, Strength};
use crate::directory::mail::{AnsweredAddress, Mail};
use crate::directory::snapshot::guard;
use crate::directory::snapshot::served::{Now, Outcome, Rules, Served};
use crate::directory::snapshot::table::{Builder, Sizes, Table};
use crate::directory::snapshot::view::{Change, View};
use crate::lookup::{Kind, Lookup};
use crate::smtp::address::Address;
use crate::time::{QueueTime, UnixTime};

mod recreated;

/// Recipients, times `k`.
const ALL: usize = 10_000;
const LIMITS: HoldChanges = HoldChanges { share_millionths: 20_000, at_least: 50, within: Duration::from_hours(1) };
const START: u64 = 1_000_000;

/// Addresses whose mail was accepted at the directory's new destination, or elsewhere.
#[derive(Default)]
struct Seen {
    arrived: HashSet<String>,
    elsewhere: HashSet<String>,
}

impl Mail for Seen {
    fn now(&self) -> QueueTime {
        QueueTime(START)
    }

    fn arrived(&self, asked: &AnsweredAddress<'_>, _: QueueTime) -> bool {
        self.arrived.contains(asked.key)
    }

    fn serves_elsewhere(&self, asked: &AnsweredAddress<'_>) -> Option<Arc<str>> {
        self.elsewhere.contains(asked.key).then(|| "secondary".into())
    }
}

/// The state of an entry.
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

/// A directory, accepted mail, and the time.
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

    /// With 10,000 times `k` recipients.
    fn new(k: usize) -> Self {
        static SMALL: LazyLock<Arc<Table>> = LazyLock::new(|| table(ALL));
        static LARGE: LazyLock<Arc<Table>> = LazyLock::new(|| table(10 * ALL));
        Self::of(Arc::clone(if k == 1 { &SMALL } else { &LARGE }))
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Served, Now<'_>) -> T) -> T {
        let now = Now { at: QueueTime(START + self.second), day: UnixTime(START + self.second), mail: &self.seen };
        act(&mut self.served, now)
    }

    fn read(&mut self, view: View) -> Outcome {
        self.with(|served, now| served.read(view, now))
    }

    /// Changes entries, `batch` at a time, `every` so many seconds.
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

    /// How mail for an entry is delivered now.
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

    /// The listed addresses: those that wait, and those in force.
    fn named(&self) -> (HashSet<String>, HashSet<String>) {
        let (stayed, waits): (Vec<_>, Vec<_>) =
            self.served.held_list().addresses.into_iter().partition(|held| held.in_force);
        let addresses = |rows: Vec<crate::directory::HeldAddress>| rows.into_iter().map(|row| row.address).collect();
        (addresses(waits), addresses(stayed))
    }

    /// Restarts the program: the file has the recipients in force as they were recorded.
    fn restart(&mut self, in_force: View) {
        let rules = Rules { name: "ad".into(), limits: LIMITS, servers: Arc::default() };
        self.served = Served::nobody(rules).resumed(in_force, self.served.kept());
    }
}

fn of_2101_streamed_deletions_none_stays_in_force(k: usize) {
    let mut lab = Lab::new(k);
    // As slapd sent them: 1,960 before a batch exceeded the limit of 2,000.
    assert_eq!(lab.happens((0..196 * k).map(|n| (n, Fate::Gone)), 98, 1), Outcome::Taken(98));
    assert_eq!(lab.count(0..210 * k + 1, Fate::Gone), 196 * k, "up to the limit it is like any change");
    assert_eq!(lab.happens((196 * k..210 * k + 1).map(|n| (n, Fate::Gone)), 98, 1), Outcome::Held(210 * k + 1));
    assert_eq!(lab.count(0..210 * k + 1, Fate::Lives), 210 * k + 1);
    let list = lab.served.held_list();
    assert_eq!((list.recipients, list.addresses.len()), (210 * k + 1, 2 * (210 * k + 1)));
    let first = list.addresses.iter().find(|held| held.address == key(0)).unwrap();
    assert_eq!((&*first.from, &*first.to, &*first.why), ("mailbox", "nobody", "taken away"));
    assert_eq!(first.since, UnixTime(START), "when it was deleted, not when it was taken back");
    let Lookup::Found(shown) = lab.served.lookup(&key(0)) else { panic!() };
    assert_eq!(&*shown.rule, "test; held since 1970-01-12T13:46:40Z: the directory has nobody now");
    // An administrator corrects it one by one: nothing of the rest takes effect meanwhile.
    assert_eq!(lab.happens((0..205 * k).map(|n| (n, Fate::Lives)), 410, 1), Outcome::Held(5 * k + 1));
    assert_eq!(lab.count(0..210 * k + 1, Fate::Lives), 210 * k + 1);
    assert_eq!(lab.happens((205 * k..210 * k + 1).map(|n| (n, Fate::Lives)), 51, 1), Outcome::Taken(0));
    assert!(!lab.served.is_holding() && lab.served.held_list().addresses.is_empty());
}

fn a_wiped_attribute_is_taken_back_slow_or_fast(k: usize) {
    // Five a second, polled every 10 s as with Active Directory; or all between two polls.
    for (batch, every) in [(50, 10), (250 * k, 10)] {
        let mut lab = Lab::new(k);
        assert_eq!(lab.happens((0..250 * k).map(|n| (n, Fate::Wiped)), batch, every), Outcome::Held(250 * k));
        assert_eq!(lab.count(0..250 * k, Fate::Lives), 250 * k);
        let (waits, stayed) = lab.named();
        assert_eq!((waits.len(), stayed.len()), (500 * k, 0));
    }
}

fn what_is_older_than_the_window_was_no_accident(k: usize) {
    let mut lab = Lab::new(k);
    for hour in 0..2 {
        lab.second = hour * 3_600;
        let deleted = (hour as usize * 190 * k..(hour as usize + 1) * 190 * k).map(|n| (n, Fate::Gone));
        assert_eq!(lab.happens(deleted, 190 * k, 0), Outcome::Taken(190 * k));
    }
    assert_eq!(lab.happens((500 * k..510 * k + 1).map(|n| (n, Fate::Gone)), 101, 0), Outcome::Held(200 * k + 1));
    assert_eq!((lab.count(0..190 * k, Fate::Gone), lab.count(190 * k..380 * k, Fate::Lives)), (190 * k, 190 * k));
}

fn who_is_deleted_and_put_back_within_the_window_does_not_count(k: usize) {
    let mut lab = Lab::new(k);
    for round in 0..3 {
        let numbers = round * 150 * k..(round + 1) * 150 * k;
        assert_eq!(lab.happens(numbers.clone().map(|n| (n, Fate::Gone)), 150 * k, 60), Outcome::Taken(150 * k));
        assert_eq!(lab.happens(numbers.map(|n| (n, Fate::Lives)), 150 * k, 60), Outcome::Taken(0));
    }
}

#[test]
fn small_firms_reach_the_limit_too() {
    let mut lab = Lab::of(table(68));
    assert_eq!(guard::most(&LIMITS, 68), 6);
    assert_eq!(lab.happens((0..45).map(|n| (n, Fate::Wiped)), 1, 1), Outcome::Held(45));
    assert_eq!(lab.count(0..68, Fate::Lives), 68);
}

fn mailboxes_for_people_of_the_other_side_are_not_used(k: usize) {
    let mut lab = Lab::new(k);
    let limit = guard::most(&LIMITS, ALL * k);
    assert_eq!(limit, 200 * k);
    // With the usual limits 300 are not too many of 100,000, though they count; of 2,000 recipients 50 may change.
    let mut small = Lab::of(table(2_000));
    for lab in [&mut lab, &mut small] {
        lab.seen.elsewhere = (200_000..200_300).map(key).collect();
    }
    let few = (200_000..200_000 + 30 * k).map(|n| (n, Fate::Lives));
    assert_eq!(lab.happens(few, 10 * k, 1), Outcome::Taken(10 * k));
    let gone = (0..170 * k + 1).map(|n| (n, Fate::Gone));
    assert_eq!(lab.happens(gone, 200 * k, 1), Outcome::Held(200 * k + 1));
    assert_eq!(lab.count(200_000..200_000 + 30 * k, Fate::Wiped), 30 * k, "with the others they are too many");
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
    // Other new addresses are used at once, and these once an operator accepts them.
    small.happens([(300_000, Fate::Lives)], 1, 1);
    assert_eq!(small.fate(300_000), Fate::Lives);
    small.with(|served, now| served.accept_only(&[key(200_007)], now));
    assert_eq!(small.fate(200_007), Fate::Lives);
    assert_eq!(small.served.held(), 299);
    assert_eq!(small.served.accept(), 299);
    assert_eq!(small.count(200_000..200_300, Fate::Lives), 300);
}

fn of_those_moved_only_whose_mail_arrived_stay(k: usize) {
    let mut lab = Lab::new(k);
    lab.happens((0..199 * k).map(|n| (n, Fate::Moved)), 199, 60);
    // 700 have had mail at their new destination since.
    lab.seen.arrived = (0..70 * k).map(key).collect();
    assert_eq!(lab.happens((199 * k..201 * k).map(|n| (n, Fate::Moved)), 5, 1), Outcome::Held(201 * k));
    assert_eq!((lab.count(0..70 * k, Fate::Moved), lab.count(70 * k..201 * k, Fate::Lives)), (70 * k, 131 * k));
    let (waits, stayed) = lab.named();
    assert_eq!((waits.len(), stayed.len()), (2 * 131 * k, 2 * 70 * k));
    assert!((0..201 * k).all(|n| waits.contains(&key(n)) || stayed.contains(&key(n))), "the list names everybody");
    // Accepting half takes that half, and accepting one address of a recipient takes all of them.
    let half: Vec<String> = (70 * k..135 * k).map(key).collect();
    assert_eq!(lab.with(|served, now| served.accept_only(&half, now)), 65 * k);
    assert_eq!((lab.count(70 * k..135 * k, Fate::Moved), lab.count(135 * k..201 * k, Fate::Lives)), (65 * k, 66 * k));
    assert_eq!(lab.served.held(), 66 * k + 70 * k);
    // A recipient that kept its new destination is moved back: that is taken, it is no accident.
    assert_eq!(lab.happens([(0, Fate::Lives)], 1, 1), Outcome::Held(66 * k + 70 * k - 1));
    assert_eq!(lab.fate(0), Fate::Lives);
    // A full read does not change this.
    let latest = lab.served.latest().clone();
    assert_eq!(lab.read(latest), Outcome::Held(66 * k + 70 * k - 1));
    assert_eq!(lab.served.accept(), 66 * k);
    assert_eq!(lab.count(1..201 * k, Fate::Moved), 201 * k - 1);
}

fn a_restart_forgets_neither_what_changed_nor_what_is_held(k: usize) {
    let mut lab = Lab::new(k);
    lab.happens((0..199 * k).map(|n| (n, Fate::Gone)), 199, 60);
    let in_force = lab.served.current().clone();
    lab.restart(in_force.clone());
    assert_eq!(lab.happens((199 * k..201 * k).map(|n| (n, Fate::Gone)), 20, 1), Outcome::Held(201 * k));
    let latest = lab.served.latest().clone();
    // The file has no held changes: it has what was in force when the limit was exceeded.
    lab.restart(in_force);
    assert!(lab.served.is_holding() && lab.served.held() > 0);
    assert_eq!(lab.count(0..201 * k, Fate::Lives), 201 * k);
    assert_eq!(lab.read(latest.clone()), Outcome::Held(201 * k));
    assert_eq!(
        lab.served.held_list().addresses.iter().find(|held| held.address == key(0)).unwrap().since,
        UnixTime(START)
    );
    // Few wait, and no limit lets them through.
    let most: Vec<String> = (0..200 * k).map(key).collect();
    assert_eq!(lab.with(|served, now| served.accept_only(&most, now)), 200 * k);
    let in_force = lab.served.current().clone();
    lab.restart(in_force);
    assert_eq!(lab.read(latest), Outcome::Held(k));
    assert_eq!((lab.count(0..200 * k, Fate::Gone), lab.count(200 * k..201 * k, Fate::Lives)), (200 * k, k));
}

fn what_is_announced_neither_counts_nor_is_held(k: usize) {
    let mut lab = Lab::new(k);
    let announced = Announced::Only((0..500 * k).map(key).collect());
    lab.with(|served, now| served.announce(announced, QueueTime(START + 7_200), now));
    assert_eq!(lab.happens((0..500 * k).map(|n| (n, Fate::Moved)), 1_000, 1), Outcome::Taken(0));
    assert_eq!(lab.count(0..500 * k, Fate::Moved), 500 * k);
    // An accident at the same time, which does not concern them.
    assert_eq!(lab.happens((500 * k..700 * k + 1).map(|n| (n, Fate::Gone)), 1_000, 1), Outcome::Held(200 * k + 1));
    assert_eq!(
        (lab.count(0..500 * k, Fate::Moved), lab.count(500 * k..700 * k + 1, Fate::Lives)),
        (500 * k, 200 * k + 1)
    );
    lab.happens((400 * k..500 * k).map(|n| (n, Fate::Lives)), 1_000, 1);
    assert_eq!(lab.count(400 * k..500 * k, Fate::Lives), 100 * k, "while changes are held too");
    // Announcing a held change takes it.
    let announced = Announced::Only(vec![key(500 * k)]);
    lab.with(|served, now| served.announce(announced, QueueTime(START + 7_200), now));
    assert_eq!((lab.fate(500 * k), lab.served.held()), (Fate::Gone, 200 * k));
}

fn a_number_is_announced_and_used_up(k: usize) {
    let mut lab = Lab::new(k);
    lab.with(|served, now| served.announce(Announced::Any(300 * k), QueueTime(START + 7_200), now));
    assert_eq!(lab.happens((0..300 * k).map(|n| (n, Fate::Moved)), 100 * k, 1), Outcome::Taken(100 * k));
    assert_eq!(lab.happens((300 * k..500 * k).map(|n| (n, Fate::Moved)), 100 * k, 1), Outcome::Taken(100 * k));
    assert_eq!(lab.happens([(500 * k, Fate::Moved)], 1, 1), Outcome::Held(200 * k + 1), "the limit stands beyond it");
    assert_eq!(
        (lab.count(0..300 * k, Fate::Moved), lab.count(300 * k..500 * k + 1, Fate::Lives)),
        (300 * k, 200 * k + 1)
    );
}

/// Each with 10,000 and with 100,000 recipients.
macro_rules! accidents {
    ($($name:ident),* $(,)?) => {
        mod of_10000 {
            $(#[test] fn $name() { super::$name(1); })*
        }
        mod of_100000 {
            $(#[test] #[ignore = "three minutes without optimization: cargo test --lib accidents -- --ignored"] fn $name() { super::$name(10); })*
        }
    };
}

accidents!(
    of_2101_streamed_deletions_none_stays_in_force,
    a_wiped_attribute_is_taken_back_slow_or_fast,
    what_is_older_than_the_window_was_no_accident,
    who_is_deleted_and_put_back_within_the_window_does_not_count,
    mailboxes_for_people_of_the_other_side_are_not_used,
    of_those_moved_only_whose_mail_arrived_stay,
    a_restart_forgets_neither_what_changed_nor_what_is_held,
    what_is_announced_neither_counts_nor_is_held,
    a_number_is_announced_and_used_up,
);
