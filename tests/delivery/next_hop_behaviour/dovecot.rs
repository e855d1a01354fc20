//! LMTP: RFC 2033's answer for each recipient, with everything at once. A real Dovecot, which knows its users at RCPT and
//! their quotas at the dot, and a scripted store that knows them at the dot only.

use crate::cut_through::fixture::{address_space, connector_to, shared_domain};
use crate::next_hop_behaviour::fixture::{sends, sends_much};
use support::dovecot::{Dovecot, User};
use support::senders::Raw;
use support::test_network::{PEOPLE, SOON, TestNetwork};
use support::wait_until;

const SENDER: &str = "ann@outside.test";
const LMTP: &str = "protocol = \"lmtp\"";

/// `p0` and `p1` have room, `p2` has none, `p3` is not there; nobody but the directory's people exists.
#[test]
fn of_several_each_has_the_answer_of_the_store() {
    for size in [0, 300_000] {
        let dovecot = Dovecot::start(
            &[("p0@c.test", 0), ("p1@c.test", 0), ("p2@c.test", 100)].map(|(address, quota)| User { address, quota }),
        );
        let mut network = TestNetwork::prepare();
        network.node.write("people.csv", "address\np0@c.test\np1@c.test\np2@c.test\n");
        let secondary = format!("{LMTP}\n{}", address_space("c.test"));
        network.start(&format!(
            "{PEOPLE}{}{}{}",
            connector_to("primary", dovecot.address(), LMTP),
            connector_to("secondary", dovecot.address(), &secondary),
            shared_domain("c.test", "primary")
        ));
        let mut raw = Raw::hello(network.node.smtp);
        let heard = sends_much(&mut raw, "each", &["p0@c.test", "p2@c.test", "p3@c.test", "p1@c.test"], size);
        assert_eq!(heard.codes(), [250, 250, 550, 250], "{heard:?}");
        assert!(heard.rcpt[2].1.starts_with("550 5.1.1 secondary said:"), "{heard:?}");
        assert!(heard.dot().starts_with("250 2.0.0 queued as"), "one of them needs a report: {heard:?}");
        assert_eq!((dovecot.mails("p0@c.test").len(), dovecot.mails("p1@c.test").len()), (1, 1));
        wait_until("the report", SOON, || network.reports(SENDER).len() == 1);
        let report = &network.reports(SENDER)[0];
        assert_eq!(report.fields("Final-Recipient"), ["rfc822; p2@c.test"], "{report:?}");
        assert_eq!(report.fields("Status"), ["5.2.2"], "{report:?}");
        network.quiet();
        // Alone he is refused, and the connection is in step.
        let heard = sends_much(&mut raw, "alone", &["p2@c.test"], size);
        assert!(heard.last().starts_with("552 5.2.2 primary said:"), "{heard:?}");
        sends_much(&mut raw, "again", &["p0@c.test"], size).is_delivered();
        assert_eq!(network.reports(SENDER).len(), 1);
    }
}

/// M8, M9: unknown only at the dot. Its answers are for each recipient already: nothing goes again.
#[test]
fn unknown_at_the_dot_is_that_recipients_alone() {
    let mut network = TestNetwork::prepare();
    let unknown = "dot x => 550 5.1.1 <x@c.test> User doesn't exist: x@c.test\ndot p9 => 550 5.1.1 User doesn't exist";
    let store = network.hop(unknown);
    network.node.write("people.csv", "address\np0@c.test\np9@c.test\n");
    let secondary = format!("{LMTP}\n{}", address_space("c.test"));
    network.start(&format!(
        "{PEOPLE}{}{}{}",
        connector_to("primary", store.address, LMTP),
        connector_to("secondary", store.address, &secondary),
        shared_domain("c.test", "primary")
    ));
    let door = network.node.smtp;
    let heard = sends(door, "mix", &["s0@c.test", "x1@c.test", "s1@c.test"]);
    assert!(heard.dot().starts_with("250 2.0.0 queued as"), "{heard:?}");
    wait_until("the report", SOON, || network.reports(SENDER).len() == 1);
    assert_eq!(network.reports(SENDER)[0].fields("Final-Recipient"), ["rfc822; x1@c.test"]);
    assert_eq!((store.taken(), store.contents().len()), (vec!["s0@c.test".to_owned(), "s1@c.test".to_owned()], 1));

    // It is known now.
    let asked = store.commands("RCPT TO:<x1@").len();
    let heard = sends(door, "known", &["x1@c.test"]);
    assert!(heard.last().starts_with("550 5.1.1"), "{heard:?}");
    assert_eq!((heard.codes(), store.commands("RCPT TO:<x1@").len()), (vec![550], asked));
    let heard = sends(door, "alone", &["x2@c.test"]);
    assert_eq!((heard.codes(), heard.last().starts_with("550 5.1.1 secondary said:")), (vec![250], true), "{heard:?}");

    // Whom the directory has may have been made a minute ago.
    let heard = sends(door, "new", &["p9@c.test"]);
    assert!(heard.last().starts_with("451 4.3.0"), "{heard:?}");
    let heard = sends(door, "new-mix", &["p0@c.test", "p9@c.test"]);
    assert!(heard.dot().starts_with("250 2.0.0 queued as"), "{heard:?}");
    network.waits("p9@c.test", "");
    store.follow("");
    network.deliver();
    assert_eq!(store.taken().iter().filter(|to| *to == "p9@c.test").count(), 1);
    assert_eq!(store.taken().iter().filter(|to| *to == "p0@c.test").count(), 1);
    assert_eq!(network.reports(SENDER).len(), 1, "nobody else was told anything");
}
