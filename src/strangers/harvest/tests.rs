//! Which clients are detected, what counts as accepted, and reports.

use super::*;

const LIMITS: Limits = Limits {
    unknown_recipients: 20,
    unknown_delay: Duration::from_secs(1),
    unknown_one_session: 200,
    unknown_within: Duration::from_mins(10),
};
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const LATER: Pace = Pace::Later { news: false, times: 1 };

/// The result of these events: `a` accepted, `u` another unknown one, `o` the first unknown one again.
fn paces(harvest: &mut Harvest, what: &str, now: u64) -> Vec<Pace> {
    let session: Arc<str> = "1".into();
    let mut paces = Vec::new();
    for (at, letter) in what.chars().enumerate() {
        let recipient = if letter == 'o' { "o".to_owned() } else { format!("{now} {at}") };
        if letter == 'a' {
            harvest.accepted(CLIENT, &recipient, UnixTime(now));
        } else {
            paces.push(harvest.unknown(CLIENT, &session, &recipient, &LIMITS, UnixTime(now)));
        }
    }
    paces
}

#[test]
fn twenty_different_ones_and_more_than_were_accepted_show_a_harvester() {
    for (what, late) in [
        ("u".repeat(19), 0),
        ("u".repeat(20), 1),
        ("u".repeat(25), 6),
        ("o".repeat(100), 0),
        ("a".repeat(19) + &"u".repeat(20), 1),
        ("a".repeat(20) + &"u".repeat(20), 0),
        (("a".repeat(19) + "u").repeat(250), 0),
        ("au".repeat(100), 0),
        ("u".repeat(20) + &"a".repeat(20) + "u", 2),
        ("a".repeat(1000) + &"u".repeat(510), 11),
        ("a".repeat(9500) + &"u".repeat(510), 0),
    ] {
        let paces = paces(&mut Harvest::default(), &what, 600);
        assert_eq!(paces.iter().filter(|pace| **pace != Pace::AtOnce).count(), late, "{what}");
    }
    let paces = paces(&mut Harvest::default(), &"u".repeat(22), 600);
    assert_eq!(paces[18..], [Pace::AtOnce, Pace::Later { news: true, times: 1 }, LATER, LATER]);
}

#[test]
fn ten_minutes_are_looked_at() {
    let mut harvest = Harvest::default();
    paces(&mut harvest, &"u".repeat(19), 600);
    assert_eq!(paces(&mut harvest, "u", 1199), [Pace::Later { news: true, times: 1 }]);
    assert_eq!(paces(&mut harvest, "u", 1200), [Pace::AtOnce]);
    let mut harvest = Harvest::default();
    paces(&mut harvest, &("a".repeat(50) + &"u".repeat(19)), 600);
    assert_eq!(paces(&mut harvest, &"u".repeat(30), 1190), [Pace::AtOnce; 30]);
    assert_eq!(
        paces(&mut harvest, "u", 1260),
        [Pace::Later { news: true, times: 1 }],
        "what was accepted is forgotten too"
    );
    let mut harvest = Harvest::default();
    paces(&mut harvest, &("a".repeat(4750) + &"u".repeat(250)), 659);
    assert!(!harvest.has_one_session(CLIENT, &LIMITS, UnixTime(1200)), "a newsletter, not its unknown ones alone");
}

#[test]
fn after_two_hundred_one_session_is_left_until_it_ends() {
    let (mut harvest, now) = (Harvest::default(), UnixTime(600));
    assert!(!harvest.has_one_session(CLIENT, &LIMITS, now));
    assert_eq!(paces(&mut harvest, &"u".repeat(199), 600).last(), Some(&LATER));
    assert!(!harvest.has_one_session(CLIENT, &LIMITS, now) && !harvest.one_session_begins(CLIENT));
    assert_eq!(paces(&mut harvest, "uu", 601), [LATER; 2]);
    assert!(harvest.has_one_session(CLIENT, &LIMITS, now));
    assert!(harvest.one_session_begins(CLIENT) && !harvest.one_session_begins(CLIENT), "once");
    let (first, second): (Arc<str>, Arc<str>) = ("1".into(), "2".into());
    let mut says = |session| harvest.unknown(CLIENT, session, "x", &LIMITS, now);
    assert_eq!((says(&second), says(&first)), (Pace::Closed, LATER));
    harvest.left(CLIENT, &second);
    harvest.left(CLIENT, &first);
    assert_eq!(harvest.unknown(CLIENT, &second, "x", &LIMITS, now), LATER);
    assert!(!harvest.has_one_session(CLIENT, &LIMITS, UnixTime(1200)));
    let mut harvest = Harvest::default();
    paces(&mut harvest, &("a".repeat(21) + &"u".repeat(209)), 600);
    assert!(!harvest.has_one_session(CLIENT, &LIMITS, now), "ten times those accepted");
    paces(&mut harvest, "u", 601);
    assert!(harvest.has_one_session(CLIENT, &LIMITS, now));
}

/// Counts after each: `a` another one accepted at RCPT, `o` the same one again; `+` and `-` the reply to the end of
/// data, for all of them.
#[test]
fn what_counts_is_settled_at_the_dot() {
    for (what, expected) in [
        ("aaa", &[1, 2, 3][..]),
        ("ooo", &[1, 1, 1]),
        ("ao+", &[1, 2, 2]),
        ("aa-", &[1, 2, 0]),
        ("o+o+o+", &[1, 1, 1, 2, 2, 3]),
        ("o+o-o-", &[1, 1, 1, 1, 1, 1]),
        ("aa+aa-aa-", &[1, 2, 2, 3, 4, 2, 3, 4, 2]),
    ] {
        let (mut harvest, mut counted, mut named, mut counts) = (Harvest::default(), 0, 0, Vec::new());
        for (at, letter) in what.chars().enumerate() {
            let now = UnixTime(600 + 40 * at as u64);
            match letter {
                '+' | '-' => {
                    harvest.settled(CLIENT, counted, if letter == '+' { named } else { 0 }, now);
                    (counted, named) = (0, 0);
                }
                _ => {
                    let recipient = if letter == 'o' { "o".to_owned() } else { at.to_string() };
                    counted += u64::from(harvest.accepted(CLIENT, &recipient, now));
                    named += 1;
                }
            }
            counts.push(harvest.clients[&CLIENT.into()].accepted());
        }
        assert_eq!(counts, expected, "{what}");
    }
    let mut harvest = Harvest::default();
    harvest.settled(CLIENT, 5, 0, UnixTime(600));
    assert_eq!(harvest.clients[&CLIENT.into()].accepted(), 0, "it was forgotten meanwhile");
}

#[test]
fn reports_stand_by_themselves_and_have_one_refusal_a_second_in_all() {
    let (mut harvest, now) = (Harvest::default(), UnixTime(600));
    let reports = Who { client: CLIENT, sends: Sends::Reports };
    let sessions: Vec<Arc<str>> = (0..4).map(|number| number.to_string().into()).collect();
    let mut times = Vec::new();
    for number in 0..500 {
        let session = &sessions[number / 10 % 4];
        match harvest.unknown(reports, session, &number.to_string(), &LIMITS, now) {
            Pace::AtOnce => times.push(0),
            Pace::Later { times: more, .. } => times.push(more),
            Pace::Closed => panic!("reports end no session"),
        }
    }
    assert_eq!(times[..19], [0; 19]);
    assert_eq!((times[19], times[20], times[30]), (2, 3, 4), "each has its turn");
    assert_eq!(times[30..], [4; 470]);
    assert!(!harvest.has_one_session(CLIENT, &LIMITS, now));
    assert_eq!(paces(&mut harvest, &"u".repeat(19), 600), [Pace::AtOnce; 19], "its other mail is as before");
    sessions[1..].iter().for_each(|session| harvest.left(CLIENT, session));
    let last = harvest.unknown(reports, &sessions[0], "last", &LIMITS, now);
    assert_eq!(last, Pace::Later { news: false, times: 1 });
    // Accepted reports do not compensate a harvester's other mail either.
    (0..100).for_each(|number| _ = harvest.accepted(reports, &number.to_string(), now));
    assert_eq!(paces(&mut harvest, "u", 601), [Pace::Later { news: true, times: 1 }]);
}

#[test]
fn of_any_number_of_clients_some_are_remembered() {
    let mut harvest = Harvest::default();
    for number in 0..20_000_u32 {
        harvest.accepted(IpAddr::V4(number.into()), "a", UnixTime(u64::from(number)));
        assert!(harvest.clients.len() <= CLIENTS);
    }
    assert!(harvest.clients.contains_key(&IpAddr::V4(19_000.into()).into()));
    let nobody = Limits { unknown_recipients: 0, ..LIMITS };
    let session: Arc<str> = "1".into();
    for number in 0..100 {
        let pace = harvest.unknown(CLIENT, &session, &number.to_string(), &nobody, UnixTime(1));
        assert_eq!(pace, Pace::AtOnce);
    }
}
