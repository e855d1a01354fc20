//! What a next hop accepted lately is remembered (DESIGN section 5, "doubt is temporary"): an "unknown recipient" about
//! it is doubted, and mail for it waits while the next hop is away.

use crate::cut_through::fixture::{TwoHops, envelope, letter, say};
use support::senders::Raw;

/// A message that is accepted.
fn arrives(two: &TwoHops, id: &str, to: &str) {
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &[to]);
    say(&mut raw, &format!("{}.", letter(id, 0)), "250");
}

fn rcpt(raw: &mut Raw, from: &str, to: &str, expected: &str) {
    say(raw, &format!("MAIL FROM:<{from}>"), "250");
    say(raw, &format!("RCPT TO:<{to}>"), expected);
    say(raw, "RSET", "250");
}

#[test]
fn who_was_there_lately_is_not_believed_to_be_gone() {
    let two = TwoHops::start("", "", "");
    arrives(&two, "one", "p0@c.test");
    arrives(&two, "two", "s0@c.test");
    let unknown = "rcpt => 550 5.1.1 no such user";
    two.primary.follow(unknown);
    two.secondary.follow(unknown);
    let mut raw = two.stranger();
    for (to, expected) in [
        ("p0@c.test", "451 4.3.0"),
        ("P0@C.TEST", "451 4.3.0"),
        ("s0@c.test", "451 4.3.0"),
        ("p1@c.test", "451 4.3.0"),
        ("s1@c.test", "550 5.1.1"),
    ] {
        rcpt(&mut raw, "ann@outside.test", to, expected);
    }
    // Other refusals are about other things, and are believed.
    two.primary.follow("rcpt => 552 5.2.2 mailbox full");
    rcpt(&mut raw, "ann@outside.test", "p0@c.test", "552 5.2.2");
    two.primary.follow("");
    rcpt(&mut raw, "ann@outside.test", "p0@c.test", "250");
    assert!(two.network.queue().is_empty() && two.network.senders.all().is_empty());
}

#[test]
fn who_was_there_lately_is_queued_for_while_the_next_hop_is_away() {
    let two = TwoHops::start("", "", "");
    arrives(&two, "one", "s0@c.test");
    two.secondary.follow("greeting => 421 4.3.2 away\nmail => 421 4.3.2 away");
    let mut raw = two.stranger();
    rcpt(&mut raw, "ann@outside.test", "s1@c.test", "451 4.4.1");
    arrives(&two, "two", "s0@c.test");
    two.network.waits("s0@c.test", "421");
    two.secondary.follow("");
    two.network.deliver();
    assert_eq!(two.secondary.taken(), ["s0@c.test", "s0@c.test"]);
}

#[test]
fn twenty_known_recipients_refused_in_a_row_are_the_next_hops_fault() {
    let two = TwoHops::start("rcpt => 550 5.1.1 no such user", "rcpt => 550 5.1.1 no such user", "");
    // Strangers guess addresses of the secondary: nothing follows from that.
    for session in 0..6 {
        let mut raw = two.stranger();
        for guess in 0..5 {
            rcpt(&mut raw, "spam@outside.test", &format!("s{}@c.test", session * 5 + guess), "550 5.1.1");
        }
    }
    assert_eq!(two.network.alerts("send_connector=secondary "), 0, "guesses are no fault of the next hop");
    two.secondary.follow("");
    rcpt(&mut two.stranger(), "ann@outside.test", "s0@c.test", "250");

    for session in 0..5 {
        let mut raw = two.stranger();
        for number in 0..4 {
            // The directory has them: doubt, until the twentieth shows that it is the next hop.
            let said = if session * 4 + number < 19 { "451 4.3.0" } else { "250" };
            rcpt(&mut raw, "ann@outside.test", &format!("p{}@c.test", session * 4 + number), said);
        }
    }
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["p99@c.test"]);
    say(&mut raw, &format!("{}.", letter("later", 0)), "250");
    assert!(two.network.alerts("send_connector=primary ") > 0, "nobody is told");
    assert_eq!(two.up("primary"), Some(1.0), "it answers: that is no matter of health");
    assert_eq!(two.network.standing("p99@c.test").unwrap()["state"], "waiting");
    two.primary.follow("");
    two.network.deliver();
    assert_eq!(two.primary.taken(), ["p99@c.test"]);
    assert!(two.network.senders.all().is_empty());
}

/// An unresolved address that a next hop did not know at the dot, alone, is refused at RCPT for a while; nobody else
/// is, and the next hop is not asked.
#[test]
fn who_was_unknown_at_the_dot_is_refused_at_rcpt() {
    let two = TwoHops::start(
        "dot => 550 5.1.1 no such user",
        "full: dot => 550 5.1.1 no such user\ndot s1 => 550 5.1.1 no such user",
        "",
    );
    let mut raw = two.stranger();
    envelope(&mut raw, "ann@outside.test", &["s0@c.test", "s1@c.test", "s2@c.test"]);
    say(&mut raw, &format!("{}.", letter("unknown", 0)), "250");
    let asked = two.secondary.commands("RCPT").len();
    rcpt(&mut raw, "ann@outside.test", "s1@c.test", "550 5.1.1");
    rcpt(&mut two.stranger(), "bob@elsewhere.test", "S1@C.TEST", "550 5.1.1");
    assert_eq!(two.secondary.commands("RCPT").len(), asked);
    rcpt(&mut raw, "ann@outside.test", "s3@c.test", "250");
    rcpt(&mut raw, "ann@outside.test", "s0@c.test", "250");

    // Whom the directory has is doubted: nothing follows at RCPT.
    envelope(&mut raw, "ann@outside.test", &["p0@c.test"]);
    say(&mut raw, &format!("{}.", letter("doubted", 0)), "451 4.3.0");
    rcpt(&mut raw, "ann@outside.test", "p0@c.test", "250");
}
