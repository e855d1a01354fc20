//! Clients that look for addresses, and senders that only look like them.

use std::net::Ipv4Addr;

use crate::attacks::fixture::{AttackSetup, FILTER, names, sends};
use support::senders::{Letter, msmtp, smtplib, swaks};
use support::test_network::SOON;
use support::two_systems::message;
use support::wait_until;

const HARVESTER: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

fn unknown(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|number| format!("x{number}@c.test"))
}

/// Each refusal is told later from the twentieth on; after two hundred it has one session. Nobody else notices.
#[test]
fn a_harvester_is_slowed_down_and_has_one_session_in_the_end() {
    let setup = AttackSetup::start(10, "[receive_connector.limits]\nunknown_delay = \"10ms\"");
    let mut raw = setup.from(HARVESTER);
    assert_eq!(names(&mut raw, unknown(0..19)), [550; 19]);
    assert_eq!(names(&mut raw, std::iter::repeat_n("x0@c.test".to_owned(), 10)), [550; 10], "the same one again");
    assert_eq!(setup.delayed(), 0.0);
    assert_eq!(names(&mut raw, unknown(19..50)), [550; 31]);
    assert_eq!(setup.delayed(), 31.0);
    assert_eq!(setup.network.node.log().matches("looks for addresses").count(), 1);
    let mut other = setup.from(OTHER);
    assert_eq!(names(&mut other, unknown(0..19)), [550; 19]);
    assert_eq!(setup.delayed(), 31.0, "another client is told at once");

    let mut second = setup.from(HARVESTER);
    for from in [50, 100, 150] {
        // Errors end a session, and it comes again.
        assert_eq!(names(&mut setup.from(HARVESTER), unknown(from..from + 40)), [550; 40]);
    }
    assert_eq!(names(&mut raw, unknown(300..335)), [550; 35]);
    assert_eq!(names(&mut second, unknown(400..401)), [421], "the first goes on, the second does not");
    assert_eq!(names(&mut raw, unknown(401..402)), [550]);
    let mut third = support::senders::Raw::connect_from(HARVESTER, setup.network.node.smtp);
    let (code, text) = third.reply();
    assert!(code == 421 && text.contains("one session"), "{text}");
    drop(raw);
    wait_until("it may come again", SOON, || {
        let mut again = support::senders::Raw::connect_from(HARVESTER, setup.network.node.smtp);
        again.reply().0 == 220
    });
    let trace = setup.network.node.run(&["trace", "--since", "1d"]);
    let trace = String::from_utf8_lossy(&trace.stdout).into_owned();
    assert!(trace.contains("looks for addresses"), "{trace}");
    let log = setup.network.node.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!((lines("refusals are told"), lines("it has one session at a time")), (1, 1), "{log}");
    assert_eq!(lines("[receive_connector.limits] of `"), 2, "{log}");
    let away = |line: &str| line.contains("connection turned away") && line.contains(&HARVESTER.to_string());
    assert!(log.lines().any(away), "{log}");
}

/// Where only the dot tells who is unknown, what RCPT took before is no acceptance.
#[test]
fn a_harvester_is_found_out_at_the_dot() {
    let setup = AttackSetup::start(10, "[receive_connector.limits]\nunknown_delay = \"10ms\"");
    let refused = |numbers: std::ops::Range<usize>| {
        let (first, mut raw) = (numbers.start, setup.from(HARVESTER));
        for number in numbers {
            if number > first && number % 5 == 0 {
                raw = setup.from(HARVESTER); // errors end a session
            }
            assert_eq!(sends(&mut raw, number, &[format!("x{number}@r.test")]), 550, "{number}");
        }
    };
    refused(0..19);
    assert_eq!(setup.delayed(), 0.0);
    refused(19..30);
    assert_eq!(setup.delayed(), 11.0);

    // A message that was accepted is one, whoever of it is refused later.
    let mut raw = setup.from(OTHER);
    let known: Vec<String> = (0..25).map(|number| format!("p{number}@r.test")).collect();
    assert_eq!(sends(&mut raw, 100, &known), 250);
    assert_eq!(names(&mut raw, unknown(0..25)), [550; 25]);
    assert_eq!(setup.delayed(), 11.0, "25 are there, and 25 are not");
    assert_eq!(names(&mut raw, unknown(25..26)), [550]);
    assert_eq!(setup.delayed(), 12.0);
    assert_eq!(setup.beyond.taken().len(), 25);
}

/// Whom it knows, a harvester may name as often as it likes: that makes it no newsletter.
#[test]
fn one_known_recipient_again_and_again_hides_nobody() {
    let setup = AttackSetup::start(10, "[receive_connector.limits]\nunknown_delay = \"10ms\"");
    let mut raw = setup.from(HARVESTER);
    for number in 0..19 {
        let known = ["p0@c.test", "P0@c.test", "p0@C.TEST"].map(str::to_owned);
        let codes = names(&mut raw, known.into_iter().chain(unknown(number..number + 1)));
        assert_eq!(codes, [250, 250, 250, 550]);
    }
    assert_eq!(setup.delayed(), 0.0);
    assert_eq!(names(&mut raw, unknown(19..30)), [550; 11]);
    assert_eq!(setup.delayed(), 11.0);
    // Sent to, it counts each time, and only then.
    for number in 0..31 {
        assert_eq!(sends(&mut raw, number, &["p0@c.test".to_owned()]), 250);
    }
    assert_eq!(names(&mut setup.from(HARVESTER), unknown(30..31)), [550]);
    assert_eq!(setup.delayed(), 11.0);
}

/// A client knows hundreds of people, and names them without sending anything: that hides nobody either.
#[test]
fn known_recipients_to_whom_nothing_is_sent_hide_nobody() {
    let setup = AttackSetup::start(300, "[receive_connector.limits]\nunknown_delay = \"10ms\"");
    let mut raw = setup.from(HARVESTER);
    for number in 0..19 {
        let known = (0..90).map(|known| format!("p{}@c.test", (number * 90 + known) % 300));
        let codes = names(&mut raw, known.chain(unknown(number..number + 1)));
        assert_eq!(codes.iter().filter(|code| **code == 250).count(), 90);
    }
    drop(raw);
    raw = setup.from(HARVESTER);
    assert_eq!(setup.delayed(), 0.0);
    assert_eq!(names(&mut raw, unknown(19..30)), [550; 11]);
    assert_eq!(setup.delayed(), 11.0);
}

/// Bounces for senders that somebody forged make no harvester of who sends them: other mail goes on as before.
#[test]
fn a_partner_that_bounces_to_forged_addresses_is_not_taken_for_a_harvester() {
    let setup = AttackSetup::start(10, "[receive_connector.limits]\nunknown_delay = \"1ms\"");
    let mut partner = setup.from(OTHER);
    assert_eq!(sends(&mut partner, 0, &["p0@c.test".to_owned()]), 250);
    let bounces = |raw: &mut support::senders::Raw, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let lines = format!("RSET\r\nMAIL FROM:<>\r\nRCPT TO:<x{number}@c.test>\r\n");
            raw.send(lines.as_bytes());
            assert_eq!([raw.reply().0, raw.reply().0, raw.reply().0], [250, 250, 550], "{number}");
        }
    };
    for session in 0..6 {
        bounces(&mut setup.from(OTHER), session * 50..session * 50 + 50);
    }
    assert_eq!(setup.delayed(), 300.0 - 19.0, "reports for people who are not there come slowly");
    let mut another = setup.from(OTHER);
    for (number, raw) in [&mut partner, &mut another].into_iter().enumerate() {
        assert_eq!(sends(raw, number + 1, &["p1@c.test".to_owned()]), 250);
        assert_eq!(names(raw, unknown(1000 + number..1001 + number)), [550]);
    }
    assert_eq!(setup.delayed(), 300.0 - 19.0, "nothing else does");
    let barred = "fingerpost_sessions_refused_total{reason=\"unknown-recipients\"}";
    assert_eq!(setup.network.node.metric(barred), Some(0.0));
}

/// 5,000 recipients from one address, one in twenty unknown: by itself, and by a filter that is a connector of its own.
#[test]
fn a_newsletter_is_not_slowed_down() {
    let setup = AttackSetup::start(4750, "");
    for address in [Ipv4Addr::new(127, 0, 2, 3), FILTER] {
        let (mut raw, mut accepted, mut refused) = (setup.from(address), 0, 0);
        for issue in 0..50 {
            let all = (issue * 100..issue * 100 + 100).map(|n| match n % 20 {
                7 => format!("x{n}@c.test"),
                _ => format!("p{}@c.test", n - n / 20 - usize::from(n % 20 > 7)),
            });
            for code in names(&mut raw, all) {
                *(if code == 250 { &mut accepted } else { &mut refused }) += 1;
            }
            assert_eq!(raw.say("DATA").0, 354);
            assert_eq!(raw.say(&format!("Message-ID: <{issue}@outside.test>\r\n\r\nHello.\r\n.")).0, 250);
            if issue % 10 == 9 {
                raw = setup.from(address);
            }
        }
        assert_eq!((accepted, refused), (4750, 250), "{address}");
    }
    assert_eq!(setup.delayed(), 0.0);
}

/// Other people's clients, with 200 recipients and a few who have gone: ten times each, from one address.
#[test]
fn ordinary_senders_are_not_slowed_down() {
    let setup = AttackSetup::start(300, "");
    let to: Vec<String> =
        (0..200).map(|n| if n % 20 == 3 { format!("gone{n}@c.test") } else { format!("p{n}@c.test") }).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let known: Vec<&str> = to.iter().copied().filter(|to| to.starts_with('p')).collect();
    for round in 0..3 {
        for name in ["smtplib", "swaks", "msmtp"] {
            // msmtp sends to all or to nobody.
            let to = if name == "msmtp" { &known } else { &to };
            let letter = message(&format!("{name}-{round}"), 500);
            let (server, letter) = (setup.network.node.smtp, Letter { from: "ann@outside.test", to, bytes: &letter });
            let told = match name {
                "smtplib" => smtplib(server, &letter),
                "swaks" => swaks(server, &letter),
                _ => msmtp(server, &letter),
            };
            assert!(told.accepted || name != "msmtp", "{name}: {}", told.printed);
            // Not in a port or an id.
            assert!(!told.printed.contains("421 "), "{name}, {round}: {}", told.printed);
        }
    }
    wait_until("all copies", SOON, || setup.hop.taken().len() >= 9 * known.len());
    assert_eq!((setup.hop.taken().len(), setup.delayed()), (9 * known.len(), 0.0));
}

/// By a filter strangers' mail comes too: whoever is unknown there is no fault of its.
#[test]
fn a_filter_and_its_unknown_recipients_are_never_slowed_down() {
    let setup = AttackSetup::start(10, "");
    for round in 0..3 {
        let mut raw = setup.from(FILTER);
        assert_eq!(names(&mut raw, unknown(round * 90..round * 90 + 90)), [550; 90]);
    }
    assert_eq!(setup.delayed(), 0.0);
    drop((setup.from(FILTER), setup.from(FILTER)));
    assert!(setup.hop.taken().is_empty());
}
