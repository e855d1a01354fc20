//! The rules as tables: which attempts are asked, refused or told to come later.

use super::*;

const HOME: &str = "192.0.2.1";
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

fn guesses() -> Guesses {
    Guesses::new([7; 16])
}

fn guess(guesses: &Guesses, client: &str, name: &str, password: &str) -> Guess {
    guesses.guess(client.parse().unwrap(), "directory", name, password)
}

/// This many different passwords fail.
fn fail(guesses: &mut Guesses, client: &str, count: usize, at: u64) -> usize {
    let begun = (0..count).filter(|number| {
        let guess = guess(guesses, client, &format!("user{number}"), &format!("{at}-{number}"));
        guesses.refused(&guess, UnixTime(at)) == Limit::Begins
    });
    begun.count()
}

#[test]
fn a_refused_pair_is_not_asked_again_for_ten_minutes() {
    let mut table = guesses();
    table.refused(&guess(&table, HOME, "ann", "wrong"), UnixTime(0));
    for (client, name, password, at, step) in [
        (HOME, "ann", "wrong", 0, Step::Refuse),
        (HOME, "ann", "wrong", 10 * MINUTE - 1, Step::Refuse),
        (HOME, "ann", "wrong", 10 * MINUTE, Step::Ask),
        ("198.51.100.1", "ANN", "wrong", 1, Step::Refuse),
        ("2001:db8::1", "ann", "wrong", 1, Step::Refuse),
        (HOME, "ann", "Wrong", 1, Step::Ask),
        (HOME, "ann", "right", 1, Step::Ask),
        (HOME, "annw", "rong", 1, Step::Ask),
        (HOME, "bob", "wrong", 1, Step::Ask),
    ] {
        assert_eq!(table.step(&guess(&table, client, name, password), UnixTime(at)), step, "{client} {name} {at}");
    }
    let elsewhere = table.guess(HOME.parse().unwrap(), "users:file", "ann", "wrong");
    assert_eq!(table.step(&elsewhere, UnixTime(1)), Step::Ask, "another source was not asked");
    // Repeating it does not prolong the refusal.
    table.refused(&guess(&table, HOME, "ann", "wrong"), UnixTime(9 * MINUTE));
    assert_eq!(table.step(&guess(&table, HOME, "ann", "wrong"), UnixTime(10 * MINUTE)), Step::Ask);
}

#[test]
fn a_client_of_many_different_failures_is_limited_to_those_who_logged_in() {
    let mut table = guesses();
    table.accepted(&guess(&table, HOME, "ann", "right"), UnixTime(0));
    assert_eq!(fail(&mut table, HOME, 19, 100), 0);
    assert_eq!(table.step(&guess(&table, HOME, "new", "right"), UnixTime(100)), Step::Ask, "19 failed");
    assert_eq!(fail(&mut table, HOME, 20, 100), 1, "it begins once");
    for (client, name, at, step) in [
        (HOME, "new", 100, Step::Later),
        (HOME, "ann", 100, Step::Ask),
        (HOME, "Ann", 100, Step::Ask),
        ("::ffff:192.0.2.1", "new", 100, Step::Later),
        ("192.0.2.2", "new", 100, Step::Ask),
        (HOME, "new", 100 + 30 * MINUTE - 1, Step::Later),
        (HOME, "new", 100 + 30 * MINUTE, Step::Ask),
    ] {
        assert_eq!(table.step(&guess(&table, client, name, "right"), UnixTime(at)), step, "{client} {name} {at}");
    }
    // A login of another user changes nothing for others.
    table.accepted(&guess(&table, HOME, "ann", "right"), UnixTime(101));
    assert_eq!(table.step(&guess(&table, HOME, "new", "right"), UnixTime(102)), Step::Later);
    assert_eq!(fail(&mut table, HOME, 20, 100 + 31 * MINUTE), 1, "it begins anew");
}

#[test]
fn a_login_counts_for_thirty_days_and_over_a_restart() {
    let mut table = guesses();
    table.accepted(&guess(&table, "2001:db8:0:1::1", "ann", "right"), UnixTime(0));
    assert_eq!(table.changes(), 1);
    table.accepted(&guess(&table, "2001:db8:0:1::1", "ann", "right"), UnixTime(59 * MINUTE));
    assert_eq!(table.changes(), 1, "not worth a change of the file");
    let bytes = table.to_bytes();
    let mut table = Guesses::from_bytes(&bytes).unwrap();
    for (at, step) in [(29 * DAY, Step::Ask), (30 * DAY - 1, Step::Ask), (30 * DAY, Step::Later)] {
        fail(&mut table, "2001:db8:0:1::2", 20, at);
        let same_network = guess(&table, "2001:db8:0:1:ffff::3", "ann", "right");
        assert_eq!(table.step(&same_network, UnixTime(at)), step, "{at}");
    }
    assert_eq!(Guesses::from_bytes(&bytes[1..]).err(), Some(Malformed::Kind));
    assert_eq!(Guesses::from_bytes(b"").err(), Some(Malformed::Kind));
    for cut in 30..bytes.len() {
        assert_eq!(Guesses::from_bytes(&bytes[..cut]).err(), Some(Malformed::Checksum), "{cut}");
    }
}

#[test]
fn one_wrong_password_said_for_ever_is_one_failure() {
    let mut table = guesses();
    for at in 0..200 {
        let wrong = guess(&table, HOME, "scanner", "old");
        assert_ne!(table.step(&wrong, UnixTime(at * 9)), Step::Later);
        assert_eq!(table.refused(&wrong, UnixTime(at * 9)), Limit::Unchanged);
    }
    assert_eq!(table.step(&guess(&table, HOME, "ann", "right"), UnixTime(1800)), Step::Ask);
}

/// Whether the account may be asked about this attempt.
fn reach(table: &mut Guesses, client: &str, password: &str, at: u64) -> Result<Reach, Closed> {
    let guess = guess(table, client, "ann", password);
    table.reach(&guess, "CN=Ann", UnixTime(at))
}

/// The same, with its result.
fn reached(table: &mut Guesses, client: &str, password: &str, outcome: Outcome, at: u64) -> Result<(), Closed> {
    let reach = reach(table, client, password, at)?;
    table.settle(reach, outcome, UnixTime(at));
    Ok(())
}

fn is_wait(result: &Result<Reach, Closed>) -> bool {
    matches!(result, Err(Closed::Wait(_)))
}

#[test]
fn three_wrong_passwords_of_strangers_reach_an_account() {
    let mut table = guesses();
    for number in 0..100 {
        let (client, password) = (format!("198.51.100.{number}"), number.to_string());
        let expected = if number < 3 { Ok(()) } else { Err(Closed::Wrong) };
        assert_eq!(reached(&mut table, &client, &password, Outcome::Wrong, number), expected, "{number}");
    }
    let other = guess(&table, HOME, "bob", "x");
    assert!(table.reach(&other, "CN=Bob", UnixTime(100)).is_ok(), "another account is not touched");
    assert!(reach(&mut table, HOME, "x", 30 * MINUTE - 1).is_err());
    assert!(reach(&mut table, HOME, "x", 30 * MINUTE).is_ok());
}

#[test]
fn who_logged_in_from_there_is_asked_as_usual_and_strangers_take_nothing_from_him() {
    let mut table = guesses();
    table.accepted(&guess(&table, HOME, "ann", "right"), UnixTime(0));
    for number in 0..5 {
        let _ = reached(&mut table, "198.51.100.1", &number.to_string(), Outcome::Wrong, 1);
    }
    for number in 0..50 {
        assert_eq!(reached(&mut table, HOME, &number.to_string(), Outcome::Wrong, 2), Ok(()), "{number}");
    }
    // From a client with many failures three more reach the account.
    fail(&mut table, HOME, 20, 3);
    let wrong = |number: &u32| reached(&mut table, HOME, &number.to_string(), Outcome::Wrong, 4).is_ok();
    assert_eq!((0..50).filter(wrong).count(), 3);
}

#[test]
fn a_right_password_takes_no_place_for_long() {
    let mut table = guesses();
    for number in 0..50 {
        let client = format!("198.51.100.{number}");
        for outcome in [Outcome::Right, Outcome::NotLookedAt] {
            assert_eq!(reached(&mut table, &client, "right", outcome, 5), Ok(()), "{number}");
        }
    }
    assert!(table.under_way.is_empty());
}

#[test]
fn as_many_as_may_be_wrong_are_under_way_and_the_next_one_waits() {
    let mut table = guesses();
    let under_way: Vec<Reach> =
        (0..3).map(|n| reach(&mut table, &format!("192.0.2.1{n}"), "right", 0).unwrap()).collect();
    let fourth = reach(&mut table, HOME, "right", 0);
    assert!(is_wait(&fourth), "{fourth:?}");
    let Err(Closed::Wait(awaited)) = fourth else { return };
    // A right one frees room, a wrong one does not, and the third wrong one exhausts the limit.
    assert_eq!(table.settle(under_way[0], Outcome::Right, UnixTime(1)), Some(awaited));
    let fourth = reach(&mut table, HOME, "right", 1).unwrap();
    assert!(is_wait(&reach(&mut table, HOME, "other", 1)));
    table.settle(under_way[1], Outcome::Wrong, UnixTime(2));
    assert!(is_wait(&reach(&mut table, HOME, "other", 2)));
    table.settle(under_way[2], Outcome::Wrong, UnixTime(2));
    assert!(is_wait(&reach(&mut table, HOME, "other", 2)));
    table.settle(fourth, Outcome::Wrong, UnixTime(3));
    assert_eq!(reach(&mut table, HOME, "other", 3).err(), Some(Closed::Wrong));
    assert!(table.under_way.is_empty());
    // The time counts from the answer, before which the directory counted it.
    assert!(reach(&mut table, HOME, "other", 30 * MINUTE + 1).is_err());
    assert!(reach(&mut table, HOME, "other", 30 * MINUTE + 2).is_ok());
}

/// However many are in progress, and in whatever order they are answered.
#[test]
fn never_more_than_three_wrong_ones_whatever_is_under_way() {
    let mut table = guesses();
    let (mut under_way, mut wrong, mut number) = (Vec::new(), Vec::new(), 0_u64);
    for at in 0..4 * 30 * MINUTE {
        for _ in 0..5 {
            number += 1;
            under_way.extend(reach(&mut table, &format!("2001:db8:{:x}::1", number % 0xffff), &number.to_string(), at));
        }
        assert!(under_way.len() <= 3);
        let outcome =
            [Outcome::Wrong, Outcome::Right, Outcome::Unanswered, Outcome::NotLookedAt][number as usize / 7 % 4];
        if at % 3 == 0 && !under_way.is_empty() {
            let reach: Reach = under_way.swap_remove(number as usize % under_way.len());
            table.settle(reach, outcome, UnixTime(at));
            wrong.extend(matches!(outcome, Outcome::Wrong | Outcome::Unanswered).then_some(at));
        }
        assert!(wrong.iter().filter(|then| at - **then < 30 * MINUTE).count() <= 3, "{at}");
    }
    assert!(wrong.len() >= 9, "{wrong:?}");
}

#[test]
fn what_was_never_answered_may_have_been_wrong() {
    let mut table = guesses();
    for _ in 0..3 {
        assert_eq!(reached(&mut table, HOME, "right", Outcome::Unanswered, 5), Ok(()));
    }
    assert_eq!(reach(&mut table, HOME, "right", 6).err(), Some(Closed::Unanswered));
    // None has failed, and half an hour later everything is forgotten.
    assert_eq!(table.step(&guess(&table, HOME, "ann", "right"), UnixTime(6)), Step::Ask);
    assert!(reach(&mut table, HOME, "right", 5 + 30 * MINUTE).is_ok());

    // If the same password turns out to be right, it was never wrong, from any client.
    let mut table = guesses();
    let office = "192.0.2.200";
    table.accepted(&guess(&table, office, "ann", "old"), UnixTime(0));
    for password in ["right", "right", "guess"] {
        assert_eq!(reached(&mut table, HOME, password, Outcome::Unanswered, 5), Ok(()));
    }
    assert_eq!(reach(&mut table, HOME, "right", 6).err(), Some(Closed::Unanswered));
    assert_eq!(reached(&mut table, office, "right", Outcome::Right, 7), Ok(()));
    for password in ["right", "other"] {
        assert_eq!(reached(&mut table, HOME, password, Outcome::Wrong, 8), Ok(()), "{password}");
    }
    assert_eq!(reach(&mut table, HOME, "another", 9).err(), Some(Closed::Unanswered), "a guess, and two wrong ones");
}

#[test]
fn what_was_refused_while_it_waited_is_not_asked() {
    let mut table = guesses();
    assert!(reach(&mut table, HOME, "wrong", 0).is_ok());
    table.refused(&guess(&table, "198.51.100.1", "ann", "wrong"), UnixTime(1));
    assert_eq!(reach(&mut table, HOME, "wrong", 1).err(), Some(Closed::Refused));
}

/// Begins an attempt of this client.
fn begin(table: &mut Guesses, name: &str, password: &str) -> Step {
    let guess = guess(table, HOME, name, password);
    table.begin(&guess, UnixTime(10))
}

#[test]
fn twenty_of_a_client_are_under_way_and_the_next_ones_wait_for_an_answer() {
    let mut table = guesses();
    fail(&mut table, HOME, 5, 1);
    let new: Vec<Guess> = (0..50).map(|number| guess(&table, HOME, &format!("new{number}"), "x")).collect();
    let begun: Vec<Guess> = new.into_iter().filter(|new| table.begin(new, UnixTime(10)) == Step::Ask).collect();
    assert_eq!(begun.len(), 15, "with five that failed");
    assert!(matches!(begin(&mut table, "new50", "x"), Step::Wait(_)));
    let other = table.guess("192.0.2.2".parse().unwrap(), "directory", "new50", "x");
    assert_eq!(table.begin(&other, UnixTime(10)), Step::Ask, "another client");
    table.end(&other);
    // Right ones free room; wrong ones do not, and all wait until the last is answered.
    table.accepted(&begun[0], UnixTime(10));
    table.end(&begun[0]);
    assert_eq!(begin(&mut table, "new50", "x"), Step::Ask);
    for guess in &begun[1..] {
        assert!(matches!(begin(&mut table, "new51", "x"), Step::Wait(_)));
        table.refused(guess, UnixTime(10));
        table.end(guess);
    }
    let last = guess(&table, HOME, "new50", "x");
    assert_eq!(table.refused(&last, UnixTime(10)), Limit::Begins);
    table.end(&last);
    assert!(table.under_way.is_empty());
    assert_eq!((begin(&mut table, "new51", "x"), begin(&mut table, "new0", "x")), (Step::Later, Step::Ask));
}

#[test]
fn users_who_logged_in_from_there_do_not_wait_for_each_other() {
    let mut table = guesses();
    let users: Vec<String> = (0..50).map(|number| format!("user{number}")).collect();
    for user in &users {
        table.accepted(&guess(&table, HOME, user, "right"), UnixTime(0));
    }
    for user in users.iter().chain(&users) {
        assert_eq!(begin(&mut table, user, "right"), Step::Ask, "{user}");
    }
    assert!(matches!(begin(&mut table, "user7", "wrong"), Step::Wait(_)), "many passwords of one are guesses");
    // The same password of a new client is asked once, with any result.
    let mut table = guesses();
    assert_eq!(begin(&mut table, "ann", "right"), Step::Ask);
    assert!(matches!(begin(&mut table, "ann", "right"), Step::Wait(_)));
    assert_eq!(begin(&mut table, "ann", "another"), Step::Ask);
    let ann = guess(&table, HOME, "ann", "right");
    table.accepted(&ann, UnixTime(10));
    table.end(&ann);
    assert_eq!([begin(&mut table, "ann", "right"), begin(&mut table, "ann", "right")], [Step::Ask; 2]);
}

#[test]
fn its_format() {
    let mut guesses = Guesses::new([9; 16]);
    guesses.known.insert(0x0102_0304_0506_0708, (), UnixTime(1_800_000_000));
    let format = crate::formats::Format { name: "known-logins", extension: "bin", oldest: 1, current: 1 };
    format.check(&guesses.to_bytes(), |_, bytes| {
        let read = Guesses::from_bytes(bytes).unwrap();
        assert_eq!(
            read.known.iter(UnixTime(1_800_000_000)).collect::<Vec<_>>(),
            [(0x0102_0304_0506_0708, UnixTime(1_800_000_000))]
        );
        assert_eq!(read.key, [9; 16]);
    });
}
