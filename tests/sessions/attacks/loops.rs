//! Recipients that loop and that nobody has any more, in any number: a few are told one by one.

use std::net::Ipv4Addr;

use fingerpost::keys;
use fingerpost::message::header;
use fingerpost::message::stamp::{self, NewStamp};
use fingerpost::smtp::address::Address;
use fingerpost::time::UnixTime;

use crate::attacks::fixture::{AttackSetup, names};
use support::senders::Raw;
use support::test_network::SOON;
use support::wait_until;

const PEOPLE: usize = 30;
const CLIENTS: u8 = 4;
const FIELDS: &str = "From: ann@outside.test\r\nMessage-ID: <loop@outside.test>\r\n\
                      Date: Sat, 21 Nov 2026 04:39:00 +0000\r\n";

/// A message that we sent to all of them a minute ago.
fn stamped(setup: &AttackSetup) -> String {
    let keys = keys::load(&[setup.network.node.path("state/loop.key")], None).unwrap();
    let addresses: Vec<Address> =
        (0..PEOPLE).map(|number| Address::parse(&format!("p{number}@c.test")).unwrap()).collect();
    let identity = header::examine(FIELDS.as_bytes()).identity;
    let (recipients, time) = (addresses.iter().collect::<Vec<_>>(), UnixTime(UnixTime::now().0 - 60));
    let new =
        NewStamp { installation: "mx.contoso.test", via: "inside", time, recipients: &recipients, identity: &identity };
    format!("{}{FIELDS}\r\nbody\r\n.", stamp::sign(keys.signing(), &new))
}

#[test]
fn looped_recipients_that_are_refused_are_told_as_sums() {
    let setup = AttackSetup::start(PEOPLE, "[receive_connector.limits]\nunknown_recipients = 0");
    let begin = |client| -> Raw {
        let mut raw = setup.from(Ipv4Addr::new(127, 0, 3, client));
        assert_eq!(names(&mut raw, (0..PEOPLE).map(|number| format!("p{number}@c.test"))), [250; PEOPLE]);
        raw
    };
    let sessions: Vec<Raw> = (1..=CLIENTS).map(begin).collect();
    // Meanwhile they all leave.
    setup.network.node.write("people.csv", "address\nnobody@c.test\n");
    let mut other = setup.from(Ipv4Addr::new(127, 0, 3, 99));
    wait_until("they are gone", SOON, || names(&mut other, ["p0@c.test".to_owned()].into_iter()) == [550]);
    let message = stamped(&setup);
    for mut raw in sessions {
        assert_eq!(raw.say("DATA").0, 354);
        let (code, text) = raw.say(&message);
        assert!(code == 550 && text.contains("5.1.1"), "{code} {text}");
    }
    let as_sums = setup.network.node.metric("fingerpost_told_as_sums_total{what=\"loops\"}").unwrap();
    let all = PEOPLE * usize::from(CLIENTS);
    wait_until("the others are told", SOON, || {
        let told = setup.network.node.log().matches("looped recipient refused, asked live").count();
        told as f64 + as_sums == all as f64
    });
    assert!(as_sums >= (all - 2 * 10 * usize::from(CLIENTS)) as f64, "{as_sums}: ten of a client in a minute");
}
