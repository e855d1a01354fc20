//! Dovecot as part of the conversation: its answers are the sender's, and what it does not take is queued or reported
//! before the 250.

use super::{ALICE, BOB, FULL, GONE, NOBODY, SENDER, Store, Transport, store_in, users};
use crate::cut_through::fixture::{envelope, letter, say};
use support::dovecot::Dovecot;
use support::senders::Raw;
use support::test_network::{BY_HAND, SOON};
use support::wait_until;

const CUT_THROUGH: &str = "delivery = \"cut-through\"\nwhen_unreachable = \"queue\"";

/// A Dovecot in which [`FULL`] has no room.
fn store(over: Transport) -> Store {
    store_of(Dovecot::start(&users(100)), over)
}

fn store_of(dovecot: Dovecot, over: Transport) -> Store {
    store_in(dovecot, over, &format!("{CUT_THROUGH}\n{BY_HAND}"))
}

impl Store {
    /// One message of about `size` octets, and the reply to its dot.
    fn sends(&self, id: &str, to: &[&str], size: usize) -> String {
        let mut raw = Raw::hello(self.network.node.smtp);
        envelope(&mut raw, SENDER, to);
        raw.say(&format!("{}.", letter(id, size))).1
    }

    /// Nothing waits, and nobody was told anything.
    fn nothing_is_left(&self) {
        assert!(self.network.queue().is_empty(), "{:?}", self.network.queue());
        assert!(self.network.senders.all().is_empty(), "somebody was told something");
    }
}

#[test]
fn mail_is_in_the_mailbox_before_the_250() {
    for over in [Transport::Tcp, Transport::Socket] {
        let store = store(over);
        // Read first, streamed from memory, streamed beside a file.
        for (number, size) in [0, 100_000, 1_000_000].into_iter().enumerate() {
            let said = store.sends(&format!("taken-{number}"), &[ALICE, BOB], size);
            assert!(said.starts_with("250 2.0.0 delivered as"), "{over:?}, {size}: {said}");
            for to in [ALICE, BOB] {
                let mails = store.dovecot.mails(to);
                assert_eq!(mails.len(), number + 1, "{over:?}: {to}");
                let id = format!("<taken-{number}@outside.test>");
                let mail = mails.iter().find(|mail| mail.field("Message-ID").as_deref() == Some(&id)).unwrap();
                let sent = letter(&format!("taken-{number}"), size);
                assert!(
                    mail.body() == sent.split_once("\r\n\r\n").unwrap().1.as_bytes(),
                    "{over:?}: not what was sent"
                );
                assert_eq!(mail.field("Return-Path").as_deref(), Some("<ann@outside.test>"));
            }
        }
        store.nothing_is_left();
        let accepted = "fingerpost_acceptance_duration_seconds_count{delivery=\"cut-through\"}";
        assert_eq!(store.network.node.metric(accepted), Some(3.0));
    }
}

#[test]
fn a_recipient_that_the_store_does_not_know_is_refused_at_rcpt() {
    for over in [Transport::Tcp, Transport::Socket] {
        let store = store(over);
        let mut raw = Raw::hello(store.network.node.smtp);
        say(&mut raw, &format!("MAIL FROM:<{SENDER}>"), "250");
        say(&mut raw, &format!("RCPT TO:<{ALICE}>"), "250");
        say(&mut raw, &format!("RCPT TO:<{GONE}>"), "451 4.3.0 the recipient is unknown now and should not be");
        say(&mut raw, &format!("RCPT TO:<{NOBODY}>"), "550 5.1.1 primary said:");
        say(&mut raw, &format!("RCPT TO:<{BOB}>"), "250");
        say(&mut raw, "DATA", "354");
        say(&mut raw, &format!("{}.", letter("known", 0)), "250 2.0.0 delivered as");
        assert_eq!((store.dovecot.mails(ALICE).len(), store.dovecot.mails(BOB).len()), (1, 1), "{over:?}");
        store.nothing_is_left();
    }
}

#[test]
fn a_full_mailbox_alone_is_the_senders_answer() {
    let store = store(Transport::Tcp);
    let said = store.sends("full", &[FULL], 0);
    assert!(said.starts_with("552 5.2.2 primary said:"), "{said}");
    assert!(store.dovecot.mails(FULL).is_empty());
    store.nothing_is_left();
}

/// RFC 2033 4.2: one has accepted and cannot be called back, so the other's refusal becomes a report.
#[test]
fn a_full_mailbox_beside_one_with_room_is_reported() {
    for over in [Transport::Tcp, Transport::Socket] {
        let store = store(over);
        let said = store.sends("half", &[ALICE, FULL], 0);
        assert!(said.starts_with("250 2.0.0 queued as"), "{over:?}: {said}");
        assert_eq!(store.dovecot.mails(ALICE).len(), 1, "{over:?}");
        let report = store.report();
        assert_eq!(report.fields("Status"), ["5.2.2"], "{report:?}");
        assert_eq!(report.fields("Final-Recipient"), [format!("rfc822; {FULL}")]);
        assert!(!report.has("unix:"), "{report:?}");
        store.network.quiet();
        assert_eq!((store.dovecot.mails(ALICE).len(), store.dovecot.mails(FULL).len()), (1, 0), "{over:?}");
    }
}

#[test]
fn a_mailbox_that_is_full_for_now_waits_alone() {
    let store = store_of(Dovecot::start_with(&users(100), "quota_full_tempfail = yes\n"), Transport::Tcp);
    let said = store.sends("for-now", &[FULL], 0);
    assert!(said.starts_with("452 4.2.2 primary said:"), "{said}");
    store.nothing_is_left();
    let said = store.sends("half", &[FULL, BOB], 0);
    assert!(said.starts_with("250 2.0.0 queued as"), "{said}");
    assert_eq!(store.dovecot.mails(BOB).len(), 1);
    store.network.waits(FULL, "452 4.2.2");
    store.dovecot.write_users(&users(1 << 20));
    store.network.deliver();
    assert_eq!((store.dovecot.mails(BOB).len(), store.dovecot.mails(FULL).len()), (1, 1));
    assert!(store.network.senders.all().is_empty());
}

#[test]
fn mail_for_a_store_that_is_down_waits_and_arrives_once() {
    for over in [Transport::Tcp, Transport::Socket] {
        let mut store = store(over);
        assert!(store.sends("before", &[ALICE], 0).starts_with("250 2.0.0 delivered as"));
        store.dovecot.pause();
        let said = store.sends("down", &[ALICE, BOB], 0);
        assert!(said.starts_with("250 2.0.0 queued as"), "{over:?}: {said}");
        store.network.waits(ALICE, "cannot connect to");
        store.dovecot.resume();
        store.network.deliver();
        assert_eq!((store.dovecot.mails(ALICE).len(), store.dovecot.mails(BOB).len()), (2, 1), "{over:?}");
        store.nothing_is_left();
        wait_until("it takes part again", SOON, || {
            store.sends("after", &[BOB], 0).starts_with("250 2.0.0 delivered as")
        });
    }
}

/// It goes away between its answer to RCPT and the message. Over TCP we read its `421 shutting down`, over the socket our
/// DATA finds nobody: either way it is a hop that cannot be reached, and the message is queued.
#[test]
fn a_store_that_ends_in_the_middle_has_the_message_once_in_the_end() {
    for over in [Transport::Tcp, Transport::Socket] {
        let mut store = store(over);
        let mut raw = Raw::hello(store.network.node.smtp);
        envelope(&mut raw, SENDER, &[ALICE, BOB]);
        store.dovecot.pause();
        let said = raw.say(&format!("{}.", letter("middle", 0))).1;
        assert!(said.starts_with("250 2.0.0 queued as"), "{over:?}: {said}");
        assert_eq!(store.network.queue().len(), 2, "{over:?}");
        store.dovecot.resume();
        store.network.deliver();
        assert_eq!((store.dovecot.mails(ALICE).len(), store.dovecot.mails(BOB).len()), (1, 1), "{over:?}: {said}");
        store.nothing_is_left();
    }
}
