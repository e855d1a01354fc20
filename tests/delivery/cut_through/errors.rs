//! A next hop counts a client's errors, delays it and hangs up (Postfix: `smtpd_soft_error_limit`,
//! `smtpd_hard_error_limit`): what guesses of one client brought on a connection is not the next one's.

use crate::cut_through::fixture::{TwoHops, envelope, letter, say};
use support::test_network::SOON;
use support::wait_until;

/// The pool keeps no connection that has collected a few refusals, in one transaction or in several.
#[test]
fn a_connection_with_three_refusals_is_retired() {
    for each in [1, 3] {
        // With one slot the next client waits until the connection is in the pool.
        let two = TwoHops::start("", "rcpt to:<guess => 550 5.1.1 no such user", "max_connections = 1");
        for session in 0..3 / each {
            let mut raw = two.stranger();
            say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
            for guess in 0..each {
                say(&mut raw, &format!("RCPT TO:<guess{session}-{guess}@c.test>"), "550 5.1.1");
            }
            say(&mut raw, "QUIT", "221");
        }
        wait_until("it is closed", SOON, || two.secondary.seen()[0].closed);
        let mut raw = two.stranger();
        envelope(&mut raw, "ann@outside.test", &["s0@c.test"]);
        say(&mut raw, &format!("{}.", letter("after", 0)), "250");
        let seen = two.secondary.seen();
        assert_eq!(seen.iter().filter(|seen| !seen.taken.is_empty()).count(), 1, "{each}");
        assert!(seen[0].taken.is_empty(), "{each}: it was used again: {:?}", seen[0].lines);
        assert_eq!((two.up("secondary"), two.network.alerts("")), (Some(1.0), 0), "{each}");
    }
}

/// 421 behind two refusals is the limit of errors of that connection, and no outage: the same client goes on over a new
/// one.
#[test]
fn hanging_up_on_errors_is_no_outage() {
    let script = "rcpt to:<guess => 550 5.1.1 no such user\nfirst: rcpt to:<s0 => 421 4.7.0 Error: too many errors";
    let two = TwoHops::start("", script, "");
    let mut raw = two.stranger();
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    say(&mut raw, "RCPT TO:<s1@c.test>", "250");
    say(&mut raw, "RCPT TO:<guess0@c.test>", "550 5.1.1");
    say(&mut raw, "RCPT TO:<guess1@c.test>", "550 5.1.1");
    say(&mut raw, "RCPT TO:<s0@c.test>", "250");
    say(&mut raw, "DATA", "354");
    say(&mut raw, &format!("{}.", letter("errors", 0)), "250");
    let mut taken = two.secondary.taken();
    taken.sort();
    assert_eq!(taken, ["s0@c.test", "s1@c.test"]);
    assert_eq!((two.up("secondary"), two.network.queue().len()), (Some(1.0), 0));
}

/// The same without refusals before it is the next hop's: unreachable.
#[test]
fn hanging_up_without_errors_is_an_outage() {
    let two = TwoHops::start("", "rcpt to:<s0 => 421 4.7.0 Error: too many errors", "");
    let mut raw = two.stranger();
    say(&mut raw, "MAIL FROM:<ann@outside.test>", "250");
    say(&mut raw, "RCPT TO:<s0@c.test>", "451 4.4.1");
    say(&mut raw, "NOOP", "250");
}
