//! The rules as tables: who is asked, who is refused, who comes later.

use super::*;

const HOME: &str = "192.0.2.1";
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;

fn guesses() -> Guesses {
    Guesses::new([7; 16])
}

fn guess(guesses: &Guesses, client: &str, name: &str, password: &str) -> Guess {
    guesses.guess(client.parse().unwrap(), "directory", (name, password))
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
    let elsewhere = table.guess(HOME.parse().unwrap(), "users:file", ("ann", "wrong"));
    assert_eq!(table.step(&elsewhere, UnixTime(1)), Step::Ask, "another source was not asked");
    // Said again and again, it does not last longer for that.
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
    // Another one that logs in changes nothing for others.
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

/// What the account may still be asked by this guess.
fn reach(table: &mut Guesses, client: &str, password: &str, at: u64) -> Result<Option<Reach>, TooMany> {
    let guess = guess(table, client, "ann", password);
    table.reach(&guess, "CN=Ann", UnixTime(at))
}

#[test]
fn three_wrong_passwords_of_strangers_reach_an_account() {
    let mut table = guesses();
    let mut reached = 0;
    for number in 0..100 {
        let client = format!("198.51.100.{number}");
        reached += usize::from(reach(&mut table, &client, &number.to_string(), number).is_ok());
    }
    assert_eq!(reached, 3);
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
        let _ = reach(&mut table, "198.51.100.1", &number.to_string(), 1);
    }
    for number in 0..50 {
        assert!(matches!(reach(&mut table, HOME, &number.to_string(), 2), Ok(None)), "{number}");
    }
    // From where many failed three more reach the account.
    fail(&mut table, HOME, 20, 3);
    let reached = (0..50).filter(|number| reach(&mut table, HOME, &number.to_string(), 4).is_ok()).count();
    assert_eq!(reached, 3);
}

#[test]
fn a_right_password_takes_no_place() {
    let mut table = guesses();
    for number in 0..50 {
        let reached = reach(&mut table, &format!("198.51.100.{number}"), "right", 5);
        table.forget(reached.unwrap().unwrap());
    }
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
