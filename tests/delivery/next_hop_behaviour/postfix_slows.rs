//! A real Postfix that is slow, or counts: postscreen, delays after errors, limits of connections and of recipients.
//! It is healthy all the time, and nobody pays for what somebody else did.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::next_hop_behaviour::fixture::{Heard, PostfixSetup, all, allowed, sends_over, sends_pipelined, users};
use support::senders::Raw;

/// P3: postscreen greets after 6 s, with a line of its greeting at once. Whoever would be told to come again waits for it;
/// what may be queued is queued, and gets through from there.
#[test]
fn a_postscreen_that_greets_late_gets_the_mail() {
    let setup = PostfixSetup::start("", "cut_through_patience = \"2s\"");
    let master = setup.postfix.configuration().join("master.cf");
    let text = fs::read_to_string(&master).unwrap();
    let smtpd = format!("{} inet n - n - - smtpd\n", setup.postfix.address());
    assert!(text.contains(&smtpd), "{text}");
    let services = format!(
        "{} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\ndnsblog unix - - n - 0 dnsblog\n\
         tlsproxy unix - - n - 0 tlsproxy\n",
        setup.postfix.address()
    );
    fs::write(&master, text.replace(&smtpd, &services)).unwrap();
    // It is forgotten at once who has passed, so that everybody waits.
    setup.becomes(
        "postscreen_access_list =\npostscreen_greet_action = enforce\npostscreen_greet_wait = 6s\n\
         postscreen_greet_ttl = 1s",
    );
    let begun = Instant::now();
    setup.sends("late", &["s0@c.test"]).is_delivered();
    assert!(begun.elapsed() >= Duration::from_secs(5), "there was no postscreen:\n{}", setup.postfix.log());
    setup.has("s0@c.test", "late");
    assert!(setup.sends("resolved", &["p0@c.test"]).last().starts_with("250 2.0.0"));
    setup.network.deliver();
    setup.has("p0@c.test", "resolved");
    setup.is_up();
    setup.nothing_is_left();
}

/// Of these, each third is unknown.
fn each_third_unknown(session: usize, count: usize) -> Vec<String> {
    let address = |number: usize| match number % 3 {
        2 => format!("x{session}.{number}@c.test"),
        kind => format!("{}{number}@c.test", ["p", "s"][kind]),
    };
    (0..count).map(address).collect()
}

/// Whoever exists is accepted, whoever does not is refused, and the message is delivered.
fn is_right(to: &[String], heard: &Heard) {
    for (to, said) in to.iter().zip(&heard.rcpt) {
        let expected = if to.starts_with('x') { "550 5.1.1" } else { "250" };
        assert!(said.1.starts_with(expected), "{to}: {said:?}");
    }
    assert!(heard.dot().starts_with("250 2.0.0 delivered"), "{heard:?}");
}

/// P7: with Postfix's own limits: a second for each answer after 10 errors, hung up after 20.
#[test]
fn many_unknown_recipients_are_refused_and_the_others_have_their_mail() {
    let setup = PostfixSetup::start("", "");
    std::thread::scope(|scope| {
        for session in 0..3 {
            let setup = &setup;
            scope.spawn(move || {
                let mut raw = Raw::hello(setup.door());
                let to = each_third_unknown(session, 30);
                let heard = match session {
                    0 => sends_over(&mut raw, &format!("third-{session}"), &all(&to)),
                    _ => sends_pipelined(&mut raw, &format!("third-{session}"), &all(&to)),
                };
                is_right(&to, &heard);
            });
        }
    });
    for session in 0..3 {
        setup.has("p0@c.test", &format!("third-{session}"));
        setup.has("s28@c.test", &format!("third-{session}"));
    }
    setup.is_up();
    setup.nothing_is_left();
}

/// P7: nobody has errors enough to be delayed, but all of them together do: their connections are not handed on.
#[test]
fn who_comes_after_many_errors_does_not_pay_for_them() {
    let delay = Duration::from_secs(20);
    let setup = PostfixSetup::start("smtpd_error_sleep_time = 20s", "max_connections = 1");
    for round in 0..3 {
        let begun = Instant::now();
        for harvester in 0..3 {
            let mut raw = Raw::hello(setup.door());
            let to: Vec<String> = (0..7).map(|number| format!("x{round}.{harvester}.{number}@c.test")).collect();
            let heard = sends_pipelined(&mut raw, "harvest", &all(&to));
            assert_eq!(heard.codes(), [550; 7], "{heard:?}");
        }
        setup.sends(&format!("after-{round}"), &["s0@c.test"]).is_delivered();
        assert!(begun.elapsed() < delay, "it took {:?}", begun.elapsed());
    }
    setup.is_up();
    setup.nothing_is_left();
}

/// P7: more errors than it bears on one connection, in one transaction.
#[test]
fn an_error_limit_within_a_transaction_is_got_over_on_another_connection() {
    let setup = PostfixSetup::start("smtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 8", "");
    for (session, pipelined) in [(0, false), (1, true)] {
        let mut raw = Raw::hello(setup.door());
        let to = each_third_unknown(session, 60);
        let id = format!("limit-{session}");
        let send = if pipelined { sends_pipelined } else { sends_over };
        let heard = send(&mut raw, &id, &all(&to));
        is_right(&to, &heard);
        setup.has("s58@c.test", &id);
        setup.has("p0@c.test", &id);
    }
    assert!(setup.postfix.log().contains("too many errors"), "its limit was never reached");
    setup.is_up();
    setup.nothing_is_left();
}

/// P5: five connections, a sixth is greeted with 421; each message takes a second there, and twelve clients send.
#[test]
fn a_limit_of_connections_is_kept_and_all_mail_gets_through() {
    let few = "smtpd_client_connection_count_limit = 5\nsmtpd_client_event_limit_exceptions =\n\
               smtpd_end_of_data_restrictions = sleep 1";
    let setup = PostfixSetup::start(few, "");
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (setup, wrong) = (&setup, &wrong);
            scope.spawn(move || {
                for message in 0..2 {
                    let heard = setup.sends(&format!("few-{client}-{message}"), &[&format!("s{client}@c.test")]);
                    if !heard.last().starts_with("250 2.0.0 delivered") {
                        wrong.lock().unwrap().push(heard);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of 24: {wrong:?}", wrong.len());
    assert!(setup.postfix.log().contains("Connection concurrency limit exceeded"), "its limit was never reached");
    let allowed = allowed(&setup.network, "secondary", setup.postfix.address());
    assert!((1.0..20.0).contains(&allowed), "{allowed} connections of 20");
    for client in 0..12 {
        setup.has(&format!("s{client}@c.test"), &format!("few-{client}-1"));
    }
    setup.is_up();
    setup.nothing_is_left();
}

/// More recipients than it takes: its `452 4.5.3` is the client's, who comes with the others afterwards.
#[test]
fn a_limit_of_recipients_is_the_clients() {
    let setup = PostfixSetup::start("smtpd_recipient_limit = 10", "");
    for (kind, send) in [("p", sends_over as fn(&mut Raw, &str, &[&str]) -> Heard), ("s", sends_pipelined)] {
        let mut raw = Raw::hello(setup.door());
        let mut to = users(kind, 0..24);
        for (part, expected) in [10, 10, 4].into_iter().enumerate() {
            let id = format!("{kind}-part-{part}");
            let heard = send(&mut raw, &id, &all(&to));
            let (taken, left) = heard.rcpt.split_at(expected);
            assert!(taken.iter().all(|said| said.0 == 250), "{heard:?}");
            assert!(left.iter().all(|said| said.1.starts_with("452 4.5.3 ")), "{heard:?}");
            assert!(heard.dot().starts_with("250 2.0.0 delivered"), "{heard:?}");
            setup.has(&to[0], &id);
            to.drain(..expected);
        }
    }
    setup.is_up();
    setup.nothing_is_left();
}
